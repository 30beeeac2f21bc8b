//! What puts devices together: arrays, encrypted devices, dynamic disks. Volume groups are in `lvm`.

use vmcraft_macros::api;

use crate::stack::{Kind, Volume};
use crate::{Guest, Result};

#[api(area = "volumes")]
impl Guest {
    /// List the device mapper's devices
    ///
    /// Those are the contents of encrypted devices that were opened. Logical volumes are not among them:
    /// `lvs` lists those.
    ///
    /// ```guestfish
    /// list-dm-devices
    /// ```
    pub fn list_dm_devices(&self) -> Result<Vec<String>> {
        self.volumes_of(Kind::Decrypted)
    }

    /// List the Linux RAID arrays
    ///
    /// ```guestfish
    /// list-md-devices
    /// ```
    pub fn list_md_devices(&self) -> Result<Vec<String>> {
        self.volumes_of(Kind::Array)
    }

    /// List the volumes of Windows dynamic disks
    ///
    /// ```guestfish
    /// list-ldm-volumes
    /// ```
    pub fn list_ldm_volumes(&self) -> Result<Vec<String>> {
        self.volumes_of(Kind::DynamicVolume)
    }

    /// List the partitions of Windows dynamic disks
    ///
    /// Those are the parts of which the volumes are made. Each has a name of its own, as it has in
    /// libguestfs.
    ///
    /// ```guestfish
    /// list-ldm-partitions
    /// ```
    pub fn list_ldm_partitions(&self) -> Result<Vec<String>> {
        self.volumes_of(Kind::DynamicPartition)
    }
}

impl Guest {
    /// The names of the volumes of a kind, sorted.
    pub(super) fn volumes_of(&self, kind: Kind) -> Result<Vec<String>> {
        self.launched()?;
        let mut names: Vec<_> = self.stack.of_kind(kind).map(|volume| volume.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    /// The volumes of a kind, sorted by name.
    pub(super) fn sorted_volumes(&self, kind: Kind) -> Vec<&Volume> {
        let mut volumes: Vec<_> = self.stack.of_kind(kind).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes
    }
}
