//! Journals and undo files as a fuzzer's input: which of their checksums are made to fit, and whether they do.
//!
//! `docs/transaction.md` has the layout, which is read here once more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::device::{Hooked, Request};
use vmcraft_block::{
    Access, BlockDevice, Error, ImageIdentity, Observer, Slice, Step, Transaction, TransactionDisk,
    TransactionOptions,
};

/// What the images are called: as no file of this host, they have their journals in a directory of ours.
pub const IMAGES: [&str; 2] = ["nbd://host/a", "nbd://host/b"];
/// Which checksums [`seal`] makes fit: of header and index; of content; of what images hold.
pub const HEADERS: u8 = 1;
/// See [`HEADERS`].
pub const CONTENT: u8 = 2;
/// See [`HEADERS`].
pub const IMAGE: u8 = 4;

const HEADER: usize = 4096;
const CHUNK: usize = 65_536;
const GRANULE: usize = 512;
/// How large a file may be: what is read from it is kept.
const LARGEST: u64 = 2 << 20;

/// All of a file, unless it is too large.
pub fn bytes(file: &dyn BlockDevice) -> Option<Vec<u8>> {
    let len = usize::try_from(file.size()).ok().filter(|_| file.size() <= LARGEST)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn le64(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(field)).ok()
}

/// A checksum: where it stands, and over what.
struct Sum {
    at: usize,
    over: Over,
}

enum Over {
    /// Bytes of the file.
    File(Vec<std::ops::Range<usize>>),
    /// Zeros.
    Zeros(usize),
    /// Granules of a chunk of an image.
    Image { disk: usize, chunk: u64, granules: Vec<usize> },
}

/// One section's checksums, as far as they can be found: each before those that cover it.
fn sums(bytes: &[u8], base: usize) -> Option<Vec<(u8, Sum)>> {
    let word = |at| le64(bytes, base + at);
    let (index, index_len) = (base.checked_add(word(40)?)?, word(48)?);
    let end = index.checked_add(index_len).filter(|end| *end <= bytes.len())?;
    let mut sums = Vec::new();
    let mut at = index;
    for _ in 0..le32(bytes, base + 80)?.min(1024) {
        let names = le32(bytes, at + 32)? as usize + le32(bytes, at + 36)? as usize;
        at = at.checked_add(40 + names).filter(|at| *at <= end)?;
    }
    at = word(56)?.checked_mul(24)?.checked_add(at).filter(|at| *at <= end)?;
    let granules = |at| {
        let bits = u128::from_le_bytes(bytes.get(at..at + 16)?.try_into().ok()?);
        Some((0..128).filter(|bit| bits >> bit & 1 == 1).collect::<Vec<usize>>())
    };
    for _ in 0..word(64)? {
        if at + 48 > end {
            return None;
        }
        let (disk, chunk, offset) =
            (le32(bytes, at)? as usize, le64(bytes, at + 8)? as u64, le64(bytes, at + 16)?);
        let granules = granules(at + 24)?;
        let over = if offset == 0 {
            Over::Zeros(granules.len() * GRANULE)
        } else {
            let start = base.checked_add(offset).filter(|start| *start <= bytes.len())?;
            Over::File(granules.iter().map(|n| start + n * GRANULE..start + (n + 1) * GRANULE).collect())
        };
        sums.push((CONTENT, Sum { at: at + 4, over }));
        sums.push((IMAGE, Sum { at: at + 40, over: Over::Image { disk, chunk, granules } }));
        at += 48;
    }
    for _ in 0..word(72)? {
        if at + 32 > end {
            return None;
        }
        let (disk, chunk) = (le32(bytes, at)? as usize, le64(bytes, at + 8)? as u64);
        let (flags, granules) = (le32(bytes, at + 4)?, granules(at + 16)?);
        at += 32;
        if flags & 1 == 0 {
            for granule in granules {
                if at + 4 > end {
                    return None;
                }
                sums.push((IMAGE, Sum { at, over: Over::Image { disk, chunk, granules: vec![granule] } }));
                at += 4;
            }
        }
    }
    sums.push((HEADERS, Sum { at: base + 84, over: Over::File(vec![index..end]) }));
    sums.push((HEADERS, Sum { at: base + 88, over: Over::File(vec![base..base + 88]) }));
    Some(sums)
}

/// The checksum, if what it is over is there.
fn compute(sum: &Sum, bytes: &[u8], images: &[&dyn BlockDevice]) -> Option<u32> {
    match &sum.over {
        Over::File(ranges) => ranges
            .iter()
            .try_fold(0, |crc, range| Some(crc32c::crc32c_append(crc, bytes.get(range.clone())?))),
        Over::Zeros(len) => Some(crc32c::crc32c(&vec![0; *len])),
        Over::Image { disk, chunk, granules } => granules.iter().try_fold(0, |crc, granule| {
            let at = chunk.checked_mul(CHUNK as u64)?.checked_add((granule * GRANULE) as u64)?;
            let mut content = [0; GRANULE];
            images.get(*disk)?.read_at(at, &mut content).ok()?;
            Some(crc32c::crc32c_append(crc, &content))
        }),
    }
}

/// Where the sections of a file begin.
fn sections(bytes: &[u8]) -> Vec<usize> {
    let mut all = Vec::new();
    let mut base = 0;
    while base + HEADER <= bytes.len() && all.len() < 16 {
        all.push(base);
        let Some(len) = le64(bytes, base + 32).filter(|len| (1..=bytes.len()).contains(len)) else { break };
        base = (base + len).next_multiple_of(HEADER);
    }
    all
}

/// Makes the checksums fit that `which` names.
pub fn seal(which: u8, bytes: &mut [u8], images: &[&dyn BlockDevice]) {
    for base in sections(bytes) {
        for (kind, sum) in sums(bytes, base).unwrap_or_default() {
            if kind & which != 0
                && let Some(crc) = compute(&sum, bytes, images)
            {
                bytes[sum.at..sum.at + 4].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
}

/// Whether the first section has checksums that all fit, but those of what images hold.
pub fn is_sealed(bytes: &[u8]) -> bool {
    let Some(sums) = sums(bytes, 0) else { return false };
    sums.iter()
        .filter(|(kind, _)| *kind != IMAGE)
        .all(|(_, sum)| compute(sum, bytes, &[]) == le32(bytes, sum.at))
}

/// A pointer beside the second image to a journal.
pub fn pointer(journal: &Path) -> Vec<u8> {
    let (image, format) = (IMAGES[1].as_bytes(), b"raw");
    let journal = journal.as_os_str().as_encoded_bytes();
    let mut rest = Vec::new();
    for len in [image.len(), format.len(), journal.len()] {
        rest.extend(u32::try_from(len).expect("a short name").to_le_bytes());
    }
    rest.extend([0; 24]);
    rest.extend([image, format, journal].concat());
    [&b"VMCRAFT>"[..], &crc32c::crc32c(&rest).to_le_bytes(), &rest].concat()
}

/// An image of a session, and whether it was written.
#[derive(Clone)]
pub struct Image {
    pub device: Arc<dyn BlockDevice>,
    pub written: Arc<AtomicBool>,
}

impl Image {
    /// One whose content is that of a device.
    pub fn new(content: Arc<dyn BlockDevice>) -> Self {
        let written = Arc::<AtomicBool>::default();
        let (seen, size) = (written.clone(), content.size());
        let hook = move |request: Request| -> io::Result<()> {
            if !matches!(request, Request::Read(..) | Request::Flush) {
                seen.store(true, Ordering::Relaxed);
            }
            Ok(())
        };
        let inner = Slice::new(content, 0, size).expect("all of it");
        Self { device: Arc::new(Hooked { inner, hook }), written }
    }

    pub fn is_written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }
}

/// The disk of a session that shows the image with this number.
pub fn session_disk(number: usize, image: &Image, access: Access) -> TransactionDisk {
    TransactionDisk {
        device: image.device.clone(),
        name: IMAGES[number].into(),
        access,
        image: Some(ImageIdentity::of(IMAGES[number], "raw").expect("a URI")),
    }
}

/// How a session is that has its journals in this directory.
pub fn session_options(directory: &Path) -> TransactionOptions {
    TransactionOptions { state_directory: Some(directory.to_owned()), ..TransactionOptions::default() }
}

/// Opens the images for who asks for them by name.
pub fn open_image(images: &[Image]) -> impl FnMut(&str, &str) -> Result<Arc<dyn BlockDevice>, Error> {
    let images = images.to_vec();
    move |name, _| {
        let number = IMAGES.iter().position(|known| *known == name);
        let image = number.and_then(|number| images.get(number));
        image.map(|image| image.device.clone()).ok_or_else(|| Error::Io {
            image: name.into(),
            doing: "cannot open",
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

/// A journal as it is left beside its images, after `change` of them was to be committed. Gives its path.
pub fn cut_off(directory: &Path, disks: Vec<TransactionDisk>, change: impl FnOnce(&Transaction)) -> PathBuf {
    let observer =
        Observer::new(
            |step| {
                if step == Step::Apply { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            },
        );
    let transaction = Transaction::new(disks, TransactionOptions { observer, ..session_options(directory) });
    change(&transaction);
    transaction.commit().expect_err("it is cut off");
    let files = directory.read_dir().expect("a directory").flatten().map(|entry| entry.path());
    let is_journal = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"VMCRAFT\n"));
    files.into_iter().find(is_journal).expect("the journal")
}

/// What the journal of each image is called.
pub fn journal_names() -> [std::ffi::OsString; 2] {
    [0, 1].map(|number| {
        let dir = testkit::tempdir();
        let disk = session_disk(number, &Image::new(crate::disk(1 << 20)), Access::Commit);
        let path = cut_off(dir.path(), vec![disk], |transaction| {
            let device = transaction.device(0).expect("the disk");
            device.write_at(0, &[1]).expect("a write into memory");
        });
        path.file_name().expect("a name").to_owned()
    })
}
