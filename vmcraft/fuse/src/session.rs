//! A mount: made, served until it ends, ended on a signal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption, SessionACL};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal, raise};
use vmcraft::vfs::Vfs;

use crate::Error;
use crate::tree::Tree;

/// The most threads that answer the kernel.
const MAX_THREADS: usize = 16;

/// Which users see the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Whoever mounted it.
    #[default]
    Owner,
    /// And root.
    Root,
    /// All users. An ordinary user may say so if `/etc/fuse.conf` has `user_allow_other`.
    All,
}

/// How a tree is shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What the host's list of mounts has for the device, such as the image's name.
    pub source: String,
    /// Who sees it.
    pub access: Access,
    /// Let the kernel check permissions. Without it whoever sees the tree can read all of it.
    pub default_permissions: bool,
    /// The owner that all files are shown with, instead of their own.
    pub uid: Option<u32>,
    /// The group that all files are shown with.
    pub gid: Option<u32>,
    /// How long the kernel may keep what it learns of names and attributes. Nothing changes, so
    /// without it for as long as it likes.
    pub keep_for: Option<Duration>,
    /// Options of the kernel's, or `fusermount3`'s, such as `noexec`.
    pub others: Vec<String>,
}

/// A tree that is mounted and not served yet: whoever looks at it waits.
pub struct Session {
    inner: fuser::Session<Tree>,
    dir: PathBuf,
}

impl Session {
    /// Mounts the tree on a directory of the host, read-only. From then on `signals` unmount it.
    pub fn mount(vfs: Vfs, dir: &Path, options: &Options, signals: &Signals) -> Result<Self, Error> {
        let tree = Tree::new(vfs, options)?;
        let failed = |source| Error::Mount { dir: dir.to_owned(), source };
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
            MountOption::Subtype("vmcraft".into()),
            MountOption::FSName(plain(&options.source)),
        ];
        if options.default_permissions {
            config.mount_options.push(MountOption::DefaultPermissions);
        }
        config.mount_options.extend(options.others.iter().map(|option| match option.as_str() {
            "exec" => MountOption::Exec,
            "noexec" => MountOption::NoExec,
            "sync" => MountOption::Sync,
            "async" => MountOption::Async,
            "dirsync" => MountOption::DirSync,
            other => MountOption::CUSTOM(other.into()),
        }));
        config.acl = match options.access {
            Access::Owner => SessionACL::Owner,
            Access::Root => SessionACL::RootAndOwner,
            Access::All => SessionACL::All,
        };
        let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_THREADS);
        config.n_threads = Some(threads);
        config.clone_fd = true;
        let mut inner = fuser::Session::new(tree, dir, &config).map_err(failed)?;
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        *signals.lock() = Some(Mounted { unmounter: inner.unmount_callable(), dir: dir.clone() });
        Ok(Self { inner, dir })
    }

    /// Answers the kernel until the tree is unmounted.
    pub fn serve(self) -> Result<(), Error> {
        self.inner.run().map_err(|source| Error::Serve { dir: self.dir, source })
    }
}

/// What is unmounted when a signal comes.
struct Mounted {
    unmounter: fuser::SessionUnmounter,
    dir: PathBuf,
}

impl Mounted {
    fn unmount(mut self) {
        if self.unmounter.unmount().is_err() {
            // Busy, and root, who needs no fusermount3, which detaches by itself.
            let _ = umount2(&self.dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP, which unmount what is mounted.
///
/// If somebody still uses the tree then, it is taken out of the host's tree at once, and
/// [`Session::serve`] returns when the last file is closed. A further signal ends the process as it
/// would any other, and so does one that comes before anything is mounted.
pub struct Signals(Arc<Mutex<Option<Mounted>>>);

impl Signals {
    /// Takes the signals over. Called before the process starts its first thread, so that all threads
    /// have them blocked. `at_end` is called before a signal ends the process.
    pub fn take_over(at_end: fn()) -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let this = Self(Arc::default());
        let waiting = Self(this.0.clone());
        thread::Builder::new().name("signals".into()).spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            let mounted = waiting.lock().take();
            // From here on, the next one has its usual effect.
            let _ = signals.thread_unblock();
            match mounted {
                Some(mounted) => mounted.unmount(),
                None => {
                    at_end();
                    let _ = raise(signal);
                }
            }
            loop {
                thread::park();
            }
        })?;
        Ok(this)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mounted>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The text without what has a meaning in a list of mount options, or in `/proc/mounts`.
fn plain(text: &str) -> String {
    let source: String =
        text.chars().map(|c| if c == ',' || c == '\\' || c.is_control() { '_' } else { c }).collect();
    if source.is_empty() { "vmcraft".into() } else { source }
}
