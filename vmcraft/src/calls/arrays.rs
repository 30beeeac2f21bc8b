//! Arrays of Linux software RAID.

use bstr::{BString, ByteSlice};
use vmcraft_macros::api;
use vmcraft_volume::md::Array;

use crate::value::record;
use crate::{DeviceName, Error, Guest, Result};

record! {
    /// A member of an array, as `md-stat` gives it.
    pub struct MdStat as "mdstat" {
        /// The device.
        pub mdstat_device: String,
        /// Its number in the array.
        pub mdstat_index: i32,
        /// `F` for one that failed, `S` for a spare, `J` for a journal, `R` for a replacement, `W` for one
        /// that is not read if others can be.
        pub mdstat_flags: String,
    }
}

#[api(area = "volumes")]
impl Guest {
    /// Return what is known of an array
    ///
    /// The result is a table with the names that `mdadm --detail --export` has, in lower case and without
    /// `MD_`: `level`, `devices`, `metadata`, `uuid`, `name`, and of each member `device_…_role` and
    /// `device_…_dev`.
    ///
    /// ```guestfish
    /// md-detail /dev/md127
    /// ```
    pub fn md_detail(&self, md: &DeviceName) -> Result<Vec<(BString, BString)>> {
        let (name, array) = self.array(md)?;
        let mut rows: Vec<(BString, BString)> =
            array.detail().into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let short = array.name.rsplit(':').next().filter(|name| !name.is_empty());
        let devname = short.or(name.strip_prefix("/dev/")).unwrap_or_default();
        let at = rows.iter().position(|(key, _)| key == "name").unwrap_or(rows.len());
        rows.insert(at, ("devname".into(), devname.into()));
        for member in &array.members {
            let plain = member.member.name.strip_prefix("/dev/").unwrap_or(&member.member.name);
            let plain: String =
                plain.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let role = member.role.map_or("spare".to_owned(), |role| role.to_string());
            rows.push((format!("device_dev_{plain}_role").into(), role.into()));
            rows.push((format!("device_dev_{plain}_dev").into(), member.member.name.as_str().into()));
        }
        Ok(rows)
    }

    /// List the members of an array, and their state
    ///
    /// ```guestfish
    /// md-stat /dev/md127
    /// ```
    pub fn md_stat(&self, md: &DeviceName) -> Result<Vec<MdStat>> {
        let (_, array) = self.array(md)?;
        let mut members: Vec<_> = array.members.iter().collect();
        // As Linux lists them.
        members.sort_by_key(|member| std::cmp::Reverse(member.number));
        Ok(members
            .into_iter()
            .map(|member| MdStat {
                mdstat_device: member.member.name.clone(),
                mdstat_index: i32::try_from(member.number).unwrap_or(i32::MAX),
                mdstat_flags: member.flags(),
            })
            .collect())
    }

    /// Close an array
    ///
    /// Its device is not there any more, so that its members can be changed. Nothing on it may be mounted,
    /// and no volume may stand on it.
    ///
    /// ```guestfish
    /// md-stop /dev/md127
    /// ```
    pub fn md_stop(&mut self, md: &DeviceName) -> Result<()> {
        let (name, array) = self.array(md)?;
        let (name, uuid) = (name.to_owned(), array.uuid.clone());
        self.refuse_mounted(&name)?;
        self.refuse_in_use(&name)?;
        self.stack.set_running(&uuid, false);
        self.reopen_volumes();
        Ok(())
    }
}

impl Guest {
    /// The array with this name, and its canonical name.
    fn array(&self, md: &DeviceName) -> Result<(&str, &Array)> {
        self.launched()?;
        let text = md.as_bstr().to_str().map_err(|_| Error::NoSuchDevice(md.to_string()))?;
        let Some(volume) = self.stack.find(text) else {
            let found = self.find_device(md)?;
            return Err(Error::Usage(format!("{}: not an array", found.name)));
        };
        let array = self.stack.arrays().iter().find(|(name, _)| *name == volume.name);
        let (name, array) = array.ok_or_else(|| Error::Usage(format!("{}: not an array", volume.name)))?;
        Ok((name, array))
    }
}
