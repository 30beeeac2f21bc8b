//! Taking files out to the host.

use std::ops::Range;
use std::path::Path;

use bstr::{BStr, ByteSlice};
use vmcraft_macros::api;

use crate::content::{Content, Run};
use crate::copy_out::copy_out;
use crate::value::FileOut;
use crate::{DeviceOrPath, Error, Guest, GuestPath, Progress, Result};

#[api(area = "transfer")]
impl Guest {
    /// Download a file to the host
    ///
    /// The content of the guest's file or device `remotefilename` is written to the host's file
    /// `filename`, which can be a named pipe, or `-` for standard output. Holes stay holes where the
    /// host's file can have them. A regular file appears under its name when it is complete, and not
    /// before.
    ///
    /// ```guestfish
    /// download /etc/fstab fstab
    /// download /dev/sda1 partition.img
    /// ```
    pub fn download(&mut self, remotefilename: &DeviceOrPath, filename: &FileOut) -> Result<()> {
        let content = self.content(remotefilename)?;
        self.download_range(&content, 0..content.size_bytes(), filename)
    }

    /// Download a part of a file to the host
    ///
    /// `size` bytes from byte `offset` are written to the host's file `filename`. All of them must
    /// lie within the file or device.
    ///
    /// ```guestfish
    /// download-offset /dev/sda bootsector 0 512
    /// ```
    pub fn download_offset(
        &mut self,
        remotefilename: &DeviceOrPath,
        filename: &FileOut,
        offset: i64,
        size: i64,
    ) -> Result<()> {
        let content = self.content(remotefilename)?;
        let range = u64::try_from(offset).ok().zip(u64::try_from(size).ok());
        let end = range.and_then(|(offset, size)| offset.checked_add(size));
        match (range, end) {
            (Some((start, _)), Some(end)) if end <= content.size_bytes() => {
                self.download_range(&content, start..end, filename)
            }
            _ => Err(Error::Usage(format!(
                "{remotefilename}: {size} bytes from byte {offset} are not within its {} bytes",
                content.size_bytes()
            ))),
        }
    }

    /// Copy a file or directory out to a directory of the host
    ///
    /// `remotepath` is copied, with all that is below it, into the host's directory `localdir`, which
    /// must exist. It keeps its name there; of `/` the contents are copied. Permissions, times,
    /// symbolic links, hard links, holes and named pipes are kept; owners, set-id bits and device
    /// nodes only if root runs this, and a device node that is left out is a warning. Sockets and
    /// extended attributes are left out. Files of the same name are replaced, directories are added
    /// to.
    ///
    /// Nothing is written outside `localdir`, whatever names and links the guest has. Links are copied
    /// as they are, so do not follow them on the host.
    ///
    /// ```guestfish
    /// copy-out /home .
    /// ```
    pub fn copy_out(&mut self, remotepath: &GuestPath, localdir: &BStr) -> Result<()> {
        let node = self.resolve(remotepath)?;
        let directory = localdir
            .to_path()
            .map_err(|_| Error::Usage(format!("{localdir:?} is not the name of a directory")))?;
        // What it is called, unless that is `..`: then what it is called there.
        let name = match remotepath.components().next_back() {
            Some(name) if name != ".." => name,
            _ => GuestPath::new(&node.path).components().next_back().unwrap_or_default(),
        };
        let name = name.to_owned();
        copy_out(&self.vfs, &mut self.host, &mut self.warnings, node, name.as_bstr(), Path::new(directory))
    }
}

impl Guest {
    fn download_range(&mut self, content: &Content, range: Range<u64>, filename: &FileOut) -> Result<()> {
        let total = range.end - range.start;
        self.host.write_to(filename, |host, sink| {
            content.read_runs(range, &mut |position| host.step(Progress { position, total }), |run| match run
            {
                Run::Data(data) => sink.put(data),
                Run::Hole(len) => sink.put_hole(len),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::raw_tree::{ROOT, RawTree};
    use crate::vfs::Vfs;

    /// A guest with `/sparse`: 5 MiB, with data in its second and its last MiB but for a hole at
    /// the end.
    fn guest() -> (Guest, Vec<u8>) {
        const MIB: u64 = 1 << 20;
        let mut content = vec![0; 5 << 20];
        content[1 << 20..2 << 20].fill(b'a');
        content[4 << 20..(4 << 20) + 4096].fill(b'b');
        let mut tree = RawTree::new();
        let sparse = tree.file(ROOT, "sparse", &content);
        tree.inode(sparse).data = vec![(MIB, 2 * MIB), (4 * MIB, 4 * MIB + 4096)];
        tree.metadata_mut(sparse).blocks_512 = 2056;
        tree.dir(ROOT, "dir");
        let mut guest = Guest::new();
        guest.vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        (guest, content)
    }

    #[test]
    fn downloads_keep_content_and_holes() {
        let (mut guest, content) = guest();
        let dir = testkit::tempdir();
        let file = dir.path().join("file");
        let out = FileOut::Path(file.clone());
        guest.download("/sparse".into(), &out).unwrap();
        assert!(fs::read(&file).unwrap() == content, "the content differs");
        assert!(fs::metadata(&file).unwrap().blocks() < 2200, "the holes were filled");
        // Into what is there already, by a link to it.
        fs::write(dir.path().join("old"), vec![7; 6 << 20]).unwrap();
        std::os::unix::fs::symlink("old", dir.path().join("link")).unwrap();
        guest.download("/sparse".into(), &FileOut::Path(dir.path().join("link"))).unwrap();
        assert!(fs::read(dir.path().join("old")).unwrap() == content, "the content differs through a link");
        // To a stream, holes are zeros.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let read = std::thread::spawn(move || {
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut all).unwrap();
            all
        });
        guest.set_output(Box::new(writer));
        guest.download("/sparse".into(), &FileOut::Output).unwrap();
        guest.set_output(Box::new(std::io::sink()));
        assert!(read.join().unwrap() == content, "the stream differs");
    }

    #[test]
    fn parts_lie_within_the_file() {
        let (mut guest, content) = guest();
        let dir = testkit::tempdir();
        let file = dir.path().join("part");
        let out = FileOut::Path(file.clone());
        for (offset, size) in [(0, 0), ((1 << 20) - 7, 20), ((2 << 20) - 1, 3 << 20), (5 << 20, 0)] {
            guest.download_offset("/sparse".into(), &out, offset, size).unwrap();
            let [offset, size] = [offset, size].map(|n| usize::try_from(n).unwrap());
            assert!(fs::read(&file).unwrap() == content[offset..offset + size], "{size} at {offset}");
        }
        for (offset, size) in [(-1, 2), (0, -1), (1, 5 << 20), (i64::MAX, i64::MAX)] {
            let refused = guest.download_offset("/sparse".into(), &out, offset, size).unwrap_err();
            assert!(refused.to_string().contains("not within its 5242880 bytes"), "{refused}");
        }
    }

    #[test]
    fn what_has_no_content_is_refused() {
        let (mut guest, _) = guest();
        let out = FileOut::Path(PathBuf::from("/nonexistent/dir/file"));
        assert_eq!(guest.download("/dir".into(), &out).unwrap_err().to_string(), "/dir: is a directory");
        let missing = guest.download("/sparse".into(), &out).unwrap_err().to_string();
        assert!(missing.starts_with("/nonexistent/dir/file: cannot create: No such file"), "{missing}");
    }
}
