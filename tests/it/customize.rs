//! `vmcraft customize` and `vmcraft sysprep` on a real guest: against what libguestfs's tools made of it, and at
//! its console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use testkit::guest::{Layout, Packing, debian};

use crate::console::Console;
use crate::support::{binary, named, output};

/// A copy of the guest's disk, and a directory for what else a test needs.
fn guest(layout: Layout) -> (tempfile::TempDir, PathBuf) {
    let dir = testkit::tempdir();
    let disk = dir.path().join("disk.raw");
    let original = debian(layout, Packing::Raw);
    testkit::run_ok("cp", ["--sparse=always".as_ref(), original.as_os_str(), disk.as_os_str()]);
    (dir, disk)
}

fn run(command: &mut Command) -> Output {
    let ran = output(command.env("TZ", "UTC"));
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran
}

/// Runs a script of guestfish on a disk, and compares with what guestfish printed.
fn compare(disk: &Path, script: &str, golden: &str) {
    let dir = testkit::tempdir();
    let recorded = testkit::workspace().join("tests/golden/virt-customize");
    let mut command = Command::new(named("guestfish", dir.path()));
    let ran = run(command.arg("--ro").arg("-a").arg(disk).args(["-i", "-f"]).arg(recorded.join(script)));
    let ours = String::from_utf8_lossy(&ran.stdout).into_owned();
    let theirs = fs::read_to_string(recorded.join(golden)).expect("what guestfish printed");
    assert_eq!(ours, theirs, "{script}");
}

/// Has e2fsck look at each partition with an ext file system.
fn check(disk: &Path) {
    let table: serde_json::Value =
        serde_json::from_str(&testkit::run_ok("sfdisk", ["--json".as_ref(), disk.as_os_str()]))
            .expect("JSON");
    for partition in table["partitiontable"]["partitions"].as_array().expect("partitions") {
        let start = partition["start"].as_u64().expect("a start") * 512;
        let at = format!("{}?offset={start}", disk.display());
        let looked = testkit::run("e2fsck", ["-fn", &at]);
        // Status 8: there is no such file system.
        assert!(
            matches!(looked.status.code(), Some(0 | 8)),
            "{at}: {}{}",
            String::from_utf8_lossy(&looked.stdout),
            String::from_utf8_lossy(&looked.stderr)
        );
    }
}

#[test] // The same commands leave the guest as virt-customize 1.48 left it.
fn customizes_as_virt_customize() {
    let (dir, disk) = guest(Layout::Mbr);
    let commands = testkit::workspace().join("tests/golden/virt-customize/debian.commands");
    let said = run(Command::new(named("virt-customize", dir.path()))
        .arg("-a")
        .arg(&disk)
        .arg("--commands-from-file")
        .arg(commands));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("[   0.0] Examining the guest ...\n"), "{said}");
    assert!(
        said.contains("] Setting the hostname: box.example.com\n") && said.contains("] Finishing off\n"),
        "{said}"
    );
    compare(&disk, "look.gf", "debian.out");
    check(&disk);
}

#[test] // The same names, and the same of them by default.
fn operations_are_those_of_virt_sysprep() {
    let dir = testkit::tempdir();
    let listed = run(Command::new(named("virt-sysprep", dir.path())).arg("--list-operations"));
    let golden = testkit::workspace().join("tests/golden/virt-customize/operations.out");
    let theirs = fs::read_to_string(golden).expect("what virt-sysprep printed");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), theirs);
}

#[test] // The default operations leave the guest as virt-sysprep 1.48 left it.
fn resets_as_virt_sysprep() {
    let (dir, disk) = guest(Layout::Mbr);
    let said = run(Command::new(named("virt-sysprep", dir.path())).arg("-a").arg(&disk));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("] Performing \"ssh-hostkeys\" ...\n"), "{said}");
    compare(&disk, "sysprep.gf", "sysprep.out");
    let id = run(Command::new(binary()).arg("--ro").arg("-a").arg(&disk).args([
        "-i",
        "filesize",
        "/etc/machine-id",
    ]));
    assert_eq!(String::from_utf8_lossy(&id.stdout), "0\n");
    check(&disk);
}

#[test] // virt-sysprep 1.48 fails on this layout; ours must not.
fn resets_a_guest_with_separate_boot() {
    let (_dir, disk) = guest(Layout::Gpt);
    run(Command::new(binary()).arg("sysprep").arg("-q").arg("-a").arg(&disk));
    let names = run(Command::new(binary()).arg("--ro").arg("-a").arg(&disk).args(["-i", "ls", "/etc/ssh"]));
    assert!(!String::from_utf8_lossy(&names.stdout).contains("_host_"));
    check(&disk);
}

fn digest(disk: &Path) -> String {
    testkit::run_ok("sha256sum", [disk.as_os_str()])
}

#[test] // A change that fails, and a dry run, leave the disk as it was.
fn a_failing_change_changes_nothing() {
    let (_dir, disk) = guest(Layout::Mbr);
    let before = digest(&disk);
    let refused = |options: &[&str]| {
        let ran = output(Command::new(binary()).arg("customize").arg("-a").arg(&disk).args(options));
        assert_eq!(ran.status.code(), Some(1), "{options:?}");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(digest(&disk), before, "{options:?}: {said}");
        said
    };
    let said = refused(&["--write", "/etc/new:x", "--delete", "/etc/hosts", "--truncate", "/no/such/file"]);
    assert!(said.contains("/no/such"), "{said}");
    let said = refused(&["--hostname", "new", "--run-command", "true"]);
    assert!(said.contains("--run-command") && said.contains("--firstboot-command"), "{said}");
    let said = refused(&["--install", "vim"]);
    assert!(said.contains("--firstboot-install"), "{said}");
    let said = refused(&["--root-password", "hunter2"]);
    assert!(said.contains("password:TEXT") && !said.contains("hunter2"), "{said}");
    // There is no -m that could mount anything here.
    let empty = tempfile::NamedTempFile::new().expect("a file");
    empty.as_file().set_len(1 << 20).expect("a sparse file");
    let ran = output(Command::new(binary()).args(["customize", "--hostname", "x", "-a"]).arg(empty.path()));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("disks: virt-filesystems") && !said.contains("-m "), "{said}");
    run(Command::new(binary()).args(["customize", "-n", "--hostname", "new", "-a"]).arg(&disk));
    assert_eq!(digest(&disk), before, "dry run");
}

#[test] // What was changed is what the guest runs with.
fn a_customized_guest_boots() {
    if !testkit::long_suites("booting a guest takes minutes") {
        return;
    }
    let (dir, disk) = guest(Layout::Mbr);
    // A tree of packages: a program, a library that is a link, and a user's file.
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("opt/tool/bin")).expect("a directory");
    fs::write(tree.join("opt/tool/bin/tool"), "#!/bin/sh\necho \"tool says $(cat /opt/tool/data)\"\n")
        .expect("a file");
    testkit::run_ok("chmod", ["755".as_ref(), tree.join("opt/tool/bin/tool").as_os_str()]);
    fs::write(tree.join("opt/tool/data-1"), "forty-two\n").expect("a file");
    std::os::unix::fs::symlink("data-1", tree.join("opt/tool/data")).expect("a link");
    let archive = dir.path().join("tree.tar");
    testkit::run_ok(
        "tar",
        [
            "-C".as_ref(),
            tree.as_os_str(),
            "--owner=0".as_ref(),
            "--group=0".as_ref(),
            "-cf".as_ref(),
            archive.as_os_str(),
            "opt".as_ref(),
        ],
    );
    run(Command::new(binary())
        .args(["customize", "--hostname", "box.example.com", "--root-password", "password:a new password"])
        .args(["--timezone", "Asia/Tokyo", "--ssh-inject", "root:string:ssh-ed25519 AAAAC3Nz me@host"])
        .args(["--firstboot-command", "echo FIRST-BOOT $(hostname) $(id -u) | tee /etc/first-boot"])
        .arg("--tar-in")
        .arg(format!("{}:/", archive.display()))
        .arg("-a")
        .arg(&disk));
    check(&disk);

    let started = Instant::now();
    let mut console = Console::boot(&disk);
    console.sees("FIRST-BOOT box.example.com 0").sees("MARKER-BOOT-OK box.example.com");
    console
        .types("")
        .sees("box login: ")
        .types("root")
        .sees("Password: ")
        .types("a new password")
        .sees("root@box");
    console.types("/opt/tool/bin/tool").sees("tool says forty-two");
    console.types("date +zone-%Z").sees("zone-JST");
    console.types("cat /etc/first-boot /root/.ssh/authorized_keys").sees("FIRST-BOOT box.example.com 0");
    console.sees("ssh-ed25519 AAAAC3Nz me@host");
    console.types("ls /usr/lib/virt-sysprep/scripts | wc -l").sees("0");
    console.types("systemctl is-failed guestfs-firstboot; poweroff").sees("active").sees("Power down");
    drop(console);
    eprintln!("the guest booted and was looked at in {:.0?}", started.elapsed());
    check(&disk);
    // The second boot does not run the script again.
    let mut console = Console::boot(&disk);
    console.sees("box login: ").types("root").sees("Password: ").types("a new password").sees("root@box");
    console.types("grep -c Running /root/virt-sysprep-firstboot.log; poweroff").sees("1").sees("Power down");
}

#[test] // Nothing is left for setfiles to do, and nothing was labelled that it would not label.
fn labels_are_those_of_setfiles() {
    let policy = Path::new("/etc/selinux/default/contexts/files");
    if !policy.join("file_contexts").exists() {
        return testkit::skip("no policy: install Debian package selinux-policy-default");
    }
    if !testkit::have_root() {
        return testkit::skip("labels against setfiles: the kernel's loop mount needs root");
    }
    let (dir, disk) = guest(Layout::Mbr);
    let mut command = Command::new(binary());
    command.arg("customize").arg("-a").arg(&disk).args(["--selinux-relabel", "--mkdir"]).arg(policy);
    command.args(["--write", "/etc/selinux/config:SELINUX=permissive\nSELINUXTYPE=default\n"]);
    for suffix in ["", ".homedirs", ".subs_dist"] {
        let file = policy.join(format!("file_contexts{suffix}"));
        command.arg("--upload").arg(format!("{0}:{0}", file.display()));
    }
    run(&mut command);
    check(&disk);

    let mount = dir.path().join("mount");
    fs::create_dir(&mount).expect("a directory");
    let options = format!("loop,ro,noload,offset={}", 2048 * 512);
    testkit::run_ok("mount", ["-o".as_ref(), options.as_ref(), disk.as_os_str(), mount.as_os_str()]);
    let mut arguments: Vec<std::ffi::OsString> = ["-n", "-v", "-m", "-F"].map(Into::into).into();
    // What the kernel fills, and a directory that another file system of the guest is mounted on.
    for left_out in ["dev", "proc", "sys", "srv/data"] {
        arguments.extend(["-e".into(), mount.join(left_out).into()]);
    }
    arguments.extend([
        "-r".into(),
        mount.clone().into(),
        policy.join("file_contexts").into(),
        mount.clone().into(),
    ]);
    let said = testkit::run("setfiles", arguments);
    let labelled = testkit::run(
        "getfattr",
        ["-h".as_ref(), "-n".as_ref(), "security.selinux".as_ref(), mount.join("etc/shadow").as_os_str()],
    );
    testkit::run_ok("umount", [mount.as_os_str()]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(String::from_utf8_lossy(&said.stdout), "", "setfiles would change labels");
    let labelled = String::from_utf8_lossy(&labelled.stdout).into_owned();
    assert!(labelled.contains("system_u:object_r:shadow_t:s0"), "{labelled}");
}
