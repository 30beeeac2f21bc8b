//! From the options to a handle: disks added, launched if anything is to be mounted, mounted.

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::PathBuf;

use vmcraft::{DriveOptions, Guest, GuestPath, Mountable};

use crate::error::{Error, Result, message};
use crate::keys::{KeyOption, KeyReader};
use crate::options::{Drive, GuestOptions, MountOption};
use crate::prepared::Prepared;
use crate::{interrupt, logging, report};

impl GuestOptions {
    /// A handle with the disks added, not launched.
    pub(crate) fn guest(&self) -> Result<Guest> {
        logging::install();
        interrupt::take_over().map_err(|e| message(format!("cannot take over signals: {e}")))?;
        let mut guest = Guest::new();
        for option in &self.keys {
            let KeyOption { selector, key } = KeyOption::parse(option)?;
            guest.add_key(&selector, key);
        }
        let reader = self.key_reader();
        // Whoever wrote the input counted a line for each device: one that no key takes would be taken for a command.
        guest.use_key_files(!reader.asks_nobody());
        guest.set_key_prompt(Some(Box::new(move |device| reader.read(device).map_err(|e| e.to_string()))));
        guest.set_verbose(self.verbose || is_set(["VMCRAFT_DEBUG", "LIBGUESTFS_DEBUG"]))?;
        guest.set_trace(self.trace || is_set(["VMCRAFT_TRACE", "LIBGUESTFS_TRACE"]))?;
        logging::set_verbose(guest.get_verbose()?);
        guest.allow_backing(self.allow_backing.clone());
        guest.set_state_directory(state_directory(!self.opens_read_only()));
        guest.set_undo_file(self.undo.clone());
        for (drive, number) in self.numbered_drives() {
            self.add(&mut guest, drive, number)?;
        }
        Ok(guest)
    }

    /// Refuses disks that are never written to, for programs that do nothing but change disks.
    pub(crate) fn refuse_snapshots(&self) -> Result<()> {
        for drive in self.drives.0.iter().filter(|_| !self.opens_read_only()) {
            if let Drive::Image { name, snapshot: Some(snapshot), .. } = drive {
                return Err(message(format!(
                    "--snapshot={snapshot}: {}: a snapshot is not changed; without the option, the disk as it is now is",
                    name.display()
                )));
            }
        }
        Ok(())
    }

    /// Whether the images are never written to.
    fn opens_read_only(&self) -> bool {
        self.ro || self.dry_run || self.only_looks
    }

    /// What a person should know of when images are changed.
    pub(crate) fn promise(&self) -> &'static str {
        if self.opens_read_only() {
            "Everything is opened read-only: no disk is changed."
        } else {
            "What you change is written to the disks by sync, umount-all and quit; rollback throws it away."
        }
    }

    /// Whether nothing can be changed through what is mounted at the start.
    fn mounts_read_only(&self) -> bool {
        self.ro || self.only_looks
    }

    /// Whether what is asked for needs the disks to be open.
    pub(crate) fn wants_launch(&self) -> bool {
        self.inspector
            || !self.mounts.is_empty()
            || self.drives.0.iter().any(|drive| matches!(drive, Drive::Prepared(_)))
    }

    /// Opens the disks and mounts what the options say.
    pub(crate) fn launch(&self, guest: &mut Guest) -> Result<()> {
        trace(guest, &"launch");
        guest.launch().map_err(|e| Error::call("launch", e))?;
        // What is missing now may come to light when encrypted devices are opened.
        let mounted = self.mount_what_is_said(guest);
        report_warnings(guest);
        mounted
    }

    fn mount_what_is_said(&self, guest: &mut Guest) -> Result<()> {
        self.fill_prepared(guest)?;
        if self.inspector {
            trace(guest, &"inspect-os");
            guest.mount_inspected(self.root.as_deref()).map_err(|e| match e {
                vmcraft::Error::NoSystem { .. } => message(format!("{e}: {}", self.without_system())),
                e => e.into(),
            })?;
            if self.mounts_read_only() {
                let mountpoints: Vec<_> =
                    guest.vfs().mounts().iter().map(|mount| mount.mountpoint.clone()).collect();
                for mountpoint in mountpoints {
                    guest.remount(GuestPath::new(&mountpoint), Some(false))?;
                }
            }
        } else if !self.keys.is_empty() {
            guest.open_encrypted()?;
        }
        for mount in &self.mounts {
            self.mount(guest, mount)?;
        }
        Ok(())
    }

    /// What to do about disks without an operating system.
    fn without_system(&self) -> &'static str {
        if self.needs_system {
            "virt-filesystems -a IMAGE --all --long shows what is there"
        } else {
            "list-filesystems shows what is there; mount it with mount, or with -m on the command line instead of -i"
        }
    }

    /// The disks, each with how many of them are prepared up to it.
    fn numbered_drives(&self) -> impl Iterator<Item = (&Drive, usize)> {
        let mut number = 0;
        self.drives.0.iter().map(move |drive| {
            number += usize::from(matches!(drive, Drive::Prepared(_)));
            (drive, number)
        })
    }

    /// Puts onto prepared disks what belongs there.
    fn fill_prepared(&self, guest: &mut Guest) -> Result<()> {
        let prepared = self.numbered_drives().filter_map(|(drive, number)| match drive {
            Drive::Prepared(what) => Some((what, number)),
            _ => None,
        });
        for (what, number) in prepared {
            let prepared = Prepared::parse(what, number)?;
            prepared.fill(guest)?;
        }
        Ok(())
    }

    fn mount(&self, guest: &mut Guest, mount: &MountOption) -> Result<()> {
        let mountable = Mountable::new(&mount.mountable);
        let mountpoint = GuestPath::new(&mount.mountpoint);
        let options = mount.options.as_deref().unwrap_or(if self.mounts_read_only() { "ro" } else { "" });
        trace(guest, &format_args!("mount-options {options:?} \"{mountable}\" \"{mountpoint}\""));
        match &mount.vfs_type {
            Some(vfs_type) => guest
                .mount_vfs(options, vfs_type, mountable, mountpoint)
                .map_err(|e| Error::call("mount-vfs", e)),
            None => guest
                .mount_options(options, mountable, mountpoint)
                .map_err(|e| Error::call("mount-options", e)),
        }
    }

    fn add(&self, guest: &mut Guest, drive: &Drive, number: usize) -> Result<()> {
        match drive {
            Drive::Image { name, format, snapshot, sector_size } => {
                let name = utf8(name)?;
                let format = format
                    .as_deref()
                    .map(|format| format.parse().map_err(|e| message(format!("--format: {e}"))))
                    .transpose()?;
                let options = DriveOptions {
                    format,
                    read_only: self.opens_read_only() || snapshot.is_some(),
                    allow_in_use: self.ro,
                    snapshot: snapshot.clone(),
                    sector_size: *sector_size,
                    ..DriveOptions::default()
                };
                guest.add_drive_with(name, options)?;
                Ok(())
            }
            Drive::Domain(name) => {
                let options = DriveOptions {
                    read_only: self.opens_read_only(),
                    allow_in_use: self.ro,
                    ..DriveOptions::default()
                };
                guest.add_domain_with(name, self.connect.as_deref(), &options)?;
                Ok(())
            }
            Drive::Prepared(what) => Prepared::parse(what, number)?.add(guest),
        }
    }

    /// Where keys come from that no option gives.
    pub(crate) fn key_reader(&self) -> KeyReader {
        KeyReader { from_stdin: self.keys_from_stdin, echo: self.echo_keys }
    }
}

/// Where the journals are of images beside which there can be none: `vmcraft` where the user's
/// programs keep their state. It is made if disks are to be changed; none if it is not there.
pub(crate) fn state_directory(changes_disks: bool) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let directory = match absolute("XDG_STATE_HOME") {
        Some(directory) => directory,
        None => absolute("HOME")?.join(".local/state"),
    };
    let directory = directory.join("vmcraft");
    if changes_disks {
        // If it cannot be made, it is not there.
        let _ = std::fs::create_dir_all(&directory);
    }
    directory.is_dir().then_some(directory)
}

/// Says which call is made, if that is asked for.
fn trace(guest: &Guest, call: &dyn Display) {
    // Reading a setting cannot fail.
    if guest.get_trace().unwrap_or(false) {
        report::trace(call);
    }
}

/// Whether one of these variables of the environment is 1.
fn is_set(variables: [&str; 2]) -> bool {
    variables.into_iter().any(|name| std::env::var_os(name).is_some_and(|value| value == "1"))
}

/// The library takes image names as text, because it puts them into messages and URIs.
fn utf8(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or_else(|| message(format!("{}: the name of an image must be UTF-8", name.display())))
}

/// Says what the library noticed.
pub(crate) fn report_warnings(guest: &mut Guest) {
    for warning in guest.take_warnings() {
        report::warning(&warning);
    }
}
