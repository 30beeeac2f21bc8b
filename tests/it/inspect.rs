//! Inspection, compared with what virt-inspector found on the same disks.
//!
//! The disks are look-alikes of installations: their release files, fstab and package databases with
//! the facts that real ones have, and the header of a program. `UPDATE_GOLDEN=1` runs virt-inspector on
//! them and keeps what it says, which needs libguestfs on the machine; no golden file comes from us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{binary, output};

/// What a look-alike has: a path, and what is there.
type File = (&'static str, What);

/// What is at a path.
#[derive(Clone, Copy)]
enum What {
    Text(&'static str),
    Link(&'static str),
    Dir,
    /// A program for an ELF class (1 is 32 bits), byte order (2 is big-endian) and machine.
    Program(u8, u8, u16),
}
use What::{Dir, Link, Program, Text};

const X86_64: What = Program(2, 1, 62);

/// An installation on a disk without partitions, and its files beside `/bin/ls` and `/etc/fstab`.
struct LookAlike {
    name: &'static str,
    files: &'static [File],
}

const OS: &str = "/etc/os-release";

const LOOK_ALIKES: &[LookAlike] = &[
    LookAlike {
        name: "debian-12",
        files: &[
            (
                "/usr/lib/os-release",
                Text(
                    "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n",
                ),
            ),
            (OS, Link("../usr/lib/os-release")),
            ("/etc/debian_version", Text("12.5\n")),
            ("/etc/hostname", Text("deb12.example.com\n")),
        ],
    },
    LookAlike {
        name: "debian-6",
        files: &[
            ("/etc/debian_version", Text("6.0.10\n")),
            ("/etc/hostname", Text("squeeze\n")),
            ("/bin/bash", Program(1, 1, 3)),
        ],
    },
    LookAlike {
        name: "debian-testing",
        files: &[
            (OS, Text("PRETTY_NAME=\"Debian GNU/Linux trixie/sid\"\nNAME=\"Debian GNU/Linux\"\nID=debian\n")),
            ("/etc/debian_version", Text("trixie/sid\n")),
        ],
    },
    LookAlike {
        name: "ubuntu-22.04",
        files: &[
            (
                OS,
                Text(
                    "PRETTY_NAME=\"Ubuntu 22.04.3 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"22.04\"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n",
                ),
            ),
            (
                "/etc/lsb-release",
                Text(
                    "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\nDISTRIB_CODENAME=jammy\nDISTRIB_DESCRIPTION=\"Ubuntu 22.04.3 LTS\"\n",
                ),
            ),
            ("/etc/debian_version", Text("bookworm/sid\n")),
            ("/bin/bash", Program(2, 1, 183)),
        ],
    },
    LookAlike {
        name: "ubuntu-10.04",
        files: &[
            (
                "/etc/lsb-release",
                Text(
                    "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_CODENAME=lucid\nDISTRIB_DESCRIPTION=\"Ubuntu 10.04.1 LTS\"\n",
                ),
            ),
            ("/etc/debian_version", Text("squeeze/sid\n")),
        ],
    },
    LookAlike {
        name: "fedora-39",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"Fedora Linux\"\nVERSION=\"39 (Server Edition)\"\nID=fedora\nVERSION_ID=39\nPRETTY_NAME=\"Fedora Linux 39 (Server Edition)\"\nVARIANT=\"Server Edition\"\nVARIANT_ID=server\n",
                ),
            ),
            ("/etc/redhat-release", Text("Fedora release 39 (Thirty Nine)\n")),
            ("/usr/bin/dnf", Text("#!/usr/bin/python3\n")),
        ],
    },
    LookAlike {
        name: "fedora-14",
        files: &[
            ("/etc/redhat-release", Text("Fedora release 14 (Laughlin)\n")),
            ("/etc/sysconfig/network", Text("NETWORKING=yes\nHOSTNAME=fedora.invalid\n")),
        ],
    },
    LookAlike {
        name: "rhel-9",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"Red Hat Enterprise Linux\"\nVERSION=\"9.2 (Plow)\"\nID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.2\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.2 (Plow)\"\n",
                ),
            ),
            ("/etc/redhat-release", Text("Red Hat Enterprise Linux release 9.2 (Plow)\n")),
            ("/bin/ls", Program(2, 2, 22)),
        ],
    },
    LookAlike {
        name: "rhel-6",
        files: &[("/etc/redhat-release", Text("Red Hat Enterprise Linux Server release 6.10 (Santiago)\n"))],
    },
    LookAlike {
        name: "rhel-4",
        files: &[("/etc/redhat-release", Text("Red Hat Enterprise Linux AS release 4 (Nahant Update 8)\n"))],
    },
    LookAlike {
        name: "centos-7",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"CentOS Linux\"\nVERSION=\"7 (Core)\"\nID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n",
                ),
            ),
            ("/etc/centos-release", Text("CentOS Linux release 7.9.2009 (Core)\n")),
            ("/etc/redhat-release", Link("centos-release")),
        ],
    },
    LookAlike {
        name: "centos-stream-9",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"CentOS Stream\"\nVERSION=\"9\"\nID=\"centos\"\nVERSION_ID=\"9\"\nPRETTY_NAME=\"CentOS Stream 9\"\n",
                ),
            ),
            ("/etc/centos-release", Text("CentOS Stream release 9\n")),
        ],
    },
    LookAlike {
        name: "scientific-6",
        files: &[("/etc/redhat-release", Text("Scientific Linux release 6.9 (Carbon)\n"))],
    },
    LookAlike {
        name: "oracle-8",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"Oracle Linux Server\"\nVERSION=\"8.5\"\nID=\"ol\"\nVERSION_ID=\"8.5\"\nPRETTY_NAME=\"Oracle Linux Server 8.5\"\n",
                ),
            ),
            ("/etc/oracle-release", Text("Oracle Linux Server release 8.5\n")),
            ("/etc/redhat-release", Text("Red Hat Enterprise Linux release 8.5 (Ootpa)\n")),
        ],
    },
    LookAlike {
        name: "opensuse-leap",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"openSUSE Leap\"\nVERSION=\"15.5\"\nID=\"opensuse-leap\"\nVERSION_ID=\"15.5\"\nPRETTY_NAME=\"openSUSE Leap 15.5\"\n",
                ),
            ),
            ("/etc/HOSTNAME", Text("leap\n")),
        ],
    },
    LookAlike {
        name: "opensuse-13.1",
        files: &[("/etc/SuSE-release", Text("openSUSE 13.1 (x86_64)\nVERSION = 13.1\nCODENAME = Bottle\n"))],
    },
    LookAlike {
        name: "sles-15",
        files: &[(
            OS,
            Text(
                "NAME=\"SLES\"\nVERSION=\"15-SP5\"\nVERSION_ID=\"15.5\"\nPRETTY_NAME=\"SUSE Linux Enterprise Server 15 SP5\"\nID=\"sles\"\nID_LIKE=\"suse\"\n",
            ),
        )],
    },
    LookAlike {
        name: "sles-11",
        files: &[(
            "/etc/SuSE-release",
            Text("SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n"),
        )],
    },
    LookAlike {
        name: "arch",
        files: &[
            (OS, Text("NAME=\"Arch Linux\"\nPRETTY_NAME=\"Arch Linux\"\nID=arch\nBUILD_ID=rolling\n")),
            ("/etc/arch-release", Text("")),
        ],
    },
    LookAlike {
        name: "alpine-3.19",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.1\nPRETTY_NAME=\"Alpine Linux v3.19\"\n",
                ),
            ),
            ("/etc/alpine-release", Text("3.19.1\n")),
        ],
    },
    LookAlike {
        name: "gentoo",
        files: &[("/etc/gentoo-release", Text("Gentoo Base System release 2.14\n"))],
    },
    LookAlike {
        name: "slackware-15",
        files: &[
            (
                OS,
                Text(
                    "NAME=Slackware\nVERSION=\"15.0\"\nID=slackware\nVERSION_ID=15.0\nPRETTY_NAME=\"Slackware 15.0 x86_64\"\n",
                ),
            ),
            ("/etc/slackware-version", Text("Slackware 15.0\n")),
            ("/etc/HOSTNAME", Text("darkstar.example.net\n")),
        ],
    },
    LookAlike {
        name: "mageia-9",
        files: &[(
            OS,
            Text("NAME=\"Mageia\"\nVERSION=\"9\"\nID=mageia\nVERSION_ID=9\nPRETTY_NAME=\"Mageia 9\"\n"),
        )],
    },
    LookAlike {
        name: "altlinux-10",
        files: &[(
            OS,
            Text(
                "NAME=\"ALT Workstation\"\nVERSION=\"10.1\"\nID=altlinux\nVERSION_ID=10.1\nPRETTY_NAME=\"ALT Workstation 10.1 (Autolycus)\"\n",
            ),
        )],
    },
    LookAlike {
        name: "kali",
        files: &[(
            OS,
            Text(
                "PRETTY_NAME=\"Kali GNU/Linux Rolling\"\nNAME=\"Kali GNU/Linux\"\nID=kali\nVERSION=\"2023.4\"\nVERSION_ID=\"2023.4\"\n",
            ),
        )],
    },
    LookAlike {
        name: "linuxmint-21",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\nPRETTY_NAME=\"Linux Mint 21.2\"\nVERSION_ID=\"21.2\"\n",
                ),
            ),
            (
                "/etc/lsb-release",
                Text(
                    "DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=21.2\nDISTRIB_CODENAME=victoria\nDISTRIB_DESCRIPTION=\"Linux Mint 21.2 Victoria\"\n",
                ),
            ),
        ],
    },
    LookAlike {
        name: "void",
        files: &[
            (OS, Text("NAME=\"Void\"\nID=\"void\"\nPRETTY_NAME=\"Void Linux\"\n")),
            ("/bin/bash", Program(1, 1, 40)),
        ],
    },
    LookAlike {
        name: "cirros",
        files: &[("/etc/br-version", Text("2015.05\n")), ("/usr/share/cirros/logo", Text("cirros\n"))],
    },
    LookAlike {
        name: "buildroot",
        files: &[("/etc/br-version", Text("2018.11\n")), ("/bin/bash", Program(2, 1, 21))],
    },
    LookAlike { name: "pld", files: &[("/etc/pld-release", Text("3.0 PLD Linux (Th)\n"))] },
    LookAlike { name: "unknown", files: &[("/usr/share/empty", Dir), ("/bin/ls", Program(2, 1, 243))] },
];

/// Those with package databases that we read.
const WITH_PACKAGES: &[LookAlike] = &[
    LookAlike {
        name: "debian-packages",
        files: &[
            ("/etc/debian_version", Text("12.5\n")),
            (
                "/var/lib/dpkg/status",
                Text(
                    "Package: zlib1g\nStatus: install ok installed\nPriority: required\nSource: zlib\nArchitecture: amd64\nMulti-Arch: same\n\
                     Version: 1:1.2.13.dfsg-1\nDescription: compression library - runtime\n zlib is a library implementing the deflate method.\n .\n  - \"quoted\" & <escaped>\nHomepage: http://zlib.net/\n\n\
                     Package: removed\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1.0\n\n\
                     Package: bash\nEssential: yes\nStatus: install ok installed\nArchitecture: amd64\nSource: bash (5.2.15-2)\n\
                     Version: 5.2.15-2+b2\nConffiles:\n /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d\nDescription: GNU Bourne Again SHell\n Bash is an sh-compatible shell. \n\n\
                     Package: twice\nStatus: hold ok installed\nArchitecture: all\nVersion: 1.0-2-3ubuntu1\nDescription: Stra\u{df}e\n\n",
                ),
            ),
        ],
    },
    LookAlike {
        name: "alpine-packages",
        files: &[
            (
                OS,
                Text(
                    "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.1\nPRETTY_NAME=\"Alpine Linux v3.19\"\n",
                ),
            ),
            (
                "/lib/apk/db/installed",
                Text(
                    "C:Q1LyAv0Y1NVAsJB0qAJHbUV0Ssjbs=\nP:musl\nV:1.2.4_git20230717-r4\nA:x86_64\nS:407477\nI:667648\nT:the musl c library (libc) implementation\nU:https://musl.libc.org/\nL:MIT\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\n\n\
                     C:Q1sd=\nP:busybox\nV:1.36.1-r15\nA:x86_64\nT:Size optimized toolbox\nU:https://busybox.net/\no:busybox\n\n",
                ),
            ),
        ],
    },
    LookAlike {
        name: "arch-packages",
        files: &[
            (OS, Text("NAME=\"Arch Linux\"\nPRETTY_NAME=\"Arch Linux\"\nID=arch\n")),
            ("/var/lib/pacman/local/ALPM_DB_VERSION", Text("9\n")),
            (
                "/var/lib/pacman/local/bash-5.2.026-2/desc",
                Text(
                    "%NAME%\nbash\n\n%VERSION%\n5.2.026-2\n\n%BASE%\nbash\n\n%DESC%\nThe GNU Bourne Again shell\n\n%URL%\nhttps://www.gnu.org/software/bash/bash.html\n\n%ARCH%\nx86_64\n\n",
                ),
            ),
            (
                "/var/lib/pacman/local/tzdata-1:2023c-1/desc",
                Text(
                    "%NAME%\ntzdata\n\n%VERSION%\n1:2023c-1\n\n%DESC%\nSources for time zone and daylight saving time data\n\n%ARCH%\nany\n\n",
                ),
            ),
        ],
    },
];

/// An ELF header and nothing behind it.
fn program(class: u8, data: u8, machine: u16) -> Vec<u8> {
    let number = |value: u16| if data == 2 { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut header = vec![0x7f, b'E', b'L', b'F', class, data, 1, 0];
    header.resize(16, 0);
    header.extend(number(2)); // an executable
    header.extend(number(machine));
    header.extend(if data == 2 { [0, 0, 0, 1] } else { [1, 0, 0, 0] });
    header.resize(64, 0);
    header
}

/// Puts files below a directory.
fn write(root: &Path, files: &[File]) {
    for (path, what) in files {
        let path = root.join(path.trim_start_matches('/'));
        if matches!(what, Dir) {
            fs::create_dir_all(&path).expect("a directory can be made");
            continue;
        }
        fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a directory can be made");
        match what {
            Text(text) => fs::write(&path, text),
            Program(class, data, machine) => fs::write(&path, program(*class, *data, *machine)),
            Link(target) => std::os::unix::fs::symlink(target, &path),
            Dir => Ok(()),
        }
        .expect("a file can be made");
    }
}

/// Makes an ext4 image of these files, with a UUID that ends in `number`.
fn make_image(dir: &Path, name: &str, number: usize, files: &[File]) -> PathBuf {
    let root = dir.join(format!("{name}.root"));
    write(&root, files);
    let image = dir.join(format!("{name}.img"));
    let uuid = format!("00000000-0000-4000-8000-{number:012}");
    let arguments = ["-q", "-t", "ext4", "-U", &uuid, "-L", name, "-d"];
    let paths = [root.as_os_str(), image.as_os_str(), "4M".as_ref()];
    testkit::run_ok("mke2fs", arguments.iter().map(AsRef::as_ref).chain(paths));
    fs::remove_dir_all(root).expect("the tree can be removed");
    image
}

/// Makes the images of look-alikes: each on a disk without partitions, as the next one after the last.
fn make_images(dir: &Path, look_alikes: &[LookAlike]) -> Vec<PathBuf> {
    let images = look_alikes.iter().enumerate().map(|(number, look_alike)| {
        let mut files =
            vec![("/bin/ls", X86_64), ("/etc/fstab", Text("# empty\n")), ("/etc/hosts", Text(""))];
        files.retain(|(path, _)| !look_alike.files.iter().any(|(own, _)| own == path));
        files.extend(look_alike.files);
        make_image(dir, look_alike.name, number, &files)
    });
    images.collect()
}

/// `vmcraft inspect` of these disks.
fn inspect(images: &[PathBuf], options: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["inspect", "--format=raw"]);
    for image in images {
        command.arg("-a").arg(image);
    }
    command.args(options);
    command
}

/// Compares our XML for these disks with virt-inspector's.
fn compare(name: &str, images: &[PathBuf], options: &[&str]) {
    let golden = testkit::workspace().join("tests/golden/virt-inspector").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let mut command = Command::new("virt-inspector");
        command.env("LIBGUESTFS_BACKEND", "direct").env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
        command.arg("--format=raw");
        for image in images {
            command.arg("-a").arg(image);
        }
        let theirs = output(command.args(options));
        assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
        fs::create_dir_all(golden.parent().expect("a directory")).expect("the directory can be made");
        fs::write(&golden, theirs.stdout).expect("the golden file can be written");
    }
    let ours = output(inspect(images, options).arg("--xml"));
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    let ours = String::from_utf8(ours.stdout).expect("XML in UTF-8");
    let theirs = fs::read_to_string(&golden).expect("what virt-inspector said");
    for (number, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(ours, theirs, "{name}:{}", number + 1);
    }
    assert_eq!(ours.len(), theirs.len(), "{name}: one goes on after the other ends");
}

#[test] // Thirty distributions of the last twenty years.
fn distributions_are_those_of_virt_inspector() {
    let dir = testkit::tempdir();
    let images = make_images(dir.path(), LOOK_ALIKES);
    compare("distributions.xml", &images, &["--no-applications", "--no-icon"]);
}

#[test] // The three package databases that are read.
fn applications_are_those_of_virt_inspector() {
    let dir = testkit::tempdir();
    let images = make_images(dir.path(), WITH_PACKAGES);
    compare("applications.xml", &images, &["--no-icon"]);
}

/// A GPT disk of a guest whose `/boot`, `/usr` and `/var` are file systems of their own, found by UUID,
/// label and device names of hypervisors.
fn partitioned(dir: &Path) -> PathBuf {
    let disk = dir.join("partitioned.img");
    fs::File::create(&disk).and_then(|file| file.set_len(64 << 20)).expect("a disk can be made");
    let mut arguments: Vec<String> = Vec::new();
    for number in 1..=5 {
        arguments.extend(["-n".into(), format!("{number}:{}M:+8M", 1 + 10 * (number - 1))]);
    }
    arguments.extend(["-t".into(), "5:8200".into(), disk.display().to_string()]);
    testkit::run_ok("sgdisk", &arguments);
    let fstab = "\
UUID=00000000-0000-4000-8000-000000000102 / ext4 errors=remount-ro 0 1
LABEL=part1 /boot ext4 defaults 0 2
/dev/vda3 /usr ext4 defaults 0 2
UUID=00000000-0000-4000-8000-000000000104 /var ext4 defaults 0 2
/dev/xvda5 none swap sw 0 0
tmpfs /tmp tmpfs nosuid 0 0
/dev/fd0 /media/floppy auto noauto 0 0
proc /proc proc defaults 0 0
/dev/mapper/data-home /home ext4 nofail 0 2
//server/share /srv cifs noauto 0 0
";
    let parts: [&[File]; 4] = [
        &[
            ("/grub2/grub.cfg", Text("linux /vmlinuz-5.14.0-1.x86_64 ro\n")),
            ("/vmlinuz-5.14.0-1.x86_64", Text("x")),
        ],
        &[
            ("/etc/fstab", Text(fstab)),
            ("/bin/ls", X86_64),
            ("/boot", Dir),
            ("/usr", Dir),
            ("/var", Dir),
            (
                OS,
                Text(
                    "ID=\"rhel\"\nVERSION_ID=\"9.2\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.2 (Plow)\"\n",
                ),
            ),
        ],
        &[
            ("/etc", Dir),
            ("/share", Dir),
            ("/local", Dir),
            ("/bin/bash", X86_64),
            ("/bin/ls", X86_64),
            (
                "/lib/os-release",
                Text(
                    "ID=\"rhel\"\nVERSION_ID=\"9.2\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.2 (Plow)\"\n",
                ),
            ),
        ],
        &[("/log", Dir), ("/run", Dir), ("/spool", Dir)],
    ];
    for (number, files) in (1_u64..).zip(parts) {
        let image =
            make_image(dir, &format!("part{number}"), 100 + usize::try_from(number).unwrap_or(0), files);
        let content = fs::read(&image).expect("the image can be read");
        let file = fs::File::options().write(true).open(&disk).expect("the disk can be opened");
        std::os::unix::fs::FileExt::write_all_at(&file, &content, (1 + 10 * (number - 1)) << 20)
            .expect("the disk can be written");
    }
    disk
}

#[test] // What fstab names leads to the same devices.
fn mountpoints_are_those_of_virt_inspector() {
    let dir = testkit::tempdir();
    let disk = partitioned(dir.path());
    compare("partitioned.xml", &[disk], &["--no-applications", "--no-icon"]);
}

#[test] // What libguestfs does not tell: it is on the file systems that fstab mounts.
fn report_puts_the_file_systems_together() {
    let dir = testkit::tempdir();
    let disk = partitioned(dir.path());
    let found = output(&mut inspect(&[disk], &["--json"]));
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let system = &report["operating_systems"][0];
    assert_eq!(system["kernels"][0]["path"], "/boot/vmlinuz-5.14.0-1.x86_64");
    assert_eq!(system["kernels"][0]["default"], true);
    assert_eq!(system["boot_loader"]["config"], "/boot/grub2/grub.cfg");
    assert_eq!(system["pretty_name"], "Red Hat Enterprise Linux 9.2 (Plow)");
    assert_eq!(report["disks"][0]["partition_table"], "gpt");
    let error = system["applications_error"].to_string();
    assert!(error.contains("not supported: the rpm database"), "{error}");
}

#[test] // Several roots are refused by -i with their names, and --root chooses.
fn several_systems_are_told_apart() {
    let dir = testkit::tempdir();
    let images = make_images(dir.path(), &LOOK_ALIKES[..2]);
    let shell = |options: &[&str]| {
        let mut command = Command::new(binary());
        for image in &images {
            command.arg("-a").arg(image);
        }
        output(command.arg("-i").args(options).args(["--run", "mountpoints"]))
    };
    let refused = shell(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--root") && said.contains("/dev/sda Debian") && said.contains("/dev/sdb"),
        "{said}"
    );
    let chosen = shell(&["--root", "/dev/vdb"]);
    assert_eq!(
        String::from_utf8_lossy(&chosen.stdout),
        "/dev/sdb: /\n",
        "{}",
        String::from_utf8_lossy(&chosen.stderr)
    );
    let wrong = shell(&["--root", "/dev/sdc"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("/dev/sdc: no operating system"));
}

#[test] // A file system that is not there is told of, and the rest of the guest is mounted.
fn missing_file_systems_are_warned_of() {
    let dir = testkit::tempdir();
    let disk = partitioned(dir.path());
    let mut command = Command::new(binary());
    let found = output(command.arg("-a").arg(disk).args(["-i", "--run", "mountpoints", "--run", "ls /boot"]));
    assert!(found.status.success());
    assert_eq!(
        String::from_utf8_lossy(&found.stdout),
        "/dev/sda2: /\n/dev/sda3: /usr\n/dev/sda4: /var\n/dev/sda1: /boot\ngrub2\nlost+found\n\
         vmlinuz-5.14.0-1.x86_64\n"
    );
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(said.contains("warning: /home was not mounted: /dev/mapper/data-home: no such device"), "{said}");
}

#[test] // A guest inside what we cannot open yet: the message says so.
fn unread_volumes_are_named() {
    let dir = testkit::tempdir();
    let image = dir.path().join("xfs.img");
    fs::File::create(&image).and_then(|file| file.set_len(300 << 20)).expect("a disk can be made");
    testkit::run_ok("mkfs.xfs", ["-q".as_ref(), image.as_os_str()]);
    let page = output(&mut inspect(std::slice::from_ref(&image), &[]));
    let text = String::from_utf8_lossy(&page.stdout);
    assert!(text.contains("Not read by this version\n  /dev/sda  xfs  300.0 MiB"), "{text}");
    let shell = output(Command::new(binary()).arg("-a").arg(&image).args(["-i", "--run", "ls /"]));
    let said = String::from_utf8_lossy(&shell.stderr);
    assert!(said.contains("(/dev/sda holds xfs, which this version does not read)"), "{said}");
}

#[test] // A disk without a system is no success, in any form of output.
fn disk_without_a_system_is_an_error() {
    let dir = testkit::tempdir();
    let image = make_image(dir.path(), "data", 1, &[("/photos/1.txt", Text("x"))]);
    for form in ["--json", "--yaml", "--xml"] {
        let found = output(&mut inspect(std::slice::from_ref(&image), &[form]));
        assert_eq!(found.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&found.stderr).contains("no operating system was found"));
    }
}

/// The facts of a real Debian guest, as JSON.
fn debian(layout: testkit::guest::Layout) -> serde_json::Value {
    let disk = testkit::guest::debian(layout, testkit::guest::Packing::Raw);
    let found = output(&mut inspect(&[disk], &["--json"]));
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let mut report: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
    report["operating_systems"][0].take()
}

#[test] // A guest made of Debian's own packages.
fn real_debian_guest() {
    let mbr = debian(testkit::guest::Layout::Mbr);
    assert_eq!(mbr["root"], "/dev/sda1");
    assert_eq!(mbr["distro"], "debian");
    assert_eq!(mbr["arch"], "x86_64");
    assert_eq!(mbr["init"], "systemd");
    assert_eq!(mbr["package_format"], "deb");
    assert!(mbr["application_count"].as_u64().is_some_and(|count| count > 100), "{mbr}");
    assert_eq!(mbr["kernels"].as_array().map(Vec::len), Some(1));
    assert_eq!(mbr["firmware"], "bios");
    assert_eq!(mbr["boot_loader"]["kind"], "grub2");
    let gpt = debian(testkit::guest::Layout::Gpt);
    assert_eq!(gpt["root"], "/dev/sda3");
    assert_eq!(gpt["firmware"], "uefi");
    assert_eq!(gpt["product_name"], mbr["product_name"]);
}
