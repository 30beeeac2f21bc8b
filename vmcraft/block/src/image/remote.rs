//! Disks that are elsewhere: exports of NBD servers, and what QEMU reads for us.
//!
//! A remote disk is first opened as the bytes it is. What image format they have is seen by us, not by
//! QEMU; qcow2 is then read by our own driver over those bytes, and any other format by a second
//! child. A file that a remote image names is never followed.

use std::io;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::chain::{Layer, Opener};
use super::{Format, OpenOptions, via_qemu};
use crate::device::read_only;
use crate::nbd::{Address, ConnectOptions, NbdDevice};
use crate::qcow2::{Header, Parts, Qcow2};
use crate::qemu_nbd::vmdk::Vmdk;
use crate::qemu_nbd::{QemuDisk, Request, SECRET, header};
use crate::storage::Storage;
use crate::uri::{self, Location, RemoteDisk, UriError};
use crate::{BlockDevice, Error, Extent, Result};

/// Opens a disk that is named by a URI.
pub(super) fn open_uri(uri: &str, options: &OpenOptions, warnings: &mut Vec<String>) -> Result<Layer> {
    let name = uri::without_password(uri);
    let mut opener = Opener::new(options, warnings);
    match uri::parse(uri) {
        Ok(Location::File(path)) => opener.open_top(&path.to_string_lossy()),
        Ok(Location::Nbd { address, export }) => {
            let device = open_nbd(&name, &address, &export, options.read_only)?;
            Bytes { name, device, node: nbd_node(&address, &export), password: None }.open(&mut opener)
        }
        Ok(Location::Qemu(disk)) => open_qemu(name, disk, options.read_only)?.open(&mut opener),
        Err(UriError::Unsupported(feature)) => Err(Error::Unsupported { image: name, feature }),
        Err(UriError::Invalid(what)) => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, what);
            Err(Error::Io { image: name, doing: "cannot understand the URI", source })
        }
    }
}

fn open_nbd(name: &str, address: &Address, export: &str, read_only: bool) -> Result<Arc<dyn BlockDevice>> {
    let connect = ConnectOptions { export: export.to_owned(), read_only, ..ConnectOptions::default() };
    let image = name.to_owned();
    match NbdDevice::connect(address, &connect) {
        Ok(device) => Ok(Arc::new(device)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            Err(Error::Unsupported { image, feature: e.to_string() })
        }
        Err(source) => Err(Error::Io { image, doing: "cannot open the NBD export", source }),
    }
}

/// The same export as an option of QEMU's.
fn nbd_node(address: &Address, export: &str) -> Value {
    let server = match address {
        Address::Unix(path) => json!({ "type": "unix", "path": path.to_string_lossy() }),
        Address::Tcp { host, port } => json!({ "type": "inet", "host": host, "port": port.to_string() }),
    };
    json!({ "driver": "nbd", "server": server, "export": export })
}

fn open_qemu(name: String, disk: RemoteDisk, read_only: bool) -> Result<Bytes> {
    let RemoteDisk { mut options, password } = disk;
    if password.is_some() {
        options.insert("password-secret".into(), SECRET.into());
    }
    let file = Value::Object(options);
    let node = via_qemu::format_node("raw", file.clone(), Value::Null);
    let device = qemu_disk(&name, node, password.as_deref(), read_only)?;
    Ok(Bytes { name, device, node: file, password })
}

fn qemu_disk(
    name: &str,
    node: Map<String, Value>,
    password: Option<&str>,
    read_only: bool,
) -> Result<Arc<dyn BlockDevice>> {
    let request = Request { name, node, files: Vec::new(), secret: password, read_only };
    Ok(Arc::new(QemuDisk::open(request)?))
}

/// A remote disk, or the file of an image that is elsewhere.
struct Bytes {
    name: String,
    device: Arc<dyn BlockDevice>,
    /// The same bytes as QEMU is told of them.
    node: Value,
    password: Option<String>,
}

impl Bytes {
    /// Opens the image that the bytes are.
    fn open(self, opener: &mut Opener<'_>) -> Result<Layer> {
        let storage = Arc::new(RemoteFile(self.device.clone()));
        let format = opener.settle_format(&self.name, &*storage)?;
        let unsupported = |feature| Error::Unsupported { image: self.name.clone(), feature };
        if format != Format::Raw && !opener.options.read_only {
            return Err(unsupported(format!("writing to a {format} image that is not on this host")));
        }
        if opener.options.snapshot.is_some() && format != Format::Qcow2 {
            return Err(unsupported(format!("internal snapshots in format {format}")));
        }
        let device: Arc<dyn BlockDevice> = match &format {
            Format::Raw => self.device,
            Format::Qcow2 => {
                let header = Header::read(&self.name, &*storage)?;
                if let Some(named) = header.data_file.as_ref().or(header.backing_file.as_ref()) {
                    return Err(self.refused(named));
                }
                let parts = Parts { snapshot: opener.options.snapshot.clone(), ..Parts::default() };
                Arc::new(Qcow2::open(&self.name, storage, header, parts)?)
            }
            Format::ViaQemu(format) => {
                self.check_names_nothing(format, &*storage)?;
                let node = via_qemu::format_node(format, self.node, Value::Null);
                qemu_disk(&self.name, node, self.password.as_deref(), true)?
            }
        };
        Ok(Layer { device, format })
    }

    fn check_names_nothing(&self, format: &str, storage: &dyn Storage) -> Result<()> {
        if format == "vmdk" {
            let vmdk = Vmdk::read(&self.name, storage)?;
            let extent = vmdk.extents.iter().flatten().map(|extent| &extent.name).next();
            return extent.or(vmdk.parent.as_ref()).map_or(Ok(()), |named| Err(self.refused(named)));
        }
        let io = |source| Error::Io { image: self.name.clone(), doing: "cannot read", source };
        match header::needs_other_file(format, storage).map_err(io)? {
            Some(feature) => Err(Error::Unsupported { image: self.name.clone(), feature }),
            None => Ok(()),
        }
    }

    fn refused(&self, named: &str) -> Error {
        Error::Refused {
            image: self.name.clone(),
            named: named.to_owned(),
            reason: "files that an image elsewhere names are not followed; copy all of them here".to_owned(),
        }
    }
}

/// A remote disk as the file under an image format. Its size is fixed.
struct RemoteFile(Arc<dyn BlockDevice>);

impl Storage for RemoteFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.size())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let there = self.0.size().saturating_sub(offset);
        let len = usize::try_from(there).map_or(buf.len(), |there| there.min(buf.len()));
        if len > 0 {
            self.0.read_at(offset, &mut buf[..len])?;
        }
        Ok(len)
    }

    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn resize(&self, _size: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn punch_hole(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        match self.0.extents() {
            Some(extents) => extents.extent_at(offset),
            None => Ok(Extent { offset, len: self.0.size().saturating_sub(offset), is_hole: false }),
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }
}
