//! Directories and metadata.

use bstr::ByteSlice;
use vmcraft::GuestPath;
use vmcraft::value::FileOut;

use crate::sample::{Sample, lines};

#[test] // Oracles: ls and find on the tree; names are bytes, with newlines too.
fn names_are_those_of_ls_and_find() {
    let sample = Sample::new();
    let mut guest = sample.guest();
    let theirs = sample.in_tree("find . -mindepth 1 -maxdepth 1 -printf '%f\\0' | sort -z");
    let ours: Vec<u8> = guest
        .ls("/".into())
        .unwrap()
        .into_iter()
        .filter(|name| name != "lost+found")
        .flat_map(|name| [name.as_slice(), b"\0"].concat())
        .collect();
    assert_eq!(ours.as_bstr(), theirs.as_bstr());

    let theirs = sample.in_tree("find . -mindepth 1 -printf '%P\\0' | sort -z");
    let ours: Vec<u8> = guest
        .find("/".into())
        .unwrap()
        .into_iter()
        .filter(|name| name != "lost+found")
        .flat_map(|name| [name.as_slice(), b"\0"].concat())
        .collect();
    assert_eq!(ours.as_bstr(), theirs.as_bstr());

    // To files: the same names in another order.
    let dir = testkit::tempdir();
    let out = dir.path().join("names");
    guest.find0("/".into(), &FileOut::Path(out.clone())).unwrap();
    let written = std::fs::read(&out).unwrap();
    let mut written: Vec<_> = written.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    assert_eq!(written.pop().as_deref(), Some(&b""[..]));
    written.sort();
    assert_eq!(written, guest.find("/".into()).unwrap().iter().map(|name| name.to_vec()).collect::<Vec<_>>());
    guest.ls0("/many".into(), &FileOut::Path(out.clone())).unwrap();
    assert_eq!(std::fs::read(&out).unwrap().iter().filter(|byte| **byte == 0).count(), 300);
}

#[test] // Without a slash at the end each path begins with one; a link is not followed.
fn find_says_what_follows_its_directory() {
    let guest = Sample::new().guest();
    let find = |path: &str| guest.find(path.into());
    assert_eq!(find("/dir").unwrap(), ["/sub", "/sub/deep", "/sub/hard"]);
    assert_eq!(find("/dir/").unwrap(), ["sub", "sub/deep", "sub/hard"]);
    assert_eq!(find("/abs").unwrap(), Vec::<&str>::new());
    assert_eq!(find("/abs/").unwrap(), ["passwd"]);
    assert_eq!(find("/few").unwrap_err().to_string(), "/few: not a directory");
}

#[test] // Oracle: ls on a kernel's mount.
fn long_listings_are_those_of_ls() {
    let sample = Sample::new();
    let Some(kernel) = sample.kernel() else { return };
    let guest = sample.guest();
    for dir in ["dir", "etc", "many", "empty", "usr/bin", "abs"] {
        let ours = guest.ll(GuestPath::new(&format!("/{dir}"))).unwrap();
        // The kernel would follow the link to the host's directory.
        let theirs = kernel.shell(&format!("ls -lan '{}'/", if dir == "abs" { "etc" } else { dir }));
        assert_eq!(ours.as_bstr(), theirs.as_bstr(), "{dir}");
    }
    // What is above the mountpoint is the host's: its line, and what it does to the first two.
    let squeezed = |listing: &[u8]| -> Vec<Vec<u8>> {
        let fields = |line: &[u8]| line.fields().collect::<Vec<_>>().join(&b" "[..]);
        let lines = lines(listing).into_iter().skip(1).map(fields);
        lines.filter(|line| !line.ends_with(b" ..")).collect()
    };
    assert_eq!(squeezed(&guest.ll("/".into()).unwrap()), squeezed(&kernel.shell("ls -lan .")));
    let one = guest.ll("/few".into()).unwrap();
    assert_eq!(one.as_bstr(), kernel.shell("ls -ln few | sed 's: few: /few:'").as_bstr());
}

#[test] // Oracle: stat on a kernel's mount, for every file.
fn metadata_is_the_kernels() {
    let sample = Sample::new();
    let Some(kernel) = sample.kernel() else { return };
    let guest = sample.guest();
    let theirs = kernel.shell(
        "find . -mindepth 1 -print0 | sort -z | xargs -0 stat --printf '%n\\1%i %f %h %u %g %s %b %o %X %Y %Z %t %T\\0'",
    );
    let mut count = 0;
    for record in theirs.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
        let (name, fields) = record.split_once_str("\x01").unwrap();
        let path = [b"/", &name[2..]].concat();
        let stat = guest.lstatns(GuestPath::new(&path)).unwrap();
        let (major, minor) = (stat.st_rdev >> 8 & 0xfff, stat.st_rdev & 0xff | stat.st_rdev >> 12 & 0xfff00);
        let ours = format!(
            "{} {:x} {} {} {} {} {} {} {} {} {} {major:x} {minor:x}",
            stat.st_ino,
            stat.st_mode,
            stat.st_nlink,
            stat.st_uid,
            stat.st_gid,
            stat.st_size,
            stat.st_blocks,
            stat.st_blksize,
            stat.st_atime_sec,
            stat.st_mtime_sec,
            stat.st_ctime_sec,
        );
        assert_eq!(ours, fields.to_str_lossy(), "{:?}", path.as_bstr());
        count += 1;
    }
    assert!(count > 300, "{count}");
}

#[test] // Oracles: df, du and stat -f on a kernel's mount.
fn space_is_counted_as_df_and_du_do() {
    let sample = Sample::new();
    let Some(kernel) = sample.kernel() else { return };
    let guest = sample.guest();
    for path in [".", "dir", "many", "numbers", "holes", "link", "few"] {
        let theirs = kernel.shell(&format!("du -sk {path} | cut -f1"));
        let ours = guest.du(GuestPath::new(&format!("/{path}"))).unwrap();
        assert_eq!(format!("{ours}\n").as_bytes(), theirs, "{path}");
    }
    // Names of devices and mountpoints differ.
    let columns = |table: &[u8]| -> Vec<String> {
        let row = table.lines().nth(1).unwrap().to_str_lossy().into_owned();
        row.split_whitespace().skip(1).take(4).map(str::to_owned).collect()
    };
    assert_eq!(columns(&guest.df().unwrap()), columns(&kernel.shell("df .")));
    assert_eq!(columns(&guest.df_h().unwrap()), columns(&kernel.shell("df -h .")));
    let stat = guest.statvfs("/".into()).unwrap();
    let ours = format!(
        "{} {} {} {} {} {} {} {}",
        stat.bsize, stat.frsize, stat.blocks, stat.bfree, stat.bavail, stat.files, stat.ffree, stat.namemax
    );
    assert_eq!(ours.as_bytes(), kernel.shell("stat -f --printf '%s %S %b %f %a %c %d %l' ."));
}

#[test]
fn types_are_told_apart() {
    let guest = Sample::new().guest();
    let is = |path: &str| {
        let (path, follow) = (GuestPath::new(path), Some(true));
        [
            guest.is_file(path, None).unwrap(),
            guest.is_file(path, follow).unwrap(),
            guest.is_dir(path, None).unwrap(),
            guest.is_dir(path, follow).unwrap(),
            guest.is_symlink(path).unwrap(),
            guest.is_fifo(path, None).unwrap(),
            guest.exists(path).unwrap(),
        ]
    };
    assert_eq!(is("/few"), [true, true, false, false, false, false, true]);
    assert_eq!(is("/link"), [false, true, false, false, true, false, true]);
    assert_eq!(is("/abs"), [false, false, false, true, true, false, true]);
    assert_eq!(is("/abs/"), [false, false, true, true, false, false, true]);
    assert_eq!(is("/dangling"), [false, false, false, false, true, false, true]);
    assert_eq!(is("/fifo"), [false, false, false, false, false, true, true]);
    assert_eq!(is("/none/x"), [false; 7]);
    assert_eq!(is("/few/x"), [false; 7]);
    // A circle of links is an error, not an absence.
    assert!(guest.exists("/loop".into()).unwrap());
    assert_eq!(guest.is_file("/loop".into(), Some(true)).unwrap_err().errno(), 40);
    assert_eq!(guest.exists("/loop/x".into()).unwrap_err().errno(), 40);
}

#[test]
fn lists_stand_for_names_that_are_missing() {
    let guest = Sample::new().guest();
    let names = ["few", "none", "link", ".", ".."].map(Into::into);
    let root = guest.statns("/".into()).unwrap().st_ino;
    let inodes: Vec<_> =
        guest.lstatnslist("/".into(), &names).unwrap().iter().map(|stat| stat.st_ino).collect();
    let of = |path: &str| guest.lstatns(path.into()).unwrap().st_ino;
    assert_eq!(inodes, [of("/few"), -1, of("/link"), root, root]);
    assert_eq!(guest.readlinklist("/".into(), &names).unwrap(), ["", "", "etc/passwd", "", ""]);
    assert!(guest.lstatlist("/".into(), &["etc/passwd".into()]).is_err());
    assert_eq!(guest.lstatlist("/none".into(), &["a".into()]).unwrap_err().errno(), 2);
}

#[test]
fn readdir_gives_types_and_dots() {
    let guest = Sample::new().guest();
    let entries = guest.readdir("/".into()).unwrap();
    let types: Vec<_> = ["few", "dir", "link", "fifo", ".", ".."]
        .iter()
        .map(|name| entries.iter().find(|entry| entry.name == *name).map(|entry| entry.ftyp))
        .collect();
    assert_eq!(types, ['r', 'd', 'l', 'f', 'd', 'd'].map(Some));
    let root = guest.statns("/".into()).unwrap().st_ino;
    let inner = guest.readdir("/dir".into()).unwrap();
    assert_eq!((inner[1].name.as_bstr(), inner[1].ino), ("..".into(), root));
    assert_eq!(guest.readdir("/few".into()).unwrap_err().errno(), 20);
}

#[test] // Each result was given by guestfish 1.48.6 for such a tree.
fn case_is_found() {
    let guest = Sample::new().guest();
    let find = |path: &str| {
        guest.case_sensitive_path(path.into()).map_or_else(|e| e.to_string(), |path| path.to_string())
    };
    assert_eq!(find("/ETC/PASSWD"), "/etc/passwd");
    assert_eq!(find("/Etc/Nope"), "/etc/Nope");
    assert_eq!(find("/"), "/");
    assert_eq!(find("/ETC//passwd/"), "/etc/passwd");
    assert_eq!(find("/ABS/Passwd"), "/abs/passwd");
    assert_eq!(find("/Nope/Nope"), "/Nope/Nope: no such file or directory (at /Nope)");
    assert_eq!(find("/ETC/../passwd"), "/ETC/../passwd: no such file or directory (at /etc/..)");
    assert_eq!(find("/few/x"), "/few: not a directory");
}

#[test] // Oracles: getfattr, getfacl and getcap on a kernel's mount.
fn attributes_are_the_kernels() {
    let sample = Sample::new();
    let Some(kernel) = sample.kernel() else { return };
    let guest = sample.guest();
    for path in ["few", "dir", "usr/bin/script", "crlf", "link"] {
        let theirs = kernel.shell(&format!("getfattr -h -d -m - -e hex '{path}' | grep = | sort"));
        let ours: Vec<u8> = guest
            .lgetxattrs(GuestPath::new(&format!("/{path}")))
            .unwrap()
            .iter()
            .flat_map(|attribute| {
                let hex: String = attribute.attrval.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{}=0x{hex}\n", attribute.attrname).into_bytes()
            })
            .collect();
        assert_eq!(ours.as_bstr(), theirs.as_bstr(), "{path}");
    }
    for path in ["few", "dir", "crlf", "usr/bin/script"] {
        let theirs = kernel.shell(&format!("getfacl -cnE '{path}' | grep -v '^default:'"));
        let ours = guest.acl_get_file(GuestPath::new(&format!("/{path}")), "access").unwrap();
        assert_eq!(format!("{ours}\n").as_bytes().as_bstr(), theirs.as_bstr(), "{path}");
    }
    let theirs = kernel.shell("getfacl -dcnE dir");
    assert_eq!(format!("{}\n", guest.acl_get_file("/dir".into(), "default").unwrap()).as_bytes(), theirs);
    assert_eq!(guest.acl_get_file("/etc".into(), "default").unwrap(), "");
    assert!(guest.acl_get_file("/few".into(), "default").is_err());
    assert!(guest.acl_get_file("/few".into(), "other").is_err());

    let theirs = kernel.shell("getcap usr/bin/script");
    let ours = guest.cap_get_file("/usr/bin/script".into()).unwrap();
    assert_eq!(format!("usr/bin/script {ours}\n").as_bytes(), theirs);
    assert_eq!(guest.cap_get_file("/few".into()).unwrap(), "");

    assert_eq!(guest.getxattr("/few".into(), "user.bin".into()).unwrap(), [0, 0xff]);
    let missing = guest.getxattr("/few".into(), "user.none".into()).unwrap_err().to_string();
    assert_eq!(missing, "/few: there is no extended attribute user.none");
    let names = ["few", "none", "crlf"].map(Into::into);
    let flat = guest.lxattrlist("/".into(), &names).unwrap();
    let counts: Vec<_> = flat.iter().filter(|record| record.attrname.is_empty()).collect();
    assert_eq!(counts.iter().map(|record| record.attrval.as_bstr()).collect::<Vec<_>>(), ["4\0", "", "0\0"]);
}
