//! The label of a physical volume, and the header behind it: its identifier, and where its areas are.
//!
//! Spec: LVM2 `lib/format_text/layout.h` and `lib/label/label.h` name these structures; `pvck --dump headers` prints
//! them. All numbers are little-endian.

use vmcraft_block::BlockDevice;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::uuid::LvmUuid;
use crate::signature::crc32_from;
use crate::{Error, Result};

/// LVM's sector, in bytes, whatever the device's is.
pub(crate) const SECTOR: u64 = 512;
/// The label is in one of so many first sectors.
const LABEL_SECTORS: u64 = 4;
/// What LVM's checksums start from.
const CRC_START: u32 = 0xf597_a6cf;
/// The version of the extension that LVM writes since 2.02.157.
const EXTENSION_VERSION: u32 = 2;
/// Extension: the physical volume is part of a volume group.
const EXTENSION_USED: u32 = 1;

/// LVM's checksum of metadata.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc32_from(CRC_START, bytes)
}

/// The sector of the label: 512 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLabel {
    /// 0: always `LABELONE`.
    id: [u8; 8],
    /// 8: in which sector of the device it is.
    sector: U64,
    /// 16: the checksum of all that follows in the sector.
    crc: U32,
    /// 20: where the header of the physical volume is, in bytes from the start of the sector.
    offset: U32,
    /// 24: always `LVM2 001`.
    kind: [u8; 8],
    /// 32: the header of the physical volume.
    rest: [u8; 480],
}
const _: () = assert!(size_of::<RawLabel>() == 512);

/// The fixed start of the header of a physical volume. Two lists of [`RawLocation`]s follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0: the identifier, without dashes.
    uuid: [u8; 32],
    /// 32: the size of the device when this was written, in bytes.
    device_size: U64,
}
const _: () = assert!(size_of::<RawHeader>() == 40);

/// A range of the device, in bytes; both 0 at the end of a list.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawLocation {
    offset: U64,
    size: U64,
}

/// The start of the extension, which follows the second list. A list of bootloader areas follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtension {
    /// 0: 0 where there is no extension.
    version: U32,
    /// 4: 1 = part of a volume group.
    flags: U32,
}

/// A range of bytes of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes. 0 for a data area that goes on to the end of the device.
    pub len: u64,
}

/// The label of a physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The sector of 512 bytes that it is in, from 0 to 3.
    pub sector: u64,
    /// The identifier.
    pub uuid: LvmUuid,
    /// The size of the device when the label was written, in bytes.
    pub device_size: u64,
    /// Where the data is.
    pub data: Vec<Range>,
    /// Where metadata is: none, one or two areas.
    pub metadata: Vec<Range>,
    /// Where a bootloader may be.
    pub bootloader: Vec<Range>,
    /// The version of the header's extension; 0 where there is none.
    pub extension_version: u32,
    /// Whether the extension says that it is part of a volume group.
    pub is_used: bool,
}

/// Reads what follows in the sector.
struct Fields<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl Fields<'_> {
    fn take<T: FromBytes + Immutable + KnownLayout + Unaligned + Copy>(&mut self, what: &str) -> Result<T> {
        match T::read_from_prefix(self.rest) {
            Ok((value, rest)) => {
                self.offset += size_of::<T>() as u64;
                self.rest = rest;
                Ok(value)
            }
            Err(_) => Err(Error::Corrupt {
                what: format!("{what}: beyond the label's sector"),
                offset: self.offset,
            }),
        }
    }

    fn locations(&mut self, what: &str) -> Result<Vec<Range>> {
        let mut list = Vec::new(); // as many as the sector holds
        loop {
            let location: RawLocation = self.take(what)?;
            let range = Range { offset: location.offset.get(), len: location.size.get() };
            if range.offset == 0 {
                return Ok(list);
            }
            if range.offset.checked_add(range.len).is_none() {
                return Err(Error::Corrupt { what: format!("{what}: its size"), offset: self.offset - 8 });
            }
            list.push(range);
        }
    }
}

impl Label {
    /// Finds the label of a device. `None` where there is none.
    ///
    /// # Errors
    /// `Corrupt` for a label that is damaged, `Unsupported` for the label of another version of LVM.
    pub fn read(device: &dyn BlockDevice) -> Result<Option<Self>> {
        let mut damaged = None;
        for sector in 0..LABEL_SECTORS.min(device.size() / SECTOR) {
            let mut raw = RawLabel::new_zeroed();
            device.read_at(sector * SECTOR, raw.as_mut_bytes())?;
            if sector == 0 && is_lvm1(raw.as_bytes()) {
                return Err(Error::Unsupported(
                    "a physical volume of LVM1: convert it with vgconvert of an LVM2 before 2.02.180".into(),
                ));
            }
            if raw.id != *b"LABELONE" {
                continue;
            }
            match Self::decode(&raw, sector) {
                Ok(label) => return Ok(Some(label)),
                Err(e) => damaged = damaged.or(Some(e)),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    fn decode(raw: &RawLabel, sector: u64) -> Result<Self> {
        let start = sector * SECTOR;
        let corrupt = |what: &str, at: u64| Error::Corrupt { what: what.into(), offset: start + at };
        if raw.crc.get() != checksum(&raw.as_bytes()[20..]) {
            return Err(corrupt("label of a physical volume: checksum", 16));
        }
        if raw.sector.get() != sector {
            return Err(corrupt("label of a physical volume: it is for another sector", 8));
        }
        if raw.kind != *b"LVM2 001" {
            let kind = String::from_utf8_lossy(&raw.kind).into_owned();
            return Err(Error::Unsupported(format!("physical volumes of type {kind:?}")));
        }
        let offset = u64::from(raw.offset.get());
        let rest = usize::try_from(offset).ok().filter(|offset| *offset >= 32);
        let rest = rest.and_then(|offset| raw.as_bytes().get(offset..));
        let rest = rest.ok_or_else(|| corrupt("label of a physical volume: offset of its header", 20))?;
        let mut fields = Fields { rest, offset: start + offset };
        let uuid: [u8; 32] = fields.take("header of a physical volume")?;
        let uuid = LvmUuid::decode(&uuid)
            .ok_or_else(|| corrupt("header of a physical volume: identifier", offset))?;
        let device_size: U64 = fields.take("header of a physical volume")?;
        let data = fields.locations("data area of a physical volume")?;
        let metadata = fields.locations("metadata area of a physical volume")?;
        // Headers of old versions end here, in zeros or at the end of the sector.
        let extension = fields.take::<[U32; 2]>("extension").map_or((0, 0), |e| (e[0].get(), e[1].get()));
        let bootloader = match extension.0 {
            0 => Vec::new(),
            _ => fields.locations("bootloader area of a physical volume")?,
        };
        Ok(Self {
            sector,
            uuid,
            device_size: device_size.get(),
            data,
            metadata,
            bootloader,
            extension_version: extension.0,
            is_used: extension.0 >= 2 && extension.1 & EXTENSION_USED != 0,
        })
    }

    /// The sector with the label, as LVM writes it.
    ///
    /// # Errors
    /// `Refused` for more areas than the sector holds.
    pub(crate) fn encode(&self) -> Result<[u8; 512]> {
        let mut body = Vec::with_capacity(480);
        let header = RawHeader { uuid: *self.uuid.as_bytes(), device_size: self.device_size.into() };
        body.extend_from_slice(header.as_bytes());
        let list = |body: &mut Vec<u8>, ranges: &[Range]| {
            for range in ranges.iter().chain([&Range { offset: 0, len: 0 }]) {
                let raw = RawLocation { offset: range.offset.into(), size: range.len.into() };
                body.extend_from_slice(raw.as_bytes());
            }
        };
        list(&mut body, &self.data);
        list(&mut body, &self.metadata);
        let flags = if self.is_used { EXTENSION_USED } else { 0 };
        let extension = RawExtension { version: EXTENSION_VERSION.into(), flags: flags.into() };
        body.extend_from_slice(extension.as_bytes());
        list(&mut body, &self.bootloader);
        let mut raw = RawLabel::new_zeroed();
        let target = raw.rest.get_mut(..body.len());
        target
            .ok_or_else(|| Error::Refused("more areas than the label of a physical volume holds".into()))?
            .copy_from_slice(&body);
        raw.id = *b"LABELONE";
        raw.sector = self.sector.into();
        raw.offset = 32.into();
        raw.kind = *b"LVM2 001";
        raw.crc = checksum(&raw.as_bytes()[20..]).into();
        Ok(zerocopy::transmute!(raw))
    }
}

/// The header of LVM1: `HM`, the version, and that this header is the first 1024 bytes.
fn is_lvm1(sector: &[u8]) -> bool {
    matches!(sector, [b'H', b'M', 1 | 2, 0, 0, 0, 0, 0, 0, 4, 0, 0, ..])
}

#[cfg(test)]
mod tests {
    use vmcraft_block::MemoryDevice;

    use super::*;

    fn label() -> Label {
        Label {
            sector: 1,
            uuid: "tRLMrk-K2A0-5CAb-cfWF-lyZB-0vFc-c1UM2x".parse().unwrap(),
            device_size: 64 << 20,
            data: vec![Range { offset: 1 << 20, len: 0 }],
            metadata: vec![Range { offset: 4096, len: (1 << 20) - 4096 }],
            bootloader: Vec::new(),
            extension_version: 2,
            is_used: true,
        }
    }

    #[test] // The checksum is what pvcreate 2.03.16 wrote for these very values.
    fn label_is_what_pvcreate_writes() {
        let bytes = label().encode().unwrap();
        assert_eq!(bytes[16..20], 0xf3e0_12d5_u32.to_le_bytes());
        let mut disk = vec![0; 4096];
        disk[512..1024].copy_from_slice(&bytes);
        assert_eq!(Label::read(&MemoryDevice::new(disk)).unwrap(), Some(label()));
    }

    #[test] // Each byte of the header is under the checksum, and each field is checked under a right one.
    fn damaged_labels_are_named() {
        let sound = label().encode().unwrap();
        let read = |bytes: &[u8; 512]| {
            let mut disk = vec![0; 2048];
            disk[512..1024].copy_from_slice(bytes);
            Label::read(&MemoryDevice::new(disk))
        };
        for at in 8..512 {
            let mut bytes = sound;
            bytes[at] ^= 0x40;
            assert!(read(&bytes).is_err(), "byte {at}");
        }
        for (at, value, message) in [
            (20, 600_u64, "offset of its header at byte 0x214"),
            (20, 500, "beyond the label's sector"),
            (32, 0, "identifier at byte 0x220"),
            (80, u64::MAX, "data area of a physical volume: its size"),
        ] {
            let mut bytes = sound;
            let len = if at == 20 { 4 } else { 8 };
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            let crc = checksum(&bytes[20..]);
            bytes[16..20].copy_from_slice(&crc.to_le_bytes());
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{at}: {error}");
        }
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let mut disk = vec![0; 2048];
        disk[..12].copy_from_slice(b"HM\x02\0\0\0\0\0\0\x04\0\0");
        let error = Label::read(&MemoryDevice::new(disk)).unwrap_err().to_string();
        assert!(error.contains("LVM1"), "{error}");
    }
}
