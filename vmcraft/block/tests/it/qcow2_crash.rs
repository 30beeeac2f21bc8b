//! A crash at any write: clusters may be lost, but nothing is damaged, and what was flushed is there.
//!
//! The double under the image records every write and flush. A crash keeps all that was flushed; of
//! what was written after the last flush it keeps some writes, drops others, and tears others, as a
//! disk with a cache does.

use std::path::Path;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_block::qcow2::{Header, Parts, Qcow2};

use crate::recorder::{Event, Recorder, apply};
use crate::support::{Noise, mixed_disk, qemu_bytes, text, write_file};

const SECTOR: usize = 512;

/// The file after a crash when `events` had happened.
fn crash(start: &[u8], events: &[Event], noise: &mut Noise) -> Vec<u8> {
    let durable = events.iter().rposition(|event| matches!(event, Event::Flush)).map_or(0, |at| at + 1);
    let mut bytes = start.to_vec();
    for (index, event) in events.iter().enumerate() {
        let fate = if index < durable { 0 } else { noise.below(4) };
        let (offset, piece) = match event {
            Event::Write(offset, piece) => (*offset, piece.clone()),
            Event::Hole(offset, len) => (*offset, vec![0; usize::try_from(*len).unwrap()]),
            Event::Flush => continue,
        };
        match fate {
            0 | 1 => apply(&mut bytes, offset, &piece),
            2 => {}
            _ => {
                // Some of the sectors, whole ones.
                let mut at = 0;
                while at < piece.len() {
                    let place = usize::try_from(offset).unwrap() + at;
                    let len = (SECTOR - place % SECTOR).min(piece.len() - at);
                    if noise.below(2) == 0 {
                        apply(&mut bytes, place as u64, &piece[at..at + len]);
                    }
                    at += len;
                }
            }
        }
    }
    bytes
}

/// What each sector of the disk may hold, by when it was written.
struct History {
    /// For each sector, what it held at first and the contents it got, with the log's length when that
    /// began.
    sectors: Vec<Vec<(Option<usize>, [u8; SECTOR])>>,
    /// The log's length at the end of each flush of the device.
    flushes: Vec<usize>,
}

impl History {
    fn new(disk: &[u8]) -> Self {
        let sectors = disk.as_chunks::<SECTOR>().0.iter().map(|sector| vec![(None, *sector)]).collect();
        Self { sectors, flushes: vec![0] }
    }

    fn record(&mut self, position: usize, sector: usize, bytes: &[u8]) {
        for (index, content) in bytes.as_chunks::<SECTOR>().0.iter().enumerate() {
            self.sectors[sector + index].push((Some(position), *content));
        }
    }

    /// Fails unless every sector has the content it had at the last flush before the crash, or one that
    /// it got since.
    fn check(&self, disk: &[u8], crashed_at: usize, what: &str) {
        let flushed = *self.flushes.iter().rfind(|position| **position <= crashed_at).unwrap();
        for (sector, now) in disk.as_chunks::<SECTOR>().0.iter().enumerate() {
            let all = &self.sectors[sector];
            let last = all.iter().rposition(|(began, _)| began.is_none_or(|began| began < flushed));
            let since = &all[last.unwrap_or(0)..];
            let possible = since.iter().filter(|(began, _)| began.is_none_or(|began| began <= crashed_at));
            assert!(
                possible.into_iter().any(|(_, content)| content == now),
                "{what}: sector {sector} has a content that it never had, or one that was flushed is gone"
            );
        }
    }
}

fn open(bytes: Vec<u8>, backing: Option<&Path>) -> (Arc<Recorder>, Qcow2) {
    let recorder = Arc::new(Recorder::new(bytes));
    let header = Header::read("recorder", &*recorder).unwrap();
    let backing = backing.map(|path| {
        let file = std::fs::File::open(path).unwrap();
        Arc::new(vmcraft_block::RawFile::new(file, true).unwrap()) as Arc<dyn BlockDevice>
    });
    let parts = Parts { backing, ..Parts::default() };
    let device = Qcow2::open("recorder", recorder.clone(), header, parts).unwrap_or_else(|e| panic!("{e}"));
    (recorder, device)
}

/// Runs a session on an image, then crashes it at many points of its log. Gives how often the session
/// wrote the header.
fn crash_everywhere(
    path: &Path,
    backing: Option<&Path>,
    seed: u64,
    operations: usize,
    points: usize,
) -> usize {
    let start = std::fs::read(path).unwrap();
    let (recorder, device) = open(start.clone(), backing);
    let mut history = History::new(&qemu_bytes(path));
    let count = history.sectors.len() as u64;
    let mut noise = Noise::new(seed);
    for _ in 0..operations {
        let most = 1 << noise.below(9);
        let sector = noise.below(count);
        let len = (noise.below(most) + 1).min(count - sector);
        let (at, bytes) = (sector * SECTOR as u64, len * SECTOR as u64);
        let position = recorder.position();
        let before = usize::try_from(sector).unwrap();
        match noise.below(8) {
            0 => {
                device.flush().unwrap();
                history.flushes.push(recorder.position());
            }
            1 => {
                device.discard().unwrap().write_zeroes(at, bytes).unwrap();
                history.record(position, before, &vec![0; usize::try_from(bytes).unwrap()]);
            }
            2 => {
                device.discard().unwrap().discard(at, bytes).unwrap();
                let mut now = vec![0; usize::try_from(bytes).unwrap()];
                device.read_at(at, &mut now).unwrap();
                history.record(position, before, &now);
            }
            _ => {
                let content = noise.bytes(usize::try_from(bytes).unwrap());
                device.write_at(at, &content).unwrap();
                history.record(position, before, &content);
            }
        }
    }
    drop(device);
    let events = recorder.events();
    let crashed = path.with_extension("crashed");
    let mut crashes: Vec<_> =
        (1..points).map(|_| usize::try_from(noise.below(events.len() as u64)).unwrap()).collect();
    crashes.push(events.len());
    let mut header_writes = 0;
    // The header is written seldom, and everything hangs on it.
    for (index, event) in events.iter().enumerate() {
        if matches!(event, Event::Write(..512, _)) {
            crashes.extend([index + 1; 8]);
            header_writes += 1;
        }
    }
    for crashed_at in crashes {
        let what = format!("{}, seed {seed}, crash at event {crashed_at}", path.display());
        let bytes = crash(&start, &events[..crashed_at], &mut noise);
        std::fs::write(&crashed, &bytes).unwrap();
        let output = testkit::run("qemu-img", ["check", "-U", "-f", "qcow2", text(&crashed)]);
        // 3: there are leaks, and nothing else.
        let is_sound = matches!(output.status.code(), Some(0 | 3));
        assert!(is_sound, "{what}: {output:?}");
        let (_, device) = open(bytes, backing);
        let mut disk = vec![0; usize::try_from(device.size()).unwrap()];
        device.read_at(0, &mut disk).unwrap();
        history.check(&disk, crashed_at, &what);
    }
    header_writes
}

#[test] // The host's disk is full: what is said to be written is, and the rest does no damage.
fn writes_that_fail_damage_nothing() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, &["-o", "cluster_size=4k"]);
    testkit::run_ok("qemu-img", ["snapshot", "-c", "kept", text(&path)]);
    let start = std::fs::read(&path).unwrap();
    for room in (0..120).step_by(3) {
        let recorder = Arc::new(Recorder::failing(start.clone(), room));
        let header = Header::read("full", &recorder).unwrap();
        let device = Qcow2::open("full", recorder.clone(), header, Parts::default()).unwrap();
        let mut noise = Noise::new(room as u64);
        let (mut flushed, mut disk) = (vec![0; 3 << 20], vec![0; 3 << 20]);
        let mut failed = None;
        for round in 0..100 {
            let (at, len) = (noise.below(700) * 4096, noise.below(20_000) + 1);
            let bytes = noise.bytes(usize::try_from(len).unwrap());
            let done = match round % 5 {
                4 => device.flush(),
                3 => device.discard().unwrap().write_zeroes(at, len),
                _ => device.write_at(at, &bytes),
            };
            let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
            if done.is_err() {
                failed = Some(range);
                break;
            }
            match round % 5 {
                4 => flushed.clone_from(&disk),
                3 => disk[range].fill(0),
                _ => disk[range].copy_from_slice(&bytes),
            }
        }
        let failed = failed.unwrap_or_else(|| panic!("{room} events were enough"));
        assert!(device.flush().is_err() || room == 0, "a flush after a failure says that all is well");
        drop(device);
        std::fs::write(&path, recorder.bytes()).unwrap();
        let output = testkit::run("qemu-img", ["check", "-U", "-f", "qcow2", text(&path)]);
        assert!(matches!(output.status.code(), Some(0 | 3)), "after {room} events: {output:?}");
        // Without changes since the last flush, all but what failed must be there.
        if disk == flushed {
            let now = qemu_bytes(&path);
            assert!(now[..failed.start] == disk[..failed.start], "after {room} events");
            assert!(now[failed.end..] == disk[failed.end..], "after {room} events");
        }
    }
}

fn create(path: &Path, arguments: &[&str]) {
    let mut all = vec!["create", "-q", "-f", "qcow2"];
    all.extend(arguments);
    testkit::run_ok("qemu-img", all.into_iter().chain([text(path), "3M"]));
}

#[test]
fn a_crash_at_any_write_damages_nothing() {
    let dir = testkit::tempdir();
    for (seed, creation) in [
        "cluster_size=64k",
        "cluster_size=4k,compat=0.10",
        "cluster_size=512,refcount_bits=64",
        "extended_l2=on,cluster_size=16k",
        "refcount_bits=1,cluster_size=1k",
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.path().join("disk.qcow2");
        create(&path, &["-o", creation]);
        crash_everywhere(&path, None, seed as u64, 120, 25);
    }
}

#[test]
fn a_crash_damages_neither_snapshots_nor_what_is_copied() {
    let dir = testkit::tempdir();
    let base = write_file(dir.path(), "base.raw", &mixed_disk(5, 2 << 20));
    let path = dir.path().join("top.qcow2");
    create(&path, &["-b", "base.raw", "-F", "raw", "-o", "cluster_size=4k"]);
    crash_everywhere(&path, Some(&base), 10, 100, 25);

    let path = dir.path().join("compressed.qcow2");
    testkit::run_ok(
        "qemu-img",
        ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=8k", text(&base), text(&path)],
    );
    crash_everywhere(&path, None, 11, 100, 25);
    testkit::run_ok("qemu-img", ["snapshot", "-c", "kept", text(&path)]);
    crash_everywhere(&path, None, 12, 100, 25);
}

#[test] // The moment when the header leads to another table.
fn a_crash_while_the_refcount_table_grows() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    // The table has room for 2 MiB of the image.
    create(&path, &["-o", "cluster_size=512,refcount_bits=64"]);
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let storage = Arc::new(vmcraft_block::storage::HostFile::new(file, false).unwrap());
    let header = Header::read("disk", &storage).unwrap();
    let device = Qcow2::open("disk", storage, header, Parts::default()).unwrap();
    device.write_at(0, &vec![1; 1_950_000]).unwrap();
    drop(device);
    let before = std::fs::read(&path).unwrap();
    for seed in 0..4 {
        std::fs::write(&path, &before).unwrap();
        let header_writes = crash_everywhere(&path, None, 20 + seed, 120, 15);
        assert!(header_writes > 0, "the table did not move");
    }
}
