//! Checksums and comparison.

use bstr::{BStr, BString, ByteSlice};
use crc::{CRC_32_CKSUM, Crc, Digest, Table};
use sha2::digest::DynDigest;
use vmcraft_fs::FileType;
use vmcraft_macros::api;

use crate::content::{Content, STEP_BYTES};
use crate::value::FileOut;
use crate::walk::Walk;
use crate::{DeviceName, Error, Guest, GuestPath, Progress, Result};

/// The CRC of POSIX's `cksum`, 16 bytes a step.
static CKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_CKSUM);

/// How much of a list is collected before it is written.
const LIST_BYTES: usize = 64 * 1024;

#[api(area = "checksums")]
impl Guest {
    /// Compute a checksum of a file
    ///
    /// `csumtype` is `crc` (the CRC of POSIX's `cksum`, in decimal), `md5`, `sha1`, `sha224`,
    /// `sha256`, `sha384` or `sha512` (in hexadecimal, as `sha256sum` and its kin print it).
    ///
    /// ```guestfish
    /// checksum sha256 /etc/passwd
    /// ```
    pub fn checksum(&mut self, csumtype: &str, path: &GuestPath) -> Result<String> {
        let hasher = Hasher::new(csumtype)?;
        let content = Content::of_file(self.resolve(path)?)?;
        self.hash(hasher, &content)
    }

    /// Compute a checksum of a device
    ///
    /// All of the device is read. `csumtype` is as for `checksum`.
    ///
    /// ```guestfish
    /// checksum-device md5 /dev/sda1
    /// ```
    pub fn checksum_device(&mut self, csumtype: &str, device: &DeviceName) -> Result<String> {
        let hasher = Hasher::new(csumtype)?;
        let (name, device) = self.open_device(device)?;
        self.hash(hasher, &Content::of_device(name, device))
    }

    /// Compute the checksums of all files in a directory
    ///
    /// Writes a line for each regular file below `directory` to the host's file `sumsfile`, in the
    /// form that `sha256sum -c` and its kin read, with paths relative to `directory` that begin with
    /// `./`. As these programs do, a line whose path has a backslash, a newline or a carriage return
    /// begins with a backslash and has the path escaped. For `crc` the lines are as `cksum` prints
    /// them. Directories are listed in the order of their inode numbers.
    ///
    /// ```guestfish
    /// checksums-out sha256 /etc etc.sha256
    /// ```
    pub fn checksums_out(&mut self, csumtype: &str, directory: &GuestPath, sumsfile: &FileOut) -> Result<()> {
        let hasher = Hasher::new(csumtype)?;
        let start = self.resolve(directory)?;
        if !start.metadata()?.is_dir() {
            return Err(start.error(vmcraft_fs::Error::NotADirectory));
        }
        let Self { vfs, host, .. } = self;
        host.write_to(sumsfile, |host, sink| {
            let mut walk = Walk::new(vfs, start);
            let mut lines = Vec::new();
            let mut done = 0;
            while let Some(entry) = walk.next()? {
                if entry.metadata.file_type != FileType::Regular {
                    continue;
                }
                let content = Content::of_file(entry.node())?;
                let mut hasher = hasher.fresh();
                content.read_all(
                    &mut |position| host.step(Progress { position: done + position, total: 0 }),
                    |data| {
                        hasher.update(data);
                        Ok(())
                    },
                )?;
                done = done.saturating_add(content.size_bytes());
                hasher.write_line(entry.path, content.size_bytes(), &mut lines);
                if lines.len() >= LIST_BYTES {
                    sink.put(&lines)?;
                    lines.clear();
                }
            }
            sink.put(&lines)
        })
    }

    /// Say whether two files have the same content
    ///
    /// ```guestfish
    /// equal /etc/passwd /etc/passwd-
    /// ```
    pub fn equal(&mut self, file1: &GuestPath, file2: &GuestPath) -> Result<bool> {
        let (first, second) =
            (Content::of_file(self.resolve(file1)?)?, Content::of_file(self.resolve(file2)?)?);
        let total = first.size_bytes();
        if total != second.size_bytes() {
            return Ok(false);
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut position = 0;
        while position < total {
            let step = usize::try_from(total - position).map_or(STEP_BYTES, |rest| rest.min(STEP_BYTES));
            left.resize(step, 0);
            right.resize(step, 0);
            first.read_exact(position, &mut left)?;
            second.read_exact(position, &mut right)?;
            if left != right {
                return Ok(false);
            }
            position += step as u64;
            self.host.step(Progress { position, total })?;
        }
        Ok(true)
    }
}

impl Guest {
    fn hash(&mut self, mut hasher: Hasher, content: &Content) -> Result<String> {
        let host = &mut self.host;
        let total = content.size_bytes();
        content.read_all(&mut |position| host.step(Progress { position, total }), |data| {
            hasher.update(data);
            Ok(())
        })?;
        Ok(hasher.finish(total))
    }
}

/// A checksum under way.
enum Hasher {
    /// POSIX's CRC, which ends with the length.
    Cksum(Digest<'static, u32, Table<16>>),
    Hash(Box<dyn DynDigest>),
}

impl Hasher {
    fn new(csumtype: &str) -> Result<Self> {
        Ok(Self::Hash(match csumtype {
            "crc" => return Ok(Self::Cksum(CKSUM.digest())),
            "md5" => Box::new(md5::Md5::default()),
            "sha1" => Box::new(sha1::Sha1::default()),
            "sha224" => Box::new(sha2::Sha224::default()),
            "sha256" => Box::new(sha2::Sha256::default()),
            "sha384" => Box::new(sha2::Sha384::default()),
            "sha512" => Box::new(sha2::Sha512::default()),
            "gost" | "gost12" => {
                return Err(Error::Unsupported(format!(
                    "the checksum type {csumtype}; use crc, md5, sha1, sha224, sha256, sha384 or sha512"
                )));
            }
            _ => {
                return Err(Error::Usage(format!(
                    "{csumtype:?} is not a checksum type: use crc, md5, sha1, sha224, sha256, sha384 or sha512"
                )));
            }
        }))
    }

    /// Another one of the same kind.
    fn fresh(&self) -> Self {
        match self {
            Self::Cksum(_) => Self::Cksum(CKSUM.digest()),
            Self::Hash(hash) => Self::Hash(hash.box_clone()),
        }
    }

    fn update(&mut self, data: &[u8]) {
        match self {
            Self::Cksum(crc) => crc.update(data),
            Self::Hash(hash) => hash.update(data),
        }
    }

    /// The checksum of what was given, which had `len` bytes.
    fn finish(self, len: u64) -> String {
        match self {
            Self::Cksum(mut crc) => {
                // The length follows, its lowest byte first and without leading zeros.
                let bytes = len.to_le_bytes();
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                crc.update(&bytes[..used]);
                crc.finalize().to_string()
            }
            Self::Hash(hash) => hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The checksum as a line of a list.
    fn write_line(self, path: &BStr, len: u64, lines: &mut Vec<u8>) {
        let is_cksum = matches!(self, Self::Cksum(_));
        let sum = self.finish(len);
        let mut name = BString::from("./");
        name.extend_from_slice(path);
        if is_cksum {
            lines.extend_from_slice(format!("{sum} {len} ").as_bytes());
        } else {
            if name.find_byteset(b"\\\n\r").is_some() {
                lines.push(b'\\');
                name = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").into();
            }
            lines.extend_from_slice(sum.as_bytes());
            lines.extend_from_slice(b"  ");
        }
        lines.extend_from_slice(&name);
        lines.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;

    const TYPES: [(&str, &str); 7] = [
        ("crc", "cksum"),
        ("md5", "md5sum"),
        ("sha1", "sha1sum"),
        ("sha224", "sha224sum"),
        ("sha256", "sha256sum"),
        ("sha384", "sha384sum"),
        ("sha512", "sha512sum"),
    ];

    fn guest(tree: MemoryFs) -> Guest {
        let mut guest = Guest::new();
        guest.vfs = Vfs::with_root("/dev/sda1", std::sync::Arc::new(tree));
        guest
    }

    #[test] // Oracle: coreutils. The lengths are around where `cksum` appends another byte of the length.
    fn checksums_are_those_of_coreutils() {
        let dir = testkit::tempdir();
        let file = dir.path().join("file");
        for len in [0, 1, 255, 256, 65535, 65536, STEP_BYTES + 3] {
            let content: Vec<u8> = (0..=250).cycle().step_by(7).take(len).collect();
            fs::write(&file, &content).unwrap();
            let mut guest = guest(MemoryFs::new().file("/f", &content));
            for (csumtype, program) in TYPES {
                let expected = testkit::run_ok(program, [&file]);
                let expected = expected.split_whitespace().next().unwrap();
                assert_eq!(
                    guest.checksum(csumtype, "/f".into()).unwrap(),
                    expected,
                    "{program} of {len} bytes"
                );
            }
        }
    }

    #[test] // Oracle: coreutils, on the same tree; the names are those that it escapes.
    fn lists_are_those_of_coreutils() {
        let dir = testkit::tempdir();
        let names = ["plain", "sub/with space", "new\nline", "back\\slash", "return\r"];
        let mut tree = MemoryFs::new().symlink("/link", "plain").dir("/empty");
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in names {
            fs::write(dir.path().join(name), name).unwrap();
            tree = tree.file(&format!("/{name}"), name);
        }
        let mut guest = guest(tree);
        let out = testkit::tempdir();
        let out = out.path().join("sums");
        for (csumtype, program) in TYPES {
            guest.checksums_out(csumtype, "/".into(), &FileOut::Path(out.clone())).unwrap();
            let sorted = |list: &[u8]| {
                let mut lines: Vec<_> = list.lines_with_terminator().map(BString::from).collect();
                lines.sort();
                lines
            };
            let ours = fs::read(&out).unwrap();
            let mut theirs = String::new();
            for name in names {
                let shell = format!("cd \"$1\" && exec {program} \"./$2\"");
                let arguments = ["-c", &shell, "sh", &dir.path().to_string_lossy(), name].map(str::to_owned);
                theirs += &testkit::run_ok("sh", arguments);
            }
            assert_eq!(sorted(&ours), sorted(theirs.as_bytes()), "{program}");
        }
        assert!(Path::new(&out).exists());
        let not_a_dir = guest.checksums_out("md5", "/plain".into(), &FileOut::Path(out)).unwrap_err();
        assert_eq!(not_a_dir.to_string(), "/plain: not a directory");
    }

    #[test]
    fn types_we_do_not_have_are_named() {
        let mut guest = guest(MemoryFs::new().file("/f", ""));
        for (csumtype, errno) in [("gost12", 95), ("gost", 95), ("sha3", 22)] {
            let refused = guest.checksum(csumtype, "/f".into()).unwrap_err();
            assert!(refused.to_string().contains(csumtype), "{refused}");
            assert_eq!(refused.errno(), errno);
        }
    }

    #[test]
    fn equal_compares_the_whole_content() {
        let long = vec![1; STEP_BYTES + 1];
        let mut other = long.clone();
        other[STEP_BYTES] = 2;
        let mut guest = guest(
            MemoryFs::new()
                .file("/a", &long)
                .file("/same", &long)
                .file("/end-differs", &other)
                .file("/shorter", &long[..STEP_BYTES])
                .dir("/dir"),
        );
        assert!(guest.equal("/a".into(), "/same".into()).unwrap());
        assert!(!guest.equal("/a".into(), "/end-differs".into()).unwrap());
        assert!(!guest.equal("/a".into(), "/shorter".into()).unwrap());
        assert_eq!(guest.equal("/a".into(), "/dir".into()).unwrap_err().to_string(), "/dir: is a directory");
    }
}
