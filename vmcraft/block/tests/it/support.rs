//! What the tests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_block::image::{self, Format, Image, OpenOptions};

/// Bytes that are the same for the same seed, and hard to compress.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// A disk with noise, text that compresses, and holes, in runs of all sizes.
pub(crate) fn mixed_disk(seed: u64, len: usize) -> Vec<u8> {
    let mut noise = Noise::new(seed);
    let mut disk = vec![0; len];
    let mut at = 0;
    while at < len {
        let most = 1 << (9 + noise.below(10));
        let run = usize::try_from(noise.below(most) + 1).unwrap().min(len - at);
        match noise.below(3) {
            0 => disk[at..at + run].copy_from_slice(&noise.bytes(run)),
            1 => disk[at..at + run].fill(u8::try_from(noise.below(255)).unwrap() + 1),
            _ => {}
        }
        at += run;
    }
    disk
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the test's own paths are text")
}

/// Opens with the gate open, read-only unless `options` says otherwise.
pub(crate) fn options() -> OpenOptions {
    OpenOptions { gate: Arc::new(|_| Ok(())), ..OpenOptions::default() }
}

pub(crate) fn open(path: &Path) -> Image {
    image::open(text(path), &options()).unwrap_or_else(|e| panic!("{e}"))
}

/// The message with which an image is refused.
pub(crate) fn refusal(path: &Path, options: &OpenOptions) -> String {
    refusal_of(text(path), options)
}

/// The message with which a path or URI is refused.
pub(crate) fn refusal_of(name: &str, options: &OpenOptions) -> String {
    match image::open(name, options) {
        Ok(_) => panic!("{name} opened"),
        Err(e) => e.to_string(),
    }
}

pub(crate) fn given(format: Format) -> OpenOptions {
    OpenOptions { format: Some(format), ..options() }
}

/// All of a device, read in pieces of odd sizes.
pub(crate) fn read_all(device: &dyn BlockDevice) -> Vec<u8> {
    let size = usize::try_from(device.size()).unwrap();
    let mut bytes = vec![0xee; size];
    let mut at = 0;
    let mut piece = 1000;
    while at < size {
        let len = piece.min(size - at);
        device.read_at(at as u64, &mut bytes[at..at + len]).unwrap_or_else(|e| panic!("at {at:#x}: {e}"));
        at += len;
        piece = piece * 3 % 300_007 + 1;
    }
    bytes
}

/// Fails with the first difference, as a whole disk is too long to print.
#[track_caller]
pub(crate) fn assert_same(actual: &[u8], expected: &[u8], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: sizes differ");
    if actual == expected {
        return;
    }
    if let Some(at) = (0..actual.len()).find(|at| actual[*at] != expected[*at]) {
        panic!("{what}: byte {at:#x} is {:#x}, not {:#x}", actual[at], expected[at]);
    }
}

/// What `qemu-img convert` makes of an image.
pub(crate) fn qemu_bytes(path: &Path) -> Vec<u8> {
    let dir = testkit::tempdir();
    let raw = dir.path().join("converted.raw");
    testkit::run_ok("qemu-img", ["convert", "-U", "-O", "raw", text(path), text(&raw)]);
    std::fs::read(&raw).unwrap()
}

pub(crate) fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Runs `qemu-io` with commands.
pub(crate) fn qemu_io(path: &Path, commands: &[&str]) {
    let mut arguments = vec!["-f", "qcow2"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(text(path));
    let said = testkit::run_ok("qemu-io", arguments);
    // It reports failed commands on its output, and ends with success.
    assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
}
