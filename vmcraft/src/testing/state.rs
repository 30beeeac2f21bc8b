//! What the file system in memory holds.

use std::collections::BTreeMap;

use bstr::{BStr, BString};
use vmcraft_fs::{DeviceNumber, Error, FileType, InodeNumber, Result, Timestamp};

/// Space is given in blocks of this size.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What there is at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Blocks for the content of regular files.
    pub(super) blocks: u64,
    pub(super) inodes: usize,
    /// Names of an inode, and subdirectories of a directory and two.
    pub(super) links: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { blocks: 1 << 20, inodes: 1 << 20, links: 65_000 }
    }
}

/// What an inode holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    File(Blocks),
    Dir(BTreeMap<BString, usize>),
    Symlink(BString),
    Special(FileType, DeviceNumber),
}

/// The content of a regular file: blocks that were written, and preallocated ones, which have none.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    pub(super) size: u64,
    pub(super) blocks: BTreeMap<u64, Option<Box<[u8]>>>,
}

impl Blocks {
    pub(super) fn of(content: &[u8]) -> Self {
        let mut blocks = Self::default();
        blocks.write(0, content);
        blocks
    }

    /// The blocks that a range of bytes touches.
    pub(super) fn touched(offset: u64, len: u64) -> std::ops::Range<u64> {
        if len == 0 { 0..0 } else { offset / BLOCK_BYTES..(offset + len).div_ceil(BLOCK_BYTES) }
    }

    /// How many blocks of a range have no space yet.
    pub(super) fn missing(&self, offset: u64, len: u64) -> u64 {
        let touched = Self::touched(offset, len);
        touched.end - touched.start - self.blocks.range(touched).count() as u64
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let start = (at % BLOCK_BYTES) as usize;
            let step = (BLOCK_BYTES as usize - start).min(data.len() - done);
            let block = self.blocks.entry(at / BLOCK_BYTES).or_default();
            let block = block.get_or_insert_with(|| vec![0; BLOCK_BYTES as usize].into());
            block[start..start + step].copy_from_slice(&data[done..done + step]);
            done += step;
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let n = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let start = (at % BLOCK_BYTES) as usize;
            let step = (BLOCK_BYTES as usize - start).min(n - done);
            match self.blocks.get(&(at / BLOCK_BYTES)) {
                Some(Some(block)) => buf[done..done + step].copy_from_slice(&block[start..start + step]),
                _ => buf[done..done + step].fill(0),
            }
            done += step;
        }
        n
    }

    pub(super) fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.blocks.split_off(&size.div_ceil(BLOCK_BYTES));
            self.zero(size, size.next_multiple_of(BLOCK_BYTES) - size);
        }
        self.size = size;
    }

    /// Makes what is written of a range zero.
    fn zero(&mut self, offset: u64, len: u64) {
        let mut at = offset;
        while at < offset + len {
            let start = (at % BLOCK_BYTES) as usize;
            let step = (BLOCK_BYTES - start as u64).min(offset + len - at);
            if let Some(Some(block)) = self.blocks.get_mut(&(at / BLOCK_BYTES)) {
                block[start..start + step as usize].fill(0);
            }
            at += step;
        }
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        let (first, last) = (offset.next_multiple_of(BLOCK_BYTES), end / BLOCK_BYTES * BLOCK_BYTES);
        if first >= last {
            return self.zero(offset, end.saturating_sub(offset));
        }
        self.zero(offset, first - offset);
        self.zero(last, end - last);
        for block in first / BLOCK_BYTES..last / BLOCK_BYTES {
            self.blocks.remove(&block);
        }
    }

    pub(super) fn next_data(&self, offset: u64) -> Option<(u64, u64)> {
        let mut run: Option<(u64, u64)> = None;
        for (block, content) in self.blocks.range(offset / BLOCK_BYTES..) {
            let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
            match &mut run {
                _ if content.is_none() || start >= self.size => continue,
                None => run = Some((start, end)),
                Some((_, last)) if *last == start => *last = end,
                Some(_) => break,
            }
        }
        run.map(|(start, end)| (start.max(offset), end.min(self.size))).filter(|(start, end)| start < end)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) content: Content,
    /// Of a directory, the one that it is in.
    pub(super) parent: usize,
    pub(super) links: u32,
    pub(super) permissions: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) flags: u32,
    pub(super) generation: u32,
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) changed: Timestamp,
    pub(super) xattrs: Vec<(BString, Vec<u8>)>,
}

impl Inode {
    pub(super) fn file_type(&self) -> FileType {
        match &self.content {
            Content::File(_) => FileType::Regular,
            Content::Dir(_) => FileType::Directory,
            Content::Symlink(_) => FileType::Symlink,
            Content::Special(file_type, _) => *file_type,
        }
    }
}

/// All inodes: `None` where one was freed.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) label: BString,
    pub(super) uuid: String,
    inodes: Vec<Option<Inode>>,
}

/// The number of the inode at a place in the list.
pub(super) fn number(index: usize) -> InodeNumber {
    InodeNumber(index as u64 + 1)
}

/// The place in the list of the inode with a number.
fn index(inode: InodeNumber) -> Result<usize> {
    usize::try_from(inode.0).ok().and_then(|number| number.checked_sub(1)).ok_or(Error::NotFound)
}

impl State {
    pub(super) fn new() -> Self {
        let mut state = Self { label: BString::default(), uuid: String::new(), inodes: Vec::new() };
        let root = state.push(Content::Dir(BTreeMap::new()), 0, 0o755);
        state.at(root).links = 2;
        state
    }

    /// An inode without a name.
    pub(super) fn push(&mut self, content: Content, parent: usize, permissions: u32) -> usize {
        let never = Timestamp::default();
        self.inodes.push(Some(Inode {
            content,
            parent,
            links: 0,
            permissions,
            uid: 0,
            gid: 0,
            flags: 0,
            generation: 0,
            accessed: never,
            modified: never,
            changed: never,
            xattrs: Vec::new(),
        }));
        self.inodes.len() - 1
    }

    /// An inode that is there.
    pub(super) fn at(&mut self, index: usize) -> &mut Inode {
        self.inodes[index].as_mut().expect("an inode in use")
    }

    pub(super) fn get(&self, inode: InodeNumber) -> Result<&Inode> {
        self.inodes.get(index(inode)?).and_then(Option::as_ref).ok_or(Error::NotFound)
    }

    pub(super) fn get_mut(&mut self, inode: InodeNumber) -> Result<&mut Inode> {
        self.inodes.get_mut(index(inode)?).and_then(Option::as_mut).ok_or(Error::NotFound)
    }

    pub(super) fn children_mut(&mut self, dir: usize) -> &mut BTreeMap<BString, usize> {
        match &mut self.at(dir).content {
            Content::Dir(children) => children,
            other => panic!("not a directory: {other:?}"),
        }
    }

    pub(super) fn children(&self, dir: InodeNumber) -> Result<&BTreeMap<BString, usize>> {
        match &self.get(dir)?.content {
            Content::Dir(children) => Ok(children),
            _ => Err(Error::NotADirectory),
        }
    }

    fn is_dir(&self, index: usize) -> bool {
        matches!(&self.inodes[index], Some(Inode { content: Content::Dir(_), .. }))
    }

    /// Adds a name, and counts it.
    pub(super) fn add_name(&mut self, dir: usize, name: &BStr, inode: usize) {
        self.children_mut(dir).insert(name.to_owned(), inode);
        if self.is_dir(inode) {
            self.at(inode).links += 2;
            self.at(inode).parent = dir;
            self.at(dir).links += 1;
        } else {
            self.at(inode).links += 1;
        }
    }

    /// Takes a name away, and the inode with its last one.
    pub(super) fn remove_name(&mut self, dir: usize, name: &BStr) {
        let Some(inode) = self.children_mut(dir).remove(name) else { return };
        if self.is_dir(inode) {
            self.at(inode).links -= 2;
            self.at(dir).links -= 1;
        } else {
            self.at(inode).links -= 1;
        }
        if self.at(inode).links == 0 {
            self.inodes[inode] = None;
        }
    }

    pub(super) fn inodes_used(&self) -> usize {
        self.inodes.iter().flatten().count()
    }

    pub(super) fn blocks_used(&self) -> u64 {
        let blocks = self.inodes.iter().flatten().map(|inode| match &inode.content {
            Content::File(content) => content.blocks.len() as u64,
            _ => 0,
        });
        blocks.sum()
    }
}
