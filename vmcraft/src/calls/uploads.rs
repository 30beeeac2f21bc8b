//! Bringing files in from the host, and copying between files and devices.

use vmcraft_macros::api;

use crate::calls::writing::not_negative;
use crate::change::{Opening, Target};
use crate::decompress::base64_reader;
use crate::host::Source;
use crate::value::FileIn;
use crate::{DeviceName, DeviceOrPath, Error, Guest, GuestPath, Progress, Result};

#[api(area = "uploading")]
impl Guest {
    /// Upload a file of the host
    ///
    /// The guest's file or device `remotefilename` gets the content of the host's file `filename`, which
    /// can be a named pipe, or `-` for standard input. A file that is there keeps its owner, permissions
    /// and inode, and if the upload fails half-way or is interrupted also its content; a new one has the
    /// permissions that the umask leaves of 0666. Holes of the host's file stay holes.
    ///
    /// ```guestfish
    /// upload motd /etc/motd
    /// upload - /etc/motd
    /// ```
    pub fn upload(&mut self, filename: &FileIn, remotefilename: &DeviceOrPath) -> Result<()> {
        self.read_from(filename, |guest, source| {
            guest.with_target(remotefilename, Opening::Truncate, 0, |guest, target| {
                guest.put_source(source, target)
            })
        })
    }

    /// Upload a file of the host into a part of a file
    ///
    /// The content of the host's file `filename` is written from byte `offset` of the guest's file or
    /// device `remotefilename`, which is made if it is not there. What lies outside of that stays.
    ///
    /// ```guestfish
    /// upload-offset bootsector /dev/sda 0
    /// ```
    pub fn upload_offset(
        &mut self,
        filename: &FileIn,
        remotefilename: &DeviceOrPath,
        offset: i64,
    ) -> Result<()> {
        let offset = not_negative("offset", offset)?;
        self.read_from(filename, |guest, source| {
            guest.with_target(remotefilename, Opening::Create, offset, |guest, target| {
                guest.put_source(source, target)
            })
        })
    }

    /// Upload a file that is encoded with base64
    ///
    /// The guest's file `filename` gets what the host's file `base64file` decodes to. White space in it
    /// is skipped; anything else that is not base64 is an error, and changes nothing.
    ///
    /// ```guestfish
    /// base64-in motd.base64 /etc/motd
    /// ```
    pub fn base64_in(&mut self, base64file: &FileIn, filename: &GuestPath) -> Result<()> {
        let filename = DeviceOrPath::new(filename);
        self.read_from(base64file, |guest, source| {
            guest.with_target(filename, Opening::Truncate, 0, |guest, target| {
                let put = guest.put_stream(&mut base64_reader(&mut *source), target);
                put.map_err(|failed| match failed {
                    StreamError::Read(e) => source.error(e),
                    StreamError::Write(e) => e,
                })
            })
        })
    }

    /// Write into a device at an offset
    ///
    /// `content` is written at byte `offset` of `device`. The result is how many bytes were written: fewer
    /// than `content` has where the device ends.
    ///
    /// ```guestfish
    /// pwrite-device /dev/sda "x" 446
    /// ```
    pub fn pwrite_device(&mut self, device: &DeviceName, content: &[u8], offset: i64) -> Result<i64> {
        let offset = not_negative("offset", offset)?;
        let (name, opened) = self.open_device(device)?;
        let room = usize::try_from(opened.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        if room == 0 {
            return Err(Error::Usage(format!(
                "{name}: byte {offset} is beyond the end of the device, which has {} bytes",
                opened.size()
            )));
        }
        let content = &content[..content.len().min(room)];
        self.with_target(DeviceOrPath::new(device), Opening::Existing, offset, |_, target| {
            target.put(crate::content::Run::Data(content))
        })?;
        Ok(i64::try_from(content.len()).unwrap_or(i64::MAX))
    }

    /// Copy from a file to another
    ///
    /// The content of `src` is copied into `dest`, which is made if it is not there and emptied
    /// otherwise.
    ///
    /// - `srcoffset` and `destoffset` are the bytes where reading and writing begin.
    /// - `size` is how many bytes are copied; without it, all to the end of `src`.
    /// - `sparse` leaves holes where zeros would be written.
    /// - `append` adds to the end of what `dest` has.
    ///
    /// ```guestfish
    /// copy-file-to-file /etc/hosts /etc/hosts.bak
    /// ```
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn copy_file_to_file(
        &mut self,
        src: &GuestPath,
        dest: &GuestPath,
        srcoffset: Option<i64>,
        destoffset: Option<i64>,
        size: Option<i64>,
        sparse: Option<bool>,
        append: Option<bool>,
    ) -> Result<()> {
        let range = CopyRange { srcoffset, destoffset, size, sparse, append };
        self.copy_range(DeviceOrPath::new(src), DeviceOrPath::new(dest), range)
    }

    /// Copy from a file to a device
    ///
    /// As `copy-file-to-file`; what the device has beyond what is written stays.
    ///
    /// ```guestfish
    /// copy-file-to-device /boot/image /dev/sdb
    /// ```
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn copy_file_to_device(
        &mut self,
        src: &GuestPath,
        dest: &DeviceName,
        srcoffset: Option<i64>,
        destoffset: Option<i64>,
        size: Option<i64>,
        sparse: Option<bool>,
        append: Option<bool>,
    ) -> Result<()> {
        let range = CopyRange { srcoffset, destoffset, size, sparse, append };
        self.copy_range(DeviceOrPath::new(src), DeviceOrPath::new(dest), range)
    }

    /// Copy from a device to a file
    ///
    /// As `copy-file-to-file`.
    ///
    /// ```guestfish
    /// copy-device-to-file /dev/sdb /srv/image sparse:true
    /// ```
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn copy_device_to_file(
        &mut self,
        src: &DeviceName,
        dest: &GuestPath,
        srcoffset: Option<i64>,
        destoffset: Option<i64>,
        size: Option<i64>,
        sparse: Option<bool>,
        append: Option<bool>,
    ) -> Result<()> {
        let range = CopyRange { srcoffset, destoffset, size, sparse, append };
        self.copy_range(DeviceOrPath::new(src), DeviceOrPath::new(dest), range)
    }

    /// Copy from a device to another
    ///
    /// As `copy-file-to-file`; what the device has beyond what is written stays.
    ///
    /// ```guestfish
    /// copy-device-to-device /dev/sda1 /dev/sdb1 size:1M
    /// ```
    #[expect(clippy::too_many_arguments, reason = "libguestfs's call has as many")]
    pub fn copy_device_to_device(
        &mut self,
        src: &DeviceName,
        dest: &DeviceName,
        srcoffset: Option<i64>,
        destoffset: Option<i64>,
        size: Option<i64>,
        sparse: Option<bool>,
        append: Option<bool>,
    ) -> Result<()> {
        let range = CopyRange { srcoffset, destoffset, size, sparse, append };
        self.copy_range(DeviceOrPath::new(src), DeviceOrPath::new(dest), range)
    }

    /// Copy the first bytes of a file or device
    ///
    /// `size` bytes of `src` are copied to `dest`.
    ///
    /// ```guestfish
    /// copy-size /dev/sda1 /srv/start 1M
    /// ```
    #[call(deprecated = "copy-device-to-device")]
    pub fn copy_size(&mut self, src: &DeviceOrPath, dest: &DeviceOrPath, size: i64) -> Result<()> {
        self.copy_range(src, dest, CopyRange { size: Some(size), ..CopyRange::default() })
    }

    /// Copy a file or device
    ///
    /// All of `src` is copied to `dest`.
    ///
    /// ```guestfish
    /// dd /etc/hosts /etc/hosts.bak
    /// ```
    #[call(deprecated = "copy-device-to-device")]
    pub fn dd(&mut self, src: &DeviceOrPath, dest: &DeviceOrPath) -> Result<()> {
        self.copy_range(src, dest, CopyRange::default())
    }
}

/// The optional arguments of the calls that copy.
#[derive(Default)]
struct CopyRange {
    srcoffset: Option<i64>,
    destoffset: Option<i64>,
    size: Option<i64>,
    sparse: Option<bool>,
    append: Option<bool>,
}

/// What went wrong between a stream and where it goes.
enum StreamError {
    Read(std::io::Error),
    Write(Error),
}

impl Guest {
    /// Runs `write` with a file or device that content goes to, all or nothing.
    fn with_target(
        &mut self,
        name: &DeviceOrPath,
        opening: Opening,
        offset: u64,
        write: impl FnOnce(&mut Self, &mut Target) -> Result<()>,
    ) -> Result<()> {
        self.atomically(|guest| {
            let Some(device) = name.as_device() else {
                let node = guest.open_to_write(name.as_path(), opening)?;
                let mut target = Target::of_file(node, offset)?;
                write(guest, &mut target)?;
                return target.finish();
            };
            let (name, device) = guest.open_device_for_writing(device)?;
            let mut target = Target::of_device(name.clone(), device, offset);
            write(guest, &mut target)?;
            guest.device_changed(&name);
            Ok(())
        })
    }

    fn put_source(&mut self, source: &mut Source, target: &mut Target) -> Result<()> {
        let total = source.size_bytes().unwrap_or(0);
        target.check_room(total)?;
        source.read_runs(|run, position| {
            target.put(run)?;
            self.host.step(Progress { position, total })
        })
    }

    fn put_stream(&mut self, stream: &mut dyn std::io::Read, target: &mut Target) -> Result<(), StreamError> {
        let mut buf = vec![0; crate::content::STEP_BYTES];
        loop {
            let n = match stream.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(StreamError::Read(e)),
            };
            target.put(crate::content::Run::Data(&buf[..n])).map_err(StreamError::Write)?;
        }
    }

    fn copy_range(&mut self, src: &DeviceOrPath, dest: &DeviceOrPath, range: CopyRange) -> Result<()> {
        let content = self.content(src)?;
        let number = |name, number: Option<i64>| number.map_or(Ok(0), |number| not_negative(name, number));
        let start = number("srcoffset", range.srcoffset)?;
        let available = content.size_bytes().checked_sub(start).ok_or_else(|| {
            Error::Usage(format!("{src}: srcoffset {start} is beyond its {} bytes", content.size_bytes()))
        })?;
        let len = range.size.map_or(Ok(available), |size| not_negative("size", size))?;
        if len > available {
            return Err(Error::Usage(format!(
                "{src}: input too short: {len} bytes from byte {start} are not within its {} bytes",
                content.size_bytes()
            )));
        }
        let appends = range.append.unwrap_or(false);
        if appends && dest.as_device().is_some() {
            return Err(Error::Usage(format!("{dest}: nothing can be appended to a device")));
        }
        let mut offset = number("destoffset", range.destoffset)?;
        let opening = if appends { Opening::Create } else { Opening::Truncate };
        self.atomically(|guest| {
            if dest.as_device().is_none() {
                let existing = match guest.resolve(dest.as_path()) {
                    Ok(node) => Some(node),
                    Err(e) if e.is_not_found() => None,
                    Err(e) => return Err(e),
                };
                if let Some(node) = existing {
                    if content.is_of(&node) {
                        return Err(Error::Usage(format!("{src} and {dest} are the same file")));
                    }
                    if appends {
                        offset = node.metadata()?.size_bytes;
                    }
                }
            }
            let sparse = range.sparse.unwrap_or(false);
            guest.with_target(dest, opening, offset, |guest, target| {
                target.check_room(len)?;
                target.set_skipping_zeros(sparse);
                let mut tick = |position| guest.host.step(Progress { position, total: len });
                content.read_runs(start..start + len, &mut tick, |run| target.put(run))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Read};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing::MemoryFs;
    use crate::testing::script::{call, refusal, run, tree};

    fn host_file(dir: &tempfile::TempDir, content: &[u8]) -> FileIn {
        let path = dir.path().join("file");
        fs::write(&path, content).unwrap();
        FileIn::Path(path)
    }

    #[test] // What libguestfs 1.48 left: the file's inode, owner and mode stay.
    fn uploads_replace_content_and_nothing_else() {
        let dir = testkit::tempdir();
        let mut guest =
            MemoryFs::new().file("/f", "old and long").mode("/f", 0o600).owner("/f", 3, 4).guest();
        let file = host_file(&dir, b"new");
        guest.upload(&file, "/f".into()).unwrap();
        guest.upload(&file, "/g".into()).unwrap();
        assert_eq!(tree(&guest, "/"), ["40755 2 0:0 .", "100600 1 3:4 3 f", "100644 1 0:0 3 g"]);
        guest.upload_offset(&file, "/f".into(), 1).unwrap();
        guest.upload_offset(&file, "/h".into(), 5).unwrap();
        assert_eq!(guest.read("/f").unwrap(), b"nnew");
        assert_eq!(guest.read("/h").unwrap(), b"\0\0\0\0\0new");
        guest.set_input(Box::new(io::Cursor::new(vec![9; 2_500_000])));
        guest.upload(&FileIn::Input, "/f".into()).unwrap();
        assert!(guest.read("/f").unwrap() == vec![9; 2_500_000]);
    }

    #[test]
    fn holes_of_the_host_take_no_space() {
        let dir = testkit::tempdir();
        let path = dir.path().join("sparse");
        let file = fs::File::create(&path).unwrap();
        file.write_all_at(b"x", 10 << 20).unwrap();
        file.set_len(1 << 30).unwrap();
        let mut guest = MemoryFs::new().with_blocks(16).guest();
        guest.upload(&FileIn::Path(path.clone()), "/f".into()).unwrap();
        let metadata = guest.resolve("/f".into()).unwrap().metadata().unwrap();
        assert_eq!((metadata.size_bytes, metadata.blocks_512), (1 << 30, 8));
        // What is there already is overwritten by holes too.
        run(&mut guest, "fill 65 20000 /old");
        file.set_len(0).unwrap();
        file.write_all_at(b"y", 8192).unwrap();
        guest.upload_offset(&FileIn::Path(path), "/old".into(), 0).unwrap();
        let old = guest.read("/old").unwrap();
        assert_eq!((old.len(), &old[..3], &old[8191..8195]), (20_000, &b"\0\0\0"[..], &b"\0yAA"[..]));
    }

    #[test]
    fn what_cannot_be_uploaded_is_refused() {
        let dir = testkit::tempdir();
        let mut guest = MemoryFs::new().dir("/d").file("/f", "old").with_blocks(4).guest();
        let file = host_file(&dir, &[1; 100_000]);
        let error = |result: Result<()>| {
            let error = result.unwrap_err();
            (error.errno(), error.to_string())
        };
        let (errno, message) = error(guest.upload(&file, "/d".into()));
        assert_eq!((errno, message.as_str()), (21, "/d: is a directory"));
        let (errno, message) = error(guest.upload(&file, "/new".into()));
        assert_eq!((errno, message.starts_with("/new: no space left")), (28, true), "{message}");
        assert_eq!(error(guest.upload(&FileIn::Path("/nonexistent".into()), "/f".into())).0, 2);
        assert_eq!(error(guest.upload_offset(&file, "/f".into(), -1)).1, "offset is negative: -1");
        assert_eq!(guest.read("/f").unwrap(), b"old");
    }

    #[test] // An error of the host half-way is told with the host's file.
    fn a_stream_that_breaks_is_named() {
        struct Broken(u8);
        impl Read for Broken {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 2 { Err(io::Error::other("the cable was cut")) } else { Ok(buf.len()) }
            }
        }
        let mut guest = MemoryFs::new().guest();
        guest.set_input(Box::new(Broken(0)));
        let broken = guest.upload(&FileIn::Input, "/f".into()).unwrap_err();
        assert_eq!(broken.to_string(), "standard input: cannot read: the cable was cut");
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        let dir = testkit::tempdir();
        let mut guest = MemoryFs::new().guest();
        guest.base64_in(&host_file(&dir, b"aGVs\nbG8K\n\n"), "/f".into()).unwrap();
        assert_eq!(guest.read("/f").unwrap(), b"hello\n");
        let long: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(dir.path().join("plain"), &long).unwrap();
        let encoded = testkit::run_ok("base64", [dir.path().join("plain")]);
        guest.base64_in(&host_file(&dir, encoded.as_bytes()), "/f".into()).unwrap();
        assert!(guest.read("/f").unwrap() == long);
        for bad in [&b"!!!"[..], b"aGVsbG8", b"aGVsbG8K=x"] {
            let refused = guest.base64_in(&host_file(&dir, bad), "/f".into()).unwrap_err();
            assert!(refused.to_string().contains("file: cannot read: "), "{refused}");
        }
    }

    #[test] // Sizes are those that libguestfs 1.48 left.
    fn ranges_are_copied() {
        let mut guest = MemoryFs::new().file("/w", "0123456789").guest();
        run(&mut guest, "copy-file-to-file /w /c\ncopy-file-to-file /w /d srcoffset:2 destoffset:3 size:5");
        assert_eq!(guest.read("/c").unwrap(), b"0123456789");
        assert_eq!(guest.read("/d").unwrap(), b"\0\0\x0023456");
        run(&mut guest, "copy-file-to-file /w /d size:3 append:true\ncopy-size /w /e 4\ndd /w /g");
        assert_eq!(guest.read("/d").unwrap(), b"\0\0\x0023456012");
        assert_eq!((guest.read("/e").unwrap(), guest.read("/g").unwrap().len()), (b"0123".to_vec(), 10));
        run(&mut guest, "fill 0 100000 /zeros\ncopy-file-to-file /zeros /sparse sparse:true");
        let sparse = guest.resolve("/sparse".into()).unwrap().metadata().unwrap();
        assert_eq!((sparse.size_bytes, sparse.blocks_512), (100_000, 0));
        for (line, message) in [
            (
                "copy-file-to-file /w /c size:11",
                "/w: input too short: 11 bytes from byte 0 are not within its 10 bytes",
            ),
            ("copy-file-to-file /w /c srcoffset:11", "/w: srcoffset 11 is beyond its 10 bytes"),
            ("copy-file-to-file /w /c srcoffset:-1", "srcoffset is negative: -1"),
            ("copy-file-to-file /w /w append:true", "/w and /w are the same file"),
            ("copy-file-to-file /none /c", "/none: no such file or directory"),
        ] {
            assert_eq!(refusal(&mut guest, line), message, "{line}");
        }
        assert_eq!(guest.read("/c").unwrap(), b"0123456789");
        assert_eq!(call(&mut guest, "copy-file-to-device /w /dev/sda append:true").unwrap_err().errno(), 22);
    }
}
