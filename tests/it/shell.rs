//! The shell without a prompt: one-shots, scripts, pipes, and the server that scripts talk to.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Guest, binary, named, output, small_guest};

impl Guest {
    /// What the words print.
    fn run(&self, words: &[&str]) -> String {
        ok(self.command().args(words))
    }

    /// What a script on standard input leads to.
    fn script(&self, script: &str) -> Output {
        with_input(&mut self.command(), script)
    }
}

fn with_input(command: &mut Command, input: impl AsRef<[u8]>) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.as_ref().to_owned();
    let writer = std::thread::spawn(move || {
        // The shell may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("the output");
    writer.join().expect("the writer");
    output
}

fn ok(command: &mut Command) -> String {
    let done = output(command);
    assert!(done.status.success(), "{command:?}: {}", errors(&done));
    String::from_utf8(done.stdout).expect("text")
}

fn text(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn errors(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn words_are_commands_with_colons_between_them() {
    let guest = Guest::new();
    assert_eq!(guest.run(&["echo", "a", ":", "echo", "b c", ":"]), "a\nb c\n");
    assert_eq!(guest.run(&["--", "-cat", "/nonesuch", ":", "echo", r"a\n"]), "a\\n\n");
    let done = output(guest.command().args(["cat", "/nonesuch", ":", "echo", "b"]));
    assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), ""));
    let done = output(guest.command().args(["echo", "a", ":", ":", "echo", "b"]));
    assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), "a\n"));
    assert!(errors(&done).contains("empty command"), "{}", errors(&done));
}

#[test]
fn run_takes_lines_of_the_shell() {
    let guest = Guest::new();
    let printed = guest.run(&[
        "--run",
        "cat /t/no-newline | tr a-z A-Z",
        "--run",
        "echo \"a\\tb\" # c",
        "echo",
        "last",
    ]);
    assert_eq!(printed, "NO NEWLINE AT THE END\na\tb # c\nlast\n");
}

#[test]
fn exit_ends_everything() {
    let guest = Guest::new();
    assert_eq!(guest.run(&["--run", "exit\necho no", "echo", "no"]), "");
    assert_eq!(text(&guest.script("echo a\nquit\necho b\n")), "a\n");
}

#[test] // guestfish's form of the days before -a could stand with -i.
fn words_are_disks_where_i_has_none() {
    let guest = Guest::new();
    let mut command = Command::new(binary());
    let command = command.arg("-i").arg(&guest.image).args(["--run", "cat /etc/hostname"]);
    assert_eq!(ok(command), "small-guest.example.com\n\n");
}

#[test]
fn devices_can_be_mounted_by_name() {
    let guest = Guest::new();
    let mut command = Command::new(binary());
    let command = command.arg("-a").arg(&guest.image).args([
        "-m",
        "/dev/sda1",
        "-m",
        "/dev/sda2:/srv/data:noatime:ext2",
        "--",
        "mountpoints",
        ":",
        "ls",
        "/srv/data",
    ]);
    assert_eq!(ok(command), "/dev/sda1: /\n/dev/sda2: /srv/data\nfile\nlost+found\n");
}

#[test]
fn scripts_name_the_line_that_failed() {
    let guest = Guest::new();
    let done = guest.script("echo a\n# comment\n-cat /nonesuch\ncat \\\n/t/nonesuch\necho b\n");
    assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), "a\n"));
    let errors = errors(&done);
    let lines: Vec<_> = errors.lines().collect();
    assert!(lines[0].starts_with("standard input:3: vmcraft: error: cat: /nonesuch: "), "{errors}");
    assert!(lines[1].starts_with("standard input:4: vmcraft: error: cat: /t/nonesuch: "), "{errors}");
    assert_eq!(lines.len(), 2, "{errors}");
}

#[test]
fn script_files_can_be_executed() {
    let guest = Guest::new();
    let script = guest.dir.path().join("script");
    let shell = named("guestfish", guest.dir.path());
    let text = format!(
        "#!{} -f\nadd {} readonly:true\nrun\nmount /dev/sda1 /\ncat /etc/hostname\n",
        shell.display(),
        guest.image.display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    assert_eq!(ok(&mut Command::new(&script)), "small-guest.example.com\n\n");
    let done = output(Command::new(binary()).args(["-f", "/nonesuch"]));
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains("/nonesuch: cannot open"), "{}", errors(&done));
}

#[test]
fn long_scripts_run_to_their_end() {
    let guest = Guest::new();
    let script = "is-file /t/lines\n".repeat(100_000);
    let done = with_input(
        Command::new(testkit::require("prlimit"))
            .args(["--as=400000000", "--"])
            .arg(binary())
            .arg("-a")
            .arg(&guest.image)
            .arg("-i"),
        &script,
    );
    assert!(done.status.success(), "{}", errors(&done));
    assert_eq!(text(&done), "true\n".repeat(100_000));
}

#[test] // The script was read ahead, and what a call should have got was run as commands.
fn a_script_on_standard_input_is_followed_by_what_a_command_reads() {
    let guest = Guest::new();
    let done = guest.script("upload - /new\nline1\nline2\n");
    assert_eq!((done.status.code(), text(&done), errors(&done)), (Some(0), String::new(), String::new()));
    assert_eq!(guest.run(&["cat", "/new"]), "line1\nline2\n\n");
    // Bytes of all values, more of them than any buffer holds, and no newline at the end.
    let binary: Vec<u8> = (0..300_000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b1).to_be_bytes()).collect();
    let done = with_input(&mut guest.command(), [b"echo first\nupload - /new\n", &*binary].concat());
    assert_eq!((text(&done), errors(&done)), ("first\n".into(), String::new()));
    let back = output(guest.command().args(["download", "/new", "-"]));
    assert!(back.stdout == binary, "{}", errors(&back));
    // The archive ends with blocks of zeros, which are no commands either.
    let tree = guest.dir.path().join("tree");
    fs::create_dir(&tree).expect("own directory");
    fs::write(tree.join("binary"), &binary).expect("written");
    let archive = output(Command::new(testkit::require("tar")).arg("-cC").arg(&tree).arg("binary")).stdout;
    let done = with_input(&mut guest.command(), [b"mkdir /tree\ntar-in - /tree\n", &*archive].concat());
    assert_eq!((done.status.code(), errors(&done)), (Some(0), String::new()));
    let back = output(guest.command().args(["download", "/tree/binary", "-"]));
    assert!(back.stdout == binary, "{}", errors(&back));
    // A program of the host reads on as well, and so does a call of a server.
    let done = guest.script("!read line; echo program: $line\na line\necho script\n");
    assert_eq!(text(&done), "program: a line\nscript\n", "{}", errors(&done));
    // A file is looked at in larger pieces, which must not be seen.
    let file = guest.dir.path().join("script");
    fs::write(
        &file,
        [b"!read line; echo program: $line\na line\necho first\nupload - /new\n", &*binary].concat(),
    )
    .expect("written");
    let done = guest.command().stdin(fs::File::open(&file).expect("a file")).output().expect("the binary");
    assert_eq!((text(&done), errors(&done)), ("program: a line\nfirst\n".into(), String::new()));
    let back = output(guest.command().args(["download", "/new", "-"]));
    assert!(back.stdout == binary, "{}", errors(&back));
    let server = Server::start(&guest, &["-a", guest.image.to_str().expect("a path"), "-i"]);
    let done = with_input(&mut server.command(), "upload - /new\nof the client\n");
    assert_eq!((done.status.code(), errors(&done)), (Some(0), String::new()));
    assert_eq!(ok(server.command().args(["cat", "/new"])), "of the client\n\n");
}

#[test] // What followed the keys in the same pipe was read ahead with them.
fn keys_on_standard_input_are_followed_by_commands_and_by_what_these_read() {
    let case = testkit::volumes::case("stack-lvm-on-luks2");
    let in_guest = |options: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("-a").arg(&case.disks[0]).arg("-a").arg(&case.disks[1]).args(options).arg("-i");
        command
    };
    let input = "correct-horse\ncorrect-horse\nupload - /etc/new\nline1\n\0line2";
    let done = with_input(&mut in_guest(&["--keys-from-stdin"]), input);
    assert_eq!((done.status.code(), errors(&done)), (Some(0), String::new()));
    let back = ok(in_guest(&["--ro", "--key", "all:key:correct-horse"]).args(["download", "/etc/new", "-"]));
    assert_eq!(back, "line1\n\0line2");
}

#[test]
fn programs_of_the_host_run_between_commands() {
    let guest = Guest::new();
    let script = "echo first\n!echo hidden >/dev/null; echo second\n\
                  <!printf 'echo %s\\n' third fourth\necho fifth\n";
    assert_eq!(text(&guest.script(script)), "first\nsecond\nthird\nfourth\nfifth\n");
    let done = guest.script("!exit 3\necho no\n");
    assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), ""));
    // Its output runs itself again, and again.
    let script = guest.dir.path().join("again");
    fs::write(&script, format!("<!cat {}\n", script.display())).expect("a script");
    let done = output(guest.command().arg("-f").arg(&script));
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains("nested more than"), "{}", errors(&done));
}

#[test]
fn output_goes_through_pipes() {
    let guest = Guest::new();
    let done =
        guest.script("find / | head -n 1\ndownload /t/lines - | wc -l\ntar-out /t/dir - | tar tf - | sort\n");
    assert_eq!(text(&done), "bin\n12\n./\n./hello\n./sub/\n./sub/deep\n", "{}", errors(&done));
    assert!(done.status.success());
    // More than a pipe holds: what fits may be written before the program has ended.
    let all = "download /dev/sda - | true\n";
    assert!(guest.script(all).status.success());
    let done = with_input(guest.command().arg("--pipe-error"), all);
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains("stopped reading"), "{}", errors(&done));
}

#[test]
fn results_can_be_json() {
    let guest = Guest::new();
    let printed = guest.run(&[
        "--json",
        "--",
        "ls",
        "/srv",
        ":",
        "is-file",
        "/t/lines",
        ":",
        "filesize",
        "/t/lines",
        ":",
        "list-filesystems",
        ":",
        "pread",
        "/t/binary",
        "4",
        "0",
        ":",
        "umount-all",
    ]);
    let documents: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(documents[0], serde_json::json!(["data"]));
    assert_eq!(documents[1], serde_json::json!(true));
    assert_eq!(documents[2], serde_json::json!(87));
    assert_eq!(documents[3]["/dev/sda1"], "ext4");
    assert!(documents[4].is_string() || documents[4]["base64"].is_string(), "{printed}");
    assert_eq!(documents.len(), 5, "{printed}");
    let names = guest.run(&["--json", "ls", "/t"]);
    let names: serde_json::Value = serde_json::from_str(&names).expect("JSON");
    let latin =
        names.as_array().expect("a list").iter().find(|name| name.is_object()).expect("a name of bytes");
    assert_eq!(latin["base64"], "bGF0aW4xLek=");
}

#[test]
fn calls_are_traced() {
    let guest = Guest::new();
    let done = output(guest.command().args(["-x", "checksum", "md5", "/t/lines"]));
    let errors = errors(&done);
    assert!(errors.contains("vmcraft: trace: checksum \"md5\" \"/t/lines\"\n"), "{errors}");
    assert!(errors.contains("vmcraft: trace: checksum = \"afc34a16c7637c63896f84eb37f0382a\"\n"), "{errors}");
}

#[test]
fn several_paths_are_copied_out() {
    let guest = Guest::new();
    let out = guest.dir.path().join("out");
    fs::create_dir(&out).expect("a directory");
    guest.run(&["copy-out", "/t/dir", "/t/lines", "out", ":", "glob", "copy-out", "/t/grep*", "out"]);
    for name in ["dir/sub/deep", "lines", "grep-me", "grep-me.gz"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let done = output(guest.command().args(["copy-out", "/t/dir"]));
    assert!(errors(&done).contains("usage: copy-out remote [remote...] localdir"), "{}", errors(&done));
}

#[test]
fn globs_run_a_command_for_each_combination() {
    let guest = Guest::new();
    let printed = guest.run(&["glob", "echo", "/t/dir/*", "x", "/t/{lines,link}", "/nonesuch*", "/dev/sda?"]);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), 12, "{printed}");
    assert_eq!(lines[0], "/t/dir/hello x /t/lines /nonesuch* /dev/sda1");
    assert_eq!(lines[1], "/t/dir/hello x /t/lines /nonesuch* /dev/sda2");
    assert_eq!(lines[11], "/t/dir/sub/ x /t/link /nonesuch* /dev/sda3");
    // The others run although the first fails.
    let done = output(guest.command().args(["glob", "head-n", "1", "/t/{dir,lines}"]));
    assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), "line 1\n"));
}

#[test]
fn not_wants_a_command_to_fail() {
    let guest = Guest::new();
    assert!(guest.script("not cat /nonesuch\n").status.success());
    assert!(!guest.script("not cat /t/lines\n").status.success());
}

#[test]
fn domains_of_libvirt_are_read_from_xml() {
    let guest = Guest::new();
    let xml = guest.dir.path().join("domain.xml");
    let text = format!(
        "<domain type='kvm'><name>x</name><devices><disk type='file' device='disk'>\
         <driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>\
         <disk type='file' device='cdrom'><target dev='hdc'/></disk></devices></domain>",
        guest.image.display()
    );
    fs::write(&xml, text).expect("a file");
    let mut command = Command::new(binary());
    assert_eq!(
        ok(command.arg("-d").arg(&xml).args(["-i", "cat", "/etc/hostname"])),
        "small-guest.example.com\n\n"
    );
    fs::write(&xml, "<domain><devices><disk></domain>").expect("a file");
    let done = output(Command::new(binary()).arg("-d").arg(&xml).arg("run"));
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains("domain.xml") && errors(&done).contains("byte"), "{}", errors(&done));
}

#[test]
fn internal_snapshots_can_be_looked_at() {
    let dir = testkit::tempdir();
    let raw = small_guest(dir.path());
    let image = dir.path().join("disk.qcow2");
    testkit::run_ok(
        "qemu-img",
        ["convert".as_ref(), "-O".as_ref(), "qcow2".as_ref(), raw.as_os_str(), image.as_os_str()],
    );
    testkit::run_ok("qemu-img", ["snapshot".as_ref(), "-c".as_ref(), "before".as_ref(), image.as_os_str()]);
    testkit::run_ok("qemu-io", ["-c".as_ref(), "write -z 0 24M".as_ref(), image.as_os_str()]);
    let now = output(Command::new(binary()).arg("-a").arg(&image).arg("-i"));
    assert!(errors(&now).contains("no operating system"), "{}", errors(&now));
    let mut command = Command::new(binary());
    let before = command.arg("--snapshot=before").arg("-a").arg(&image).args(["-i", "cat", "/etc/hostname"]);
    assert_eq!(ok(before), "small-guest.example.com\n\n");
    let done = output(Command::new(binary()).arg("--snapshot=nosuch").arg("-a").arg(&image).arg("run"));
    assert!(errors(&done).contains("nosuch"), "{}", errors(&done));
    // What was changed in one was thrown away without a word.
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("own directory");
    for (tool, words) in [
        ("virt-customize", &["--hostname", "x"][..]),
        ("virt-sysprep", &[]),
        ("virt-edit", &["-e", "s/x/y/", "/etc/hostname"]),
        ("virt-copy-in", &["file", "/"]),
        ("virt-tar-in", &["file", "/"]),
        ("virt-format", &[]),
    ] {
        let mut command = Command::new(named(tool, dir.path()));
        command.current_dir(dir.path()).arg("--snapshot=before").arg("-a").arg(&image).args(words);
        let done = output(&mut command);
        assert_eq!(done.status.code(), Some(1), "{tool}");
        assert!(errors(&done).contains("--snapshot=before: "), "{tool}: {}", errors(&done));
    }
}

#[test]
fn disk_info_agrees_with_qemu_img() {
    let dir = testkit::tempdir();
    let base = dir.path().join("base.qcow2");
    let top = dir.path().join("top.qcow2");
    testkit::run_ok("qemu-img", ["create".as_ref(), "-fqcow2".as_ref(), base.as_os_str(), "10M".as_ref()]);
    testkit::run_ok(
        "qemu-img",
        ["create", "-fqcow2", "-Fqcow2", "-bbase.qcow2", top.to_str().expect("a path")],
    );
    testkit::run_ok("qemu-img", ["snapshot", "-c", "one", top.to_str().expect("a path")]);
    let theirs = testkit::run_ok("qemu-img", ["info", "--backing-chain", top.to_str().expect("a path")]);
    let ours = ok(Command::new(binary()).args(["disk", "info"]).arg(&top));
    // What qemu-img says of the node below, of columns of its own, and of the date in local time.
    let is_common = |line: &&str| {
        !line.starts_with(' ')
            || line.starts_with("    ") && !line.contains("protocol") && !line.contains("file")
    };
    let fields = |text: &str| -> Vec<String> {
        text.lines()
            .filter(is_common)
            .filter(|line| line.contains(": ") && !line.contains("disk size") && !line.contains("Child"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(fields(&ours), fields(&theirs));
    assert!(ours.lines().any(|line| line.starts_with("1 ") && line.contains(" one ")), "{ours}");
    let json = ok(Command::new(binary()).args(["disk", "info", "--json", "-U"]).arg(&top));
    let chain: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(chain.as_array().map(Vec::len), Some(2));
    assert_eq!(chain[0]["snapshots"][0]["name"], "one");
}

#[test]
fn options_of_later_versions_are_refused_by_name() {
    let guest = Guest::new();
    for (options, name) in [
        (&["--key", "/dev/sda1:clevis"][..], "clevis"),
        (&["--key", "/dev/sda1"], "ID:key:TEXT"),
        (&["--live"], "--live"),
    ] {
        let done = output(guest.command().args(options).args(["echo", "no"]));
        assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), ""), "{options:?}");
        assert!(errors(&done).contains(name), "{}", errors(&done));
    }
    for (call, why) in [
        ("sh ls", "program of the guest"),
        ("xfs-repair /dev/sda", "not in this version"),
        ("scrub-file /x", "disk image cannot"),
    ] {
        let done = output(guest.command().args(["--run", call]));
        assert_eq!(done.status.code(), Some(1));
        assert!(errors(&done).contains(why), "{}", errors(&done));
    }
    let done = output(Command::new(binary()).arg("--nosuch"));
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn completions_are_shell_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let script = ok(Command::new(binary()).args(["completions", shell]));
        assert!(script.contains("allow-backing"), "{shell}");
        if shell == "bash" {
            let done = with_input(Command::new("bash").arg("-n"), &script);
            assert!(done.status.success() && done.stderr.is_empty(), "{}", errors(&done));
        }
    }
}

/// A server, ended when dropped.
struct Server<'a> {
    guest: &'a Guest,
    pid: String,
}

impl<'a> Server<'a> {
    fn start(guest: &'a Guest, options: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.current_dir(guest.dir.path()).env("XDG_RUNTIME_DIR", guest.dir.path());
        // As scripts do it: the shell must get to the end of what it evaluates.
        let line = format!(
            "eval \"$({} --listen {})\"; echo $VMCRAFT_PID $GUESTFISH_PID",
            binary().display(),
            options.join(" ")
        );
        let mut shell = Command::new("bash");
        shell.current_dir(guest.dir.path()).env("XDG_RUNTIME_DIR", guest.dir.path()).args(["-c", &line]);
        let printed = ok(&mut shell);
        let pids: Vec<_> = printed.split_whitespace().collect();
        assert_eq!(pids.len(), 2, "{printed}");
        assert_eq!(pids[0], pids[1]);
        Self { guest, pid: pids[0].to_owned() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.env("XDG_RUNTIME_DIR", self.guest.dir.path()).env("VMCRAFT_PID", &self.pid).arg("--remote");
        command
    }

    fn socket(&self) -> PathBuf {
        self.guest.dir.path().join("vmcraft").join(format!("socket-{}", self.pid))
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.socket().exists() {
            let _ = self.command().args(["--", "exit"]).output();
        }
    }
}

#[test]
fn a_server_keeps_the_guest_between_commands() {
    let guest = Guest::new();
    let server = Server::start(&guest, &["-a", guest.image.to_str().expect("a path"), "--ro"]);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(server.socket().parent().expect("a directory")), 0o700);
    assert_eq!(ok(server.command().arg("run")), "");
    assert_eq!(ok(server.command().args(["mount", "/dev/sda1", "/"])), "");
    assert_eq!(ok(server.command().args(["cat", "/etc/hostname"])), "small-guest.example.com\n\n");
    let script = with_input(&mut server.command(), "cat /t/no-newline | tr a-z A-Z\nlcd /\n!pwd\n");
    assert_eq!(
        text(&script),
        format!("NO NEWLINE AT THE END\n{}\n", std::env::current_dir().expect("one").display())
    );
    let json = ok(server.command().args(["--json", "is-file", "/t/lines"]));
    assert_eq!(json, "true\n");
    // A download to - goes where the client's output goes, and files are the server's.
    assert_eq!(ok(server.command().args(["download", "/t/no-newline", "-"])), "no newline at the end");
    ok(server.command().args(["lcd", guest.dir.path().to_str().expect("a path")]));
    ok(server.command().args(["download", "/t/no-newline", "taken-out"]));
    assert_eq!(
        fs::read_to_string(guest.dir.path().join("taken-out")).expect("it is there"),
        "no newline at the end"
    );
    // What fails with a dash does not end the server.
    let done = output(server.command().args(["--", "-cat", "/nonesuch"]));
    assert!(done.status.success() && errors(&done).contains("/nonesuch"), "{}", errors(&done));
    assert_eq!(ok(server.command().args(["exit"])), "");
    assert!(!server.socket().exists());
    let done = output(server.command().args(["echo", "a"]));
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains(&server.pid), "{}", errors(&done));
}

#[test] // guestfish's server ends at the first failure, and scripts rely on seeing it gone.
fn a_server_ends_when_a_command_fails() {
    let guest = Guest::new();
    let server = Server::start(&guest, &["-a", guest.image.to_str().expect("a path"), "-i"]);
    let done = output(server.command().args(["cat", "/nonesuch"]));
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains("cat: /nonesuch"), "{}", errors(&done));
    assert_eq!(output(server.command().args(["echo", "a"])).status.code(), Some(1));
    assert!(!server.socket().exists());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let guest = Guest::new();
    let mut command = Command::new(binary());
    command.env("XDG_RUNTIME_DIR", guest.dir.path());
    let done = output(command.args(["--listen", "-a", "/nonesuch", "-i"]));
    assert_eq!((done.status.code(), text(&done).as_str()), (Some(1), ""));
    assert!(errors(&done).contains("/nonesuch"), "{}", errors(&done));
}

#[test] // Whoever could put a socket there would get the commands.
fn a_directory_of_sockets_that_others_can_enter_is_refused() {
    let guest = Guest::new();
    let sockets = guest.dir.path().join("vmcraft");
    fs::create_dir(&sockets).expect("a directory");
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o777)).expect("its mode");
    let mut command = Command::new(binary());
    command.env("XDG_RUNTIME_DIR", guest.dir.path());
    let done = output(command.args(["--remote=1", "echo", "a"]));
    assert_eq!(done.status.code(), Some(1));
    assert!(errors(&done).contains("only this user"), "{}", errors(&done));
}

#[test]
fn sockets_of_servers_that_were_killed_are_removed() {
    let guest = Guest::new();
    let first = Server::start(&guest, &[]);
    testkit::run_ok("kill", ["-9", &first.pid]);
    // It is gone when its socket answers no longer.
    while output(first.command().args(["echo", "a"])).status.success() {}
    assert!(first.socket().exists());
    let second = Server::start(&guest, &[]);
    assert!(!first.socket().exists());
    assert!(second.socket().exists());
}

#[test]
fn a_client_that_is_killed_ends_its_call() {
    let guest = Guest::new();
    let server = Server::start(&guest, &["-x", "-a", guest.image.to_str().expect("a path"), "-i"]);
    let mut client = server.command();
    client.args(["--", "-sleep", "1000"]).stderr(Stdio::piped());
    let mut client = client.spawn().expect("a client");
    let said = BufReader::new(client.stderr.take().expect("a pipe"));
    // The call has begun.
    assert!(said.lines().any(|line| line.expect("text").contains("trace: sleep")));
    client.kill().expect("it runs");
    client.wait().expect("it ended");
    assert_eq!(ok(server.command().args(["echo", "still there"])), "still there\n");
}

#[test] // The terminal's ^C may end the program before the shell hears of it. CI may start us with the signal ignored.
fn an_interrupted_program_interrupts_the_script() {
    let ended = Guest::new().script("!exec env --default-signal=INT sh -c 'kill -INT $$'\necho not this\n");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), stderr.contains("interrupted")), (Some(130), true), "{stderr}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
}
