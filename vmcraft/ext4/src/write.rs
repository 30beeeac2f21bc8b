//! The writing side: ties what changes the structures to the [`WriteFiles`] trait.

use bstr::BStr;
use vmcraft_fs::{
    DeviceNumber, Error, FileType, FreeSpace, InodeNumber, NewInode, Result, SetMetadata, Tuning, WriteFiles,
    XattrMode,
};

use crate::filesystem::Ext4;
use crate::inode::InodeFlags;
use crate::inode::checksum_seed;
use crate::volume::Volume;
use crate::{content, extent, namespace, trim, tune, xattr_edit};

impl WriteFiles for Ext4 {
    fn create(&self, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber> {
        self.change(|volume| namespace::create(volume, dir, name, new))
    }

    fn mkdir(&self, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber> {
        self.change(|volume| namespace::mkdir(volume, dir, name, new))
    }

    fn symlink(&self, dir: InodeNumber, name: &BStr, target: &BStr, new: NewInode) -> Result<InodeNumber> {
        self.change(|volume| namespace::symlink(volume, dir, name, target, new))
    }

    fn mknod(
        &self,
        dir: InodeNumber,
        name: &BStr,
        file_type: FileType,
        device: DeviceNumber,
        new: NewInode,
    ) -> Result<InodeNumber> {
        self.change(|volume| namespace::mknod(volume, dir, name, file_type, device, new))
    }

    fn link(&self, inode: InodeNumber, dir: InodeNumber, name: &BStr) -> Result<()> {
        self.change(|volume| namespace::link(volume, inode, dir, name))
    }

    fn unlink(&self, dir: InodeNumber, name: &BStr) -> Result<()> {
        self.change(|volume| namespace::unlink(volume, dir, name))
    }

    fn rmdir(&self, dir: InodeNumber, name: &BStr) -> Result<()> {
        self.change(|volume| namespace::rmdir(volume, dir, name))
    }

    fn rename(
        &self,
        from_dir: InodeNumber,
        from_name: &BStr,
        to_dir: InodeNumber,
        to_name: &BStr,
    ) -> Result<()> {
        self.change(|volume| namespace::rename(volume, from_dir, from_name, to_dir, to_name))
    }

    fn write(&self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()> {
        self.change(|volume| {
            let inode = content::regular(volume, inode)?;
            if offset != inode.size {
                inode.check_mutable()?;
            }
            if data.is_empty() {
                return Ok(());
            }
            content::change(volume, inode, |inode| content::write(volume, inode, offset, data))
        })
    }

    fn truncate(&self, inode: InodeNumber, size: u64) -> Result<()> {
        self.change(|volume| {
            let inode = content::regular(volume, inode)?;
            inode.check_mutable()?;
            content::change(volume, inode, |inode| content::truncate(volume, inode, size))
        })
    }

    fn allocate(&self, inode: InodeNumber, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.change(|volume| {
            let inode = content::regular(volume, inode)?;
            content::change(volume, inode, |inode| content::allocate(volume, inode, offset, len, keep_size))
        })
    }

    fn punch_hole(&self, inode: InodeNumber, offset: u64, len: u64) -> Result<()> {
        self.change(|volume| {
            let inode = content::regular(volume, inode)?;
            inode.check_mutable()?;
            content::change(volume, inode, |inode| content::punch_hole(volume, inode, offset, len))
        })
    }

    fn set_metadata(&self, inode: InodeNumber, set: &SetMetadata) -> Result<()> {
        self.change(|volume| set_metadata(volume, inode, set))
    }

    fn set_xattr(&self, inode: InodeNumber, name: &BStr, value: &[u8], mode: XattrMode) -> Result<()> {
        self.change(|volume| {
            let mut inode = volume.inode(inode)?;
            inode.check_mutable()?;
            xattr_edit::set(volume, &mut inode, name, value, mode)?;
            inode.changed = volume.now();
            volume.store_inode(&inode)
        })
    }

    fn remove_xattr(&self, inode: InodeNumber, name: &BStr) -> Result<()> {
        self.change(|volume| {
            let mut inode = volume.inode(inode)?;
            inode.check_mutable()?;
            xattr_edit::remove(volume, &mut inode, name)?;
            inode.changed = volume.now();
            volume.store_inode(&inode)
        })
    }

    fn set_flags(&self, inode: InodeNumber, flags: u32) -> Result<()> {
        self.change(|volume| {
            let mut inode = volume.inode(inode)?;
            inode.flags = inode.with_flags(flags)?;
            inode.changed = volume.now();
            volume.store_inode(&inode)
        })
    }

    fn set_generation(&self, inode: InodeNumber, generation: u32) -> Result<()> {
        self.change(|volume| set_generation(volume, inode, generation))
    }

    fn set_label(&self, label: &BStr) -> Result<()> {
        self.change(|volume| tune::set_label(volume, label))
    }

    fn set_uuid(&self, uuid: [u8; 16]) -> Result<()> {
        self.change_all(|device, volume| tune::set_uuid(device, volume, uuid))
    }

    fn tune(&self, tuning: &Tuning) -> Result<()> {
        self.change_all(|device, _| tune::tune(device, tuning))
    }

    fn free_space(&self, what: FreeSpace, offset: u64, len: u64, minimum: u64) -> Result<u64> {
        self.change(|volume| trim::free_space(volume, what, offset, len, minimum))
    }

    fn sync(&self) -> Result<()> {
        self.write_back()
    }

    fn reload(&self) -> Result<()> {
        self.open_again()
    }
}

fn set_metadata(volume: &Volume, inode: InodeNumber, set: &SetMetadata) -> Result<()> {
    let mut inode = volume.inode(inode)?;
    inode.check_mutable()?;
    if let Some(permissions) = set.permissions {
        // 12 bits, below the type.
        inode.mode = inode.mode & 0o170_000 | (permissions & 0o7777) as u16;
        xattr_edit::fit_acl(volume, &mut inode)?;
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    inode.accessed = set.accessed.unwrap_or(inode.accessed);
    inode.modified = set.modified.unwrap_or(inode.modified);
    inode.changed = volume.now();
    volume.store_inode(&inode)
}

/// The checksums of an inode's blocks depend on its generation: with `metadata_csum` the kernel refuses
/// to change it, and so do we where there are such blocks.
fn set_generation(volume: &Volume, inode: InodeNumber, generation: u32) -> Result<()> {
    let mut inode = volume.inode(inode)?;
    inode.check_mutable()?;
    let in_inode = inode.flags.contains(InodeFlags::INLINE_DATA);
    let has_blocks = !in_inode && (inode.is_dir() || extent::has_nodes(&inode));
    if volume.sb.metadata_csum() && has_blocks && inode.generation != generation {
        return Err(Error::Unsupported(format!(
            "setting the generation of inode {} with metadata_csum: the checksums of its directory or extent blocks \
             depend on it",
            inode.number
        )));
    }
    inode.generation = generation;
    inode.checksum_seed = checksum_seed(&volume.sb, inode.number, generation);
    inode.changed = volume.now();
    volume.store_inode(&inode)
}
