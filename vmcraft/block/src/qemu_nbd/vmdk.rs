//! What a VMDK image says of other files: its extents and its parent.
//!
//! QEMU would open them by their names as it reads a descriptor. It gets no such descriptor: of an
//! image of several files we write one of our own, which names only files that the gate let through.
//! Of an image that is one file QEMU reads no names but its parent's, and that is given to it
//! explicitly.
//!
//! Spec: VMware's Virtual Disk Format 5.0 (technical note). All numbers are little-endian.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::storage::{Storage, read_exact_at};
use crate::{Error, Result};

const SECTOR: u64 = 512;
/// The longest descriptor that is read; with thousands of extents it has less.
const MAX_DESCRIPTOR: u64 = 1 << 20;
/// The most extents that an image may have: QEMU has a file open for each.
const MAX_EXTENTS: usize = 512;
/// The longest extent name that QEMU reads.
const MAX_NAME: usize = 511;
/// The `parentCID` of an image that has no parent.
const NO_PARENT: u32 = u32::MAX;
/// The start of a sparse extent of old ESX servers.
const ESX_MAGIC: &[u8] = b"COWD";
/// The start of a descriptor that is a file of its own.
const DESCRIPTOR_MAGIC: &[u8] = b"# Disk DescriptorFile";

/// The kinds of image whose extents are files, and which QEMU reads.
const CREATE_TYPES: &[&str] =
    &["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse", "vmfs", "vmfsSparse", "seSparse"];
/// The kinds of extent that QEMU reads.
const EXTENT_KINDS: &[&str] = &["FLAT", "SPARSE", "VMFS", "VMFSSPARSE", "SESPARSE"];

/// The start of a sparse extent that VMware calls hosted.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSparseHeader {
    /// Always `KDMV`.
    magic: [u8; 4],
    version: U32,
    flags: U32,
    /// 0x0c: in sectors.
    capacity: U64,
    grain_size: U64,
    /// 0x1c: where the embedded descriptor begins, in sectors; 0 if there is none.
    descriptor_offset: U64,
    /// 0x24: in sectors.
    descriptor_size: U64,
}
const _: () = assert!(size_of::<RawSparseHeader>() == 0x2c);

/// What an image needs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Vmdk {
    /// The extents, each a file; `None` if the image is one file.
    pub(crate) extents: Option<Vec<Extent>>,
    /// The parent's name.
    pub(crate) parent: Option<String>,
    cid: u32,
    parent_cid: u32,
    create_type: String,
}

/// A part of the disk that is a file.
#[derive(Debug, PartialEq)]
pub(crate) struct Extent {
    /// The file's name as the descriptor has it.
    pub(crate) name: String,
    sectors: u64,
    kind: String,
    /// Where in the file it begins, in sectors.
    offset: Option<u64>,
}

impl Vmdk {
    /// Reads what an image says of other files.
    pub(crate) fn read(image: &str, storage: &dyn Storage) -> Result<Self> {
        let io = |source| Error::Io { image: image.to_owned(), doing: "cannot read", source };
        let mut start = [0; DESCRIPTOR_MAGIC.len()];
        let read = storage.read_at(0, &mut start).map_err(io)?;
        if start[..read].eq_ignore_ascii_case(DESCRIPTOR_MAGIC) {
            let len = storage.size().map_err(io)?;
            let text = read_descriptor(image, storage, 0, len)?;
            return Self::decode(image, &text, true);
        }
        if start.starts_with(ESX_MAGIC) {
            // It has no descriptor.
            return Ok(Self::default());
        }
        // QEMU takes everything else for a descriptor, so it must not see it.
        let header = sparse_header(storage).map_err(io)?.ok_or_else(|| Error::WrongFormat {
            image: image.to_owned(),
            given: "vmdk".to_owned(),
            found: "it is no descriptor, and begins neither with KDMV nor with COWD".to_owned(),
        })?;
        check_sparse(image, &header)?;
        let (offset, sectors) = (header.descriptor_offset.get(), header.descriptor_size.get());
        if offset == 0 || sectors == 0 {
            return Ok(Self::default());
        }
        let (Some(offset), Some(len)) = (offset.checked_mul(SECTOR), sectors.checked_mul(SECTOR)) else {
            let what = "place of the descriptor".to_owned();
            return Err(Error::Corrupt { image: image.to_owned(), what, offset: 0x1c });
        };
        Self::decode(image, &read_descriptor(image, storage, offset, len)?, false)
    }

    /// Checks a file that is an extent: QEMU must not find another descriptor in it.
    pub(crate) fn check_extent(image: &str, storage: &dyn Storage) -> Result<()> {
        let header = sparse_header(storage).map_err(|source| Error::Io {
            image: image.to_owned(),
            doing: "cannot read",
            source,
        })?;
        header.map_or(Ok(()), |header| check_sparse(image, &header))
    }

    /// Understands a descriptor. The extents count only if it is a file of its own: an embedded one
    /// names the file that it is in.
    fn decode(image: &str, text: &str, is_own_file: bool) -> Result<Self> {
        let unsupported = |feature: String| Error::Unsupported { image: image.to_owned(), feature };
        let mut vmdk = Self { parent_cid: NO_PARENT, ..Self::default() };
        let (mut extents, mut hint) = (Vec::new(), None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((key, value)) = key_and_value(line) {
                let cid = || {
                    u32::from_str_radix(value, 16)
                        .map_err(|_| unsupported(format!("a VMDK descriptor with {line:?}")))
                };
                match key.to_ascii_lowercase().as_str() {
                    "cid" => vmdk.cid = cid()?,
                    "parentcid" => vmdk.parent_cid = cid()?,
                    "createtype" => vmdk.create_type = value.to_owned(),
                    "parentfilenamehint" => hint = Some(value.to_owned()),
                    _ => {}
                }
            } else if is_own_file {
                let extent = Extent::decode(line)
                    .map_err(|what| unsupported(format!("a VMDK extent with {what} ({line:?})")))?;
                if extents.len() == MAX_EXTENTS {
                    return Err(unsupported(format!("a VMDK with more than {MAX_EXTENTS} extents")));
                }
                extents.push(extent);
            }
        }
        vmdk.parent = match (vmdk.parent_cid, hint) {
            (NO_PARENT, _) => None,
            (_, Some(hint)) => Some(hint),
            (_, None) => {
                return Err(unsupported("a VMDK that has a parent and does not name it".to_owned()));
            }
        };
        if is_own_file {
            if !CREATE_TYPES.contains(&vmdk.create_type.as_str()) {
                return Err(unsupported(format!(
                    "a VMDK of type {:?}; known are {}",
                    vmdk.create_type,
                    CREATE_TYPES.join(", ")
                )));
            }
            if extents.is_empty() {
                return Err(unsupported("a VMDK descriptor without extents".to_owned()));
            }
            vmdk.extents = Some(extents);
        }
        Ok(vmdk)
    }

    /// A descriptor that says the same, with these paths, which are absolute, for the extents' files.
    ///
    /// It has no empty line: QEMU would take the extent after one for two.
    pub(crate) fn descriptor(&self, image: &str, paths: &[&Path]) -> Result<Vec<u8>> {
        let Self { cid, parent_cid, create_type, .. } = self;
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid:08x}\n\
             createType=\"{create_type}\"\n"
        );
        for (Extent { sectors, kind, offset, .. }, path) in self.extents.iter().flatten().zip(paths) {
            let name = path.to_str().filter(|name| {
                path.is_absolute() && name.len() <= MAX_NAME && !name.contains(['"', '\n', '\r'])
            });
            let Some(name) = name else {
                let feature = format!("a VMDK extent in {path:?}: quotes, or more than {MAX_NAME} bytes");
                return Err(Error::Unsupported { image: image.to_owned(), feature });
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "RW {sectors} {kind} \"{name}\"");
            if let Some(offset) = offset {
                let _ = write!(text, " {offset}");
            }
            text.push('\n');
        }
        Ok(text.into_bytes())
    }
}

impl Extent {
    /// Understands `RW 4192256 SPARSE "disk-s001.vmdk"`; the error says what it has that QEMU would
    /// not read, or not read right.
    fn decode(line: &str) -> Result<Self, String> {
        let (head, rest) = line.split_once('"').unwrap_or((line, ""));
        let (name, offset) = rest.split_once('"').unwrap_or((rest, ""));
        let words: Vec<_> = head.split_ascii_whitespace().collect();
        let [access, sectors, kind] = words[..] else {
            return Err("other than access, size, type and name".to_owned());
        };
        if access != "RW" {
            return Err(format!("access {access}"));
        }
        if !EXTENT_KINDS.contains(&kind) {
            return Err(format!("type {kind}"));
        }
        let sectors = sectors.parse().map_err(|_| format!("size {sectors}"))?;
        let offset = match offset.trim() {
            "" => None,
            offset => Some(offset.parse().map_err(|_| format!("offset {offset}"))?),
        };
        match (kind, offset) {
            ("FLAT", None) => return Err("no offset".to_owned()),
            ("FLAT", Some(_)) | (_, None) => {}
            // QEMU reads all others from their start.
            (_, Some(0)) => {}
            (_, Some(offset)) => return Err(format!("offset {offset}")),
        }
        if name.is_empty() {
            return Err("no name".to_owned());
        }
        let offset = offset.filter(|_| kind == "FLAT");
        Ok(Self { name: name.to_owned(), sectors, kind: kind.to_owned(), offset })
    }
}

/// Splits `key = "value"`. An extent's line has no `=` outside its name.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    (!key.contains(['"', ' '])).then(|| (key, value.trim().trim_matches('"')))
}

/// The header of a hosted sparse extent, if the file is one.
fn sparse_header(storage: &dyn Storage) -> io::Result<Option<RawSparseHeader>> {
    let mut header = RawSparseHeader::new_zeroed();
    let read = storage.read_at(0, header.as_mut_bytes())?;
    Ok((read == size_of::<RawSparseHeader>() && header.magic == *b"KDMV").then_some(header))
}

/// Without a capacity QEMU would take the embedded descriptor for the image's, and open what it names.
fn check_sparse(image: &str, header: &RawSparseHeader) -> Result<()> {
    if header.capacity.get() == 0 {
        let feature = "a VMDK sparse extent whose header has no capacity".to_owned();
        return Err(Error::Unsupported { image: image.to_owned(), feature });
    }
    Ok(())
}

fn read_descriptor(image: &str, storage: &dyn Storage, offset: u64, len: u64) -> Result<String> {
    let unsupported = |feature: String| Error::Unsupported { image: image.to_owned(), feature };
    let len = match usize::try_from(len) {
        Ok(small) if len <= MAX_DESCRIPTOR => small,
        _ => return Err(unsupported(format!("a VMDK descriptor of {len} bytes"))),
    };
    let mut bytes = vec![0; len];
    read_exact_at(storage, offset, &mut bytes).map_err(|_| Error::Truncated {
        image: image.to_owned(),
        what: "VMDK descriptor".to_owned(),
        offset,
    })?;
    // What follows the text in its sectors is zeros.
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(len));
    String::from_utf8(bytes).map_err(|_| unsupported("a VMDK descriptor that is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Vmdk, String> {
        Vmdk::decode("d.vmdk", text, true).map_err(|e| e.to_string())
    }

    const HEAD: &str = "# Disk DescriptorFile\nversion=1\nCID=f879aea6\nparentCID=ffffffff\n\
                        createType=\"twoGbMaxExtentFlat\"\n";

    #[test] // What QEMU gets is what we understood, and nothing else.
    fn descriptor_is_written_anew() {
        let text = format!(
            "{HEAD}parentFileNameHint=\"/etc/passwd\"\n RW 20480 FLAT \"a b.vmdk\" 0\n\
             RW 1 SPARSE \"json:{{}}\"\nddb.x = \"RW 1 FLAT\"\n"
        );
        let vmdk = decode(&text).unwrap();
        assert_eq!(vmdk.parent, None);
        let names: Vec<_> = vmdk.extents.iter().flatten().map(|extent| extent.name.as_str()).collect();
        assert_eq!(names, ["a b.vmdk", "json:{}"]);
        let paths = [Path::new("/x/a b.vmdk"), Path::new("/y")];
        let bytes = vmdk.descriptor("d.vmdk", &paths).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!("{HEAD}RW 20480 FLAT \"/x/a b.vmdk\" 0\nRW 1 SPARSE \"/y\"\n")
        );
        for bad in ["relative", "/quote\"", "/line\nRW 1 FLAT \"/etc/passwd\" 0"] {
            assert!(vmdk.descriptor("d.vmdk", &[Path::new(bad), Path::new("/y")]).is_err(), "{bad}");
        }
    }

    #[test] // QEMU leaves some of these out without a word, and shows a shorter disk.
    fn extents_that_qemu_does_not_read_are_refused_by_name() {
        for (line, says) in [
            ("RDONLY 1 FLAT \"a\" 0", "access RDONLY"),
            ("NOACCESS 1 ZERO", "access NOACCESS"),
            ("RW 1 ZERO", "type ZERO"),
            ("RW 1 VMFSRDM \"a\"", "type VMFSRDM"),
            ("RW x FLAT \"a\" 0", "size x"),
            ("RW -1 FLAT \"a\" 0", "size -1"),
            ("RW 1 FLAT \"a\" -1", "offset -1"),
            ("RW 1 FLAT \"a\"", "no offset"),
            ("RW 1 SPARSE \"a\" 8", "offset 8"),
            ("RW 1 SPARSE \"\"", "no name"),
            ("RW 1 SPARSE", "no name"),
            ("RW", "other than"),
            ("RW\t1 FLAT 7 \"a\" 0", "other than"),
        ] {
            let message = decode(&format!("{HEAD}{line}\n")).unwrap_err();
            assert!(message.contains(&format!("a VMDK extent with {says}")), "{line}: {message}");
        }
        assert!(decode(HEAD).unwrap_err().contains("without extents"));
        let other = HEAD.replace("twoGbMaxExtentFlat", "fullDevice");
        assert!(decode(&format!("{other}RW 1 FLAT \"/dev/sda\" 0")).unwrap_err().contains("fullDevice"));
    }

    #[test]
    fn parent_is_what_the_cid_says() {
        let with = HEAD.replace("parentCID=ffffffff", "parentCID=1234abcd");
        let hint = "RW 1 FLAT \"a\" 0\nparentFileNameHint = \"base.vmdk\"";
        assert_eq!(decode(&format!("{with}{hint}")).unwrap().parent.as_deref(), Some("base.vmdk"));
        assert!(decode(&format!("{with}RW 1 FLAT \"a\" 0")).unwrap_err().contains("does not name it"));
    }

    proptest::proptest! {
        #[test]
        fn decode_survives_any_text(text in "(CID|createType|parentCID|RW|=|\"|\\PC| |\n){0,60}") {
            let _ = decode(&text);
        }
    }
}
