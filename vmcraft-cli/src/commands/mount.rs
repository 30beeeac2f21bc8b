//! `vmcraft mount … DIR`, which is also `guestmount`: a guest's tree on a directory of the host.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use vmcraft::vfs::Vfs;
use vmcraft_fuse::daemon::{self, Ready, Side};
use vmcraft_fuse::{Access, Devices, Options, Session, Signals};
use vmcraft_volume::lvm::mapper_name;

use crate::error::{Result, message};
use crate::options::{Drive, GuestOptions};
use crate::{interrupt, terminal};

/// What is shown, where, and to whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Mount {
    #[command(flatten)]
    guest: GuestOptions,

    /// The directory of the host on which the guest's tree is shown
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Show the disks, partitions and volumes as files instead of what is on them
    #[arg(long, conflicts_with_all = ["inspector", "mounts"])]
    devices: bool,

    /// Show all files as this user's
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,

    /// Show all files as this group's
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,

    /// Mount options: allow_other, allow_root, default_permissions, uid=N, gid=N, noexec …
    #[arg(short = 'o', long = "option", value_name = "OPTION[,OPTION…]", value_delimiter = ',')]
    mount_options: Vec<String>,

    /// Stay in the foreground; ^C unmounts
    #[arg(short, long, alias = "no-fork")]
    foreground: bool,

    /// Write the number of the process that serves the mount to a file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Write a byte to this open file when the mount is there
    #[arg(long, value_name = "FD")]
    fd: Option<u32>,

    /// How long the kernel may keep attributes and names; they never change, so without this it may
    /// for as long as it likes
    #[arg(long, value_name = "SECONDS")]
    dir_cache_timeout: Option<u64>,

    /// Taken for guestmount's sake: nothing is cached until the end
    #[arg(short, long, hide = true)]
    no_sync: bool,

    /// Taken for guestmount's sake
    #[arg(long, hide = true)]
    selinux: bool,

    /// Refused by name: no agent inside a running guest is asked
    #[arg(long, hide = true)]
    live: bool,

    /// Show which mount options there are
    #[arg(long, hide = true, exclusive = true)]
    fuse_help: bool,
}

/// What `-o` takes, for its error message.
const MOUNT_OPTIONS: &str = "allow_other, allow_root, default_permissions, uid=N, gid=N, attr_timeout=SECONDS, \
     entry_timeout=SECONDS, fsname=NAME, exec, noexec, sync, async, dirsync, max_read=BYTES";

impl Mount {
    /// Shows the tree until it is unmounted: in the background, unless told otherwise.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let options = self.options()?;
        self.check()?;
        // Before anything that has a thread, or a child that ends with its parent.
        let ready = match self.foreground || self.guest.trace {
            true => None,
            false => {
                match daemon::split().map_err(|e| message(format!("cannot go to the background: {e}")))? {
                    Side::Background(ready) => Some(ready),
                    Side::Foreground(waiting) => {
                        let ended =
                            waiting.wait().map_err(|e| message(format!("cannot wait for the mount: {e}")))?;
                        return Ok(ended.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS));
                    }
                }
            }
        };
        self.show(&options, ready)
    }

    fn show(&self, options: &Options, ready: Option<Ready>) -> Result<ExitCode> {
        interrupt::leave_to_others();
        let signals = Signals::take_over(terminal::give_back)
            .map_err(|e| message(format!("cannot take over signals: {e}")))?;
        let options_of_guest = GuestOptions { only_looks: true, ..self.guest.clone() };
        let mut guest = options_of_guest.guest()?;
        let vfs = if self.devices {
            // There is nothing to mount: it opens disks and what there are keys for.
            options_of_guest.launch(&mut guest)?;
            let devices = guest.block_devices()?;
            let named = |(name, device): (String, _)| (file_name(&name), device);
            Vfs::with_root("devices", Arc::new(Devices::new(devices.into_iter().map(named).collect())))
        } else {
            options_of_guest.launch(&mut guest)?;
            guest.vfs().clone()
        };
        let session =
            Session::mount(vfs, &self.dir, options, &signals).map_err(|e| message(e.to_string()))?;
        if let Some(file) = &self.pid_file {
            std::fs::write(file, format!("{}\n", std::process::id()))
                .map_err(|e| message(format!("--pid-file {}: {e}", file.display())))?;
        }
        if let Some(fd) = self.fd {
            File::options()
                .write(true)
                .open(Path::new("/proc/self/fd").join(fd.to_string()))
                .and_then(|mut file| file.write_all(b"\n"))
                .map_err(|e| message(format!("--fd {fd}: {e}")))?;
        }
        if let Some(ready) = ready {
            ready.detach().map_err(|e| message(format!("cannot go to the background: {e}")))?;
        }
        session.serve().map_err(|e| message(e.to_string()))?;
        if let Some(file) = &self.pid_file {
            // It names a process that is about to end.
            let _ = std::fs::remove_file(file);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Says what is missing or refused before anything is opened.
    fn check(&self) -> Result<()> {
        if self.guest.drives.0.is_empty() {
            return Err(message("no disk was given: use -a DISK"));
        }
        if !self.devices && !self.guest.wants_launch() {
            return Err(message(
                "nothing to show: use -i to find the guest's file systems, -m DEVICE[:DIR], or --devices",
            ));
        }
        if self.live {
            return Err(message("--live: not supported: it needs an agent inside a running guest"));
        }
        if self.guest.rw {
            return Err(message(
                "--rw: nothing is changed through a mount of the host; without it the mount is read-only",
            ));
        }
        match std::fs::metadata(&self.dir) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(message(format!("{}: not a directory", self.dir.display()))),
            Err(e) => Err(message(format!("{}: {e}", self.dir.display()))),
        }
    }

    fn options(&self) -> Result<Options> {
        let mut options = Options {
            source: self.source(),
            uid: self.uid,
            gid: self.gid,
            keep_for: self.dir_cache_timeout.map(Duration::from_secs),
            ..Options::default()
        };
        for option in self.mount_options.iter().filter(|option| !option.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option.as_str(), None),
            };
            let refuse = |what: &str| Err(message(format!("-o {option}: {what}")));
            let number = || {
                value
                    .and_then(|value| value.parse::<u32>().ok())
                    .ok_or_else(|| message(format!("-o {option}: a number is needed, as in {name}=1000")))
            };
            match (name, value) {
                ("allow_other", None) => options.access = Access::All,
                ("allow_root", None) => options.access = Access::Root,
                ("default_permissions", None) => options.default_permissions = true,
                ("uid", _) => options.uid = Some(number()?),
                ("gid", _) => options.gid = Some(number()?),
                ("attr_timeout" | "entry_timeout", Some(value)) => {
                    match value.parse().map(Duration::try_from_secs_f64) {
                        Ok(Ok(time)) => options.keep_for = Some(time),
                        _ => return refuse("a number of seconds is needed"),
                    }
                }
                ("fsname", Some(value)) => options.source = value.to_owned(),
                ("exec" | "noexec" | "sync" | "async" | "dirsync", None) => {
                    options.others.push(option.clone());
                }
                ("max_read", _) => {
                    number()?;
                    options.others.push(option.clone());
                }
                // How it is anyway.
                (
                    "ro" | "nodev" | "nosuid" | "noatime" | "use_ino" | "kernel_cache" | "auto_cache"
                    | "nonempty",
                    None,
                )
                | ("negative_timeout" | "subtype", Some(_)) => {}
                ("rw", None) => return refuse("nothing is changed through a mount of the host"),
                ("dev" | "suid", None) => {
                    return refuse(
                        "a guest's device nodes and set-id programs are not let loose on the host",
                    );
                }
                _ => return refuse(&format!("there is no such option; there are {MOUNT_OPTIONS}")),
            }
        }
        Ok(options)
    }

    /// What the host's list of mounts shows as the device.
    fn source(&self) -> String {
        match self.guest.drives.0.first() {
            Some(Drive::Image { name, .. }) => std::fs::canonicalize(name)
                .map_or_else(|_| name.display().to_string(), |path| path.display().to_string()),
            Some(Drive::Domain(name) | Drive::Prepared(name)) => name.clone(),
            None => String::new(),
        }
    }
}
/// The name that a device has as a file: that of a logical volume is the one below `/dev/mapper`.
fn file_name(device: &str) -> String {
    let name = device.trim_start_matches("/dev/");
    match name.split_once('/') {
        Some(("mapper", name)) => name.to_owned(),
        Some((group, volume)) => mapper_name(group, volume),
        None => name.to_owned(),
    }
}
