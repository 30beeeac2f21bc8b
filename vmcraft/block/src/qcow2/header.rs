//! The header: sizes, features, and where the tables are.

use std::fmt;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Problem;
use crate::storage::Storage;

/// "QFI" and 0xfb.
pub const MAGIC: u32 = 0x5146_49fb;

/// The header on disk, at byte 0 of the image, big-endian; version 2 ends before
/// `incompatible_features`.
///
/// Spec: QEMU `docs/interop/qcow2.rst`, whose field names these are.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00: always [`MAGIC`].
    pub magic: U32,
    /// 0x04: 2 or 3.
    pub version: U32,
    /// 0x08: where the backing file's name is, in bytes; 0 without one.
    pub backing_file_offset: U64,
    /// 0x10: length of the backing file's name, in bytes.
    pub backing_file_size: U32,
    /// 0x14: a cluster has `1 << cluster_bits` bytes.
    pub cluster_bits: U32,
    /// 0x18: the disk's size, in bytes.
    pub size: U64,
    /// 0x20: 0 none, 1 AES, 2 LUKS.
    pub crypt_method: U32,
    /// 0x24: number of entries of the active L1 table.
    pub l1_size: U32,
    /// 0x28: where the active L1 table is, in bytes.
    pub l1_table_offset: U64,
    /// 0x30: where the refcount table is, in bytes.
    pub refcount_table_offset: U64,
    /// 0x38: length of the refcount table, in clusters.
    pub refcount_table_clusters: U32,
    /// 0x3c: number of internal snapshots.
    pub nb_snapshots: U32,
    /// 0x40: where the snapshot table is, in bytes.
    pub snapshots_offset: U64,
    /// 0x48: [`Incompatible`].
    pub incompatible_features: U64,
    /// 0x50: bit 0 says that refcounts are updated lazily.
    pub compatible_features: U64,
    /// 0x58: [`Autoclear`].
    pub autoclear_features: U64,
    /// 0x60: a refcount has `1 << refcount_order` bits.
    pub refcount_order: U32,
    /// 0x64: length of the header, in bytes.
    pub header_length: U32,
    /// 0x68: 0 zlib (a deflate stream without header), 1 zstd.
    pub compression_type: u8,
    padding: [u8; 7],
}
const _: () = assert!(size_of::<RawHeader>() == 112);
const _: () = assert!(std::mem::offset_of!(RawHeader, incompatible_features) == V2_LENGTH as usize);

/// The length of a version 2 header.
const V2_LENGTH: u32 = 72;
/// The least length of a version 3 header.
const V3_LENGTH: u32 = 104;

bitflags::bitflags! {
    /// Features without which an image cannot be read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Incompatible: u64 {
        /// Refcounts may be wrong.
        const DIRTY = 1 << 0;
        /// Something was found corrupt; the image must not be written.
        const CORRUPT = 1 << 1;
        /// The guest's data is in a file of its own.
        const DATA_FILE = 1 << 2;
        /// `compression_type` counts.
        const COMPRESSION = 1 << 3;
        /// L2 entries have a bitmap of subclusters.
        const EXTENDED_L2 = 1 << 4;
    }
    /// Features that a writer which does not know them clears.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Autoclear: u64 {
        /// The bitmaps extension is consistent.
        const BITMAPS = 1 << 0;
        /// The external data file is a raw image by itself.
        const DATA_FILE_RAW = 1 << 1;
    }
}

/// Bit 0 of `compatible_features`.
const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A deflate stream without header, window of 4 KiB.
    Zlib,
    /// A zstd frame.
    Zstd,
    /// One that we do not know.
    Other(u8),
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zlib => f.write_str("zlib"),
            Self::Zstd => f.write_str("zstd"),
            Self::Other(number) => number.fmt(f),
        }
    }
}

/// How content is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// AES-CBC with plain64, from before LUKS.
    Aes,
    /// LUKS, its header in a header extension.
    Luks,
    /// One that we do not know.
    Other(u32),
}

/// The bitmaps extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitmaps {
    /// Number of bitmaps.
    pub count: u32,
    /// Length of the bitmap directory, in bytes.
    pub directory_size: u64,
    /// Where the bitmap directory is, in bytes.
    pub directory_offset: u64,
}

/// The header and its extensions, checked.
#[derive(Debug, Clone)]
pub struct Header {
    /// The bytes as they are on disk; those of a version 2 header followed by what they stand for.
    pub raw: RawHeader,
    /// 2 or 3.
    pub version: u32,
    /// From 9 to 21.
    pub cluster_bits: u32,
    /// The disk's size in bytes, a multiple of 512.
    pub size: u64,
    /// From 0 to 6.
    pub refcount_order: u32,
    /// The features, known or not.
    pub incompatible: Incompatible,
    /// The features, known or not.
    pub autoclear: Autoclear,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// How content is encrypted, if it is.
    pub encryption: Option<Encryption>,
    /// The backing file's name as the image has it.
    pub backing_file: Option<String>,
    /// The backing file's format as the image has it.
    pub backing_format: Option<String>,
    /// The external data file's name as the image has it.
    pub data_file: Option<String>,
    /// The bitmaps extension, if it is there and consistent.
    pub bitmaps: Option<Bitmaps>,
    /// Names of incompatible features by bit, from the feature name table.
    pub feature_names: Vec<(u8, String)>,
}

/// Header extension types.
pub(super) mod extension {
    pub(in crate::qcow2) const END: u32 = 0;
    pub(in crate::qcow2) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(in crate::qcow2) const FEATURE_NAMES: u32 = 0x6803_f857;
    pub(in crate::qcow2) const BITMAPS: u32 = 0x2385_2875;
    pub(in crate::qcow2) const DATA_FILE: u32 = 0x4441_5441;
}

/// The largest L1 table, 32 MiB: enough for 2 EiB, and QEMU's limit.
pub(super) const MAX_L1_SIZE: u32 = (32 << 20) / 8;
/// The largest refcount table, 8 MiB: QEMU's limit.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// The longest name of a backing file.
pub(super) const MAX_BACKING_NAME: u32 = 1023;
/// The most snapshots.
const MAX_SNAPSHOTS: u32 = 65536;

/// What is said of an image that ends within its header.
const TRUNCATED: Problem = Problem::Truncated { what: "header", offset: 0 };

impl Header {
    /// Reads the header of an image and checks it. `image` is its name for messages.
    ///
    /// Features that cannot be read are not refused here but by [`Qcow2::open`](super::Qcow2::open),
    /// so that the header of an image that cannot be opened can still be shown.
    pub fn read(image: &str, storage: &dyn Storage) -> crate::Result<Self> {
        Self::read_unnamed(storage).map_err(|problem| problem.of(image))
    }

    fn read_unnamed(storage: &dyn Storage) -> Result<Self, Problem> {
        let mut start = vec![0; size_of::<RawHeader>()];
        let read = storage.read_at(0, &mut start).map_err(Problem::Io)?;
        if read < V2_LENGTH as usize {
            return Err(TRUNCATED);
        }
        // The buffer has the header's length, zeros where the file ended.
        let Ok(raw) = RawHeader::read_from_bytes(&start) else {
            return Err(TRUNCATED);
        };
        ensure(raw.magic.get() == MAGIC, "magic", 0x00)?;
        let version = raw.version.get();
        if version < 2 {
            return Err(Problem::Unsupported(
                "qcow version 1; convert it with qemu-img convert, or name the format qcow".into(),
            ));
        }
        if version > 3 {
            return Err(Problem::Unsupported(format!("qcow2 version {version}")));
        }
        let cluster_bits = raw.cluster_bits.get();
        ensure((9..=21).contains(&cluster_bits), "cluster size", 0x14)?;
        let cluster_size = 1usize << cluster_bits;
        let mut cluster = vec![0; cluster_size];
        let read = storage.read_at(0, &mut cluster).map_err(Problem::Io)?;
        cluster.truncate(read);
        Self::decode(&cluster)
    }

    /// Decodes the first cluster of an image, or as much of it as there is.
    pub(super) fn decode(cluster: &[u8]) -> Result<Self, Problem> {
        let mut start = [0; size_of::<RawHeader>()];
        let version = cluster.get(4..8).ok_or(TRUNCATED)?;
        let length =
            if version == [0, 0, 0, 2] { V2_LENGTH as usize } else { start.len() }.min(cluster.len());
        start[..length].copy_from_slice(&cluster[..length]);
        let mut raw = RawHeader::read_from_bytes(&start).map_err(|_| TRUNCATED)?;
        ensure(raw.magic.get() == MAGIC, "magic", 0x00)?;
        let version = raw.version.get();
        ensure(version == 2 || version == 3, "version", 0x04)?;
        if cluster.len() < if version == 2 { V2_LENGTH } else { V3_LENGTH } as usize {
            return Err(TRUNCATED);
        }
        let cluster_bits = raw.cluster_bits.get();
        ensure((9..=21).contains(&cluster_bits), "cluster size", 0x14)?;
        if version == 2 {
            raw.refcount_order = 4.into();
            raw.header_length = V2_LENGTH.into();
        }
        let header_length = raw.header_length.get();
        let length_fits = version == 2 || (V3_LENGTH..=1 << cluster_bits).contains(&header_length);
        ensure(length_fits && header_length.is_multiple_of(8), "header length", 0x64)?;
        let refcount_order = raw.refcount_order.get();
        ensure(refcount_order <= 6, "refcount order", 0x60)?;
        // Bytes past the header's own length belong to its extensions.
        let compression = if header_length > 104 { raw.compression_type } else { 0 };
        let compression = match compression {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => Compression::Other(other),
        };
        let encryption = match raw.crypt_method.get() {
            0 => None,
            1 => Some(Encryption::Aes),
            2 => Some(Encryption::Luks),
            other => Some(Encryption::Other(other)),
        };
        let mut header = Self {
            version,
            cluster_bits,
            size: raw.size.get() & !511,
            refcount_order,
            incompatible: Incompatible::from_bits_retain(raw.incompatible_features.get()),
            autoclear: Autoclear::from_bits_retain(raw.autoclear_features.get()),
            compression,
            encryption,
            backing_file: None,
            backing_format: None,
            data_file: None,
            bitmaps: None,
            feature_names: Vec::new(),
            raw,
        };
        let extended_l2_fits = !header.incompatible.contains(Incompatible::EXTENDED_L2) || cluster_bits >= 14;
        ensure(extended_l2_fits, "cluster size: extended L2 entries need 16 KiB or more", 0x14)?;
        let has_type = header.incompatible.contains(Incompatible::COMPRESSION);
        ensure(
            has_type || compression == Compression::Zlib,
            "compression type without its feature bit",
            0x68,
        )?;
        header.decode_backing_file(cluster)?;
        header.decode_extensions(cluster)?;
        header.check_tables()?;
        Ok(header)
    }

    fn decode_backing_file(&mut self, cluster: &[u8]) -> Result<(), Problem> {
        let offset = self.raw.backing_file_offset.get();
        let len = self.raw.backing_file_size.get();
        if offset == 0 || len == 0 {
            return Ok(());
        }
        ensure(len <= MAX_BACKING_NAME, "length of the backing file's name", 0x10)?;
        let name = slice(cluster, offset, u64::from(len));
        let name = name.ok_or_else(|| Problem::corrupt("place of the backing file's name", 0x08))?;
        self.backing_file = Some(text(name, "backing file's name", offset)?);
        Ok(())
    }

    fn decode_extensions(&mut self, cluster: &[u8]) -> Result<(), Problem> {
        let mut at = u64::from(self.raw.header_length.get());
        let backing = self.raw.backing_file_offset.get();
        // Every round goes on by 8 bytes or more within one cluster.
        let end = if backing > at { backing.min(cluster.len() as u64) } else { cluster.len() as u64 };
        while at + 8 <= end {
            let (Some(kind), Some(len)) = (be32(cluster, at), be32(cluster, at + 4)) else { break };
            if kind == extension::END {
                break;
            }
            let data = at + 8;
            let Some(bytes) = slice(cluster, data, u64::from(len)).filter(|_| data + u64::from(len) <= end)
            else {
                return Err(Problem::corrupt("length of a header extension", at + 4));
            };
            match kind {
                extension::BACKING_FORMAT => {
                    self.backing_format = Some(text(bytes, "backing file's format", data)?);
                }
                extension::DATA_FILE => self.data_file = Some(text(bytes, "data file's name", data)?),
                extension::FEATURE_NAMES => self.feature_names = decode_feature_names(bytes),
                extension::BITMAPS if self.autoclear.contains(Autoclear::BITMAPS) => {
                    let count = be32(bytes, 0);
                    let (size, offset) = (be64(bytes, 8), be64(bytes, 16));
                    let (Some(count), Some(directory_size), Some(directory_offset)) = (count, size, offset)
                    else {
                        return Err(Problem::corrupt("bitmaps extension", data));
                    };
                    self.bitmaps = Some(Bitmaps { count, directory_size, directory_offset });
                }
                _ => {}
            }
            at = data + u64::from(len).next_multiple_of(8);
        }
        Ok(())
    }

    /// Checks what the header says of the tables; whether the file is long enough is seen when they
    /// are read.
    fn check_tables(&self) -> Result<(), Problem> {
        let raw = &self.raw;
        let aligned = |offset: u64| offset.is_multiple_of(self.cluster_size());
        self.check_l1(raw.l1_table_offset.get(), raw.l1_size.get(), self.size)?;
        ensure(aligned(raw.refcount_table_offset.get()), "place of the refcount table", 0x30)?;
        let clusters = u64::from(raw.refcount_table_clusters.get());
        ensure(clusters << self.cluster_bits <= MAX_REFCOUNT_TABLE, "size of the refcount table", 0x38)?;
        ensure(raw.nb_snapshots.get() <= MAX_SNAPSHOTS, "number of snapshots", 0x3c)?;
        if raw.nb_snapshots.get() > 0 {
            ensure(aligned(raw.snapshots_offset.get()), "place of the snapshot table", 0x40)?;
        }
        Ok(())
    }

    /// Checks what the header or a snapshot says of an L1 table for a disk of `size` bytes.
    pub(super) fn check_l1(&self, offset: u64, entries: u32, size: u64) -> Result<(), Problem> {
        ensure(entries <= MAX_L1_SIZE, "size of the L1 table", 0x24)?;
        ensure(offset.is_multiple_of(self.cluster_size()), "place of the L1 table", 0x28)?;
        let needed = size.div_ceil(self.l1_entry_bytes());
        ensure(u64::from(entries) >= needed, "size of the L1 table: it does not cover the disk", 0x24)
    }

    /// Refuses what makes the content unreadable for us, by its name.
    pub(super) fn refuse_unsupported(&self) -> Result<(), Problem> {
        let unknown = self.unknown_features();
        if !unknown.is_empty() {
            return Err(Problem::Unsupported(format!("incompatible feature {}", unknown.join(", "))));
        }
        if let Compression::Other(number) = self.compression {
            return Err(Problem::Unsupported(format!("compression type {number}")));
        }
        let method = match self.encryption {
            None => return Ok(()),
            Some(Encryption::Aes) => "AES encryption (crypt_method 1)".to_owned(),
            Some(Encryption::Luks) => "LUKS encryption (crypt_method 2)".to_owned(),
            Some(Encryption::Other(number)) => format!("encryption (crypt_method {number})"),
        };
        Err(Problem::Unsupported(format!("{method}; decrypt the image first, with qemu-img convert")))
    }

    /// The incompatible features that we do not know, by the names that the image gives them.
    pub fn unknown_features(&self) -> Vec<String> {
        let unknown = self.incompatible.bits() & !Incompatible::all().bits();
        (0..64)
            .filter(|bit| unknown & (1 << bit) != 0)
            .map(|bit| match self.feature_names.iter().find(|(named, _)| *named == bit) {
                Some((_, name)) => format!("{name:?}"),
                None => format!("bit {bit}, which the image does not name"),
            })
            .collect()
    }

    /// Whether refcounts are written late, and are wrong while the image is marked dirty.
    pub fn has_lazy_refcounts(&self) -> bool {
        self.raw.compatible_features.get() & COMPATIBLE_LAZY_REFCOUNTS != 0
    }

    /// Bytes of a cluster, a power of two from 512 to 2 MiB.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Length of the active L1 table, in bytes.
    pub fn l1_bytes(&self) -> u64 {
        u64::from(self.raw.l1_size.get()) * 8
    }

    /// Whether the guest's data is in a file of its own.
    pub fn has_data_file(&self) -> bool {
        self.incompatible.contains(Incompatible::DATA_FILE)
    }

    /// Whether L2 entries have a bitmap of subclusters.
    pub fn has_subclusters(&self) -> bool {
        self.incompatible.contains(Incompatible::EXTENDED_L2)
    }

    /// How many L2 entries fill a cluster.
    pub fn l2_entries(&self) -> u64 {
        self.cluster_size() / if self.has_subclusters() { 16 } else { 8 }
    }

    /// How many bytes of the disk one L1 entry stands for.
    pub fn l1_entry_bytes(&self) -> u64 {
        self.l2_entries() << self.cluster_bits
    }
}

/// `Problem::Corrupt` unless the field at `offset` of the image is as it must be.
fn ensure(holds: bool, what: &'static str, offset: u64) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::corrupt(what, offset)) }
}

fn slice(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(len)?).ok()?;
    bytes.get(start..end)
}

fn be32(bytes: &[u8], offset: u64) -> Option<u32> {
    Some(u32::from_be_bytes(slice(bytes, offset, 4)?.try_into().ok()?))
}

fn be64(bytes: &[u8], offset: u64) -> Option<u64> {
    Some(u64::from_be_bytes(slice(bytes, offset, 8)?.try_into().ok()?))
}

/// A name in the header. It becomes a path or is printed, so it must be text without a NUL.
fn text(bytes: &[u8], what: &'static str, offset: u64) -> Result<String, Problem> {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(Problem::corrupt(what, offset)),
    }
}

/// The incompatible features' names: entries of 48 bytes, of which one says the kind, one the bit.
fn decode_feature_names(bytes: &[u8]) -> Vec<(u8, String)> {
    bytes
        .as_chunks::<48>()
        .0
        .iter()
        .filter(|entry| entry[0] == 0)
        .map(|entry| {
            let name = entry[2..].split(|byte| *byte == 0).next().unwrap_or_default();
            (entry[1], String::from_utf8_lossy(name).into_owned())
        })
        .collect()
}
