//! Whole changes on guests in memory.

use bstr::{BString, ByteSlice};

use super::sysprep::Sysprep;
use super::*;
use crate::testing::MemoryFs;

/// A Debian guest, with users and a key of its own.
fn debian() -> MemoryFs {
    linux("ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n")
        .file("/lib/systemd/systemd", "")
        .symlink("/sbin/init", "/lib/systemd/systemd")
        .dir("/lib/systemd/system")
        .file("/etc/hostname", "old\n")
        .file("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 old\n")
        .file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        .dir("/var/lib/systemd")
}

fn linux(os_release: &str) -> MemoryFs {
    MemoryFs::new()
        .file("/etc/os-release", os_release)
        .file("/etc/fstab", "")
        .dir("/bin")
        .file(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1001:U:/home/u:/bin/sh\nd:x:2:2::/bin:\n",
        )
        .file("/etc/group", "root:x:0:\nu:x:1001:\nadm:x:4:u\n")
        .file("/etc/shadow", "root:old:1:0:99999:7:::\nd:*:1::::::\nu:!:1:0:99999:7:::\n")
        .mode("/etc/shadow", 0o640)
        .owner("/etc/shadow", 0, 42)
        .dir("/home/u")
        .owner("/home/u", 1000, 1001)
        .dir("/root")
        .file("/usr/share/zoneinfo/Europe/Berlin", "TZif")
}

/// Makes changes and returns the guest with what was said.
fn customized(fs: MemoryFs, options: &[(&str, &str)]) -> (Guest, Vec<String>) {
    let mut guest = fs.guest();
    let said = try_customize(&mut guest, options).unwrap();
    (guest, said)
}

fn try_customize(guest: &mut Guest, options: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut operations = Vec::new();
    for (name, value) in options {
        operations.extend(Operation::parse(name, (*value).into())?);
    }
    let mut said = Vec::new();
    guest.customize(&operations, &Options::default(), &mut |what| {
        said.push(match what {
            Said::Step(text) | Said::Result(text) => text.to_owned(),
        });
    })?;
    Ok(said)
}

fn content(guest: &Guest, path: &str) -> String {
    read(guest, path).unwrap().map_or("none".into(), |content| BString::from(content).to_string())
}

/// Type, permissions and owner.
fn mode(guest: &Guest, path: &str) -> (u32, u32, u32) {
    let metadata = guest.resolve_link(path.into()).unwrap().metadata().unwrap();
    (metadata.mode(), metadata.uid, metadata.gid)
}

fn target(guest: &Guest, path: &str) -> String {
    let node = guest.resolve_link(path.into()).unwrap();
    node.filesystem.read_link(node.inode).unwrap().to_string()
}

#[test]
fn a_debian_guest_is_set_up() {
    let (mut guest, said) = customized(
        debian(),
        &[
            ("hostname", "box.example.com"),
            ("root-password", "password:secret"),
            ("timezone", "Europe/Berlin"),
            ("ssh-inject", "u:string:ssh-ed25519 AAAA me"),
            ("firstboot-command", "echo 'hi'"),
            ("firstboot-install", "vim,less"),
        ],
    );
    assert_eq!(content(&guest, "/etc/hostname"), "box.example.com\n");
    assert_eq!(content(&guest, "/etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 box.example.com\n");
    let shadow = content(&guest, "/etc/shadow");
    assert!(
        shadow.starts_with("root:$y$j9T$")
            && shadow.ends_with(":1:0:99999:7:::\nd:*:1::::::\nu:!:1:0:99999:7:::\n")
    );
    assert_eq!(mode(&guest, "/etc/shadow"), (0o100640, 0, 42));
    assert_eq!(target(&guest, "/etc/localtime"), "/usr/share/zoneinfo/Europe/Berlin");
    assert_eq!(content(&guest, "/etc/timezone"), "Europe/Berlin\n");
    assert_eq!(content(&guest, "/home/u/.ssh/authorized_keys"), "ssh-ed25519 AAAA me\n");
    assert_eq!(mode(&guest, "/home/u/.ssh"), (0o040700, 1000, 1001));
    assert_eq!(mode(&guest, "/home/u/.ssh/authorized_keys"), (0o100600, 1000, 1001));
    let scripts = "/usr/lib/virt-sysprep/scripts";
    assert_eq!(content(&guest, &format!("{scripts}/5000-0001-echo--hi")), "#!/bin/sh\necho 'hi'\n");
    let install = content(&guest, &format!("{scripts}/5000-0002-install-vim-less"));
    assert!(
        install.contains("apt-get -q -y -o Dpkg::Options::=--force-confnew install 'vim' 'less'\n"),
        "{install}"
    );
    assert_eq!(mode(&guest, &format!("{scripts}/5000-0001-echo--hi")).0, 0o100755);
    assert_eq!(
        target(&guest, "/etc/systemd/system/multi-user.target.wants/guestfs-firstboot.service"),
        "/lib/systemd/system/guestfs-firstboot.service"
    );
    assert_eq!(mode(&guest, "/var/lib/systemd/random-seed").0, 0o100600);
    assert_eq!(read(&guest, "/var/lib/systemd/random-seed").unwrap().unwrap().len(), 512);
    assert_eq!(
        said,
        [
            "Setting a random seed",
            "Setting the hostname: box.example.com",
            "Setting the timezone: Europe/Berlin",
            "SSH key inject: u",
            "Installing firstboot command: echo 'hi'",
            "Installing firstboot packages: vim less",
            "Setting passwords",
        ]
    );
    // A second time: the next number, and the same key only once.
    try_customize(&mut guest, &[("firstboot-command", "b"), ("ssh-inject", "u:string:ssh-ed25519 AAAA me")])
        .unwrap();
    assert_eq!(content(&guest, &format!("{scripts}/5000-0003-b")), "#!/bin/sh\nb\n");
    assert_eq!(content(&guest, "/home/u/.ssh/authorized_keys"), "ssh-ed25519 AAAA me\n");
}

#[test] // Each distribution has its name, and what runs at boot, in places of its own.
fn other_distributions_are_known() {
    let commands = &[("hostname", "new"), ("firstboot-command", "x")];
    let rhel6 = linux("ID=rhel\nVERSION_ID=6\n")
        .file("/etc/inittab", "")
        .file("/sbin/init", "")
        .file("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=old\n")
        .dir("/etc/rc.d/init.d")
        .dir("/etc/rc.d/rc3.d")
        .dir("/etc/rc.d/rc5.d");
    let (guest, _) = customized(rhel6, commands);
    assert_eq!(content(&guest, "/etc/sysconfig/network"), "NETWORKING=yes\nHOSTNAME=new\n");
    assert_eq!(target(&guest, "/etc/rc.d/init.d/guestfs-firstboot"), "/usr/lib/virt-sysprep/firstboot.sh");
    assert_eq!(target(&guest, "/etc/rc.d/rc3.d/S99guestfs-firstboot"), "../init.d/guestfs-firstboot");
    assert!(!exists(&guest, "/etc/rc.d/rc2.d").unwrap());

    let alpine = linux("ID=alpine\nVERSION_ID=3.19\n").file("/sbin/openrc", "").dir("/etc/init.d");
    let (guest, _) = customized(
        alpine,
        &[commands[0], commands[1], ("firstboot-install", "vim"), ("root-password", "disabled")],
    );
    assert_eq!(content(&guest, "/etc/hostname"), "new\n");
    assert!(content(&guest, "/etc/init.d/guestfs-firstboot").starts_with("#!/sbin/openrc-run\n"));
    assert_eq!(target(&guest, "/etc/runlevels/default/guestfs-firstboot"), "/etc/init.d/guestfs-firstboot");
    assert!(
        content(&guest, "/usr/lib/virt-sysprep/scripts/5000-0002-install-vim").contains("apk add 'vim'\n")
    );
    assert!(content(&guest, "/etc/shadow").starts_with("root:*:1:0:"));

    let sles11 = linux("ID=sles\nVERSION_ID=11.4\n")
        .file("/etc/inittab", "")
        .file("/sbin/init", "")
        .dir("/etc/init.d");
    let (guest, _) = customized(sles11, commands);
    assert_eq!(content(&guest, "/etc/HOSTNAME"), "new\n");

    let unknown = linux("ID=own\nPRETTY_NAME='My Own'\n");
    let mut guest = unknown.guest();
    let refused = |guest: &mut Guest, name| try_customize(guest, &[(name, "x")]).unwrap_err().to_string();
    assert_eq!(refused(&mut guest, "hostname"), "not supported: setting the name of the guest in My Own");
    assert_eq!(refused(&mut guest, "firstboot-install"), "not supported: installing packages in My Own");
    assert!(refused(&mut guest, "firstboot-command").contains("init system"));
}

#[test]
fn what_is_no_linux_is_refused() {
    let mut windows = MemoryFs::new().dir("/Windows/System32").guest();
    let error = try_customize(&mut windows, &[("hostname", "x")]).unwrap_err();
    assert_eq!(error.to_string(), "not supported: customising Windows guests");
    let mut data = MemoryFs::new().dir("/data").guest();
    assert!(
        try_customize(&mut data, &[]).unwrap_err().to_string().contains("not the root of a Linux system")
    );
    assert!(
        try_customize(&mut Guest::new(), &[]).unwrap_err().to_string().contains("no file system is mounted")
    );
}

#[test]
fn passwords_are_set_locked_and_made() {
    let (guest, _) =
        customized(debian(), &[("password", "u:locked:password:x"), ("password-crypto", "sha256")]);
    assert!(content(&guest, "/etc/shadow").contains("\nu:!!$5$"));
    // The last one counts.
    let (guest, said) = customized(debian(), &[("root-password", "password:x"), ("root-password", "random")]);
    let made = said.last().unwrap().strip_prefix("Setting random password of root to ").unwrap();
    let shadow = content(&guest, "/etc/shadow");
    let hash = shadow.lines().next().unwrap().split(':').nth(1).unwrap().to_owned();
    assert_eq!(testkit::run_ok("perl", ["-e", "print crypt($ARGV[0], $ARGV[1])", made, &hash]), hash);
    let mut guest = debian().guest();
    let error = try_customize(&mut guest, &[("password", "nobody:random")]).unwrap_err().to_string();
    assert!(error.contains("no such user"), "{error}");
    // Without /etc/shadow, where passwords stood before.
    let old =
        linux("ID=debian\n").file("/etc/passwd", "root:ab:0:0::/root:/bin/sh\n").file("/etc/shadow", "");
    let (guest, _) = customized(old, &[("root-password", "locked")]);
    assert_eq!(content(&guest, "/etc/passwd"), "root:!!*:0:0::/root:/bin/sh\n");
}

#[test]
fn files_are_changed() {
    let dir = testkit::tempdir();
    let local = dir.path().join("local");
    std::fs::write(&local, "up").unwrap();
    std::os::unix::fs::chown(&local, None, None).unwrap();
    let upload = format!("{}:/srv", local.display());
    std::fs::create_dir(dir.path().join("tree")).unwrap();
    std::fs::write(dir.path().join("tree/leaf"), "in").unwrap();
    let copy_in = format!("{}/tree:/srv", dir.path().display());
    let (guest, _) = customized(
        debian()
            .file("/srv/a.log", "x")
            .file("/srv/d/b.log", "x")
            .file("/srv/keep", "x\n")
            .file("/srv/gone/x", ""),
        &[
            ("append-line", "/srv/keep:y"),
            ("write", "/srv/new:text"),
            ("chmod", "0600:/srv/new"),
            ("touch", "/srv/touched"),
            ("mkdir", "/srv/m/n"),
            ("link", "../x:/srv/l1:/srv/l2"),
            ("move", "/srv/touched:/srv/m"),
            ("copy", "/srv/keep:/srv/m/copy"),
            ("delete", "/srv/*.log"),
            ("delete", "/srv/gone"),
            ("truncate-recursive", "/srv/d"),
            ("edit", "/srv/keep:s/x/z/; $_ = \"$lineno:$_\""),
            ("scrub", "/srv/m/copy"),
            ("upload", &upload),
            ("copy-in", &copy_in),
        ],
    );
    let names: Vec<_> = guest.ls("/srv".into()).unwrap();
    assert_eq!(names, ["d", "keep", "l1", "l2", "local", "m", "new", "tree"]);
    assert_eq!(content(&guest, "/srv/keep"), "1:z\n2:y\n");
    assert_eq!((content(&guest, "/srv/new"), mode(&guest, "/srv/new").0), ("text".into(), 0o100600));
    assert_eq!(target(&guest, "/srv/l2"), "../x");
    assert_eq!(content(&guest, "/srv/d/b.log"), "");
    assert_eq!(guest.ls("/srv/m".into()).unwrap(), ["n", "touched"]);
    assert_eq!(content(&guest, "/srv/local"), "up");
    assert_eq!(content(&guest, "/srv/tree/leaf"), "in");
    let mut guest = debian().guest();
    let mut refused =
        |name: &str, value: &str| try_customize(&mut guest, &[(name, value)]).unwrap_err().to_string();
    assert!(refused("delete", "/none").contains("no such file"));
    assert!(refused("edit", "/etc/hosts:die 'no'").contains("perl failed"));
    assert!(refused("scrub", "/etc").contains("directory"));
    assert!(refused("timezone", "Mars/Olympus").contains("does not know this time zone"));
    assert!(refused("timezone", "../../etc/passwd").contains("not the name of a time zone"));
    assert!(refused("ssh-inject", "x:string:k").contains("no such user"));
}

#[test] // An archive may be compressed, which its first bytes tell.
fn archives_are_unpacked() {
    let dir = testkit::tempdir();
    std::fs::write(dir.path().join("x"), "packed").unwrap();
    for (option, name) in [("-c", "a.tar"), ("-cz", "a.tgz"), ("-cJ", "a.tar.xz")] {
        let archive = dir.path().join(name);
        testkit::run_ok(
            "tar",
            [option, "-f", archive.to_str().unwrap(), "-C", dir.path().to_str().unwrap(), "--owner=7", "x"],
        );
        let value = format!("{}:/srv", archive.display());
        let (guest, _) = customized(debian().dir("/srv"), &[("tar-in", &value)]);
        assert_eq!(content(&guest, "/srv/x"), "packed", "{name}");
        assert_eq!(mode(&guest, "/srv/x").1, 7);
    }
}

#[test] // The guest's policy labels what was made, and with --selinux-relabel everything.
fn new_files_of_a_guest_with_selinux_get_labels() {
    let label = |guest: &Guest, path: &str| {
        let node = guest.resolve_link(path.into()).unwrap();
        let found = node.filesystem.xattrs(node.inode).unwrap();
        found
            .into_iter()
            .find(|(name, _)| name == "security.selinux")
            .map(|(_, value)| BString::from(value).to_string())
    };
    let files = "/etc/selinux/targeted/contexts/files/file_contexts";
    let guest = || {
        debian()
            .file("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
            .file(files, "/.* u:r:default_t:s0\n/etc/.* u:r:etc_t:s0\n/dev/.* u:r:dev_t:s0\n/run/.* <<none>>\n/ -d u:r:root_t:s0\n")
            .file("/dev/x", "")
            .file("/run/x", "")
            .xattr("/etc/hosts", "security.selinux", b"u:r:mine_t:s0\0")
            .xattr("/etc", "security.selinux", b"u:r:mine_t:s0\0")
    };
    let labelled = || {
        let mut fs = guest();
        fs = fs.xattr("/bin", "security.selinux", b"x\0");
        fs.xattr("/", "security.selinux", b"u:r:root_t:s0\0")
    };
    let (done, _) = customized(labelled(), &[("write", "/etc/new:x")]);
    assert_eq!(label(&done, "/etc/new").unwrap(), "u:r:etc_t:s0\0");
    assert_eq!(label(&done, "/etc/hosts").unwrap(), "u:r:mine_t:s0\0");
    assert_eq!(label(&done, "/dev/x"), None);
    assert_eq!(label(&done, "/run/x"), None);
    // A guest that is not labelled at all is not half labelled.
    let (done, _) = customized(guest(), &[("write", "/etc/new:x")]);
    assert_eq!(label(&done, "/etc/new"), None);
    let (done, said) = customized(guest().file("/.autorelabel", ""), &[("selinux-relabel", "")]);
    assert_eq!(label(&done, "/etc/hosts").unwrap(), "u:r:etc_t:s0\0");
    assert_eq!(label(&done, "/").unwrap(), "u:r:root_t:s0\0");
    assert!(!exists(&done, "/.autorelabel").unwrap());
    assert_eq!(said.last().unwrap(), "SELinux relabelling");
    // Where the policy cannot be applied, the guest is asked to do it.
    let (mut done, _) = customized(guest().file(files, "/(x u:r:t:s0\n"), &[("selinux-relabel", "")]);
    assert!(exists(&done, "/.autorelabel").unwrap());
    assert!(done.take_warnings().iter().any(|warning| warning.contains("file_contexts: line 1")));
    // As in virt-customize, one command line does for guests with SELinux and without.
    let (mut done, _) = customized(debian(), &[("selinux-relabel", "")]);
    assert!(done.take_warnings().iter().any(|warning| warning.contains("/etc/selinux/config")));
    assert!(!exists(&done, "/.autorelabel").unwrap());
}

#[test]
fn a_guest_is_reset() {
    let fs = debian()
        .file("/etc/passwd-", "")
        .file("/etc/ssh/ssh_host_rsa_key", "")
        .file("/etc/ssh/sshd_config", "")
        .file("/var/log/syslog.1", "")
        .file("/var/log/own", "")
        .file("/tmp/.x/y", "")
        .file("/var/cache/apt/archives/partial/x.deb", "")
        .file("/etc/x.bak", "")
        .file("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=00:11\nHOSTNAME=x\n")
        .file("/var/spool/cron/u", "")
        .file("/home/u/.bash_history", "");
    let mut guest = fs.guest();
    let sysprep = Sysprep { customize: vec![Operation::Hostname("fresh".into())], ..Sysprep::default() };
    let mut said = Vec::new();
    guest.sysprep(&sysprep, &Options::default(), &mut |what| said.push(format!("{what:?}"))).unwrap();
    for gone in [
        "/etc/passwd-",
        "/etc/ssh/ssh_host_rsa_key",
        "/var/log/syslog.1",
        "/tmp/.x",
        "/etc/x.bak",
        "/home/u/.bash_history",
        "/var/cache/apt/archives/partial/x.deb",
        "/var/spool/cron/u",
    ] {
        assert!(!exists(&guest, gone).unwrap(), "{gone}");
    }
    for kept in [
        "/etc/ssh/sshd_config",
        "/var/log/own",
        "/tmp",
        "/var/cache/apt/archives/partial",
        "/var/spool/cron",
        "/home/u",
    ] {
        assert!(exists(&guest, kept).unwrap(), "{kept}");
    }
    assert_eq!(content(&guest, "/etc/machine-id"), "");
    assert_eq!(content(&guest, "/etc/hostname"), "fresh\n");
    assert_eq!(content(&guest, "/etc/sysconfig/network-scripts/ifcfg-eth0"), "DEVICE=eth0\n");
    assert!(said[0].contains("Performing \\\"abrt-data\\\" ..."), "{}", said[0]);

    let mut chosen = std::collections::BTreeSet::new();
    sysprep::select(&mut chosen, "user-account").unwrap();
    let keep = Sysprep { operations: Some(chosen), keep_users: vec!["u".into()], ..Sysprep::default() };
    guest.sysprep(&keep, &Options::default(), &mut |_| ()).unwrap();
    assert!(content(&guest, "/etc/passwd").contains("\nu:"));
    let all = Sysprep { keep_users: Vec::new(), ..keep.clone() };
    guest.sysprep(&all, &Options::default(), &mut |_| ()).unwrap();
    assert_eq!(content(&guest, "/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nd:x:2:2::/bin:\n");
    assert_eq!(content(&guest, "/etc/group"), "root:x:0:\nadm:x:4:\n");
    assert!(!exists(&guest, "/home/u").unwrap() && !content(&guest, "/etc/shadow").contains("u:!"));
    let unknown = Sysprep { remove_users: vec!["x".into()], ..keep };
    assert!(guest.sysprep(&unknown, &Options::default(), &mut |_| ()).is_err());
}

#[test]
fn machine_ids_are_set_and_taken_away() {
    let mut guest = debian().file("/var/lib/dbus/machine-id", "x").guest();
    guest.machine_id(Some("00000000000000000000000000000001")).unwrap();
    assert_eq!(content(&guest, "/etc/machine-id"), "00000000000000000000000000000001\n");
    assert_eq!(content(&guest, "/var/lib/dbus/machine-id"), "00000000000000000000000000000001\n");
    guest.machine_id(None).unwrap();
    assert_eq!(
        (content(&guest, "/etc/machine-id"), content(&guest, "/var/lib/dbus/machine-id")),
        ("".into(), "none".into())
    );
    assert!(guest.machine_id(Some("xyz")).unwrap_err().to_string().contains("32 digits"));
    let made = guest.password("root", b"random".as_bstr()).unwrap();
    assert_eq!((made.len(), made[0].len()), (1, 20));
}
