//! The old target `mirror`: legs that are kept alike, and a log of the regions where they are.
//!
//! The first leg always has the content. The others have it in regions that the log calls clean;
//! Linux copies the rest from the first leg when it starts the mirror. What is written goes to all
//! legs, so the log stays as it is: a region that was clean is clean still.
//!
//! Spec: Linux `drivers/md/dm-raid1.c` and `drivers/md/dm-log.c`.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, MapExtents, Slice, check_range};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Result};

/// "MiRr", little-endian.
const MAGIC: u32 = 0x4d69_5272;
const VERSION: u32 = 2;
/// Where the bits begin on the log's device, in bytes.
const BITS: u64 = 1024;
/// How many regions a log may tell of, and so how much of it is read: a bit each. LVM's are of half a MiB and more.
const MOST_REGIONS: u64 = 1 << 30;

/// The header of a log on disk: the first 16 bytes of its device, little-endian.
///
/// Spec: Linux `drivers/md/dm-log.c`, `struct log_header_disk`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLog {
    /// 0: [`MAGIC`].
    magic: U32,
    /// 4: [`VERSION`].
    version: U32,
    /// 8: how many regions have a bit, of those that were ever active.
    nr_regions: U64,
}
const _: () = assert!(size_of::<RawLog>() == 16);

/// Where it is noted which regions are alike on all legs.
pub enum Log {
    /// In the kernel's memory: nothing is known of it now.
    Core,
    /// On a device.
    Disk(Arc<dyn BlockDevice>),
}

/// A mirror.
pub struct Mirror {
    /// `None` for those that are missing.
    legs: Vec<Option<Slice<Arc<dyn BlockDevice>>>>,
    len: u64,
}

impl Mirror {
    /// A mirror of `len` bytes over legs that begin at a byte of their device; `None` is a leg that is
    /// missing.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if no leg is there that has all of the content.
    pub fn new(
        legs: Vec<Option<(Arc<dyn BlockDevice>, u64)>>,
        len: u64,
        log: &Log,
        region_bytes: u64,
    ) -> Result<Self> {
        let mut found = Vec::with_capacity(legs.len());
        for leg in legs {
            found.push(leg.map(|(device, offset)| Slice::new(device, offset, len)).transpose()?);
        }
        if found.iter().all(Option::is_none) {
            return Err(Error::Incomplete("all legs of the mirror are missing".into()));
        }
        if found.first().is_none_or(Option::is_none) {
            match log {
                Log::Core => {
                    return Err(Error::Incomplete(
                        "the first leg of the mirror is missing, and its log (core) does not tell whether \
                         the others are alike"
                            .into(),
                    ));
                }
                Log::Disk(device) => {
                    let log = Regions::read(&**device, len, region_bytes)?;
                    if let Some(region) = log.first_unclean {
                        return Err(Error::Incomplete(format!(
                            "the first leg of the mirror is missing, and the others are not alike at byte {:#x}",
                            region.saturating_mul(region_bytes)
                        )));
                    }
                }
            }
        }
        Ok(Self { legs: found, len })
    }

    /// The leg that is read.
    fn leg(&self) -> io::Result<&Slice<Arc<dyn BlockDevice>>> {
        self.legs.iter().flatten().next().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What a log on disk says of the regions of a mirror.
pub(crate) struct Regions {
    /// How many there are.
    pub(crate) all: u64,
    /// How many are alike on all legs.
    pub(crate) clean: u64,
    /// The first that is not.
    first_unclean: Option<u64>,
}

impl Regions {
    /// Reads the log of a mirror of `len` bytes.
    pub(crate) fn read(device: &dyn BlockDevice, len: u64, region_bytes: u64) -> Result<Self> {
        let mut header = [0; size_of::<RawLog>()];
        device.read_at(0, &mut header)?;
        let corrupt = |what: &str, offset| Error::Corrupt { what: format!("mirror log ({what})"), offset };
        let raw = RawLog::read_from_bytes(&header).map_err(|_| corrupt("size", 0))?;
        if raw.magic.get() != MAGIC {
            return Err(corrupt("magic number", 0));
        }
        if raw.version.get() != VERSION {
            return Err(Error::Unsupported(format!(
                "version {} of a mirror's log (only version {VERSION} is known)",
                raw.version.get()
            )));
        }
        if region_bytes == 0 {
            return Err(Error::Refused("a mirror with regions of 0 bytes".into()));
        }
        let regions = len.div_ceil(region_bytes);
        if regions > MOST_REGIONS {
            return Err(Error::Refused(format!(
                "a mirror of {regions} regions of {region_bytes} bytes (the limit is {MOST_REGIONS})"
            )));
        }
        // A mirror that grew has regions that were never alike.
        let known = regions.min(raw.nr_regions.get());
        let mut buffer = [0; 4096];
        let (mut region, mut clean, mut first_unclean) = (0, 0, None);
        while region < known {
            let wanted = (known - region).div_ceil(8).min(buffer.len() as u64);
            let bits = &mut buffer[..usize::try_from(wanted).map_err(io::Error::other)?];
            device.read_at(BITS + region / 8, bits)?;
            for byte in bits {
                // The bits behind the last region may be set.
                let counted = u8::MAX >> 8_u64.saturating_sub(known - region);
                let set = *byte & counted;
                clean += u64::from(set.count_ones());
                if set != counted && first_unclean.is_none() {
                    first_unclean = Some(region + u64::from(set.trailing_ones()));
                }
                region = (region + 8).min(known);
            }
        }
        let first_unclean = first_unclean.or((known < regions).then_some(known));
        Ok(Self { all: regions, clean, first_unclean })
    }
}

impl BlockDevice for Mirror {
    fn size(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.leg()?.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.len, "a write")?;
        if self.legs.iter().any(Option::is_none) {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the mirror cannot be written: a leg is missing, and would be out of date",
            ));
        }
        for leg in self.legs.iter().flatten() {
            leg.write_at(offset, buf)?;
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.legs.iter().flatten().try_for_each(BlockDevice::flush)
    }
    fn is_read_only(&self) -> bool {
        self.legs.iter().any(|leg| leg.as_ref().is_none_or(BlockDevice::is_read_only))
    }
    fn logical_sector_size(&self) -> u32 {
        self.legs.iter().flatten().map(BlockDevice::logical_sector_size).max().unwrap_or(512)
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.leg().ok()?.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        let can =
            |leg: &Option<Slice<_>>| leg.as_ref().is_some_and(|leg| BlockDevice::discard(leg).is_some());
        self.legs.iter().all(can).then_some(self)
    }
}

impl Discard for Mirror {
    /// The legs stay alike, so the range is made zeros, where these take no space.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.len, "a discard")?;
        if self.legs.iter().flatten().all(|leg| leg.extents().is_some()) {
            return self.write_zeroes(offset, len);
        }
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.len, "a write of zeros")?;
        for leg in &self.legs {
            let discard = leg.as_ref().and_then(BlockDevice::discard).ok_or(io::ErrorKind::Unsupported)?;
            discard.write_zeroes(offset, len)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use vmcraft_block::MemoryDevice;

    use super::*;

    fn memory(bytes: Vec<u8>) -> Arc<dyn BlockDevice> {
        Arc::new(MemoryDevice::new(bytes))
    }

    fn log(version: u8, regions: u8, bits: &[u8]) -> Log {
        let mut bytes = vec![0; 2048];
        bytes[..4].copy_from_slice(b"rRiM");
        (bytes[4], bytes[8]) = (version, regions);
        bytes[1024..1024 + bits.len()].copy_from_slice(bits);
        Log::Disk(memory(bytes))
    }

    #[test] // Both legs get what is written, at their own offsets, and nothing else changes.
    fn writes_go_to_all_legs() {
        let legs = [memory(vec![0; 8192]), memory(vec![0; 8192])];
        let given = vec![Some((legs[0].clone(), 512)), Some((legs[1].clone(), 4096))];
        let mirror = Mirror::new(given, 4096, &Log::Core, 1024).unwrap();
        assert!(!mirror.is_read_only());
        mirror.write_at(100, &[7; 50]).unwrap();
        assert!(mirror.write_at(4090, &[7; 50]).is_err());
        for (leg, start) in legs.iter().zip([512, 4096]) {
            let mut bytes = vec![0; 8192];
            leg.read_at(0, &mut bytes).unwrap();
            let written: Vec<_> = (0..8192).filter(|at| bytes[*at] == 7).collect();
            assert_eq!(written, (start + 100..start + 150).collect::<Vec<_>>());
        }
    }

    #[test] // Without the first leg, the log must call every region clean.
    fn another_leg_is_read_only_if_the_log_vouches_for_it() {
        let open = |log: &Log| {
            let legs = vec![None, Some((memory(vec![5; 12 * 1024]), 0))];
            Mirror::new(legs, 12 * 1024, log, 1024)
        };
        let why = |log: Log| open(&log).map(|_| ()).unwrap_err().to_string();
        let mirror = open(&log(2, 12, &[0xff, 0x0f])).unwrap();
        let mut byte = [0];
        mirror.read_at(12_000, &mut byte).unwrap();
        assert_eq!(byte, [5]);
        assert!(mirror.is_read_only());
        assert_eq!(mirror.write_at(0, &[1]).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(why(log(2, 12, &[0xff, 0x0b])).contains("at byte 0x2800"));
        assert!(why(log(2, 11, &[0xff, 0x0f])).contains("at byte 0x2c00"), "it grew");
        assert!(why(log(1, 12, &[0xff, 0x0f])).contains("version 1"));
        assert!(why(Log::Disk(memory(vec![0; 2048]))).contains("magic"));
        assert!(why(Log::Core).contains("core"));
        assert!(Mirror::new(vec![None, None], 512, &Log::Core, 1024).is_err());
    }

    #[test] // A sparse disk can be as large as it says, and so can the log on it.
    fn a_log_without_end_is_refused() {
        let Log::Disk(device) = log(2, 12, &[0xff, 0xff]) else { unreachable!("on a device") };
        let why = Regions::read(&*device, 1 << 60, 512).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("a mirror of 2251799813685248 regions of 512 bytes"), "{why}");
        // The bits behind the last region count for nothing.
        let found = Regions::read(&*device, 12 * 512, 512).unwrap();
        assert_eq!((found.all, found.clean, found.first_unclean), (12, 12, None));
        let Log::Disk(device) = log(2, 12, &[0xff, 0x03]) else { unreachable!("on a device") };
        let found = Regions::read(&*device, 14 * 512, 512).unwrap();
        assert_eq!((found.all, found.clean, found.first_unclean), (14, 10, Some(10)));
    }
}
