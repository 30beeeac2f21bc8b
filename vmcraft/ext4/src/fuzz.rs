//! Each decoder as a plain function of bytes, for fuzzers and property tests. None may panic, whatever
//! the bytes are.

use std::ops::ControlFlow;
use std::sync::Arc;

use vmcraft_block::MemoryDevice;
use vmcraft_fs::{FileSystem, OpenOptions};
use zerocopy::{FromBytes, FromZeros};

use crate::dir::List;
use crate::group::Group;
use crate::inode::Inode;
use crate::superblock::{MAGIC, RawSuperblock, Superblock};
use crate::{acl, extent, features, htree, journal, xattr};

/// The superblock, if it is good, of a device without end.
pub fn superblock(bytes: &[u8]) {
    if let Ok((raw, _)) = RawSuperblock::ref_from_prefix(bytes) {
        let _ = Superblock::decode(raw, u64::MAX);
    }
}

/// A superblock like those of real volumes; what it says is in the bytes' choice of features.
fn some_superblock(checksums: bool) -> Superblock {
    let mut raw = RawSuperblock::new_zeroed();
    raw.magic = MAGIC.into();
    raw.log_block_size = 2.into();
    raw.blocks_count_lo = 0x10_0000.into();
    raw.blocks_per_group = 0x8000.into();
    raw.inodes_per_group = 0x2000.into();
    raw.inodes_count = 0x4_0000.into();
    raw.rev_level = 1.into();
    raw.first_ino = 11.into();
    raw.inode_size = 256.into();
    raw.desc_size = 64.into();
    let incompat = features::Incompat::SIXTY_FOUR_BIT | features::Incompat::FILETYPE;
    raw.feature_incompat = incompat.bits().into();
    let mut sb = match Superblock::decode(&raw, u64::MAX) {
        Ok(sb) => sb,
        // The fields above are those of a volume that mke2fs makes.
        Err(e) => unreachable!("{e}"),
    };
    if checksums {
        sb.ro_compat |= features::RoCompat::METADATA_CSUM;
    }
    sb
}

/// A group descriptor, with and without its checksum.
pub fn group_descriptor(bytes: &[u8]) {
    let Some(bytes) = bytes.get(..64) else { return };
    for checksums in [false, true] {
        let _ = Group::decode(bytes, &some_superblock(checksums), 1, 0);
    }
}

/// An inode, with and without its checksum.
pub fn inode(bytes: &[u8]) {
    let Some(bytes) = bytes.get(..256) else { return };
    for checksums in [false, true] {
        if let Ok(inode) = Inode::decode(bytes, &some_superblock(checksums), 12, 0) {
            let _ = inode.metadata(&some_superblock(checksums));
        }
    }
}

/// A node of an extent tree.
pub fn extent_node(bytes: &[u8]) {
    extent::probe_node(bytes, &some_superblock(false));
}

/// A block of a directory.
pub fn directory(bytes: &[u8]) {
    let list = List { bytes, inode: 12, offset: 0 };
    for entry in list.entries(&some_superblock(false)).take_while(Result::is_ok) {
        let _ = entry;
    }
}

/// The root of an htree.
pub fn htree_root(bytes: &[u8]) {
    htree::probe_root(bytes, &some_superblock(false));
}

/// A block of extended attributes.
pub fn xattr_block(bytes: &[u8]) {
    xattr::probe_block(bytes);
}

/// A POSIX ACL as it is stored.
pub fn posix_acl(bytes: &[u8]) {
    let _ = acl::to_kernel(bytes);
}

/// A journal's superblock, followed by a block that is taken for each kind that a log has.
pub fn journal(bytes: &[u8]) {
    let Ok((raw, block)) = journal::RawSuperblock::ref_from_prefix(bytes) else { return };
    if let Ok(sb) = journal::JournalSuperblock::decode(raw, 4096, u64::MAX, 0) {
        let _ = (sb.verify_tail(block), sb.verify_commit(block));
        let _ = (journal::tags(&sb, block), journal::revoked(&sb, block), journal::fast_commit(block));
    }
}

/// A whole volume, of which every name is asked for everything.
pub fn volume(bytes: &[u8]) {
    let device = Arc::new(MemoryDevice::read_only(bytes.to_vec()));
    let Ok(fs) = crate::filesystem::open(device, OpenOptions::default()) else { return };
    walk(&*fs);
}

/// Looks at everything in a tree, as far as there is an end to it.
pub fn walk(fs: &dyn FileSystem) {
    let mut todo = vec![fs.root()];
    // A directory that holds itself has no end.
    for _ in 0..1000 {
        let Some(inode) = todo.pop() else { return };
        let mut buf = [0; 4096];
        let _ = (fs.metadata(inode), fs.xattrs(inode), fs.read_link(inode), fs.parent(inode));
        let _ = (fs.read(inode, 0, &mut buf), fs.next_data(inode, 0), fs.lookup(inode, "name".into()));
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            todo.push(entry.inode);
            if todo.len() > 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
}
