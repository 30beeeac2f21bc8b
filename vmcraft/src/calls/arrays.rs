//! Arrays of Linux software RAID.

use bstr::{BString, ByteSlice};
use vmcraft_macros::api;
use vmcraft_volume::md::{Array, Level, Metadata, NewArray};

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

    /// Make an array
    ///
    /// What the devices held is lost. The array is there as `/dev/md/NAME` and under the next number, such
    /// as `/dev/md127`.
    ///
    /// - `missingbitmap` says which members are missing, to be added later: its lowest bit stands for the
    ///   first member.
    /// - `nrdevices` is how many members there are, and `spare` how many wait for one to fail. With the
    ///   missing ones, `devices` must be as many as both together.
    /// - `chunk` is how many bytes in a row are on one member.
    /// - `level` is `linear`, `raid0`, `raid1`, `raid4`, `raid5`, `raid6` or `raid10`, or its number;
    ///   `raid1` without it.
    ///
    /// ```guestfish
    /// md-create data "/dev/sda1 /dev/sdb1"
    /// md-create data "/dev/sda1 /dev/sdb1 /dev/sdc1" level:raid5 chunk:65536
    /// ```
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn md_create(
        &mut self,
        name: &str,
        devices: &[BString],
        missingbitmap: Option<i64>,
        nrdevices: Option<i32>,
        spare: Option<i32>,
        chunk: Option<i64>,
        level: Option<&str>,
    ) -> Result<()> {
        let level = level.unwrap_or("raid1");
        let level = Level::from_name(level)
            .ok_or_else(|| Error::Usage(format!("level: {level}: there is no such level")))?;
        let chunk_bytes = chunk.map(u64::try_from).transpose();
        let chunk_bytes = chunk_bytes.map_err(|_| Error::Usage("chunk: it cannot be negative".into()))?;
        if chunk_bytes.is_some() && level == Level::Raid1 {
            return Err(Error::Usage("chunk: raid1 has whole copies, and no chunks".into()));
        }
        let missing = missingbitmap.unwrap_or(0).cast_unsigned();
        let there = devices.len().saturating_add(missing.count_ones() as usize);
        let spares = number("spare", spare.unwrap_or(0))?;
        let places = nrdevices.map_or(Ok(there.saturating_sub(spares)), |n| number("nrdevices", n))?;
        if places < 2 {
            return Err(Error::Usage(format!("an array of {places} members: at least 2 are needed")));
        }
        if places.saturating_add(spares) != there {
            return Err(Error::Usage(format!(
                "{} devices and {} missing ones do not make {places} members and {spares} spares",
                devices.len(),
                missing.count_ones()
            )));
        }
        let is_missing = |place: usize| place < 64 && (missing >> place) & 1 == 1;
        if (places..64).any(is_missing) {
            return Err(Error::Usage("missingbitmap: only members can be missing".into()));
        }
        self.atomically(|guest| {
            let given = guest.unused_members(devices)?;
            guest.forget_filesystems(|open| given.iter().any(|member| member.name == open));
            let mut given = given.into_iter();
            let members = (0..places).map(|place| if is_missing(place) { None } else { given.next() });
            let new = NewArray {
                name: name.to_owned(),
                level,
                layout: None,
                chunk_bytes,
                metadata: Metadata::V1_2,
                members: members.collect(),
                spares: given.collect(),
                has_bitmap: false,
            };
            let now = u64::try_from(guest.sources().now().seconds).unwrap_or_default();
            let made = guest.with_random(|random| {
                new.create(now, random).map_err(|e| match e {
                    vmcraft_volume::Error::Unsupported(what) => Error::Unsupported(what),
                    other => Error::Usage(format!("{name}: {other}")),
                })
            });
            guest.reopen_volumes();
            made.map(drop)
        })
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
        self.stack.stop_array(&uuid);
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

fn number(option: &str, value: i32) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::Usage(format!("{option}: {value} is negative")))
}
