//! The first sector of a volume of Windows Vista: an NTFS boot sector with two fields changed.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};

use crate::Result;

/// Where the name of the file system is.
const OEM_ID: std::ops::Range<usize> = 0x03..0x0b;
/// Where the cluster of `$MFTMirr` is, in whose place BitLocker has the cluster of its metadata.
const MIRROR: std::ops::Range<usize> = 0x38..0x40;

/// The sector as NTFS has it.
pub(super) struct FirstSector {
    inner: Arc<dyn BlockDevice>,
    sector_size: u32,
    /// The cluster of `$MFTMirr`, which the metadata has.
    mirror: [u8; 8],
    /// What BitLocker has in the places of the two fields.
    oem_id: Vec<u8>,
    metadata: Vec<u8>,
}

impl FirstSector {
    pub(super) fn new(inner: Arc<dyn BlockDevice>, sector_size: u32, mirror: u64) -> Result<Self> {
        let mut sector = [0; 512];
        inner.read_at(0, &mut sector)?;
        let (oem_id, metadata) = (sector[OEM_ID].to_vec(), sector[MIRROR].to_vec());
        Ok(Self { inner, sector_size, mirror: mirror.to_le_bytes(), oem_id, metadata })
    }

    /// The whole sector.
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut sector = vec![0; self.sector_size as usize];
        self.inner.read_at(0, &mut sector)?;
        sector[OEM_ID].copy_from_slice(b"NTFS    ");
        sector[MIRROR].copy_from_slice(&self.mirror);
        Ok(sector)
    }
}

/// Where a request of `len` bytes at `offset`, which was checked, is in the sector.
fn range(offset: u64, len: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(len)
}

impl BlockDevice for FirstSector {
    fn size(&self) -> u64 {
        self.sector_size.into()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size(), "a read")?;
        buf.copy_from_slice(&self.read()?[range(offset, buf.len())]);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size(), "a write")?;
        let mut sector = self.read()?;
        sector[range(offset, buf.len())].copy_from_slice(buf);
        if sector[OEM_ID] != *b"NTFS    " || sector[MIRROR] != self.mirror {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the first sector of a BitLocker volume of Windows Vista must stay that of the same NTFS volume",
            ));
        }
        sector[OEM_ID].copy_from_slice(&self.oem_id);
        sector[MIRROR].copy_from_slice(&self.metadata);
        self.inner.write_at(0, &sector)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        self.inner.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}
