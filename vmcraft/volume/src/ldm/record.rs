//! The records of a database: volumes, their components, the partitions of these, and disks.
//!
//! After a header, numbers are a byte with their length and that many bytes, big-endian; texts likewise.

use uuid::Uuid;

use super::privhead;
use crate::{Error, Result};

/// Bits of a record's `flags`, which say what stands at its end.
const VOLUME_ID1: u8 = 0x08;
const VOLUME_ID2: u8 = 0x20;
const VOLUME_SIZE2: u8 = 0x80;
const VOLUME_HINT: u8 = 0x02;
const COMPONENT_CHUNK: u8 = 0x10;
const PARTITION_INDEX: u8 = 0x08;

/// A record that matters to what volumes there are.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Volume(VolumeRecord),
    Component(ComponentRecord),
    Partition(PartitionRecord),
    Disk(DiskRecord),
}

#[derive(Debug, Clone)]
pub(super) struct VolumeRecord {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) is_raid5: bool,
    /// Such as `ACTIVE`.
    pub(super) state: String,
    pub(super) components: u64,
    pub(super) sectors: u64,
    /// As the type byte of MBR partitions.
    pub(super) partition_type: u8,
    pub(super) guid: Uuid,
    /// Such as `E:`.
    pub(super) hint: Option<String>,
}

/// How the partitions of a component are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrangement {
    Striped,
    Concatenated,
    Raid5,
}

#[derive(Debug, Clone)]
pub(super) struct ComponentRecord {
    pub(super) id: u64,
    pub(super) name: String,
    /// Such as `ACTIVE`.
    pub(super) state: String,
    pub(super) arrangement: Arrangement,
    pub(super) partitions: u64,
    pub(super) volume: u64,
    /// In sectors.
    pub(super) chunk: u64,
    pub(super) offset: u64,
}

#[derive(Debug, Clone)]
pub(super) struct PartitionRecord {
    pub(super) name: String,
    /// In sectors from the start of the disk's data.
    pub(super) start: u64,
    /// In sectors from the start of the component.
    pub(super) volume_offset: u64,
    pub(super) sectors: u64,
    pub(super) component: u64,
    pub(super) disk: u64,
    /// The column of a striped component.
    pub(super) index: u64,
    pub(super) offset: u64,
}

#[derive(Debug, Clone)]
pub(super) struct DiskRecord {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) guid: Uuid,
}

impl Record {
    /// Decodes a record with its header; `None` for one that does not matter: a disk group's, or a free one.
    pub(super) fn decode(bytes: &[u8], offset: u64) -> Result<Option<Self>> {
        let mut fields = Fields { bytes, at: 0, offset };
        let status = u16::from_be_bytes(*fields.array("the status")?);
        let [flags, kind] = *fields.array("the type")?;
        let size = u32::from_be_bytes(*fields.array("the size")?);
        if kind == 0 {
            return Ok(None);
        }
        if status != 0 {
            return Err(Error::Unsupported(
                "an LDM record in the middle of a change (let Windows finish it first)".into(),
            ));
        }
        let len = usize::try_from(size).ok().and_then(|size| fields.at.checked_add(size));
        let Some(whole) = len.and_then(|len| bytes.get(..len)) else {
            return Err(fields.corrupt("the size"));
        };
        fields.bytes = whole;
        match kind {
            0x51 => fields.volume(flags).map(|volume| Some(Self::Volume(volume))),
            0x32 => fields.component(flags).map(|component| Some(Self::Component(component))),
            0x33 => fields.partition(flags).map(|partition| Some(Self::Partition(partition))),
            0x34 => {
                let (id, name) = (fields.number("the id")?, fields.text("the name")?);
                let guid = privhead::guid(fields.bytes("the GUID")?);
                let guid = guid.ok_or_else(|| fields.corrupt("the GUID of a disk"))?;
                Ok(Some(Self::Disk(DiskRecord { id, name, guid })))
            }
            0x44 => {
                let (id, name) = (fields.number("the id")?, fields.text("the name")?);
                let guid = Uuid::from_bytes(*fields.array("the GUID")?);
                Ok(Some(Self::Disk(DiskRecord { id, name, guid })))
            }
            0x35 | 0x45 => Ok(None),
            _ => Err(Error::Unsupported(format!(
                "an LDM record of type {} and revision {}",
                kind & 0x0f,
                kind >> 4
            ))),
        }
    }

    pub(super) fn is_volume(&self) -> bool {
        matches!(self, Self::Volume(_))
    }

    pub(super) fn is_component(&self) -> bool {
        matches!(self, Self::Component(_))
    }

    pub(super) fn is_partition(&self) -> bool {
        matches!(self, Self::Partition(_))
    }

    pub(super) fn is_disk(&self) -> bool {
        matches!(self, Self::Disk(_))
    }
}

/// A record that is read from its start to its end.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the record begins, in bytes from the start of the disk.
    offset: u64,
}

impl<'a> Fields<'a> {
    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt { what: format!("LDM record: {what}"), offset: self.offset + self.at as u64 }
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.corrupt(what))?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<&'a [u8; N]> {
        let bytes = self.take(N, what)?;
        bytes.try_into().map_err(|_| self.corrupt(what))
    }

    fn byte(&mut self, what: &str) -> Result<u8> {
        self.array(what).map(|[byte]| *byte)
    }

    /// Bytes with their length before them.
    fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let len = self.byte(what)?;
        self.take(len.into(), what)
    }

    fn number(&mut self, what: &str) -> Result<u64> {
        let bytes = self.bytes(what)?;
        if bytes.len() > 8 {
            return Err(self.corrupt(what));
        }
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, what: &str) -> Result<String> {
        Ok(text(self.bytes(what)?))
    }

    /// A number of 8 bytes.
    fn fixed(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn volume(&mut self, flags: u8) -> Result<VolumeRecord> {
        let (id, name) = (self.number("the id of a volume")?, self.text("the name of a volume")?);
        self.bytes("the layout of a volume")?; // `gen` or `raid5`
        self.bytes("an unknown text of a volume")?;
        let state = text(self.take(14, "the state of a volume")?);
        let is_raid5 = match self.byte("the type of a volume")? {
            3 => false,
            4 => true,
            other => return Err(Error::Unsupported(format!("an LDM volume of type {other}"))),
        };
        self.take(6, "the number of a volume")?;
        let components = self.number("the number of components")?;
        self.take(16, "the change of a volume")?;
        let sectors = self.number("the size of a volume")?;
        self.take(4, "the flags of a volume")?;
        let partition_type = self.byte("the partition type of a volume")?;
        let guid = Uuid::from_bytes(*self.array("the GUID of a volume")?);
        for (flag, what) in [
            (VOLUME_ID1, "the first identifier of a volume"),
            (VOLUME_ID2, "the second identifier of a volume"),
            (VOLUME_SIZE2, "the second size of a volume"),
        ] {
            if flags & flag != 0 {
                self.bytes(what)?;
            }
        }
        let hint = if flags & VOLUME_HINT != 0 { Some(self.text("the hint of a volume")?) } else { None };
        Ok(VolumeRecord { id, name, is_raid5, state, components, sectors, partition_type, guid, hint })
    }

    fn component(&mut self, flags: u8) -> Result<ComponentRecord> {
        let (id, name) = (self.number("the id of a component")?, self.text("the name of a component")?);
        let state = self.text("the state of a component")?;
        let arrangement = match self.byte("the type of a component")? {
            1 => Arrangement::Striped,
            2 => Arrangement::Concatenated,
            3 => Arrangement::Raid5,
            other => return Err(Error::Unsupported(format!("an LDM component of type {other}"))),
        };
        self.take(4, "a component")?;
        let partitions = self.number("the number of partitions")?;
        self.take(16, "the change of a component")?;
        let volume = self.number("the volume of a component")?;
        self.take(1, "a component")?;
        let mut chunk = 0;
        if flags & COMPONENT_CHUNK != 0 {
            chunk = self.number("the chunk size of a component")?;
            let columns = self.number("the columns of a component")?;
            if columns != partitions {
                return Err(self.corrupt("the columns of a component, which are not its partitions"));
            }
        }
        let offset = self.offset;
        Ok(ComponentRecord { id, name, state, arrangement, partitions, volume, chunk, offset })
    }

    fn partition(&mut self, flags: u8) -> Result<PartitionRecord> {
        self.number("the id of a partition")?;
        let name = self.text("the name of a partition")?;
        self.take(12, "the change of a partition")?;
        let start = self.fixed("the start of a partition")?;
        let volume_offset = self.fixed("the place of a partition in its volume")?;
        let sectors = self.number("the size of a partition")?;
        let component = self.number("the component of a partition")?;
        let disk = self.number("the disk of a partition")?;
        let index = if flags & PARTITION_INDEX != 0 { self.number("the column of a partition")? } else { 0 };
        let offset = self.offset;
        Ok(PartitionRecord { name, start, volume_offset, sectors, component, disk, index, offset })
    }
}

/// Text up to its NUL.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
