//! The driver: ties the structures to the [`FileSystem`] trait.

use std::io;
use std::sync::Arc;

use bstr::{BStr, BString};
use vmcraft_block::BlockDevice;
use vmcraft_fs::{
    Error, FileSystem, FileType, InodeNumber, Metadata, OpenOptions, Result, StatFs, Visit, WriteFiles,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::cache::Cache;
use crate::features::Incompat;
use crate::inode::ROOT;
use crate::map::{self, OpenInode};
use crate::superblock::{JournalPlace, MAGIC, RawSuperblock, START, Superblock};
use crate::volume::Volume;
use crate::{dir, replay, statfs, symlink, xattr};

/// How many inodes that were read from a generation of the cache holds.
const CACHED_INODES: usize = 1024;

/// Whether there is an ext superblock.
pub(crate) fn probe(device: &dyn BlockDevice) -> io::Result<bool> {
    const FIELD: u64 = START + std::mem::offset_of!(RawSuperblock, magic) as u64;
    if device.size() < START + size_of::<RawSuperblock>() as u64 {
        return Ok(false);
    }
    let mut magic = [0; 2];
    device.read_at(FIELD, &mut magic)?;
    Ok(u16::from_le_bytes(magic) == MAGIC)
}

/// Opens a volume. If it was not unmounted, its journal is replayed, unless that is to be ignored.
pub(crate) fn open(mut device: Arc<dyn BlockDevice>, options: OpenOptions) -> Result<Box<dyn FileSystem>> {
    let mut sb = read_superblock(&device)?;
    if sb.incompat.contains(Incompat::RECOVER) && !options.ignore_journal {
        match sb.journal {
            JournalPlace::Inode(number) => {
                if let Some(replayed) = replay::replay(&device, &sb, number)? {
                    device = Arc::new(replayed);
                    sb = read_superblock(&device)?;
                }
            }
            JournalPlace::External(uuid) => {
                return Err(Error::Unsupported(format!(
                    "external journal: changes wait in the journal with UUID {}, on a device of its own; the mount \
                     option noload goes without them",
                    uuid::Uuid::from_bytes(uuid)
                )));
            }
            // Nothing can be replayed, whatever the flag says.
            JournalPlace::None => (),
        }
    }
    Ok(Box::new(Ext4 { volume: Volume::new(device, sb), inodes: Cache::new(CACHED_INODES) }))
}

fn read_superblock(device: &dyn BlockDevice) -> Result<Superblock> {
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(START, raw.as_mut_bytes())?;
    Superblock::decode(&raw, device.size())
}

/// An open ext2, ext3 or ext4 volume.
struct Ext4 {
    volume: Volume,
    /// Inodes whose content was read, with what is known of where it is.
    inodes: Cache<Arc<OpenInode>>,
}

impl Ext4 {
    /// An inode whose content is wanted.
    fn open_inode(&self, number: InodeNumber) -> Result<Arc<OpenInode>> {
        if let Some(inode) = self.inodes.get(number.0) {
            return Ok(inode);
        }
        let inode = OpenInode::new(self.volume.inode(number)?);
        Ok(self.inodes.insert(number.0, Arc::new(inode)))
    }

    fn open_file(&self, number: InodeNumber) -> Result<Arc<OpenInode>> {
        let inode = self.open_inode(number)?;
        match inode.file_type {
            FileType::Regular => map::check_readable(&inode)?,
            FileType::Directory => return Err(Error::IsADirectory),
            _ => return Err(Error::InvalidInput("not a regular file")),
        }
        Ok(inode)
    }
}

impl FileSystem for Ext4 {
    fn kind(&self) -> &'static str {
        self.volume.sb.kind()
    }

    fn label(&self) -> BString {
        self.volume.sb.label.clone()
    }

    fn uuid(&self) -> String {
        let uuid = uuid::Uuid::from_bytes(self.volume.sb.uuid);
        if uuid.is_nil() { String::new() } else { uuid.to_string() }
    }

    fn root(&self) -> InodeNumber {
        InodeNumber(ROOT.into())
    }

    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        dir::lookup(&self.volume, &*self.open_inode(dir)?, name)
    }

    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        Ok(self.volume.inode(inode)?.metadata(&self.volume.sb))
    }

    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        map::read(&self.volume, &*self.open_file(inode)?, offset, buf)
    }

    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        map::next_data(&self.volume, &*self.open_file(inode)?, offset)
    }

    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        dir::read_dir(&self.volume, &*self.open_inode(dir)?, cursor, visit)
    }

    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        if dir == self.root() {
            return Ok(dir);
        }
        dir::parent(&self.volume, &*self.open_inode(dir)?)
    }

    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        symlink::read(&self.volume, &*self.open_inode(inode)?)
    }

    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        xattr::list(&self.volume, &self.volume.inode(inode)?)
    }

    fn flags(&self, inode: InodeNumber) -> Result<u32> {
        Ok(self.volume.inode(inode)?.flags.bits())
    }

    fn generation(&self, inode: InodeNumber) -> Result<u32> {
        Ok(self.volume.inode(inode)?.generation)
    }

    fn writer(&self) -> Result<&dyn WriteFiles> {
        Err(Error::ReadOnly("ext4 is read only"))
    }

    fn statfs(&self) -> Result<StatFs> {
        statfs::statfs(&self.volume)
    }
}
