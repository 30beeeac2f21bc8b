//! The superblock.

use std::mem::{offset_of, size_of};

use bstr::{BString, ByteSlice};
use vmcraft_fs::{Error, Result};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::corrupt;
use crate::features::{self, Compat, Incompat, RoCompat};

/// Where the superblock starts, in bytes from the start of the volume.
pub(crate) const START: u64 = 1024;
/// `s_magic`.
pub(crate) const MAGIC: u16 = 0xef53;

/// The ext4 superblock on disk: 1024 bytes, 1024 bytes into the volume, little-endian.
///
/// Spec: Linux `Documentation/filesystems/ext4/super.rst`; fields have its names without `s_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) inodes_count: U32,
    pub(crate) blocks_count_lo: U32,
    pub(crate) r_blocks_count_lo: U32,
    pub(crate) free_blocks_count_lo: U32,
    pub(crate) free_inodes_count: U32,
    pub(crate) first_data_block: U32,
    /// The block size in bytes is `1024 << log_block_size`.
    pub(crate) log_block_size: U32,
    /// The cluster size in bytes is `1024 << log_cluster_size`, with `bigalloc`.
    pub(crate) log_cluster_size: U32,
    pub(crate) blocks_per_group: U32,
    pub(crate) clusters_per_group: U32,
    pub(crate) inodes_per_group: U32,
    /// When it was last mounted and written, in seconds since 1970; see the bytes `…_hi`.
    pub(crate) mtime: U32,
    pub(crate) wtime: U32,
    pub(crate) mnt_count: U16,
    pub(crate) max_mnt_count: U16,
    /// Always [`MAGIC`].
    pub(crate) magic: U16,
    /// See [`state`].
    pub(crate) state: U16,
    /// What the kernel does about an error: 1 to go on, 2 to become read-only, 3 to panic.
    pub(crate) errors: U16,
    pub(crate) minor_rev_level: U16,
    pub(crate) lastcheck: U32,
    pub(crate) checkinterval: U32,
    pub(crate) creator_os: U32,
    /// 0: fixed inode size and no features; 1: the fields from `first_ino` on are valid.
    pub(crate) rev_level: U32,
    pub(crate) def_resuid: U16,
    pub(crate) def_resgid: U16,
    pub(crate) first_ino: U32,
    /// In bytes.
    pub(crate) inode_size: U16,
    /// The group that this copy is in.
    pub(crate) block_group_nr: U16,
    pub(crate) feature_compat: U32,
    pub(crate) feature_incompat: U32,
    pub(crate) feature_ro_compat: U32,
    pub(crate) uuid: [u8; 16],
    /// The label, padded with NUL.
    pub(crate) volume_name: [u8; 16],
    pub(crate) last_mounted: [u8; 64],
    kept_0c8: [u8; 6],
    pub(crate) reserved_gdt_blocks: U16,
    pub(crate) journal_uuid: [u8; 16],
    pub(crate) journal_inum: U32,
    pub(crate) journal_dev: U32,
    /// The first inode of the orphan list; 0 if it is empty.
    pub(crate) last_orphan: U32,
    pub(crate) hash_seed: [U32; 4],
    pub(crate) def_hash_version: u8,
    /// 1 if `jnl_blocks` holds a copy of the journal's inode.
    pub(crate) jnl_backup_type: u8,
    /// Bytes of a group descriptor, with `64bit`.
    pub(crate) desc_size: U16,
    pub(crate) default_mount_opts: U32,
    pub(crate) first_meta_bg: U32,
    pub(crate) mkfs_time: U32,
    /// `i_block` of the journal's inode, then the high and the low half of its size.
    pub(crate) jnl_blocks: [U32; 17],
    pub(crate) blocks_count_hi: U32,
    pub(crate) r_blocks_count_hi: U32,
    pub(crate) free_blocks_count_hi: U32,
    /// Bytes behind the first 128 that all inodes have in use, and that new ones shall.
    pub(crate) min_extra_isize: U16,
    pub(crate) want_extra_isize: U16,
    pub(crate) flags: U32,
    pub(crate) raid_stride: U16,
    pub(crate) mmp_interval: U16,
    pub(crate) mmp_block: U64,
    pub(crate) raid_stripe_width: U32,
    /// With `flex_bg`, `1 << log_groups_per_flex` groups have their metadata together.
    pub(crate) log_groups_per_flex: u8,
    /// 1 is CRC-32C, the only one.
    pub(crate) checksum_type: u8,
    kept_176: [u8; 2],
    pub(crate) kbytes_written: U64,
    kept_180: [u8; 0x14],
    /// Of the errors that the kernel found; what follows tells of the first and the last.
    pub(crate) error_count: U32,
    pub(crate) first_error_time: U32,
    pub(crate) first_error_ino: U32,
    pub(crate) first_error_block: U64,
    pub(crate) first_error_func: [u8; 32],
    pub(crate) first_error_line: U32,
    pub(crate) last_error_time: U32,
    pub(crate) last_error_ino: U32,
    pub(crate) last_error_line: U32,
    pub(crate) last_error_block: U64,
    pub(crate) last_error_func: [u8; 32],
    pub(crate) mount_opts: [u8; 64],
    pub(crate) usr_quota_inum: U32,
    pub(crate) grp_quota_inum: U32,
    pub(crate) overhead_clusters: U32,
    /// With `sparse_super2`, the groups that hold a backup; 0 for none.
    pub(crate) backup_bgs: [U32; 2],
    kept_254: [u8; 4],
    pub(crate) encrypt_pw_salt: [u8; 16],
    pub(crate) lpf_ino: U32,
    pub(crate) prj_quota_inum: U32,
    pub(crate) checksum_seed: U32,
    /// Bits 32 to 39 of the times.
    pub(crate) wtime_hi: u8,
    pub(crate) mtime_hi: u8,
    pub(crate) mkfs_time_hi: u8,
    pub(crate) lastcheck_hi: u8,
    pub(crate) first_error_time_hi: u8,
    pub(crate) last_error_time_hi: u8,
    pub(crate) first_error_errcode: u8,
    pub(crate) last_error_errcode: u8,
    pub(crate) encoding: U16,
    pub(crate) encoding_flags: U16,
    pub(crate) orphan_file_inum: U32,
    kept_284: [u8; 0x178],
    pub(crate) checksum: U32,
}
const _: () = assert!(size_of::<RawSuperblock>() == 1024);
const _: () = assert!(offset_of!(RawSuperblock, magic) == 0x38);
const _: () = assert!(offset_of!(RawSuperblock, rev_level) == 0x4c);
const _: () = assert!(offset_of!(RawSuperblock, first_ino) == 0x54);
const _: () = assert!(offset_of!(RawSuperblock, uuid) == 0x68);
const _: () = assert!(offset_of!(RawSuperblock, reserved_gdt_blocks) == 0xce);
const _: () = assert!(offset_of!(RawSuperblock, hash_seed) == 0xec);
const _: () = assert!(offset_of!(RawSuperblock, desc_size) == 0xfe);
const _: () = assert!(offset_of!(RawSuperblock, jnl_blocks) == 0x10c);
const _: () = assert!(offset_of!(RawSuperblock, blocks_count_hi) == 0x150);
const _: () = assert!(offset_of!(RawSuperblock, flags) == 0x160);
const _: () = assert!(offset_of!(RawSuperblock, checksum_type) == 0x175);
const _: () = assert!(offset_of!(RawSuperblock, error_count) == 0x194);
const _: () = assert!(offset_of!(RawSuperblock, first_error_func) == 0x1a8);
const _: () = assert!(offset_of!(RawSuperblock, mount_opts) == 0x200);
const _: () = assert!(offset_of!(RawSuperblock, overhead_clusters) == 0x248);
const _: () = assert!(offset_of!(RawSuperblock, checksum_seed) == 0x270);
const _: () = assert!(offset_of!(RawSuperblock, orphan_file_inum) == 0x280);
const _: () = assert!(offset_of!(RawSuperblock, checksum) == 0x3fc);

/// `s_state`.
pub(crate) mod state {
    /// It was unmounted.
    pub(crate) const VALID: u16 = 0x1;
    /// Errors were found.
    pub(crate) const ERROR: u16 = 0x2;
    /// Orphans are being deleted.
    pub(crate) const ORPHANS: u16 = 0x4;
}

impl RawSuperblock {
    /// Sets how many blocks there are.
    pub(crate) fn set_blocks(&mut self, blocks: u64) {
        let [a, b, c, d, e, f, g, h] = blocks.to_le_bytes();
        self.blocks_count_lo = U32::from_bytes([a, b, c, d]);
        self.blocks_count_hi = U32::from_bytes([e, f, g, h]);
    }

    /// Sets how many blocks only the superuser may use.
    pub(crate) fn set_reserved(&mut self, blocks: u64) {
        let [a, b, c, d, e, f, g, h] = blocks.to_le_bytes();
        self.r_blocks_count_lo = U32::from_bytes([a, b, c, d]);
        self.r_blocks_count_hi = U32::from_bytes([e, f, g, h]);
    }

    /// Sets how many blocks and inodes are free.
    pub(crate) fn set_free(&mut self, blocks: u64, inodes: u64) {
        let [a, b, c, d, e, f, g, h] = blocks.to_le_bytes();
        self.free_blocks_count_lo = U32::from_bytes([a, b, c, d]);
        self.free_blocks_count_hi = U32::from_bytes([e, f, g, h]);
        // Inodes have numbers of 32 bits.
        self.free_inodes_count = u32::try_from(inodes).unwrap_or(u32::MAX).into();
    }

    /// Sets the checksum of `metadata_csum`, if the volume has it.
    pub(crate) fn seal(&mut self) {
        if RoCompat::from_bits_retain(self.feature_ro_compat.get()).contains(RoCompat::METADATA_CSUM) {
            let (covered, _) = self.as_bytes().split_at(offset_of!(Self, checksum));
            self.checksum = crc32c(!0, covered).into();
        }
    }
}

/// `s_flags`: directory hashes take bytes as unsigned.
const UNSIGNED_DIRECTORY_HASH: u32 = 0x2;
/// The only checksum algorithm.
const CHECKSUM_CRC32C: u8 = 1;
/// Inodes before this one are the file system's own; older than the field that can raise it.
pub(crate) const FIRST_INODE: u32 = 11;

/// Bytes that every inode has, and of the fields behind them.
const BASE_SIZE: u16 = 128;
const FIELDS: u16 = 32;

/// Where the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalPlace {
    /// There is none.
    None,
    /// In this inode.
    Inode(u32),
    /// On another device, known by its UUID.
    External([u8; 16]),
}

/// The superblock, checked. Only `decode` makes one, so nothing further down checks again.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    /// In bytes; a power of two from 1024 to 65536.
    pub(crate) block_size: u32,
    /// Blocks in a cluster: a power of two, 1 without `bigalloc`.
    pub(crate) cluster_blocks: u32,
    pub(crate) blocks: u64,
    pub(crate) reserved_blocks: u64,
    pub(crate) first_data_block: u32,
    pub(crate) blocks_per_group: u32,
    pub(crate) groups: u32,
    pub(crate) inodes: u32,
    pub(crate) inodes_per_group: u32,
    /// In bytes; a power of two from 128 to the block size.
    pub(crate) inode_size: u16,
    /// The first inode that is not reserved.
    pub(crate) first_inode: u32,
    /// Bytes of a group descriptor; a power of two from 32 to 1024.
    pub(crate) descriptor_size: u16,
    /// The first descriptor block that `meta_bg` places.
    pub(crate) first_meta_bg: u32,
    /// Blocks behind the descriptor table that it can grow into.
    pub(crate) reserved_descriptor_blocks: u16,
    /// With `sparse_super2`, the groups that hold a backup.
    pub(crate) backup_groups: [u32; 2],
    pub(crate) compat: Compat,
    pub(crate) incompat: Incompat,
    pub(crate) ro_compat: RoCompat,
    pub(crate) uuid: [u8; 16],
    pub(crate) label: BString,
    pub(crate) journal: JournalPlace,
    /// Where the checksums of `metadata_csum` and of large extended attributes start.
    pub(crate) checksum_seed: u32,
    pub(crate) hash_seed: [u32; 4],
    pub(crate) hash_unsigned: bool,
    /// How the names of directories that get an htree are hashed.
    pub(crate) hash_version: u8,
    /// Clusters that mkfs found to be overhead; 0 if it did not say.
    pub(crate) overhead_clusters: u32,
    /// So many groups have their metadata together: 1 without `flex_bg`.
    pub(crate) flex_groups: u32,
    /// Bytes behind their first 128 that new inodes have in use, in inodes that are larger.
    pub(crate) new_extra_size: u16,
}

impl Superblock {
    /// Checks what the disk says against itself and against the size of the device in bytes.
    pub(crate) fn decode(raw: &RawSuperblock, device_size: u64) -> Result<Self> {
        let at = |field: usize| START + field as u64;
        macro_rules! ensure {
            ($holds:expr, $field:ident, $($what:tt)+) => {
                if !$holds {
                    return Err(corrupt(
                        format!("superblock: {}{}", format_args!($($what)+), backup_hint(raw)),
                        at(offset_of!(RawSuperblock, $field)),
                    ));
                }
            };
        }
        ensure!(raw.magic.get() == MAGIC, magic, "magic {:#06x}, not {MAGIC:#06x}", raw.magic.get());
        let compat = Compat::from_bits_retain(raw.feature_compat.get());
        let incompat = Incompat::from_bits_retain(raw.feature_incompat.get());
        let ro_compat = RoCompat::from_bits_retain(raw.feature_ro_compat.get());
        features::check_readable(incompat)?;
        let metadata_csum = ro_compat.contains(RoCompat::METADATA_CSUM);
        if metadata_csum {
            if raw.checksum_type != CHECKSUM_CRC32C {
                return Err(Error::Unsupported(format!(
                    "metadata checksum algorithm {} (only 1, crc32c, exists)",
                    raw.checksum_type
                )));
            }
            let (covered, _) = raw.as_bytes().split_at(offset_of!(RawSuperblock, checksum));
            let found = crc32c(!0, covered);
            let stored = raw.checksum.get();
            ensure!(found == stored, checksum, "checksum is {stored:#010x}, its content gives {found:#010x}");
        }

        let log = raw.log_block_size.get();
        ensure!(log <= 6, log_block_size, "block size of 2^{} KiB (64 KiB is the largest)", log);
        let block_size = 1024u32 << log;
        let cluster_blocks = if ro_compat.contains(RoCompat::BIGALLOC) {
            let cluster_log = raw.log_cluster_size.get();
            ensure!(
                (log..=20).contains(&cluster_log),
                log_cluster_size,
                "cluster size of 2^{} KiB with blocks of {} bytes",
                cluster_log,
                block_size
            );
            1u32 << (cluster_log - log)
        } else {
            1
        };

        let bits_per_block = block_size * 8;
        let blocks_per_group = raw.blocks_per_group.get();
        ensure!(
            blocks_per_group / cluster_blocks <= bits_per_block
                && blocks_per_group != 0
                && blocks_per_group.is_multiple_of(cluster_blocks),
            blocks_per_group,
            "{} blocks per group",
            blocks_per_group
        );
        let (inode_size, first_inode) = if raw.rev_level.get() == 0 {
            (128, FIRST_INODE)
        } else {
            (raw.inode_size.get(), raw.first_ino.get())
        };
        ensure!(
            inode_size >= 128 && inode_size.is_power_of_two() && u32::from(inode_size) <= block_size,
            inode_size,
            "inode size of {} bytes",
            inode_size
        );
        ensure!(first_inode >= FIRST_INODE, first_ino, "first inode {}", first_inode);
        let inodes_per_block = block_size / u32::from(inode_size);
        let inodes_per_group = raw.inodes_per_group.get();
        ensure!(
            (inodes_per_block..=bits_per_block).contains(&inodes_per_group),
            inodes_per_group,
            "{} inodes per group",
            inodes_per_group
        );

        let wide = incompat.contains(Incompat::SIXTY_FOUR_BIT);
        let descriptor_size = if wide { raw.desc_size.get() } else { 32 };
        ensure!(
            !wide || (64..=1024).contains(&descriptor_size) && descriptor_size.is_power_of_two(),
            desc_size,
            "group descriptors of {} bytes",
            descriptor_size
        );
        let high = |value: U32| if wide { u64::from(value.get()) << 32 } else { 0 };
        let blocks = high(raw.blocks_count_hi) | u64::from(raw.blocks_count_lo.get());
        let first_data_block = raw.first_data_block.get();
        ensure!(
            u64::from(first_data_block) < blocks
                && (block_size > 1024 || cluster_blocks > 1 || first_data_block > 0),
            first_data_block,
            "first data block {} of {}",
            first_data_block,
            blocks
        );
        let size = blocks.checked_mul(u64::from(block_size));
        ensure!(
            size.is_some_and(|s| s <= device_size),
            blocks_count_lo,
            "the file system is larger than its device: {} blocks of {} bytes, but only {} bytes (a truncated image, or a \
             partition smaller than the file system)",
            blocks,
            block_size,
            device_size
        );
        let groups = (blocks - u64::from(first_data_block)).div_ceil(u64::from(blocks_per_group));
        let inodes = raw.inodes_count.get();
        ensure!(
            groups.checked_mul(u64::from(inodes_per_group)) == Some(u64::from(inodes)),
            inodes_count,
            "{} inodes do not fill {} groups of {}",
            inodes,
            groups,
            inodes_per_group
        );
        // Groups are as many as inodes at most, which are 32 bits.
        let groups = u32::try_from(groups).map_err(|_| {
            corrupt("superblock: too many groups", at(offset_of!(RawSuperblock, blocks_count_lo)))
        })?;
        let hash_seed = raw.hash_seed.map(U32::get);

        Ok(Self {
            block_size,
            cluster_blocks,
            blocks,
            reserved_blocks: high(raw.r_blocks_count_hi) | u64::from(raw.r_blocks_count_lo.get()),
            first_data_block,
            blocks_per_group,
            groups,
            inodes,
            inodes_per_group,
            inode_size,
            first_inode,
            descriptor_size,
            first_meta_bg: raw.first_meta_bg.get(),
            reserved_descriptor_blocks: raw.reserved_gdt_blocks.get(),
            backup_groups: raw.backup_bgs.map(U32::get),
            compat,
            incompat,
            ro_compat,
            uuid: raw.uuid,
            label: raw.volume_name.split(|&b| b == 0).next().unwrap_or_default().as_bstr().to_owned(),
            journal: match (compat.contains(Compat::HAS_JOURNAL), raw.journal_inum.get()) {
                (false, _) => JournalPlace::None,
                (true, 0) => JournalPlace::External(raw.journal_uuid),
                (true, inode) => JournalPlace::Inode(inode),
            },
            checksum_seed: if incompat.contains(Incompat::CSUM_SEED) {
                raw.checksum_seed.get()
            } else {
                crc32c(!0, &raw.uuid)
            },
            hash_seed,
            hash_version: raw.def_hash_version,
            hash_unsigned: raw.flags.get() & UNSIGNED_DIRECTORY_HASH != 0,
            overhead_clusters: raw.overhead_clusters.get(),
            flex_groups: if incompat.contains(Incompat::FLEX_BG) {
                1u32.checked_shl(raw.log_groups_per_flex.into()).unwrap_or(1 << 31)
            } else {
                1
            },
            new_extra_size: new_extra_size(raw, ro_compat, inode_size),
        })
    }

    /// Whether all metadata has a CRC-32C.
    pub(crate) fn metadata_csum(&self) -> bool {
        self.ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    /// Whether group descriptors have a checksum, and with it flags.
    pub(crate) fn group_checksums(&self) -> bool {
        self.ro_compat.intersects(RoCompat::METADATA_CSUM | RoCompat::GDT_CSUM)
    }

    /// The name that `blkid` gives it.
    pub(crate) fn kind(&self) -> &'static str {
        features::kind(self.compat, self.incompat, self.ro_compat)
    }

    /// The bytes of the volume where `block` starts. `block` is below [`Self::blocks`].
    pub(crate) fn byte_of(&self, block: u64) -> u64 {
        block * u64::from(self.block_size)
    }

    /// Whether the `count` blocks from `first` lie within the volume, behind its boot block.
    pub(crate) fn holds(&self, first: u64, count: u64) -> bool {
        first >= u64::from(self.first_data_block)
            && first != 0
            && first.checked_add(count).is_some_and(|end| end <= self.blocks)
    }

    /// The first block of a group.
    pub(crate) fn group_start(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// Whether a group holds a copy of the superblock.
    pub(crate) fn has_superblock(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat.contains(Compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        !self.ro_compat.contains(RoCompat::SPARSE_SUPER) || is_sparse_backup(group)
    }

    /// How many group descriptors are in a block.
    pub(crate) fn descriptors_per_block(&self) -> u32 {
        self.block_size / u32::from(self.descriptor_size)
    }

    /// How many blocks a group's inode table has.
    pub(crate) fn inode_table_blocks(&self) -> u32 {
        self.inodes_per_group.div_ceil(self.block_size / u32::from(self.inode_size))
    }
}

/// What the kernel gives new inodes: all fields it knows, or more if the superblock wants that.
fn new_extra_size(raw: &RawSuperblock, ro_compat: RoCompat, inode_size: u16) -> u16 {
    let room = inode_size - BASE_SIZE;
    let fields = FIELDS.min(room);
    if !ro_compat.contains(RoCompat::EXTRA_ISIZE) {
        return fields;
    }
    let wanted = raw.min_extra_isize.get().max(raw.want_extra_isize.get());
    if wanted > fields && wanted <= room && wanted.is_multiple_of(4) { wanted } else { fields }
}

/// Whether a group other than the first holds a backup with `sparse_super`.
pub(crate) fn is_sparse_backup(group: u32) -> bool {
    group == 1 || [3, 5, 7].iter().any(|&base| is_power_of(group, base))
}

fn is_power_of(mut number: u32, base: u32) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

/// Where a backup of a damaged superblock should be, as far as the damaged one tells.
fn backup_hint(raw: &RawSuperblock) -> String {
    let log = raw.log_block_size.get();
    if raw.magic.get() != MAGIC || log > 6 {
        return "; with mke2fs's defaults a backup is at block 32768 (4 KiB blocks) or 8193 (1 KiB blocks), which \
                e2fsck -b can restore"
            .to_owned();
    }
    let group = match raw.backup_bgs[0].get() {
        0 => 1,
        group => group,
    };
    let block =
        u64::from(raw.first_data_block.get()) + u64::from(group) * u64::from(raw.blocks_per_group.get());
    format!(
        "; a backup should be at block {block}, which e2fsck -b {block} -B {} can restore",
        1024u32 << log
    )
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// A minimal valid superblock: 64 blocks of 1 KiB, one group.
    pub(crate) fn minimal() -> RawSuperblock {
        let mut raw = RawSuperblock::new_zeroed();
        raw.magic = MAGIC.into();
        raw.blocks_count_lo = 64.into();
        raw.first_data_block = 1.into();
        raw.blocks_per_group = 8192.into();
        raw.inodes_count = 16.into();
        raw.inodes_per_group = 16.into();
        raw.rev_level = 1.into();
        raw.first_ino = 11.into();
        raw.inode_size = 128.into();
        raw
    }

    #[test]
    fn minimal_superblock_is_accepted() {
        let sb = Superblock::decode(&minimal(), 64 << 10).unwrap();
        assert_eq!((sb.block_size, sb.blocks, sb.groups, sb.inode_table_blocks()), (1024, 64, 1, 2));
        assert_eq!(sb.kind(), "ext2");
    }

    #[test] // Each wrong field is named, and the message says where the backup is.
    fn wrong_fields_are_named() {
        type Spoil = fn(&mut RawSuperblock);
        let cases: &[(Spoil, &str)] = &[
            (|r| r.magic = 1.into(), "magic 0x0001"),
            (|r| r.log_block_size = 7.into(), "block size of 2^7 KiB"),
            (|r| r.blocks_per_group = 0.into(), "0 blocks per group"),
            (|r| r.inode_size = 192.into(), "inode size of 192 bytes"),
            (|r| r.inodes_per_group = 1.into(), "1 inodes per group"),
            (|r| r.first_data_block = 64.into(), "first data block 64 of 64"),
            (|r| r.inodes_count = 17.into(), "17 inodes do not fill 1 groups"),
            (|r| r.blocks_count_lo = 65.into(), "65 blocks of 1024 bytes, but only 65536 bytes"),
        ];
        for (spoil, expected) in cases {
            let mut raw = minimal();
            spoil(&mut raw);
            let message = Superblock::decode(&raw, 64 << 10).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} lacks {expected}");
            assert!(message.contains("backup"), "{message}");
        }
    }

    #[test]
    fn backups_are_in_powers_of_3_5_7() {
        let mut raw = minimal();
        raw.feature_ro_compat = RoCompat::SPARSE_SUPER.bits().into();
        let sb = Superblock::decode(&raw, 64 << 10).unwrap();
        let with: Vec<u32> = (0..130).filter(|&g| sb.has_superblock(g)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
