//! LUKS volumes that cryptsetup made, and that cryptsetup reads.

mod cryptsetup;
mod hostile;
mod kernel;

use std::sync::Arc;

use serde_json::Value;
use testkit::{corpus, tempdir};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::luks::{Argon2Costs, FormatOptions, Kdf, Luks, Version, format};
use vmcraft_volume::{Key, Member};

/// Numbers that look random and are the same in each run.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[3];
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Self(0x9e37_79b9_7f4a_7c15).fill(&mut bytes);
        bytes
    }
}

/// Costs that a test can pay.
fn cheap() -> Kdf {
    Kdf::Pbkdf2 { hash: "sha256".into(), iterations: 1000 }
}

fn cheap_argon2() -> Kdf {
    Kdf::Argon2id(Argon2Costs { time: 4, memory_kib: 32, lanes: 2 })
}

/// Small volumes: the header takes a MiB of LUKS2, and what eight slots take of LUKS1.
fn options(version: Version) -> FormatOptions {
    let data_offset = if version == Version::Luks2 { Some(1 << 20) } else { None };
    FormatOptions { kdf: cheap(), data_offset, ..FormatOptions::new(version) }
}

/// A new volume in a device of `len` bytes.
fn formatted(len: usize, passphrase: &str, options: &FormatOptions) -> (Member, Luks) {
    let member = member(vec![0; len]);
    let mut noise = Noise(7);
    let luks = format(&member, None, &key(passphrase), options, &mut |bytes| noise.fill(bytes));
    (member, luks.unwrap_or_else(|e| panic!("{}: {e}", options.cipher)))
}

fn bytes_of(member: &Member) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(member.device.size()).expect("small")];
    member.device.read_at(0, &mut bytes).expect("readable");
    bytes
}

fn read(member: &Member) -> Luks {
    Luks::read(member, None).expect("readable").expect("LUKS")
}

fn member(bytes: Vec<u8>) -> Member {
    Member { name: "/dev/sda".into(), device: Arc::new(MemoryDevice::new(bytes)) }
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec())
}

/// What of the corpus's LUKS images says.
struct Image {
    path: String,
    member: Member,
    facts: Value,
}

fn images() -> Option<Vec<Image>> {
    let dir = corpus::dir()?;
    let image = |row: &corpus::Row| {
        let to = tempdir();
        let bytes = std::fs::read(corpus::unpack(&dir, row, to.path())).expect("the image is there");
        let facts = serde_json::from_str(&row.facts).expect("facts are JSON");
        Image { path: row.path.clone(), member: member(bytes), facts }
    };
    Some(corpus::rows(&dir, "luks/").iter().map(image).collect())
}

fn sha256(device: &dyn BlockDevice, len: u64) -> String {
    use sha2::Digest;
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    device.read_at(0, &mut bytes).expect("readable");
    sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test] // Version, UUID, label, cipher and data offset are those that luksDump prints.
fn headers_are_what_cryptsetup_dumps() {
    let Some(images) = images() else { return };
    let mut compared = 0;
    for image in images {
        let dump = &image.facts["crypt"]["luksDump"];
        if dump.is_null() {
            continue;
        }
        let luks = Luks::read(&image.member, None).unwrap_or_else(|e| panic!("{}: {e}", image.path));
        let luks = luks.unwrap_or_else(|| panic!("{}: no LUKS", image.path));
        assert_eq!(Some(&*luks.version().to_string()), dump["version"].as_str(), "{}", image.path);
        assert_eq!(Some(luks.uuid()), dump["uuid"].as_str(), "{}", image.path);
        let cipher = dump["cipher"].as_str().expect("a cipher");
        match dump["mode"].as_str() {
            Some(mode) => assert_eq!(luks.cipher(), format!("{cipher}-{mode}"), "{}", image.path),
            None => assert_eq!(luks.cipher(), cipher, "{}", image.path),
        }
        if let Some(sectors) = dump["payload_offset_sectors"].as_str() {
            assert_eq!((luks.data_offset() / 512).to_string(), sectors, "{}", image.path);
        }
        compared += 1;
    }
    assert!(compared >= 14, "only {compared} images");
}

#[test] // The content is what dissect.fve and libluksde decrypt.
fn content_is_what_others_decrypt() {
    let Some(images) = images() else { return };
    let mut compared = 0;
    for image in images {
        let (Some(passphrase), Some(sum)) = (
            image.facts["passphrase"].as_str(),
            image.facts["crypt"]["plain_first_16MiB"]["sha256"].as_str(),
        ) else {
            continue;
        };
        let luks = Luks::read(&image.member, None).expect("readable").expect("LUKS");
        let device = luks.unlock(&key(passphrase), None).unwrap_or_else(|e| panic!("{}: {e}", image.path));
        let len = image.facts["crypt"]["plain_first_16MiB"]["len"].as_u64().expect("a length");
        assert_eq!(sha256(&*device, len), sum, "{}", image.path);
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} images");
}
