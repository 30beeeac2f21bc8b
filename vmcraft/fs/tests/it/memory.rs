//! A small file system in memory that keeps all promises, or breaks one.

use std::ops::ControlFlow;

use bstr::{BStr, BString};
use vmcraft_fs::{
    DirEntry, Error, FileSystem, FileType, InodeNumber, Metadata, Result, StatFs, Timestamp, Visit,
    WriteFiles,
};

/// A promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    DotShown,
    CursorZero,
    CursorSkips,
    WrongListedType,
    LookupElsewhere,
    LookupOfMissing,
    LookupInFile,
    ListingOfFile,
    WrongParent,
    DirectoryRead,
    FifoRead,
    FileHasTarget,
    TargetLength,
    ShortRead,
    LongRead,
    ReadAtEnd,
    ContentByOffset,
    DataInHole,
    DataPastEnd,
    TooManyNames,
    WrongInode,
    Nanoseconds,
    Permissions,
    XattrTwice,
    FreeBlocks,
}

const ROOT: u64 = 1;
const FILE: u64 = 2;
const DIR: u64 = 3;
const LINK: u64 = 4;
const FIFO: u64 = 5;

const ENTRIES: &[(u64, &str, u64, FileType)] = &[
    (ROOT, "file", FILE, FileType::Regular),
    (ROOT, "dir", DIR, FileType::Directory),
    (ROOT, "fifo", FIFO, FileType::Fifo),
    (DIR, "link", LINK, FileType::Unknown),
    (DIR, "again", FILE, FileType::Regular),
];

/// `file` has data, a hole, and data.
const SIZE: u64 = 30_000;
const HOLE: std::ops::Range<u64> = 10_000..20_000;
const TARGET: &str = "../file";

pub(crate) struct Memory(pub(crate) Defect);

impl Memory {
    fn is(&self, defect: Defect) -> bool {
        self.0 == defect
    }

    fn byte(&self, offset: u64) -> u8 {
        match offset {
            offset if HOLE.contains(&offset) => u8::from(self.is(Defect::DataInHole)),
            offset => u8::try_from(offset % 251 + 1).unwrap_or(1),
        }
    }

    fn file_type(inode: InodeNumber) -> FileType {
        match inode.0 {
            FILE => FileType::Regular,
            LINK => FileType::Symlink,
            FIFO => FileType::Fifo,
            _ => FileType::Directory,
        }
    }
}

impl FileSystem for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }
    fn label(&self) -> BString {
        BString::default()
    }
    fn uuid(&self) -> String {
        String::new()
    }
    fn root(&self) -> InodeNumber {
        InodeNumber(ROOT)
    }

    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        if Self::file_type(dir) != FileType::Directory && !self.is(Defect::LookupInFile) {
            return Err(Error::NotADirectory);
        }
        if name == "fifo" && self.is(Defect::LookupElsewhere) {
            return Ok(InodeNumber(FILE));
        }
        match ENTRIES.iter().find(|(parent, known, ..)| *parent == dir.0 && name == *known) {
            Some((_, _, inode, _)) => Ok(InodeNumber(*inode)),
            None if self.is(Defect::LookupOfMissing) => Ok(InodeNumber(FILE)),
            None => Err(Error::NotFound),
        }
    }

    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let file_type = Self::file_type(inode);
        let nanoseconds = if self.is(Defect::Nanoseconds) { 1_000_000_000 } else { 999_999_999 };
        let time = Timestamp { seconds: -1, nanoseconds };
        let target = TARGET.len() as u64 + u64::from(self.is(Defect::TargetLength));
        Ok(Metadata {
            inode: if self.is(Defect::WrongInode) { InodeNumber(99) } else { inode },
            file_type,
            permissions: if self.is(Defect::Permissions) { 0o10_644 } else { 0o7777 },
            links: if inode.0 == FILE && !self.is(Defect::TooManyNames) { 2 } else { 1 },
            uid: 0,
            gid: 0,
            device: None,
            size_bytes: match file_type {
                FileType::Regular => SIZE,
                FileType::Symlink => target,
                _ => 0,
            },
            blocks_512: 0,
            block_size: 4096,
            accessed: time,
            modified: time,
            changed: time,
            created: None,
        })
    }

    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match Self::file_type(inode) {
            FileType::Regular => {}
            FileType::Directory if self.is(Defect::DirectoryRead) => return Ok(0),
            FileType::Directory => return Err(Error::IsADirectory),
            FileType::Fifo if self.is(Defect::FifoRead) => return Ok(0),
            _ => return Err(Error::InvalidInput("not a regular file")),
        }
        let size = if self.is(Defect::LongRead) { SIZE + 1 } else { SIZE };
        if offset >= size {
            return Ok(usize::from(self.is(Defect::ReadAtEnd)));
        }
        let len = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buf.len());
        let len = if self.is(Defect::ShortRead) { len.min(4096) } else { len };
        let shift = u64::from(self.is(Defect::ContentByOffset) && offset > 0);
        for (at, byte) in (offset..).zip(&mut buf[..len]) {
            *byte = self.byte(at + shift);
        }
        Ok(len)
    }

    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        if Self::file_type(inode) != FileType::Regular {
            return Err(Error::InvalidInput("not a regular file"));
        }
        let end = if self.is(Defect::DataPastEnd) { SIZE + 1 } else { SIZE };
        Ok(match offset {
            offset if offset < HOLE.start => Some((offset, HOLE.start)),
            offset if offset < end => Some((offset.max(HOLE.end), end)),
            _ => None,
        })
    }

    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        if Self::file_type(dir) != FileType::Directory {
            return if self.is(Defect::ListingOfFile) { Ok(()) } else { Err(Error::NotADirectory) };
        }
        let own = ENTRIES.iter().filter(|(parent, ..)| *parent == dir.0);
        for ((_, name, inode, file_type), next) in own.zip(1u64..).filter(|(_, next)| *next > cursor) {
            let next = match self.0 {
                Defect::CursorZero => 0,
                Defect::CursorSkips => next + 1,
                _ => next,
            };
            let name = if self.is(Defect::DotShown) { "." } else { name };
            let wrong = self.is(Defect::WrongListedType) && *file_type == FileType::Fifo;
            let file_type = if wrong { FileType::Socket } else { *file_type };
            let entry = DirEntry { inode: InodeNumber(*inode), name: name.into(), file_type, next };
            if visit(entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        Ok(if self.is(Defect::WrongParent) { dir } else { InodeNumber(ROOT) })
    }

    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        match Self::file_type(inode) {
            FileType::Symlink => Ok(TARGET.into()),
            FileType::Regular if self.is(Defect::FileHasTarget) => Ok(TARGET.into()),
            _ => Err(Error::InvalidInput("not a symbolic link")),
        }
    }

    fn xattrs(&self, _inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        let attribute = ("user.x".into(), b"1".to_vec());
        Ok(vec![attribute; if self.is(Defect::XattrTwice) { 2 } else { 1 }])
    }

    fn flags(&self, _: InodeNumber) -> Result<u32> {
        Ok(0)
    }
    fn generation(&self, _: InodeNumber) -> Result<u32> {
        Ok(0)
    }
    fn writer(&self) -> Result<&dyn WriteFiles> {
        Err(Error::ReadOnly("a test double"))
    }
    fn statfs(&self) -> Result<StatFs> {
        let blocks_free = if self.is(Defect::FreeBlocks) { 101 } else { 100 };
        Ok(StatFs {
            block_size: 4096,
            blocks: 100,
            blocks_free,
            blocks_available: blocks_free,
            inodes: 10,
            inodes_free: 5,
            id: 0,
            name_max: 255,
        })
    }
}
