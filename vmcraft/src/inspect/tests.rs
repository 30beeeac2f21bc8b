//! Inspection of guests of several file systems, built in memory.

use std::sync::Arc;

use super::volumes::tests::volume;
use super::*;
use crate::testing::MemoryFs;

/// Disks with one partition after the other, the first of disk 0.
fn volumes(filesystems: Vec<MemoryFs>) -> Volumes {
    let volumes = (1..).zip(filesystems).map(|(number, fs)| {
        let fs: Arc<dyn vmcraft_fs::FileSystem> = Arc::new(fs);
        Volume {
            kind: fs.kind().into(),
            label: fs.label(),
            uuid: fs.uuid(),
            filesystem: Some(fs),
            ..volume(0, number)
        }
    });
    Volumes { volumes: volumes.collect(), disks: 1, bios_disks: vec![0], ..Volumes::default() }
}

fn systems(filesystems: Vec<MemoryFs>) -> Vec<OperatingSystem> {
    inspect(volumes(filesystems)).systems
}

/// The least that makes a Debian root.
fn debian() -> MemoryFs {
    MemoryFs::new()
        .dir("/bin")
        .file("/etc/fstab", "")
        .file("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n")
        .file("/etc/debian_version", "12.5\n")
        .file("/etc/hostname", "box\n")
        .file("/var/lib/dpkg/status", "Package: a&b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nDescription: \"x\" <y>\n")
}

fn mounts(system: &OperatingSystem) -> Vec<String> {
    system.mountpoints.iter().map(|mount| format!("{} {}", mount.mountpoint, mount.device)).collect()
}

#[test] // The whole of what is asked of a plain guest.
fn plain_guest() {
    let found = systems(vec![debian()]);
    let [system] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(system.root, "/dev/sda1");
    assert_eq!(system.os_type, "linux");
    assert_eq!(system.distro.as_deref(), Some("debian"));
    assert_eq!((system.major_version, system.minor_version), (12, 5));
    assert_eq!(system.product_name.as_deref(), Some("12.5"));
    assert_eq!(system.pretty_name.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    assert_eq!(system.codename.as_deref(), Some("bookworm"));
    assert_eq!(system.osinfo.as_deref(), Some("debian12"));
    assert_eq!(system.package_format.as_deref(), Some("deb"));
    assert_eq!(system.package_management.as_deref(), Some("apt"));
    assert_eq!(system.hostname.as_deref(), Some("box"));
    assert_eq!(system.firmware.as_deref(), Some("bios"));
    assert_eq!(system.arch, None);
    assert_eq!(mounts(system), ["/ /dev/sda1"]);
    assert_eq!(system.filesystems, ["/dev/sda1"]);
    assert_eq!(system.notes, [""; 0]);
}

#[test] // What is below /usr, /var and /boot is found where fstab mounts it.
fn separate_file_systems_are_one_guest() {
    let boot = MemoryFs::new()
        .with_label("BOOT")
        .file("/vmlinuz-6.1.0-1-amd64", "x")
        .file("/grub/grub.cfg", "linux /vmlinuz-6.1.0-1-amd64 ro\n");
    let root = MemoryFs::new()
        .with_uuid("42e9f33b-7620-41f7-907d-a589fc9cb289")
        .symlink("/bin", "usr/bin")
        .dir("/boot")
        .dir("/usr")
        .dir("/var")
        .symlink("/etc/os-release", "/usr/lib/os-release")
        .symlink("/sbin/init", "/usr/lib/systemd/systemd")
        .file(
            "/etc/fstab",
            "UUID=42e9f33b-7620-41f7-907d-a589fc9cb289 / ext4 defaults 0 1\nLABEL=BOOT /boot ext4 defaults 0 2\n\
             /dev/vda3 /usr ext4 ro 0 2\nPARTUUID=00000000-04 /var ext4 defaults 0 2\n/dev/vda5 none swap sw 0 0\n\
             tmpfs /tmp tmpfs defaults 0 0\nUUID=gone /home ext4 defaults 0 2\n",
        );
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(18, 0);
    program.extend(62_u16.to_le_bytes());
    program.resize(4096, 0);
    let usr = MemoryFs::new()
        .dir("/etc")
        .dir("/share")
        .dir("/local")
        .file("/bin/bash", program)
        .file("/lib/systemd/systemd", "")
        .file("/lib/os-release", "ID=fedora\nVERSION_ID=39\nPRETTY_NAME=\"Fedora Linux 39\"\n")
        .file("/bin/dnf", "");
    let var =
        MemoryFs::new().dir("/log").dir("/run").dir("/spool").file("/lib/dbus/machine-id", "0".repeat(32));
    let found = systems(vec![boot, root, usr, var]);
    let [system] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(system.root, "/dev/sda2");
    assert_eq!(system.distro.as_deref(), Some("fedora"));
    assert_eq!(system.arch.as_deref(), Some("x86_64"));
    assert_eq!(system.package_management.as_deref(), Some("dnf"));
    assert_eq!(system.init.as_deref(), Some("systemd"));
    assert_eq!(system.machine_id, Some("0".repeat(32)));
    assert_eq!(mounts(system), ["/ /dev/sda2", "/boot /dev/sda1", "/usr /dev/sda3", "/var /dev/sda4"]);
    assert_eq!(system.filesystems, ["/dev/sda2", "/dev/sda1", "/dev/sda3", "/dev/sda4", "/dev/sda5"]);
    assert_eq!(system.kernels[0].path.as_deref(), Some("/boot/vmlinuz-6.1.0-1-amd64"));
    assert!(system.kernels[0].default);
    assert_eq!(system.boot_loader.as_ref().unwrap().config.as_deref(), Some("/boot/grub/grub.cfg"));
    assert_eq!(system.notes, ["/etc/fstab: no device has UUID=gone, mounted on /home"]);
}

#[test] // Two systems on one disk, and snapshots of the first beside it in its own tree.
fn snapshots_are_no_further_roots() {
    let first = debian()
        .file("/.snapshots/1/snapshot/etc/fstab", "")
        .dir("/.snapshots/1/snapshot/bin")
        .file("/var/lib/docker/overlay2/0/diff/etc/hosts", "");
    let second = debian().file("/etc/hostname", "other\n");
    let found = systems(vec![first, MemoryFs::new().dir("/alice"), second]);
    let roots: Vec<_> = found.iter().map(|system| system.root.as_str()).collect();
    assert_eq!(roots, ["/dev/sda1", "/dev/sda3"]);
    assert_eq!(found[1].hostname.as_deref(), Some("other"));
}

#[test] // A root is where its fstab is, whatever it calls itself: a copied disk has the old names.
fn root_is_where_its_fstab_is() {
    for (fstab, note) in [
        ("/dev/mapper/vg-root / ext4 defaults 0 1\n", None),
        ("UUID=gone / ext4 defaults 0 1\n", None),
        ("/dev/sda2 / ext4 defaults 0 1\n", Some("/dev/sda2, but this fstab is on /dev/sda1")),
        ("/dev/sda1 / ext4 defaults 0 1\n/dev/sda1 / ext4 defaults 0 1\n", Some("more than once")),
        ("/dev/sda1 /proc proc\n", None),
    ] {
        let found = systems(vec![debian().file("/etc/fstab", fstab), MemoryFs::new()]);
        assert_eq!(mounts(&found[0]), ["/ /dev/sda1"], "{fstab}");
        match note {
            Some(note) => assert!(found[0].notes[0].contains(note), "{:?}", found[0].notes),
            None => assert_eq!(found[0].notes, [""; 0], "{fstab}"),
        }
    }
}

#[test] // Files made to hurt cost little and stop nothing.
fn hostile_guest() {
    let line = "/dev/sda1 /mnt ext4 defaults 0 0\n";
    let fs = MemoryFs::new()
        .dir("/bin")
        .symlink("/bin/bash", "bash")
        .symlink("/sbin/init", "/sbin/init")
        .file("/etc/os-release", vec![b'A'; 3 << 20])
        .file("/etc/fstab", line.repeat(20_000))
        .file("/etc/hostname", b"\xff\xfe\x1b[2J\n")
        .symlink("/etc/localtime", b"/usr/share/zoneinfo/\xff")
        .symlink("/boot", "/boot")
        .file("/etc/debian_version", "99999999999999999999.99999999999999999\n")
        .file(
            "/var/lib/dpkg/status",
            "Package: x\nVersion: 9999999:1\nStatus: install ok installed\n\nPackage:\nVersion\nStatus\n",
        );
    let inspection = inspect(volumes(vec![fs]));
    let system = &inspection.systems[0];
    assert_eq!(system.distro.as_deref(), Some("debian"));
    assert_eq!((system.major_version, system.minor_version), (0, 0));
    assert_eq!(system.hostname.as_deref(), Some("\u{fffd}\u{fffd}\u{1b}[2J"));
    assert_eq!(system.mountpoints.len(), 1001);
    assert!(
        system.notes.iter().any(|note| note.contains("/etc/os-release has 3145728 bytes")),
        "{:?}",
        system.notes
    );
    assert!(system.notes.iter().any(|note| note.contains("first 1000 entries")), "{:?}", system.notes);
    assert_eq!(inspection.applications(system).unwrap(), []);
    let report = inspection.report(Vec::new(), ReportOptions { applications: true, icon: true }).unwrap();
    assert!(!report.to_string().contains('\u{1b}'));
    assert!(!report.to_xml().contains('\u{1b}'));
    let missing = systems(vec![MemoryFs::new().dir("/bin").file("/etc/hosts", "")]);
    assert_eq!((mounts(&missing[0]), missing[0].distro.as_deref()), (vec!["/ /dev/sda1".to_owned()], None));
}

#[test] // What a guest has in place of a key is work too.
fn key_files_are_looked_for_a_number_of_times() {
    let closed = [("/dev/sdb".to_owned(), "1234".to_owned())];
    let root = |content: &[u8], options: &str| {
        MemoryFs::new().file("/key", content).file("/etc/crypttab", format!("x UUID=1234 /key {options}\n"))
    };
    let found = |filesystems: Vec<MemoryFs>| -> Vec<Vec<u8>> {
        let found = key_files(&volumes(filesystems), &closed);
        found.into_iter().map(|(_, key)| key.as_bytes().to_vec()).collect()
    };
    let long = vec![0; (8 << 20) + 1];
    for (content, options, expected) in [
        (&b"secret"[..], "luks", Some(&b"secret"[..])),
        (b"secret", "keyfile-offset=2", Some(b"cret")),
        (b"secret", "keyfile-offset=2,keyfile-size=3", Some(b"cre")),
        (b"secret", "keyfile-offset=2,keyfile-size=5", None),
        (b"secret", "keyfile-offset=6", None),
        (b"secret", "keyfile-offset=7", None),
        (b"secret", "keyfile-size=0", None),
        (b"", "luks", None),
        (&long, "luks", None),
        (&long, "keyfile-offset=1", Some(&long[1..])),
        (&long, "keyfile-size=8388609", None),
    ] {
        let found = found(vec![root(content, options)]);
        assert!(found == Vec::from_iter(expected), "{} {options}: {}", content.len(), found.len());
    }
    let guests = |without: usize| {
        let mut guests: Vec<_> = (0..without).map(|_| root(b"", "luks")).collect();
        guests.push(root(b"secret", "luks"));
        guests
    };
    assert_eq!(found(guests(MAX_KEY_FILES - 1)), [b"secret"]);
    assert_eq!(found(guests(MAX_KEY_FILES)), Vec::<Vec<u8>>::new());
}

#[test] // CoreOS has two /usr, and runs the newer one.
fn container_linux_is_put_together() {
    let root = MemoryFs::new().dir("/root").dir("/home").dir("/usr").file("/etc/coreos/update.conf", "");
    let usr = |version: &str| {
        MemoryFs::new().dir("/bin").dir("/share/coreos").file(
            "/lib/os-release",
            format!("ID=coreos\nPRETTY_NAME=\"CoreOS {version}\"\nVERSION_ID={version}\n"),
        )
    };
    let found = systems(vec![usr("899.13.0"), usr("1010.5.0"), root]);
    assert_eq!(found.len(), 1);
    assert_eq!(mounts(&found[0]), ["/ /dev/sda3", "/usr /dev/sda2"]);
    assert_eq!(found[0].distro.as_deref(), Some("coreos"));
    assert_eq!(found[0].major_version, 1010);
}

#[test] // virt-inspector's form, as programs parse it.
fn xml_has_the_form_of_virt_inspector() {
    let root = debian()
        .with_label("rootfs")
        .with_uuid("42e9")
        .file("/etc/fstab", "LABEL=rootfs / ext4 defaults 0 1\n/dev/sdb1 /srv/data ext4 nofail 0 2\n");
    let inspection = inspect(volumes(vec![root]));
    let report = inspection.report(Vec::new(), ReportOptions { applications: true, icon: true }).unwrap();
    let expected = r#"<?xml version="1.0"?>
<operatingsystems>
  <operatingsystem>
    <root>/dev/sda1</root>
    <name>linux</name>
    <distro>debian</distro>
    <product_name>12.5</product_name>
    <major_version>12</major_version>
    <minor_version>5</minor_version>
    <package_format>deb</package_format>
    <package_management>apt</package_management>
    <hostname>box</hostname>
    <osinfo>debian12</osinfo>
    <mountpoints>
      <mountpoint dev="/dev/sda1">/</mountpoint>
      <mountpoint dev="/dev/sdb1">/srv/data</mountpoint>
    </mountpoints>
    <filesystems>
      <filesystem dev="/dev/sda1">
        <type>ext4</type>
        <label>rootfs</label>
        <uuid>42e9</uuid>
      </filesystem>
      <filesystem dev="/dev/sdb1"/>
    </filesystems>
    <applications>
      <application>
        <name>a&amp;b</name>
        <epoch>1</epoch>
        <version>2</version>
        <release>3</release>
        <arch>amd64</arch>
        <summary>&quot;x&quot; &lt;y&gt;</summary>
      </application>
    </applications>
  </operatingsystem>
</operatingsystems>
"#;
    assert_eq!(report.to_xml(), expected);
}

#[test] // The page: what is known stands below each other, what is not known is left out.
fn page_is_aligned() {
    let root = debian().with_label("rootfs").file("/etc/fstab", "LABEL=rootfs / ext4 defaults 0 1\n");
    let inspection = inspect(volumes(vec![root]));
    let disk = DiskReport {
        device: "/dev/sda".into(),
        image: "debian.qcow2".into(),
        size_bytes: 8 << 30,
        partition_table: Some("mbr".into()),
    };
    let report = inspection.report(vec![disk], ReportOptions::default()).unwrap();
    let expected = "\
Debian GNU/Linux 12 (bookworm) on /dev/sda1
  Host name       box
  Distribution    debian 12.5 (bookworm)
  osinfo          debian12
  Packages        deb, managed by apt, 1 installed
  Firmware        bios

  File systems
    /  /dev/sda1  ext4  1.0 GiB  20.0 KiB used  rootfs

Disks
  /dev/sda  8.0 GiB  mbr  debian.qcow2
";
    assert_eq!(report.to_string(), expected);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["operating_systems"][0]["type"], "linux");
    assert_eq!(json["operating_systems"][0]["mountpoints"][0]["mountpoint"], "/");
    assert_eq!(json["operating_systems"][0]["filesystems"][0]["label"], "rootfs");
    assert_eq!(json["operating_systems"][0]["application_count"], 1);
}

/// Files that inspection reads, for trees of nonsense.
const READ: &[&str] = &[
    "/etc/os-release",
    "/etc/fstab",
    "/etc/hostname",
    "/etc/redhat-release",
    "/etc/SuSE-release",
    "/etc/debian_version",
    "/etc/selinux/config",
    "/etc/machine-id",
    "/etc/localtime",
    "/etc/favicon.png",
    "/bin/ls",
    "/boot/vmlinuz-x",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/loader/entries/a.conf",
    "/lib/modules/6.1",
    "/lib/apk/db/installed",
    "/var/lib/dpkg/status",
    "/var/lib/pacman/local/a/desc",
];

/// Words that lead on in the parsers.
const WORDS: &[&[u8]] = &[
    b"ID=",
    b"debian",
    b"alpine",
    b"arch",
    b"VERSION_ID=",
    b"12.5",
    b"PRETTY_NAME=",
    b"release ",
    b"Red Hat ",
    b"\n",
    b" ",
    b"\"",
    b"\\",
    b"\\040",
    b"/dev/sda1",
    b"LABEL=",
    b"/",
    b"ext4",
    b"Package: ",
    b"Status: install ok installed",
    b"Version: ",
    b"1:2-3",
    b"P:a",
    b"V:1-r0",
    b"%NAME%\n",
    b"%VERSION%\n",
    b"linux /",
    b"saved_entry=",
    b"\x7fELF\x02\x01",
    b"\x1b]0;x\x07",
    b"<&>",
    b"\xff",
    b"\0",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test] // Whatever the files hold: an answer, XML that parses, a page that is safe to print.
    fn nonsense_is_inspected(
        files in proptest::collection::vec(
            (
                proptest::sample::select(READ),
                proptest::collection::vec(proptest::sample::select(WORDS), 0..40),
                proptest::bool::weighted(0.1),
            ),
            0..12,
        ),
    ) {
        let mut seen = std::collections::HashSet::new();
        let mut fs = MemoryFs::new().dir("/bin").file("/etc/hosts", "");
        for (path, words, is_link) in files.into_iter().filter(|(path, _, _)| seen.insert(*path)) {
            let content = words.concat();
            fs = if is_link { fs.symlink(path, content) } else { fs.file(path, content) };
        }
        let inspection = inspect(volumes(vec![fs]));
        let report = inspection.report(Vec::new(), ReportOptions { applications: true, icon: true }).unwrap();
        let page = report.to_string();
        proptest::prop_assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page:?}");
        let xml = report.to_xml();
        let mut reader = quick_xml::Reader::from_str(&xml);
        loop {
            match reader.read_event() {
                Ok(quick_xml::events::Event::Eof) => break,
                Ok(quick_xml::events::Event::GeneralRef(reference)) => {
                    let known = reference.is_char_ref() || matches!(&*reference, "amp" | "lt" | "gt" | "quot");
                    proptest::prop_assert!(known, "{xml}");
                }
                Ok(_) => {}
                Err(e) => proptest::prop_assert!(false, "{e}: {xml}"),
            }
        }
        proptest::prop_assert!(!xml.chars().any(|c| c < ' ' && !matches!(c, '\n' | '\r' | '\t')), "{xml:?}");
    }
}
