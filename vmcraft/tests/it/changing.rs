//! Changes of a real ext4 image, as the kernel and e2fsck see them afterwards.

use testkit::{have_root, run, run_ok, skip, tempdir};
use vmcraft::value::FileIn;
use vmcraft::{DriveOptions, Guest};

use crate::sample::Sample;

/// What changes below a directory, for comparing trees: modes, owners, links, sizes, times of content.
const LIST: &str = r"find . -mindepth 1 -not -name lost+found \
    \( -type d -printf '%P %M %U:%G %n %T@\n' -o -printf '%P %M %U:%G %n %s %l %T@\n' \) | sort
    find . -type f -exec sha256sum {} + | sort";

fn check(sample: &Sample) {
    let checked = run("e2fsck", ["-fn".as_ref(), sample.image().as_os_str()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A handle that may change the image.
fn guest(sample: &Sample) -> Guest {
    let options = DriveOptions { format: Some("raw".parse().unwrap()), ..DriveOptions::default() };
    let mut guest = Guest::open_with(sample.image(), options).expect("the image opens");
    guest.mount("/dev/sda".into(), "/".into()).expect("the file system mounts");
    guest
}

#[test] // Oracle: GNU tar into a kernel mount of the same file system.
fn archives_come_in_as_tar_unpacks_them() {
    if !have_root() {
        return skip("unpacking owners with the kernel needs root");
    }
    let sample = Sample::new();
    let archive = sample.tree().with_file_name("a.tar");
    let tar = ["--format=posix", "--numeric-owner", "-cf", archive.to_str().unwrap(), "-C"];
    run_ok("tar", tar.into_iter().chain([sample.tree().to_str().unwrap(), "."]));
    let theirs = tempdir();
    let unpack =
        ["--numeric-owner", "-xpf", archive.to_str().unwrap(), "-C", theirs.path().to_str().unwrap()];
    run_ok("tar", unpack);

    let mut guest = guest(&sample);
    guest.mkdir("/new".into()).unwrap();
    guest.tar_in(&FileIn::Path(archive), "/new".into(), None, None, None, None).unwrap();
    guest.mkdir("/copied".into()).unwrap();
    guest.copy_in(sample.tree().to_str().unwrap().into(), "/copied".into()).unwrap();
    guest.commit().unwrap();
    drop(guest);
    check(&sample);
    let kernel = sample.kernel().expect("root may mount");
    let list = |output: Vec<u8>| String::from_utf8_lossy(&output).into_owned();
    let copied = list(kernel.shell(&format!("cd copied/tree\n{LIST}")));
    let unpacked = list(kernel.shell(&format!("cd new\n{LIST}")));
    let mut command = std::process::Command::new("bash");
    command.args(["-c", LIST]).current_dir(theirs.path()).env("LC_ALL", "C").env("TZ", "UTC");
    let expected = list(command.output().unwrap().stdout);
    assert!(expected.lines().count() > 300, "{expected}");
    for (what, ours) in [("tar-in", unpacked), ("copy-in", copied)] {
        for (ours, theirs) in ours.lines().zip(expected.lines()) {
            assert_eq!(ours, theirs, "{what}");
        }
        assert_eq!(ours.lines().count(), expected.lines().count(), "{what}");
    }
}

#[test] // The whole call is undone, what came before it is not.
fn what_fails_half_way_changes_nothing() {
    let sample = Sample::new();
    let mut guest = guest(&sample);
    guest.write("/kept".into(), b"kept").unwrap();
    let before = guest.find("/".into()).unwrap();
    let big = sample.tree().with_file_name("big");
    std::fs::write(&big, vec![b'x'; 80 << 20]).unwrap();
    let full = guest.upload(&FileIn::Path(big.clone()), "/etc/passwd".into()).unwrap_err();
    assert_eq!(full.errno(), 28, "{full}");
    let full = guest.copy_in(big.to_str().unwrap().into(), "/dir".into()).unwrap_err();
    assert_eq!(full.errno(), 28, "{full}");
    let bad = sample.tree().with_file_name("bad.tar");
    run_ok("tar", ["-cf", bad.to_str().unwrap(), "-C", sample.tree().to_str().unwrap(), "."]);
    let len = std::fs::metadata(&bad).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&bad).unwrap().set_len(len / 1024 * 512 + 300).unwrap();
    guest.tar_in(&FileIn::Path(bad), "/dir".into(), None, None, None, None).unwrap_err();
    guest.copy_size("/random".into(), "/few".into(), 1 << 40).unwrap_err();
    assert_eq!(guest.find("/".into()).unwrap(), before);
    assert_eq!(guest.read("/etc/passwd").unwrap(), std::fs::read(sample.tree().join("etc/passwd")).unwrap());
    assert_eq!(guest.read("/kept").unwrap(), b"kept");
    guest.commit().unwrap();
    drop(guest);
    check(&sample);
}

#[test]
fn trees_are_removed_from_a_real_file_system() {
    let sample = Sample::new();
    let mut guest = guest(&sample);
    guest.fill_dir("/many".into(), 3000).unwrap();
    for path in ["/many", "/dir", "/etc", "/usr", "/holes"] {
        guest.rm_rf(path.into()).unwrap();
    }
    guest.commit().unwrap();
    let left = guest.find("/".into()).unwrap();
    assert!(left.iter().all(|name| !name.starts_with(b"many")), "{left:?}");
    drop(guest);
    check(&sample);
}
