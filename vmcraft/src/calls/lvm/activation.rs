//! Which volume groups are open, and which devices are looked at.

use std::collections::BTreeSet;

use bstr::BString;
use vmcraft_macros::api;

use crate::stack::Kind;
use crate::{DeviceName, Error, Guest, Result};

#[api(area = "lvm")]
impl Guest {
    /// Look for volume groups anew
    ///
    /// There is no need for this: calls that change a device do it.
    ///
    /// ```guestfish
    /// vgscan
    /// ```
    #[call(deprecated = "lvm-scan")]
    pub fn vgscan(&mut self) -> Result<()> {
        self.lvm_scan(false)
    }

    /// Look for volume groups anew
    ///
    /// With `activate`, those that were deactivated are opened again.
    ///
    /// ```guestfish
    /// lvm-scan true
    /// ```
    pub fn lvm_scan(&mut self, activate: bool) -> Result<()> {
        if activate {
            return self.vg_activate_all(true);
        }
        self.launched()?;
        self.rescan();
        Ok(())
    }

    /// Open or close volume groups
    ///
    /// All groups are open from the start. The logical volumes of one that was closed are not there until
    /// it is opened again, so that what they lie on can be changed. A group is not closed while something
    /// on it is mounted, or a volume that is no logical volume stands on it. An empty list is all groups.
    ///
    /// ```guestfish
    /// vg-activate false "vg1 vg2"
    /// ```
    pub fn vg_activate(&mut self, activate: bool, volgroups: &[BString]) -> Result<()> {
        if volgroups.is_empty() {
            return self.vg_activate_all(activate);
        }
        let groups = volgroups.iter().map(|name| Ok(self.volume_group(&name.to_string())?.name().to_owned()));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        self.set_groups_active(&groups, activate)
    }

    /// Open or close all volume groups
    ///
    /// ```guestfish
    /// vg-activate-all true
    /// ```
    pub fn vg_activate_all(&mut self, activate: bool) -> Result<()> {
        let groups = self.group_names()?;
        self.set_groups_active(&groups, activate)
    }

    /// Look for physical volumes on some devices only
    ///
    /// On others, until `lvm-clear-filter`, none are found. A disk stands for its partitions too, and a
    /// device for all that lies on it. Where disks hold copies of the same volume group, that is how one of
    /// them is chosen.
    ///
    /// ```guestfish
    /// lvm-set-filter "/dev/sda /dev/sdb1"
    /// ```
    pub fn lvm_set_filter(&mut self, devices: &[BString]) -> Result<()> {
        let names = devices.iter().map(|name| Ok(self.find_device(DeviceName::new(name))?.name));
        let names = names.collect::<Result<BTreeSet<_>>>()?;
        self.filter_lvm(Some(names))
    }

    /// Look for physical volumes on all devices again
    ///
    /// ```guestfish
    /// lvm-clear-filter
    /// ```
    pub fn lvm_clear_filter(&mut self) -> Result<()> {
        self.filter_lvm(None)
    }
}

impl Guest {
    fn set_groups_active(&mut self, groups: &[String], active: bool) -> Result<()> {
        if !active {
            for group in groups {
                self.refuse_group_in_use_by_others(group, groups)?;
            }
        }
        for group in groups {
            self.stack.set_active(group, active);
        }
        self.reopen_volumes();
        Ok(())
    }

    fn filter_lvm(&mut self, devices: Option<BTreeSet<String>>) -> Result<()> {
        let groups = self.group_names()?;
        for group in &groups {
            self.refuse_group_in_use_by_others(group, &groups)?;
        }
        self.stack.set_lvm_filter(devices);
        self.reopen_volumes();
        Ok(())
    }

    /// Refuses to close a group of which something is mounted, or on which anything stands but logical
    /// volumes of the groups that are closed with it.
    fn refuse_group_in_use_by_others(&self, group: &str, closed: &[String]) -> Result<()> {
        let prefix = format!("/dev/{group}/");
        for volume in self.stack.of_kind(Kind::LogicalVolume).filter(|v| v.name.starts_with(&prefix)) {
            for name in volume.names() {
                self.refuse_mounted(&name)?;
                let is_closed = |name: &str| {
                    closed.iter().any(|group| name.strip_prefix(&format!("/dev/{group}/")).is_some())
                };
                if let Some(above) = self.stack.above(&name).find(|above| !is_closed(&above.name)) {
                    return Err(Error::Usage(format!(
                        "{}: busy: {} stands on it; close that first",
                        volume.name, above.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// Looks for volumes anew, and forgets the file systems on those that are not there any more.
    pub(crate) fn reopen_volumes(&mut self) {
        self.rescan();
        let gone: BTreeSet<String> = self
            .opened_filesystems()
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| self.find_device(DeviceName::new(name)).is_err())
            .collect();
        self.forget_filesystems(|name| gone.contains(name));
        self.inspection = None;
    }
}
