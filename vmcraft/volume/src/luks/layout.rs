//! What both versions of LUKS say in their own words: where keys are, what proves them, and what they open.

use super::kdf::{self, Kdf};
use crate::Result;

/// The largest volume key that is believed, in bytes. Real ones have up to 128.
pub(super) const MAX_KEY_BYTES: u64 = 512;

/// The state of a key slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyslotState {
    /// Free to take a key. Only LUKS1 has such slots, always eight in all.
    Inactive,
    /// Its key opens the volume.
    Active,
    /// It holds a key that is not the volume's.
    Unbound,
    /// Its type is not that of a passphrase's slot, such as the one that a reencryption works in.
    Other,
}

/// Whether a key slot is tried when no slot is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    Prefer,
    /// After those.
    Normal,
    /// Never.
    Ignore,
}

/// A key slot, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyslot {
    /// Its number, from 0.
    pub number: u32,
    /// What it is good for.
    pub state: KeyslotState,
    /// Whether it is tried when no slot is named.
    pub priority: Priority,
    /// What makes its key of a passphrase; `None` for slots that hold none.
    pub kdf: Option<Kdf>,
}

/// A slot with a key in it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) priority: Priority,
    pub(super) kdf: Kdf,
    pub(super) salt: Vec<u8>,
    /// The length of the key in the slot, in bytes.
    pub(super) key_bytes: usize,
    pub(super) stripes: u32,
    /// The hash function of the splitter.
    pub(super) af_hash: String,
    /// Where the stripes are, in bytes from the start of the header's device.
    pub(super) area_offset: u64,
    /// The cipher that the stripes are encrypted with.
    pub(super) area_cipher: String,
    /// The length of that cipher's key, in bytes.
    pub(super) area_key_bytes: usize,
}

impl Slot {
    /// The bytes that the stripes take, without the rest of the last sector.
    pub(super) fn material_bytes(&self) -> usize {
        // Both were bounded when the slot was read.
        self.key_bytes * self.stripes as usize
    }
}

/// The stripes of a key in whole sectors of 512 bytes.
pub(super) fn material_sectors_bytes(key_bytes: u64, stripes: u32) -> u64 {
    (key_bytes * u64::from(stripes)).next_multiple_of(512)
}

/// What a key's derivative is compared with, to know that it is the key.
#[derive(Debug, Clone)]
pub(super) struct Digest {
    pub(super) hash: String,
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) digest: Vec<u8>,
    /// The slots whose keys it proves.
    pub(super) slots: Vec<u32>,
    /// Whether the key is the volume's.
    pub(super) is_of_volume: bool,
}

impl Digest {
    /// What a comparison costs, in parts of [`kdf::MAX_COST`].
    pub(super) fn cost(&self) -> u64 {
        kdf::pbkdf2_cost(&self.hash, self.iterations, self.digest.len())
    }

    /// Whether this is the digest of `key`.
    pub(super) fn proves(&self, key: &[u8]) -> Result<bool> {
        let made = kdf::pbkdf2(&self.hash, self.iterations, key, &self.salt, self.digest.len())?;
        Ok(*made == self.digest)
    }
}

/// A run of the volume.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Where it is on the data device, in bytes.
    pub(super) offset: u64,
    /// How long it is in bytes; `None` up to the end of the device.
    pub(super) size: Option<u64>,
    pub(super) kind: SegmentKind,
}

#[derive(Debug, Clone)]
pub(super) enum SegmentKind {
    Crypt { cipher: String, iv_tweak: u64, sector_size: u32 },
    Linear,
}

/// Everything that opening a volume takes.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The slots that hold keys, in ascending order of their numbers.
    pub(super) slots: Vec<Slot>,
    /// All slots, for listings.
    pub(super) listing: Vec<Keyslot>,
    pub(super) digests: Vec<Digest>,
    /// The volume's runs, one after the other.
    pub(super) segments: Vec<Segment>,
    /// Why the volume cannot be opened, though the header can be read.
    pub(super) refusal: Option<String>,
    /// Where the header's own structures and the key slots end, in bytes.
    pub(super) header_end: u64,
}
