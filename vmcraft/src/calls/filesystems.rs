//! Making file systems, and checking, resizing and tuning them while they are not mounted.

use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use uuid::Uuid;
use vmcraft_block::BlockDevice;
use vmcraft_fs::{CheckOptions, Finding, FormatOptions, Maintain, OpenOptions, ResizeTo, WriteFiles};
use vmcraft_macros::api;

use crate::driver::{self, DRIVERS};
use crate::{DeviceName, Error, Guest, Mountable, Result};

#[api(area = "filesystems")]
impl Guest {
    /// Make a file system
    ///
    /// What the device held is lost. `fstype` is `ext2`, `ext3` or `ext4`. A device of which a part is
    /// mounted is refused.
    ///
    /// - `blocksize` is the size of a block in bytes; the size of the device decides without it.
    /// - `features` are features to add, or with `^` in front to leave out, separated by commas, by the
    ///   names that `mke2fs -O` has.
    /// - `inode` is the size of an inode in bytes.
    /// - `sectorsize` is refused: the device has its own.
    /// - `label` is the label, of 16 bytes at most.
    ///
    /// ```guestfish
    /// mkfs ext4 /dev/sda1
    /// mkfs ext4 /dev/sda1 blocksize:4096 label:data features:^metadata_csum
    /// ```
    #[call(alias = "mkfs-opts")]
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn mkfs(
        &mut self,
        fstype: &str,
        device: &DeviceName,
        blocksize: Option<i32>,
        features: Option<&str>,
        inode: Option<i32>,
        sectorsize: Option<i32>,
        label: Option<&BStr>,
    ) -> Result<()> {
        refuse_option("sectorsize", sectorsize.is_some())?;
        let options = FormatOptions {
            block_size: blocksize.map(|n| number("blocksize", n.into())).transpose()?,
            inode_size: inode.map(|n| number("inode", n.into())).transpose()?,
            features: features.map(str::to_owned).into_iter().collect(),
            label: label.map(BString::from),
            ..FormatOptions::default()
        };
        self.format(fstype, device, options)
    }

    /// Make a file system with blocks of a size
    ///
    /// The same as `mkfs` with `blocksize`.
    ///
    /// ```guestfish
    /// mkfs-b ext4 4096 /dev/sda1
    /// ```
    #[call(deprecated = "mkfs")]
    pub fn mkfs_b(&mut self, fstype: &str, blocksize: i32, device: &DeviceName) -> Result<()> {
        self.mkfs(fstype, device, Some(blocksize), None, None, None, None)
    }

    /// Make an ext2, ext3 or ext4 file system with all options
    ///
    /// What the device held is lost. Without `fstype` it is ext2. The options are those of `mke2fs`:
    ///
    /// - `blockscount`: how many blocks of the device to use; `blocksize`, `inodesize`: in bytes.
    /// - `bytesperinode`: one inode for so many bytes; `numberofinodes`: so many inodes.
    /// - `journalsize`: of the journal, in MiB.
    /// - `reservedblockspercentage`: blocks that only the superuser may use.
    /// - `label`, and `uuid`: a UUID, `clear`, `random` or `time` (which is random, too).
    /// - `extent`, `filetype`, `flexbg`, `hasjournal`, `largefile`, `resizeinode`, `sparsesuper`,
    ///   `uninitbg`: with or without this feature.
    /// - `forcecreate`, `lazyitableinit`, `lazyjournalinit` and `discard` are of no effect: inode tables
    ///   and journal are always zeroed, and the device gets back what is not used.
    /// - all others are refused.
    ///
    /// ```guestfish
    /// mke2fs /dev/sda1 fstype:ext4 blocksize:4096 label:data
    /// mke2fs /dev/sda1 fstype:ext3 journalsize:16 reservedblockspercentage:1
    /// ```
    #[call(alias = "mke2fs-opts")]
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn mke2fs(
        &mut self,
        device: &DeviceName,
        blockscount: Option<i64>,
        blocksize: Option<i64>,
        fragsize: Option<i64>,
        blockspergroup: Option<i64>,
        numberofgroups: Option<i64>,
        bytesperinode: Option<i64>,
        inodesize: Option<i64>,
        journalsize: Option<i64>,
        numberofinodes: Option<i64>,
        stridesize: Option<i64>,
        stripewidth: Option<i64>,
        maxonlineresize: Option<i64>,
        reservedblockspercentage: Option<i32>,
        mmpupdateinterval: Option<i32>,
        journaldevice: Option<&str>,
        label: Option<&BStr>,
        lastmounteddir: Option<&str>,
        creatoros: Option<&str>,
        fstype: Option<&str>,
        usagetype: Option<&str>,
        uuid: Option<&str>,
        forcecreate: Option<bool>,
        writesbandgrouponly: Option<bool>,
        lazyitableinit: Option<bool>,
        lazyjournalinit: Option<bool>,
        testfs: Option<bool>,
        discard: Option<bool>,
        quotatype: Option<bool>,
        extent: Option<bool>,
        filetype: Option<bool>,
        flexbg: Option<bool>,
        hasjournal: Option<bool>,
        journaldev: Option<bool>,
        largefile: Option<bool>,
        quota: Option<bool>,
        resizeinode: Option<bool>,
        sparsesuper: Option<bool>,
        uninitbg: Option<bool>,
    ) -> Result<()> {
        // What these ask for is always done, or makes no difference.
        let _ = (forcecreate, lazyitableinit, lazyjournalinit, discard);
        for (option, is_given) in [
            ("fragsize", fragsize.is_some()),
            ("blockspergroup", blockspergroup.is_some()),
            ("numberofgroups", numberofgroups.is_some()),
            ("stridesize", stridesize.is_some()),
            ("stripewidth", stripewidth.is_some()),
            ("maxonlineresize", maxonlineresize.is_some()),
            ("mmpupdateinterval", mmpupdateinterval.is_some()),
            ("journaldevice", journaldevice.is_some()),
            ("lastmounteddir", lastmounteddir.is_some()),
            ("creatoros", creatoros.is_some()),
            ("usagetype", usagetype.is_some()),
            ("writesbandgrouponly", writesbandgrouponly == Some(true)),
            ("testfs", testfs == Some(true)),
            ("quotatype", quotatype == Some(true)),
        ] {
            refuse_option(option, is_given)?;
        }
        let features = [
            ("extent", extent),
            ("filetype", filetype),
            ("flex_bg", flexbg),
            ("has_journal", hasjournal),
            ("journal_dev", journaldev),
            ("large_file", largefile),
            ("quota", quota),
            ("resize_inode", resizeinode),
            ("sparse_super", sparsesuper),
            ("uninit_bg", uninitbg),
        ];
        let features = features.into_iter().filter_map(|(name, on)| match on? {
            true => Some(name.to_owned()),
            false => Some(format!("^{name}")),
        });
        let journal = journalsize.map(|mib| number::<u64>("journalsize", mib)).transpose()?;
        let options = FormatOptions {
            blocks: blockscount.map(|n| number("blockscount", n)).transpose()?,
            block_size: blocksize.map(|n| number("blocksize", n)).transpose()?,
            bytes_per_inode: bytesperinode.map(|n| number("bytesperinode", n)).transpose()?,
            inode_size: inodesize.map(|n| number("inodesize", n)).transpose()?,
            inodes: numberofinodes.map(|n| number("numberofinodes", n)).transpose()?,
            journal_bytes: journal.map(|mib| mib.saturating_mul(1 << 20)),
            reserved_percent: reservedblockspercentage.map(f64::from),
            label: label.map(BString::from),
            uuid: uuid.map(|text| self.new_uuid(text)).transpose()?,
            features: features.collect(),
            ..FormatOptions::default()
        };
        self.format(fstype.unwrap_or("ext2"), device, options)
    }

    /// Check a file system, and say what is wrong with it
    ///
    /// Each line of the result says what is wrong and where; there is
    /// none if all is well. Nothing is changed, unless `repair` is true: then what can be put right
    /// without losing anything that a user stored is, and the line says so; for that the device must not
    /// be mounted.
    ///
    /// ```guestfish
    /// check /dev/sda1
    /// check /dev/sda1 repair:true
    /// ```
    pub fn check(&mut self, device: &DeviceName, repair: Option<bool>) -> Result<Vec<BString>> {
        let found = self.find_faults(device, repair.unwrap_or(false))?;
        Ok(found
            .into_iter()
            .map(|finding| {
                format!("{}{}", finding.what, if finding.repaired { " (repaired)" } else { "" }).into()
            })
            .collect())
    }

    /// Check an ext2, ext3 or ext4 file system
    ///
    /// It is an error if something is wrong that was not put right. With `correct` or `forceall`, what
    /// can be put right without losing anything that a user stored is; `check` shows all that is wrong.
    /// Giving both is an error.
    ///
    /// ```guestfish
    /// e2fsck /dev/sda1
    /// e2fsck /dev/sda1 correct:true
    /// ```
    pub fn e2fsck(
        &mut self,
        device: &DeviceName,
        correct: Option<bool>,
        forceall: Option<bool>,
    ) -> Result<()> {
        let (correct, force_all) = (correct.unwrap_or(false), forceall.unwrap_or(false));
        if correct && force_all {
            return Err(Error::Usage("only one of the options correct and forceall may be given".into()));
        }
        let found = self.find_faults(device, correct || force_all)?;
        let left: Vec<&Finding> = found.iter().filter(|finding| !finding.repaired).collect();
        match left.first() {
            None => Ok(()),
            Some(first) => Err(Error::Usage(format!(
                "{device}: {}; {} in all are wrong (check shows them; e2fsck -f repairs more than vmcraft does)",
                first.what,
                left.len()
            ))),
        }
    }

    /// Check an ext2, ext3 or ext4 file system
    ///
    /// The same as `e2fsck` with `correct:true`.
    ///
    /// ```guestfish
    /// e2fsck-f /dev/sda1
    /// ```
    #[call(deprecated = "e2fsck")]
    pub fn e2fsck_f(&mut self, device: &DeviceName) -> Result<()> {
        self.e2fsck(device, Some(true), None)
    }

    /// Check a file system, with a number for the outcome
    ///
    /// The result is as `fsck` exits: 0 if all is well, 1 if what was wrong was put right, 4 if
    /// something is wrong that was not. `fstype` is the type that the file system must have.
    ///
    /// ```guestfish
    /// fsck ext4 /dev/sda1
    /// ```
    pub fn fsck(&mut self, fstype: &str, device: &DeviceName) -> Result<i32> {
        let held = self.vfs_type(Mountable::new(device))?;
        if held != fstype {
            return Err(Error::Usage(format!(
                "{device}: it holds {}, not {fstype}",
                if held.is_empty() { "nothing that is known" } else { &held }
            )));
        }
        let found = self.find_faults(device, true)?;
        Ok(match found.iter().map(|finding| finding.repaired).min() {
            None => 0,
            Some(true) => 1,
            Some(false) => 4,
        })
    }

    /// Make an ext2, ext3 or ext4 file system as large as its device
    ///
    /// ```guestfish
    /// resize2fs /dev/sda1
    /// ```
    pub fn resize2fs(&mut self, device: &DeviceName) -> Result<()> {
        self.resize_to(device, ResizeTo::Device)
    }

    /// Make an ext2, ext3 or ext4 file system so many bytes large
    ///
    /// The size is rounded down to whole blocks. The device stays as it is.
    ///
    /// ```guestfish
    /// resize2fs-size /dev/sda1 1073741824
    /// ```
    pub fn resize2fs_size(&mut self, device: &DeviceName, size: i64) -> Result<()> {
        self.resize_to(device, ResizeTo::Bytes(number("size", size)?))
    }

    /// Make an ext2, ext3 or ext4 file system as small as its content allows
    ///
    /// ```guestfish
    /// resize2fs-M /dev/sda1
    /// ```
    #[call(name = "resize2fs-M")]
    pub fn resize2fs_minimum(&mut self, device: &DeviceName) -> Result<()> {
        self.resize_to(device, ResizeTo::Minimum)
    }

    /// Return the smallest size to which a file system can be brought
    ///
    /// The result is in bytes.
    ///
    /// ```guestfish
    /// vfs-minimum-size /dev/sda1
    /// ```
    pub fn vfs_minimum_size(&mut self, mountable: &Mountable) -> Result<i64> {
        self.sync_filesystems()?;
        let (name, _) = self.split_mountable(mountable)?;
        let (name, device) = self.open_device(DeviceName::new(&name))?;
        let size = self.maintainer(&name, &device)?.minimum_size(&device).map_err(on(&name))?;
        Ok(i64::try_from(size).unwrap_or(i64::MAX))
    }

    /// Set the label of a file system
    ///
    /// It may be mounted. For ext2, ext3 and ext4 it has 16 bytes at most.
    ///
    /// ```guestfish
    /// set-label /dev/sda1 data
    /// ```
    pub fn set_label(&mut self, mountable: &Mountable, label: &BStr) -> Result<()> {
        let (device, _) = self.split_mountable(mountable)?;
        self.with_writer(DeviceName::new(&device), |writer| writer.set_label(label))
    }

    /// Set the label of an ext2, ext3 or ext4 file system
    ///
    /// ```guestfish
    /// set-e2label /dev/sda1 data
    /// ```
    #[call(deprecated = "set-label")]
    pub fn set_e2label(&mut self, device: &DeviceName, label: &BStr) -> Result<()> {
        self.set_label(Mountable::new(device), label)
    }

    /// Set the UUID of a file system
    ///
    /// What mounts the file system by its UUID, such as `/etc/fstab` and the boot loader, must be
    /// changed with it.
    ///
    /// ```guestfish
    /// set-uuid /dev/sda1 9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11
    /// ```
    pub fn set_uuid(&mut self, device: &DeviceName, uuid: &str) -> Result<()> {
        let uuid = self.new_uuid(uuid)?;
        self.with_writer(device, |writer| writer.set_uuid(uuid))
    }

    /// Give a file system a random UUID
    ///
    /// ```guestfish
    /// set-uuid-random /dev/sda1
    /// ```
    pub fn set_uuid_random(&mut self, device: &DeviceName) -> Result<()> {
        self.set_uuid(device, "random")
    }

    /// Set the UUID of an ext2, ext3 or ext4 file system
    ///
    /// `uuid` is a UUID, `clear`, `random` or `time` (which is random, too).
    ///
    /// ```guestfish
    /// set-e2uuid /dev/sda1 random
    /// ```
    #[call(deprecated = "set-uuid")]
    pub fn set_e2uuid(&mut self, device: &DeviceName, uuid: &str) -> Result<()> {
        self.set_uuid(device, uuid)
    }
}

/// The number of an option, which must fit its field.
fn number<T: TryFrom<i64>>(option: &str, value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| Error::Usage(format!("{option}: {value} is out of range")))
}

fn refuse_option(option: &str, is_given: bool) -> Result<()> {
    if is_given { Err(Error::Usage(format!("the option {option} is not supported"))) } else { Ok(()) }
}

/// Says on which device a driver failed.
fn on(device: &str) -> impl FnOnce(vmcraft_fs::Error) -> Error + use<> {
    let device = device.to_owned();
    move |source| Error::FileSystem { device, source }
}

impl Guest {
    /// Makes a file system on a device, as one change.
    pub(crate) fn format(&mut self, kind: &str, device: &DeviceName, options: FormatOptions) -> Result<()> {
        let driver = DRIVERS.iter().find(|driver| driver.names.contains(&kind));
        let Some(maintain) = driver.and_then(|driver| driver.maintain) else {
            let known: Vec<&str> =
                DRIVERS.iter().filter(|d| d.maintain.is_some()).flat_map(|d| d.names).copied().collect();
            return Err(Error::Usage(format!("{kind}: this version makes {}", known.join(", "))));
        };
        let options = FormatOptions { sources: self.sources(), ..options };
        self.change_device(device, |device| maintain.format(device, kind, &options))
    }

    /// Changes a device that is not mounted as a whole: all of the change, or nothing.
    fn change_device<T>(
        &mut self,
        device: &DeviceName,
        change: impl FnOnce(&Arc<dyn BlockDevice>) -> vmcraft_fs::Result<T>,
    ) -> Result<T> {
        self.atomically(|guest| {
            let (name, device) = guest.open_device_for_writing(device)?;
            let done = change(&device).map_err(on(&name));
            guest.device_changed(&name);
            done
        })
    }

    /// The tools for what is on a device.
    pub(super) fn maintainer(
        &self,
        name: &str,
        device: &Arc<dyn BlockDevice>,
    ) -> Result<&'static dyn Maintain> {
        for driver in DRIVERS {
            let holds = (driver.probe)(device);
            let holds = holds.map_err(|source| Error::Device { device: name.to_owned(), source })?;
            if let (true, Some(maintain)) = (holds, driver.maintain) {
                return Ok(maintain);
            }
        }
        Err(Error::Usage(format!("{name}: it holds nothing that this version can check or resize")))
    }

    fn find_faults(&mut self, device: &DeviceName, repair: bool) -> Result<Vec<Finding>> {
        if repair {
            let (name, opened) = self.open_device(device)?;
            let tools = self.maintainer(&name, &opened)?;
            return self.change_device(device, |device| tools.check(device, CheckOptions { repair }));
        }
        self.sync_filesystems()?;
        let (name, device) = self.open_device(device)?;
        self.maintainer(&name, &device)?.check(&device, CheckOptions { repair }).map_err(on(&name))
    }

    fn resize_to(&mut self, device: &DeviceName, to: ResizeTo) -> Result<()> {
        let (name, opened) = self.open_device(device)?;
        let tools = self.maintainer(&name, &opened)?;
        let sources = self.sources();
        self.change_device(device, |device| tools.resize(device, to, &sources)).map(|_| ())
    }

    /// Calls `change` with the writing side of the file system on a device, mounted or not.
    pub(super) fn with_writer(
        &mut self,
        device: &DeviceName,
        change: impl FnOnce(&dyn WriteFiles) -> vmcraft_fs::Result<()>,
    ) -> Result<()> {
        let (name, opened) = self.open_device(device)?;
        let mounted = self.vfs.mounts().iter().find(|mount| mount.device == name);
        if let Some(filesystem) = mounted.map(|mount| mount.filesystem.clone()) {
            return filesystem.writer().and_then(change).map_err(on(&name));
        }
        drop(opened);
        let options = OpenOptions { sources: self.sources(), ..OpenOptions::default() };
        self.atomically(|guest| {
            let (name, opened) = guest.open_device_for_writing(device)?;
            let filesystem = driver::open(&name, opened, options)?;
            let writer = filesystem.writer().map_err(on(&name))?;
            let done = change(writer).and_then(|()| writer.sync()).map_err(on(&name));
            guest.device_changed(&name);
            done
        })
    }

    /// A UUID as text: `random`, `time` and `clear` are understood, too.
    fn new_uuid(&self, text: &str) -> Result<[u8; 16]> {
        match text {
            "clear" => Ok([0; 16]),
            "random" | "time" => {
                Ok(uuid::Builder::from_random_bytes(self.sources().random()).into_uuid().into_bytes())
            }
            text => Uuid::parse_str(text)
                .map(Uuid::into_bytes)
                .map_err(|e| Error::Usage(format!("{:?} is not a UUID: {e}", text.as_bytes().as_bstr()))),
        }
    }
}
