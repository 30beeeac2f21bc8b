//! Locks on image files, as QEMU takes them.
//!
//! QEMU gives every permission on an image two bytes of the file: whoever has the permission holds a
//! shared lock on byte 100 + n, whoever cannot bear that others have it holds one on byte 200 + n. A
//! conflict is seen by asking whether an exclusive lock could be had. The locks belong to the open
//! file description, so they go when it is closed, however the process ends. They lie on bytes, not
//! in them: nothing of the image is changed.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Byte 100 + n: somebody has permission n.
const HELD: i64 = 100;
/// Byte 200 + n: somebody does not share permission n.
const UNSHARED: i64 = 200;

/// QEMU's permissions on a block device, numbered as the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    ConsistentRead = 0,
    Write = 1,
    Resize = 3,
}

impl Permission {
    fn byte(self, base: i64) -> i64 {
        base + self as i64
    }

    /// As QEMU's messages call it.
    fn name(self) -> &'static str {
        match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::Resize => "resize",
        }
    }
}

/// What an image is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To read it, and nobody may change it meanwhile.
    Read,
    /// To write it; `resize` says that the file may grow.
    Write {
        /// The file may grow.
        resize: bool,
    },
}

impl Access {
    fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Read => &[Permission::ConsistentRead],
            Self::Write { resize: false } => &[Permission::ConsistentRead, Permission::Write],
            Self::Write { resize: true } => {
                &[Permission::ConsistentRead, Permission::Write, Permission::Resize]
            }
        }
    }
}

/// What no one else may do while we have an image open, for whatever.
const NOT_SHARED: [Permission; 2] = [Permission::Write, Permission::Resize];

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another process is in the way; the text says with what.
    InUse(String),
    /// The host's file system has no such locks.
    Unsupported,
    /// Something else.
    Io(io::Error),
}

/// Locks a file for as long as it is open. On failure no lock is left.
pub(crate) fn lock(file: &File, access: Access) -> Result<(), Failure> {
    let locked = try_lock(file, access);
    if locked.is_err() {
        for permission in [Permission::ConsistentRead, Permission::Write, Permission::Resize] {
            for base in [HELD, UNSHARED] {
                // There is nothing to do about a lock that cannot even be given back.
                let _ = set(file, libc::F_UNLCK, permission.byte(base));
            }
        }
    }
    locked
}

fn try_lock(file: &File, access: Access) -> Result<(), Failure> {
    let (held, unshared) = (access.permissions(), &NOT_SHARED);
    for permission in held {
        set(file, libc::F_RDLCK, permission.byte(HELD))?;
    }
    for permission in unshared {
        set(file, libc::F_RDLCK, permission.byte(UNSHARED))?;
    }
    // Asked after the locks are there, so that of two processes at least one sees the other.
    for permission in held {
        if is_locked_by_others(file, permission.byte(UNSHARED))? {
            let name = permission.name();
            return Err(Failure::InUse(format!("it does not share the {name:?} lock")));
        }
    }
    for permission in unshared {
        if is_locked_by_others(file, permission.byte(HELD))? {
            return Err(Failure::InUse(format!("it holds the {:?} lock", permission.name())));
        }
    }
    Ok(())
}

/// One byte of the file, to be locked in a way.
fn one_byte(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        // The constants are small; the field is a short.
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte,
        l_len: 1,
        // Must be 0 for these locks.
        l_pid: 0,
    }
}

fn set(file: &File, kind: libc::c_int, byte: i64) -> Result<(), Failure> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&one_byte(kind, byte))) {
        Ok(_) => Ok(()),
        // Nobody who keeps to the protocol holds an exclusive lock.
        Err(Errno::EAGAIN | Errno::EACCES) => {
            Err(Failure::InUse(format!("it holds an exclusive lock on byte {byte}")))
        }
        Err(Errno::EINVAL | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP) => Err(Failure::Unsupported),
        Err(e) => Err(Failure::Io(e.into())),
    }
}

fn is_locked_by_others(file: &File, byte: i64) -> Result<bool, Failure> {
    let mut lock = one_byte(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(|e| Failure::Io(e.into()))?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Two readers get on; a writer gets on with nobody.
    fn readers_share_and_writers_do_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (first, second, third) = (open(), open(), open());
        lock(&first, Access::Read).unwrap();
        lock(&second, Access::Read).unwrap();
        let refused = lock(&third, Access::Write { resize: false }).unwrap_err();
        assert!(matches!(&refused, Failure::InUse(why) if why.contains("\"write\"")), "{refused:?}");
        drop((first, second));
        // The refused lock has left nothing behind.
        lock(&open(), Access::Read).unwrap();
        lock(&third, Access::Write { resize: true }).unwrap();
        let refused = lock(&open(), Access::Read).unwrap_err();
        assert!(matches!(&refused, Failure::InUse(why) if why.contains("holds")), "{refused:?}");
        drop(third);
        lock(&open(), Access::Read).unwrap();
    }
}
