//! Encrypted devices through the calls: LUKS with its header elsewhere, copied, or damaged, and BitLocker.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{corpus, run_ok, tempdir};
use vmcraft::{Guest, GuestPath, Key, Mountable, value};

use crate::drives::{call, device, disk, key, open, refused, text};

/// `cryptsetup-open` with what stands behind the key.
fn open_as(
    guest: &mut Guest,
    name: &str,
    passphrase: &str,
    content: &str,
    header: Option<&str>,
) -> vmcraft::Result<()> {
    guest.cryptsetup_open(device(name), &key(passphrase), content, None, None, header.map(device))
}

#[track_caller]
fn error_of<T: std::fmt::Debug>(result: vmcraft::Result<T>) -> String {
    result.expect_err("it is refused").to_string()
}

/// The SHA-256 of a device's content.
fn sha256(guest: &mut Guest, name: &str) -> String {
    match call(guest, &["checksum-device", "sha256", name]) {
        Ok(value::Value::String(sum)) => String::from_utf8(sum.into()).expect("hexadecimal digits"),
        other => panic!("{name}: {other:?}"),
    }
}

/// Has cryptsetup make a LUKS volume with the passphrase `secret`, whose key takes no time to derive.
fn luks_format(image: &Path, more: &[&str]) {
    let key = image.with_extension("key");
    fs::write(&key, "secret").expect("space for a key file");
    let mut arguments = vec!["-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    arguments.extend(["--key-file", text(&key)].iter().chain(more).copied().chain([text(image)]));
    run_ok("cryptsetup", arguments);
}

#[test] // As cryptsetup makes it, on the second disk.
fn a_header_can_be_on_another_device() {
    for version in ["luks1", "luks2"] {
        let dir = tempdir();
        let (data, header) = (disk(dir.path(), "data", 8), disk(dir.path(), "header", 17));
        luks_format(&data, &["--type", version, "--header", text(&header)]);
        let images = [&data, &header];
        let mut guest = open(&images);

        guest.add_key("all", key("secret"));
        assert_eq!(guest.open_encrypted().expect("nothing fails"), Vec::<String>::new());
        let warnings = guest.take_warnings().join("\n");
        assert!(
            warnings.contains("/dev/sdb: this is a detached LUKS header: the data is on another"),
            "{warnings}"
        );
        for (name, of, expected) in [
            ("/dev/sda", None, "/dev/sda: not encrypted with LUKS or BitLocker"),
            ("/dev/sdb", None, "/dev/sdb: this is a detached LUKS header"),
            ("/dev/sda", Some("/dev/sda"), "/dev/sda: not encrypted with LUKS"),
            ("/dev/sda", Some("/dev/sdc"), "/dev/sdc: no such device"),
        ] {
            let error = error_of(open_as(&mut guest, name, "secret", "x", of));
            assert!(error.starts_with(expected), "{name} {of:?}: {error}");
        }
        let error = error_of(open_as(&mut guest, "/dev/sda", "Secret", "x", Some("/dev/sdb")));
        assert_eq!(error, "/dev/sdb: this key opens nothing here (1 key slot tried)");
        let bitlocker = ["cryptsetup-open", "/dev/sda", "x", "header:/dev/sdb", "crypttype:bitlk"];
        let words: Vec<_> = bitlocker[1..].iter().map(|word| (*word).into()).collect();
        let found = vmcraft::call::Call::find("cryptsetup-open").expect("a call");
        let bound = found.bind_words(&words).expect("fine words");
        let bound = bound.read_keys(found, |_| Ok::<_, ()>(key("secret"))).expect("a key");
        assert!(
            error_of((found.invoke)(&mut guest, &bound)).contains("BitLocker has its header with the data")
        );

        open_as(&mut guest, "/dev/sda", "secret", "x", Some("/dev/sdb")).expect("it opens");
        assert_eq!(guest.blockdev_getsize64(device("/dev/mapper/x")).expect("a size"), 8 << 20);
        for (name, of) in [("/dev/sda", Some("/dev/sdb")), ("/dev/sdb", None)] {
            let error = error_of(open_as(&mut guest, name, "secret", "y", of));
            assert!(error.contains("busy: it is open as /dev/mapper/x"), "{error}");
        }
        call(&mut guest, &["mkfs", "ext4", "/dev/mapper/x"]).expect("a file system is made");
        guest.mount(Mountable::new("/dev/mapper/x"), GuestPath::new("/")).expect("it mounts");
        guest.write(GuestPath::new("/f"), b"behind a header").expect("it is written");
        for below in ["/dev/sda", "/dev/sdb"] {
            refused(&mut guest, &["mkfs", "ext4", below], &["busy: /dev/mapper/x is mounted on /"]);
        }
        guest.umount_all().expect("it unmounts");
        guest.luks_add_key(device("/dev/sdb"), &key("secret"), &key("second"), 5).expect("a key is added");
        guest.commit().expect("the images can be written");
        drop(guest);

        let second = dir.path().join("second");
        fs::write(&second, "second").expect("space for a key file");
        let (header_option, key_option) =
            (format!("--header={}", text(&header)), format!("--key-file={}", text(&second)));
        run_ok("cryptsetup", ["open", "--test-passphrase", &header_option, &key_option, text(&data)]);
        let cipher = fs::read(&data).expect("an image");
        assert!(!cipher.windows(15).any(|window| window == b"behind a header"), "it is encrypted");

        let mut guest = open(&images);
        guest
            .cryptsetup_open(
                device("/dev/sda"),
                &key("second"),
                "ro",
                Some(true),
                Some("luks"),
                Some(device("/dev/sdb")),
            )
            .expect("it opens");
        guest.mount(Mountable::new("/dev/mapper/ro"), GuestPath::new("/")).expect("it mounts");
        assert_eq!(guest.read_file(GuestPath::new("/f")).expect("it is there"), b"behind a header");
        assert!(guest.write(GuestPath::new("/f"), b"x").is_err(), "it was opened read-only");
    }
}

#[test] // A guest's key file is tried by itself: what a forged header makes of it must not take minutes.
fn key_files_of_guests_are_not_tried_at_any_price() {
    let dir = tempdir();
    let (root, data) = (disk(dir.path(), "root", 8), disk(dir.path(), "data", 8));
    luks_format(&data, &["--type", "luks1"]);
    let uuid = run_ok("cryptsetup", ["luksUUID", text(&data)]);
    let mut guest = open(&[&root]);
    guest.mkfs("ext4", device("/dev/sda"), None, None, None, None, None).expect("a file system is made");
    guest.mount(Mountable::new("/dev/sda"), GuestPath::new("/")).expect("it mounts");
    guest.mkdir(GuestPath::new("/etc")).expect("a directory is made");
    let crypttab = format!("data UUID={} /key luks\n", uuid.trim());
    guest.write(GuestPath::new("/etc/crypttab"), crypttab.as_bytes()).expect("it is written");
    guest.write(GuestPath::new("/key"), b"secret").expect("it is written");
    guest.commit().expect("the image can be written");
    drop(guest);

    let opened = || {
        let mut guest = open(&[&root, &data]);
        let opened = guest.open_encrypted().expect("nothing fails").len();
        (opened, guest.take_warnings().join("\n"))
    };
    assert_eq!(opened(), (1, String::new()));
    // The iterations of the first key slot, half of the most that a given key may take.
    overwrite(&data, 208 + 4, &250_000_000_u32.to_be_bytes());
    let (count, warnings) = opened();
    let expected = "/dev/sdb: a guest's key file was not tried with all key slots: their header asks for more time or \
                    memory than is taken for keys that nobody gave; give the key with --key /dev/sdb:file:FILENAME";
    assert_eq!((count, warnings.matches(expected).count()), (0, 1), "{warnings}");
}

#[test] // A copy of a disk beside it has the same UUIDs and group.
fn copies_of_an_encrypted_disk_open_beside_each_other() {
    let dir = tempdir();
    let first = disk(dir.path(), "first", 24);
    luks_format(&first, &["--type", "luks1"]);
    let mut guest = open(&[&first]);
    open_as(&mut guest, "/dev/sda", "secret", "x", None).expect("it opens");
    call(&mut guest, &["vgcreate", "vg", "/dev/mapper/x"]).expect("a group");
    call(&mut guest, &["lvcreate", "root", "vg", "8"]).expect("a volume");
    call(&mut guest, &["mkfs", "ext4", "/dev/vg/root", "label:first"]).expect("a file system");
    guest.commit().expect("the image can be written");
    let uuid = guest.luks_uuid(device("/dev/sda")).expect("a UUID");
    drop(guest);
    let second = dir.path().join("second");
    fs::copy(&first, &second).expect("space for a copy");

    let mut guest = open(&[&first, &second]);
    guest.add_key(&uuid.to_uppercase(), key("secret"));
    let opened = guest.open_encrypted().expect("both open");
    assert_eq!(opened, [format!("/dev/mapper/luks-{uuid}"), "/dev/mapper/cryptsdb".to_owned()]);
    assert_eq!(sha256(&mut guest, &opened[0]), sha256(&mut guest, &opened[1]));
    assert_eq!(guest.lvs().expect("a list"), ["/dev/vg/root"]);
    let warnings = guest.take_warnings().join("\n");
    assert!(warnings.contains("/dev/mapper/cryptsdb"), "{warnings}");
    // Which of the two is meant can be said.
    call(&mut guest, &["lvm-set-filter", "/dev/mapper/cryptsdb"]).expect("a filter");
    call(&mut guest, &["set-label", "/dev/vg/root", "second"]).expect("a label");
    call(&mut guest, &["lvm-set-filter", "/dev/sda"]).expect("a filter");
    assert_eq!(guest.vfs_label(Mountable::new("/dev/vg/root")).expect("a label"), "first");
}

#[test] // Two installations with an installer's own name for the group, attached together.
fn groups_of_one_name_on_encrypted_disks_are_told_apart() {
    let dir = tempdir();
    let images = ["one", "two"].map(|name| {
        let image = disk(dir.path(), name, 24);
        luks_format(&image, &["--type", "luks1"]);
        let mut guest = open(&[&image]);
        open_as(&mut guest, "/dev/sda", "secret", "x", None).expect("it opens");
        call(&mut guest, &["vgcreate", "debian-vg", "/dev/mapper/x"]).expect("a group");
        call(&mut guest, &["lvcreate", "root", "debian-vg", "8"]).expect("a volume");
        call(&mut guest, &["mkfs", "ext4", "/dev/debian-vg/root", &format!("label:{name}")])
            .expect("a file system");
        guest.commit().expect("the image can be written");
        image
    });
    let label =
        |guest: &Guest, name: &str| guest.vfs_label(Mountable::new(name)).expect("a label").to_string();
    let mut guest = open(&images);
    guest.add_key("all", key("secret"));
    guest.open_encrypted().expect("both open");
    assert_eq!(label(&guest, "/dev/debian-vg/root"), "one", "the first disk's counts");
    let warnings = guest.take_warnings().join("\n");
    assert!(warnings.contains("there are several volume groups debian-vg"), "{warnings}");
    // As the warning says, the other one is renamed by its UUID.
    let uuid = warnings.split_once("vgrename ").and_then(|(_, rest)| rest.split(' ').next()).expect("a hint");
    call(&mut guest, &["vgrename", uuid, "other"]).expect("it is renamed");
    assert_eq!(guest.vgs().expect("a list"), ["debian-vg", "other"]);
    let labels = ["/dev/debian-vg/root", "/dev/other/root"].map(|name| label(&guest, name));
    assert_eq!(labels, ["one", "two"]);
}

/// Overwrites a part of an image.
fn overwrite(image: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(image).expect("an image");
    file.write_all_at(bytes, at).expect("it can be written");
}

#[test] // What can be told of damage is told by name; with one good header, the volume is there.
fn damaged_headers_and_key_slots_are_named() {
    let dir = tempdir();
    let whole = disk(dir.path(), "whole", 17);
    let small = ["--type", "luks2", "--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m"];
    luks_format(&whole, &small);
    let damaged = |name: &str, damage: &[(u64, &[u8])]| -> PathBuf {
        let image = dir.path().join(name);
        fs::copy(&whole, &image).expect("space for a copy");
        for (at, bytes) in damage {
            overwrite(&image, *at, bytes);
        }
        image
    };
    let slots = damaged("slots", &[(32768, &[0; 4096])]);
    let both = damaged("both", &[(4096, b"x"), (16384 + 4096, b"x")]);
    let first = damaged("first", &[(0, &[0; 4096])]);
    let second = damaged("second", &[(16384, &[0; 4096])]);

    let mut guest = open(&[&slots]);
    let error = error_of(open_as(&mut guest, "/dev/sda", "secret", "x", None));
    let expected = "/dev/sda: this key opens nothing here (1 key slot tried); the key material of key slot 0 is \
                    overwritten at byte 0x8000: no key opens it";
    assert_eq!(error, expected);
    guest.add_key("all", key("secret"));
    assert_eq!(error_of(guest.open_encrypted()), format!("{expected}; tried: --key all"));

    let mut guest = open(&[&both]);
    let error = error_of(open_as(&mut guest, "/dev/sda", "secret", "x", None));
    for part in ["/dev/sda: ", "LUKS2 header: checksum", "the second header is bad"] {
        assert!(error.contains(part), "{error}");
    }
    guest.add_key("all", key("secret"));
    assert_eq!(guest.open_encrypted().expect("the others could be of use"), Vec::<String>::new());
    let warnings = guest.take_warnings().join("\n");
    assert!(warnings.starts_with("/dev/sda: ") && warnings.ends_with(": not opened"), "{warnings}");

    for (image, said) in [(&first, "first"), (&second, "second")] {
        let mut guest = open(&[image]);
        guest.add_key("all", key("secret"));
        assert_eq!(guest.open_encrypted().expect("one header is good").len(), 1, "{said}");
        let warnings = guest.take_warnings().join("\n");
        assert!(warnings.contains("/dev/sda: ") && warnings.contains(said), "{warnings}");
        // A change to the keys writes both.
        guest
            .luks_change_key(device("/dev/sda"), &key("secret"), &key("next"), None)
            .expect("a key is changed");
        guest.commit().expect("the image can be written");
        drop(guest);
        let mut guest = open(&[image]);
        open_as(&mut guest, "/dev/sda", "next", "x", None).expect("it opens");
        assert_eq!(guest.take_warnings(), Vec::<String>::new(), "{said}");
    }
}

/// A BitLocker image of the corpus in `dir`, with what is known of it.
fn bitlocker(corpus: &Path, name: &str, dir: &Path) -> (PathBuf, Value) {
    let row = corpus::rows(corpus, &format!("bitlocker/{name}")).remove(0);
    (corpus::unpack(corpus, &row, dir), serde_json::from_str(&row.facts).expect("facts are JSON"))
}

#[test] // What Windows encrypted, with each kind of key, under the names that libguestfs has.
fn bitlocker_volumes_open_with_each_kind_of_key() {
    let Some(corpus) = corpus::dir() else { return };
    let bek = corpus.join("bitlocker/cryptsetup-4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK");
    let bek = Key::new(fs::read(bek).expect("a startup key"));
    for (name, given) in [
        ("cryptsetup-bitlk-aes-xts-128-startup-key", Some(bek)),
        ("cryptsetup-bitlk-togo-aes-cbc-128", Some(key("anaconda"))),
        (
            "cryptsetup-bitlk-aes-xts-256",
            Some(key("404558-436711-420860-678557-638220-018909-039941-695321")),
        ),
        ("cryptsetup-bitlk-aes-xts-128-clearkey-only", None),
    ] {
        let dir = tempdir();
        let (image, facts) = bitlocker(&corpus, name, dir.path());
        let upstream = &facts["crypt"]["upstream"];
        let mut guest = open(&[&image]);
        let kind = guest.vfs_type(Mountable::new("/dev/sda")).expect("a type");
        assert_eq!(kind, "BitLocker", "{name}");
        if let Some(given) = given {
            // Of one of several volumes, by the GUID that Windows shows.
            let guid = upstream["GUID"].as_str().expect("a GUID");
            guest.add_key(&format!("{{{}}}", guid.to_uppercase()), given);
        }
        assert_eq!(guest.open_encrypted().expect("it opens"), ["/dev/mapper/cryptsda"], "{name}");
        assert_eq!(guest.take_warnings(), Vec::<String>::new(), "{name}");
        assert_eq!(
            Some(&*sha256(&mut guest, "/dev/mapper/cryptsda")),
            upstream["SHA256SUM"].as_str(),
            "{name}"
        );
        let kind = if name.contains("togo") { "vfat" } else { "ntfs" };
        let filesystems = guest.list_filesystems().expect("a list");
        let content = filesystems.iter().find(|(found, _)| found == "/dev/mapper/cryptsda");
        assert!(content.is_some_and(|(_, found)| found == kind), "{name}: {filesystems:?}");
        let uuid = guest.vfs_uuid(Mountable::new("/dev/mapper/cryptsda")).expect("a UUID");
        assert_eq!(Some(&*uuid), upstream["UUID"].as_str(), "{name}");
    }
}

#[test]
fn bitlocker_volumes_are_opened_written_and_closed_by_calls() {
    let Some(corpus) = corpus::dir() else { return };
    let dir = tempdir();
    let (image, facts) = bitlocker(&corpus, "cryptsetup-bitlk-aes-cbc-elephant-128", dir.path());
    let before = fs::read(&image).expect("an image");
    let expected = facts["crypt"]["upstream"]["SHA256SUM"].as_str().expect("a hash");
    let mut guest = open(&[&image]);
    let error = error_of(open_as(&mut guest, "/dev/sda", "Anaconda", "x", None));
    for part in ["/dev/sda: the key does not open", "tried 1 password", "it has also 1 recovery password"] {
        assert!(error.contains(part), "{error}");
    }
    let luks = guest.cryptsetup_open(device("/dev/sda"), &key("anaconda"), "x", None, Some("luks"), None);
    assert_eq!(error_of(luks), "/dev/sda: encrypted with BitLocker, not LUKS");
    assert!(error_of(guest.luks_uuid(device("/dev/sda"))).contains("encrypted with BitLocker, not LUKS"));

    guest
        .cryptsetup_open(device("/dev/sda"), &key("anaconda"), "x", Some(true), Some("bitlk"), None)
        .expect("it opens");
    assert_eq!(sha256(&mut guest, "/dev/mapper/x"), expected);
    let write = |guest: &mut Guest, bytes: &[u8], at| guest.pwrite_device(device("/dev/mapper/x"), bytes, at);
    assert!(write(&mut guest, b"x", 50 << 20).is_err(), "it was opened read-only");
    guest.cryptsetup_close(device("/dev/mapper/x")).expect("nothing is on it");

    // Across sectors, and not on their borders.
    let (at, text) = ((50 << 20) - 700, [b'v'; 1400]);
    open_as(&mut guest, "/dev/sda", "anaconda", "x", None).expect("it opens");
    let old = guest.pread_device(device("/dev/mapper/x"), 1400, at).expect("content");
    assert_eq!(write(&mut guest, &text, at).expect("it is written"), 1400);
    guest.commit().expect("the image can be written");
    drop(guest);
    let after = fs::read(&image).expect("an image");
    assert_ne!(before, after);
    assert!(!after.windows(100).any(|window| window == &text[..100]), "it is encrypted");

    let mut guest = open(&[&image]);
    open_as(&mut guest, "/dev/sda", "anaconda", "x", None).expect("it opens");
    assert_eq!(guest.pread_device(device("/dev/mapper/x"), 1400, at).expect("content"), text);
    // What was there before makes it what Windows left, to the byte.
    write(&mut guest, &old, at).expect("it is written");
    assert_eq!(sha256(&mut guest, "/dev/mapper/x"), expected);
    guest.commit().expect("the image can be written");
    drop(guest);
    assert!(fs::read(&image).expect("an image") == before, "the ciphertext is the same again");
}
