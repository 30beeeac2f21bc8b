//! Making a logical volume that has all of a device, in a group of its own.

use vmcraft::{DeviceName, Guest};

use crate::error::{Error, Result};

/// The name of a logical volume that is to be made: `/dev/VG/LV`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VolumeName<'a> {
    group: &'a str,
    volume: &'a str,
}

impl<'a> VolumeName<'a> {
    /// Reads `/dev/VG/LV`.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        let names = text.strip_prefix("/dev/").and_then(|names| names.split_once('/'));
        let names =
            names.filter(|(group, volume)| !group.is_empty() && !volume.is_empty() && !volume.contains('/'));
        let (group, volume) =
            names.ok_or_else(|| format!("{text:?} is no name of a logical volume such as /dev/VG/LV"))?;
        Ok(Self { group, volume })
    }

    /// Makes a physical volume of the device, a group of that, and in it the logical volume.
    pub(crate) fn make(self, guest: &mut Guest, device: &str) -> Result<()> {
        guest.pvcreate(DeviceName::new(device)).map_err(|e| Error::call("pvcreate", e))?;
        guest.vgcreate(self.group, &[device.into()]).map_err(|e| Error::call("vgcreate", e))?;
        guest
            .lvcreate_free(self.volume, self.group, 100, None, None)
            .map_err(|e| Error::call("lvcreate-free", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_group_and_a_volume() {
        assert_eq!(VolumeName::parse("/dev/VG/LV"), Ok(VolumeName { group: "VG", volume: "LV" }));
        for bad in ["VG/LV", "/dev/VG", "/dev//LV", "/dev/VG/", "/dev/a/b/c", ""] {
            assert!(VolumeName::parse(bad).unwrap_err().contains("/dev/VG/LV"), "{bad}");
        }
    }
}
