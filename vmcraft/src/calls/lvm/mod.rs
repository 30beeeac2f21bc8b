//! Volume groups of LVM: what they are made of, and changing them.

pub(super) mod activation;
pub(crate) mod logical_volumes;
pub(crate) mod physical_volumes;
pub(crate) mod volume_groups;

use std::collections::BTreeSet;
use std::mem;

use bstr::ByteSlice;
use vmcraft_volume::lvm::{Author, Backing, Lvm, PhysicalVolume, VolumeGroup};

use crate::stack::MAPPER;
use crate::{DeviceName, Error, Guest, Result};

/// The host that metadata is said to be written on.
const HOST: &str = "vmcraft";

/// Says which device or group the error is of, which the volume's own message does.
fn volume_error(source: vmcraft_volume::Error) -> Error {
    match source {
        vmcraft_volume::Error::Unsupported(what) => Error::Unsupported(what),
        vmcraft_volume::Error::Io(source) => Error::Device { device: "LVM".into(), source },
        other => Error::Usage(other.to_string()),
    }
}

impl Guest {
    /// The volume group with this name or UUID.
    fn volume_group(&self, name: &str) -> Result<&VolumeGroup> {
        self.launched()?;
        self.stack.lvm().group(plain_group(name)).map_err(volume_error)
    }

    /// The names of the volume groups, sorted.
    fn group_names(&self) -> Result<Vec<String>> {
        self.launched()?;
        let names: BTreeSet<_> =
            self.stack.lvm().volume_groups.iter().map(|group| group.name().to_owned()).collect();
        Ok(names.into_iter().collect())
    }

    /// The volume group and the name of the logical volume that a device's name is of. It need not be
    /// open.
    fn group_and_volume(&self, device: &DeviceName) -> Result<(&VolumeGroup, String)> {
        let missing = || Error::NoSuchDevice(device.to_string());
        self.launched()?;
        let text = device.as_bstr().to_str().map_err(|_| missing())?;
        let found = match text.strip_prefix(MAPPER) {
            Some(mapped) => self.stack.lvm().volume_groups.iter().find_map(|group| {
                let volume = group
                    .visible_volumes()
                    .find(|volume| vmcraft_volume::lvm::mapper_name(group.name(), &volume.name) == mapped)?;
                Some((group, volume.name.clone()))
            }),
            None => {
                let (group, volume) =
                    text.strip_prefix("/dev/").unwrap_or(text).split_once('/').ok_or_else(|| {
                        if self.find_device(device).is_ok() {
                            Error::Usage(format!("{device}: not a logical volume"))
                        } else {
                            missing()
                        }
                    })?;
                let group = self.stack.lvm().volume_groups.iter().find(|found| found.name() == group);
                let has = |group: &&VolumeGroup| group.visible_volumes().any(|found| found.name == volume);
                group.filter(has).map(|group| (group, volume.to_owned()))
            }
        };
        match found {
            Some(found) => Ok(found),
            None if self.find_device(device).is_ok() => {
                Err(Error::Usage(format!("{device}: not a logical volume")))
            }
            None => Err(missing()),
        }
    }

    /// The physical volume on a device.
    fn physical_volume(&self, device: &DeviceName) -> Result<&PhysicalVolume> {
        let name = self.find_device(device)?.name;
        let found = self.stack.lvm().physical_volumes.iter().find(|volume| volume.member.name == name);
        found.map(AsRef::as_ref).ok_or_else(|| Error::Usage(format!("{name}: not a physical volume")))
    }

    /// The devices of the physical volumes of a group.
    fn devices_of_group(&self, group: &str) -> Result<Vec<String>> {
        let backing = self.volume_group(group)?.backing.iter();
        let names = backing.filter_map(|backing| match backing {
            Backing::Present(volume) => Some(volume.member.name.clone()),
            Backing::Missing | Backing::Duplicate(_) => None,
        });
        Ok(names.collect())
    }

    /// Changes the metadata on these devices, all of it or nothing, and looks at what came of it.
    fn change_lvm<T>(
        &mut self,
        devices: &[String],
        change: impl FnOnce(&mut Lvm, &mut Author<'_>) -> vmcraft_volume::Result<T>,
    ) -> Result<T> {
        self.atomically(|guest| {
            for device in devices {
                guest.refuse_write_protected(device)?;
            }
            let now = u64::try_from(guest.sources().now().seconds).unwrap_or_default();
            guest.note_lost_snapshots();
            let mut lvm = mem::take(guest.stack.lvm_mut());
            let done = guest.with_random(|random| {
                let mut author = Author { random, now, host: HOST };
                change(&mut lvm, &mut author).map_err(volume_error)
            });
            guest.reopen_volumes();
            done
        })
    }

    /// Refuses what must not be done to a logical volume, or to all of a group, while something on it is
    /// mounted, or a volume of another kind stands on it.
    fn refuse_group_in_use(&self, group: &str, volume: Option<&str>) -> Result<()> {
        let prefix = format!("/dev/{group}/");
        let volumes = self.stack.volumes().iter().filter(|found| {
            found.name.strip_prefix(&prefix).is_some_and(|name| volume.is_none_or(|volume| volume == name))
        });
        for found in volumes {
            for name in found.names() {
                self.refuse_mounted(&name)?;
                if let Some(above) = self.stack.above(&name).next() {
                    return Err(Error::Usage(format!(
                        "{}: busy: {} stands on it; close that first",
                        found.name, above.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The name of a volume group, which LVM takes as the directory of its devices, too.
fn plain_group(name: &str) -> &str {
    name.strip_prefix("/dev/").unwrap_or(name)
}
