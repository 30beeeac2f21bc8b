//! Devices: the launched disks, their partitions, and their names.

use std::sync::Arc;

use bstr::ByteSlice;
use vmcraft_block::BlockDevice;
use vmcraft_volume::partition::{Partition, PartitionTable};

use crate::{DeviceName, Error, Result};

/// A disk of the guest after launch.
pub(crate) struct Disk {
    pub(crate) device: Arc<dyn BlockDevice>,
    /// The table, none, or what is wrong with it.
    pub(crate) table: Result<Option<PartitionTable>, vmcraft_volume::Error>,
    /// The name under `/dev/disk/guestfs/`.
    pub(crate) label: Option<String>,
}

impl Disk {
    /// Its partitions; none if it has no table, or one that cannot be used.
    pub(crate) fn partitions(&self) -> &[Partition] {
        self.table.as_ref().ok().and_then(Option::as_ref).map_or(&[], |table| &table.partitions)
    }
}

/// A device that a name led to.
pub(crate) struct Found<'a> {
    /// Its canonical name, `/dev/sda1`.
    pub(crate) name: String,
    /// The disk's index.
    pub(crate) index: usize,
    pub(crate) disk: &'a Disk,
    /// The partition, if it is not the whole disk.
    pub(crate) partition: Option<&'a Partition>,
}

/// The canonical name of a disk, `/dev/sda`.
pub(crate) fn disk_name(index: usize) -> String {
    format!("/dev/sd{}", disk_letters(index))
}

/// `a` … `z`, `aa` … for disk 0, 25, 26 …
pub(crate) fn disk_letters(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(b"abcdefghijklmnopqrstuvwxyz"[rest % 26]);
        rest /= 26;
    }
    letters.reverse();
    letters.into_iter().map(char::from).collect()
}

/// The disk's index and the partition's number in a name such as `/dev/vdb3`; whatever bus the name
/// is of. `None` if it is not of that form.
pub(crate) fn parse_disk_name(name: &str) -> Option<(usize, Option<u32>)> {
    let name = name.strip_prefix("/dev/")?;
    let rest = ["sd", "vd", "hd", "xvd", "ubd"].iter().find_map(|bus| name.strip_prefix(bus))?;
    let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
    let (letters, digits) = rest.split_at(letters);
    if letters.is_empty() || letters.len() > 3 {
        return None;
    }
    let index = letters.bytes().fold(0, |index, letter| index * 26 + usize::from(letter - b'a') + 1) - 1;
    let number = match digits {
        "" => None,
        _ if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) => return None,
        _ => Some(digits.parse().ok()?),
    };
    Some((index, number))
}

/// Whether two canonical names are of the same bytes: a disk and itself, or a partition of it.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (Some((disk, part)), Some((other_disk, other_part))) = (parse_disk_name(one), parse_disk_name(other))
    else {
        return one == other;
    };
    disk == other_disk && (part.is_none() || other_part.is_none() || part == other_part)
}

/// Finds the device with this name among the disks.
pub(crate) fn find<'a>(disks: &'a [Disk], name: &DeviceName) -> Result<Found<'a>> {
    let missing = || Error::NoSuchDevice(name.to_string());
    let text = name.as_bstr().to_str().map_err(|_| missing())?;
    let (index, number) = match text.strip_prefix("/dev/disk/guestfs/") {
        Some(label) => by_label(disks, label).ok_or_else(missing)?,
        None => parse_disk_name(text).ok_or_else(missing)?,
    };
    let disk = disks.get(index).ok_or_else(missing)?;
    let whole = disk_name(index);
    let Some(number) = number else {
        return Ok(Found { name: whole, index, disk, partition: None });
    };
    let table = disk.table.as_ref().map_err(|source| Error::Usage(format!("{whole}: {source}")))?;
    let partition = table
        .as_ref()
        .and_then(|table| table.partitions.iter().find(|partition| partition.number == number))
        .ok_or_else(missing)?;
    Ok(Found { name: format!("{whole}{number}"), index, disk, partition: Some(partition) })
}

/// `LABEL` or `LABEL` followed by a partition's number.
fn by_label(disks: &[Disk], text: &str) -> Option<(usize, Option<u32>)> {
    disks.iter().enumerate().find_map(|(index, disk)| {
        let rest = text.strip_prefix(disk.label.as_deref()?)?;
        let number = if rest.is_empty() { None } else { Some(rest.parse().ok()?) };
        Some((index, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Past z comes aa, as the kernel counts.
    fn disk_names_count_as_the_kernel_does() {
        for (index, letters) in [(0, "a"), (25, "z"), (26, "aa"), (27, "ab"), (701, "zz"), (702, "aaa")] {
            assert_eq!(disk_letters(index), letters);
            assert_eq!(parse_disk_name(&format!("/dev/sd{letters}")), Some((index, None)));
        }
        assert_eq!(parse_disk_name("/dev/vdb12"), Some((1, Some(12))));
        for bad in ["/dev/sd", "/dev/sda01", "/dev/sda1x", "/dev/mapper/x", "sda", "/dev/nvme0n1"] {
            assert_eq!(parse_disk_name(bad), None, "{bad}");
        }
    }
}
