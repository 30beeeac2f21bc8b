//! Reading cpio archives: `newc`, in which initramfs images are too, `crc` with checksums, and the
//! portable format of POSIX, `odc`.
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`; POSIX.1-2017, `pax` utility,
//! "cpio Interchange Format".

use std::collections::HashMap;

use bstr::{BString, ByteSlice};
use vmcraft_fs::{DeviceNumber, FileType, InodeNumber, Timestamp};

use crate::content::{Run, STEP_BYTES};
use crate::host::{Host, Source};
use crate::unpack::extract::{Extractor, File, UnpackOptions};
use crate::unpack::member::{Kind, Member};
use crate::unpack::stream::{DRAIN_BYTES, Stream};
use crate::vfs::{MountId, Node, Vfs};
use crate::{Error, Progress, Result};

/// The most bytes of a member's name, and of where a symbolic link leads.
const NAME_BYTES: usize = 1 << 20;
const TARGET_BYTES: usize = 64 * 1024;

/// The most bytes of names that are remembered for files with several names.
const REMEMBERED_BYTES: usize = 64 << 20;

/// The member behind the last one.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Unpacks an archive into the directory `start`. Its compression is recognised.
pub(crate) fn cpio_in(
    vfs: &Vfs,
    host: &mut Host,
    warnings: &mut Vec<String>,
    source: &mut Source,
    start: Node,
) -> Result<()> {
    let (stream, total) = Stream::open(source, None)?;
    let total = total.unwrap_or(0);
    let mut archive = Archive { stream, members: 0 };
    let mut extractor = Extractor::new(vfs, warnings, start, UnpackOptions::default())?;
    let mut linked = Linked::default();
    let mut buf = vec![0; STEP_BYTES];
    let mut reported = 0;
    while let Some(header) = archive.next()? {
        let member = archive.member(&header)?;
        let stream = &archive.stream;
        let is_linked = member.kind == Kind::File && header.links > 1;
        let file = match linked.files.get(&header.identity).filter(|_| is_linked) {
            Some(first) => {
                let member = Member { kind: Kind::HardLink(first.name.clone()), ..member.clone() };
                extractor.add_name(&member, first.place, stream)?.filter(|_| header.size > 0)
            }
            None => extractor.add(&member, stream)?,
        };
        if let (true, Some(file)) = (is_linked, &file) {
            linked.remember(header.identity, &member.name, file, stream)?;
        }
        if let Some(mut file) = file {
            file.empty()?;
            let mut sum = 0u32;
            let mut left = header.size;
            while left > 0 {
                let step = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                archive.stream.read_exact(&mut buf[..step])?;
                if header.format == Format::Crc {
                    sum = buf[..step].iter().fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
                }
                file.put(Run::Data(&buf[..step]))?;
                left -= step as u64;
                let position = archive.stream.position();
                if position - reported >= STEP_BYTES as u64 {
                    reported = position;
                    host.step(Progress { position, total })?;
                }
            }
            if header.format == Format::Crc && header.size > 0 && sum != header.sum {
                let name = &member.name;
                return Err(archive.stream.corrupt(format_args!("member {name}: its checksum is wrong")));
            }
            extractor.finish_file(&member, file)?;
        } else if matches!(member.kind, Kind::Directory | Kind::Special(..)) {
            archive.stream.skip(header.size)?;
        }
        archive.pad(header.format)?;
        host.check_cancelled()?;
    }
    extractor.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Newc,
    Crc,
    Odc,
}

/// A device and an inode of the machine where the archive was made.
type Identity = ([u32; 2], u32);

/// A member's header, with its name.
struct Header {
    format: Format,
    identity: Identity,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    modified: i64,
    device: DeviceNumber,
    size: u64,
    sum: u32,
    name: BString,
}

/// Files with several names, by what the archive knows them as.
#[derive(Default)]
struct Linked {
    files: HashMap<Identity, First>,
    bytes: usize,
}

/// The first name of a file, and what was made for it.
struct First {
    name: BString,
    place: (MountId, InodeNumber),
}

impl Linked {
    fn remember(
        &mut self,
        identity: Identity,
        name: &BString,
        file: &File,
        stream: &Stream<'_>,
    ) -> Result<()> {
        if self.files.contains_key(&identity) {
            return Ok(());
        }
        self.bytes += name.len() + size_of::<(Identity, First)>();
        if self.bytes > REMEMBERED_BYTES {
            return Err(
                stream.corrupt(format_args!("member {name}: there are too many files with several names"))
            );
        }
        self.files.insert(identity, First { name: name.clone(), place: file.place() });
        Ok(())
    }
}

/// An archive that is being read.
struct Archive<'r> {
    stream: Stream<'r>,
    members: u64,
}

impl Archive<'_> {
    /// The next header; `None` at the end.
    fn next(&mut self) -> Result<Option<Header>> {
        let mut magic = [0; 6];
        if self.stream.read(&mut magic)? < magic.len() {
            return Err(match self.members {
                0 => self.stream.corrupt("this is not a cpio archive"),
                _ => self.stream.corrupt("the archive ends in the middle"),
            });
        }
        let header = match &magic {
            b"070701" => self.new_header(Format::Newc)?,
            b"070702" => self.new_header(Format::Crc)?,
            b"070707" => self.old_header()?,
            [0xc7, 0x71, ..] | [0x71, 0xc7, ..] => {
                return Err(Error::Unsupported(
                    "cpio archives in the old binary format: make it with `cpio -o -H newc`".into(),
                ));
            }
            _ if self.members == 0 => return Err(self.stream.corrupt("this is not a cpio archive")),
            _ => return Err(self.stream.corrupt("a member's header is damaged")),
        };
        self.members += 1;
        if header.name == TRAILER {
            self.stream.drain(DRAIN_BYTES)?;
            return Ok(None);
        }
        Ok(Some(header))
    }

    /// The header of `newc` and `crc`: numbers of 8 hexadecimal digits.
    fn new_header(&mut self, format: Format) -> Result<Header> {
        let mut text = [0; 13 * 8];
        self.stream.read_exact(&mut text)?;
        let mut fields = [0u32; 13];
        for (field, digits) in fields.iter_mut().zip(text.chunks_exact(8)) {
            let value = number(digits, 16).and_then(|value| u32::try_from(value).ok());
            *field = value.ok_or_else(|| self.damaged())?;
        }
        let [inode, mode, uid, gid, links, modified, size, dev_major, dev_minor, major, minor, name_len, sum] =
            fields;
        let name = self.name(name_len.into())?;
        self.pad(format)?;
        Ok(Header {
            format,
            identity: ([dev_major, dev_minor], inode),
            mode,
            uid,
            gid,
            links,
            modified: modified.into(),
            device: DeviceNumber { major, minor },
            size: size.into(),
            sum,
            name,
        })
    }

    /// The header of `odc`: numbers of 6 octal digits, and two of 11.
    fn old_header(&mut self) -> Result<Header> {
        let mut text = [0; 70];
        self.stream.read_exact(&mut text)?;
        let mut rest = &text[..];
        let mut field = |len: usize| {
            let (digits, behind) = rest.split_at(len);
            rest = behind;
            number(digits, 8).ok_or_else(|| self.damaged())
        };
        let mut small = || field(6).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        let (device, inode, mode, uid, gid, links, rdev) =
            (small()?, small()?, small()?, small()?, small()?, small()?, small()?);
        let modified = field(11)?;
        let name_len = field(6)?;
        let size = field(11)?;
        Ok(Header {
            format: Format::Odc,
            identity: ([device, 0], inode),
            mode,
            uid,
            gid,
            links,
            // At most 33 bits.
            modified: i64::try_from(modified).unwrap_or(i64::MAX),
            device: DeviceNumber { major: rdev >> 8, minor: rdev & 0xff },
            size,
            sum: 0,
            name: self.name(name_len)?,
        })
    }

    /// A name of so many bytes with its NUL.
    fn name(&mut self, len: u64) -> Result<BString> {
        let mut name = self.stream.read_vec(len, NAME_BYTES, "a name")?;
        if name.pop() != Some(0) {
            return Err(self.damaged());
        }
        Ok(name.into())
    }

    /// What a header says is to be made. Reads where a symbolic link leads.
    fn member(&mut self, header: &Header) -> Result<Member> {
        let name = header.name.clone();
        let kind = match FileType::from_mode(header.mode) {
            FileType::Regular => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = self.stream.read_vec(header.size, TARGET_BYTES, "a symbolic link's target")?;
                if target.contains(&0) {
                    return Err(self
                        .stream
                        .corrupt(format_args!("member {name}: it is a symbolic link with a NUL byte")));
                }
                Kind::Symlink(target.into())
            }
            FileType::Unknown => {
                let what = format_args!("member {name}: its mode {:o} is of no type", header.mode);
                return Err(self.stream.corrupt(what));
            }
            other => Kind::Special(other, header.device),
        };
        Ok(Member {
            name,
            kind,
            permissions: header.mode & 0o7777,
            uid: header.uid,
            gid: header.gid,
            modified: Timestamp { seconds: header.modified, nanoseconds: 0 },
            accessed: None,
            xattrs: Vec::new(),
            acl: None,
            default_acl: None,
        })
    }

    /// Names and contents are filled up to 4 bytes, but for `odc`.
    fn pad(&mut self, format: Format) -> Result<()> {
        if format == Format::Odc { Ok(()) } else { self.stream.align(4) }
    }

    fn damaged(&self) -> Error {
        self.stream.corrupt("a member's header is damaged")
    }
}

/// The number that these digits are, all of which must be.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let text = digits.to_str().ok().filter(|_| digits.iter().all(is_digit))?;
    u64::from_str_radix(text, radix).ok()
}
