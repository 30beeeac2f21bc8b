//! What becomes of each partition, and where it goes on the new disk. All places are in sectors.

use vmcraft_volume::partition::{Partition, PartitionRole, PartitionTable};

use crate::error::{Result, message};
use crate::size;

/// What is kept for boot loaders at the start of the new disk.
const START: u64 = 4096;
/// What is kept for the backup of a GPT at its end.
pub(super) const END: u64 = 64;
/// A surplus of less than this many bytes is not worth a partition.
const MIN_EXTRA_BYTES: u64 = 10 << 20;

/// What becomes of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is copied, into so many sectors.
    Copy(u64),
    /// It is made, without its content.
    Ignore,
    /// It is left out.
    Delete,
}

/// A partition of the old disk. Logical ones are part of the extended one's content.
pub(super) struct Part {
    pub(super) old: Partition,
    /// What it is called, such as `/dev/sda1`.
    pub(super) name: String,
    /// Its first sector and how many it has.
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) fate: Fate,
    /// Its first and last sector on the new disk.
    pub(super) target: (u64, u64),
}

impl Part {
    /// How many sectors it is to have.
    pub(super) fn new_len(&self) -> u64 {
        match self.fate {
            Fate::Copy(len) => len,
            Fate::Ignore => self.len,
            Fate::Delete => 0,
        }
    }
}

/// All of it.
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    pub(super) sector_size: u64,
    alignment: u64,
    /// Where the first partition of the new disk begins.
    first_start: u64,
    /// Sectors of the new disk that nothing needs, or if negative, that are missing.
    pub(super) surplus: i128,
    /// A partition for the surplus.
    pub(super) extra: Option<(u64, u64)>,
}

impl Plan {
    /// Everything is copied as it is. Without `first_start`, the new disk's first partition begins where
    /// the old one's does, be that one deleted or not.
    pub(super) fn new(table: &PartitionTable, alignment: u64, first_start: Option<u64>) -> Self {
        let sector_size = u64::from(table.sector_size);
        let mut parts: Vec<Part> = table
            .partitions
            .iter()
            .filter(|partition| partition.role != PartitionRole::Logical)
            .map(|partition| {
                let len = partition.len_bytes / sector_size;
                Part {
                    name: format!("/dev/sda{}", partition.number),
                    start: partition.start_bytes / sector_size,
                    len,
                    fate: Fate::Copy(len),
                    target: (0, 0),
                    old: partition.clone(),
                }
            })
            .collect();
        parts.sort_by_key(|part| part.start);
        let first_start = first_start.or_else(|| parts.first().map(|part| part.start)).unwrap_or(alignment);
        Self { parts, sector_size, alignment, first_start, surplus: 0, extra: None }
    }

    /// The partition that an option names.
    pub(super) fn find(&mut self, name: &str, option: &str) -> Result<&mut Part> {
        let full = if name.starts_with('/') { name.to_owned() } else { format!("/dev/{name}") };
        let part = self.parts.iter_mut().find(|part| {
            ["/dev/sda", "/dev/vda", "/dev/hda"]
                .iter()
                .any(|disk| full == format!("{disk}{}", part.old.number))
        });
        part.ok_or_else(|| {
            message(format!(
                "{name}: partition not found in the source disk image (this came from {option}); logical \
                 partitions are resized with the extended one only"
            ))
        })
    }

    /// Sets a partition's fate, once.
    pub(super) fn decide(&mut self, name: &str, option: &str, fate: Fate) -> Result<()> {
        let part = self.find(name, option)?;
        if part.fate != Fate::Copy(part.len) {
            return Err(message(format!("{option}: {} is named by several options", part.name)));
        }
        part.fate = fate;
        Ok(())
    }

    /// The size in sectors that `--resize` asks for: a size, or a change by `+` or `-`, each also in
    /// percent.
    pub(super) fn parse_size(&self, text: &str, len: u64) -> Result<u64> {
        let wrong = || message(format!("{text:?} is not a size such as 10G, +1G or -20%"));
        let (sign, rest) = match text.as_bytes().first() {
            Some(b'+') => (1, &text[1..]),
            Some(b'-') => (-1, &text[1..]),
            _ => (0, text),
        };
        let sectors = match rest.strip_suffix('%') {
            Some(percent) => {
                let percent: u64 = percent.parse().map_err(|_| wrong())?;
                u64::try_from(u128::from(len) * u128::from(percent) / 100).map_err(|_| wrong())?
            }
            None => size::parse_with(rest, 1).map_err(message)?.div_ceil(self.sector_size),
        };
        match sign {
            0 => Some(sectors),
            1 => len.checked_add(sectors),
            _ => len.checked_sub(sectors),
        }
        .filter(|len| *len > 0)
        .ok_or_else(wrong)
    }

    /// Finds out how much of a new disk with so many sectors is left.
    pub(super) fn weigh(&mut self, disk: u64) {
        let parts = self.parts.len() as u64;
        let start = START.max(self.first_start);
        let overhead = start.saturating_add(self.alignment.saturating_mul(parts + 1)).saturating_add(END);
        let needed = self.parts.iter().fold(overhead, |sum, part| sum.saturating_add(part.new_len()));
        self.surplus = i128::from(disk) - i128::from(needed);
    }

    /// How many bytes are missing.
    pub(super) fn deficit_bytes(&self) -> u64 {
        u64::try_from(-self.surplus).unwrap_or(0).saturating_mul(self.sector_size)
    }

    pub(super) fn surplus_bytes(&self) -> u64 {
        u64::try_from(self.surplus).unwrap_or(0).saturating_mul(self.sector_size)
    }

    /// Gives the partitions their places on a disk with so many sectors. `can_add` says whether there
    /// may be a partition for the surplus.
    pub(super) fn place(&mut self, disk: u64, can_add: bool) -> Result<()> {
        let too_large = || message("the partitions do not fit on the new disk");
        let align =
            |sector: u64| sector.checked_next_multiple_of(self.alignment.max(1)).ok_or_else(too_large);
        let mut at = self.first_start;
        for part in self.parts.iter_mut().filter(|part| part.fate != Fate::Delete) {
            let end = at.checked_add(part.new_len()).ok_or_else(too_large).and_then(align)?;
            if end > disk.saturating_sub(END) {
                return Err(too_large());
            }
            part.target = (at, end - 1);
            at = end;
        }
        if can_add && self.surplus_bytes() >= MIN_EXTRA_BYTES && at < disk.saturating_sub(END) {
            self.extra = Some((at, disk - END - 1));
        }
        Ok(())
    }
}
