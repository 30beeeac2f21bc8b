//! What cryptsetup makes of files opens here, and what is made here opens there.

use std::path::{Path, PathBuf};

use testkit::{run, run_ok, tempdir};
use vmcraft_volume::luks::{FormatOptions, KeyOptions, Luks, Version};
use vmcraft_volume::{Error, Key};

use super::{Noise, bytes_of, cheap, cheap_argon2, formatted, key, member, options, read};

/// A directory with an image and key files.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempdir() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).expect("space");
        self.path(name).display().to_string()
    }

    /// The image as a device in memory.
    fn member(&self) -> vmcraft_volume::Member {
        member(std::fs::read(self.path("image")).expect("the image is there"))
    }
}

/// Whether cryptsetup opens the image with a passphrase, in any slot or in one.
fn opens(files: &Files, passphrase: &str, more: &[&str]) -> bool {
    let (image, key_file) =
        (files.path("image").display().to_string(), files.write("key", passphrase.as_bytes()));
    let fixed = ["open", "--test-passphrase", "--key-file", &*key_file, &*image];
    let output = run("cryptsetup", fixed.iter().chain(more));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || text.contains("No key available"), "cryptsetup: {text}");
    output.status.success()
}

fn volume_key_by_cryptsetup(image: &Path, files: &Files) -> Vec<u8> {
    let (out, key_file) = (files.path("volume-key"), files.path("key"));
    let _ = std::fs::remove_file(&out);
    let arguments = [
        "luksDump".as_ref(),
        "-q".as_ref(),
        "--dump-volume-key".as_ref(),
        "--volume-key-file".as_ref(),
        out.as_os_str(),
        "--key-file".as_ref(),
        key_file.as_os_str(),
        image.as_os_str(),
    ];
    run_ok("cryptsetup", arguments);
    std::fs::read(out).expect("cryptsetup wrote the key")
}

#[test] // The volume key in each is that which cryptsetup finds.
fn what_cryptsetup_makes_opens() {
    let mut cases: Vec<Vec<&str>> = Vec::new();
    for version in ["luks1", "luks2"] {
        for (cipher, bits) in [
            ("aes-xts-plain64", "512"),
            ("aes-xts-plain64", "256"),
            ("aes-xts-plain64be", "512"),
            ("aes-cbc-essiv:sha256", "256"),
            ("aes-cbc-plain64", "128"),
            ("aes-cbc-plain", "256"),
            ("aes-cbc-benbi", "192"),
            ("aes-ecb", "128"),
            ("camellia-cbc-plain64", "256"),
        ] {
            cases.push(vec!["--type", version, "--cipher", cipher, "--key-size", bits]);
        }
        for hash in
            ["sha1", "sha224", "sha384", "sha512", "ripemd160", "whirlpool", "blake2b-512", "blake2s-256"]
        {
            cases.push(vec!["--type", version, "--hash", hash]);
        }
    }
    for sector_size in ["1024", "2048", "4096"] {
        cases.push(vec!["--type", "luks2", "--sector-size", sector_size]);
    }
    for case in &mut cases {
        case.extend(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
    }
    for kdf in ["argon2i", "argon2id"] {
        let costs = ["--pbkdf-memory", "64", "--pbkdf-parallel", "3", "--pbkdf-force-iterations", "5"];
        cases.push([&["--type", "luks2", "--pbkdf", kdf][..], &costs].concat());
    }
    for size in ["32k", "4m"] {
        cases.push(vec![
            "--type",
            "luks2",
            "--luks2-metadata-size",
            size,
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
        ]);
    }
    let files = Files::new();
    let image = files.write("image", &[]);
    let key_file = files.write("key", b"a passphrase");
    for case in cases {
        std::fs::File::create(&image).and_then(|file| file.set_len(17 << 20)).expect("space");
        let fixed = ["-q", "luksFormat", "--key-file", &*key_file, &*image];
        run_ok("cryptsetup", fixed.iter().chain(&case));
        let member = files.member();
        let luks = read(&member);
        assert_eq!(luks.warnings(), [""; 0], "{case:?}");
        let (slot, volume_key) =
            luks.volume_key(&key("a passphrase"), None).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        assert_eq!(slot, 0);
        assert!(volume_key.as_bytes() == volume_key_by_cryptsetup(Path::new(&image), &files), "{case:?}");
        let device = luks.unlock_with_volume_key(&volume_key).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        assert_eq!(device.size(), member.device.size() - luks.data_offset(), "{case:?}");
        let wrong = luks.unlock_with_volume_key(&Key::new(vec![0; 32]));
        assert!(matches!(wrong.err(), Some(Error::WrongKey(_))), "{case:?}");
    }
}

#[test] // cryptsetup's luksDump, open and luksAddKey take what is made here; what they change is read here.
fn what_is_made_here_opens_in_cryptsetup() {
    let base = |version| FormatOptions { uuid: None, ..options(version) };
    let mut cases = Vec::new();
    for version in [Version::Luks1, Version::Luks2] {
        for (cipher, key_bytes) in [
            ("aes-xts-plain64", None),
            ("aes-xts-plain64", Some(32)),
            ("aes-cbc-essiv:sha256", None),
            ("aes-cbc-benbi", Some(24)),
            ("camellia-cbc-plain64", Some(16)),
        ] {
            cases.push(FormatOptions { cipher: cipher.into(), key_bytes, ..base(version) });
        }
        for hash in ["sha1", "sha512", "whirlpool"] {
            let kdf = vmcraft_volume::luks::Kdf::Pbkdf2 { hash: hash.into(), iterations: 1000 };
            cases.push(FormatOptions { hash: hash.into(), kdf, slot: 3, ..base(version) });
        }
    }
    cases.push(FormatOptions { kdf: cheap_argon2(), label: "a label".into(), ..base(Version::Luks2) });
    cases.push(FormatOptions { sector_size: Some(4096), slot: 31, ..base(Version::Luks2) });
    let files = Files::new();
    for options in cases {
        let (member, luks) = formatted(3 << 20, "first", &options);
        let image = files.write("image", &bytes_of(&member));
        let dump = run_ok("cryptsetup", ["luksDump", &image]);
        assert!(dump.contains(luks.uuid()), "{options:?}: {dump}");
        assert!(options.label.is_empty() || dump.contains("a label"), "{dump}");
        assert!(opens(&files, "first", &["--key-slot", &options.slot.to_string()]), "{options:?}");
        assert!(!opens(&files, "second", &[]), "{options:?}");
        let (first, second) = (files.write("first", b"first"), files.write("second", b"second"));
        let costs = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let add = ["-q", "luksAddKey", "--key-file", &*first, &*image, &*second];
        run_ok("cryptsetup", add.iter().chain(&costs));
        let after = read(&files.member());
        let (_, ours) = luks.volume_key(&key("first"), None).expect("the first key");
        let (slot, theirs) =
            after.volume_key(&key("second"), None).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert!(slot != options.slot && ours == theirs, "{options:?}");
    }
}

#[test] // The one test that pays what a user pays.
fn default_costs_are_understood_by_cryptsetup() {
    let made = FormatOptions { data_offset: Some(1 << 20), ..FormatOptions::new(Version::Luks2) };
    let (member, luks) = formatted(2 << 20, "costly", &made);
    let files = Files::new();
    files.write("image", &bytes_of(&member));
    assert!(opens(&files, "costly", &[]));
    luks.unlock(&key("costly"), Some(0)).expect("the key is right");
}

#[test] // Keys come, change and go, and cryptsetup sees each step; tokens of others stay.
fn keys_are_managed_as_cryptsetup_does() {
    for version in [Version::Luks1, Version::Luks2] {
        let (member, _) = formatted(4 << 20, "first", &options(version));
        let files = Files::new();
        let image = files.write("image", &bytes_of(&member));
        if version == Version::Luks2 {
            let token = files.write("token", br#"{"type":"mine","keyslots":["0"],"note":"stays"}"#);
            run_ok("cryptsetup", ["token", "import", "--json-file", &token, &image]);
        }
        let member = files.member();
        let mut luks = read(&member);
        let mut noise = Noise(99);
        let mut random = |bytes: &mut [u8]| noise.fill(bytes);
        let at = |slot| KeyOptions { slot, kdf: Some(cheap()) };
        let save = |files: &Files| files.write("image", &bytes_of(&member));

        let error = luks.add_key(&key("wrong"), &key("x"), &at(None), &mut random).expect_err("wrong key");
        assert_eq!(error.to_string(), "this key opens nothing here (1 key slot tried)");
        assert_eq!(luks.add_key(&key("first"), &key("second"), &at(None), &mut random).expect("added"), 1);
        assert_eq!(luks.add_key(&key("second"), &key("sixth"), &at(Some(6)), &mut random).expect("added"), 6);
        let error = luks.add_key(&key("first"), &key("x"), &at(Some(6)), &mut random).expect_err("in use");
        assert_eq!(error.to_string(), "key slot 6 is in use");
        save(&files);
        for (passphrase, slot) in [("first", "0"), ("second", "1"), ("sixth", "6")] {
            assert!(opens(&files, passphrase, &["--key-slot", slot]), "{version:?} {passphrase}");
        }

        assert_eq!(luks.change_key(&key("second"), &key("new"), &at(None), &mut random).expect("changed"), 1);
        let error =
            luks.change_key(&key("first"), &key("x"), &at(Some(1)), &mut random).expect_err("slot 0's");
        assert_eq!(error.to_string(), "this key does not open key slot 1");
        save(&files);
        assert!(opens(&files, "new", &["--key-slot", "1"]) && !opens(&files, "second", &[]), "{version:?}");

        let error = luks.kill_slot(6, &key("sixth"), &mut random).expect_err("its own key");
        assert_eq!(error.to_string(), "this key opens nothing here (2 key slots tried)");
        let before = bytes_of(&member);
        luks.kill_slot(6, &key("first"), &mut random).expect("killed");
        let after = bytes_of(&member);
        let changed = before.chunks(512).zip(after.chunks(512)).filter(|(a, b)| a != b).count();
        assert!(changed >= 500, "only {changed} sectors were overwritten");
        assert_eq!(luks.remove_key(&key("new"), &mut random).expect("removed"), 1);
        let error = luks.remove_key(&key("first"), &mut random).expect_err("the last");
        assert!(error.to_string().contains("key slot 0 has the last key"), "{error}");
        let error = luks.kill_slot(0, &key("first"), &mut random).expect_err("the last");
        assert!(error.to_string().contains("last key"), "{error}");
        let error = luks.kill_slot(6, &key("first"), &mut random).expect_err("no key");
        assert_eq!(error.to_string(), "key slot 6 has no key");
        luks.set_uuid("12345678-1234-1234-1234-123456789abc", &mut random).expect("a UUID");
        save(&files);
        assert!(opens(&files, "first", &[]) && !opens(&files, "sixth", &[]) && !opens(&files, "new", &[]));
        assert_eq!(run_ok("cryptsetup", ["luksUUID", &image]).trim(), "12345678-1234-1234-1234-123456789abc");
        if version == Version::Luks2 {
            let token = run_ok("cryptsetup", ["token", "export", "--token-id", "0", &image]);
            assert!(token.contains("\"note\":\"stays\"") && token.contains("[\"0\"]"), "{token}");
        }
    }
}

#[test] // All slots that a header has space for can be filled, and the one too many is refused.
fn slots_fill_up() {
    for (version, count) in [(Version::Luks1, 8), (Version::Luks2, 3)] {
        let (member, mut luks) = formatted(4 << 20, "0", &options(version));
        let mut noise = Noise(5);
        let at = KeyOptions { slot: None, kdf: Some(cheap()) };
        let add = |luks: &mut Luks, new: u32, noise: &mut Noise| {
            luks.add_key(&key("0"), &key(&new.to_string()), &at, &mut |bytes| noise.fill(bytes))
        };
        for number in 1..count {
            assert_eq!(add(&mut luks, number, &mut noise).expect("space"), number);
        }
        let error = add(&mut luks, count, &mut noise).expect_err("no space").to_string();
        let expected = if count == 8 { "all 8 key slots are in use" } else { "no space of 258048 bytes" };
        assert!(error.contains(expected), "{error}");
        let files = Files::new();
        files.write("image", &bytes_of(&member));
        for number in [0, count - 1] {
            assert!(opens(&files, &number.to_string(), &[]), "{version:?} {number}");
        }
    }
}

#[test] // The header on a device of its own.
fn headers_can_be_detached() {
    for version in [Version::Luks1, Version::Luks2] {
        let (data, header) = (member(vec![0; 1 << 20]), member(vec![0; 17 << 20]));
        let options = FormatOptions { kdf: cheap(), ..FormatOptions::new(version) };
        let mut noise = Noise(3);
        let format = vmcraft_volume::luks::format;
        let luks = format(&data, Some(&header), &key("away"), &options, &mut |bytes| noise.fill(bytes));
        luks.expect("made")
            .unlock(&key("away"), None)
            .expect("open")
            .write_at(4096, &[5; 512])
            .expect("in range");
        assert!(
            Luks::read(&data, None).expect("readable").is_none(),
            "there is nothing of LUKS with the data"
        );
        let alone = read(&header).unlock(&key("away"), None).err().expect("no data there").to_string();
        assert!(alone.contains("detached LUKS header"), "{alone}");
        let luks = Luks::read(&data, Some(&header)).expect("readable").expect("LUKS");
        let device = luks.unlock(&key("away"), None).expect("the key is right");
        let mut sector = [0; 512];
        device.read_at(4096, &mut sector).expect("in range");
        assert_eq!((device.size(), sector), (1 << 20, [5; 512]));
        let files = Files::new();
        let header = files.write("header", &bytes_of(&header));
        files.write("image", &bytes_of(&data));
        assert!(opens(&files, "away", &["--header", &header]), "{version:?}");
    }
}

#[test] // A header that was damaged is whole after a repair, for cryptsetup too.
fn a_damaged_copy_is_repaired() {
    for damaged_at in [0, 16384, 4096 + 100, 16384 + 4096 + 100, 7] {
        let (member, _) = formatted(3 << 20, "key", &options(Version::Luks2));
        member.device.write_at(damaged_at, b"damage").expect("in range");
        let mut luks = read(&member);
        assert_eq!(luks.warnings().len(), 1, "{damaged_at}: {:?}", luks.warnings());
        luks.unlock(&key("key"), None).expect("one header is good");
        let mut noise = Noise(11);
        assert!(luks.repair(&mut |bytes| noise.fill(bytes)).expect("writable"));
        assert!(!luks.repair(&mut |bytes| noise.fill(bytes)).expect("writable"), "it is done");
        assert_eq!(read(&member).warnings(), [""; 0]);
        let files = Files::new();
        let image = files.write("image", &bytes_of(&member));
        // Each copy alone is good for cryptsetup.
        for (at, len) in [(0, 16384), (16384, 16384)] {
            let mut bytes = bytes_of(&member);
            bytes[at..at + len].fill(0);
            std::fs::write(&image, bytes).expect("space");
            run_ok("cryptsetup", ["luksDump", &image]);
        }
    }
}
