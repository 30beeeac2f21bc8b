//! The feature flags of the superblock, and which of them reading can do without.

use bitflags::bitflags;
use vmcraft_fs::{Error, Result};

bitflags! {
    /// `s_feature_compat`: a reader and a writer that do not know one may go on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Compat: u32 {
        /// Of no effect; directories are preallocated.
        const DIR_PREALLOC = 0x1;
        /// Of no effect.
        const IMAGIC_INODES = 0x2;
        /// There is a journal.
        const HAS_JOURNAL = 0x4;
        /// Inodes may have extended attributes.
        const EXT_ATTR = 0x8;
        /// An inode keeps blocks that the descriptor table can grow into.
        const RESIZE_INODE = 0x10;
        /// Directories may have an htree.
        const DIR_INDEX = 0x20;
        /// Only two groups, which the superblock names, hold a backup.
        const SPARSE_SUPER2 = 0x200;
        /// There may be fast commits.
        const FAST_COMMIT = 0x400;
        /// UUID and inode numbers stay, as something encrypted depends on them.
        const STABLE_INODES = 0x800;
        /// Orphans are in a file, not only in a list.
        const ORPHAN_FILE = 0x1000;
        const _ = !0;
    }
}

bitflags! {
    /// `s_feature_incompat`: who does not know one cannot even read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Incompat: u32 {
        /// Compressed files; never in a released kernel.
        const COMPRESSION = 0x1;
        /// Directory entries hold the type of the file.
        const FILETYPE = 0x2;
        /// The journal must be replayed first.
        const RECOVER = 0x4;
        /// Not a file system but the journal of another.
        const JOURNAL_DEV = 0x8;
        /// Group descriptors stand in the groups they describe.
        const META_BG = 0x10;
        /// Files may be mapped by extents.
        const EXTENTS = 0x40;
        /// Block numbers of 64 bits, and larger group descriptors.
        const SIXTY_FOUR_BIT = 0x80;
        /// Multiple mount protection.
        const MMP = 0x100;
        /// Bitmaps and inode tables may stand outside their group.
        const FLEX_BG = 0x200;
        /// Values of extended attributes may be in inodes of their own.
        const EA_INODE = 0x400;
        /// Data in directory entries; Lustre's, never in a released kernel.
        const DIRDATA = 0x1000;
        /// The seed of the checksums is stored, not made of the UUID.
        const CSUM_SEED = 0x2000;
        /// Directories over 2 GiB and htrees of three levels.
        const LARGEDIR = 0x4000;
        /// Small files and directories are in their inode.
        const INLINE_DATA = 0x8000;
        /// There may be encrypted files.
        const ENCRYPT = 0x1_0000;
        /// There may be directories that ignore letter case.
        const CASEFOLD = 0x2_0000;
        const _ = !0;
    }
}

bitflags! {
    /// `s_feature_ro_compat`: who does not know one may read, but not write.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RoCompat: u32 {
        /// Only groups 0, 1 and powers of 3, 5 and 7 hold a backup.
        const SPARSE_SUPER = 0x1;
        /// Files over 2 GiB.
        const LARGE_FILE = 0x2;
        /// Of no effect; ext2 and ext3 know it.
        const BTREE_DIR = 0x4;
        /// `i_blocks` has 48 bits, and may count file system blocks.
        const HUGE_FILE = 0x8;
        /// Group descriptors have a CRC-16.
        const GDT_CSUM = 0x10;
        /// A directory may have any number of subdirectories.
        const DIR_NLINK = 0x20;
        /// Inodes have a minimum of fields behind their first 128 bytes.
        const EXTRA_ISIZE = 0x40;
        /// Snapshots; never in a released kernel.
        const HAS_SNAPSHOT = 0x80;
        /// Quotas are kept in inodes of the file system's own.
        const QUOTA = 0x100;
        /// Allocation in clusters of several blocks.
        const BIGALLOC = 0x200;
        /// All metadata has a CRC-32C.
        const METADATA_CSUM = 0x400;
        /// Data blocks that several files share; Android's.
        const SHARED_BLOCKS = 0x4000;
        /// No writer ever.
        const READONLY = 0x1000;
        /// Quotas of projects.
        const PROJECT = 0x2000;
        /// There may be files that fs-verity protects.
        const VERITY = 0x8000;
        /// The orphan file has entries.
        const ORPHAN_PRESENT = 0x1_0000;
        const _ = !0;
    }
}

/// A feature, by the word of the superblock that holds its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    Compat(Compat),
    Incompat(Incompat),
    RoCompat(RoCompat),
}

/// The names that mke2fs and dumpe2fs give the features, in the order of their flags.
pub(crate) const NAMES: &[(&str, Feature)] = &[
    ("dir_prealloc", Feature::Compat(Compat::DIR_PREALLOC)),
    ("imagic_inodes", Feature::Compat(Compat::IMAGIC_INODES)),
    ("has_journal", Feature::Compat(Compat::HAS_JOURNAL)),
    ("ext_attr", Feature::Compat(Compat::EXT_ATTR)),
    ("resize_inode", Feature::Compat(Compat::RESIZE_INODE)),
    ("dir_index", Feature::Compat(Compat::DIR_INDEX)),
    ("sparse_super2", Feature::Compat(Compat::SPARSE_SUPER2)),
    ("fast_commit", Feature::Compat(Compat::FAST_COMMIT)),
    ("stable_inodes", Feature::Compat(Compat::STABLE_INODES)),
    ("orphan_file", Feature::Compat(Compat::ORPHAN_FILE)),
    ("compression", Feature::Incompat(Incompat::COMPRESSION)),
    ("filetype", Feature::Incompat(Incompat::FILETYPE)),
    ("needs_recovery", Feature::Incompat(Incompat::RECOVER)),
    ("journal_dev", Feature::Incompat(Incompat::JOURNAL_DEV)),
    ("meta_bg", Feature::Incompat(Incompat::META_BG)),
    ("extent", Feature::Incompat(Incompat::EXTENTS)),
    ("64bit", Feature::Incompat(Incompat::SIXTY_FOUR_BIT)),
    ("mmp", Feature::Incompat(Incompat::MMP)),
    ("flex_bg", Feature::Incompat(Incompat::FLEX_BG)),
    ("ea_inode", Feature::Incompat(Incompat::EA_INODE)),
    ("dirdata", Feature::Incompat(Incompat::DIRDATA)),
    ("metadata_csum_seed", Feature::Incompat(Incompat::CSUM_SEED)),
    ("large_dir", Feature::Incompat(Incompat::LARGEDIR)),
    ("inline_data", Feature::Incompat(Incompat::INLINE_DATA)),
    ("encrypt", Feature::Incompat(Incompat::ENCRYPT)),
    ("casefold", Feature::Incompat(Incompat::CASEFOLD)),
    ("sparse_super", Feature::RoCompat(RoCompat::SPARSE_SUPER)),
    ("large_file", Feature::RoCompat(RoCompat::LARGE_FILE)),
    ("huge_file", Feature::RoCompat(RoCompat::HUGE_FILE)),
    ("uninit_bg", Feature::RoCompat(RoCompat::GDT_CSUM)),
    ("dir_nlink", Feature::RoCompat(RoCompat::DIR_NLINK)),
    ("extra_isize", Feature::RoCompat(RoCompat::EXTRA_ISIZE)),
    ("quota", Feature::RoCompat(RoCompat::QUOTA)),
    ("bigalloc", Feature::RoCompat(RoCompat::BIGALLOC)),
    ("metadata_csum", Feature::RoCompat(RoCompat::METADATA_CSUM)),
    ("read-only", Feature::RoCompat(RoCompat::READONLY)),
    ("project", Feature::RoCompat(RoCompat::PROJECT)),
    ("shared_blocks", Feature::RoCompat(RoCompat::SHARED_BLOCKS)),
    ("verity", Feature::RoCompat(RoCompat::VERITY)),
    ("orphan_present", Feature::RoCompat(RoCompat::ORPHAN_PRESENT)),
];

/// What reading understands of `s_feature_incompat`.
const READABLE: Incompat = Incompat::FILETYPE
    .union(Incompat::RECOVER)
    .union(Incompat::META_BG)
    .union(Incompat::EXTENTS)
    .union(Incompat::SIXTY_FOUR_BIT)
    .union(Incompat::MMP)
    .union(Incompat::FLEX_BG)
    .union(Incompat::EA_INODE)
    .union(Incompat::CSUM_SEED)
    .union(Incompat::LARGEDIR)
    .union(Incompat::INLINE_DATA)
    .union(Incompat::ENCRYPT)
    .union(Incompat::CASEFOLD);

/// Refuses a volume that needs an incompatible feature we do not have, naming all of those.
pub(crate) fn check_readable(features: Incompat) -> Result<()> {
    let lacking = features.difference(READABLE);
    if lacking.is_empty() {
        return Ok(());
    }
    if lacking.contains(Incompat::JOURNAL_DEV) {
        return Err(Error::Unsupported(
            "journal_dev: this is the external journal of another ext file system, not a file system".into(),
        ));
    }
    let names: Vec<String> = lacking
        .iter()
        .flat_map(|f| (0..32).map(move |bit| f.bits() & 1 << bit).filter(|&b| b != 0))
        .map(|bit| match Incompat::from_bits_retain(bit) {
            Incompat::COMPRESSION => "compression".to_owned(),
            Incompat::DIRDATA => "dirdata".to_owned(),
            _ => format!("unknown feature {bit:#x}"),
        })
        .collect();
    Err(Error::Unsupported(format!("incompatible ext4 features: {}", names.join(", "))))
}

/// The name that `blkid` gives a volume with these features.
pub(crate) fn kind(compat: Compat, incompat: Incompat, ro_compat: RoCompat) -> &'static str {
    let ext3_ro = RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE | RoCompat::BTREE_DIR;
    let ext2 = Incompat::FILETYPE | Incompat::META_BG;
    if !ext3_ro.contains(ro_compat) || !(ext2 | Incompat::RECOVER).contains(incompat) {
        "ext4"
    } else if compat.contains(Compat::HAS_JOURNAL) {
        "ext3"
    } else if ext2.contains(incompat) {
        "ext2"
    } else {
        "ext4"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lacking_feature_is_named() {
        let features = Incompat::EXTENTS | Incompat::COMPRESSION | Incompat::from_bits_retain(0x8004_0000);
        let message = check_readable(features).unwrap_err().to_string();
        assert_eq!(
            message,
            "not supported: incompatible ext4 features: compression, unknown feature 0x40000, unknown feature 0x80000000"
        );
        let message = check_readable(Incompat::JOURNAL_DEV).unwrap_err().to_string();
        assert!(message.contains("journal_dev"), "{message}");
        check_readable(READABLE).unwrap();
    }

    #[test]
    fn kinds_as_blkid_tells_them_apart() {
        let (none, journal) = (Compat::empty(), Compat::HAS_JOURNAL);
        let sparse = RoCompat::SPARSE_SUPER;
        assert_eq!(kind(none, Incompat::FILETYPE, sparse), "ext2");
        assert_eq!(kind(journal, Incompat::FILETYPE | Incompat::RECOVER, sparse), "ext3");
        assert_eq!(kind(journal, Incompat::EXTENTS, sparse), "ext4");
        assert_eq!(kind(none, Incompat::FILETYPE, sparse | RoCompat::METADATA_CSUM), "ext4");
    }
}
