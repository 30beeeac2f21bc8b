//! Physical volumes: the devices that volume groups are made of.

use vmcraft_macros::api;
use vmcraft_volume::lvm::PvReport;

use crate::value::record;
use crate::{DeviceName, Error, Guest, Result};

record! {
    /// A physical volume, as `pvs-full` gives it. Sizes are in bytes.
    pub struct LvmPv as "lvm_pv" {
        /// The device, or `[unknown]` if it is missing.
        pub pv_name: String,
        /// Its UUID without dashes.
        pub pv_uuid: String,
        /// `lvm2`.
        pub pv_fmt: String,
        /// What is usable.
        pub pv_size: u64,
        /// The device.
        pub dev_size: u64,
        /// What no logical volume has.
        pub pv_free: u64,
        /// What logical volumes have.
        pub pv_used: u64,
        /// Letters as `pvs` prints them.
        pub pv_attr: String,
        /// How many extents it has.
        pub pv_pe_count: i64,
        /// How many of them are used.
        pub pv_pe_alloc_count: i64,
        /// Its tags, with commas between them.
        pub pv_tags: String,
        /// Where the first extent is.
        pub pe_start: u64,
        /// How many metadata areas it has.
        pub pv_mda_count: i64,
        /// What is left in the fullest of them.
        pub pv_mda_free: u64,
    }
}

#[api(area = "lvm")]
impl Guest {
    /// List the devices that are physical volumes of LVM
    ///
    /// ```guestfish
    /// pvs
    /// ```
    pub fn pvs(&self) -> Result<Vec<String>> {
        self.launched()?;
        let volumes = self.stack.lvm().physical_volumes.iter();
        let mut names: Vec<_> = volumes.map(|volume| volume.member.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    /// List the physical volumes of LVM with all that is known of them
    ///
    /// Those that a volume group lacks are among them, as `[unknown]`.
    ///
    /// ```guestfish
    /// pvs-full
    /// ```
    pub fn pvs_full(&self) -> Result<Vec<LvmPv>> {
        self.launched()?;
        Ok(self.stack.lvm().report_physical_volumes().into_iter().map(LvmPv::from).collect())
    }

    /// Return the UUID of a physical volume
    ///
    /// ```guestfish
    /// pvuuid /dev/sda1
    /// ```
    pub fn pvuuid(&self, device: &DeviceName) -> Result<String> {
        Ok(self.physical_volume(device)?.label.uuid.to_string())
    }

    /// Make a device a physical volume of LVM
    ///
    /// What the device held is lost.
    ///
    /// ```guestfish
    /// pvcreate /dev/sda1
    /// ```
    pub fn pvcreate(&mut self, device: &DeviceName) -> Result<()> {
        self.atomically(|guest| {
            let member = guest.unused_member(device)?;
            guest.forget_filesystems(|open| open == member.name);
            guest.change_lvm(&[], |lvm, author| lvm.create_physical_volume(&member, author).map(drop))
        })
    }

    /// Make a physical volume an ordinary device
    ///
    /// It must not belong to a volume group.
    ///
    /// ```guestfish
    /// pvremove /dev/sda1
    /// ```
    pub fn pvremove(&mut self, device: &DeviceName) -> Result<()> {
        let name = self.physical_volume(device)?.member.name.clone();
        self.change_lvm(std::slice::from_ref(&name), |lvm, _| lvm.remove_physical_volume(&name))
    }

    /// Make a physical volume as large as its device
    ///
    /// ```guestfish
    /// pvresize /dev/sda1
    /// ```
    pub fn pvresize(&mut self, device: &DeviceName) -> Result<()> {
        self.resize_physical_volume(device, None)
    }

    /// Make a physical volume so many bytes large
    ///
    /// Its device stays as it is. What logical volumes have must fit.
    ///
    /// ```guestfish
    /// pvresize-size /dev/sda1 1073741824
    /// ```
    pub fn pvresize_size(&mut self, device: &DeviceName, size: i64) -> Result<()> {
        let bytes = u64::try_from(size).map_err(|_| Error::Usage(format!("size: {size} is negative")))?;
        self.resize_physical_volume(device, Some(bytes))
    }

    /// Give a physical volume a random UUID
    ///
    /// ```guestfish
    /// pvchange-uuid /dev/sda1
    /// ```
    pub fn pvchange_uuid(&mut self, device: &DeviceName) -> Result<()> {
        let name = self.physical_volume(device)?.member.name.clone();
        self.change_lvm(std::slice::from_ref(&name), |lvm, author| {
            lvm.renew_physical_volume_uuid(&name, author)
        })
    }

    /// Give all physical volumes random UUIDs
    ///
    /// ```guestfish
    /// pvchange-uuid-all
    /// ```
    pub fn pvchange_uuid_all(&mut self) -> Result<()> {
        let devices = self.pvs()?;
        self.change_lvm(&devices, |lvm, author| lvm.renew_all_physical_volume_uuids(author))
    }
}

impl Guest {
    fn resize_physical_volume(&mut self, device: &DeviceName, bytes: Option<u64>) -> Result<()> {
        let name = self.physical_volume(device)?.member.name.clone();
        self.change_lvm(std::slice::from_ref(&name), |lvm, author| {
            lvm.resize_physical_volume(&name, bytes, author)
        })
    }
}

impl From<PvReport> for LvmPv {
    fn from(report: PvReport) -> Self {
        Self {
            pv_name: report.pv_name,
            pv_uuid: report.pv_uuid.undashed(),
            pv_fmt: report.pv_fmt.into(),
            pv_size: report.pv_size,
            dev_size: report.dev_size,
            pv_free: report.pv_free,
            pv_used: report.pv_used,
            pv_attr: report.pv_attr,
            pv_pe_count: count(report.pv_pe_count),
            pv_pe_alloc_count: count(report.pv_pe_alloc_count),
            pv_tags: report.pv_tags.join(","),
            pe_start: report.pe_start,
            pv_mda_count: count(report.pv_mda_count),
            pv_mda_free: report.pv_mda_free,
        }
    }
}

/// As libguestfs's numbers are.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
