//! Keys of encrypted disks: from options, from standard input, and typed at a terminal.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rexpect::session::{PtySession, spawn_command};
use testkit::corpus;
use testkit::volumes::{Case, case};

use crate::support::{binary, output};

/// How long the terminal is waited for: only a failure takes it.
const PATIENCE_MS: u64 = 120_000;

const PASSPHRASE: &str = "correct-horse";
const HOSTNAME: &str = "stack-lvm-on-luks2\n";

/// A guest whose root is on a volume group of two encrypted devices, `/dev/sda2` and `/dev/sdb`.
fn guest() -> Case {
    case("stack-lvm-on-luks2")
}

/// The program with the guest's disks, which it does not change, and options of its own.
fn with_options(guest: &Case, options: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--ro").args(options);
    for disk in &guest.disks {
        command.arg("-a").arg(disk);
    }
    command
}

/// Reads the host name of the inspected guest.
fn hostname(guest: &Case, options: &[&str]) -> Command {
    let mut command = with_options(guest, options);
    command.args(["-i", "cat", "/etc/hostname"]);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// That the host name was printed, and nothing said but these warnings.
#[track_caller]
fn assert_opens(ran: &Output, warnings: &str) {
    assert_eq!(
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr)),
        (Some(0), format!("{HOSTNAME}\n"), warnings.into())
    );
}

/// The UUID of an encrypted device of the guest.
fn uuid(guest: &Case, name: &str) -> String {
    let device = guest.devices.iter().find(|device| device.name == format!("/dev/mapper/{name}"));
    device.and_then(|device| device.facts["uuid"].as_str()).expect("a UUID").to_owned()
}

#[test]
fn each_kind_of_selector_and_of_key_opens() {
    let guest = guest();
    let dir = testkit::tempdir();
    let file = dir.path().join("key:file");
    fs::write(&file, format!("{PASSPHRASE}\n")).expect("a key file");
    let first = uuid(&guest, "sda2_crypt").to_uppercase();
    let (by_name, by_uuid) = (format!("/dev/sdb:file:{}", file.display()), format!("{first}:env:KEY"));
    for options in [
        &["--key", "all:env:KEY"][..],
        &["--key", &by_name, "--key", &by_uuid],
        // The first that fits opens.
        &["--key", "/dev/sda2:key:wrong", "--key", "all:key:correct-horse"],
    ] {
        let ran = output(hostname(&guest, options).env("KEY", PASSPHRASE));
        assert_opens(&ran, "");
    }
    // A pipe has no length.
    let shell = format!("\"$@\" --key all:file:<(cat '{}')", file.display());
    let command = with_options(&guest, &["-i", "--run", "cat /etc/hostname"]);
    let mut bash = Command::new("bash");
    bash.args(["-c", &shell, "bash"]).arg(command.get_program()).args(command.get_args());
    assert_opens(&output(&mut bash), "");
}

/// The guest with another key for its second device than for its root's, which is a file in it. Says where.
fn guest_with_a_key_file(key_file: &str, content: &[u8]) -> Case {
    let guest = guest();
    let dir = testkit::tempdir();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::write(&old, PASSPHRASE).expect("a key file");
    fs::write(&new, b"\x00key of\nits own\n").expect("a key file");
    let mut change = Command::new(testkit::require("cryptsetup"));
    change.args([
        "luksChangeKey",
        "-q",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "--key-file",
    ]);
    let done = output(change.arg(&old).arg(&guest.disks[1]).arg(&new));
    assert!(done.status.success(), "{}", text(&done.stderr));

    let in_guest = dir.path().join("in-guest");
    fs::write(&in_guest, content).expect("a key file");
    let crypttab = format!("data_crypt UUID={} {key_file} luks\n", uuid(&guest, "data_crypt"));
    let mut plant = Command::new(binary());
    plant
        .args(["--key", "/dev/sda2:key:correct-horse", "-a"])
        .arg(&guest.disks[0])
        .arg("-m")
        .arg("/dev/vg/root");
    plant.arg("--run").arg(format!(
        "mkdir /etc/keys\nwrite /etc/crypttab {crypttab:?}\nupload {} /etc/keys/data",
        in_guest.display()
    ));
    let done = output(&mut plant);
    assert!(done.status.success(), "{}", text(&done.stderr));
    guest
}

#[test] // The root's key is asked for or given; the others are where the guest has them.
fn key_files_of_the_guest_open_its_other_devices() {
    let mounted = |guest: &Case, key: &str| {
        let mut command = with_options(guest, &["--key", key]);
        output(command.args(["-i", "--run", "cat /srv/data.txt"]))
    };
    let own = &b"\x00key of\nits own\n"[..];
    for (file, content) in [
        ("/etc/keys/data", own.to_vec()),
        ("/etc/keys/data luks,keyfile-offset=3,keyfile-size=16", [b"###", own, b"###"].concat()),
    ] {
        let guest = guest_with_a_key_file(file, &content);
        // A key for all devices is not refused because one of them has another.
        for key in ["/dev/sda2:key:correct-horse", "all:key:correct-horse"] {
            let ran = mounted(&guest, key);
            assert_eq!(
                (ran.status.code(), text(&ran.stdout), text(&ran.stderr)),
                (Some(0), "data\n\n".into(), String::new()),
                "{file} {key}"
            );
        }
    }
    // Where lines of the input are keys, there is one for each device.
    let guest = guest_with_a_key_file("/etc/keys/data", own);
    let ran = with_input(&mut hostname(&guest, &["--keys-from-stdin"]), "correct-horse\nfor the other\n");
    let error = "vmcraft: error: /dev/sdb: this key opens nothing here (1 key slot tried)\n";
    assert!(ran.status.code() == Some(1) && text(&ran.stderr).ends_with(error), "{}", text(&ran.stderr));
    // What does not fit is as if it were not there.
    let guest = guest_with_a_key_file("/etc/keys/data", b"another");
    let ran = mounted(&guest, "all:key:correct-horse");
    let error =
        "vmcraft: error: /dev/sdb: this key opens nothing here (1 key slot tried); tried: --key all\n";
    assert!(ran.status.code() == Some(1) && text(&ran.stderr).ends_with(error), "{}", text(&ran.stderr));
    let ran = mounted(&guest, "/dev/sda2:key:correct-horse");
    let warning = "vmcraft: warning: /dev/sdb: encrypted with LUKS: a key is needed";
    assert_eq!(text(&ran.stderr).matches(warning).count(), 1, "{}", text(&ran.stderr));
}

#[test] // Who gave a key should be told what became of it.
fn keys_that_do_not_help_are_explained() {
    let guest = guest();
    let missing = testkit::tempdir().path().join("missing");
    let missing_key = format!("all:file:{}", missing.display());
    for (options, said) in [
        (
            &["--key", "all:key:Correct-horse", "--key", "/dev/sda2:env:KEY"][..],
            "/dev/sda2: this key opens nothing here (1 key slot tried); tried: --key all, --key /dev/sda2",
        ),
        (&["--key", &missing_key], &*format!("--key {missing_key}: No such file or directory (os error 2)")),
        (&["--key", "all:file:/"], "--key all:file:/: Is a directory (os error 21)"),
        (&["--key", "all:env:EMPTY"], "--key all:env:EMPTY: the variable is empty"),
        (&["--key", "all:env:NONESUCH"], "--key all:env:NONESUCH: there is no such variable"),
    ] {
        let ran = output(hostname(&guest, options).env("KEY", "hose").env("EMPTY", ""));
        assert_eq!(
            (ran.status.code(), text(&ran.stdout), text(&ran.stderr)),
            (Some(1), String::new(), format!("vmcraft: error: {said}\n")),
            "{options:?}"
        );
    }
    // Each is warned of once, however often it was looked for.
    let unknown = ["--key", "/dev/sdz:key:x", "--key", "/dev/sda1:key:x", "--key", "all:key:correct-horse"];
    let warnings = ["/dev/sdz", "/dev/sda1"]
        .map(|id| format!("vmcraft: warning: --key {id}: no encrypted device has this name or UUID\n"));
    assert_opens(&output(&mut hostname(&guest, &unknown)), &warnings.concat());
}

/// Runs a command with a text as its standard input, and no terminal.
fn with_input(command: &mut Command, input: &str) -> Output {
    // In a session of its own, there is no terminal to ask.
    let mut setsid = Command::new(testkit::require("setsid"));
    setsid.arg("-w").arg(command.get_program()).args(command.get_args());
    setsid.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = setsid.spawn().expect("the program starts");
    // Who fails early does not read all of it.
    let _ = child.stdin.take().expect("it was asked for").write_all(input.as_bytes());
    child.wait_with_output().expect("the output")
}

#[test]
fn lines_of_standard_input_are_keys() {
    let guest = guest();
    let from_stdin = &["--keys-from-stdin"];
    // Without a newline at the end, too.
    for input in ["correct-horse\ncorrect-horse\n", "correct-horse\ncorrect-horse"] {
        assert_opens(&with_input(&mut hostname(&guest, from_stdin), input), "");
    }
    let ran = with_input(&mut hostname(&guest, from_stdin), "correct-horse\nwrong\n");
    let error = "vmcraft: error: /dev/sdb: this key opens nothing here (1 key slot tried)\n";
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).ends_with(error), "{}", text(&ran.stderr));

    // The second volume is not needed for the root.
    let ran = with_input(&mut hostname(&guest, from_stdin), "correct-horse\n");
    let warnings = text(&ran.stderr);
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(0), format!("{HOSTNAME}\n")), "{warnings}");
    let line = "vmcraft: warning: /dev/sdb: encrypted with LUKS: a key is needed, and the input has ended\n";
    assert!(warnings.starts_with(line) && warnings.matches("a key is needed").count() == 1, "{warnings}");
    assert!(warnings.contains("warning: /srv was not mounted: /dev/vg/srv: cannot be opened"), "{warnings}");

    // In a script, they follow the calls.
    let script = "run\n-cryptsetup-open /dev/sda2 one\nwrong\ncryptsetup-open /dev/sda2 one\ncorrect-horse\n\
                  mount-ro /dev/vg/root /\ncat /etc/hostname\ncryptsetup-open /dev/sdb two\n";
    let ran = with_input(&mut with_options(&guest, from_stdin), script);
    let said = text(&ran.stderr);
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(1), format!("{HOSTNAME}\n")), "{said}");
    for said_of in
        ["cryptsetup-open: /dev/sda2: this key", "error: key: a key is needed, and the input has ended"]
    {
        assert!(said.contains(said_of), "{said}");
    }
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let guest = guest();
    let ran = with_input(&mut hostname(&guest, &["--key", "/dev/sdb:key:correct-horse"]), "correct-horse\n");
    let said = text(&ran.stderr);
    assert_eq!((ran.status.code(), ran.stdout.len()), (Some(1), 0), "{said}");
    let asked = "warning: /dev/sda2: encrypted with LUKS: a key is needed, and there is no terminal to ask: use \
                 --key or --keys-from-stdin\n";
    assert_eq!(said.matches(asked).count(), 1, "{said}");
    assert!(said.contains("error: no operating system was found"), "{said}");
}

#[test] // As a script of guestfish opens them.
fn a_header_elsewhere_is_named_in_a_script() {
    let dir = testkit::tempdir();
    let [data, header, key] = ["data", "header", "key"].map(|name| dir.path().join(name));
    for (image, mib) in [(&data, 4_u64), (&header, 17)] {
        fs::File::create(image).and_then(|file| file.set_len(mib << 20)).expect("space for a sparse file");
    }
    fs::write(&key, PASSPHRASE).expect("space for a key file");
    let quick = ["-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--header"];
    let mut format: Vec<&OsStr> = quick.map(OsStr::new).to_vec();
    format.extend([header.as_os_str(), OsStr::new("--key-file"), key.as_os_str(), data.as_os_str()]);
    testkit::run_ok("cryptsetup", format);
    let mut program = Command::new(binary());
    program.arg("--keys-from-stdin").arg("-a").arg(&data).arg("-a").arg(&header);

    let open = "cryptsetup-open /dev/sda plain header:/dev/sdb\ncorrect-horse\n";
    let made = "mkfs ext4 /dev/mapper/plain\nmount /dev/mapper/plain /\nwrite /f written\n";
    let ran = with_input(&mut program, &format!("run\n{open}{made}"));
    assert_eq!((ran.status.code(), text(&ran.stderr)), (Some(0), String::new()));
    let ran = with_input(
        &mut program,
        &format!("run\n{open}mount /dev/mapper/plain /\ncat /f\nvfs-type /dev/mapper/plain\n"),
    );
    assert_eq!(text(&ran.stdout), "written\next4\n", "{}", text(&ran.stderr));
    let ran = with_input(&mut program, "run\ncryptsetup-open /dev/sda plain\ncorrect-horse\n");
    assert!(
        text(&ran.stderr).contains("/dev/sda: not encrypted with LUKS or BitLocker"),
        "{}",
        text(&ran.stderr)
    );
}

#[test] // Windows writes the startup key into a file whose bytes are not text.
fn bitlocker_opens_with_a_startup_key() {
    let Some(corpus) = corpus::dir() else { return };
    let dir = testkit::tempdir();
    let row = corpus::rows(&corpus, "bitlocker/cryptsetup-bitlk-aes-xts-128-startup-key").remove(0);
    let image = corpus::unpack(&corpus, &row, dir.path());
    let listed = |key: &str| {
        let mut command = Command::new(binary());
        let ran = output(command.args(["filesystems", "--key", key, "-a"]).arg(&image));
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let bek = corpus.join("bitlocker/cryptsetup-4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK");
    let (status, tree, said) = listed(&format!("all:file:{}", bek.display()));
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let rows: Vec<Vec<_>> = tree.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..4], ["/dev/sda", "disk", "100M", "BitLocker"], "{tree}");
    assert_eq!(rows[1][..4], ["└─/dev/mapper/cryptsda", "crypt", "100M", "ntfs"], "{tree}");
    let (status, _, said) = listed("all:key:363770-230505-096371-652674-567006-579150-291038-408112");
    assert_eq!(status, Some(1));
    assert!(said.contains("/dev/sda: the key does not open the BitLocker volume"), "{said}");
    assert!(said.contains("group 8 of its digits is mistyped"), "{said}");
}

/// A shell of the host at a terminal, in which it runs a script; `$VMCRAFT` is the program with the guest's disks.
struct Terminal {
    session: PtySession,
    _guest: Case,
    _dir: tempfile::TempDir,
}

impl Terminal {
    fn run(script: &str) -> Self {
        let guest = guest();
        let dir = testkit::tempdir();
        let program = dir.path().join("vmcraft");
        let disks: Vec<_> = guest.disks.iter().map(|disk| format!("-a '{}'", disk.display())).collect();
        let wrapper = format!("#!/bin/sh\nexec '{}' --ro {} \"$@\"\n", binary().display(), disks.join(" "));
        fs::write(&program, wrapper).expect("a script");
        make_executable(&program);
        let mut shell = Command::new(testkit::require("env"));
        // The terminal shows what is typed, as terminals do. ^C goes to the shell as well.
        let script = format!("stty echo; trap : INT; {script}; echo status $?; stty -a; echo over");
        shell
            .args(["--default-signal=INT", "bash", "-c", &script])
            .current_dir(dir.path())
            .env("VMCRAFT", &program);
        shell.env("BINARY", binary()).env("DISKS", disks.join(" ").replace('\'', ""));
        shell.env("VMCRAFT_HISTFILE", "").env("TERM", "xterm");
        let session = spawn_command(shell, Some(PATIENCE_MS)).expect("a terminal");
        Self { session, _guest: guest, _dir: dir }
    }

    /// Waits until this is shown, and gives what was shown before it.
    #[track_caller]
    fn sees(&mut self, shown: &str) -> String {
        self.session.exp_string(shown).unwrap_or_else(|e| panic!("{shown:?} is not shown: {e}"))
    }

    /// Waits until a key is asked for.
    #[track_caller]
    fn asked_for(&mut self, what: &str) -> &mut Self {
        self.sees(&format!("Enter key or passphrase (\"{what}\"): "));
        self
    }

    fn types(&mut self, keys: &str) -> &mut Self {
        self.session.send(keys).expect("the terminal takes keys");
        self.session.flush().expect("the terminal takes keys");
        self
    }

    /// What is shown until the program has ended, and its status. What is typed is shown again by then.
    #[track_caller]
    fn ends(mut self) -> (String, String) {
        let shown = self.sees("status ");
        let status = self.sees("\r\n");
        let settings = self.sees("over\r\n");
        let settings: Vec<_> = settings.split_whitespace().collect();
        for on in ["echo", "icanon", "isig"] {
            assert!(settings.contains(&on), "{on} is off: {settings:?}");
        }
        for shown in ["intr = ^C;", "susp = ^Z;", "eol = <undef>;", "eol2 = <undef>;"] {
            assert!(settings.join(" ").contains(shown), "{shown} {settings:?}");
        }
        self.session.exp_eof().expect("the shell ends");
        (shown, status)
    }
}

fn make_executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("own file");
}

const CAT: &str = "$VMCRAFT -i --run 'cat /etc/hostname'";

#[test] // The question comes to the terminal, and not between what others read.
fn a_typed_key_is_not_shown() {
    let mut terminal = Terminal::run(&format!("{CAT} > out; cat out"));
    terminal.asked_for("/dev/sda2").types("correct-horse\r").asked_for("/dev/sdb").types("correct-horse\r");
    let (shown, status) = terminal.ends();
    assert_eq!((shown.as_str(), status.as_str()), ("\r\nstack-lvm-on-luks2\r\n\r\n", "0"));

    let mut terminal = Terminal::run(&format!("{CAT} --echo-keys"));
    terminal.asked_for("/dev/sda2").types("correct-horse\r");
    terminal.sees("correct-horse\r\n");
    terminal.asked_for("/dev/sdb").types("wrong\r");
    let (shown, status) = terminal.ends();
    assert!(shown.starts_with("wrong\r\n"), "{shown}");
    assert!(
        shown.ends_with("error: /dev/sdb: this key opens nothing here (1 key slot tried)\r\n"),
        "{shown}"
    );
    assert_eq!(status, "1");
}

#[test] // As a user who has no key leaves the question.
fn a_device_whose_key_nobody_has_is_asked_for_once() {
    let mut terminal = Terminal::run(CAT);
    terminal.asked_for("/dev/sda2").types("\u{4}").asked_for("/dev/sdb").types("correct-horse\r");
    let (shown, status) = terminal.ends();
    assert_eq!(status, "1");
    let warning = "warning: /dev/sda2: encrypted with LUKS: a key is needed, and the input has ended\r\n";
    assert_eq!(shown.matches(warning).count(), 1, "{shown}");
    assert!(!shown.contains("Enter key"), "{shown}");
    assert!(
        shown.contains("no operating system was found on the disks (/dev/sda2 holds crypto_LUKS"),
        "{shown}"
    );
}

#[test] // The terminal is as it was.
fn a_question_can_be_interrupted() {
    let mut terminal = Terminal::run(CAT);
    terminal.asked_for("/dev/sda2").types("corr\u{3}");
    let (shown, status) = terminal.ends();
    assert_eq!((shown.trim(), status.as_str()), ("", "130"));

    // Our own shell goes on.
    let mut terminal = Terminal::run("$VMCRAFT");
    terminal.sees("><fs> ");
    terminal.types("run\r").sees("><fs> ");
    terminal.types("cryptsetup-open /dev/sda2 one\r").asked_for("key").types("corr\u{3}");
    assert!(terminal.sees("><fs> ").contains("error: interrupted"));
    terminal.types("cryptsetup-open /dev/sda2 one\r").asked_for("key").types("\u{4}");
    assert!(terminal.sees("><fs> ").contains("key: a key is needed, and the input has ended"));
    terminal.types("cryptsetup-open /dev/sda2 one\r").asked_for("key").types("wrong\r");
    let shown = terminal.sees("><fs> ");
    assert!(shown.contains("key slot tried") && !shown.contains("wrong"), "{shown}");
    terminal.types("cryptsetup-open /dev/sda2 one\r").asked_for("key").types("xx\u{1c}\u{15}correct-horse\r");
    terminal.sees("><fs> ");
    terminal.types("vgs\r").sees("\r\nvg\r\n");
    terminal.types("quit\r");
    assert_eq!(terminal.ends().1, "0");
}

#[test] // The terminal was left without echo, and what was typed came to the next program.
fn a_signal_at_a_question_leaves_the_terminal_as_it_was() {
    let run = "$VMCRAFT -i cat /etc/hostname";
    // What is mounted has signals of its own, once it is.
    let mount = "$BINARY mount $DISKS -i --foreground .";
    // Another program than the shell, which ends by itself and restores nothing.
    for (command, signal, status) in
        [(run, "TERM", "143"), (run, "HUP", "129"), (run, "INT", "130"), (mount, "TERM", "143")]
    {
        let mut terminal =
            Terminal::run(&format!("env --default-signal sh -c 'echo pid $$; exec {command}'"));
        terminal.sees("pid ");
        let pid = terminal.sees("\r\n");
        terminal.asked_for("/dev/sda2").types("corr");
        testkit::run_ok("kill", [&format!("-{signal}"), &pid]);
        let (shown, ended) = terminal.ends();
        assert_eq!(ended, status, "{signal}: {shown}");
        assert!(!shown.contains("corr"), "{signal}: {shown}");
    }
    // Programs that nohup starts go on.
    let mut terminal = Terminal::run(&format!("trap '' HUP; sh -c 'echo pid $$; exec {run}'"));
    terminal.sees("pid ");
    let pid = terminal.sees("\r\n");
    terminal.asked_for("/dev/sda2");
    testkit::run_ok("kill", ["-HUP", &pid]);
    terminal.types("correct-horse\r").asked_for("/dev/sdb").types("correct-horse\r");
    assert_eq!(terminal.ends().1, "0");
}

#[test] // It would be stopped again where it gives the terminal its settings, which are not its own then.
fn a_signal_ends_what_was_stopped_at_a_question() {
    let ended =
        "pid=$(jobs -p); kill $pid; kill -CONT $pid; while kill -0 $pid; do :; done 2>/dev/null; wait $pid";
    let mut terminal = Terminal::run(&format!("set -m; env --default-signal {CAT}; {ended}"));
    terminal.asked_for("/dev/sda2").types("corr\u{1a}");
    let (shown, status) = terminal.ends();
    assert_eq!(status, "143", "{shown}");
    assert!(!shown.contains("corr"), "{shown}");
}

#[test] // A terminal that was stopped by ^S takes nothing: nobody waits for it.
fn a_signal_ends_a_question_at_a_terminal_that_is_stopped() {
    let mut terminal = Terminal::run("env --default-signal sh -c 'echo pid $$; exec $VMCRAFT -i cat /x'");
    terminal.sees("pid ");
    let pid = terminal.sees("\r\n");
    terminal.asked_for("/dev/sda2").types("\u{13}");
    testkit::run_ok("kill", ["-TERM", &pid]);
    while testkit::run("kill", ["-0", &pid]).status.success() {
        std::thread::yield_now();
    }
    terminal.types("\u{11}");
    let (shown, status) = terminal.ends();
    assert_eq!(status, "143", "{shown}");
}

#[test]
fn a_signal_at_the_prompt_leaves_the_terminal_as_it_was() {
    let mut terminal = Terminal::run("env --default-signal sh -c 'echo pid $$; exec \"$VMCRAFT\"'");
    terminal.sees("pid ");
    let pid = terminal.sees("\r\n");
    // Once a key is shown by the line editor, the terminal is raw.
    terminal.sees("><fs> ");
    terminal.types("x").sees("x");
    testkit::run_ok("kill", ["-TERM", &pid]);
    let (shown, status) = terminal.ends();
    assert_eq!(status, "143", "{shown}");
    assert!(shown.contains("\u{1b}[?2004l"), "{shown:?}");
}

#[test] // What was typed so far is forgotten.
fn a_question_is_asked_again_after_a_stop() {
    let mut terminal = Terminal::run(&format!("set -m; {CAT}; stty -a; echo stopped; fg"));
    terminal.asked_for("/dev/sda2").types("corr\u{1a}");
    let shown = terminal.sees("stopped\r\n");
    assert!(shown.split_whitespace().any(|setting| setting == "echo"), "{shown}");
    terminal.asked_for("/dev/sda2").types("correct-horse\r").asked_for("/dev/sdb").types("correct-horse\r");
    let (shown, status) = terminal.ends();
    assert!(shown.contains("stack-lvm-on-luks2\r\n"), "{shown}");
    assert_eq!(status, "0");
}
