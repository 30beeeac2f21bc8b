//! Reading tar archives: v7, `ustar`, pax and GNU tar's own format, with all of its sparse files.

use bstr::{BString, ByteSlice};
use vmcraft_fs::{DeviceNumber, FileType, Timestamp};

use crate::content::{Run, STEP_BYTES};
use crate::decompress::Kind as Decompression;
use crate::host::{Host, Source};
use crate::unpack::extract::{Extractor, UnpackOptions};
use crate::unpack::member::{Kind, Member};
use crate::unpack::pax::Records;
use crate::unpack::sparse::Map;
use crate::unpack::stream::{DRAIN_BYTES, Stream};
use crate::unpack::tar_header::{BLOCK_BYTES, Field, Header, more_sparse};
use crate::vfs::{Node, Vfs};
use crate::{Error, Progress, Result};

/// The longest name of a member in GNU's format, and the most bytes of records in front of one.
const NAME_BYTES: usize = 64 * 1024;
const RECORDS_BYTES: usize = 16 << 20;

/// Unpacks an archive into the directory `start`.
///
/// `compression` is the one that the user named; without, it is recognised.
pub(crate) fn tar_in(
    vfs: &Vfs,
    host: &mut Host,
    warnings: &mut Vec<String>,
    source: &mut Source,
    compression: Option<Decompression>,
    start: Node,
    options: UnpackOptions,
) -> Result<()> {
    let (stream, total) = Stream::open(source, compression)?;
    let total = total.unwrap_or(0);
    let mut archive = Archive { stream, content: None, members: 0, global: Records::default() };
    let mut extractor = Extractor::new(vfs, warnings, start, options)?;
    let mut buf = vec![0; STEP_BYTES];
    let mut reported = 0;
    while let Some(member) = archive.next()? {
        let mut file = extractor.add(&member, &archive.stream)?;
        while let Some(run) = archive.read(&mut buf)? {
            if let Some(file) = &mut file {
                file.put(run)?;
            }
            let position = archive.stream.position();
            if position - reported >= STEP_BYTES as u64 {
                reported = position;
                host.step(Progress { position, total })?;
            }
        }
        if let Some(file) = file {
            extractor.finish_file(&member, file)?;
        }
        host.check_cancelled()?;
    }
    extractor.finish()
}

/// An archive that is being read.
struct Archive<'r> {
    stream: Stream<'r>,
    /// What is left of the content of the member that was shown last.
    content: Option<Content>,
    members: u64,
    /// What a global header says of all members after it.
    global: Records,
}

/// The content of a regular file that was not read yet.
struct Content {
    /// Runs of data, the next one last.
    runs: Vec<(u64, u64)>,
    /// Where the file's next byte is.
    at: u64,
    size: u64,
}

impl Archive<'_> {
    /// The next member; what is left of the content of the one before is skipped.
    fn next(&mut self) -> Result<Option<Member>> {
        let mut skipped = [0; BLOCK_BYTES];
        while self.read(&mut skipped)?.is_some() {}
        let mut records = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let mut block = [0; BLOCK_BYTES];
            let n = self.stream.read(&mut block)?;
            // An archive ends with blocks of zeros; some programs leave them out.
            if n == 0 || (n == BLOCK_BYTES && block == [0; BLOCK_BYTES]) {
                if self.members == 0 && n == 0 {
                    return Err(self.stream.corrupt("this is not a tar archive: it is empty"));
                }
                self.stream.drain(DRAIN_BYTES)?;
                return Ok(None);
            }
            if n < BLOCK_BYTES {
                return Err(match self.members {
                    0 => self.stream.corrupt("this is not a tar archive"),
                    _ => self.stream.corrupt("the archive ends in the middle"),
                });
            }
            let header = Header::decode(block).ok_or_else(|| match self.members {
                0 => self.stream.corrupt("this is not a tar archive"),
                _ => self.stream.corrupt("a member's header has a wrong checksum"),
            })?;
            self.members += 1;
            let size = self.unsigned(&header, Field::SIZE, "size")?;
            match header.typeflag() {
                b'L' => long_name = Some(self.long_name(size)?),
                b'K' => long_link = Some(self.long_name(size)?),
                b'x' | b'X' => {
                    let bytes = self.stream.read_vec(size, RECORDS_BYTES, "a pax header")?;
                    records.add(&bytes).ok_or_else(|| self.stream.corrupt("a pax header is damaged"))?;
                    self.stream.align(BLOCK_BYTES as u64)?;
                }
                b'g' => {
                    let bytes = self.stream.read_vec(size, RECORDS_BYTES, "a pax header")?;
                    self.global.add(&bytes).ok_or_else(|| self.stream.corrupt("a pax header is damaged"))?;
                    records = self.global.clone();
                    self.stream.align(BLOCK_BYTES as u64)?;
                }
                // A volume's label.
                b'V' => {
                    self.stream.skip(size)?;
                    self.stream.align(BLOCK_BYTES as u64)?;
                }
                b'M' => return Err(Error::Unsupported("tar archives of several volumes".into())),
                b'N' => {
                    return Err(Error::Unsupported("tar archives with names in a table at the end".into()));
                }
                _ => return self.member(&header, size, records, long_name, long_link).map(Some),
            }
        }
    }

    /// The content of a member that is the name of the next one.
    fn long_name(&mut self, size: u64) -> Result<BString> {
        let mut name = self.stream.read_vec(size, NAME_BYTES, "a name")?;
        self.stream.align(BLOCK_BYTES as u64)?;
        name.truncate(name.find_byte(0).unwrap_or(name.len()));
        Ok(name.into())
    }

    fn unsigned(&self, header: &Header, field: Field, what: &str) -> Result<u64> {
        let number = header.number(field).and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| {
            self.stream.corrupt(format_args!("member {}: its {what} is no number", header.name()))
        })
    }

    fn member(
        &mut self,
        header: &Header,
        header_size: u64,
        records: Records,
        long_name: Option<BString>,
        long_link: Option<BString>,
    ) -> Result<Member> {
        let sparse = &records.sparse;
        let name = sparse.name.clone().or(records.path).or(long_name).unwrap_or_else(|| header.name());
        let link = || records.link_path.clone().or(long_link).unwrap_or_else(|| header.link_name());
        let wrong = |what: &str| self.stream.corrupt(format_args!("member {name}: {what}"));
        let id = |record: Option<u64>, field, what| {
            let number = record.map_or_else(|| self.unsigned(header, field, what), Ok)?;
            u32::try_from(number).map_err(|_| wrong(&format!("its {what} {number} is too large")))
        };
        let device = |record: Option<u64>, field| {
            record.map_or_else(|| self.unsigned(header, field, "device number"), Ok)
        };
        let mut size = records.size.unwrap_or(header_size);
        let special = |file_type| -> Result<Kind> {
            let number =
                |number: u64| u32::try_from(number).map_err(|_| wrong("its device number is too large"));
            let device = match file_type {
                FileType::Fifo => DeviceNumber::default(),
                _ => DeviceNumber {
                    major: number(device(records.device_major, Field::DEVMAJOR)?)?,
                    minor: number(device(records.device_minor, Field::DEVMINOR)?)?,
                },
            };
            Ok(Kind::Special(file_type, device))
        };
        let kind = match header.typeflag() {
            b'1' => {
                // What stands there is how large the file is that it leads to.
                size = 0;
                Kind::HardLink(link())
            }
            b'2' => Kind::Symlink(link()),
            b'3' => special(FileType::CharDevice)?,
            b'4' => special(FileType::BlockDevice)?,
            b'5' | b'D' => Kind::Directory,
            b'6' => special(FileType::Fifo)?,
            // In the oldest format a slash is all that makes a directory.
            0 | b'0' if name.ends_with(b"/") => Kind::Directory,
            // A type that is not known is a file to whoever does not know it.
            _ => Kind::File,
        };
        let mode = self.unsigned(header, Field::MODE, "mode")?;
        let seconds = header.number(Field::MTIME).and_then(|seconds| i64::try_from(seconds).ok());
        let modified = match (records.modified, seconds) {
            (Some(modified), _) => modified,
            (None, Some(seconds)) => Timestamp { seconds, nanoseconds: 0 },
            (None, None) => return Err(wrong("its time is no number")),
        };
        let member = Member {
            kind,
            permissions: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: id(records.uid, Field::UID, "owner")?,
            gid: id(records.gid, Field::GID, "group")?,
            modified,
            accessed: records.accessed,
            xattrs: with_selinux(records.xattrs, records.selinux),
            acl: records.acl,
            default_acl: records.default_acl,
            name,
        };
        let (map, file_size) = self.map(header, &member, &records.sparse, &mut size)?;
        let mut runs = map.map_or_else(|| vec![(0, size)], |map| map.runs().to_vec());
        runs.reverse();
        self.content = Some(Content { runs, at: 0, size: file_size });
        Ok(member)
    }

    /// The map of a sparse file, and its size with holes. `size` is how much of the archive its content
    /// takes; afterwards, how much the data does.
    fn map(
        &mut self,
        header: &Header,
        member: &Member,
        sparse: &crate::unpack::pax::SparseRecords,
        size: &mut u64,
    ) -> Result<(Option<Map>, u64)> {
        let name = &member.name;
        let map = if header.typeflag() == b'S' {
            let mut map = Map::default();
            let mut goes_on = header.sparse(&mut map);
            while goes_on == Some(true) {
                let mut block = [0; BLOCK_BYTES];
                self.stream.read_exact(&mut block)?;
                goes_on = more_sparse(&block, &mut map);
            }
            goes_on.ok_or_else(|| self.stream.corrupt(format_args!("member {name}: its map is damaged")))?;
            map
        } else {
            match (sparse.major, sparse.minor, &sparse.map) {
                (Some(1), Some(0), _) => {
                    let (map, len) = Map::read(&mut self.stream)?;
                    *size = size.checked_sub(len).ok_or_else(|| {
                        self.stream.corrupt(format_args!("member {name}: its map is longer than its content"))
                    })?;
                    map
                }
                (None | Some(0), _, Some(map)) => map.clone(),
                (None | Some(0), _, None) => return Ok((None, *size)),
                (Some(major), _, _) => {
                    return Err(Error::Unsupported(format!("sparse files of GNU tar's format {major}")));
                }
            }
        };
        let real = match sparse.size {
            Some(size) => size,
            None if header.typeflag() == b'S' => self.unsigned(header, Field::REAL_SIZE, "size")?,
            None => map.end(),
        };
        if map.end() > real || map.data_bytes() != *size {
            return Err(self.stream.corrupt(format_args!("member {name}: its map and its size do not fit")));
        }
        Ok((Some(map), real))
    }

    /// The next piece of the content of the member that was shown last; its data is in `buf`.
    fn read<'b>(&mut self, buf: &'b mut [u8]) -> Result<Option<Run<'b>>> {
        let Some(content) = &mut self.content else { return Ok(None) };
        while content.runs.last().is_some_and(|(_, len)| *len == 0) {
            content.runs.pop();
        }
        match content.runs.last_mut() {
            Some((start, _)) if *start > content.at => {
                let len = *start - content.at;
                content.at = *start;
                Ok(Some(Run::Hole(len)))
            }
            Some((start, len)) => {
                let step = usize::try_from(*len).map_or(buf.len(), |left| left.min(buf.len()));
                self.stream.read_exact(&mut buf[..step])?;
                (*start, *len) = (*start + step as u64, *len - step as u64);
                content.at = *start;
                Ok(Some(Run::Data(&buf[..step])))
            }
            None if content.at < content.size => {
                let len = content.size - content.at;
                content.at = content.size;
                Ok(Some(Run::Hole(len)))
            }
            None => {
                self.content = None;
                self.stream.align(BLOCK_BYTES as u64)?;
                Ok(None)
            }
        }
    }
}

/// The attributes, with the context among them.
fn with_selinux(mut xattrs: Vec<(BString, Vec<u8>)>, context: Option<Vec<u8>>) -> Vec<(BString, Vec<u8>)> {
    if let Some(mut context) = context {
        xattrs.retain(|(name, _)| name != "security.selinux");
        context.push(0);
        xattrs.push(("security.selinux".into(), context));
    }
    xattrs
}
