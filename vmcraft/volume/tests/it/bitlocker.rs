//! BitLocker volumes that Windows made, against what libbde, dissect.fve and cryptsetup say of them.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::corpus::{self, Row};
use testkit::tempdir;
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::bitlocker::{BitLocker, ProtectorKind, State};
use vmcraft_volume::{Key, Member};

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
