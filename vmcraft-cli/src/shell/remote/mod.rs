//! Remote control: a shell that stays in the background, and commands sent to it.
//!
//! `vmcraft --listen` starts the server and prints what a shell has to evaluate; `vmcraft --remote`
//! sends it commands over a Unix socket that only its user can reach. The standard streams of the
//! client go along, so a command prints where the client would.

mod client;
mod server;
mod wire;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, Uid};

pub(crate) use client::Client;
pub(crate) use server::{listen, serve};

use crate::error::{Result, message};

const SOCKET_PREFIX: &str = "socket-";

/// The directory of the sockets, made if it is missing.
///
/// It must be ours and nobody else's: whoever could put a socket there would get our commands.
fn directory() -> Result<PathBuf> {
    let uid = Uid::effective();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let directory = match runtime.filter(|dir| dir.is_dir()) {
        Some(dir) => dir.join("vmcraft"),
        None => PathBuf::from(format!("/tmp/.vmcraft-{uid}")),
    };
    let refuse = |why: String| message(format!("{}: {why}", directory.display()));
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refuse(format!("cannot create the directory of the sockets: {e}")));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(&directory).map_err(|e| refuse(e.to_string()))?;
    if !metadata.is_dir() || metadata.uid() != uid.as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(refuse("is not a directory that only this user can enter: remove it".into()));
    }
    Ok(directory)
}

fn socket(directory: &Path, pid: Pid) -> PathBuf {
    directory.join(format!("{SOCKET_PREFIX}{pid}"))
}

/// Removes the sockets on which nobody listens any more.
fn remove_stale(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_socket = entry.file_name().to_str().is_some_and(|name| name.starts_with(SOCKET_PREFIX));
        let refused =
            || UnixStream::connect(entry.path()).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if is_socket && refused() {
            // Another process may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}
