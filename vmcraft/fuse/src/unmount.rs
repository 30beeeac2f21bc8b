//! Ending a mount from outside.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::unistd::geteuid;

use crate::tree::SERVER_ATTRIBUTE;

/// The programs that unmount for an ordinary user, the usual one first.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// How long the serving process may take to end once the mount is gone.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a mount did not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is mounted there.
    #[error("{}: not mounted", .0.display())]
    NotMounted(PathBuf),
    /// What is mounted there is no FUSE file system.
    #[error("{}: what is mounted there is {kind}, which was not mounted through FUSE", .dir.display())]
    NotFuse {
        /// The directory.
        dir: PathBuf,
        /// The type of the file system.
        kind: String,
    },
    /// The mount could not be taken away, also not by trying again.
    #[error("{}: cannot unmount: {message}", .dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// What was said.
        message: String,
    },
    /// The mount is gone, and its process is still there.
    #[error("{}: unmounted, but its process {pid} has not ended yet", .dir.display())]
    StillRunning {
        /// The directory.
        dir: PathBuf,
        /// The process.
        pid: u32,
    },
    /// Something else.
    #[error("{}: {source}", .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

/// Unmounts a tree, and waits for the process that served it: the images are closed then.
///
/// If the tree is in use, it tries again `retries` times, after 1, 2, 4 … seconds.
pub fn unmount(dir: &Path, retries: u32) -> Result<(), Error> {
    let io_error = |source| Error::Io { dir: dir.to_owned(), source };
    let place = mount_point(dir);
    let list = std::fs::read("/proc/self/mountinfo").map_err(io_error)?;
    let kind = mounted_type(&list, place.as_os_str()).ok_or_else(|| Error::NotMounted(dir.to_owned()))?;
    if kind != "fuse" && !kind.starts_with("fuse.") {
        return Err(Error::NotFuse { dir: dir.to_owned(), kind });
    }
    let server = server(&place);
    let mut pause = Duration::from_secs(1);
    let mut left = retries;
    while let Err(message) = unmount_once(&place) {
        if left == 0 {
            return Err(Error::Refused { dir: dir.to_owned(), message });
        }
        left -= 1;
        thread::sleep(pause);
        pause *= 2;
    }
    match server {
        Some(server) => wait_for(&server, dir),
        None => Ok(()),
    }
}

fn unmount_once(place: &Path) -> Result<(), String> {
    if geteuid().is_root() {
        return umount2(place, MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| errno.desc().to_owned());
    }
    for helper in HELPERS {
        let output = Command::new(helper)
            .args(["-u", "--"])
            .arg(place)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output();
        return match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => Err(format!("{helper}: {e}")),
        };
    }
    Err("fusermount3 is missing: install the package fuse3".into())
}

/// The directory as the list of mounts has it. One whose server died cannot be looked at itself.
fn mount_point(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match (parent.canonicalize(), dir.file_name()) {
            (Ok(parent), Some(name)) => parent.join(name),
            _ => dir.to_owned(),
        }
    })
}

/// The type of what is mounted on a directory, in the format of `/proc/self/mountinfo` (Linux
/// `Documentation/filesystems/proc.rst`).
fn mounted_type(list: &[u8], place: &OsStr) -> Option<String> {
    // The last one is on top.
    list.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        if unescape(fields.nth(4)?) != place {
            return None;
        }
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(String::from_utf8_lossy(kind).into_owned())
    })
}

/// Spaces and the like stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => bytes.push(*byte),
        }
    }
    OsString::from_vec(bytes)
}

/// A process: its number, and when it started, because numbers are used again.
struct Server {
    pid: u32,
    started: Vec<u8>,
}

/// The process that serves a mount, if it is one of ours and we may ask it.
fn server(place: &Path) -> Option<Server> {
    let pid = String::from_utf8(get_xattr(place, SERVER_ATTRIBUTE)?).ok()?.parse().ok()?;
    Some(Server { pid, started: start_time(pid)? })
}

/// Field 22 of `/proc/PID/stat`: the third is the first one after the name, which is in brackets.
fn start_time(pid: u32) -> Option<Vec<u8>> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat[after_name + 1..].split(|byte| *byte == b' ').skip(1);
    // One that has ended and was not waited for has ended all the same.
    if fields.next()? == b"Z" {
        return None;
    }
    fields.nth(18).map(<[u8]>::to_vec)
}

fn wait_for(server: &Server, dir: &Path) -> Result<(), Error> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    while start_time(server.pid).as_ref() == Some(&server.started) {
        if begin.elapsed() > END_TIMEOUT {
            return Err(Error::StillRunning { dir: dir.to_owned(), pid: server.pid });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

fn get_xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let name = CString::new(name).ok()?;
    let mut value = vec![0_u8; 64];
    // SAFETY: both strings end with a NUL, and the value has as many bytes as is said.
    #[allow(unsafe_code)]
    let len =
        unsafe { nix::libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(len).ok()?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_is_found_by_its_escaped_name() {
        let list = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /mnt/a\\040b\\134c rw,nosuid shared:5 master:3 - tmpfs none rw\n\
            31 30 0:41 / /mnt/a\\040b\\134c ro - fuse.vmcraft disk\\040image ro\n";
        let kind = |place: &str| mounted_type(list, OsStr::new(place));
        assert_eq!(kind("/mnt/a b\\c").as_deref(), Some("fuse.vmcraft"));
        assert_eq!(kind("/").as_deref(), Some("ext4"));
        assert_eq!(kind("/mnt"), None);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = start_time(std::process::id()).unwrap();
        assert!(own.iter().all(u8::is_ascii_digit), "{own:?}");
        assert_eq!(start_time(0), None);
    }

    #[test]
    fn what_is_not_mounted_is_said_so() {
        let dir = std::env::temp_dir().join("vmcraft-not-mounted");
        assert!(matches!(unmount(&dir, 0), Err(Error::NotMounted(_))));
        assert!(matches!(unmount(Path::new("/proc"), 0), Err(Error::NotFuse { .. })));
    }
}
