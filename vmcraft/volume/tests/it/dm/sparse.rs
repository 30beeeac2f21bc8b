//! A large device of which little is written.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};

const PAGE: usize = 512;
const PAGE_BYTES: u64 = PAGE as u64;

/// Sectors by number; the others are zeros.
pub(super) struct Sparse {
    size: u64,
    pages: Mutex<HashMap<u64, [u8; PAGE]>>,
}

impl Sparse {
    pub(super) fn new(size: u64) -> Self {
        Self { size, pages: Mutex::new(HashMap::new()) }
    }

    /// How many sectors are not zeros.
    pub(super) fn used(&self) -> usize {
        self.pages.lock().unwrap().len()
    }

    /// The parts of a range, sector by sector: the sector, and the range's part of it.
    fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let within = usize::try_from(at % PAGE_BYTES).unwrap();
            let part = (PAGE - within).min(len - done);
            let range = done..done + part;
            done += part;
            (part > 0).then_some((at / PAGE_BYTES, within, range))
        })
    }
}

impl BlockDevice for Sparse {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        let pages = self.pages.lock().unwrap();
        for (page, within, range) in Self::parts(offset, buf.len()) {
            let len = range.len();
            match pages.get(&page) {
                Some(bytes) => buf[range].copy_from_slice(&bytes[within..within + len]),
                None => buf[range].fill(0),
            }
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        let mut pages = self.pages.lock().unwrap();
        for (page, within, range) in Self::parts(offset, buf.len()) {
            let bytes = pages.entry(page).or_insert([0; PAGE]);
            bytes[within..within + range.len()].copy_from_slice(&buf[range]);
            if bytes.iter().all(|byte| *byte == 0) {
                pages.remove(&page);
            }
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl Discard for Sparse {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a write of zeros")?;
        self.pages
            .lock()
            .unwrap()
            .retain(|page, _| *page * PAGE_BYTES < offset || *page * PAGE_BYTES >= offset + len);
        Ok(())
    }
}
