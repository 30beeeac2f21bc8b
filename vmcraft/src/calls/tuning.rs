//! What a file system says of how it is to be used.

use bstr::{BStr, BString};
use vmcraft_fs::{OnError, Reserved, Tuning};
use vmcraft_macros::api;

use crate::{DeviceName, Error, Guest, Result};

#[api(area = "filesystems")]
impl Guest {
    /// Show what the superblock of an ext2, ext3 or ext4 file system says
    ///
    /// The result is a table with the names and values that `tune2fs -l` prints, times in UTC; what it
    /// prints as `<none>` or `<not available>` is empty.
    ///
    /// ```guestfish
    /// tune2fs-l /dev/sda1
    /// ```
    #[call(name = "tune2fs-l")]
    pub fn tune2fs_list(&self, device: &DeviceName) -> Result<Vec<(BString, BString)>> {
        self.sync_filesystems()?;
        let (name, device) = self.open_device(device)?;
        let rows = self.maintainer(&name, &device)?.describe(&device);
        let rows = rows.map_err(|source| Error::FileSystem { device: name, source })?;
        let empty = ["<none>", "<not available>"];
        let value = |value: BString| {
            if empty.iter().any(|known| value == *known) { BString::default() } else { value }
        };
        Ok(rows.into_iter().map(|(name, text)| (name.into(), value(text))).collect())
    }

    /// Change how an ext2, ext3 or ext4 file system is used
    ///
    /// It may be mounted. Each option changes one thing:
    ///
    /// - `maxmountcount`: after so many mounts it is checked; 0 or -1 for never.
    /// - `mountcount`: how often it was mounted since the last check.
    /// - `intervalbetweenchecks`: after so many seconds it is checked; 0 for never.
    /// - `errorbehavior`: what the kernel does about an error: `continue`, `remount-ro` or `panic`.
    /// - `reservedblockspercentage`: how much only the superuser may use, in percent of all, 50 at most.
    /// - `reservedblockscount`: the same in blocks.
    /// - `user`, `group`: who else may use that: a number, or `root`. The names of others are those of
    ///   the guest.
    /// - `lastmounteddirectory`: where it was mounted last, in 63 bytes at most.
    ///
    /// `force` is there for libguestfs's sake: a file system that is damaged is refused.
    ///
    /// ```guestfish
    /// tune2fs /dev/sda1 maxmountcount:0 intervalbetweenchecks:0 reservedblockspercentage:1
    /// ```
    #[allow(clippy::too_many_arguments, reason = "the options of libguestfs's call")]
    pub fn tune2fs(
        &mut self,
        device: &DeviceName,
        force: Option<bool>,
        maxmountcount: Option<i32>,
        mountcount: Option<i32>,
        errorbehavior: Option<&str>,
        group: Option<&str>,
        intervalbetweenchecks: Option<i32>,
        reservedblockspercentage: Option<i32>,
        lastmounteddirectory: Option<&BStr>,
        reservedblockscount: Option<i64>,
        user: Option<&str>,
    ) -> Result<()> {
        let _ = force;
        let on_error = match errorbehavior {
            None => None,
            Some("continue") => Some(OnError::Continue),
            Some("remount-ro") => Some(OnError::ReadOnly),
            Some("panic") => Some(OnError::Panic),
            Some(other) => {
                return Err(Error::Usage(format!(
                    "errorbehavior: {other:?} is not continue, remount-ro or panic"
                )));
            }
        };
        let reserved = match (reservedblockspercentage, reservedblockscount) {
            (Some(_), Some(_)) => {
                return Err(Error::Usage(
                    "reservedblockspercentage and reservedblockscount say the same thing: give one".into(),
                ));
            }
            (percent, None) => number("reservedblockspercentage", percent)?.map(Reserved::Percent),
            (None, blocks) => number("reservedblockscount", blocks)?.map(Reserved::Blocks),
        };
        let tuning = Tuning {
            most_mounts: number(
                "maxmountcount",
                maxmountcount.map(|most| if most == -1 { 0 } else { most }),
            )?,
            mounts: number("mountcount", mountcount)?,
            check_interval_secs: number("intervalbetweenchecks", intervalbetweenchecks)?,
            on_error,
            reserved,
            reserved_uid: owner("user", user)?,
            reserved_gid: owner("group", group)?,
            last_mounted: lastmounteddirectory.map(BString::from),
        };
        if tuning == Tuning::default() {
            return Err(Error::Usage("nothing is to be changed: give at least one of the options".into()));
        }
        self.with_writer(device, |writer| writer.tune(&tuning))
    }
}

/// The value of an option, which must fit its field.
fn number<T: TryFrom<U>, U: Copy + ToString>(option: &str, value: Option<U>) -> Result<Option<T>> {
    let convert = |value: U| {
        let error = |_| Error::Usage(format!("{option}: {} is out of range", value.to_string()));
        T::try_from(value).map_err(error)
    };
    value.map(convert).transpose()
}

/// The number of a user or group.
fn owner(option: &str, name: Option<&str>) -> Result<Option<u16>> {
    match name {
        None => Ok(None),
        Some("root") => Ok(Some(0)),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::Usage(format!(
                "{option}: {text:?} is neither root nor a number up to 65535; find the number in the guest's \
                 /etc/passwd or /etc/group"
            ))),
        },
    }
}
