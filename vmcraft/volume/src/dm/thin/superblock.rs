//! The superblock of a pool's metadata.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dm::persistent::Space;
use crate::dm::persistent::block::{BLOCK, Block, Kind, corrupt};
use crate::dm::persistent::space_map::{RawRoot, SpaceMap};
use crate::{Error, Result};

const MAGIC: u64 = 27_022_010;
const VERSION: u32 = 2;
/// The metadata must be checked before it is written.
const NEEDS_CHECK: u32 = 1;
const SECTOR: u64 = 512;

/// The superblock on disk: block 0 of the metadata, little-endian.
///
/// Spec: Linux `drivers/md/dm-thin-metadata.c`, `struct thin_disk_superblock`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    kept_000: [u8; 4],
    /// 0x004: [`NEEDS_CHECK`].
    flags: U32,
    kept_008: [u8; 24],
    /// 0x020: [`MAGIC`].
    magic: U64,
    /// 0x028: [`VERSION`].
    version: U32,
    /// 0x02c: goes up with each snapshot.
    time: U32,
    /// 0x030: for user space: LVM counts its changes to the pool here.
    trans_id: U64,
    /// 0x038: the superblock of a metadata snapshot, or 0.
    held_root: U64,
    /// 0x040: where the data's space map is.
    data_space_map_root: RawRoot,
    kept_060: [u8; 96],
    /// 0x0c0: where the metadata's own space map is.
    metadata_space_map_root: RawRoot,
    kept_0e0: [u8; 96],
    /// 0x140: the B-tree from device to B-tree from block to data block and time.
    data_mapping_root: U64,
    /// 0x148: the B-tree from device to what is known of it.
    device_details_root: U64,
    /// 0x150: in sectors of 512 bytes.
    data_block_size: U32,
    /// 0x154: in sectors of 512 bytes; always 8.
    metadata_block_size: U32,
    /// 0x158: unused by Linux.
    metadata_nr_blocks: U64,
    /// 0x160: features that do not matter to those who do not know them.
    compat_flags: U32,
    /// 0x164: features that do not matter to those who only read.
    compat_ro_flags: U32,
    /// 0x168: features that one must know.
    incompat_flags: U32,
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x16c);
const _: () = assert!(std::mem::offset_of!(RawSuperblock, data_mapping_root) == 0x140);

/// The superblock, checked.
#[derive(Clone)]
pub(super) struct Superblock {
    /// The size of a data block in bytes.
    pub(super) block_bytes: u64,
    /// The time of the newest snapshot.
    pub(super) time: u32,
    pub(super) transaction_id: u64,
    pub(super) mapping_root: u64,
    pub(super) details_root: u64,
    /// Why the metadata may only be read.
    pub(super) read_only: Option<&'static str>,
}

impl Superblock {
    /// Decodes block 0, and the space maps of metadata and data.
    pub(super) fn decode(block: &Block) -> Result<(Self, SpaceMap, SpaceMap)> {
        let bad = |what: &str| corrupt(format!("{} ({what})", Kind::ThinSuperblock.name()), 0);
        let (raw, _) = RawSuperblock::ref_from_prefix(&**block).map_err(|_| bad("size"))?;
        if raw.magic.get() != MAGIC {
            return Err(bad("magic number"));
        }
        if raw.version.get() != VERSION {
            return Err(Error::Unsupported(format!(
                "version {} of a thin pool's metadata (only version {VERSION} is known)",
                raw.version.get()
            )));
        }
        if raw.incompat_flags.get() != 0 {
            return Err(Error::Unsupported(format!(
                "incompatible features {:#x} of a thin pool's metadata",
                raw.incompat_flags.get()
            )));
        }
        if u64::from(raw.metadata_block_size.get()) * SECTOR != BLOCK as u64 {
            return Err(bad("size of metadata blocks"));
        }
        // 64 KiB to 1 GiB in steps of 64 KiB.
        let sectors = raw.data_block_size.get();
        if sectors == 0 || sectors % 128 != 0 || sectors > 1 << 21 {
            return Err(bad("size of data blocks"));
        }
        let read_only = if raw.flags.get() & NEEDS_CHECK != 0 {
            Some("its metadata is marked as needing a check (needs_check): thin_check and lvconvert --repair")
        } else if raw.compat_ro_flags.get() != 0 {
            Some("its metadata has features that allow only reading")
        } else {
            None
        };
        let metadata = SpaceMap::decode(&raw.metadata_space_map_root, Space::Metadata, 0xc0)?;
        let data = SpaceMap::decode(&raw.data_space_map_root, Space::Data, 0x40)?;
        let superblock = Self {
            block_bytes: u64::from(sectors) * SECTOR,
            time: raw.time.get(),
            transaction_id: raw.trans_id.get(),
            mapping_root: raw.data_mapping_root.get(),
            details_root: raw.device_details_root.get(),
            read_only,
        };
        Ok((superblock, metadata, data))
    }

    /// Puts what can change into block 0.
    pub(super) fn encode(&self, metadata: &SpaceMap, data: &SpaceMap, block: &mut [u8; BLOCK]) {
        let Ok((raw, _)) = RawSuperblock::mut_from_prefix(block) else { return };
        raw.trans_id = U64::new(self.transaction_id);
        raw.data_mapping_root = U64::new(self.mapping_root);
        raw.device_details_root = U64::new(self.details_root);
        raw.metadata_space_map_root = metadata.encode();
        raw.data_space_map_root = data.encode();
    }
}
