//! Windows dynamic disks.

use std::collections::BTreeSet;

use bstr::{BString, ByteSlice};
use vmcraft_macros::api;
use vmcraft_volume::ldm::{DiskGroup, Volume};

use crate::stack::Kind;
use crate::{DeviceName, Error, Guest, Result};

#[api(area = "volumes")]
impl Guest {
    /// Show the volumes of Windows dynamic disks
    ///
    /// They are there from the start: this is for after `ldmtool-remove-all`.
    ///
    /// ```guestfish
    /// ldmtool-create-all
    /// ```
    pub fn ldmtool_create_all(&mut self) -> Result<()> {
        self.launched()?;
        self.stack.set_dynamic_shown(true);
        self.reopen_volumes();
        Ok(())
    }

    /// Close the volumes of Windows dynamic disks
    ///
    /// They are not there any more until `ldmtool-create-all`. Nothing on them may be mounted, and no volume
    /// of another kind may stand on them.
    ///
    /// ```guestfish
    /// ldmtool-remove-all
    /// ```
    pub fn ldmtool_remove_all(&mut self) -> Result<()> {
        self.launched()?;
        let is_dynamic = |kind: Kind| matches!(kind, Kind::DynamicVolume | Kind::DynamicPartition);
        for volume in self.stack.volumes().iter().filter(|volume| is_dynamic(volume.kind)) {
            for name in volume.names() {
                self.refuse_mounted(&name)?;
                if let Some(above) = self.stack.above(&name).find(|above| !is_dynamic(above.kind)) {
                    return Err(Error::Usage(format!(
                        "{name}: busy: {} stands on it; close that first",
                        above.name
                    )));
                }
            }
        }
        self.stack.set_dynamic_shown(false);
        self.reopen_volumes();
        Ok(())
    }

    /// List the GUIDs of the groups of Windows dynamic disks
    ///
    /// ```guestfish
    /// ldmtool-scan
    /// ```
    pub fn ldmtool_scan(&self) -> Result<Vec<String>> {
        self.launched()?;
        Ok(self.stack.dynamic().groups.iter().map(|group| group.guid.clone()).collect())
    }

    /// List the GUIDs of the groups that some Windows dynamic disks belong to
    ///
    /// `devices` are disks; an empty list is all of them.
    ///
    /// ```guestfish
    /// ldmtool-scan-devices "/dev/sda /dev/sdb"
    /// ```
    pub fn ldmtool_scan_devices(&self, devices: &[BString]) -> Result<Vec<String>> {
        if devices.is_empty() {
            return self.ldmtool_scan();
        }
        let names = devices.iter().map(|name| Ok(self.find_device(DeviceName::new(name))?.name));
        let names = names.collect::<Result<BTreeSet<_>>>()?;
        let is_meant = |group: &&DiskGroup| {
            let members = group.disks.iter().filter_map(|disk| disk.member.as_ref());
            members.into_iter().any(|member| names.contains(&member.name))
        };
        Ok(self.stack.dynamic().groups.iter().filter(is_meant).map(|group| group.guid.clone()).collect())
    }

    /// Return the name of a group of Windows dynamic disks
    ///
    /// ```guestfish
    /// ldmtool-diskgroup-name 06495a84-fbfd-11e1-8cf9-52540061f5db
    /// ```
    pub fn ldmtool_diskgroup_name(&self, diskgroup: &str) -> Result<String> {
        Ok(self.disk_group(diskgroup)?.name.clone())
    }

    /// List the volumes of a group of Windows dynamic disks
    ///
    /// ```guestfish
    /// ldmtool-diskgroup-volumes 06495a84-fbfd-11e1-8cf9-52540061f5db
    /// ```
    pub fn ldmtool_diskgroup_volumes(&self, diskgroup: &str) -> Result<Vec<String>> {
        Ok(self.disk_group(diskgroup)?.volumes.iter().map(|volume| volume.name.clone()).collect())
    }

    /// List the disks of a group of Windows dynamic disks
    ///
    /// Those that are missing are among them.
    ///
    /// ```guestfish
    /// ldmtool-diskgroup-disks 06495a84-fbfd-11e1-8cf9-52540061f5db
    /// ```
    pub fn ldmtool_diskgroup_disks(&self, diskgroup: &str) -> Result<Vec<String>> {
        Ok(self.disk_group(diskgroup)?.disks.iter().map(|disk| disk.name.clone()).collect())
    }

    /// Return the type of a volume of Windows dynamic disks
    ///
    /// That is `simple`, `spanned`, `striped`, `mirrored` or `RAID5`.
    ///
    /// ```guestfish
    /// ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db Volume1
    /// ```
    pub fn ldmtool_volume_type(&self, diskgroup: &str, volume: &str) -> Result<String> {
        Ok(self.dynamic_volume(diskgroup, volume)?.layout.to_string())
    }

    /// Return what Windows would call a volume of dynamic disks
    ///
    /// Most often that is a drive letter, such as `E:`. It is empty if there is none.
    ///
    /// ```guestfish
    /// ldmtool-volume-hint 06495a84-fbfd-11e1-8cf9-52540061f5db Volume1
    /// ```
    pub fn ldmtool_volume_hint(&self, diskgroup: &str, volume: &str) -> Result<String> {
        Ok(self.dynamic_volume(diskgroup, volume)?.hint.clone().unwrap_or_default())
    }

    /// List the partitions of a volume of Windows dynamic disks
    ///
    /// ```guestfish
    /// ldmtool-volume-partitions 06495a84-fbfd-11e1-8cf9-52540061f5db Volume1
    /// ```
    pub fn ldmtool_volume_partitions(&self, diskgroup: &str, volume: &str) -> Result<Vec<String>> {
        let volume = self.dynamic_volume(diskgroup, volume)?;
        Ok(volume.partitions().map(|partition| partition.name.clone()).collect())
    }
}

impl Guest {
    fn disk_group(&self, guid: &str) -> Result<&DiskGroup> {
        self.launched()?;
        let group = self.stack.dynamic().group(&guid.to_ascii_lowercase());
        group.ok_or_else(|| {
            Error::Usage(format!("{}: there is no such group of dynamic disks", guid.as_bytes().as_bstr()))
        })
    }

    fn dynamic_volume(&self, guid: &str, name: &str) -> Result<&Volume> {
        let group = self.disk_group(guid)?;
        group.volume(name).ok_or_else(|| {
            Error::Usage(format!("{name}: the group of dynamic disks {} has no such volume", group.name))
        })
    }
}
