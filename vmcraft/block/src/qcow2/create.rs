//! Making an empty image.

use std::io;

use zerocopy::{FromZeros, IntoBytes};

use super::entry::COPIED;
use super::header::{MAX_BACKING_NAME, MAX_L1_SIZE, RawHeader, extension};
use super::{Compression, Incompatible, MAGIC, Problem};
use crate::Result;
use crate::storage::Storage;

/// What a new image is like.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The disk's size in bytes; rounded up to a multiple of 512.
    pub size: u64,
    /// A power of two from 512 to 2 MiB.
    pub cluster_size: u32,
    /// 2, or 3, which has all that follows.
    pub version: u32,
    /// A power of two from 1 to 64.
    pub refcount_bits: u32,
    /// How clusters that will be compressed are compressed.
    pub compression: Compression,
    /// Whether L2 entries have a bitmap of subclusters; for clusters of 16 KiB and more.
    pub extended_l2: bool,
    /// The backing file's name, as it is to stand in the image, and its format.
    pub backing: Option<(String, String)>,
    /// Whether every cluster of the disk has its place in the image from the start. What is in those
    /// places reads as zeros. Neither with a backing file nor with extended L2 entries.
    pub preallocated: bool,
}

impl CreateOptions {
    /// As `qemu-img create` does it without options.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            cluster_size: 65536,
            version: 3,
            refcount_bits: 16,
            compression: Compression::Zlib,
            extended_l2: false,
            backing: None,
            preallocated: false,
        }
    }
}

/// The names of features that other programs may not know: kind, bit, name. Kind 0 is incompatible, 1
/// compatible, 2 autoclear.
const FEATURE_NAMES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// Where everything is in a new image, in clusters.
struct Layout {
    cluster_bits: u32,
    refcount_order: u32,
    size: u64,
    l1_size: u32,
    /// The refcount table follows the header,
    table_clusters: u64,
    /// then its blocks,
    blocks: u64,
    /// then the L1 table,
    l1_clusters: u64,
    /// then, if it is preallocated, the L2 tables,
    l2_tables: u64,
    /// then the disk itself.
    data_clusters: u64,
}

impl Layout {
    fn plan(options: &CreateOptions) -> Result<Self, Problem> {
        let refused = |what: String| Err(Problem::Unsupported(what));
        let cluster_bits = options.cluster_size.trailing_zeros();
        if !options.cluster_size.is_power_of_two() || !(9..=21).contains(&cluster_bits) {
            return refused(format!("a cluster size of {} bytes", options.cluster_size));
        }
        let order = options.refcount_bits.trailing_zeros();
        if !options.refcount_bits.is_power_of_two() || order > 6 {
            return refused(format!("refcounts of {} bits", options.refcount_bits));
        }
        let is_plain = order == 4 && options.compression == Compression::Zlib && !options.extended_l2;
        match options.version {
            3 => {}
            2 if is_plain => {}
            2 => return refused("refcount bits, zstd or extended L2 entries in version 2".into()),
            other => return refused(format!("qcow2 version {other}")),
        }
        if options.extended_l2 && cluster_bits < 14 {
            return refused("extended L2 entries with clusters below 16 KiB".into());
        }
        let Some(size) = options.size.checked_next_multiple_of(512) else {
            return refused(format!("a disk of {} bytes", options.size));
        };
        let cluster_size = 1u64 << cluster_bits;
        let l2_entries = cluster_size / if options.extended_l2 { 16 } else { 8 };
        // A disk without bytes has one entry too, so that the table is somewhere.
        let l1_size = size.div_ceil(l2_entries << cluster_bits).max(1);
        let l1_size = match u32::try_from(l1_size) {
            Ok(entries) if entries <= MAX_L1_SIZE => entries,
            _ => return refused(format!("a disk of {size} bytes with clusters of {cluster_size}")),
        };
        let l1_clusters = (u64::from(l1_size) * 8).div_ceil(cluster_size);
        let data_clusters = if options.preallocated { size.div_ceil(cluster_size) } else { 0 };
        let l2_tables = data_clusters.div_ceil(l2_entries);
        if options.preallocated && (options.backing.is_some() || options.extended_l2) {
            return refused("preallocation with a backing file or extended L2 entries".into());
        }
        let block_entries = (cluster_size * 8) >> order;
        let (mut table_clusters, mut blocks) = (1, 1);
        // The refcounts stand for themselves too; a few rounds reach the number.
        loop {
            let all = 1 + table_clusters + blocks + l1_clusters + l2_tables + data_clusters;
            let needed = (all.div_ceil(block_entries), (blocks * 8).div_ceil(cluster_size));
            if needed.0 <= blocks && needed.1 <= table_clusters {
                break;
            }
            (blocks, table_clusters) = (needed.0.max(blocks), needed.1.max(table_clusters));
        }
        Ok(Self {
            cluster_bits,
            refcount_order: order,
            size,
            l1_size,
            table_clusters,
            blocks,
            l1_clusters,
            l2_tables,
            data_clusters,
        })
    }

    fn clusters(&self) -> u64 {
        self.l2_start() + self.l2_tables + self.data_clusters
    }

    /// The first cluster behind the L1 table.
    fn l2_start(&self) -> u64 {
        1 + self.table_clusters + self.blocks + self.l1_clusters
    }

    fn bytes(&self, clusters: u64) -> u64 {
        clusters << self.cluster_bits
    }
}

/// Makes an empty image of what is in `storage`, which loses all it has. `image` is its name for
/// messages.
pub fn create(image: &str, storage: &dyn Storage, options: &CreateOptions) -> Result<()> {
    create_unnamed(storage, options).map_err(|problem| match problem {
        Problem::Io(source) => crate::Error::Io { image: image.to_owned(), doing: "cannot create", source },
        other => other.of(image),
    })
}

fn create_unnamed(storage: &dyn Storage, options: &CreateOptions) -> Result<(), Problem> {
    let layout = Layout::plan(options)?;
    let header = header(options, &layout)?;
    let io = Problem::Io;
    storage.resize(0).map_err(io)?;
    storage.resize(layout.bytes(layout.clusters())).map_err(io)?;
    let blocks_start = layout.bytes(1 + layout.table_clusters);
    let table: Vec<u8> =
        (0..layout.blocks).flat_map(|block| (blocks_start + layout.bytes(block)).to_be_bytes()).collect();
    storage.write_at(layout.bytes(1), &table).map_err(io)?;
    storage.write_at(blocks_start, &ones(layout.clusters(), layout.refcount_order)).map_err(io)?;
    write_l2_tables(storage, &layout).map_err(io)?;
    // Without its header it is no image, so a crash before leaves none.
    storage.flush().map_err(io)?;
    storage.write_at(0, &header).map_err(io)?;
    storage.flush().map_err(io)
}

/// The L1 table and the L2 tables of a preallocated image.
fn write_l2_tables(storage: &dyn Storage, layout: &Layout) -> io::Result<()> {
    let places = |first: u64, count: u64| -> Vec<u8> {
        (first..first + count).flat_map(|cluster| (layout.bytes(cluster) | COPIED).to_be_bytes()).collect()
    };
    let l1_start = layout.bytes(1 + layout.table_clusters + layout.blocks);
    storage.write_at(l1_start, &places(layout.l2_start(), layout.l2_tables))?;
    let l2_entries = (1 << layout.cluster_bits) / 8;
    for table in 0..layout.l2_tables {
        let first = table * l2_entries;
        let count = l2_entries.min(layout.data_clusters - first);
        let entries = places(layout.l2_start() + layout.l2_tables + first, count);
        storage.write_at(layout.bytes(layout.l2_start() + table), &entries)?;
    }
    Ok(())
}

/// `count` refcounts of 1. The blocks follow each other, so they can be written as one.
fn ones(count: u64, order: u32) -> Vec<u8> {
    let bits = 1u64 << order;
    let one: Vec<u8> = match bits {
        1 => vec![0xff],
        2 => vec![0x55],
        4 => vec![0x11],
        _ => {
            let mut one = vec![0; usize::try_from(bits / 8).unwrap_or(1)];
            if let Some(last) = one.last_mut() {
                *last = 1;
            }
            one
        }
    };
    let in_one = (8 / bits).max(1);
    // A disk of the largest size has some thousand clusters of metadata.
    let whole = usize::try_from(count / in_one).unwrap_or(usize::MAX);
    let mut bytes = one.repeat(whole);
    let rest = count % in_one;
    if rest > 0 {
        bytes.push(one.first().copied().unwrap_or(0) & ((1u16 << (rest * bits)) - 1).to_le_bytes()[0]);
    }
    bytes
}

/// The header's cluster, as long as it is.
fn header(options: &CreateOptions, layout: &Layout) -> Result<Vec<u8>, Problem> {
    let is_v3 = options.version >= 3;
    let mut raw = RawHeader::new_zeroed();
    raw.magic = MAGIC.into();
    raw.version = options.version.into();
    raw.cluster_bits = layout.cluster_bits.into();
    raw.size = layout.size.into();
    raw.l1_size = layout.l1_size.into();
    raw.l1_table_offset = layout.bytes(1 + layout.table_clusters + layout.blocks).into();
    raw.refcount_table_offset = layout.bytes(1).into();
    raw.refcount_table_clusters = u32::try_from(layout.table_clusters).unwrap_or(u32::MAX).into();
    let mut features = Incompatible::empty();
    if options.extended_l2 {
        features |= Incompatible::EXTENDED_L2;
    }
    raw.compression_type = match options.compression {
        Compression::Zlib => 0,
        Compression::Zstd => {
            features |= Incompatible::COMPRESSION;
            1
        }
        Compression::Other(number) => {
            return Err(Problem::Unsupported(format!("compression type {number}")));
        }
    };
    raw.incompatible_features = features.bits().into();
    raw.refcount_order = layout.refcount_order.into();
    raw.header_length = 112.into();
    let length = if is_v3 { 112 } else { 72 };

    let mut extensions = Vec::new();
    if let Some((_, format)) = &options.backing {
        extend(&mut extensions, extension::BACKING_FORMAT, format.as_bytes());
    }
    let name = options.backing.as_ref().map_or("", |(name, _)| name);
    if name.len() > MAX_BACKING_NAME as usize {
        return Err(Problem::Unsupported("a backing file's name of more than 1023 bytes".into()));
    }
    let names: Vec<u8> = FEATURE_NAMES
        .iter()
        .flat_map(|(kind, bit, name)| {
            let mut entry = [0; 48];
            (entry[0], entry[1]) = (*kind, *bit);
            entry[2..2 + name.len()].copy_from_slice(name.as_bytes());
            entry
        })
        .collect();
    let end = [0; 8];
    let cluster_size = 1usize << layout.cluster_bits;
    let room = cluster_size.checked_sub(length + extensions.len() + end.len() + name.len());
    let Some(room) = room else {
        return Err(Problem::Unsupported("a backing file's name that does not fit into a cluster".into()));
    };
    // Only a help for others, so it is left out of clusters that are too small.
    if is_v3 && room >= 8 + names.len() {
        extend(&mut extensions, extension::FEATURE_NAMES, &names);
    }
    extensions.extend_from_slice(&end);
    if !name.is_empty() {
        raw.backing_file_offset = ((length + extensions.len()) as u64).into();
        raw.backing_file_size = u32::try_from(name.len()).unwrap_or(u32::MAX).into();
    }
    Ok([&raw.as_bytes()[..length], &extensions, name.as_bytes()].concat())
}

/// Adds a header extension, padded to a multiple of 8.
fn extend(extensions: &mut Vec<u8>, kind: u32, data: &[u8]) {
    extensions.extend_from_slice(&kind.to_be_bytes());
    extensions.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    extensions.extend_from_slice(data);
    extensions.resize(extensions.len().next_multiple_of(8), 0);
}
