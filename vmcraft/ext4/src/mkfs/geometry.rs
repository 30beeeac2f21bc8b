//! How large everything on a new volume is: from the size of the device to a superblock.
//!
//! The choices are those of e2fsprogs 1.47, so that a volume is what its users expect.

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Error, FormatOptions, Result};
use zerocopy::FromZeros;
use zerocopy::little_endian::U32;

use super::features::Features;
use crate::checksum::crc32c;
use crate::features::{Compat, Incompat, RoCompat};
use crate::inode::{BASE_SIZE, EXTRA_FIELDS};
use crate::superblock::{MAGIC, RawSuperblock, state};

/// Inodes before this one are the file system's own.
const FIRST_INODE: u32 = 11;
/// What descriptors, bitmaps and superblocks of a group may count.
const MOST_PER_GROUP: u32 = (1 << 16) - 8;
/// Blocks that a last, shorter group must have beyond its metadata to be worth it.
const WORTH_A_GROUP: u64 = 50;
/// As `1 << 4` groups have their metadata together.
const LOG_GROUPS_PER_FLEX: u8 = 4;
/// Fewer blocks than this have no journal.
const LEAST_WITH_JOURNAL: u64 = 2048;

/// The kernel's page in bytes, on most machines.
const PAGE: u64 = 4096;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// The defaults for a size of the device: block size, and bytes for each inode.
fn defaults(size: u64) -> (u32, u64) {
    match size {
        _ if size < 3 * MIB => (1024, 8192),
        _ if size < 512 * MIB => (1024, 4096),
        _ if size < 4 * TIB => (4096, 16384),
        _ if size < 16 * TIB => (4096, 32768),
        _ => (4096, 65536),
    }
}

/// A new volume: its superblock, whose checksum is not set yet, and the blocks of its journal, 0 for
/// none.
pub(super) struct Geometry {
    pub(super) superblock: RawSuperblock,
    pub(super) journal_blocks: u32,
}

impl Geometry {
    /// Decides everything that has a number. Free counts and inodes of files are left at 0.
    pub(super) fn choose(
        device: &dyn BlockDevice,
        mut features: Features,
        options: &FormatOptions,
    ) -> Result<Self> {
        let (block_size, blocks, bytes_per_inode) = blocks(device, options)?;
        if blocks > u64::from(u32::MAX) {
            if !features.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
                return Err(Error::Unsupported(format!(
                    "{blocks} blocks without the feature 64bit, which allows {} at most; take larger blocks",
                    u32::MAX
                )));
            }
            // The resize inode's map has 32 bits.
            features.compat.remove(Compat::RESIZE_INODE);
        }
        let inode_size = inode_size(block_size, &features, options)?;
        let journal_blocks = journal_blocks(block_size, blocks, &mut features, options)?;
        let first_data_block = u32::from(block_size == 1024);
        let shape = Shape::fit(
            Request {
                block_size,
                blocks,
                inode_size,
                inodes: inodes(blocks, block_size, bytes_per_inode, &features, options)?,
                first_data_block,
            },
            &mut features,
        )?;

        let percent = options.reserved_percent.unwrap_or(5.0);
        if !(0.0..=50.0).contains(&percent) {
            return Err(Error::InvalidInput("reserved blocks must be from 0 to 50 percent"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        // half of the blocks at most; rounding in the last of 53 bits does no harm
        let reserved = (shape.blocks as f64 * percent / 100.0) as u64;

        let mut raw = RawSuperblock::new_zeroed();
        let (low, high) = halves(shape.blocks);
        (raw.blocks_count_lo, raw.blocks_count_hi) = (low, high);
        (raw.r_blocks_count_lo, raw.r_blocks_count_hi) = halves(reserved);
        raw.inodes_count = (shape.inodes_per_group * shape.groups).into();
        raw.first_data_block = first_data_block.into();
        raw.log_block_size = (block_size.trailing_zeros() - 10).into();
        raw.log_cluster_size = raw.log_block_size;
        raw.blocks_per_group = shape.blocks_per_group.into();
        raw.clusters_per_group = raw.blocks_per_group;
        raw.inodes_per_group = shape.inodes_per_group.into();
        raw.max_mnt_count = 0xffff.into(); // no check after so many mounts
        raw.magic = MAGIC.into();
        raw.state = state::VALID.into();
        raw.errors = 1.into();
        raw.rev_level = 1.into();
        raw.first_ino = FIRST_INODE.into();
        raw.inode_size = inode_size.into();
        raw.feature_compat = features.compat.bits().into();
        raw.feature_incompat = features.incompat.bits().into();
        raw.feature_ro_compat = features.ro_compat.bits().into();
        raw.uuid = options.uuid.unwrap_or_else(|| random_uuid(options));
        raw.volume_name = label(options)?;
        raw.reserved_gdt_blocks = shape.reserved_descriptor_blocks.into();
        raw.hash_seed = hash_seed(options);
        raw.def_hash_version = 1; // half MD4
        raw.desc_size = if features.incompat.contains(Incompat::SIXTY_FOUR_BIT) { 64 } else { 0 }.into();
        raw.default_mount_opts = 0xc.into(); // user_xattr, acl
        if usize::from(inode_size) > BASE_SIZE {
            raw.min_extra_isize = EXTRA_FIELDS.into();
            raw.want_extra_isize = raw.min_extra_isize;
        }
        raw.flags = 1.into(); // directory hashes take bytes as signed
        if features.incompat.contains(Incompat::FLEX_BG) {
            raw.log_groups_per_flex = LOG_GROUPS_PER_FLEX;
        }
        if features.compat.contains(Compat::SPARSE_SUPER2) {
            raw.backup_bgs = backups(shape.groups).map(U32::new);
        }
        if features.ro_compat.contains(RoCompat::METADATA_CSUM) {
            raw.checksum_type = 1;
            if features.incompat.contains(Incompat::CSUM_SEED) {
                raw.checksum_seed = crc32c(!0, &raw.uuid).into();
            }
        }
        if features.incompat.contains(Incompat::CASEFOLD) {
            raw.encoding = 1.into(); // UTF-8 of Unicode 12.1, the only one
        }
        set_times(&mut raw, options);
        Ok(Self { superblock: raw, journal_blocks })
    }
}

/// The low and the high half.
fn halves(number: u64) -> (U32, U32) {
    #[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
    (U32::new(number as u32), U32::new((number >> 32) as u32))
}

fn set_times(raw: &mut RawSuperblock, options: &FormatOptions) {
    let now = u64::try_from(options.sources.now().seconds).unwrap_or(0);
    let (low, high) = halves(now);
    let high = high.get().to_le_bytes()[0];
    (raw.mkfs_time, raw.wtime, raw.lastcheck) = (low, low, low);
    (raw.mkfs_time_hi, raw.wtime_hi, raw.lastcheck_hi) = (high, high, high);
}

/// A UUID of version 4.
fn random_uuid(options: &FormatOptions) -> [u8; 16] {
    uuid::Builder::from_random_bytes(options.sources.random()).into_uuid().into_bytes()
}

fn hash_seed(options: &FormatOptions) -> [U32; 4] {
    let bytes = random_uuid(options);
    std::array::from_fn(|i| U32::from_bytes(std::array::from_fn(|j| bytes[i * 4 + j])))
}

/// The label, padded with NUL.
fn label(options: &FormatOptions) -> Result<[u8; 16]> {
    let mut padded = [0; 16];
    let label = options.label.as_deref().map_or(&[][..], |l| l);
    if label.contains(&0) {
        return Err(Error::InvalidInput("a label cannot hold NUL"));
    }
    let room = padded.get_mut(..label.len()).ok_or(Error::InvalidInput(
        "the label is longer than the 16 bytes that ext2, ext3 and ext4 have for it",
    ))?;
    room.copy_from_slice(label);
    Ok(padded)
}

/// The block size, how many blocks, and bytes for each inode.
fn blocks(device: &dyn BlockDevice, options: &FormatOptions) -> Result<(u32, u64, u64)> {
    let sector = device.logical_sector_size();
    let whole = device.size();
    let used = match (options.blocks, options.block_size) {
        (Some(blocks), Some(size)) => blocks.saturating_mul(size.into()).min(whole),
        _ => whole,
    };
    let (block_size, bytes_per_inode) = defaults(used);
    let block_size = match options.block_size {
        None => block_size.max(sector),
        Some(size) if !size.is_power_of_two() || !(1024..=65536).contains(&size) => {
            return Err(Error::InvalidInput("the block size must be 1024, 2048, 4096 … or 65536 bytes"));
        }
        Some(size) if size < sector => {
            return Err(Error::Unsupported(format!(
                "blocks of {size} bytes on a device with sectors of {sector}"
            )));
        }
        Some(size) => size,
    };
    let fit = whole / u64::from(block_size);
    // Whole pages of the kernel, so that it can map all of it.
    let pages = fit - fit % (PAGE / u64::from(block_size)).max(1);
    let blocks = options.blocks.unwrap_or(pages);
    if blocks > fit {
        return Err(Error::Unsupported(format!(
            "a file system of {blocks} blocks of {block_size} bytes: the device has room for {fit}"
        )));
    }
    let bytes_per_inode = match options.bytes_per_inode {
        None => bytes_per_inode.max(block_size.into()),
        Some(bytes) if (1024..=64 * MIB).contains(&bytes) => bytes,
        Some(_) => return Err(Error::InvalidInput("bytes for each inode must be from 1024 to 67108864")),
    };
    Ok((block_size, blocks, bytes_per_inode))
}

fn inode_size(block_size: u32, features: &Features, options: &FormatOptions) -> Result<u16> {
    let size = options.inode_size.unwrap_or(256);
    if !size.is_power_of_two() || !(128..=block_size).contains(&size) {
        return Err(Error::InvalidInput(
            "the inode size must be 128, 256, 512 … bytes, and not larger than a block",
        ));
    }
    if size == 128 && features.incompat.contains(Incompat::INLINE_DATA) {
        return Err(Error::Unsupported("inline_data in inodes of 128 bytes; take larger ones".into()));
    }
    // Half of the largest block fits.
    u16::try_from(size).map_err(|_| Error::Unsupported("inodes of 64 KiB".into()))
}

/// How many inodes are asked for.
fn inodes(
    blocks: u64,
    block_size: u32,
    bytes_per_inode: u64,
    features: &Features,
    options: &FormatOptions,
) -> Result<u32> {
    if let Some(inodes) = options.inodes {
        return Ok(inodes);
    }
    let inodes = u128::from(blocks) * u128::from(block_size) / u128::from(bytes_per_inode);
    match u32::try_from(inodes) {
        Ok(inodes) => Ok(inodes),
        Err(_) if features.incompat.contains(Incompat::SIXTY_FOUR_BIT) => Ok(u32::MAX),
        Err(_) => Err(Error::Unsupported(format!(
            "{inodes} inodes; at most {} are possible: take more bytes for each inode",
            u32::MAX
        ))),
    }
}

/// How many blocks the journal gets. A volume that is too small for one goes without.
fn journal_blocks(
    block_size: u32,
    blocks: u64,
    features: &mut Features,
    options: &FormatOptions,
) -> Result<u32> {
    /// What `JBD2` needs at least, and what e2fsprogs makes at most.
    const POSSIBLE: std::ops::RangeInclusive<u64> = 1024..=10_240_000;
    if !features.has_journal() {
        return Ok(0);
    }
    if let Some(bytes) = options.journal_bytes {
        let journal = bytes / u64::from(block_size);
        if !POSSIBLE.contains(&journal) {
            return Err(Error::Unsupported(format!(
                "a journal of {journal} blocks; it must have from {} to {}",
                POSSIBLE.start(),
                POSSIBLE.end()
            )));
        }
        if journal > blocks / 2 {
            return Err(Error::NoSpace("the journal would take more than half of it"));
        }
        return u32::try_from(journal).map_err(|_| Error::InvalidInput("the journal is too large"));
    }
    let journal = match blocks {
        _ if blocks < LEAST_WITH_JOURNAL => 0,
        _ if blocks < 32 << 10 => 1 << 10,
        _ if blocks < 256 << 10 => 4 << 10,
        _ if blocks < 512 << 10 => 8 << 10,
        _ if blocks < 4 << 20 => 16 << 10,
        _ if blocks < 8 << 20 => 32 << 10,
        _ if blocks < 16 << 20 => 64 << 10,
        _ if blocks < 32 << 20 => 128 << 10,
        _ => 256 << 10,
    };
    if journal == 0 {
        features.compat.remove(Compat::HAS_JOURNAL | Compat::ORPHAN_FILE);
    }
    Ok(journal)
}

/// The groups with a backup that `sparse_super2` has: the second and the last.
fn backups(groups: u32) -> [u32; 2] {
    match groups {
        0 | 1 => [0, 0],
        2 => [1, 0],
        more => [1, more - 1],
    }
}

/// What the groups must hold.
struct Request {
    block_size: u32,
    blocks: u64,
    inode_size: u16,
    inodes: u32,
    first_data_block: u32,
}

/// The cut into groups.
struct Shape {
    blocks: u64,
    groups: u32,
    blocks_per_group: u32,
    inodes_per_group: u32,
    reserved_descriptor_blocks: u16,
}

impl Shape {
    /// Cuts a volume into groups. What is left at the end and is too small for a group is not used.
    fn fit(request: Request, features: &mut Features) -> Result<Self> {
        let Request { block_size, inode_size, first_data_block, .. } = request;
        let mut blocks = request.blocks;
        let mut blocks_per_group = (block_size * 8).min(MOST_PER_GROUP);
        let inodes_per_block = block_size / u32::from(inode_size);
        loop {
            let too_small = || {
                Error::Unsupported(format!(
                    "a file system of {} blocks of {block_size} bytes: it is too small for its own structures",
                    request.blocks
                ))
            };
            let data =
                blocks.checked_sub(first_data_block.into()).filter(|d| *d > 0).ok_or_else(too_small)?;
            let groups = u32::try_from(data.div_ceil(blocks_per_group.into()))
                .ok()
                .filter(|groups| groups.checked_mul(8).is_some())
                .ok_or_else(|| Error::Unsupported(format!("a file system of {blocks} blocks")))?;

            let inodes = request.inodes.max(FIRST_INODE + 1);
            let wanted = inodes.div_ceil(groups);
            if wanted > block_size * 8 {
                // Smaller groups are more groups.
                if blocks_per_group < 256 {
                    return Err(Error::Unsupported(format!("{inodes} inodes on {blocks} blocks")));
                }
                blocks_per_group -= 8;
                blocks = request.blocks;
                continue;
            }
            let most = u32::MAX / groups;
            let wanted = wanted.min((1 << 16) - inodes_per_block).min(most);
            // Whole blocks of inodes, and whole bytes of the bitmap.
            let mut inodes_per_group = (wanted.div_ceil(inodes_per_block) * inodes_per_block).max(8) & !7;
            if inodes_per_group.saturating_mul(groups) <= FIRST_INODE {
                inodes_per_group += 8;
            }
            if inodes_per_group > most {
                inodes_per_group = most & !7;
            }
            let table_blocks = u64::from(inodes_per_group.div_ceil(inodes_per_block));

            let descriptor_size = if features.incompat.contains(Incompat::SIXTY_FOUR_BIT) { 64 } else { 32 };
            let per_block = block_size / descriptor_size;
            let descriptor_blocks = groups.div_ceil(per_block);
            let mut reserved = if features.compat.contains(Compat::RESIZE_INODE) {
                room_to_grow(blocks, first_data_block, blocks_per_group, per_block, block_size)
                    .saturating_sub(descriptor_blocks)
                    .min(block_size / 4)
            } else {
                0
            };
            if descriptor_blocks + reserved > blocks_per_group / 4 * 3 {
                // The table would take most of a group, so it is spread over all of them.
                features.incompat.insert(Incompat::META_BG);
                features.compat.remove(Compat::RESIZE_INODE);
                reserved = 0;
            }

            let mut overhead = 2 + table_blocks;
            if has_backup(groups - 1, groups, features) {
                overhead += 1 + u64::from(reserved);
                overhead +=
                    if features.incompat.contains(Incompat::META_BG) { 1 } else { descriptor_blocks.into() };
            }
            if overhead > blocks_per_group.into() {
                return Err(Error::Unsupported(format!(
                    "{inodes_per_group} inodes in each group of {blocks_per_group} blocks; ask for fewer"
                )));
            }
            let rest = data % u64::from(blocks_per_group);
            if rest != 0 && groups == 1 && rest < overhead {
                return Err(too_small());
            }
            if rest != 0 && groups > 1 && rest < overhead + WORTH_A_GROUP {
                blocks -= rest;
                continue;
            }
            return Ok(Self {
                blocks,
                groups,
                blocks_per_group,
                inodes_per_group,
                // A quarter of 64 KiB at most
                reserved_descriptor_blocks: u16::try_from(reserved).unwrap_or(u16::MAX),
            });
        }
    }
}

/// Blocks of descriptors that 1024 times as many blocks would need, or as many as 32 bits can count.
fn room_to_grow(blocks: u64, first: u32, blocks_per_group: u32, per_block: u32, block_size: u32) -> u32 {
    let most = blocks.saturating_mul(1024).min(u32::MAX.into());
    let groups = (most - u64::from(first)).div_ceil(blocks_per_group.into());
    u32::try_from(groups.div_ceil(per_block.into())).unwrap_or(block_size)
}

/// Whether a group will hold a backup of the superblock.
fn has_backup(group: u32, groups: u32, features: &Features) -> bool {
    if group == 0 {
        return true;
    }
    if features.compat.contains(Compat::SPARSE_SUPER2) {
        return backups(groups).contains(&group);
    }
    !features.ro_compat.contains(RoCompat::SPARSE_SUPER) || crate::superblock::is_sparse_backup(group)
}
