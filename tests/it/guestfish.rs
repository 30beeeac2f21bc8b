//! Scripts written for guestfish run unchanged, and print what guestfish printed.

use std::fs;
use std::process::Command;

use crate::support::{named, output, small_guest};

/// Runs `NAME.gf` and compares with what guestfish recorded in `NAME.out`.
fn compare(name: &str) {
    let dir = testkit::tempdir();
    let image = small_guest(dir.path());
    let golden = testkit::workspace().join("tests/golden/guestfish");
    let script = golden.join(name).with_extension("gf");
    let text = fs::read_to_string(&script).expect("the script");
    let options =
        text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("options in the first line");

    let mut command = Command::new(named("guestfish", dir.path()));
    command.current_dir(testkit::workspace()).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    for option in options.split_whitespace() {
        match option {
            "IMAGE" => command.arg(&image),
            _ => command.arg(option),
        };
    }
    compare_output(name, &mut command);
}

/// Runs `NAME.gf` with this command, and compares with what guestfish recorded.
fn compare_output(name: &str, command: &mut Command) {
    let script = testkit::workspace().join("tests/golden/guestfish").join(name).with_extension("gf");
    let ours = output(command.arg("-f").arg(&script));
    let theirs = fs::read(script.with_extension("out")).expect("what guestfish printed");
    let (ours_text, theirs_text) = (String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&theirs));
    if let Some((number, (our_line, their_line))) =
        ours_text.lines().zip(theirs_text.lines()).enumerate().find(|(_, (ours, theirs))| ours != theirs)
    {
        let call = theirs_text.lines().take(number + 1).filter(|line| line.starts_with("--- ")).last();
        panic!(
            "{name}.out:{}: in {call:?}\nguestfish: {their_line:?}\n  vmcraft: {our_line:?}\n{}",
            number + 1,
            String::from_utf8_lossy(&ours.stderr),
        );
    }
    assert_eq!(ours.stdout, theirs, "{name}: {}", String::from_utf8_lossy(&ours.stderr));
    assert!(ours.status.success(), "{name}: {}", String::from_utf8_lossy(&ours.stderr));
}

#[test]
fn devices() {
    compare("devices");
}

#[test] // Partition tables of all kinds, labels, sectors of 4096 bytes, and the handle's settings.
fn disks() {
    let dir = testkit::tempdir();
    for tool in ["cryptsetup", "fdisk", "mke2fs", "mkfs.vfat", "mkntfs", "mkswap", "sfdisk"] {
        testkit::require(tool);
    }
    let recipe = testkit::workspace().join("fixtures/partitioned-disks.sh");
    testkit::run_ok("bash", [recipe.as_os_str(), dir.path().as_os_str()]);
    compare_output("disks", Command::new(named("guestfish", dir.path())).current_dir(dir.path()));
}

#[test] // Partition tables and other things that are written to whole devices.
fn partitioning() {
    let dir = testkit::tempdir();
    testkit::require("hexdump");
    compare_output("partitioning", Command::new(named("guestfish", dir.path())).arg("-n"));
}

#[test] // Volume groups and encrypted devices, made and listed; keys are read where the script stands.
fn volumes() {
    let dir = testkit::tempdir();
    let mut command = Command::new(named("guestfish", dir.path()));
    compare_output("volumes", command.args(["-n", "--keys-from-stdin"]));
}

#[test] // All that changes files, links and attributes.
fn changing() {
    compare("changing");
}

#[test]
fn looking() {
    compare("looking");
}

#[test]
fn stat() {
    compare("stat");
}

#[test]
fn reading() {
    compare("reading");
}

#[test]
fn inspection() {
    compare("inspection");
}

#[test]
fn language() {
    compare("language");
}

#[test] // One that is not supported is refused by name, with the reason.
fn every_command_of_guestfish_is_known() {
    let dir = testkit::tempdir();
    let list = testkit::workspace().join("tests/golden/guestfish/commands.txt");
    let commands = std::fs::read_to_string(list).expect("the commands");
    let script = dir.path().join("script");
    let lines: String = commands.lines().chain(["nonesuch"]).map(|name| format!("-help {name}\n")).collect();
    std::fs::write(&script, lines).expect("own directory");
    let done = output(Command::new(named("guestfish", dir.path())).arg("-f").arg(&script));
    let said = String::from_utf8_lossy(&done.stderr);
    let unknown: Vec<_> = said.lines().filter(|line| line.contains("unknown command")).collect();
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert!(unknown[0].contains("nonesuch"), "{unknown:?}");
}
