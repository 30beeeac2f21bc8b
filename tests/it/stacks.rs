//! Guests on each stack of volumes that the kernel made: inspected, changed and read again by an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use testkit::volumes::{Case, case, names};

use crate::support::{as_nobody, output};

/// The device with the root of a guest on a stack, and how the guest calls it.
struct Root {
    stack: &'static str,
    /// As the kernel had it when the stack was made.
    device: &'static str,
    /// What is made there first; nothing if there is a guest.
    mkfs: Option<&'static str>,
}

const ROOTS: &[Root] = &[
    Root { stack: "stack-lvm-on-luks2", device: "/dev/vg/root", mkfs: None },
    Root { stack: "stack-lvm-on-md", device: "/dev/vg/root", mkfs: None },
    Root { stack: "stack-luks-lvm-md", device: "/dev/mapper/open", mkfs: Some("ext4") },
    Root { stack: "stack-luks1-in-lvm", device: "/dev/mapper/open", mkfs: Some("ext4") },
    Root { stack: "stack-luks2-in-lvm", device: "/dev/mapper/open", mkfs: Some("ext4") },
    Root { stack: "stack-md-of-lvs", device: "/dev/md127", mkfs: Some("ext4") },
    Root { stack: "stack-md-on-luks", device: "/dev/md127", mkfs: Some("ext2") },
    Root { stack: "stack-partitions-in-lv", device: "/dev/vg/machinep1", mkfs: Some("ext4") },
    Root { stack: "stack-partitions-on-md", device: "/dev/md127p1", mkfs: Some("ext4") },
    Root { stack: "stack-thin-on-raid", device: "/dev/mapper/open", mkfs: Some("ext4") },
];

/// The name that a device has here: the content of an encrypted one is called by its UUID.
fn our_name(case: &Case, name: &str) -> String {
    let device = case.devices.iter().find(|device| device.name == name);
    let uuid = device.filter(|device| device.facts["on"].is_string()).map(|device| &device.facts["uuid"]);
    match uuid.and_then(|uuid| uuid.as_str()) {
        Some(uuid) => format!("/dev/mapper/luks-{uuid}"),
        None => name.to_owned(),
    }
}

/// What makes a tree a guest.
fn plant(dir: &Path, case: &Case, root: &Root) {
    for directory in ["etc", "bin", "usr", "var/lib/dpkg", "boot"] {
        fs::create_dir_all(dir.join(directory)).expect("space for a directory");
    }
    let uuid = case.devices.iter().find(|device| device.name == root.device);
    let uuid = uuid.and_then(|device| device.facts["uuid"].as_str()).unwrap_or_default();
    for (file, content) in [
        ("etc/os-release", "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n".to_owned()),
        ("etc/debian_version", "12.5\n".to_owned()),
        ("etc/hostname", format!("{}\n", case.name)),
        ("etc/fstab", format!("{} / ext4 defaults 0 1\n", root.device)),
        ("etc/crypttab", format!("open UUID={uuid} none luks\n")),
        ("var/lib/dpkg/status", String::new()),
    ] {
        fs::write(dir.join(file), content).expect("space for a file");
    }
}

#[test] // Read and write, with one key for all: what is written by one run is there in the next.
fn a_guest_on_each_stack_is_inspected_and_changed() {
    let known: Vec<_> = ROOTS.iter().map(|root| root.stack).collect();
    for stack in names("stack-") {
        assert!(known.contains(&&*stack), "{stack} is not in the table");
    }
    let programs = testkit::tempdir();
    let program = as_nobody(programs.path());
    for root in ROOTS {
        let case = case(root.stack);
        let dir = case.disks[0].parent().expect("a directory");
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("own directory");
        if testkit::have_root() {
            for owned in case.disks.iter().map(|disk| disk.as_path()).chain([dir]) {
                chown(owned, Some(65534), Some(65534)).expect("own file");
            }
        }
        let run = |options: &[&str], words: &[&OsStr]| {
            let mut command: Command = program();
            command.current_dir(dir).env("HOME", dir).args(options);
            for disk in &case.disks {
                command.arg("-a").arg(disk);
            }
            if let Some(passphrase) = case.facts["passphrase"].as_str() {
                command.args(["--key", &format!("all:key:{passphrase}")]);
            }
            let ran = output(command.args(words));
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success() && said.is_empty(), "{}: {options:?} {words:?}: {said}", root.stack);
            String::from_utf8_lossy(&ran.stdout).into_owned()
        };
        let words = |line: &'static str| line.split(' ').map(OsStr::new).collect::<Vec<_>>();
        let device = our_name(&case, root.device);
        if let Some(kind) = root.mkfs {
            let tree = dir.join("tree");
            plant(&tree, &case, root);
            // One of the arrays has 128 KiB.
            let fstype = format!("fstype:{kind}");
            let make = ["run", ":", "mke2fs", &device, &fstype, "numberofinodes:64"];
            run(&[], &make.map(OsStr::new));
            let mut copy = words("copy-in");
            let parts: Vec<_> = ["etc", "bin", "usr", "var", "boot"].map(|part| tree.join(part)).into();
            copy.extend(parts.iter().map(|part| part.as_os_str()));
            copy.push(OsStr::new("/"));
            run(&["-m", &device], &copy);
        }

        let roots = run(&["--ro", "-i"], &words("inspect-get-roots"));
        assert_eq!(roots.trim_end(), device, "{}", root.stack);
        assert_eq!(run(&["--ro", "-i"], &words("cat /etc/hostname")).trim_end(), root.stack);
        run(&["-i"], &words("write /etc/written by-inspection : mkdir-p /srv/made"));
        run(&["-m", &device], &words("write-append /etc/written ,-by-device"));
        let written = run(&["--ro", "-i"], &words("cat /etc/written"));
        assert_eq!(written.trim_end(), "by-inspection,-by-device", "{}", root.stack);

        let copy = dir.join("root.img");
        run(
            &["--ro"],
            &[
                OsStr::new("run"),
                OsStr::new(":"),
                OsStr::new("download"),
                OsStr::new(&device),
                copy.as_os_str(),
            ],
        );
        testkit::run_ok("e2fsck", [OsStr::new("-fn"), copy.as_os_str()]);
    }
}
