//! Disks and partitions as files: a directory with a file for each.

use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::{BStr, BString};
use vmcraft_block::BlockDevice;
use vmcraft_fs::{
    DirEntry, Error, FileSystem, FileType, InodeNumber, Metadata, Result, StatFs, Timestamp, Visit,
    WriteFiles,
};

const ROOT: InodeNumber = InodeNumber(1);

/// A directory in which each device is a file of its size. It is a file system as any other, so it
/// is shown as any other.
pub struct Devices {
    devices: Vec<(String, Arc<dyn BlockDevice>)>,
    uid: u32,
    gid: u32,
}

impl Devices {
    /// The devices by name, such as `sda1`, owned by this process's user.
    pub fn new(devices: Vec<(String, Arc<dyn BlockDevice>)>) -> Self {
        Self { devices, uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
    }

    fn device(&self, inode: InodeNumber) -> Result<&dyn BlockDevice> {
        if inode == ROOT {
            return Err(Error::IsADirectory);
        }
        let index = inode.0.checked_sub(2).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.devices.get(index)).map(|(_, device)| &**device).ok_or(Error::NotFound)
    }
}

fn number(index: usize) -> InodeNumber {
    InodeNumber(index as u64 + 2)
}

impl FileSystem for Devices {
    fn kind(&self) -> &'static str {
        "devices"
    }
    fn label(&self) -> BString {
        BString::default()
    }
    fn uuid(&self) -> String {
        String::new()
    }
    fn root(&self) -> InodeNumber {
        ROOT
    }
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        if dir != ROOT {
            return Err(Error::NotADirectory);
        }
        self.devices.iter().position(|(known, _)| name == known.as_str()).map(number).ok_or(Error::NotFound)
    }
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let (file_type, permissions, size_bytes) = match self.device(inode) {
            Ok(device) => (FileType::Regular, 0o440, device.size()),
            Err(Error::IsADirectory) => (FileType::Directory, 0o550, 0),
            Err(e) => return Err(e),
        };
        let never = Timestamp::default();
        Ok(Metadata {
            inode,
            file_type,
            permissions,
            links: if inode == ROOT { 2 } else { 1 },
            uid: self.uid,
            gid: self.gid,
            device: None,
            size_bytes,
            blocks_512: size_bytes.div_ceil(512),
            block_size: 4096,
            accessed: never,
            modified: never,
            changed: never,
            created: None,
        })
    }
    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let device = self.device(inode)?;
        let left = device.size().saturating_sub(offset);
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        device.read_at(offset, &mut buf[..len])?;
        Ok(len)
    }
    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        let device = self.device(inode)?;
        let Some(extents) = device.extents() else {
            return Ok((offset < device.size()).then(|| (offset, device.size())));
        };
        let mut at = offset;
        while at < device.size() {
            let extent = extents.extent_at(at)?;
            let end = at.saturating_add(extent.len.max(1)).min(device.size());
            if !extent.is_hole {
                return Ok(Some((at, end)));
            }
            at = end;
        }
        Ok(None)
    }
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        if dir != ROOT {
            return Err(Error::NotADirectory);
        }
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        for (index, (name, _)) in self.devices.iter().enumerate().skip(start) {
            let entry = DirEntry {
                inode: number(index),
                name: BStr::new(name),
                file_type: FileType::Regular,
                next: index as u64 + 1,
            };
            if visit(entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
    fn parent(&self, _: InodeNumber) -> Result<InodeNumber> {
        Ok(ROOT)
    }
    fn read_link(&self, _: InodeNumber) -> Result<BString> {
        Err(Error::InvalidInput("not a symbolic link"))
    }
    fn xattrs(&self, _: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        Ok(Vec::new())
    }
    fn flags(&self, _: InodeNumber) -> Result<u32> {
        Ok(0)
    }
    fn generation(&self, _: InodeNumber) -> Result<u32> {
        Ok(0)
    }
    fn writer(&self) -> Result<&dyn WriteFiles> {
        Err(Error::ReadOnly("devices are shown, not files"))
    }
    fn statfs(&self) -> Result<StatFs> {
        let blocks =
            self.devices.iter().fold(0_u64, |sum, (_, device)| sum.saturating_add(device.size() / 4096));
        Ok(StatFs {
            block_size: 4096,
            blocks,
            blocks_free: 0,
            blocks_available: 0,
            inodes: self.devices.len() as u64 + 1,
            inodes_free: 0,
            id: 0,
            name_max: 255,
        })
    }
}
