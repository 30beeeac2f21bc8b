//! Images in formats that QEMU opens for us, and the files that they name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::chain::Opener;
use crate::qemu_nbd::vmdk::Vmdk;
use crate::qemu_nbd::{self, PrivateFile, QemuDisk, Request, header};
use crate::storage::{HostFile, Storage};
use crate::{BlockDevice, Error, Result};

/// How many parents a VMDK may have, each below the other.
const MAX_PARENTS: usize = 64;

/// Opens a file in a format that is not ours. `format` is QEMU's name for it.
///
/// Whether writes are refused, `storage` says.
pub(super) fn open(
    opener: &mut Opener<'_>,
    name: &str,
    storage: Arc<HostFile>,
    format: &str,
) -> Result<Arc<dyn BlockDevice>> {
    let read_only = storage.is_read_only();
    let mut graph = Graph { opener, files: Vec::new() };
    let node = match format {
        "vmdk" => graph.vmdk(name, Path::new(name), &storage, 0)?,
        format => {
            let io = |source| Error::Io { image: name.to_owned(), doing: "cannot read", source };
            if let Some(feature) = header::needs_other_file(format, &storage).map_err(io)? {
                return Err(Error::Unsupported { image: name.to_owned(), feature });
            }
            format_node(format, file_node(name, Path::new(name), &storage)?, Value::Null)
        }
    };
    let files = graph.files;
    // QEMU locks the image itself, and asks us for no lock.
    drop(storage);
    let start = |node: Map<String, Value>| {
        QemuDisk::open(Request { name, node, files: files.clone(), secret: None, read_only })
    };
    let disk = start(node.clone()).or_else(|error| match qemu_nbd::lock_conflict(&error) {
        Some(detail) if read_only && opener.options.allow_in_use => {
            opener.warn_in_use(name, &detail);
            let mut node = node;
            node.insert("force-share".into(), true.into());
            start(node)
        }
        Some(detail) => Err(super::chain::in_use(name, detail)),
        None => Err(error),
    })?;
    Ok(Arc::new(disk))
}

/// The options of a format over a file. `backing` is null for none.
pub(super) fn format_node(format: &str, file: Value, backing: Value) -> Map<String, Value> {
    let mut node = Map::new();
    node.insert("driver".into(), format.into());
    node.insert("file".into(), file);
    node.insert("backing".into(), backing);
    node
}

/// The options of a file of the host.
fn file_node(image: &str, path: &Path, storage: &HostFile) -> Result<Value> {
    let driver = if storage.is_block_device() { "host_device" } else { "file" };
    let path = absolute(image, path)?;
    // QEMU is told in JSON, which has no other bytes than UTF-8's.
    let Some(name) = path.to_str() else {
        let feature =
            format!("a path that is not UTF-8 ({}), for a format that qemu-nbd opens", path.display());
        return Err(Error::Unsupported { image: image.to_owned(), feature });
    };
    Ok(json!({ "driver": driver, "filename": name }))
}

fn absolute(image: &str, path: &Path) -> Result<PathBuf> {
    let io =
        |source| Error::Io { image: image.to_owned(), doing: "cannot find the current directory", source };
    std::path::absolute(path).map_err(io)
}

/// The graph of nodes that QEMU is told to make.
struct Graph<'a, 'o> {
    opener: &'a mut Opener<'o>,
    /// The descriptors of all images of several files.
    files: Vec<Arc<PrivateFile>>,
}

impl Graph<'_, '_> {
    /// A VMDK with its extents and parents, all of which the gate is asked about.
    fn vmdk(
        &mut self,
        name: &str,
        path: &Path,
        storage: &HostFile,
        depth: usize,
    ) -> Result<Map<String, Value>> {
        let within = |source| Error::Within { image: name.to_owned(), source: Box::new(source) };
        let vmdk = Vmdk::read(name, storage)?;
        let file = match &vmdk.extents {
            None => file_node(name, path, storage)?,
            Some(_) if !storage.is_read_only() => {
                let feature = "writing to a VMDK of several files; open it read-only".to_owned();
                return Err(Error::Unsupported { image: name.to_owned(), feature });
            }
            Some(extents) => {
                let mut paths: Vec<PathBuf> = Vec::new();
                for extent in extents {
                    let path = self.admit(name, &extent.name, "data file")?;
                    // One file may hold several extents.
                    if !paths.contains(&path) {
                        let extent = path.to_string_lossy();
                        let file = self.opener.open_file(&extent, &path, true).map_err(within)?;
                        Vmdk::check_extent(&extent, &file).map_err(within)?;
                    }
                    paths.push(path);
                }
                let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
                self.private_node(name, &vmdk.descriptor(name, &paths)?)?
            }
        };
        let parent = match &vmdk.parent {
            None => Value::Null,
            Some(_) if depth == MAX_PARENTS => {
                let feature = format!("a VMDK with more than {MAX_PARENTS} parents");
                return Err(Error::Unsupported { image: name.to_owned(), feature });
            }
            Some(parent) => {
                let path = self.admit(name, parent, "backing file")?;
                let parent = path.to_string_lossy();
                let file = self.opener.open_file(&parent, &path, true).map_err(within)?;
                Value::Object(self.vmdk(&parent, &path, &file, depth + 1).map_err(within)?)
            }
        };
        Ok(format_node("vmdk", file, parent))
    }

    /// Finds a file that an image names, and asks the gate.
    fn admit(&self, image: &str, named: &str, role: &'static str) -> Result<PathBuf> {
        let target = self.opener.admit(image, named, role)?;
        match target.format {
            None => absolute(image, &target.path),
            Some(format) => {
                let reason = format!("a VMDK's {role} in format {format} is not followed");
                Err(Error::Refused { image: image.to_owned(), named: named.to_owned(), reason })
            }
        }
    }

    /// A file with these bytes, which only the child sees.
    fn private_node(&mut self, image: &str, bytes: &[u8]) -> Result<Value> {
        let io = |source| Error::Io { image: image.to_owned(), doing: "cannot write a descriptor", source };
        let file = PrivateFile::new(bytes).map_err(io)?;
        let node = json!({ "driver": "file", "filename": file.path(), "locking": "off" });
        self.files.push(Arc::new(file));
        Ok(node)
    }
}
