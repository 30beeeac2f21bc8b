//! Reading what a file of the guest or a device holds, from front to back, without its holes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{FileSystem, FileType, InodeNumber, Metadata};

use crate::vfs::Node;
use crate::{DeviceOrPath, Error, Guest, Result};

/// How many bytes are read at once.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// The host copies to the start of a page faster than to the middle of one.
const PAGE_BYTES: usize = 4096;

/// The longest hole that is shown at once, so that whoever writes zeros for it can be interrupted.
const STEP_HOLE_BYTES: u64 = 64 << 20;

/// Bytes that can be read in order: a regular file, or a device.
pub(crate) struct Content {
    source: Source,
    size_bytes: u64,
    /// Whether the size is taken up: then there are no holes worth looking for.
    is_dense: bool,
}

enum Source {
    File(Node),
    Device(String, Arc<dyn BlockDevice>),
}

/// A piece of content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Run<'b> {
    Data(&'b [u8]),
    /// So many zeros, which take no space.
    Hole(u64),
}

impl Content {
    /// The content of a regular file.
    pub(crate) fn of_file(node: Node) -> Result<Self> {
        let metadata = node.metadata()?;
        match metadata.file_type {
            FileType::Regular => {}
            FileType::Directory => return Err(node.error(vmcraft_fs::Error::IsADirectory)),
            _ => return Err(node.error(vmcraft_fs::Error::InvalidInput("not a regular file"))),
        }
        Ok(Self {
            source: Source::File(node),
            size_bytes: metadata.size_bytes,
            is_dense: is_dense(&metadata),
        })
    }

    /// The content of a device with this name.
    pub(crate) fn of_device(name: String, device: Arc<dyn BlockDevice>) -> Self {
        let size_bytes = device.size();
        let is_dense = device.extents().is_none();
        Self { source: Source::Device(name, device), size_bytes, is_dense }
    }

    /// Whether it is that of this file.
    pub(crate) fn is_of(&self, node: &Node) -> bool {
        matches!(&self.source, Source::File(file) if (file.mount, file.inode) == (node.mount, node.inode))
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Shows the bytes of `range` in order. `range` lies within the size. `tick` is told after each
    /// piece how many bytes were shown, and can end it.
    pub(crate) fn read_runs(
        &self,
        range: Range<u64>,
        tick: &mut dyn FnMut(u64) -> Result<()>,
        mut show: impl FnMut(Run<'_>) -> Result<()>,
    ) -> Result<()> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut space = vec![0; len.min(STEP_BYTES) + PAGE_BYTES];
        // It can answer more than the space has, where no alignment is to be had.
        let start = space.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        let buf = &mut space[start..];
        let mut at = range.start;
        while at < range.end {
            let (data, data_end) = match self.next_data(at)? {
                Some((start, end)) => (start.min(range.end), end.min(range.end)),
                None => (range.end, range.end),
            };
            while at < data {
                let step = (data - at).min(STEP_HOLE_BYTES);
                show(Run::Hole(step))?;
                at += step;
                tick(at - range.start)?;
            }
            while at < data_end {
                let left = usize::try_from(data_end - at).unwrap_or(usize::MAX);
                let piece = &mut buf[..left.min(STEP_BYTES)];
                self.read_exact(at, piece)?;
                show(Run::Data(piece))?;
                at += piece.len() as u64;
                tick(at - range.start)?;
            }
        }
        Ok(())
    }

    /// Shows all bytes in order, with zeros for holes.
    pub(crate) fn read_all(
        &self,
        tick: &mut dyn FnMut(u64) -> Result<()>,
        mut show: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        // Holes come in pieces that can be interrupted between.
        let zeros = [0; 64 * 1024];
        self.read_runs(0..self.size_bytes, tick, |run| match run {
            Run::Data(data) => show(data),
            Run::Hole(mut left) => {
                while left > 0 {
                    let step = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
                    show(&zeros[..step])?;
                    left -= step as u64;
                }
                Ok(())
            }
        })
    }

    /// Fills all of `buf` from `offset`, within the size.
    pub(crate) fn read_exact(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match &self.source {
            Source::File(node) => {
                read_exact(&*node.filesystem, node.inode, offset, buf).map_err(|source| node.error(source))
            }
            Source::Device(name, device) => {
                device.read_at(offset, buf).map_err(|source| Error::Device { device: name.clone(), source })
            }
        }
    }

    /// The next run of data at or after `offset`, which is less than the size.
    fn next_data(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        if self.is_dense {
            return Ok(Some((offset, self.size_bytes)));
        }
        match &self.source {
            Source::File(node) => {
                next_data(&*node.filesystem, node.inode, offset).map_err(|source| node.error(source))
            }
            Source::Device(name, device) => next_device_data(&**device, offset)
                .map_err(|source| Error::Device { device: name.clone(), source }),
        }
    }
}

/// Whether the blocks that a file takes up suffice for its size. If so it has no hole, or none that
/// is worth a question.
pub(crate) fn is_dense(metadata: &Metadata) -> bool {
    metadata.blocks_512.saturating_mul(512) >= metadata.size_bytes
}

/// Fills all of `buf`, which lies within the file's size.
pub(crate) fn read_exact(
    filesystem: &dyn FileSystem,
    inode: InodeNumber,
    offset: u64,
    buf: &mut [u8],
) -> vmcraft_fs::Result<()> {
    let n = filesystem.read(inode, offset, buf)?;
    if n == buf.len() {
        return Ok(());
    }
    // What is written has the length that was announced, or it is not written.
    Err(vmcraft_fs::Error::InvalidInput("the file ends before the size that its inode gives"))
}

/// The driver's answer, held to its promise: a run that is not empty and begins at `offset` or after.
pub(crate) fn next_data(
    filesystem: &dyn FileSystem,
    inode: InodeNumber,
    offset: u64,
) -> vmcraft_fs::Result<Option<(u64, u64)>> {
    let found = filesystem.next_data(inode, offset)?;
    if found.is_some_and(|(start, end)| start < offset || end <= start) {
        return Err(vmcraft_fs::Error::InvalidInput("the file's map of its data goes backwards"));
    }
    Ok(found)
}

fn next_device_data(device: &dyn BlockDevice, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let Some(extents) = device.extents() else { return Ok(Some((offset, device.size()))) };
    let mut data = None;
    let mut at = offset;
    // Extents can be as short as a cluster: neighbours are read together.
    while at < device.size() && data.is_none_or(|start| at - start < STEP_BYTES as u64) {
        let extent = extents.extent_at(at)?;
        match data {
            None if !extent.is_hole => data = Some(at),
            Some(_) if extent.is_hole => break,
            _ => {}
        }
        at = extent.len.max(1).saturating_add(at);
    }
    Ok(data.map(|start| (start, at.min(device.size()))))
}

impl Guest {
    /// What a file or device holds.
    pub(crate) fn content(&self, name: &DeviceOrPath) -> Result<Content> {
        match name.as_device() {
            Some(device) => {
                let (name, device) = self.open_device(device)?;
                Ok(Content::of_device(name, device))
            }
            None => Content::of_file(self.resolve(name.as_path())?),
        }
    }
}
