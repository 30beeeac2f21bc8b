//! Flags, generation numbers and capabilities of files, as other tools see them afterwards.

use testkit::{run, run_ok};
use vmcraft::{DriveOptions, Guest};

use crate::sample::Sample;

fn guest(sample: &Sample) -> Guest {
    let options = DriveOptions { format: Some("raw".parse().unwrap()), ..DriveOptions::default() };
    let mut guest = Guest::open_with(sample.image(), options).expect("the image opens");
    guest.mount("/dev/sda".into(), "/".into()).expect("the file system mounts");
    guest
}

/// What debugfs says of an inode behind this word.
fn debugfs(sample: &Sample, path: &str, word: &str) -> String {
    let command = format!("stat {path}");
    let shown = run_ok(
        "debugfs",
        ["-R".as_ref(), command.as_ref(), sample.image().as_os_str()] as [&std::ffi::OsStr; 3],
    );
    let mut words = shown.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).unwrap_or_else(|| panic!("no {word} in {shown}")).to_owned()
}

fn check(sample: &Sample) {
    let checked = run("e2fsck", ["-fn".as_ref(), sample.image().as_os_str()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test] // Oracles: debugfs, and the kernel's lsattr where it can mount.
fn flags_are_set_and_cleared() {
    let sample = Sample::new();
    let mut guest = guest(&sample);
    guest.write("/f".into(), b"content").unwrap();
    assert_eq!(guest.get_e2attrs("/f".into()).unwrap(), "e");
    for (path, letters, clear) in [("/f", "usSAadj", None), ("/f", "uj", Some(true)), ("/dir", "DTid", None)]
    {
        guest.set_e2attrs(path.into(), letters, clear).unwrap();
    }
    assert_eq!(guest.get_e2attrs("/f".into()).unwrap(), "ASades");
    guest.commit().unwrap();
    assert_eq!(debugfs(&sample, "/f", "Flags:"), "0x800e9");
    if let Some(kernel) = sample.kernel() {
        for path in ["f", "dir", "few", "many"] {
            let shown = kernel.shell(&format!("lsattr -d {path}"));
            let shown = String::from_utf8(shown).unwrap();
            let mut theirs: Vec<char> =
                shown.split(' ').next().unwrap().chars().filter(|letter| *letter != '-').collect();
            theirs.sort_unstable();
            let theirs: String = theirs.into_iter().collect();
            assert_eq!(guest.get_e2attrs(format!("/{path}").as_str().into()).unwrap(), theirs, "{path}");
        }
    }
    let fixed = guest.write("/dir/new".into(), b"").unwrap_err();
    assert!(fixed.to_string().contains("immutable"), "{fixed}");
    for (letters, clear, message) in [
        ("z", None, "there is no file attribute 'z'"),
        ("dd", None, "the file attribute 'd' is there twice"),
        ("x", None, "changing the file attribute x of /f"),
        ("e", Some(true), "extents"),
    ] {
        let refused = guest.set_e2attrs("/f".into(), letters, clear).unwrap_err();
        assert!(refused.to_string().contains(message), "{refused}");
    }
    assert!(!guest.is_changed().unwrap());
    guest.set_e2attrs("/dir".into(), "i", Some(true)).unwrap();
    guest.write("/dir/new".into(), b"").unwrap();
    guest.commit().unwrap();
    drop(guest);
    check(&sample);
}

#[test] // Oracle: debugfs.
fn generations_and_capabilities_are_set() {
    let sample = Sample::new();
    let mut guest = guest(&sample);
    guest.write("/f".into(), b"content").unwrap();
    guest.set_e2generation("/f".into(), 0xffff_fff0).unwrap();
    assert_eq!(guest.get_e2generation("/f".into()).unwrap(), 0xffff_fff0);
    for wrong in [-1, 1 << 32] {
        assert!(guest.set_e2generation("/f".into(), wrong).is_err());
    }
    guest.cap_set_file("/f".into(), "cap_net_raw,cap_chown+ep").unwrap();
    assert_eq!(guest.cap_get_file("/f".into()).unwrap(), "cap_chown,cap_net_raw=ep");
    let wrong = guest.cap_set_file("/f".into(), "cap_none+p").unwrap_err();
    assert!(wrong.to_string().contains("cap_none+p: there is no capability \"cap_none\""), "{wrong}");
    guest.commit().unwrap();
    drop(guest);
    assert_eq!(debugfs(&sample, "/f", "Generation:"), 0xffff_fff0_u32.to_string());
    check(&sample);
}
