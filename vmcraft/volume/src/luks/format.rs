//! Making a volume.

use vmcraft_block::BlockDevice;
use zeroize::Zeroizing;

use super::kdf::{self, Argon2Costs, Kdf};
use super::layout::{Digest, Priority, Slot};
use super::{Luks, Metadata, af, v1, v2};
use crate::crypt::CipherSpec;
use crate::{Error, Key, Member, Result};

/// The length of the salts that are made, in bytes.
pub(super) const SALT_BYTES: usize = 32;

/// Where data begins unless it is said otherwise, in bytes: as cryptsetup has it.
const DATA_OFFSET_V1: u64 = 2 << 20;
const DATA_OFFSET_V2: u64 = 16 << 20;

/// A version of LUKS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// LUKS1, which old boot loaders and systems need.
    Luks1,
    /// LUKS2.
    Luks2,
}

/// How a volume is made. [`FormatOptions::new`] gives what `cryptsetup luksFormat` does by default; costs are fixed
/// where that measures the machine, so that the same input gives the same volume.
#[derive(Debug, Clone)]
pub struct FormatOptions {
    /// The version.
    pub version: Version,
    /// The cipher as dm-crypt names it: `aes-xts-plain64` by default.
    pub cipher: String,
    /// The length of the volume key in bytes: by default 64 for XTS, which is two keys, and else 32.
    pub key_bytes: Option<u32>,
    /// The hash of the splitter, the digest and, in LUKS1, of PBKDF2: `sha256` by default.
    pub hash: String,
    /// What makes a key of a passphrase.
    pub kdf: Kdf,
    /// The slot that takes the first key.
    pub slot: u32,
    /// The size of a sector: 512 by default, or what the device below has; 1024, 2048 and 4096 in LUKS2 only.
    pub sector_size: Option<u32>,
    /// The UUID; by default one is made.
    pub uuid: Option<String>,
    /// The label, of LUKS2 only.
    pub label: String,
    /// Where the data begins, in bytes: by default 2 MiB in LUKS1 and 16 MiB in LUKS2, 0 with a detached header.
    pub data_offset: Option<u64>,
}

impl FormatOptions {
    /// What cryptsetup 2.6 does: AES-XTS with two keys of 256 bits, and Argon2id for LUKS2.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            cipher: "aes-xts-plain64".into(),
            key_bytes: None,
            hash: "sha256".into(),
            kdf: default_kdf(version, "sha256"),
            slot: 0,
            sector_size: None,
            uuid: None,
            label: String::new(),
            data_offset: None,
        }
    }
}

/// What makes a key of a passphrase unless it is said otherwise: about a second's work on a processor of today, and
/// memory that a small guest has.
pub(super) fn default_kdf(version: Version, hash: &str) -> Kdf {
    match version {
        Version::Luks1 => Kdf::Pbkdf2 { hash: hash.into(), iterations: 2_000_000 },
        Version::Luks2 => Kdf::Argon2id(Argon2Costs { time: 4, memory_kib: 256 << 10, lanes: 4 }),
    }
}

/// The iterations of a digest. What it hashes is random, so that there is nothing to guess.
const DIGEST_ITERATIONS: u32 = 100_000;

/// Makes a LUKS volume on `member`, with its header on `detached_header` if there is one. What the header's device
/// had where header and key slots go reads as zeros or noise afterwards; the data is not touched.
///
/// # Errors
/// `Unsupported` for a cipher or hash that we do not have; `Refused` for options that contradict each other and a
/// device that is too small; `Io`.
pub fn format(
    member: &Member,
    detached_header: Option<&Member>,
    key: &Key,
    options: &FormatOptions,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Luks> {
    let header = detached_header.unwrap_or(member).device.clone();
    let spec = CipherSpec::parse(&options.cipher)?;
    let is_xts = options.cipher.contains("-xts");
    let key_bytes = options.key_bytes.unwrap_or(if is_xts { 64 } else { 32 });
    let mut volume_key = Zeroizing::new(vec![0; key_bytes as usize]);
    random(&mut volume_key);
    // Says at once if the cipher takes no such key.
    spec.with_key(&volume_key)?;
    if is_xts && volume_key[..volume_key.len() / 2] == volume_key[volume_key.len() / 2..] {
        return Err(Error::Refused("the source of randomness gave two equal halves of an XTS key".into()));
    }
    let volume =
        NewVolume { options, key_bytes, volume_key: &volume_key, is_detached: detached_header.is_some() };
    let (mut metadata, slot) = match options.version {
        Version::Luks1 => volume.luks1(random)?,
        Version::Luks2 => volume.luks2(&*member.device, random)?,
    };
    let layout = metadata.layout();
    let cleared = if volume.is_detached { layout.header_end } else { volume.data_offset(&layout) };
    check_space(&*header, cleared, "a LUKS header")?;
    check_space(&*member.device, volume.data_offset(&layout) + 512, "LUKS data")?;
    write_zeros(&*header, cleared)?;
    slot.store(&*header, key, &volume_key, random)?;
    write(&mut metadata, &*header, random)?;
    Ok(Luks {
        header,
        data: member.device.clone(),
        is_detached: detached_header.is_some(),
        layout: metadata.layout(),
        metadata,
        warnings: Vec::new(),
    })
}

/// Writes the header's one or two copies.
pub(super) fn write(
    metadata: &mut Metadata,
    device: &dyn BlockDevice,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<()> {
    match metadata {
        Metadata::V1(header) => Ok(device.write_at(0, header.as_bytes())?),
        Metadata::V2(header) => header.write(device, random),
    }
}

/// A volume that is about to be made.
struct NewVolume<'a> {
    options: &'a FormatOptions,
    key_bytes: u32,
    volume_key: &'a [u8],
    is_detached: bool,
}

impl NewVolume<'_> {
    fn data_offset(&self, layout: &super::Layout) -> u64 {
        layout.segments.first().map_or(0, |segment| segment.offset)
    }

    fn luks1(&self, random: &mut dyn FnMut(&mut [u8])) -> Result<(Metadata, Slot)> {
        let options = self.options;
        if !options.label.is_empty() {
            return Err(Error::Refused("LUKS1 has no label".into()));
        }
        if options.sector_size.is_some_and(|size| size != 512) {
            return Err(Error::Refused("LUKS1 has sectors of 512 bytes".into()));
        }
        let digest = self.digest(20, random)?;
        let mut digest_salt = [0; SALT_BYTES];
        digest_salt.copy_from_slice(&digest.salt);
        let slots_end = v1::slots_end(self.key_bytes);
        let default =
            if self.is_detached { 0 } else { slots_end.next_multiple_of(1 << 20).max(DATA_OFFSET_V1) };
        let mut header = v1::Header::new(&v1::NewHeader {
            cipher: &options.cipher,
            hash: &options.hash,
            key_bytes: self.key_bytes,
            uuid: &self.uuid(random)?,
            data_offset: self.checked_offset(default, slots_end)?,
            digest: &digest.digest,
            digest_salt,
            digest_iterations: digest.iterations,
        })?;
        let slot = Slot { kdf: options.kdf.clone(), salt: salt(random), ..header.empty_slot(options.slot) };
        header.activate(&slot)?;
        Ok((Metadata::V1(Box::new(header)), slot))
    }

    fn luks2(&self, device: &dyn BlockDevice, random: &mut dyn FnMut(&mut [u8])) -> Result<(Metadata, Slot)> {
        let options = self.options;
        let sector_size = options.sector_size.unwrap_or(device.logical_sector_size());
        if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) {
            return Err(Error::Refused(format!("LUKS2 has no sectors of {sector_size} bytes")));
        }
        let area_bytes = v2::area_bytes(u64::from(self.key_bytes), af::STRIPES);
        let default = if self.is_detached { 0 } else { DATA_OFFSET_V2 };
        let data_offset = self.checked_offset(default, 2 * v2::SMALLEST + area_bytes)?;
        let header_end = if data_offset == 0 { DATA_OFFSET_V2 } else { data_offset };
        let digest = Digest { slots: vec![options.slot], ..self.digest(32, random)? };
        let slot = Slot {
            number: options.slot,
            priority: Priority::Normal,
            kdf: options.kdf.clone(),
            salt: salt(random),
            key_bytes: self.key_bytes as usize,
            stripes: af::STRIPES,
            af_hash: options.hash.clone(),
            area_offset: 2 * v2::SMALLEST,
            area_cipher: area_cipher(&options.cipher).into(),
            area_key_bytes: area_key_bytes(&options.cipher, self.key_bytes as usize),
        };
        let metadata = v2::NewMetadata {
            cipher: &options.cipher,
            sector_size,
            data_offset,
            keyslots_bytes: (header_end - 2 * v2::SMALLEST).min(v2::MAX_KEYSLOTS_BYTES) / 4096 * 4096,
            digest: &digest,
            slot: v2::NewSlot { slot: &slot, area_bytes },
        };
        let header = v2::Header::new(&self.uuid(random)?, &options.label, "", v2::SMALLEST, &metadata)?;
        Ok((Metadata::V2(Box::new(header)), slot))
    }

    /// Where the data begins, if that leaves space for the header.
    fn checked_offset(&self, default: u64, header_end: u64) -> Result<u64> {
        let offset = self.options.data_offset.unwrap_or(default);
        if !offset.is_multiple_of(4096) {
            return Err(Error::Refused(format!("data at byte {offset}: not a multiple of 4096")));
        }
        if offset < header_end && !self.is_detached {
            return Err(Error::Refused(format!(
                "data at byte {offset}: the header with its key slots takes {header_end} bytes"
            )));
        }
        Ok(offset)
    }

    fn uuid(&self, random: &mut dyn FnMut(&mut [u8])) -> Result<String> {
        if let Some(uuid) = &self.options.uuid {
            return parse_uuid(uuid);
        }
        let mut bytes = [0; 16];
        random(&mut bytes);
        Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
    }

    fn digest(&self, len: usize, random: &mut dyn FnMut(&mut [u8])) -> Result<Digest> {
        let (salt, hash) = (salt(random), self.options.hash.clone());
        // LUKS2 takes as many bytes as the hash has.
        let len = if len == 20 { len } else { kdf::find_hash(&hash)?.len() };
        let digest = kdf::pbkdf2(&hash, DIGEST_ITERATIONS, self.volume_key, &salt, len)?.to_vec();
        let slots = Vec::new();
        Ok(Digest { hash, iterations: DIGEST_ITERATIONS, salt, digest, slots, is_of_volume: true })
    }
}

/// A UUID in the form that headers have it in.
pub(super) fn parse_uuid(text: &str) -> Result<String> {
    let uuid = uuid::Uuid::try_parse(text);
    uuid.map(|uuid| uuid.to_string())
        .map_err(|_| Error::Refused(format!("{}: not a UUID", text.escape_debug())))
}

/// The cipher of a slot's area: the data's, unless that is one that protects nothing.
fn area_cipher(data: &str) -> &str {
    if data.starts_with("cipher_null") { "aes-xts-plain64" } else { data }
}

fn area_key_bytes(data: &str, key_bytes: usize) -> usize {
    if data.starts_with("cipher_null") { 64 } else { key_bytes }
}

/// A new salt.
pub(super) fn salt(random: &mut dyn FnMut(&mut [u8])) -> Vec<u8> {
    let mut salt = vec![0; SALT_BYTES];
    random(&mut salt);
    salt
}

fn check_space(device: &dyn BlockDevice, needed: u64, what: &str) -> Result<()> {
    let size = device.size();
    if size < needed {
        return Err(Error::Refused(format!(
            "{what} takes at least {needed} bytes, and the device has {size}"
        )));
    }
    Ok(())
}

/// Clears what was where the header goes.
fn write_zeros(device: &dyn BlockDevice, len: u64) -> Result<()> {
    if let Some(discard) = device.discard() {
        match discard.write_zeroes(0, len) {
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
            other => return Ok(other?),
        }
    }
    let zeros = vec![0; 64 << 10];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(zeros.len()).min(zeros.len());
        device.write_at(at, &zeros[..part])?;
        at += part as u64;
    }
    Ok(())
}
