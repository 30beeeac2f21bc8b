//! What the superblock of a member says, whatever its version.

use vmcraft_block::BlockDevice;

use super::{v0, v1};
use crate::{Error, Result};

pub(super) const MAGIC: u32 = 0xa92b_4efc;
pub(super) const SECTOR: u64 = 512;

/// A version of the metadata, which is also its place on the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metadata {
    /// 0.90: in the last 64 to 128 KiB.
    V0_90,
    /// 1.0: in the last 8 to 12 KiB.
    V1_0,
    /// 1.1: at the start.
    V1_1,
    /// 1.2: 4 KiB from the start.
    V1_2,
}

impl Metadata {
    /// The version as `mdadm` writes it, such as `1.2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V0_90 => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The version of this name; `0`, `1` and `default` are understood as `mdadm` does.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "0.90" | "0" => Self::V0_90,
            "1.0" => Self::V1_0,
            "1.1" => Self::V1_1,
            "1.2" | "1" | "default" => Self::V1_2,
            _ => return None,
        })
    }

    /// Where the superblock is on a device of `size` bytes; `None` if it is too small.
    pub(super) fn offset(self, size: u64) -> Option<u64> {
        match self {
            Self::V0_90 => (size & !0xffff).checked_sub(0x1_0000),
            Self::V1_0 => (size & !(SECTOR - 1)).checked_sub(0x2000).map(|offset| offset & !0xfff),
            Self::V1_1 => Some(0),
            Self::V1_2 => Some(4096),
        }
        .filter(|offset| offset + 4096 <= size)
    }
}

/// What a member is in its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Has the array's part of this number.
    Active(u32),
    Spare,
    /// Failed or taken out.
    Faulty,
    Journal,
}

/// The superblock of one member, checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) metadata: Metadata,
    /// Where it is on the member, in bytes.
    pub(super) offset: u64,
    /// Its bytes, for changing some of them.
    pub(super) raw: Vec<u8>,
    /// The array's UUID, in the order in which it is printed.
    pub(super) uuid: [u8; 16],
    pub(super) name: String,
    pub(super) preferred_minor: Option<u32>,
    pub(super) level: i32,
    pub(super) layout: u32,
    pub(super) chunk_bytes: u64,
    pub(super) raid_disks: u32,
    /// What of each member the array uses, in bytes; of no meaning for levels without redundancy.
    pub(super) used_bytes: u64,
    /// Where the member's data begin, and how many bytes there are for them.
    pub(super) data_start: u64,
    pub(super) data_bytes: u64,
    pub(super) events: u64,
    /// The member's number in the array's list, which its role stands beside.
    pub(super) number: u32,
    pub(super) device_uuid: Option<[u8; 16]>,
    /// What each number of the list is, as far as this member knows.
    pub(super) roles: Vec<Role>,
    /// Up to where, in bytes of each member, copies and parity fit; `None` if they do everywhere.
    pub(super) resync_from: Option<u64>,
    /// Up to where, in bytes, this member has its content; `None` if it has all.
    pub(super) recovered_to: Option<u64>,
    /// Whether it is to replace another one of the same role.
    pub(super) is_replacement: bool,
    pub(super) is_write_mostly: bool,
    /// Where its write-intent bitmap is, in bytes from the start of the member.
    pub(super) bitmap: Option<u64>,
    pub(super) bad_blocks: Option<BadBlockArea>,
    /// What the array has that changes how it is opened, by name.
    pub(super) features: Features,
}

/// Where the log of bad blocks is.
#[derive(Debug, Clone, Copy)]
pub(super) struct BadBlockArea {
    pub(super) offset: u64,
    pub(super) len: usize,
    /// The unit of its numbers is 512 bytes shifted left by this.
    pub(super) shift: u8,
}

/// Features that restrict what can be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) is_reshaping: bool,
    pub(super) is_clustered: bool,
    pub(super) has_journal: bool,
    pub(super) has_ppl: bool,
    /// Bits that are not known.
    pub(super) unknown: u32,
}

impl Superblock {
    /// What this member is, by its own account.
    pub(super) fn role(&self) -> Role {
        self.role_of(self.number)
    }

    /// What the member of this number is, by this one's account.
    pub(super) fn role_of(&self, number: u32) -> Role {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.roles.get(index).copied().unwrap_or(Role::Spare)
    }

    /// The array's UUID as `mdadm` prints it.
    pub(super) fn uuid_text(&self) -> String {
        uuid_text(&self.uuid)
    }
}

/// Four numbers of eight hexadecimal digits.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> String {
    let words: Vec<_> = uuid
        .chunks(4)
        .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        .collect();
    words.join(":")
}

/// Reads the superblock of a device; `None` if it has none.
///
/// Version 1 is looked for first: its superblock says where it is, so that it is not mistaken, and a 0.90 one
/// before it may be left over.
pub(super) fn read(device: &dyn BlockDevice) -> Result<Option<Superblock>> {
    let mut damaged = None;
    for metadata in [Metadata::V1_2, Metadata::V1_1, Metadata::V1_0, Metadata::V0_90] {
        let Some(offset) = metadata.offset(device.size()) else { continue };
        let mut raw = vec![0; 4096];
        device.read_at(offset, &mut raw)?;
        let found = match metadata {
            Metadata::V0_90 => v0::decode(raw, offset),
            _ => v1::decode(metadata, raw, offset, device.size()),
        };
        match found {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    damaged.map_or(Ok(None), Err)
}

/// An error for what contradicts the format.
pub(super) fn ensure(holds: bool, what: &str, offset: u64) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Corrupt { what: format!("md superblock: {what}"), offset }) }
}

/// A number of sectors in bytes.
pub(super) fn sectors(count: u64, what: &str, offset: u64) -> Result<u64> {
    count
        .checked_mul(SECTOR)
        .ok_or_else(|| Error::Corrupt { what: format!("md superblock: {what} of {count} sectors"), offset })
}

/// The sum of the words of a superblock in which the checksum is 0, folded to 32 bits.
pub(super) fn fold(sum: u64) -> u32 {
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    #[allow(clippy::cast_possible_truncation)] // the carry of the fold is dropped, as Linux does
    let folded = folded as u32;
    folded
}
