//! The handle itself: its version, state and abilities.

use std::thread;
use std::time::{Duration, Instant};

use bstr::{BString, ByteSlice};
use vmcraft_macros::api;

use crate::driver::DRIVERS;
use crate::groups::{self, GROUPS};
use crate::value::record;
use crate::{Error, Guest, Result};

record! {
    /// A version, as `version` gives it.
    pub struct Version as "version" {
        /// The first number.
        pub major: i64,
        /// The second.
        pub minor: i64,
        /// The third.
        pub release: i64,
        /// What follows them.
        pub extra: String,
    }
}

#[api(area = "handle")]
impl Guest {
    /// Return the version of vmcraft
    ///
    /// Use `available` to find out what this version can do.
    ///
    /// ```guestfish
    /// version
    /// ```
    pub fn version(&self) -> Result<Version> {
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok(Version {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            release: number(env!("CARGO_PKG_VERSION_PATCH")),
            extra: env!("CARGO_PKG_VERSION_PRE").to_owned(),
        })
    }

    /// Fail unless all of these groups of calls are available
    ///
    /// `groups` are names of libguestfs's optional groups; `available-all-groups` lists them. A group
    /// is available if this version has all of its calls. An unknown group is an error.
    ///
    /// ```guestfish
    /// available realpath
    /// ```
    pub fn available(&self, groups: &[BString]) -> Result<()> {
        for name in groups {
            let missing: Vec<_> = self.group(name)?.missing().collect();
            if !missing.is_empty() {
                return Err(Error::Unsupported(format!(
                    "group {name} is not available: {} {} missing",
                    missing.join(", "),
                    if missing.len() == 1 { "is" } else { "are" },
                )));
            }
        }
        Ok(())
    }

    /// Say whether all of these groups of calls are available
    ///
    /// The same as `available`, but the answer is a truth value. An unknown group is an error here
    /// too.
    ///
    /// ```guestfish
    /// feature-available "realpath lvm2"
    /// ```
    pub fn feature_available(&self, groups: &[BString]) -> Result<bool> {
        let mut all = true;
        for name in groups {
            all &= self.group(name)?.missing().next().is_none();
        }
        Ok(all)
    }

    /// List libguestfs's optional groups of calls
    ///
    /// Those that are not available here are listed too.
    ///
    /// ```guestfish
    /// available-all-groups
    /// ```
    pub fn available_all_groups(&self) -> Result<Vec<String>> {
        self.launched()?;
        Ok(GROUPS.iter().map(|group| group.name.to_owned()).collect())
    }

    /// Say whether this version opens a kind of file system
    ///
    /// `filesystem` is the kind as `vfs-type` names it.
    ///
    /// ```guestfish
    /// filesystem-available ext4
    /// ```
    pub fn filesystem_available(&self, filesystem: &str) -> Result<bool> {
        self.launched()?;
        Ok(DRIVERS.iter().any(|driver| driver.names.contains(&filesystem)))
    }

    /// Say where the time went, and how much was read
    ///
    /// The result is a table. Times are in seconds: `open` for opening the images, `scan` for their
    /// partition tables, `inspect` and `mount` for the operating systems and their file systems.
    /// `bytes-read` and `read-requests` count what was read from the images, `bytes-requested` and
    /// `requests` what was asked of the disks; the difference is what memory had, and read-ahead.
    ///
    /// ```guestfish
    /// get-performance-metrics
    /// ```
    pub fn get_performance_metrics(&self) -> Result<Vec<(BString, BString)>> {
        let metrics = self.metrics();
        let seconds = |time: Duration| format!("{:.6}", time.as_secs_f64());
        let rows = [
            ("open", seconds(metrics.open)),
            ("scan", seconds(metrics.scan)),
            ("inspect", seconds(metrics.inspect)),
            ("mount", seconds(metrics.mount)),
            ("bytes-read", metrics.bytes_read.to_string()),
            ("read-requests", metrics.read_requests.to_string()),
            ("bytes-requested", metrics.bytes_requested.to_string()),
            ("requests", metrics.requests.to_string()),
        ];
        Ok(rows.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Do nothing, if the handle is launched
    ///
    /// libguestfs asks its appliance for an answer.
    ///
    /// ```guestfish
    /// ping-daemon
    /// ```
    pub fn ping_daemon(&self) -> Result<()> {
        self.launched().map(drop)
    }

    /// Return the words with blanks between them
    ///
    /// ```guestfish
    /// echo-daemon "one two"
    /// ```
    pub fn echo_daemon(&self, words: &[BString]) -> Result<BString> {
        self.launched()?;
        Ok(bstr::join(" ", words).into())
    }

    /// Wait for some seconds
    ///
    /// ```guestfish
    /// sleep 0
    /// ```
    pub fn sleep(&self, secs: i32) -> Result<()> {
        self.launched()?;
        let Ok(secs) = u64::try_from(secs) else {
            return Err(Error::Usage(format!("cannot sleep for {secs} seconds")));
        };
        let end = Instant::now() + Duration::from_secs(secs);
        loop {
            self.host.check_cancelled()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Write what was changed to the images
    ///
    /// What was changed on all disks since the last `sync` reaches the images: all of it, or if that
    /// fails nothing.
    ///
    /// ```guestfish
    /// sync
    /// ```
    #[call(alias = "commit")]
    pub fn sync(&mut self) -> Result<()> {
        self.commit()
    }

    /// Throw away what was changed since the last commit
    ///
    /// The disks are again as the last `sync` or `umount-all` left them, or else as they were when the
    /// handle was launched. File systems stay mounted.
    ///
    /// ```guestfish
    /// rollback
    /// ```
    pub fn rollback(&mut self) -> Result<()> {
        self.roll_back()
    }

    /// Do nothing, if the handle is launched
    ///
    /// libguestfs drops the caches of its appliance's kernel; `whattodrop` says which. The memory
    /// that is used here for disks is bounded.
    ///
    /// ```guestfish
    /// drop-caches 3
    /// ```
    pub fn drop_caches(&self, whattodrop: i32) -> Result<()> {
        let _ = whattodrop;
        self.launched().map(drop)
    }

    /// Interrupt the transfer that is going on
    ///
    /// Calls of one handle follow each other, so as a call it never meets a transfer. A program sets
    /// the flag that [`cancel_flag`](Guest::cancel_flag) gives it, from any thread.
    ///
    /// ```guestfish
    /// user-cancel
    /// ```
    pub fn user_cancel(&self) -> Result<()> {
        Ok(())
    }

    /// Say whether the handle was not launched yet
    ///
    /// ```guestfish
    /// is-config
    /// ```
    pub fn is_config(&self) -> Result<bool> {
        Ok(self.disks.is_none())
    }

    /// Say whether the handle is launched
    ///
    /// ```guestfish
    /// is-ready
    /// ```
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.disks.is_some())
    }

    /// Say whether the handle is in the middle of a call
    ///
    /// It never is when it is asked.
    ///
    /// ```guestfish
    /// is-busy
    /// ```
    pub fn is_busy(&self) -> Result<bool> {
        Ok(false)
    }

    /// Say whether the handle is being launched
    ///
    /// It never is when it is asked.
    ///
    /// ```guestfish
    /// is-launching
    /// ```
    pub fn is_launching(&self) -> Result<bool> {
        Ok(false)
    }
}

impl Guest {
    fn group(&self, name: &BString) -> Result<&'static groups::Group> {
        self.launched()?;
        let known = name.to_str().ok().and_then(groups::find);
        known.ok_or_else(|| Error::Usage(format!("{name}: unknown group; available-all-groups lists them")))
    }
}
