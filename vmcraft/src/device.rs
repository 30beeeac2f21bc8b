//! Devices: the launched disks, their partitions, and their names.

use std::sync::Arc;

use bstr::ByteSlice;
use vmcraft_block::BlockDevice;
use vmcraft_volume::partition::{Partition, PartitionTable};

use crate::stack::{Stack, Volume};
use crate::{DeviceName, Error, Result};

/// A disk of the guest after launch, or a volume: what can have partitions.
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
    /// The canonical name of the disk or volume, `/dev/sda`.
    pub(crate) whole: String,
    /// The disk's index; `None` if it is a volume.
    pub(crate) index: Option<usize>,
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

/// Finds the device with this name among the disks and what stands on them.
pub(crate) fn find<'a>(disks: &'a [Disk], stack: &'a Stack, name: &DeviceName) -> Result<Found<'a>> {
    let missing = || Error::NoSuchDevice(name.to_string());
    let text = name.as_bstr().to_str().map_err(|_| missing())?;
    if let Some(volume) = stack.find(text) {
        let disk = opened(volume)?;
        return Ok(Found {
            name: volume.name.clone(),
            whole: volume.name.clone(),
            index: None,
            disk,
            partition: None,
        });
    }
    let on_disk = match text.strip_prefix("/dev/disk/guestfs/") {
        Some(label) => by_label(disks, label),
        None => parse_disk_name(text),
    };
    let Some((index, number)) = on_disk else {
        return stack
            .volumes()
            .iter()
            .find_map(|volume| in_volume(volume, text))
            .unwrap_or_else(|| Err(missing()));
    };
    let disk = disks.get(index).ok_or_else(missing)?;
    let whole = disk_name(index);
    let Some(number) = number else {
        return Ok(Found { name: whole.clone(), whole, index: Some(index), disk, partition: None });
    };
    let partition = partition(disk, &whole, number)?.ok_or_else(missing)?;
    let name = format!("{whole}{number}");
    Ok(Found { name, whole, index: Some(index), disk, partition: Some(partition) })
}

/// The partition of a volume that a name is of; `None` if it is of none.
fn in_volume<'a>(volume: &'a Volume, name: &str) -> Option<Result<Found<'a>>> {
    let number = volume.partition_number(name)?;
    let found = || {
        let disk = opened(volume)?;
        let partition = partition(disk, &volume.name, number)?;
        let partition = partition.ok_or_else(|| Error::NoSuchDevice(name.to_owned()))?;
        Ok(Found {
            name: volume.partition_name(number),
            whole: volume.name.clone(),
            index: None,
            disk,
            partition: Some(partition),
        })
    };
    Some(found())
}

/// The volume as a disk, or the reason why it cannot be opened.
fn opened(volume: &Volume) -> Result<&Disk> {
    volume
        .disk
        .as_ref()
        .map_err(|reason| Error::Closed { device: volume.name.clone(), reason: reason.clone() })
}

/// A partition of a disk by its number; `None` if there is no such partition.
fn partition<'a>(disk: &'a Disk, whole: &str, number: u32) -> Result<Option<&'a Partition>> {
    let table = disk.table.as_ref().map_err(|source| Error::Usage(format!("{whole}: {source}")))?;
    Ok(table.as_ref().and_then(|table| table.partitions.iter().find(|partition| partition.number == number)))
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
