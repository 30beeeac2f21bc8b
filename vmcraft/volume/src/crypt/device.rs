//! The device that decrypts and encrypts.

use std::io;
use std::sync::{Arc, RwLock};

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};

use super::{SectorCipher, Sectors};
use crate::{Error, Result};

/// What is read or written at once: small enough for the processor's cache, where decryption finds it again.
const CHUNK_BYTES: usize = 256 << 10;

/// Where the encrypted sectors are, and how they are numbered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CryptLayout {
    /// Where they begin on the device below, in bytes.
    pub(crate) offset: u64,
    /// How long they are together, in bytes. What is not a whole sector at the end is left out.
    pub(crate) size: u64,
    /// The size of a sector in bytes: 512, 1024, 2048 or 4096.
    pub(crate) sector_size: u32,
    /// The number of the first sector, in 512 bytes or in sectors as `iv_large_sectors` says.
    pub(crate) iv_offset: u64,
    /// Whether numbers count sectors; else they count 512 bytes whatever the sector's size is.
    pub(crate) iv_large_sectors: bool,
}

/// A device whose sectors are encrypted on the device below.
pub(crate) struct CryptDevice {
    inner: Arc<dyn BlockDevice>,
    cipher: Box<dyn SectorCipher>,
    layout: CryptLayout,
    /// Held for writing while a part of a sector is changed, so that no other change of the sector is lost.
    partial: RwLock<()>,
}

impl CryptDevice {
    /// The decrypted view of a part of `inner`.
    ///
    /// # Errors
    /// `Unsupported` for a sector size that dm-crypt does not have; `Io` (`UnexpectedEof`) if the part is not wholly on
    /// the device.
    pub(crate) fn new(
        inner: Arc<dyn BlockDevice>,
        cipher: Box<dyn SectorCipher>,
        mut layout: CryptLayout,
    ) -> Result<Self> {
        let sector = layout.sector_size;
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
            return Err(Error::Unsupported(format!("encrypted sectors of {sector} bytes")));
        }
        check_range(layout.offset, layout.size, inner.size(), "an encrypted area")?;
        layout.size -= layout.size % u64::from(sector);
        Ok(Self { inner, cipher, layout, partial: RwLock::new(()) })
    }

    fn sector_bytes(&self) -> usize {
        self.layout.sector_size as usize
    }

    /// The numbers of the sectors from `offset`, which is the start of one.
    fn sectors(&self, offset: u64) -> Sectors {
        let unit = if self.layout.iv_large_sectors { u64::from(self.layout.sector_size) } else { 512 };
        Sectors {
            size: self.sector_bytes(),
            first: self.layout.iv_offset.wrapping_add(offset / unit),
            step: u64::from(self.layout.sector_size) / unit,
        }
    }

    /// Reads and decrypts whole sectors.
    fn read_sectors(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut offset = offset;
        for chunk in data.chunks_mut(CHUNK_BYTES) {
            self.inner.read_at(self.layout.offset + offset, chunk)?;
            self.cipher.decrypt(self.sectors(offset), chunk);
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    /// Encrypts whole sectors, with `buffer` for their encrypted form, and writes them.
    fn write_sectors(&self, offset: u64, data: &[u8], buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut offset = offset;
        for chunk in data.chunks(CHUNK_BYTES) {
            buffer.clear();
            buffer.extend_from_slice(chunk);
            self.cipher.encrypt(self.sectors(offset), buffer);
            self.inner.write_at(self.layout.offset + offset, buffer)?;
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    /// The parts of a request: where the sector begins, where in it, and how many bytes; whole sectors in one part.
    fn parts(&self, offset: u64, len: usize) -> impl Iterator<Item = Part> + use<> {
        let sector = self.sector_bytes();
        let mut done = 0;
        std::iter::from_fn(move || {
            let left = len - done;
            if left == 0 {
                return None;
            }
            let at = offset + done as u64;
            // The remainder is less than a sector.
            let skip = usize::try_from(at % sector as u64).unwrap_or(0);
            let len = if skip > 0 || left < sector { left.min(sector - skip) } else { left - left % sector };
            done += len;
            Some(Part {
                sector: at - skip as u64,
                skip,
                len,
                is_whole: skip == 0 && len.is_multiple_of(sector),
            })
        })
    }

    fn writable(&self) -> io::Result<()> {
        if self.inner.is_read_only() {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the device is open read-only"));
        }
        Ok(())
    }
}

/// A part of a request: whole sectors, or a piece of one.
struct Part {
    /// Where its first sector begins.
    sector: u64,
    /// The bytes of that sector before it.
    skip: usize,
    len: usize,
    is_whole: bool,
}

impl BlockDevice for CryptDevice {
    fn size(&self) -> u64 {
        self.layout.size
    }

    fn read_at(&self, offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.layout.size, "a read")?;
        for part in self.parts(offset, buf.len()) {
            let (data, rest) = buf.split_at_mut(part.len);
            buf = rest;
            if part.is_whole {
                self.read_sectors(part.sector, data)?;
            } else {
                let mut sector = [0; 4096];
                let sector = &mut sector[..self.sector_bytes()];
                self.read_sectors(part.sector, sector)?;
                data.copy_from_slice(&sector[part.skip..part.skip + part.len]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, mut buf: &[u8]) -> io::Result<()> {
        self.writable()?;
        check_range(offset, buf.len() as u64, self.layout.size, "a write")?;
        let mut buffer = Vec::with_capacity(buf.len().min(CHUNK_BYTES));
        for part in self.parts(offset, buf.len()) {
            let (data, rest) = buf.split_at(part.len);
            buf = rest;
            if part.is_whole {
                let _shared = self.partial.read().unwrap_or_else(|e| e.into_inner());
                self.write_sectors(part.sector, data, &mut buffer)?;
            } else {
                let _alone = self.partial.write().unwrap_or_else(|e| e.into_inner());
                let mut sector = [0; 4096];
                let sector = &mut sector[..self.sector_bytes()];
                self.read_sectors(part.sector, sector)?;
                sector[part.skip..part.skip + part.len].copy_from_slice(data);
                self.write_sectors(part.sector, sector, &mut buffer)?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn logical_sector_size(&self) -> u32 {
        self.inner.logical_sector_size().max(self.layout.sector_size)
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        // A hole below reads as zeros there, and as noise here.
        None
    }

    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl Discard for CryptDevice {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        check_range(offset, len, self.layout.size, "a discard")?;
        let Some(below) = self.inner.discard() else { return Ok(()) };
        let sector = u64::from(self.layout.sector_size);
        let (start, end) = (offset.next_multiple_of(sector), (offset + len) / sector * sector);
        if start < end { below.discard(self.layout.offset + start, end - start) } else { Ok(()) }
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.layout.size, "a write of zeros")?;
        // Zeros below are not zeros here, so there is no space to give back.
        let zeros = vec![0; CHUNK_BYTES.min(usize::try_from(len).unwrap_or(CHUNK_BYTES))];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(zeros.len()).min(zeros.len());
            self.write_at(at, &zeros[..part])?;
            at += part as u64;
        }
        Ok(())
    }
}
