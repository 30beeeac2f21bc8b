//! The first sector of a BitLocker volume, which says where the metadata is.

use uuid::{Uuid, uuid};
use vmcraft_block::BlockDevice;
use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{Error, Result};

/// Identifies a volume that is encrypted from its start on.
const FVE: Uuid = uuid!("4967d63b-2e29-4ad8-8399-f6a339e3d001");
/// Identifies a volume that is encrypted where it is written ("encrypt on write", Windows 8 and later).
const FVE_EOW: Uuid = uuid!("92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8");

/// The sector on disk, its first 512 bytes, little-endian.
///
/// Spec: libbde, "BitLocker Drive Encryption (BDE) format", chapter "Volume header".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0x000: a jump over the parameters; it tells Vista's header from later ones.
    jump: [u8; 3],
    /// 0x003: `-FVE-FS-`, or `MSWIN4.1` in front of a "To Go" volume.
    oem_id: [u8; 8],
    /// 0x00b: bytes in a sector.
    bytes_per_sector: U16,
    /// 0x00d: sectors in a cluster.
    sectors_per_cluster: u8,
    kept_00e: [u8; 0x2a],
    /// 0x038: Vista: the cluster of the first metadata block.
    metadata_cluster: U64,
    kept_040: [u8; 0x60],
    /// 0x0a0: Windows 7 and later.
    fixed: RawPlaces,
    kept_0d8: [u8; 0xd0],
    /// 0x1a8: "To Go".
    to_go: RawPlaces,
    kept_1e0: [u8; 0x20],
}
const _: () = assert!(size_of::<RawHeader>() == 512);

/// An identifier, and where the metadata is.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPlaces {
    identifier: [u8; 16],
    /// The three metadata blocks, in bytes from the start of the volume.
    metadata: [U64; 3],
    /// Encrypt on write: the two descriptions of what is encrypted, likewise.
    eow: [U64; 2],
}

/// The versions of the first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderKind {
    /// Windows Vista: an NTFS boot sector with two fields changed.
    Vista,
    /// Windows 7 and later.
    Windows7,
    /// In front of a FAT volume, with a small FAT file system for hosts without BitLocker.
    ToGo,
}

/// The first sector, checked.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) kind: HeaderKind,
    /// In bytes: a power of two from 512 to 4096.
    pub(super) sector_size: u32,
    /// In bytes; Vista's unit.
    pub(super) cluster_size: u64,
    /// Where the metadata blocks are, in bytes: three, but for Vista only the first.
    pub(super) metadata: Vec<u64>,
    /// Encrypt on write: where the two descriptions of it are, in bytes.
    pub(super) eow: Option<[u64; 2]>,
}

/// Reads the header; `None` if the device does not begin with one.
pub(super) fn read(device: &dyn BlockDevice) -> Result<Option<Header>> {
    let mut sector = [0; 512];
    if device.size() < sector.len() as u64 {
        return Ok(None);
    }
    device.read_at(0, &mut sector)?;
    decode(&sector)
}

fn decode(sector: &[u8; 512]) -> Result<Option<Header>> {
    // A sector has as many bytes as the structure.
    let Ok(raw) = RawHeader::ref_from_bytes(sector) else { return Ok(None) };
    let (kind, places) = match (&raw.jump, &raw.oem_id) {
        (b"\xeb\x52\x90", b"-FVE-FS-") => (HeaderKind::Vista, None),
        (b"\xeb\x58\x90", b"-FVE-FS-") => (HeaderKind::Windows7, Some(&raw.fixed)),
        // Otherwise it is a FAT volume.
        (b"\xeb\x58\x90", b"MSWIN4.1") if raw.to_go.is_known() => (HeaderKind::ToGo, Some(&raw.to_go)),
        _ => return Ok(None),
    };
    let sector_size = raw.bytes_per_sector.get();
    if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) {
        return Err(corrupt(format!("BitLocker header: sectors of {sector_size} bytes"), 0x0b));
    }
    let cluster_size = u64::from(sector_size) * u64::from(raw.sectors_per_cluster);
    let (metadata, eow) = match places {
        None => {
            let start = raw.metadata_cluster.get().checked_mul(cluster_size).filter(|start| *start != 0);
            let start =
                start.ok_or_else(|| corrupt("BitLocker header: the cluster of the metadata".into(), 0x38))?;
            (vec![start], None)
        }
        Some(places) => {
            let identifier = Uuid::from_bytes_le(places.identifier);
            if !places.is_known() {
                return Err(Error::Unsupported(format!("BitLocker with the identifier {identifier}")));
            }
            let eow = (identifier == FVE_EOW).then(|| places.eow.map(U64::get));
            (places.metadata.iter().map(|start| start.get()).collect(), eow)
        }
    };
    Ok(Some(Header { kind, sector_size: u32::from(sector_size), cluster_size, metadata, eow }))
}

impl RawPlaces {
    fn is_known(&self) -> bool {
        matches!(Uuid::from_bytes_le(self.identifier), FVE | FVE_EOW)
    }
}

fn corrupt(what: String, offset: u64) -> Error {
    Error::Corrupt { what, offset }
}
