//! Which features a new volume gets.

use vmcraft_fs::{Error, Result};

use crate::features::{Compat, Feature, Incompat, NAMES, RoCompat};

/// The three sets of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) compat: Compat,
    pub(super) incompat: Incompat,
    pub(super) ro_compat: RoCompat,
}

/// What we cannot make: each name with the reason.
const NOT_MADE: &[(&str, &str)] = &[
    ("compression", "it was never in a released kernel"),
    ("needs_recovery", "a new file system needs none"),
    ("journal_dev", "journals on devices of their own are not made"),
    ("mmp", "multiple mount protection is not set up"),
    ("dirdata", "it was never in a released kernel"),
    ("fast_commit", "journals with fast commits are not made"),
    ("quota", "quota files are not made"),
    ("project", "quota files are not made"),
    ("bigalloc", "allocation in clusters is not written"),
    ("read-only", "nothing could be put on it"),
    ("shared_blocks", "nothing could be put on it"),
    ("orphan_present", "a new file system has no orphans"),
];

impl Features {
    /// What `kind` has by default, as e2fsprogs 1.47 configures it, and changed by `edits`.
    pub(super) fn choose(kind: &str, edits: &[String]) -> Result<Self> {
        let mut features = Self {
            compat: Compat::EXT_ATTR | Compat::RESIZE_INODE | Compat::DIR_INDEX,
            incompat: Incompat::FILETYPE,
            ro_compat: RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE,
        };
        match kind {
            "ext2" => (),
            "ext3" => features.compat |= Compat::HAS_JOURNAL,
            "ext4" => {
                features.compat |= Compat::HAS_JOURNAL;
                features.incompat |= Incompat::EXTENTS | Incompat::FLEX_BG | Incompat::SIXTY_FOUR_BIT;
                features.ro_compat |= RoCompat::HUGE_FILE
                    | RoCompat::METADATA_CSUM
                    | RoCompat::DIR_NLINK
                    | RoCompat::EXTRA_ISIZE;
            }
            other => return Err(Error::Unsupported(format!("a file system of type {other}"))),
        }
        for edit in edits.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|e| !e.is_empty()) {
            features.edit(edit)?;
        }
        features.settle()
    }

    pub(super) fn has_journal(&self) -> bool {
        self.compat.contains(Compat::HAS_JOURNAL)
    }

    /// A feature's name, with `^` in front if it is to go; `none` takes all away.
    fn edit(&mut self, edit: &str) -> Result<()> {
        if edit == "none" {
            self.compat = Compat::empty();
            self.incompat = Incompat::empty();
            self.ro_compat = RoCompat::empty();
            return Ok(());
        }
        let (name, on) = edit.strip_prefix('^').map_or((edit, true), |name| (name, false));
        let name = match name {
            "extents" => "extent",
            "gdt_checksum" | "gdt_csum" => "uninit_bg",
            other => other,
        };
        let Some((_, feature)) = NAMES.iter().find(|(known, _)| *known == name) else {
            return Err(Error::Unsupported(format!("an ext4 feature named {name}")));
        };
        if on && let Some((_, why)) = NOT_MADE.iter().find(|(refused, _)| *refused == name) {
            return Err(Error::Unsupported(format!("making a file system with the feature {name}: {why}")));
        }
        match feature {
            Feature::Compat(flag) => self.compat.set(*flag, on),
            Feature::Incompat(flag) => self.incompat.set(*flag, on),
            Feature::RoCompat(flag) => self.ro_compat.set(*flag, on),
        }
        Ok(())
    }

    /// Drops what another feature replaces, and refuses what contradicts another.
    fn settle(mut self) -> Result<Self> {
        if self.ro_compat.contains(RoCompat::METADATA_CSUM) {
            self.ro_compat.remove(RoCompat::GDT_CSUM);
        }
        let refuse = |what: &str| Err(Error::Unsupported(format!("these features together: {what}")));
        if self.incompat.contains(Incompat::CSUM_SEED) && !self.ro_compat.contains(RoCompat::METADATA_CSUM) {
            return refuse("metadata_csum_seed needs metadata_csum");
        }
        if self.incompat.contains(Incompat::SIXTY_FOUR_BIT) && !self.incompat.contains(Incompat::EXTENTS) {
            return refuse("64bit needs extent; leave both out (^64bit)");
        }
        if self.compat.contains(Compat::RESIZE_INODE) {
            if self.incompat.contains(Incompat::META_BG) {
                return refuse("resize_inode and meta_bg exclude each other; leave one out (^resize_inode)");
            }
            if !self.ro_compat.contains(RoCompat::SPARSE_SUPER)
                && !self.compat.contains(Compat::SPARSE_SUPER2)
            {
                return refuse("resize_inode needs sparse_super; leave both out (^resize_inode)");
            }
            // The inode's size is beyond 2 GiB.
            self.ro_compat.insert(RoCompat::LARGE_FILE);
        }
        if self.compat.contains(Compat::ORPHAN_FILE) && !self.has_journal() {
            return refuse("orphan_file needs has_journal");
        }
        if self.incompat.contains(Incompat::INLINE_DATA) && !self.compat.contains(Compat::EXT_ATTR) {
            return refuse("inline_data needs ext_attr");
        }
        if self.ro_compat.contains(RoCompat::VERITY) && !self.incompat.contains(Incompat::EXTENTS) {
            return refuse("verity needs extent");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(kind: &str, edits: &str) -> Result<Features> {
        Features::choose(kind, &[edits.to_owned()])
    }

    #[test]
    fn features_are_added_and_taken_away() {
        let features = choose("ext4", "^has_journal, ^64bit,inline_data").unwrap();
        assert!(!features.has_journal());
        assert!(!features.incompat.contains(Incompat::SIXTY_FOUR_BIT));
        assert!(features.incompat.contains(Incompat::INLINE_DATA | Incompat::EXTENTS));
        let features = choose("ext4", "none,filetype,sparse_super").unwrap();
        assert_eq!(features.incompat, Incompat::FILETYPE);
        assert!(features.compat.is_empty());
    }

    #[test] // Each refusal has the name of the feature in it.
    fn what_cannot_be_is_named() {
        for (edits, expected) in [
            ("warp_drive", "warp_drive"),
            ("bigalloc", "bigalloc"),
            ("quota", "quota files"),
            ("meta_bg", "exclude each other"),
            ("^extent", "64bit needs extent"),
            ("^sparse_super", "resize_inode needs sparse_super"),
            ("^metadata_csum,metadata_csum_seed", "metadata_csum_seed needs"),
            ("^has_journal,orphan_file", "orphan_file needs"),
        ] {
            let message = choose("ext4", edits).unwrap_err().to_string();
            assert!(message.contains(expected), "{edits}: {message}");
        }
        assert!(choose("xfs", "").unwrap_err().to_string().contains("xfs"));
    }
}
