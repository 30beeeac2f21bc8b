//! The driver: ties the structures to the [`FileSystem`] trait.

use std::io;
use std::ops::Deref;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bstr::{BStr, BString};
use vmcraft_block::BlockDevice;
use vmcraft_fs::{
    Error, FileSystem, FileType, InodeNumber, Metadata, OpenOptions, Result, StatFs, Visit, WriteFiles,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::features::Incompat;
use crate::inode::ROOT;
use crate::map::{self, OpenInode};
use crate::replay::Replayed;
use crate::superblock::{JournalPlace, MAGIC, RawSuperblock, START, Superblock};
use crate::volume::Volume;
use crate::{dir, replay, statfs, symlink, writable, xattr};

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
pub(crate) fn open(device: Arc<dyn BlockDevice>, options: OpenOptions) -> Result<Box<dyn FileSystem>> {
    let mounted = RwLock::new(Mounted::open(&device, &options)?);
    Ok(Box::new(Ext4 { device, options, mounted }))
}

pub(crate) fn read_superblock(device: &dyn BlockDevice) -> Result<Superblock> {
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(START, raw.as_mut_bytes())?;
    Superblock::decode(&raw, device.size())
}

/// An open ext2, ext3 or ext4 volume.
pub(crate) struct Ext4 {
    device: Arc<dyn BlockDevice>,
    options: OpenOptions,
    /// Readers share it; who changes something has it alone.
    mounted: RwLock<Mounted>,
}

/// What is known of a volume since it was opened.
pub(crate) struct Mounted {
    pub(crate) volume: Volume,
    /// What the journal holds that the device does not.
    pub(crate) replayed: Option<Arc<Replayed>>,
    /// Whether the volume was made ready to be changed.
    pub(crate) writable: bool,
}

impl Mounted {
    pub(crate) fn open(device: &Arc<dyn BlockDevice>, options: &OpenOptions) -> Result<Self> {
        let mut sb = read_superblock(device)?;
        let mut replayed = None;
        if sb.incompat.contains(Incompat::RECOVER) && !options.ignore_journal {
            match sb.journal {
                JournalPlace::Inode(number) => {
                    replayed = replay::replay(device, &sb, number)?.map(Arc::new);
                    if let Some(replayed) = &replayed {
                        sb = read_superblock(replayed)?;
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
        let seen: Arc<dyn BlockDevice> = match &replayed {
            Some(replayed) => replayed.clone(),
            None => device.clone(),
        };
        let volume = Volume::new(seen, sb, options.sources.clone());
        Ok(Self { volume, replayed, writable: false })
    }
}

impl Ext4 {
    /// The volume to read from.
    fn read(&self) -> Reading<'_> {
        Reading(self.mounted.read().unwrap_or_else(|e| e.into_inner()))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Mounted> {
        // What a panic left half done is undone before the next change.
        self.mounted.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes a change, all of it or nothing. The first one makes the volume ready for it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&Volume) -> Result<T>) -> Result<T> {
        let mut mounted = self.write();
        mounted.volume.roll_back();
        mounted.make_writable(&self.device, &self.options)?;
        let volume = &mounted.volume;
        if volume.is_full_of_edits() {
            volume.write_out()?;
        }
        let result = volume.atomically(|| change(volume));
        mounted.refresh()?;
        result
    }

    /// Makes a change on the device itself, which has all of the volume. Nothing in memory outlives it.
    pub(crate) fn change_all(
        &self,
        change: impl FnOnce(&Arc<dyn BlockDevice>, &Volume) -> Result<()>,
    ) -> Result<()> {
        let mut mounted = self.write();
        mounted.volume.roll_back();
        mounted.make_writable(&self.device, &self.options)?;
        mounted.finish()?;
        change(&self.device, &mounted.volume)?;
        *mounted = Mounted::open(&self.device, &self.options)?;
        Ok(())
    }

    /// Brings all changes to the device.
    pub(crate) fn write_back(&self) -> Result<()> {
        let mut mounted = self.write();
        mounted.volume.roll_back();
        if mounted.writable { mounted.finish() } else { Ok(()) }
    }

    /// Opens the volume anew, with nothing in memory.
    pub(crate) fn open_again(&self) -> Result<()> {
        let mut mounted = self.write();
        *mounted = Mounted::open(&self.device, &self.options)?;
        Ok(())
    }
}

/// The volume, shared with other readers.
struct Reading<'a>(RwLockReadGuard<'a, Mounted>);

impl Deref for Reading<'_> {
    type Target = Volume;
    fn deref(&self) -> &Volume {
        &self.0.volume
    }
}

impl Volume {
    /// An inode whose content is wanted.
    pub(crate) fn open_inode(&self, number: InodeNumber) -> Result<Arc<OpenInode>> {
        if let Some(inode) = self.inodes.get(number.0) {
            return Ok(inode);
        }
        let inode = OpenInode::new(self.inode(number)?);
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
        self.read().sb.kind()
    }

    fn label(&self) -> BString {
        self.read().sb.label.clone()
    }

    fn uuid(&self) -> String {
        let uuid = uuid::Uuid::from_bytes(self.read().sb.uuid);
        if uuid.is_nil() { String::new() } else { uuid.to_string() }
    }

    fn root(&self) -> InodeNumber {
        InodeNumber(ROOT.into())
    }

    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        let volume = self.read();
        dir::lookup(&volume, &*volume.open_inode(dir)?, name)
    }

    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let volume = self.read();
        Ok(volume.inode(inode)?.metadata(&volume.sb))
    }

    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let volume = self.read();
        map::read(&volume, &*volume.open_file(inode)?, offset, buf)
    }

    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        let volume = self.read();
        map::next_data(&volume, &*volume.open_file(inode)?, offset)
    }

    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let volume = self.read();
        dir::read_dir(&volume, &*volume.open_inode(dir)?, cursor, visit)
    }

    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        if dir == self.root() {
            return Ok(dir);
        }
        let volume = self.read();
        dir::parent(&volume, &*volume.open_inode(dir)?)
    }

    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        let volume = self.read();
        symlink::read(&volume, &*volume.open_inode(inode)?)
    }

    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        let volume = self.read();
        xattr::list(&volume, &volume.inode(inode)?)
    }

    fn flags(&self, inode: InodeNumber) -> Result<u32> {
        Ok(self.read().inode(inode)?.flags.bits())
    }

    fn generation(&self, inode: InodeNumber) -> Result<u32> {
        Ok(self.read().inode(inode)?.generation)
    }

    fn writer(&self) -> Result<&dyn WriteFiles> {
        let reading = self.read();
        if !reading.0.writable {
            writable::check(&reading, &self.device, &self.options)?;
        }
        Ok(self)
    }

    fn statfs(&self) -> Result<StatFs> {
        statfs::statfs(&self.read())
    }
}
