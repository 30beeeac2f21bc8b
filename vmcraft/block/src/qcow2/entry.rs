//! L1 and L2 entries, and which of them a byte of the disk belongs to.

use super::{Header, Problem};

/// Bits 9 to 55: where a cluster is in the image.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63: the refcount is exactly 1, so the cluster may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard L2 entry, version 3: the cluster reads as zeros.
const ZERO: u64 = 1;

/// What follows from the header for every mapping.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) cluster_bits: u32,
    /// Subclusters in a cluster: 32 with extended L2 entries, else 1, the cluster itself.
    pub(super) units: u32,
    /// The zero flag exists since version 3.
    pub(super) has_zero_flag: bool,
    /// Entries in a slice of an L2 table: what is read and kept at a time.
    pub(super) slice_entries: u64,
    pub(super) l2_entries: u64,
    /// Host offsets are the guest's, because the data file is raw.
    pub(super) external_data: bool,
}

/// How much of an L2 table is read at a time, in bytes.
const SLICE: u64 = 4096;

impl Geometry {
    pub(super) fn new(header: &Header) -> Self {
        let words = if header.has_subclusters() { 2 } else { 1 };
        Self {
            cluster_bits: header.cluster_bits,
            units: if header.has_subclusters() { 32 } else { 1 },
            has_zero_flag: header.version >= 3,
            slice_entries: header.cluster_size().min(SLICE) / (8 * words),
            l2_entries: header.l2_entries(),
            external_data: header.has_data_file(),
        }
    }

    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of a subcluster, or of a cluster where there are none.
    pub(super) fn unit_size(&self) -> u64 {
        self.cluster_size() / u64::from(self.units)
    }

    /// Words of an L2 entry.
    pub(super) fn words(&self) -> usize {
        if self.units > 1 { 2 } else { 1 }
    }

    /// A bit for each unit from `first` up to `end`.
    pub(super) fn unit_mask(&self, first: u32, end: u32) -> u32 {
        // At most 32 bits of 64 are set.
        #[allow(clippy::cast_possible_truncation)]
        let mask = ((1u64 << end) - (1u64 << first)) as u32;
        mask
    }

    pub(super) fn in_cluster(&self, offset: u64) -> u64 {
        offset & (self.cluster_size() - 1)
    }

    /// Bytes of the disk that one L1 entry stands for.
    pub(super) fn l1_entry_bytes(&self) -> u64 {
        self.l2_entries << self.cluster_bits
    }

    /// Bytes of the disk that one slice stands for.
    pub(super) fn slice_span(&self) -> u64 {
        self.slice_entries << self.cluster_bits
    }

    /// Bytes of a slice.
    pub(super) fn slice_bytes(&self) -> u64 {
        self.slice_entries * self.words() as u64 * 8
    }

    /// Where in the slice the entry of a byte of the disk begins, in words.
    pub(super) fn word_index(&self, guest: u64) -> usize {
        let index = (guest >> self.cluster_bits) % self.slice_entries;
        // Below 4096.
        #[allow(clippy::cast_possible_truncation)]
        let index = index as usize;
        index * self.words()
    }

    /// Where in its L2 table the slice of a byte of the disk begins, in bytes.
    pub(super) fn slice_offset(&self, guest: u64) -> u64 {
        let index = (guest >> self.cluster_bits) % self.l2_entries;
        index / self.slice_entries * self.slice_bytes()
    }
}

/// An L1 entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct L1Entry {
    /// Where the L2 table is.
    pub(super) table: u64,
    /// Whether nothing else refers to the L2 table.
    pub(super) copied: bool,
}

impl L1Entry {
    /// The entry for an L2 table that nothing else refers to.
    pub(super) fn encode(table: u64) -> u64 {
        table | COPIED
    }

    /// `None` where no L2 table is allocated. A misaligned offset is its own value as the error.
    pub(super) fn decode(word: u64, geometry: &Geometry) -> Result<Option<Self>, u64> {
        match word & OFFSET {
            0 => Ok(None),
            table if geometry.in_cluster(table) != 0 => Err(table),
            table => Ok(Some(Self { table, copied: word & COPIED != 0 })),
        }
    }
}

/// A compressed cluster: where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CompressedAt {
    pub(super) offset: u64,
    /// Up to the end of the last sector that has some of it.
    pub(super) len: u64,
}

/// An L2 entry: what a cluster of the disk is made of.
///
/// A cluster has units: 32 subclusters, or one that is the cluster. Bit n of a mask is unit n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    Plain(Plain),
    Compressed(CompressedAt),
}

/// A cluster that is not compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plain {
    /// The cluster's place, if it has one.
    pub(super) host: Option<u64>,
    /// Whether nothing else refers to that place.
    pub(super) copied: bool,
    /// Units whose content is at `host`.
    pub(super) allocated: u32,
    /// Units that read as zeros; none that is allocated. All others come from the backing file.
    pub(super) zero: u32,
}

/// What a unit reads as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Allocated,
    Zero,
    Unallocated,
}

impl Plain {
    /// A cluster that this image does not have.
    pub(super) const UNALLOCATED: Self = Self { host: None, copied: false, allocated: 0, zero: 0 };

    /// The entry's words; the second is for extended L2 entries only.
    pub(super) fn encode(&self, geometry: &Geometry) -> [u64; 2] {
        let mut word = match self.host {
            Some(host) => host | if self.copied { COPIED } else { 0 },
            None => 0,
        };
        if geometry.units == 1 && self.zero != 0 {
            word |= ZERO;
        }
        [word, u64::from(self.allocated) | u64::from(self.zero) << 32]
    }

    pub(super) fn unit(&self, index: u32) -> Unit {
        if self.allocated & (1 << index) != 0 {
            Unit::Allocated
        } else if self.zero & (1 << index) != 0 {
            Unit::Zero
        } else {
            Unit::Unallocated
        }
    }
}

impl Mapping {
    /// Decodes the entry that begins at `words[0]`; `at` is its place in the image.
    pub(super) fn decode(words: &[u64], geometry: &Geometry, at: u64) -> Result<Self, Problem> {
        let corrupt = |what: &'static str| Problem::corrupt(what, at);
        let Some(&word) = words.first() else { return Err(corrupt("L2 table")) };
        if word & COMPRESSED != 0 {
            if geometry.external_data {
                return Err(corrupt("L2 entry: a compressed cluster in an image with a data file"));
            }
            // The higher bits count the sectors after the first, the lower ones are the offset.
            let split = 62 - (geometry.cluster_bits - 8);
            let offset = word & ((1 << split) - 1);
            let sectors = (word & !(COPIED | COMPRESSED)) >> split;
            return Ok(Self::Compressed(CompressedAt { offset, len: (sectors + 1) * 512 - offset % 512 }));
        }
        let offset = word & OFFSET;
        if geometry.in_cluster(offset) != 0 {
            return Err(corrupt("L2 entry: its offset is not a multiple of the cluster size"));
        }
        let copied = word & COPIED != 0;
        // An external data file may have the guest's first cluster at 0.
        let host = (offset != 0 || geometry.external_data && copied).then_some(offset);
        if geometry.units == 1 {
            let is_zero = word & ZERO != 0;
            if is_zero && !geometry.has_zero_flag {
                return Err(corrupt("L2 entry: a zero cluster in an image of version 2"));
            }
            let allocated = u32::from(host.is_some() && !is_zero);
            return Ok(Self::Plain(Plain { host, copied, allocated, zero: u32::from(is_zero) }));
        }
        let Some(&bitmap) = words.get(1) else { return Err(corrupt("L2 table")) };
        // The halves of the bitmap.
        #[allow(clippy::cast_possible_truncation)]
        let (allocated, zero) = (bitmap as u32, (bitmap >> 32) as u32);
        if allocated & zero != 0 {
            return Err(corrupt("L2 entry: a subcluster that is both allocated and zero"));
        }
        if allocated != 0 && host.is_none() {
            return Err(corrupt("L2 entry: allocated subclusters without a cluster"));
        }
        Ok(Self::Plain(Plain { host, copied, allocated, zero }))
    }
}
