//! Volume groups as a whole.

use bstr::BString;
use vmcraft_macros::api;
use vmcraft_volume::lvm::VgReport;

use super::physical_volumes::count;
use super::plain_group;
use crate::device::parse_disk_name;
use crate::value::record;
use crate::{Error, Guest, Result};

record! {
    /// A volume group, as `vgs-full` gives it. Sizes are in bytes.
    pub struct LvmVg as "lvm_vg" {
        /// Its name.
        pub vg_name: String,
        /// Its UUID without dashes.
        pub vg_uuid: String,
        /// `lvm2`.
        pub vg_fmt: String,
        /// Letters as `vgs` prints them.
        pub vg_attr: String,
        /// What its physical volumes have.
        pub vg_size: u64,
        /// What no logical volume has.
        pub vg_free: u64,
        /// The system that it belongs to.
        pub vg_sysid: String,
        /// The size of an extent.
        pub vg_extent_size: u64,
        /// How many extents it has.
        pub vg_extent_count: i64,
        /// How many of them are free.
        pub vg_free_count: i64,
        /// The most logical volumes that it may have; 0 is no limit.
        pub max_lv: i64,
        /// The most physical volumes that it may have; 0 is no limit.
        pub max_pv: i64,
        /// How many physical volumes it has, missing ones too.
        pub pv_count: i64,
        /// How many logical volumes it has that users see.
        pub lv_count: i64,
        /// How many of them are snapshots.
        pub snap_count: i64,
        /// How often its metadata was changed.
        pub vg_seqno: i64,
        /// Its tags, with commas between them.
        pub vg_tags: String,
        /// How many metadata areas it has.
        pub vg_mda_count: i64,
        /// What is left in the fullest of them.
        pub vg_mda_free: u64,
    }
}

#[api(area = "lvm")]
impl Guest {
    /// List the volume groups of LVM
    ///
    /// ```guestfish
    /// vgs
    /// ```
    pub fn vgs(&self) -> Result<Vec<String>> {
        self.group_names()
    }

    /// List the volume groups of LVM with all that is known of them
    ///
    /// ```guestfish
    /// vgs-full
    /// ```
    pub fn vgs_full(&self) -> Result<Vec<LvmVg>> {
        self.launched()?;
        let mut reports = self.stack.lvm().report_volume_groups();
        reports.sort_by(|a, b| a.vg_name.cmp(&b.vg_name));
        Ok(reports.into_iter().map(LvmVg::from).collect())
    }

    /// Return the UUID of a volume group
    ///
    /// ```guestfish
    /// vguuid vg
    /// ```
    pub fn vguuid(&self, vgname: &str) -> Result<String> {
        Ok(self.volume_group(vgname)?.metadata.uuid.to_string())
    }

    /// List the UUIDs of the physical volumes of a volume group
    ///
    /// Those that are missing are among them.
    ///
    /// ```guestfish
    /// vgpvuuids vg
    /// ```
    pub fn vgpvuuids(&self, vgname: &str) -> Result<Vec<String>> {
        let volumes = self.volume_group(vgname)?.metadata.physical_volumes.iter();
        Ok(volumes.map(|volume| volume.uuid.to_string()).collect())
    }

    /// List the UUIDs of the logical volumes of a volume group
    ///
    /// ```guestfish
    /// vglvuuids vg
    /// ```
    pub fn vglvuuids(&self, vgname: &str) -> Result<Vec<String>> {
        Ok(self.volume_group(vgname)?.visible_volumes().map(|volume| volume.uuid.to_string()).collect())
    }

    /// Return the metadata of a volume group as text
    ///
    /// It is what stands on the physical volumes, for people to read: `vgcfgbackup` writes the same.
    ///
    /// ```guestfish
    /// vgmeta vg
    /// ```
    pub fn vgmeta(&self, vgname: &str) -> Result<BString> {
        Ok(self.volume_group(vgname)?.text().into())
    }

    /// Make a volume group of devices
    ///
    /// Those that are no physical volumes become some, and what they held is lost.
    ///
    /// ```guestfish
    /// vgcreate vg "/dev/sda1 /dev/sdb1"
    /// ```
    pub fn vgcreate(&mut self, volgroup: &str, physvols: &[BString]) -> Result<()> {
        let volgroup = new_group(volgroup)?;
        self.atomically(|guest| {
            let members = guest.unused_members(physvols)?;
            guest.forget_filesystems(|open| members.iter().any(|member| member.name == open));
            guest.change_lvm(&[], |lvm, author| lvm.create_group(volgroup, &members, author).map(drop))
        })
    }

    /// Remove a volume group
    ///
    /// All logical volumes in it are lost. Its devices stay physical volumes.
    ///
    /// ```guestfish
    /// vgremove vg
    /// ```
    pub fn vgremove(&mut self, vgname: &str) -> Result<()> {
        let devices = self.devices_of_unused_group(vgname)?;
        self.change_lvm(&devices, |lvm, _| lvm.remove_group(plain_group(vgname)))
    }

    /// Rename a volume group
    ///
    /// `volgroup` can be its UUID, which tells groups of the same name apart.
    ///
    /// ```guestfish
    /// vgrename vg newvg
    /// ```
    pub fn vgrename(&mut self, volgroup: &str, newvolgroup: &str) -> Result<()> {
        let devices = self.devices_of_unused_group(volgroup)?;
        let newvolgroup = new_group(newvolgroup)?;
        self.change_lvm(&devices, |lvm, author| lvm.rename_group(plain_group(volgroup), newvolgroup, author))
    }

    /// Give a volume group a random UUID
    ///
    /// ```guestfish
    /// vgchange-uuid vg
    /// ```
    pub fn vgchange_uuid(&mut self, vg: &str) -> Result<()> {
        let devices = self.devices_of_group(vg)?;
        self.change_lvm(&devices, |lvm, author| lvm.renew_group_uuid(plain_group(vg), author))
    }

    /// Give all volume groups random UUIDs
    ///
    /// ```guestfish
    /// vgchange-uuid-all
    /// ```
    pub fn vgchange_uuid_all(&mut self) -> Result<()> {
        let devices = self.pvs()?;
        self.change_lvm(&devices, |lvm, author| lvm.renew_all_group_uuids(author))
    }

    /// Remove all logical volumes, volume groups and physical volumes
    ///
    /// What they held is lost.
    ///
    /// ```guestfish
    /// lvm-remove-all
    /// ```
    pub fn lvm_remove_all(&mut self) -> Result<()> {
        let groups = self.group_names()?;
        for group in &groups {
            self.refuse_group_in_use(group, None)?;
        }
        let devices = self.pvs()?;
        self.change_lvm(&devices, |lvm, _| lvm.remove_all())
    }
}

impl Guest {
    /// The devices of a group of which nothing is in use.
    fn devices_of_unused_group(&self, group: &str) -> Result<Vec<String>> {
        let name = self.volume_group(group)?.name().to_owned();
        self.refuse_group_in_use(&name, None)?;
        self.devices_of_group(group)
    }
}

/// The name for a group that gets one. Its volumes are in `/dev/NAME`, where nothing else may be.
fn new_group(name: &str) -> Result<&str> {
    let name = plain_group(name);
    let is_taken =
        matches!(name, "mapper" | "md" | "disk" | "fd") || parse_disk_name(&format!("/dev/{name}")).is_some();
    if is_taken {
        return Err(Error::Usage(format!("{name}: /dev/{name} is the name of something else")));
    }
    Ok(name)
}

impl From<VgReport> for LvmVg {
    fn from(report: VgReport) -> Self {
        Self {
            vg_name: report.vg_name,
            vg_uuid: report.vg_uuid.undashed(),
            vg_fmt: report.vg_fmt.into(),
            vg_attr: report.vg_attr,
            vg_size: report.vg_size,
            vg_free: report.vg_free,
            vg_sysid: report.vg_sysid,
            vg_extent_size: report.vg_extent_size,
            vg_extent_count: count(report.vg_extent_count),
            vg_free_count: count(report.vg_free_count),
            max_lv: count(report.max_lv),
            max_pv: count(report.max_pv),
            pv_count: count(report.pv_count),
            lv_count: count(report.lv_count),
            snap_count: count(report.snap_count),
            vg_seqno: count(report.vg_seqno),
            vg_tags: report.vg_tags.join(","),
            vg_mda_count: count(report.vg_mda_count),
            vg_mda_free: report.vg_mda_free,
        }
    }
}
