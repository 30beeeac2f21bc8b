//! The names of other tools, by symbolic link: the same options, the same output.

use std::path::Path;
use std::process::Command;

use crate::support::{named, output, small_guest};

/// Runs the lines of `commands.txt` that begin with `tool`, and compares with what the real tool
/// printed, in the file of the line's number.
fn compare(tool: &str) {
    let dir = testkit::tempdir();
    let image = small_guest(dir.path());
    let image = rename(&image, "small.img");
    let golden = testkit::workspace().join("tests/golden/tools");
    let other = dir.path().join("other.img");
    testkit::run_ok("bash", [golden.join("make-other.sh"), image.clone(), other.clone()]);
    let program = named(tool, dir.path());

    let commands = std::fs::read_to_string(golden.join("commands.txt")).expect("the commands");
    let mut failures = Vec::new();
    let mut count = 0;
    for (index, line) in commands.lines().enumerate() {
        let mut words = line.split(' ');
        if words.next() != Some(tool) {
            continue;
        }
        count += 1;
        let mut command = Command::new(&program);
        command.env("TZ", "UTC");
        for word in words {
            match word {
                "IMAGE" => command.arg(&image),
                "OTHER" => command.arg(&other),
                _ => command.arg(word),
            };
        }
        let ours = output(&mut command);
        let theirs =
            std::fs::read(golden.join(format!("{:02}.out", index + 1))).expect("what the tool printed");
        if ours.stdout != theirs || !ours.status.success() {
            failures.push(format!(
                "{line}\n--- {tool}\n{}\n--- vmcraft ({})\n{}{}",
                String::from_utf8_lossy(&theirs),
                ours.status,
                String::from_utf8_lossy(&ours.stdout),
                String::from_utf8_lossy(&ours.stderr),
            ));
        }
    }
    assert!(count > 0, "no command of {tool} in commands.txt");
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
}

/// The tools print the image's name.
fn rename(image: &Path, name: &str) -> std::path::PathBuf {
    let renamed = image.with_file_name(name);
    std::fs::rename(image, &renamed).expect("own directory");
    renamed
}

#[test]
fn virt_cat() {
    compare("virt-cat");
}

#[test]
fn virt_ls() {
    compare("virt-ls");
}

#[test]
fn virt_filesystems() {
    compare("virt-filesystems");
}

#[test] // What virt-filesystems 1.48 prints of the same disks, but for the parents of the group, one of which it names twice.
fn virt_filesystems_lists_what_lvm_has() {
    let case = testkit::volumes::case("lvm-linear");
    let dir = testkit::tempdir();
    let mut command = Command::new(named("virt-filesystems", dir.path()));
    for disk in &case.disks {
        command.arg("--format=raw").arg("-a").arg(disk);
    }
    let done = output(command.args(["--vgs", "--lvs", "--pvs", "--long", "--uuid", "--csv"]));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let expected = "Name,Type,Size,Parent,UUID\n\
        /dev/vg/between,lv,131072,/dev/vg,vIfdDw-4d1P-1pMv-cZvn-dBa4-ntYf-AqJRAE\n\
        /dev/vg/over,lv,3932160,/dev/vg,j3OmuT-QXoX-7UYr-F1C1-Df22-7GoW-dVKmKH\n\
        /dev/vg/small,lv,458752,/dev/vg,rl1ZnZ-hlf7-tU3h-9Gpk-Ab3V-s2Xw-er6GTc\n\
        /dev/vg,vg,6291456,\"/dev/sda,/dev/sdb\",xCduvaLACQbP7yT1Xh9dOGz0Nu8IbTPn\n\
        /dev/sda,pv,3145728,,6fzx0TuKI12ABUn19siE5tViMUS1PaC5\n\
        /dev/sdb,pv,3145728,,DVjnu33R7SWAOTapHcqZsN2tTpamyFU1\n";
    assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
}

#[test]
fn virt_df() {
    compare("virt-df");
}

#[test]
fn virt_inspector() {
    compare("virt-inspector");
}

#[test] // An option that is not supported is refused by name, with the reason.
fn every_option_of_the_real_tools_is_known() {
    let dir = testkit::tempdir();
    let list = testkit::workspace().join("tests/golden/tools/options.txt");
    let list = std::fs::read_to_string(list).expect("the options");
    let mut unknown = Vec::new();
    for line in list.lines() {
        let (tool, options) = line.split_once(": ").expect("a tool and its options");
        let program = named(tool, dir.path());
        for option in options.split(' ') {
            // What follows keeps the tool from doing what the option asks for; the first may be its value.
            let nonesuch = ["--nonesuch-1", "--nonesuch-2"];
            let done = output(Command::new(&program).arg(option).args(nonesuch));
            let said = String::from_utf8_lossy(&done.stderr);
            if said.contains(&format!("unexpected argument '{option}'")) {
                unknown.push(format!("{tool} {option}"));
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn virt_log() {
    compare("virt-log");
}

#[test]
fn virt_diff() {
    compare("virt-diff");
}

#[test]
fn virt_copy_out_and_virt_tar_out() {
    let dir = testkit::tempdir();
    let image = small_guest(dir.path());
    let saved = dir.path().join("saved");
    std::fs::create_dir(&saved).expect("own directory");
    let copy = output(
        Command::new(named("virt-copy-out", dir.path())).arg("-a").arg(&image).arg("/t/dir").arg(&saved),
    );
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    assert_eq!(std::fs::read(saved.join("dir/hello")).expect("copied"), b"hello");

    let archive = dir.path().join("dir.tar");
    let tar = output(
        Command::new(named("virt-tar-out", dir.path())).arg("-a").arg(&image).arg("/t/dir").arg(&archive),
    );
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let names = output(Command::new("tar").arg("tf").arg(&archive));
    assert_eq!(String::from_utf8_lossy(&names.stdout), "./\n./hello\n./sub/\n./sub/deep\n");
}

#[test] // The real tool prints what it can, and its exit status says that it could not all.
fn virt_cat_goes_on_after_a_missing_file() {
    let dir = testkit::tempdir();
    let image = small_guest(dir.path());
    let mut command = Command::new(named("virt-cat", dir.path()));
    let cat = output(command.arg("-a").arg(&image).args(["/nosuch", "/etc/hostname"]));
    assert_eq!(cat.status.code(), Some(1));
    assert_eq!(cat.stdout, b"small-guest.example.com\n");
    assert!(String::from_utf8_lossy(&cat.stderr).contains("/nosuch"));
}
