//! Images and disks that QEMU reads for us: a `qemu-nbd` child, and our NBD client on its socket.
//!
//! QEMU is told everything explicitly, as block device options in JSON: it guesses no format, and
//! follows no name that an image has. What an image names is found by us before QEMU sees the image:
//! [`vmdk`] for VMDK, [`header`] for the others.

mod child;
pub(crate) mod header;
pub(crate) mod vmdk;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::nbd::{ConnectOptions, NbdDevice};
use crate::{BlockDevice, Discard, Error, MapExtents, Result};

pub(crate) use child::PrivateFile;
use child::{Child, End};

/// How long the child may take until the disk is open. Remote disks take their time.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a child whose socket is closed may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of the child's words a message has, in characters.
const WORDS_SHOWN: usize = 600;

const PROGRAM: &str = "qemu-nbd";
const PROGRAM_PACKAGE: &str = "qemu-utils (Debian, Ubuntu), qemu-img (Fedora), qemu-tools (openSUSE)";
const DRIVER_PACKAGE: &str = "qemu-block-extra (Debian, Ubuntu), qemu-block-* (Fedora, openSUSE)";

/// What QEMU is to open.
pub(crate) struct Request<'a> {
    /// The image, for messages.
    pub(crate) name: &'a str,
    /// The options of QEMU's block driver, with those of the drivers below it.
    pub(crate) node: Map<String, Value>,
    /// The files that the node refers to by [`PrivateFile::path`].
    pub(crate) files: Vec<Arc<PrivateFile>>,
    /// What the node calls [`SECRET`].
    pub(crate) secret: Option<&'a str>,
    pub(crate) read_only: bool,
}

/// The name by which a node refers to its secret.
pub(crate) const SECRET: &str = "password";

/// A disk that a `qemu-nbd` child serves. The child ends when it is dropped.
pub(crate) struct QemuDisk {
    // Dropped in this order: a child whose client is gone ends by itself.
    device: NbdDevice,
    child: Child,
}

impl QemuDisk {
    /// Starts a child and waits until the disk is open.
    pub(crate) fn open(request: Request<'_>) -> Result<Self> {
        let Request { name, node, mut files, secret, read_only } = request;
        let failed = |source| Error::Io { image: name.to_owned(), doing: "cannot start qemu-nbd", source };
        let mut arguments: Vec<String> = Vec::new();
        arguments.push(if read_only { "--read-only" } else { "--discard=unmap" }.into());
        if let Some(secret) = secret {
            let file = PrivateFile::new(secret.as_bytes()).map_err(failed)?;
            arguments.push("--object".into());
            arguments.push(format!("secret,id={SECRET},file={}", file.path()));
            files.push(Arc::new(file));
        }
        let source = format!("json:{}", Value::Object(node));
        arguments.push(source.clone());
        tracing::debug!(name, ?arguments, "starting qemu-nbd");
        let (child, socket) = Child::start(PROGRAM, arguments, files, read_only).map_err(failed)?;
        let options = ConnectOptions {
            read_only,
            handshake_timeout: START_TIMEOUT,
            // Its death ends the connection; while it lives it may take its time.
            reply_timeout: None,
            ..ConnectOptions::default()
        };
        match NbdDevice::from_socket(socket, PROGRAM.to_owned(), &options) {
            Ok(device) => Ok(Self { device, child }),
            Err(e) => {
                let end = match e.kind() {
                    io::ErrorKind::ConnectionAborted => child.wait(END_TIMEOUT),
                    _ => child.wait(Duration::ZERO),
                };
                child.kill();
                Err(start_error(name, &source, e, &end))
            }
        }
    }

    /// Adds to an error how the child ended, if it did.
    fn explain(&self, error: io::Error) -> io::Error {
        if !self.device.is_dead() {
            return error;
        }
        let end = self.child.wait(END_TIMEOUT);
        let how = match (end.signal(), end.status) {
            (Some(signal), _) => format!("it was ended by {signal}"),
            (None, Some(status)) => format!("it ended with {status}"),
            (None, None) => return error,
        };
        let words = words(&end, "");
        let said = if words.is_empty() { String::new() } else { format!(", saying: {words}") };
        io::Error::new(error.kind(), format!("{error}; {how}{said}"))
    }
}

/// What the child said, in one line, without the long name by which it calls the disk.
fn words(end: &End, source: &str) -> String {
    let naming = format!("Failed to blk_new_open '{source}': ");
    let text = String::from_utf8_lossy(&end.words).replace(&naming, "");
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix("qemu-nbd: ").unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    let line = crate::nbd::printable(lines.join("; ").as_bytes());
    let skip = line.chars().count().saturating_sub(WORDS_SHOWN);
    line.chars().skip(skip).collect()
}

/// Why the child did not open the disk, which it calls `source`.
fn start_error(name: &str, source: &str, error: io::Error, end: &End) -> Error {
    let image = name.to_owned();
    let words = words(end, source);
    if end.was_not_found() {
        let feature =
            format!("the program qemu-nbd, which is not installed; its package is {PROGRAM_PACKAGE}");
        return Error::Unsupported { image, feature };
    }
    if words.contains("Unknown driver '") || words.contains("Unknown protocol '") {
        let feature = format!("{words}; QEMU's drivers for remote disks are in the package {DRIVER_PACKAGE}");
        return Error::Unsupported { image, feature };
    }
    let source = if words.is_empty() { error } else { io::Error::new(error.kind(), words) };
    Error::Io { image, doing: "qemu-nbd cannot open it", source }
}

/// Whether the error says that another process has the image open: QEMU's words for a lock that it
/// did not get.
pub(crate) fn lock_conflict(error: &Error) -> Option<String> {
    match error {
        Error::Io { source, .. } => {
            let words = source.to_string();
            let lock = words.split("Failed to get ").nth(1)?.split(" lock").next()?;
            Some(format!("QEMU did not get the {lock} lock"))
        }
        _ => None,
    }
}

impl BlockDevice for QemuDisk {
    fn size(&self) -> u64 {
        self.device.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, buf).map_err(|e| self.explain(e))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.device.write_at(offset, buf).map_err(|e| self.explain(e))
    }
    fn flush(&self) -> io::Result<()> {
        self.device.flush().map_err(|e| self.explain(e))
    }
    fn is_read_only(&self) -> bool {
        self.device.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        self.device.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.device.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        BlockDevice::discard(&self.device)
    }
}
