//! Writing a layer to the disk below.

use std::io;

use super::chunk::{Body, CHUNK, GRANULE, runs};
use super::cleared::Clearing;
use super::layer::Layer;
use super::store::Store;
use crate::BlockDevice;

/// Neighbouring content is written together, up to so many bytes.
const BATCH: usize = 1 << 20;

/// How many zeros are written at a time to a disk that cannot make zeros itself.
const ZEROS: usize = 64 << 10;

/// Writes everything that changed. The device is not flushed.
pub(super) fn apply(layer: &Layer, store: &Store, device: &dyn BlockDevice) -> io::Result<()> {
    for (start, end, kind) in layer.cleared(device.size()) {
        clear(device, start, end - start, kind)?;
    }
    let mut writer = Writer { device, start: 0, pending: Vec::new() };
    for (index, chunk) in layer.chunks() {
        let loaded;
        let bytes = match &chunk.body {
            Body::Memory(buffer) => buffer.peek(),
            Body::Spilled(slot) => {
                loaded = store.load(slot, chunk.present)?;
                &loaded
            }
        };
        for (first, end) in runs(chunk.present) {
            let (from, to) = (u64::from(first) * GRANULE, u64::from(end) * GRANULE);
            // The last granule of the disk may be a short one.
            let to = to.min(device.size().saturating_sub(index * CHUNK));
            let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
            writer.write(index * CHUNK + from, bytes.get(range).unwrap_or_default())?;
        }
    }
    writer.finish()
}

/// Clears a range of a disk.
fn clear(device: &dyn BlockDevice, offset: u64, len: u64, kind: Clearing) -> io::Result<()> {
    match (device.discard(), kind) {
        (Some(discard), Clearing::Discard) => discard.discard(offset, len),
        (Some(discard), Clearing::Zeroes) => discard.write_zeroes(offset, len),
        // What is not needed may stay.
        (None, Clearing::Discard) => Ok(()),
        (None, Clearing::Zeroes) => {
            let zeros = vec![0; ZEROS];
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let n = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
                device.write_at(at, &zeros[..n])?;
                at += n as u64;
            }
            Ok(())
        }
    }
}

/// Joins neighbouring writes.
struct Writer<'a> {
    device: &'a dyn BlockDevice,
    /// Where the pending bytes begin.
    start: u64,
    pending: Vec<u8>,
}

impl Writer<'_> {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.start + self.pending.len() as u64 != offset || self.pending.len() + data.len() > BATCH {
            self.send()?;
            self.start = offset;
        }
        self.pending.extend_from_slice(data);
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.device.write_at(self.start, &self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.send()
    }
}
