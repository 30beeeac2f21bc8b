//! The conformance tests themselves: a driver that breaks a promise is told.

use std::ops::ControlFlow;

use bstr::{BStr, BString};
use vmcraft_fs::{DirEntry, Error, FileSystem, InodeNumber, Metadata, Result, StatFs, Visit, conformance};

use crate::{sample, tree};

/// What a driver can do wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    ShowsDots,
    LosesItsPlace,
    FindsAnother,
    FindsMissing,
    WrongParent,
    ReadsDirectories,
    ReadsPastTheEnd,
    PiecesDiffer,
    HoleOfData,
    CountsWrong,
}

struct Faulty {
    inner: Box<dyn FileSystem>,
    fault: Fault,
}

impl FileSystem for Faulty {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn label(&self) -> BString {
        self.inner.label()
    }
    fn uuid(&self) -> String {
        self.inner.uuid()
    }
    fn root(&self) -> InodeNumber {
        self.inner.root()
    }
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        match self.fault {
            Fault::FindsAnother => self.inner.lookup(dir, name).map(|_| self.root()),
            Fault::FindsMissing => self.inner.lookup(dir, name).or(Ok(self.root())),
            _ => self.inner.lookup(dir, name),
        }
    }
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        self.inner.metadata(inode)
    }
    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let result = self.inner.read(inode, offset, buf);
        match (self.fault, &result) {
            (Fault::ReadsDirectories, Err(Error::IsADirectory)) => Ok(0),
            (Fault::ReadsPastTheEnd, Ok(n)) if *n < buf.len() => Ok(n + 1),
            (Fault::PiecesDiffer, Ok(n)) if offset > 0 && *n > 0 => {
                buf[0] ^= 1;
                result
            }
            _ => result,
        }
    }
    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        let next = self.inner.next_data(inode, offset)?;
        Ok(if self.fault == Fault::HoleOfData { next.map(|(_, end)| (end - 1, end)) } else { next })
    }
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        if self.fault == Fault::ShowsDots && cursor == 0 {
            let file_type = vmcraft_fs::FileType::Directory;
            let dot = DirEntry { inode: dir, name: ".".into(), file_type, next: 1 };
            if visit(dot) == ControlFlow::Break(()) {
                return Ok(());
            }
        }
        let cursor = if self.fault == Fault::LosesItsPlace { 0 } else { cursor };
        self.inner.read_dir(dir, cursor, visit)
    }
    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        if self.fault == Fault::WrongParent { Ok(dir) } else { self.inner.parent(dir) }
    }
    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        self.inner.read_link(inode)
    }
    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        self.inner.xattrs(inode)
    }
    fn statfs(&self) -> Result<StatFs> {
        let statfs = self.inner.statfs()?;
        let blocks = if self.fault == Fault::CountsWrong { 1 } else { statfs.blocks };
        Ok(StatFs { blocks, ..statfs })
    }
}

#[test]
fn broken_promises_are_told() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024");
    for (fault, expected) in [
        (Fault::None, ""),
        (Fault::ShowsDots, "shows the name \".\""),
        (Fault::LosesItsPlace, "taken up after"),
        (Fault::FindsAnother, "by lookup"),
        (Fault::FindsMissing, "lookup of a missing name"),
        (Fault::WrongParent, "parent is"),
        (Fault::ReadsDirectories, "a directory can be read"),
        (Fault::ReadsPastTheEnd, "read gives"),
        (Fault::PiecesDiffer, "another content at"),
        (Fault::HoleOfData, "is not zeros"),
        (Fault::CountsWrong, "more free blocks than blocks"),
    ] {
        let faulty = Faulty { inner: tree::open(&image).expect("a volume"), fault };
        match conformance::check(&faulty) {
            Ok(()) => assert_eq!(fault, Fault::None, "nothing was told"),
            Err(told) => assert!(!expected.is_empty() && told.contains(expected), "{fault:?}: {told}"),
        }
    }
}
