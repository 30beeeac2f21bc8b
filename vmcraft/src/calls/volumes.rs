//! Volume groups, arrays and what else puts devices together. This version opens none: it says so
//! where there are some.

use vmcraft_macros::api;

use crate::partition_types;
use crate::{DeviceName, Error, Guest, Result};

#[api(area = "volumes")]
impl Guest {
    /// List the device mapper's devices
    ///
    /// This version opens no encrypted devices, so there are none.
    ///
    /// ```guestfish
    /// list-dm-devices
    /// ```
    pub fn list_dm_devices(&self) -> Result<Vec<String>> {
        self.launched()?;
        Ok(Vec::new())
    }

    /// List the Linux RAID arrays
    ///
    /// This version opens no arrays: if there is a member of one, it is an error.
    ///
    /// ```guestfish
    /// list-md-devices
    /// ```
    pub fn list_md_devices(&self) -> Result<Vec<String>> {
        self.none_of("linux_raid_member", "RAID arrays")
    }

    /// List the devices that are physical volumes of LVM
    ///
    /// ```guestfish
    /// pvs
    /// ```
    pub fn pvs(&self) -> Result<Vec<String>> {
        self.devices_of_kind("LVM2_member")
    }

    /// List the volume groups of LVM
    ///
    /// This version opens no volume groups: if there is a physical volume, it is an error.
    ///
    /// ```guestfish
    /// vgs
    /// ```
    pub fn vgs(&self) -> Result<Vec<String>> {
        self.none_of("LVM2_member", "volume groups of LVM")
    }

    /// List the logical volumes of LVM
    ///
    /// This version opens no volume groups: if there is a physical volume, it is an error.
    ///
    /// ```guestfish
    /// lvs
    /// ```
    pub fn lvs(&self) -> Result<Vec<String>> {
        self.none_of("LVM2_member", "volume groups of LVM")
    }

    /// List the volumes of Windows dynamic disks
    ///
    /// This version opens no dynamic disks: if there is one, it is an error.
    ///
    /// ```guestfish
    /// list-ldm-volumes
    /// ```
    pub fn list_ldm_volumes(&self) -> Result<Vec<String>> {
        self.no_dynamic_disks()
    }

    /// List the partitions of Windows dynamic disks
    ///
    /// This version opens no dynamic disks: if there is one, it is an error.
    ///
    /// ```guestfish
    /// list-ldm-partitions
    /// ```
    pub fn list_ldm_partitions(&self) -> Result<Vec<String>> {
        self.no_dynamic_disks()
    }
}

impl Guest {
    /// The devices that hold this.
    fn devices_of_kind(&self, kind: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in self.devices()? {
            if matches!(self.signature(DeviceName::new(&name)), Ok(Some(signature)) if signature.kind == kind)
            {
                found.push(name);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Nothing if no device holds this, and else an error.
    fn none_of(&self, kind: &str, what: &str) -> Result<Vec<String>> {
        let devices = self.devices_of_kind(kind)?;
        if devices.is_empty() {
            return Ok(devices);
        }
        Err(Error::Unsupported(format!("{what}, and {} of one ({kind})", holds_part(&devices))))
    }

    fn no_dynamic_disks(&self) -> Result<Vec<String>> {
        let partitions = self.partitions()?.into_iter();
        let dynamic: Vec<_> =
            partitions.filter(|(_, p)| partition_types::is_dynamic_disk(p)).map(|(name, _)| name).collect();
        if dynamic.is_empty() {
            return Ok(dynamic);
        }
        Err(Error::Unsupported(format!("Windows dynamic disks, and {} of one", holds_part(&dynamic))))
    }
}

/// `/dev/sda1 is a part` or `/dev/sda1 and /dev/sdb1 are parts`.
fn holds_part(devices: &[String]) -> String {
    match devices {
        [one] => format!("{one} is a part"),
        several => format!("{} are parts", several.join(" and ")),
    }
}
