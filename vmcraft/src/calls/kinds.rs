//! What kind of content a file has.

use std::io::{BufReader, Read};

use vmcraft_macros::api;

use crate::decompress::Kind;
use crate::magic::{self, HEAD_LEN};
use crate::vfs::FileReader;
use crate::{DeviceName, DeviceOrPath, Error, Guest, GuestPath, Result};

#[api(area = "files")]
impl Guest {
    /// Describe what kind of content a file has
    ///
    /// `path` is a file inside the guest, which is looked at without following a symbolic link, or a
    /// device. The words are those of file(1) for programs, scripts, text, archives, compressed
    /// content and some other formats that guests often hold; anything else is `data`. In a
    /// compressed file the content inside is described, and then the compression.
    ///
    /// ```guestfish
    /// file /etc/fstab
    /// ```
    pub fn file(&self, path: &DeviceOrPath) -> Result<String> {
        if let Some(device) = path.as_device() {
            return self.describe_device(device);
        }
        let node = self.resolve_link(path.as_path())?;
        let metadata = node.metadata()?;
        if let Some(special) = magic::special(metadata.file_type) {
            return Ok(special.into());
        }
        let reader = FileReader::open(node)?.cancelled_by(self.host.cancel.clone());
        let mut words = magic::mode_words(metadata.permissions).join(", ");
        if !words.is_empty() {
            // file(1) says "setuid ELF …", but "setuid, empty".
            words.push_str(if metadata.size_bytes == 0 { ", " } else { " " });
        }
        let head = self.head_of(&reader)?;
        let outer = describe(&reader, &head);
        let Some(kind) = Kind::detect(&head) else { return Ok(words + &outer) };
        // A damaged or unknown stream is described from outside alone.
        Ok(match decoded_head(kind, reader) {
            Ok(inner) => format!("{words}{} ({outer})", describe_head(&inner)),
            Err(_) => {
                self.host.check_cancelled()?;
                words + &outer
            }
        })
    }

    /// Describe what kind of content is inside a compressed file
    ///
    /// `meth` is `gzip`, `compress` or `bzip2`, or also `xz` or `zstd`; `path` is the file, whose
    /// symbolic links are followed. The words are those of `file`.
    ///
    /// ```guestfish
    /// zfile gzip /boot/config.gz
    /// ```
    #[call(deprecated = "file")]
    pub fn zfile(&self, meth: &str, path: &GuestPath) -> Result<String> {
        let kind = match meth {
            "gzip" => Kind::Gzip,
            "bzip2" => Kind::Bzip2,
            "xz" => Kind::Xz,
            "zstd" => Kind::Zstd,
            "compress" => Kind::Compress,
            other => {
                return Err(Error::Usage(format!(
                    "meth is gzip, bzip2, xz, zstd or compress, not {other:?}"
                )));
            }
        };
        let reader = self.open_file(path)?;
        let node = reader.node().clone();
        let head = decoded_head(kind, reader).map_err(|e| node.stream_error(e))?;
        Ok(describe_head(&head))
    }

    /// Tell the architecture that a file's code is for
    ///
    /// `filename` is a program, library, kernel module, kernel or initial RAM disk, compressed or not;
    /// symbolic links are followed. The result is `x86_64`, `i386`, `aarch64`, `arm`, `ppc64le`,
    /// `ppc64`, `ppc`, `s390x`, `s390`, `riscv64`, `riscv32`, `ia64`, `sparc64`, `sparc`, or another
    /// name of Linux. Of an initial RAM disk it is that of the first program in it. A file that says
    /// no architecture is an error.
    ///
    /// ```guestfish
    /// file-architecture /bin/ls
    /// ```
    pub fn file_architecture(&self, filename: &GuestPath) -> Result<String> {
        let reader = self.open_file(filename)?;
        let node = reader.node().clone();
        let mut content = BufReader::with_capacity(HEAD_LEN, reader);
        match magic::architecture::detect(&mut content, 0) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => Err(Error::Usage(format!("{filename}: unknown architecture"))),
            Err(e) => Err(node.stream_error(e)),
        }
    }
}

impl Guest {
    fn head_of(&self, reader: &FileReader) -> Result<Vec<u8>> {
        let node = reader.node();
        let mut head = vec![0; HEAD_LEN];
        let n = node.filesystem.read(node.inode, 0, &mut head).map_err(|source| node.error(source))?;
        head.truncate(n);
        Ok(head)
    }

    fn describe_device(&self, device: &DeviceName) -> Result<String> {
        let (name, device) = self.open_device(device)?;
        let read_at = |offset: u64, len: usize| {
            let left = usize::try_from(device.size().saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut part = vec![0; len.min(left)];
            device.read_at(offset, &mut part).map(|()| part)
        };
        let head = read_at(0, HEAD_LEN).map_err(|source| Error::Device { device: name, source })?;
        Ok(magic::describe(&head, &|offset, len| read_at(offset, len).unwrap_or_default()))
    }
}

fn describe(reader: &FileReader, head: &[u8]) -> String {
    let node = reader.node();
    magic::describe(head, &|offset, len| {
        let mut part = vec![0; len];
        // What cannot be read is not described.
        let n = node.filesystem.read(node.inode, offset, &mut part).unwrap_or(0);
        part.truncate(n);
        part
    })
}

/// Describes content of which no more than its head is at hand.
fn describe_head(head: &[u8]) -> String {
    magic::describe(head, &|offset, len| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(head.len());
        head[start..head.len().min(start.saturating_add(len))].to_vec()
    })
}

fn decoded_head(kind: Kind, reader: FileReader) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    kind.decoder(BufReader::with_capacity(HEAD_LEN, reader))?.take(HEAD_LEN as u64).read_to_end(&mut head)?;
    Ok(head)
}
