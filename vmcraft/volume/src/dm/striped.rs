//! Stripes: chunks dealt in turn to several devices, as the kernel's `striped` target does.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

use super::linear::write_zeroes;
use crate::{Error, Result};

/// Chunks dealt in turn to its columns.
pub struct Striped {
    columns: Vec<Column>,
    /// In bytes.
    chunk: u64,
    size: u64,
}

/// One of the devices that a [`Striped`] device deals its chunks to.
pub struct Column {
    /// The device.
    pub device: Arc<dyn BlockDevice>,
    /// Where its part begins there, in bytes.
    pub offset: u64,
}

impl Striped {
    /// `size` bytes over the columns, in chunks of `chunk` bytes.
    ///
    /// # Errors
    /// `Refused` if the size is not a whole number of rows of chunks, or a column is too small.
    pub fn new(columns: Vec<Column>, chunk: u64, size: u64) -> Result<Self> {
        let count = columns.len() as u64;
        let row = chunk.checked_mul(count).filter(|row| *row > 0);
        let Some(row) = row.filter(|row| size.is_multiple_of(*row)) else {
            return Err(Error::Refused(format!(
                "{size} bytes cannot be dealt in chunks of {chunk} bytes to {count} devices"
            )));
        };
        let each = size / row * chunk;
        for column in &columns {
            check_range(column.offset, each, column.device.size(), "a stripe")
                .map_err(|e| Error::Refused(e.to_string()))?;
        }
        Ok(Self { columns, chunk, size })
    }

    /// The column that has the byte at `offset`, where it is there, and how many bytes follow in the chunk.
    fn locate(&self, offset: u64) -> (&Column, u64, u64) {
        let count = self.columns.len() as u64;
        let (number, within) = (offset / self.chunk, offset % self.chunk);
        // A remainder of a length is an index, and `new` refuses to have no columns.
        let column = &self.columns[usize::try_from(number % count).unwrap_or_default()];
        (column, column.offset + number / count * self.chunk + within, self.chunk - within)
    }

    /// Calls `each` with the parts of `offset..offset + len`: the device, where on it, and how many bytes.
    fn split(
        &self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&dyn BlockDevice, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let (column, at, rest) = self.locate(offset + done);
            let part = rest.min(len - done);
            each(&*column.device, at, part)?;
            done += part;
        }
        Ok(())
    }

    /// Calls `each` once for each column with its part of `offset..offset + len`, which is one run there.
    fn split_by_column(
        &self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&dyn BlockDevice, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut runs = vec![(0_u64, 0_u64); self.columns.len()];
        let count = self.columns.len() as u64;
        let mut at = offset;
        let end = offset + len;
        // The first and the last row may be partial, what lies between is the same for all columns.
        while at < end {
            let (number, within) = (at / self.chunk, at % self.chunk);
            let index = usize::try_from(number % count).unwrap_or_default();
            let below = number / count * self.chunk + within;
            let row = self.chunk * count;
            let rows = if at.is_multiple_of(row) { (end - at) / row } else { 0 };
            if rows > 0 {
                for run in &mut runs {
                    let start = if run.1 == 0 { number / count * self.chunk } else { run.0 };
                    *run = (start, run.1 + rows * self.chunk);
                }
                at += rows * row;
                continue;
            }
            let part = (self.chunk - within).min(end - at);
            let run = &mut runs[index];
            *run = (if run.1 == 0 { below } else { run.0 }, run.1 + part);
            at += part;
        }
        for (column, (start, len)) in self.columns.iter().zip(runs) {
            if len > 0 {
                each(&*column.device, column.offset + start, len)?;
            }
        }
        Ok(())
    }
}

impl BlockDevice for Striped {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        self.split(offset, buf.len() as u64, |device, at, len| {
            let (now, rest) = std::mem::take(&mut buf).split_at_mut(usize::try_from(len).unwrap_or_default());
            buf = rest;
            device.read_at(at, now)
        })
    }

    fn write_at(&self, offset: u64, mut buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        self.split(offset, buf.len() as u64, |device, at, len| {
            let (now, rest) = buf.split_at(usize::try_from(len).unwrap_or_default());
            buf = rest;
            device.write_at(at, now)
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.columns.iter().try_for_each(|column| column.device.flush())
    }

    fn is_read_only(&self) -> bool {
        self.columns.iter().any(|column| column.device.is_read_only())
    }

    fn logical_sector_size(&self) -> u32 {
        self.columns.iter().map(|column| column.device.logical_sector_size()).max().unwrap_or(512)
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        let knows = self.columns.iter().any(|column| column.device.extents().is_some());
        knows.then_some(self as &dyn MapExtents)
    }

    fn discard(&self) -> Option<&dyn Discard> {
        let can = self.columns.iter().any(|column| column.device.discard().is_some());
        can.then_some(self as &dyn Discard)
    }
}

impl MapExtents for Striped {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        let (column, at, rest) = self.locate(offset);
        match column.device.extents() {
            Some(map) => {
                let below = map.extent_at(at)?;
                Ok(Extent { offset, len: below.len.min(rest), is_hole: below.is_hole })
            }
            None => Ok(Extent { offset, len: rest, is_hole: false }),
        }
    }
}

impl Discard for Striped {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a discard")?;
        self.split_by_column(offset, len, |device, at, part| match device.discard() {
            Some(below) => below.discard(at, part),
            None => Ok(()),
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a write of zeros")?;
        self.split_by_column(offset, len, write_zeroes)
    }
}

#[cfg(test)]
mod tests {
    use vmcraft_block::MemoryDevice;

    use super::*;

    fn columns(count: usize, len: usize) -> Vec<Column> {
        (0..count)
            .map(|_| Column { device: Arc::new(MemoryDevice::new(vec![0xee; len])), offset: 3 })
            .collect()
    }

    #[test] // Chunk 0 to column 0, chunk 1 to column 1, ..., the next row below.
    fn chunks_are_dealt_in_turn() {
        let striped = Striped::new(columns(3, 11), 4, 24).unwrap();
        let bytes: Vec<u8> = (0..24).collect();
        striped.write_at(0, &bytes[..7]).unwrap();
        striped.write_at(7, &bytes[7..]).unwrap();
        let mut second = [0; 8];
        striped.columns[1].device.read_at(3, &mut second).unwrap();
        assert_eq!(second, [4, 5, 6, 7, 16, 17, 18, 19]);
        let mut middle = [0; 13];
        striped.read_at(6, &mut middle).unwrap();
        assert_eq!(middle, bytes[6..19]);
    }

    #[test] // Every range, against zeros written byte by byte.
    fn zeroes_reach_each_column_in_one_run() {
        for start in 0..40_u64 {
            for len in 0..=40 - start {
                let striped = Striped::new(columns(2, 23), 4, 40).unwrap();
                striped.write_zeroes(start, len).unwrap();
                let mut all = [1; 40];
                striped.read_at(0, &mut all).unwrap();
                let expected: Vec<u8> =
                    (0..40).map(|i| if (start..start + len).contains(&i) { 0 } else { 0xee }).collect();
                assert_eq!(all.as_slice(), expected, "{start} {len}");
            }
        }
    }

    #[test]
    fn uneven_and_short_columns_are_refused() {
        assert!(Striped::new(columns(3, 11), 4, 23).is_err());
        assert!(Striped::new(columns(3, 10), 4, 24).is_err());
        assert!(Striped::new(columns(3, 10), 0, 0).is_err());
        assert!(Striped::new(Vec::new(), 4, 0).is_err());
    }
}
