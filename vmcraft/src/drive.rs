//! The disks that a handle was given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmcraft_block::image::{Format, Gate};

/// How a disk is added.
#[derive(Clone, Default)]
pub struct DriveOptions {
    /// Its format; `None` detects it.
    pub format: Option<Format>,
    /// Open it even while another process writes to it.
    pub allow_in_use: bool,
    /// A name of its own, under `/dev/disk/guestfs/`.
    pub label: Option<String>,
    /// What libguestfs calls `iface`, kept for scripts and without effect.
    pub interface: Option<String>,
}

/// A disk that was added.
#[derive(Clone)]
pub(crate) struct Drive {
    /// A path or URI, as the user gave it.
    pub(crate) name: String,
    pub(crate) options: DriveOptions,
}

/// Lets an image open files in its own directory, in these, and below them.
///
/// A guest's owner can write any name into an image's header: without this, a disk that was uploaded
/// could have the host's files read as its backing file.
pub(crate) fn directory_gate(allowed: Vec<PathBuf>) -> Arc<Gate> {
    Arc::new(move |reference| {
        let file = reference
            .resolved
            .canonicalize()
            .map_err(|e| format!("{}: {e}", reference.resolved.display()))?;
        let own = Path::new(reference.image).parent().unwrap_or(Path::new(""));
        let own = if own.as_os_str().is_empty() { Path::new(".") } else { own };
        let inside = |directory: &Path| directory.canonicalize().is_ok_and(|dir| file.starts_with(dir));
        if inside(own) || allowed.iter().any(|directory| inside(directory)) {
            return Ok(());
        }
        Err(format!(
            "{} is outside the image's directory; allow it with --allow-backing {}",
            reference.resolved.display(),
            reference.resolved.parent().unwrap_or(Path::new("/")).display(),
        ))
    })
}
