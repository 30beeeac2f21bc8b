//! BitLocker volumes that Windows made, against what libbde, dissect.fve and cryptsetup say of them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::corpus::{self, Row};
use testkit::{seal, tempdir};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::bitlocker::{BitLocker, ProtectorKind, State};
use vmcraft_volume::{Error, Key, Member};

fn member(bytes: Vec<u8>) -> Member {
    Member { name: "/dev/sda1".into(), device: Arc::new(MemoryDevice::new(bytes)) }
}

/// The image's bytes and what is known of it.
fn image(corpus: &Path, row: &Row) -> (Vec<u8>, Value) {
    let dir = tempdir();
    let bytes = std::fs::read(corpus::unpack(corpus, row, dir.path())).expect("the image is there");
    (bytes, serde_json::from_str(&row.facts).expect("facts are JSON"))
}

fn named(corpus: &Path, name: &str) -> Vec<u8> {
    image(corpus, &corpus::rows(corpus, &format!("bitlocker/{name}")).remove(0)).0
}

fn read(bytes: Vec<u8>) -> BitLocker {
    BitLocker::read(&member(bytes)).expect("readable").expect("a BitLocker volume")
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec())
}

/// The SHA-256 of all of a device.
fn sha256(device: &dyn BlockDevice) -> String {
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < device.size() {
        let len = usize::try_from(device.size() - at).unwrap_or(usize::MAX).min(buf.len());
        device.read_at(at, &mut buf[..len]).expect("readable");
        hasher.update(&buf[..len]);
        at += len as u64;
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test] // GUID, description, cipher and protectors are those that cryptsetup finds.
fn metadata_is_what_cryptsetup_sees() {
    let Some(corpus) = corpus::dir() else { return };
    let mut compared = 0;
    for row in corpus::rows(&corpus, "bitlocker/") {
        let (bytes, facts) = image(&corpus, &row);
        let dump = &facts["crypt"]["bitlkDump"];
        let (Some(guid), false) = (dump["guid"].as_str(), row.path.contains("ul-")) else { continue };
        let volume = read(bytes);
        assert_eq!(volume.guid(), guid, "{}", row.path);
        // In one image two of the copies are damaged, and cryptsetup shows what a damaged one has.
        if volume.warnings().iter().any(|warning| warning.contains("checksum")) {
            assert_eq!(volume.description(), Some("DESKTOP-NPM7RCA H: 7/4/2019"), "{}", row.path);
        } else {
            let name = volume.description().map(str::trim_end);
            assert_eq!(name, dump["description"].as_str().map(str::trim_end), "{}", row.path);
        }
        assert_eq!(volume.version().to_string(), dump["version"], "{}", row.path);
        assert_eq!(volume.sector_size().to_string(), dump["sector_size"], "{}", row.path);
        let method = volume.method().expect("a method").to_string();
        let theirs = format!("aes-{},", dump["mode"].as_str().unwrap_or_default());
        assert!(method.starts_with(&theirs), "{}: {method} is not {theirs}", row.path);
        let kinds: Vec<_> = volume
            .protectors()
            .iter()
            .map(|protector| match protector.kind {
                ProtectorKind::Password => "passphrase".into(),
                ProtectorKind::RecoveryPassword => "recovery passphrase".into(),
                other => other.to_string(),
            })
            .collect();
        assert_eq!(Value::from(kinds), dump["protectors"], "{}", row.path);
        compared += 1;
    }
    assert!(compared >= 12, "only {compared} volumes");
}

#[test] // Every cipher, sector size and protector: the whole content is what libbde and cryptsetup decrypt.
fn content_is_what_others_decrypt() {
    let Some(corpus) = corpus::dir() else { return };
    let mut compared = 0;
    for row in corpus::rows(&corpus, "bitlocker/cryptsetup-bitlk") {
        let (bytes, facts) = image(&corpus, &row);
        let expected = facts["crypt"]["upstream"]["SHA256SUM"].as_str().expect("a hash");
        let volume = read(bytes);
        let recovery = facts["crypt"]["recovery_password"].as_str();
        let device = match facts["passphrase"].as_str().or(recovery) {
            Some(text) => volume.unlock(&key(text)),
            None => volume.unlock_clear(),
        };
        let device = device.unwrap_or_else(|e| panic!("{}: {e}", row.path));
        assert_eq!(sha256(&*device), expected, "{}", row.path);
        assert_eq!(Some(device.size()), facts["size"].as_u64(), "{}", row.path);
        compared += 1;
    }
    assert_eq!(compared, 9);
}

#[test] // These are cut off behind what is used; the hashes are those of dissect.fve 4.6.
fn heads_of_volumes_are_read_as_far_as_they_go() {
    let Some(corpus) = corpus::dir() else { return };
    for (name, password, expected) in [
        (
            "dissect-bde-aes-xts_128",
            "password12!@",
            "2765001e256eb8ca9a38db007225706d9ec3228ba56bdace3642fd5280f2543d",
        ),
        (
            "dissect-bde-aes_128_diffuser",
            "password12!@",
            "c6da77807a5bf228cff85665d70dbc94c2d69e45f001bc8144b201808cd0c8d5",
        ),
        (
            "dissect-bde-aes_256",
            "password12!@",
            "c0b7b3e40e55b02e84432a93c95256a2a19438848fe65c66627b0c32056aff5a",
        ),
        (
            "dissect-bde-recovery_password",
            "284867-596541-514998-422114-660297-261613-215424-199408",
            "f97cc63acafc01b818a72240219fe8212ed249995c017c3d97334dde0fc59c65",
        ),
    ] {
        let volume = read(named(&corpus, name));
        assert!(volume.needs_key(), "{name}");
        assert!(volume.warnings().iter().any(|w| w.contains("the device ends at byte")), "{name}");
        let device = volume.unlock(&key(password)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(sha256(&*device), expected, "{name}");
    }
}

#[test] // Nothing is encrypted any more, but the beginning of the volume is still elsewhere.
fn decrypted_volume_opens_without_a_key() {
    let Some(corpus) = corpus::dir() else { return };
    let volume = read(named(&corpus, "dissect-bde-decrypted"));
    assert_eq!((volume.state(), volume.needs_key()), (State::Decrypted, false));
    let device = volume.unlock_clear().expect("no key is needed");
    // What dissect.fve 4.6 makes of it.
    assert_eq!(sha256(&*device), "b3f17a20397b06aa2030da90398cb5e02b5138e96bfe63316c0f863a66282b82");
    let mut oem = [0; 8];
    device.read_at(3, &mut oem).expect("readable");
    assert_eq!(&oem, b"NTFS    ");
}

#[test] // Encrypt on write: some chunks are encrypted, some are not; and so it stays until Windows has finished.
fn partly_encrypted_volume_is_read_and_not_written() {
    let Some(corpus) = corpus::dir() else { return };
    let volume = read(named(&corpus, "dissect-bde-eow_partial"));
    let device = volume.unlock(&key("password12!@")).expect("the password opens it");
    // What dissect.fve 4.6 makes of it, in reads of 8 KiB, which never cross the end of a chunk: it looks only at the
    // chunk in which a read begins.
    assert_eq!(sha256(&*device), "05643efa277b704661177f2ecfaebf5943ad252064e3e743d165e18708031bde");
    assert!(device.is_read_only());
    let error = device.write_at(0, &[0; 512]).expect_err("not written");
    assert!(error.to_string().contains("encrypted in part"), "{error}");
}

/// What the rest of a volume's metadata is at, in its blocks.
mod at {
    pub(super) const SIZE: usize = 0x08;
    pub(super) const VERSION: usize = 0x0a;
    pub(super) const STATE: usize = 0x0c;
    pub(super) const ENCRYPTED_BYTES: usize = 0x10;
    pub(super) const LOG_BYTES: usize = 0x18;
    pub(super) const MOVED_SECTORS: usize = 0x1c;
    pub(super) const MOVED_TO: usize = 0x38;
    pub(super) const ENTRIES_START: usize = 0x48;
    pub(super) const ENTRIES_END: usize = 0x4c;
    pub(super) const NONCE: usize = 0x60;
    pub(super) const METHOD: usize = 0x64;
    pub(super) const FIRST_ENTRY: usize = 0x70;
}

/// Where the blocks of an image of Windows 7 or later are.
fn blocks(image: &[u8]) -> [usize; 3] {
    [176, 184, 192].map(|at| {
        let place = image[at..at + 8].try_into().map(u64::from_le_bytes).expect("eight bytes");
        usize::try_from(place).expect("it is in the image")
    })
}

/// Changes one block, and puts its checksum right unless it has to stay.
fn change_block(image: &mut [u8], block: usize, change: impl FnOnce(&mut [u8])) {
    let bytes = &mut image[block..block + (64 << 10)];
    change(bytes);
    seal::bitlocker(bytes);
}

/// Changes all three blocks alike.
fn change_all(image: &mut [u8], change: impl Fn(&mut [u8])) {
    for block in blocks(image) {
        change_block(image, block, &change);
    }
}

/// Takes away the hash that the volume's key protects, so that changed metadata can be used.
fn drop_hash(block: &mut [u8]) {
    let size = usize::from(u16::from_le_bytes([block[at::SIZE], block[at::SIZE + 1]])) * 16;
    block[size + 8..size + 128].fill(0);
}

fn put<const N: usize>(at: usize, bytes: [u8; N]) -> impl Fn(&mut [u8]) {
    move |block| block[at..at + N].copy_from_slice(&bytes)
}

/// The smallest image with a startup key, and the key: it takes no second to unlock.
fn with_startup_key(corpus: &Path) -> (Vec<u8>, Key) {
    let bek = named_file(corpus, "cryptsetup-4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK");
    (named(corpus, "cryptsetup-bitlk-aes-xts-128-startup-key"), Key::new(bek))
}

fn named_file(corpus: &Path, name: &str) -> Vec<u8> {
    std::fs::read(corpus.join("bitlocker").join(name)).expect("the key is there")
}

fn failure(bytes: Vec<u8>, key: &Key) -> Error {
    read(bytes).unlock(key).err().expect("it must not open")
}

#[test] // All kinds of keys open the same content.
fn every_kind_of_key_opens() {
    let Some(corpus) = corpus::dir() else { return };
    let (image, bek) = with_startup_key(&corpus);
    let device = read(image).unlock(&bek).expect("the startup key opens it");
    assert_eq!(sha256(&*device), "bbb68369d8f7badb2c2330349d9d0cf12e68f54eece25e718d2bb13feba23f7a");
    // Two recovery passwords, of which either opens; with and without dashes, and with the line's end.
    let image = named(&corpus, "cryptsetup-bitlk-aes-xts-128-two-recovery");
    let volume = read(image);
    for text in [
        "478401-067859-043868-000935-121330-337425-718509-484979",
        "297693-343387-338492-284526-405482-424886-634931-555093",
        "297693343387338492284526405482424886634931555093\n",
    ] {
        volume.unlock(&key(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test] // The message says what was tried, and what is wrong with what looks like a key.
fn wrong_keys_are_explained() {
    let Some(corpus) = corpus::dir() else { return };
    let (image, bek) = with_startup_key(&corpus);
    let volume = read(image.clone());
    let wrong = |key: &Key| match volume.unlock(key).err() {
        Some(Error::WrongKey(message)) => message,
        other => panic!("{other:?}"),
    };
    let message = wrong(&key("not this one"));
    assert!(
        message.contains("tried 1 password; it has also 1 recovery password, 1 startup key"),
        "{message}"
    );
    // A good recovery password of another volume.
    let message = wrong(&key("042647-302313-590458-071500-554323-116567-412181-516978"));
    assert!(message.contains("tried 1 recovery password, 1 password"), "{message}");
    // One digit is wrong in its third group, and the fifth is beyond what 16 bits times 11 can be.
    let message = wrong(&key("363770-230505-096372-652674-567006-579150-291038-408111"));
    assert!(message.contains("group 3 of its digits is mistyped"), "{message}");
    let message = wrong(&key("363770-230505-096371-652674-720896-579150-291038-408111"));
    assert!(message.contains("group 5 of its digits is mistyped"), "{message}");
    // Startup keys: of another volume, cut off, with another key in it, and bytes that are no key at all.
    let other = Key::new(named_file(&corpus, "cryptsetup-AA80A52B-9B66-47AE-B097-33F536FFBB07.BEK"));
    let message = wrong(&other);
    assert!(message.contains("is for the protector aa80a52b-9b66-47ae-b097-33f536ffbb07"), "{message}");
    let message = wrong(&Key::new(bek.as_bytes()[..100].to_vec()));
    assert!(message.contains("damaged: it is cut off"), "{message}");
    let mut changed = bek.as_bytes().to_vec();
    changed[0x90] ^= 1;
    let message = wrong(&Key::new(changed.clone()));
    assert!(
        message.contains("names the protector 4381f759-c4f8-4de0-bb61-fc33a831bda5, but does not"),
        "{message}"
    );
    changed[0x30] = 4;
    let message = wrong(&Key::new(changed));
    assert!(
        message.contains("an entry of 4 bytes") && message.contains("byte 0x30 of the file"),
        "{message}"
    );
    let message = wrong(&Key::new(vec![0xff; 32]));
    assert!(message.contains("neither text nor a startup key's file"), "{message}");
    // No key at all.
    let Some(Error::WrongKey(message)) = volume.unlock_clear().err() else { panic!("it is locked") };
    assert!(
        message.contains("needs a key: it has 1 password, 1 recovery password, 1 startup key"),
        "{message}"
    );
    // What has only a TPM says that no key will do.
    let mut tpm = image;
    change_all(&mut tpm, |block| {
        for kind in [[0, 0x20], [0, 8], [0, 2]] {
            // The kinds stand 26 bytes behind the identifier, at the end of a header of 28 bytes.
            let found = block[at::FIRST_ENTRY..]
                .windows(36)
                .position(|w| w[2..6] == [2, 0, 8, 0] && w[34..36] == kind);
            if let Some(found) = found {
                block[at::FIRST_ENTRY + found + 34..][..2].copy_from_slice(&[0, 1]);
            }
        }
    });
    let volume = read(tpm);
    assert!(volume.protectors().iter().all(|p| p.kind.to_string() == "TPM"), "{:?}", volume.protectors());
    let message = failure_of(&volume, &key("anything"));
    assert!(
        message.contains("no protector of the BitLocker volume takes such a key; it has also 3 TPMs"),
        "{message}"
    );
    assert!(
        message.contains("a TPM unlocks only in its own machine: give the recovery password"),
        "{message}"
    );
}

fn failure_of(volume: &BitLocker, key: &Key) -> String {
    volume.unlock(key).err().expect("it must not open").to_string()
}

#[test] // One whole copy of the metadata is enough, the newest counts, and none is told with all that is wrong.
fn damaged_copies_are_passed_over() {
    let Some(corpus) = corpus::dir() else { return };
    let (image, bek) = with_startup_key(&corpus);
    let [first, second, third] = blocks(&image);
    let mut damaged = image.clone();
    damaged[first + 0x200] ^= 1;
    damaged[second] = 0;
    let volume = read(damaged.clone());
    assert_eq!(volume.warnings().len(), 2);
    assert!(
        volume.warnings()[0]
            .contains(&format!("copy 1 of the BitLocker metadata: corrupt checksum at byte {first:#x}")),
        "{:?}",
        volume.warnings()
    );
    assert!(volume.warnings()[1].contains("corrupt signature"), "{:?}", volume.warnings());
    volume.unlock(&bek).expect("the third copy is whole");
    damaged[third + 0x200] ^= 1;
    let error = BitLocker::read(&member(damaged)).expect_err("no copy is whole").to_string();
    assert!(error.contains("BitLocker metadata, of which no copy is whole (copy 1"), "{error}");

    // An older copy has a smaller nonce, and here another name.
    let mut newer = image.clone();
    change_block(&mut newer, second, |block| {
        block[at::NONCE] += 1;
        let name = block.windows(6).position(|w| w == b"E\0:\0 \0").expect("the description has a drive");
        block[name] = b'Z';
    });
    assert!(read(newer.clone()).description().is_some_and(|name| name.contains("Z:")));
    // But the volume's key says that nobody wrote this.
    let error = failure(newer, &bek).to_string();
    assert!(error.contains("its hash is not the one that the volume's key protects"), "{error}");
    assert!(error.contains(&format!("{second:#x}")), "{error}");

    // Cut off in front of the blocks, and within the first.
    for len in [512, first, first + 64, first + 1000] {
        let error =
            BitLocker::read(&member(image[..len].to_vec())).expect_err("no copy is there").to_string();
        assert!(error.contains("beyond the end of the device"), "{len}: {error}");
    }
    assert!(BitLocker::read(&member(image[..511].to_vec())).expect("no header").is_none());
}

#[test] // Forged sizes and places, with checksums that fit.
fn forged_metadata_is_refused() {
    let Some(corpus) = corpus::dir() else { return };
    let (image, bek) = with_startup_key(&corpus);
    type Change = Box<dyn Fn(&mut [u8])>;
    let unreadable: Vec<(Change, &str)> = vec![
        (Box::new(put(at::SIZE, [0, 0])), "size of 0 bytes"),
        (Box::new(put(at::SIZE, [0xff, 0xff])), "size of 1048560 bytes"),
        (Box::new(put(at::VERSION, [9])), "BitLocker metadata of version 9"),
        (Box::new(put(at::STATE, [9])), "a BitLocker volume in state 9"),
        (Box::new(put(at::ENTRIES_START, [0; 4])), "range of the entries"),
        (Box::new(put(at::ENTRIES_END, [0xff; 4])), "range of the entries"),
        (Box::new(put(0x44, [7])), "entries of version 7"),
        (Box::new(put(at::FIRST_ENTRY, [0xff, 0xff])), "an entry of 65535 bytes in the metadata"),
        (Box::new(put(at::FIRST_ENTRY, [3, 0])), "an entry of 3 bytes in the metadata"),
        // The first entry becomes a protector of 60 bytes of text.
        (Box::new(put(at::FIRST_ENTRY + 2, [2, 0, 8, 0])), "in a protector"),
    ];
    for (change, expected) in unreadable {
        let mut image = image.clone();
        change_all(&mut image, |block| change(block));
        let error = BitLocker::read(&member(image)).err().unwrap_or_else(|| panic!("{expected}")).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let unopened: Vec<(Change, &str)> = vec![
        (Box::new(put(at::METHOD, [0, 0x90])), "the encryption method 0x9000"),
        (Box::new(put(at::METHOD, [5, 0x80])), "aes-xts-plain64, 256 bit with a key of 256 bits"),
        (Box::new(put(at::METHOD, [0, 0x80])), "aes-cbc-elephant, 128 bit with a key of 256 bits"),
        (Box::new(put(at::MOVED_SECTORS, [0; 4])), "the place of the volume's beginning"),
        (Box::new(put(at::MOVED_TO, [1])), "the place of the volume's beginning"),
        (Box::new(put(at::MOVED_TO, [0xff; 8])), "the place of the volume's beginning"),
        (Box::new(put(0x20, [0; 8])), "a place of its own that is in the volume's beginning"),
        (Box::new(put(0x20, [0xff; 8])), "the place of a copy"),
        (Box::new(put(at::STATE, [2])), ""),
    ];
    for (change, expected) in unopened {
        let mut image = image.clone();
        change_all(&mut image, |block| {
            change(block);
            drop_hash(block);
        });
        if expected.is_empty() {
            change_all(&mut image, put(at::LOG_BYTES, [1]));
            let error = failure(image, &bek);
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            assert!(error.to_string().contains("being converted and has a log of it"), "{error}");
            continue;
        }
        let error = failure(image, &bek).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // The header itself.
    let mut strange = image.clone();
    strange[11..13].copy_from_slice(&[0, 3]);
    let error = BitLocker::read(&member(strange)).expect_err("refused").to_string();
    assert!(error.contains("sectors of 768 bytes"), "{error}");
    let mut strange = image;
    strange[160] ^= 1;
    let error = BitLocker::read(&member(strange)).expect_err("refused").to_string();
    assert!(error.contains("BitLocker with the identifier 4967d63a-2e29"), "{error}");
}

/// Places that matter for writing: the moved beginning, the blocks and what is around them, the last sectors.
fn places(image: &[u8], size: usize) -> Vec<(usize, usize)> {
    let mut places = vec![(0, 64 << 10), (size - (64 << 10), 64 << 10), (40 << 20, 300 << 10)];
    if image[3..11] == *b"-FVE-FS-" {
        places.extend(blocks(image).map(|block| (block - (16 << 10), 128 << 10)));
    }
    places.retain(|(at, len)| at + len <= size); // one image is cut off
    places
}

#[test] // What Windows encrypted, decrypted and encrypted again by us, is the same to the byte: every cipher.
fn writing_back_what_was_read_changes_nothing() {
    let Some(corpus) = corpus::dir() else { return };
    for name in [
        "cryptsetup-bitlk-aes-cbc-128",
        "cryptsetup-bitlk-aes-cbc-elephant-128",
        "cryptsetup-bitlk-aes-xts-128-4k",
        "cryptsetup-bitlk-aes-xts-256",
        "cryptsetup-bitlk-togo-aes-cbc-128",
        "dissect-bde-aes_256",
    ] {
        let image = named(&corpus, name);
        let password = if name.starts_with("dissect") { "password12!@" } else { "anaconda" };
        let member = member(image.clone());
        let volume = BitLocker::read(&member).expect("readable").expect("a BitLocker volume");
        let device = volume.unlock(&key(password)).expect("the password opens it");
        let size = usize::try_from(device.size()).expect("it is small");
        for (at, len) in places(&image, size) {
            let mut bytes = vec![0; len];
            device.read_at(at as u64, &mut bytes).expect("readable");
            device.write_at(at as u64, &bytes).expect("writable");
        }
        let mut after = vec![0; image.len()];
        member.device.read_at(0, &mut after).expect("readable");
        assert!(after == image, "{name}");
    }
}

/// Writes over the seams of a volume, aligned and not, and gives what all of it must read as then.
fn write_over_seams(image: &[u8], device: &dyn BlockDevice) -> Vec<u8> {
    let mut expected = vec![0; usize::try_from(device.size()).expect("it is small")];
    device.read_at(0, &mut expected).expect("readable");
    let reserved: Vec<usize> = if image[3..11] == *b"-FVE-FS-" { blocks(image).to_vec() } else { Vec::new() };
    for (index, (at, len)) in places(image, expected.len()).into_iter().enumerate() {
        let (at, len) = (at + index % 3 * 77, len - 300);
        let bytes: Vec<u8> =
            (0..len).map(|i| u8::try_from((i * 3 + index + i / 253) % 256).unwrap()).collect();
        device.write_at(at as u64, &bytes).expect("writable");
        expected[at..at + len].copy_from_slice(&bytes);
    }
    // What was written over BitLocker's own structures is forgotten.
    for block in reserved {
        expected[block..block + (64 << 10)].fill(0);
    }
    let mut moved_place = [0; 8];
    let block = if image[3..11] == *b"-FVE-FS-" { blocks(image)[0] } else { 0x210_0000 };
    moved_place.copy_from_slice(&image[block + at::MOVED_TO..][..8]);
    let moved = usize::try_from(u64::from_le_bytes(moved_place)).expect("it is small");
    let sectors = u32::from_le_bytes(image[block + at::MOVED_SECTORS..][..4].try_into().expect("four bytes"));
    let sector = usize::from(u16::from_le_bytes([image[11], image[12]]));
    expected[moved..moved + usize::try_from(sectors).expect("it is small") * sector].fill(0);
    expected
}

#[test] // What is written reads back after opening again, and BitLocker's own structures are untouched.
fn writes_read_back() {
    let Some(corpus) = corpus::dir() else { return };
    for name in ["cryptsetup-bitlk-aes-cbc-elephant-128", "cryptsetup-bitlk-aes-xts-128-4k"] {
        let image = named(&corpus, name);
        let member = member(image.clone());
        let volume = BitLocker::read(&member).expect("readable").expect("a BitLocker volume");
        let device = volume.unlock(&key("anaconda")).expect("the password opens it");
        let expected = write_over_seams(&image, &*device);
        let again = BitLocker::read(&member).expect("readable").expect("still a BitLocker volume");
        let device = again.unlock(&key("anaconda")).expect("the password still opens it");
        let mut found = vec![0; expected.len()];
        device.read_at(0, &mut found).expect("readable");
        assert!(found == expected, "{name}");
        let mut block = vec![0; 64 << 10];
        for at in blocks(&image) {
            member.device.read_at(at as u64, &mut block).expect("readable");
            assert!(block == image[at..at + block.len()], "{name}");
        }
    }
}

#[test] // Being encrypted or decrypted: what is behind the boundary is plain, and stays that when it is written.
fn converting_volumes_are_plain_behind_the_boundary() {
    let Some(corpus) = corpus::dir() else { return };
    let (image, bek) = with_startup_key(&corpus);
    let whole = read(image.clone()).unlock(&bek).expect("it opens");
    let boundary = 60 << 20;
    let mut half = image.clone();
    change_all(&mut half, |block| {
        put(at::STATE, [5, 0, 4, 0])(block);
        put(at::ENCRYPTED_BYTES, u64::try_from(boundary).expect("small").to_le_bytes())(block);
        drop_hash(block);
    });
    let member = member(half);
    let volume = BitLocker::read(&member).expect("readable").expect("a BitLocker volume");
    assert_eq!(volume.state(), State::Converting);
    let device = volume.unlock(&bek).expect("it opens");
    assert_eq!(device.size(), image.len() as u64);
    let (mut found, mut expected) = (vec![0; 2 << 20], vec![0; 1 << 20]);
    device.read_at(boundary as u64 - (1 << 20), &mut found).expect("readable");
    whole.read_at(boundary as u64 - (1 << 20), &mut expected).expect("readable");
    assert!(found[..1 << 20] == expected && found[1 << 20..] == image[boundary..boundary + (1 << 20)]);
    device.write_at(boundary as u64 - 100, &[0x5a; 200]).expect("writable");
    let mut raw = [0; 200];
    member.device.read_at(boundary as u64 - 100, &mut raw).expect("readable");
    assert!(raw[100..] == [0x5a; 100] && raw[..100] != [0x5a; 100]);
    device.read_at(boundary as u64 - 100, &mut raw).expect("readable");
    assert_eq!(raw, [0x5a; 200]);
}

#[test] // Windows Vista: one place of the metadata in the header, the beginning in place and plain but for two fields.
fn vista_volumes_are_read_and_written() {
    let Some(corpus) = corpus::dir() else { return };
    // No image of Vista is public: one of Windows 10 is changed into what the format says Vista has.
    let (mut image, bek) = with_startup_key(&corpus);
    let later = read(image.clone()).unlock(&bek).expect("it opens");
    let all = blocks(&image);
    for block in all {
        change_block(&mut image, block, |block| {
            let size = u16::from_le_bytes([block[at::SIZE], block[at::SIZE + 1]]) * 16;
            block[usize::from(size) + 8..].fill(0);
            put(at::VERSION, [1])(block);
            put(at::SIZE, size.to_le_bytes())(block);
            put(at::ENCRYPTED_BYTES, [0; 16])(block);
            put(at::MOVED_TO, 0x1234_u64.to_le_bytes())(block);
        });
    }
    image[..3].copy_from_slice(b"\xeb\x52\x90");
    image[0x38..0x40].copy_from_slice(&(all[0] as u64 / 4096).to_le_bytes());
    image[160..216].fill(0);
    let member = member(image.clone());
    let volume = BitLocker::read(&member).expect("readable").expect("a BitLocker volume");
    assert_eq!((volume.version(), volume.warnings()), (1, &[][..]));
    let device = volume.unlock(&bek).expect("it opens");
    let mut beginning = vec![0; 16 << 10];
    device.read_at(0, &mut beginning).expect("readable");
    let mut expected = image[..8 << 10].to_vec();
    expected[3..11].copy_from_slice(b"NTFS    ");
    expected[0x38..0x40].copy_from_slice(&0x1234_u64.to_le_bytes());
    assert!(beginning[..8 << 10] == expected);
    let mut same = vec![0; 8 << 10];
    later.read_at(8 << 10, &mut same).expect("readable");
    assert!(beginning[8 << 10..] == same);
    // The blocks take 16 KiB here.
    let mut around = vec![1; 32 << 10];
    device.read_at(all[1] as u64, &mut around).expect("readable");
    assert!(around[..16 << 10] == [0; 16 << 10] && around[16 << 10..] != [0; 16 << 10]);
    // The first sector may be written as long as it stays the same volume's.
    expected[0x200] ^= 0xff;
    expected[0x100] ^= 0xff;
    device.write_at(0, &expected).expect("the two fields are as they were");
    let mut raw = vec![0; 1024];
    member.device.read_at(0, &mut raw).expect("readable");
    assert!(raw[3..11] == image[3..11] && raw[0x38..0x40] == image[0x38..0x40]);
    assert!(raw[0x100] == expected[0x100] && raw[0x200] == expected[0x200]);
    let error = device.write_at(3, b"EXFAT   ").expect_err("another file system");
    assert!(error.to_string().contains("must stay that of the same NTFS volume"), "{error}");
    // The first copy is the only one that the header names, but not the only one that is read.
    let mut damaged = image;
    damaged[all[2] + 0x100] ^= 1;
    assert_eq!(read(damaged).warnings().len(), 1);
}

#[test] // What we wrote is what the kernel decrypts, for each way that it can.
fn kernel_reads_what_was_written() {
    let Some(corpus) = corpus::dir() else { return };
    if !testkit::long_suites("BitLocker volumes in the kernel") {
        return;
    }
    let dir = tempdir();
    let mut written = Vec::new();
    for name in [
        "cryptsetup-bitlk-aes-cbc-128",
        "cryptsetup-bitlk-aes-cbc-elephant-128",
        "cryptsetup-bitlk-aes-xts-128-4k",
        "cryptsetup-bitlk-aes-xts-256",
        "cryptsetup-bitlk-togo-aes-cbc-128",
    ] {
        let image = named(&corpus, name);
        let member = member(image.clone());
        let volume = BitLocker::read(&member).expect("readable").expect("a BitLocker volume");
        let device = volume.unlock(&key("anaconda")).expect("the password opens it");
        let expected = Sha256::digest(write_over_seams(&image, &*device));
        let mut bytes = image;
        member.device.read_at(0, &mut bytes).expect("readable");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("there is space");
        written.push((path, expected.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
    }
    let disks: Vec<_> = written.iter().map(|(path, _)| testkit::appliance::Disk::kept(path)).collect();
    let script = r#"
        for disk in /dev/vd[a-e]; do
            name=bitlk-$(basename $disk)
            printf anaconda | cryptsetup open --readonly --type bitlk $disk $name --key-file -
            sha256sum < /dev/mapper/$name
        done
    "#;
    let found = testkit::appliance::run_ok(&disks, script);
    let found: Vec<_> = found.lines().filter_map(|line| line.strip_suffix("  -")).collect();
    let expected: Vec<_> = written.iter().map(|(_, sha256)| sha256.as_str()).collect();
    assert_eq!(found, expected);
}

#[test] // Single flipped bits with checksums that fit: an answer or an error, never a panic.
fn flipped_bits_are_survived() {
    let Some(corpus) = corpus::dir() else { return };
    let try_out = |member: &Member, key: Option<&Key>| {
        let Ok(Some(volume)) = BitLocker::read(member) else { return };
        let opened = key.map_or_else(|| volume.unlock_clear(), |key| volume.unlock(key));
        let Ok(device) = opened else { return };
        let mut sector = [0; 512];
        for at in [0, 8 << 10, device.size() / 2, device.size().saturating_sub(512)] {
            // A part can be beyond the end of the device: that is an error, too.
            let _ = device.read_at(at, &mut sector);
        }
    };
    let (image, bek) = with_startup_key(&corpus);
    let block = blocks(&image)[0];
    let mut bytes = image[block..block + (64 << 10)].to_vec();
    let volume = member(image);
    for (index, at) in (8..1152).step_by(3).enumerate() {
        bytes[at] ^= 1 << (index % 8);
        let mut changed = bytes.clone();
        change_block(&mut changed, 0, drop_hash);
        volume.device.write_at(block as u64, &changed).expect("writable");
        try_out(&volume, Some(&bek));
        bytes[at] ^= 1 << (index % 8);
    }
    // What says which chunks are encrypted, where no key is needed: the first description, and the first bitmap.
    let volume = member(named(&corpus, "dissect-bde-decrypted"));
    for (place, len, checksum) in [(0x221_2000, 104, 0x24), (0x221_3000, 512, 0x38), (0x221_3200, 512, 0x20)]
    {
        let mut whole = vec![0; len];
        volume.device.read_at(place, &mut whole).expect("readable");
        for at in 0..len.min(104) {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            seal::crc32(&mut changed, checksum);
            volume.device.write_at(place, &changed).expect("writable");
            try_out(&volume, None);
        }
        volume.device.write_at(place, &whole).expect("writable");
    }
    // All is as it was, so the checksums were put where they belong.
    let volume = BitLocker::read(&volume).expect("readable").expect("a BitLocker volume");
    volume.unlock_clear().expect("no key is needed");
}
