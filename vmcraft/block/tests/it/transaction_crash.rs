//! A commit that is cut off anywhere: after the next opening all disks are as before, or all as after.
//!
//! A double over each disk and an observer of the commit copy all files before every step, and in the
//! middle of every write. Each copy is a crash: it is put back, opened and compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmcraft_block::image::{self, OpenOptions};
use vmcraft_block::{
    Access, BlockDevice, Discard, ImageIdentity, MapExtents, Observer, Step, Transaction, TransactionDisk,
    TransactionOptions,
};

use crate::support::{Noise, assert_same, mixed_disk, options, read_all, text, write_file};

const SIZE: usize = 1 << 20;

/// The files of a directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All crashes of a session: what the files were.
#[derive(Default)]
struct Crashes {
    directory: PathBuf,
    copies: Mutex<Vec<(String, Files)>>,
}

fn files(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Puts files back, in place: an image stays the same file.
fn put_back(directory: &Path, copy: &Files) {
    for path in files(directory).into_keys().filter(|path| !copy.contains_key(path)) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
    }
}

impl Crashes {
    fn copy(&self, what: String) {
        let copy = files(&self.directory);
        let mut copies = self.copies.lock().unwrap();
        // What changed nothing since is the same crash.
        if copies.last().is_none_or(|(_, last)| *last != copy) {
            copies.push((what, copy));
        }
    }
}

/// What a double does before each change.
type Before = dyn Fn(&str) -> io::Result<()> + Send + Sync;

/// A device that tells of each change, and tears each write in two.
struct Watched {
    inner: Arc<dyn BlockDevice>,
    before: Arc<Before>,
}

impl BlockDevice for Watched {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (self.before)("a write")?;
        // Only sectors are written whole.
        let half = (offset + buf.len() as u64 / 2).next_multiple_of(512) - offset;
        let (first, second) = buf.split_at(usize::try_from(half).unwrap().min(buf.len()));
        self.inner.write_at(offset, first)?;
        (self.before)("the second half of a write")?;
        self.inner.write_at(offset + first.len() as u64, second)
    }
    fn flush(&self) -> io::Result<()> {
        (self.before)("a flush")?;
        self.inner.flush()
    }
    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.inner.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl Discard for Watched {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (self.before)("a discard")?;
        self.inner.discard().unwrap().discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        (self.before)("a write of zeros")?;
        self.inner.discard().unwrap().write_zeroes(offset, len)
    }
}

fn format(path: &Path) -> &'static str {
    if path.extension().is_some_and(|extension| extension == "qcow2") { "qcow2" } else { "raw" }
}

fn open_image(path: &str, format: &str, read_only: bool) -> vmcraft_block::Result<Arc<dyn BlockDevice>> {
    let options = OpenOptions { format: Some(format.parse().unwrap()), read_only, ..options() };
    // A process that another test starts has all our files open until it is another program.
    for _ in 0..100 {
        match image::open(path, &options) {
            Err(vmcraft_block::Error::InUse { .. }) => std::thread::sleep(Duration::from_millis(20)),
            opened => return Ok(opened?.device),
        }
    }
    Ok(image::open(path, &options)?.device)
}

fn disk(path: &Path, access: Access, before: Option<&Arc<Before>>) -> TransactionDisk {
    let mut device = open_image(text(path), format(path), access != Access::Commit).unwrap();
    if let Some(before) = before {
        device = Arc::new(Watched { inner: device, before: before.clone() });
    }
    let image = Some(ImageIdentity::of(text(path), format(path)).unwrap());
    TransactionDisk { device, name: text(path).into(), access, image }
}

/// Opens disks as one guest, after recovery.
fn session(
    paths: &[PathBuf],
    access: Access,
    before: Option<&Arc<Before>>,
    observer: Observer,
) -> vmcraft_block::Result<(Transaction, Vec<String>)> {
    let disks = paths.iter().map(|path| disk(path, access.clone(), before)).collect();
    // So little memory that the journal holds spilled chunks, too.
    let options = TransactionOptions { memory: 5 << 16, observer, ..TransactionOptions::default() };
    Transaction::open(disks, options, &mut |name, format| open_image(name, format, false))
}

fn contents(transaction: &Transaction, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| read_all(&transaction.device(index).unwrap())).collect()
}

/// Images with something on them.
fn make(directory: &Path, names: &[&str]) -> (Vec<PathBuf>, Vec<Vec<u8>>) {
    let disks: Vec<_> = (0..names.len()).map(|seed| mixed_disk(seed as u64 + 5, SIZE)).collect();
    let paths = names.iter().zip(&disks).map(|(name, disk)| {
        let path = directory.join(name);
        if format(&path) == "raw" {
            return write_file(directory, name, disk);
        }
        let raw = testkit::tempdir();
        let source = write_file(raw.path(), "raw", disk);
        testkit::run_ok("qemu-img", ["convert", "-O", "qcow2", text(&source), text(&path)]);
        path
    });
    (paths.collect(), disks)
}

/// Changes all disks in all ways. Gives what they are then.
fn change(transaction: &Transaction, before: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut after = before.to_vec();
    for (index, disk) in after.iter_mut().enumerate() {
        let mut noise = Noise::new(index as u64 + 77);
        let device = transaction.device(index).unwrap();
        let mut write = |at: usize, len: usize| {
            let bytes = noise.bytes(len);
            device.write_at(at as u64, &bytes).unwrap();
            disk[at..at + len].copy_from_slice(&bytes);
        };
        write(1000, 24);
        write(0x20000 + 300, 200_000);
        for chunk in 6..12 {
            write((chunk << 16) + 4096, 8192);
        }
        device.discard().unwrap().write_zeroes(0xc0000, 0x20000).unwrap();
        disk[0xc0000..0xe0000].fill(0);
        let bytes = noise.bytes(700);
        device.write_at(0xd0000, &bytes).unwrap();
        disk[0xd0000..0xd0000 + 700].copy_from_slice(&bytes);
        device.discard().unwrap().discard(0xf0000, 0x10000).unwrap();
        disk[0xf0000..].fill(0);
    }
    after
}

fn check_images(paths: &[PathBuf], what: &str) {
    for path in paths.iter().filter(|path| format(path) == "qcow2") {
        let checked = testkit::run("qemu-img", ["check", "-q", "-U", "-f", "qcow2", text(path)]);
        // 3 says that there are clusters that nobody uses, which harms nobody.
        assert!(matches!(checked.status.code(), Some(0 | 3)), "{what}: {checked:?}");
    }
}

/// Crashes a commit to these images everywhere.
fn crash_everywhere(names: &[&str]) {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), names);
    let crashes = Arc::new(Crashes { directory: directory.path().into(), ..Crashes::default() });
    let watch: Arc<Before> = {
        let crashes = crashes.clone();
        Arc::new(move |what| {
            crashes.copy(what.to_owned());
            Ok(())
        })
    };
    let observer = {
        let crashes = crashes.clone();
        Observer::new(move |step| {
            crashes.copy(format!("{step:?}"));
            Ok(())
        })
    };
    let (transaction, _) = session(&paths, Access::Commit, Some(&watch), observer).unwrap();
    crashes.copy("the start".into());
    let after = change(&transaction, &before);
    transaction.commit().unwrap();
    drop(transaction);
    crashes.copy("the end".into());
    let copies = std::mem::take(&mut *crashes.copies.lock().unwrap());
    assert!(copies.len() > 20 * names.len(), "only {} crashes", copies.len());
    assert_eq!(copies.last().unwrap().1.len(), names.len(), "a file was left behind");
    let mut seen = [0, 0];
    for (what, copy) in copies {
        put_back(directory.path(), &copy);
        // Whoever only looks sees what the disks will be, and changes nothing.
        let (looking, _) = session(&paths, Access::Forget, None, Observer::default()).unwrap();
        let shown = contents(&looking, paths.len());
        drop(looking);
        assert!(files(directory.path()) == copy, "{what}: looking changed something");
        let (reopened, _) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
        let now = contents(&reopened, paths.len());
        drop(reopened);
        assert!(shown == now, "{what}: what was shown is not what the disks became");
        let is_after = now[0] == after[0];
        let expected = if is_after { &after } else { &before };
        for (now, expected) in now.iter().zip(expected) {
            assert_same(now, expected, &what);
        }
        seen[usize::from(is_after)] += 1;
        check_images(&paths, &what);
        assert_eq!(files(directory.path()).len(), names.len(), "{what}: a file was left behind");
    }
    // Until the journal has its name, only pointers are seen of it.
    assert!(seen[0] >= names.len() && seen[1] > 20, "{seen:?}");
}

#[test]
fn a_commit_to_a_raw_image_is_all_or_nothing() {
    crash_everywhere(&["disk.raw"]);
}

#[test]
fn a_commit_to_a_qcow2_image_is_all_or_nothing() {
    crash_everywhere(&["disk.qcow2"]);
}

#[test]
fn a_commit_to_several_images_is_all_or_nothing() {
    crash_everywhere(&["one.qcow2", "two.raw", "three.qcow2"]);
}

/// Leaves the images as a crash does when the journal is there and nothing else: gives what they were
/// before and what they are to become.
fn leave_journal(paths: &[PathBuf], before: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let observer = Observer::new(|step| match step {
        Step::Apply => Err(io::Error::other("cut off")),
        _ => Ok(()),
    });
    let (transaction, _) = session(paths, Access::Commit, None, observer).unwrap();
    let after = change(&transaction, before);
    let said = transaction.commit().unwrap_err().to_string();
    assert!(said.contains("cut off") && said.contains(".vmcraft-journal finishes it"), "{said}");
    after
}

fn journal_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.vmcraft-journal", path.display()))
}

fn refusal(paths: &[PathBuf]) -> String {
    match session(paths, Access::Commit, None, Observer::default()) {
        Ok(_) => panic!("{paths:?} opened"),
        Err(e) => e.to_string(),
    }
}

#[test] // A recovery that is cut off is begun again.
fn recovery_can_crash_everywhere_too() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["one.raw", "two.qcow2"]);
    let after = leave_journal(&paths, &before);
    let start = files(directory.path());
    for stop in 0.. {
        put_back(directory.path(), &start);
        let done = Arc::new(AtomicUsize::new(0));
        let counter = done.clone();
        let failing: Arc<Before> = Arc::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) {
            n if n >= stop => Err(io::Error::other("cut off")),
            _ => Ok(()),
        });
        let recovered = session(&paths, Access::Commit, Some(&failing), Observer::default());
        let error = recovered.err().map(|e| e.to_string());
        let is_whole = error.is_none();
        assert!(error.iter().all(|e| e.contains("cut off; it stays")), "{error:?}");
        let (reopened, notes) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
        assert_eq!(notes.len(), usize::from(!is_whole), "{notes:?}");
        assert!(contents(&reopened, 2) == after, "stopped at {stop}");
        drop(reopened);
        check_images(&paths, "after recovery");
        if is_whole {
            assert!(stop > 20, "the recovery changed only {stop} times");
            return;
        }
    }
}

#[test] // A step that fails leaves everything as it was, or a journal that finishes it.
fn each_step_can_fail() {
    let directory = testkit::tempdir();
    for failing in [
        Step::WriteJournal,
        Step::SyncJournal,
        Step::WritePointer,
        Step::PublishJournal,
        Step::Apply,
        Step::Flush,
        Step::RemoveJournal,
        Step::RemovePointers,
    ] {
        let (paths, before) = make(directory.path(), &["one.raw", "two.qcow2"]);
        let start = files(directory.path());
        let fails = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let observer = {
            let fails = fails.clone();
            Observer::new(move |step| match step == failing && fails.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            })
        };
        let (transaction, _) = session(&paths, Access::Commit, None, observer).unwrap();
        let mut after = change(&transaction, &before);
        let error = transaction.commit().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(contents(&transaction, 2) == after, "{failing:?}: the changes are still there");
        let has_begun =
            matches!(failing, Step::Apply | Step::Flush | Step::RemovePointers | Step::RemoveJournal);
        assert_eq!(transaction.is_cut_off(), has_begun, "{failing:?}");
        let write = transaction.device(0).unwrap().write_at(0, &[1; 10]);
        if has_begun {
            let refused = write.unwrap_err().to_string();
            assert!(refused.contains("cut off"), "{refused}");
            assert!(transaction.rollback().is_err());
        } else {
            assert!(files(directory.path()) == start, "{failing:?}: something was left behind");
            write.unwrap();
            after[0][..10].fill(1);
        }
        fails.store(false, Ordering::Relaxed);
        transaction.commit().unwrap();
        assert!(!transaction.is_changed());
        drop(transaction);
        assert_eq!(files(directory.path()).len(), 2, "{failing:?}");
        let (reopened, notes) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
        assert_eq!(notes, [""; 0]);
        assert!(contents(&reopened, 2) == after, "{failing:?}");
        drop(reopened);
        for path in files(directory.path()).into_keys() {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test] // The next commit would have written the state of the savepoint over a part of the later one.
fn a_commit_that_was_cut_off_is_finished_as_it_was_whatever_savepoint_there_is() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["disk.raw"]);
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let observer = {
        let fails = fails.clone();
        Observer::new(move |step| match step == Step::Flush && fails.load(Ordering::Relaxed) {
            true => Err(io::Error::other("cut off")),
            false => Ok(()),
        })
    };
    let (transaction, _) = session(&paths, Access::Commit, None, observer).unwrap();
    transaction.savepoint();
    let after = change(&transaction, &before);
    transaction.commit().unwrap_err();
    transaction.rollback_to_savepoint();
    assert!(contents(&transaction, 1) == after);
    fails.store(false, Ordering::Relaxed);
    transaction.commit().unwrap();
    drop(transaction);
    let (reopened, _) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
    assert!(contents(&reopened, 1) == after);
}

#[test] // Each image leads to the others.
fn any_image_of_the_set_finishes_the_journal() {
    let directory = testkit::tempdir();
    for alone in 0..3 {
        let (paths, before) = make(directory.path(), &["one.raw", "two.qcow2", "three.raw"]);
        let after = leave_journal(&paths, &before);
        let (transaction, notes) =
            session(&paths[alone..=alone], Access::Commit, None, Observer::default()).unwrap();
        assert!(notes[0].contains("complete now"), "{notes:?}");
        drop(transaction);
        assert_eq!(files(directory.path()).len(), 3);
        let (transaction, notes) = session(&paths, Access::Forget, None, Observer::default()).unwrap();
        assert_eq!(notes, [""; 0]);
        assert!(contents(&transaction, 3) == after, "opened {alone} alone");
    }
}

#[test] // A journal is applied to the images that it was written for, or not at all.
fn journals_out_of_place_are_refused() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["one.raw", "two.raw"]);
    let after = leave_journal(&paths, &before);
    let (journal, pointer) = (journal_of(&paths[0]), journal_of(&paths[1]));
    let start = files(directory.path());
    let other = write_file(directory.path(), "other.raw", &vec![0; SIZE]);
    for misplaced in [&journal, &pointer] {
        fs::copy(misplaced, journal_of(&other)).unwrap();
        let said = refusal(std::slice::from_ref(&other));
        assert!(said.contains("another image") && said.contains("other.raw.vmcraft-journal"), "{said}");
    }
    put_back(directory.path(), &start);
    // An image of another size has come in its place.
    fs::write(&paths[0], vec![0; SIZE / 2]).unwrap();
    let said = refusal(&paths);
    assert!(said.contains("was replaced or resized"), "{said}");
    put_back(directory.path(), &start);
    // One of the others is gone.
    fs::remove_file(&paths[1]).unwrap();
    let said = refusal(&paths[..1]);
    assert!(said.contains("two.raw") && said.contains("open all images of the guest together"), "{said}");
    put_back(directory.path(), &start);
    // One of them for writing, the other not, cannot finish it.
    let disks = vec![disk(&paths[0], Access::Commit, None), disk(&paths[1], Access::Forget, None)];
    let mixed = Transaction::open(disks, TransactionOptions::default(), &mut |_, _| unreachable!());
    let said = mixed.err().unwrap().to_string();
    assert!(said.contains("two.raw for writing too"), "{said}");
    // An image was moved away from the others.
    let elsewhere = testkit::tempdir();
    let moved = elsewhere.path().join("two.raw");
    fs::copy(&paths[1], &moved).unwrap();
    fs::copy(&pointer, journal_of(&moved)).unwrap();
    let said = refusal(std::slice::from_ref(&moved));
    assert!(said.contains("another image"), "{said}");
    // One that was renamed together with its journal is still the same file.
    put_back(directory.path(), &start);
    let (only, only_before) = make(elsewhere.path(), &["only.raw"]);
    let only_after = leave_journal(&only, &only_before);
    let renamed = elsewhere.path().join("renamed.raw");
    fs::rename(&only[0], &renamed).unwrap();
    fs::rename(journal_of(&only[0]), journal_of(&renamed)).unwrap();
    let (transaction, _) = session(&[renamed], Access::Commit, None, Observer::default()).unwrap();
    assert!(contents(&transaction, 1) == only_after);
    drop(transaction);
    // A pointer whose journal is done is nothing.
    fs::remove_file(&journal).unwrap();
    let (transaction, notes) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
    assert_eq!(notes, [""; 0]);
    assert!(contents(&transaction, 2) != after);
    assert!(!pointer.exists());
}

#[test] // What is no file of this host has its journal in a directory of the user's, and is found there.
fn a_remote_disk_has_its_journal_elsewhere() {
    let state = testkit::tempdir();
    let before = mixed_disk(5, SIZE);
    let device = Arc::new(vmcraft_block::MemoryDevice::new(before.clone()));
    let open = |state_directory: Option<&Path>, observer| {
        let disk = TransactionDisk {
            device: device.clone(),
            name: "nbd://host/export".into(),
            access: Access::Commit,
            image: Some(ImageIdentity::of("nbd://host/export", "raw").unwrap()),
        };
        let state_directory = state_directory.map(Path::to_owned);
        let options = TransactionOptions { state_directory, observer, ..TransactionOptions::default() };
        Transaction::open(vec![disk], options, &mut |_, _| unreachable!()).unwrap()
    };
    let (transaction, _) = open(None, Observer::default());
    change(&transaction, std::slice::from_ref(&before));
    let said = transaction.commit().unwrap_err().to_string();
    assert!(said.contains("no journal can stand"), "{said}");
    assert_same(&read_all(&*device), &before, "the disk");
    let stop = Observer::new(|step| match step {
        Step::Flush => Err(io::Error::other("cut off")),
        _ => Ok(()),
    });
    let (transaction, _) = open(Some(state.path()), stop);
    let after = change(&transaction, std::slice::from_ref(&before));
    transaction.commit().unwrap_err();
    drop(transaction);
    // The disk has lost what was not flushed.
    device.write_at(0, &before).unwrap();
    assert_eq!(files(state.path()).len(), 1);
    let (transaction, notes) = open(Some(state.path()), Observer::default());
    assert_eq!(notes.len(), 1);
    let now = contents(&transaction, 1).remove(0);
    // This disk keeps what is discarded, so only that may differ.
    assert_same(&now[..0xf0000], &after[0][..0xf0000], "the disk after recovery");
    assert_eq!(files(state.path()).len(), 0);
}

#[test] // With the journal still there and its pointers gone, opening the first image undid this.
fn what_is_committed_to_another_image_alone_stays() {
    let directory = testkit::tempdir();
    for failing in [Step::RemoveJournal, Step::RemovePointers] {
        let (paths, before) = make(directory.path(), &["one.raw", "two.raw"]);
        let observer = Observer::new(move |step| match step == failing {
            true => Err(io::Error::other("cut off")),
            false => Ok(()),
        });
        let (transaction, _) = session(&paths, Access::Commit, None, observer).unwrap();
        let mut after = change(&transaction, &before);
        transaction.commit().unwrap_err();
        drop(transaction);
        let (alone, _) = session(&paths[1..], Access::Commit, None, Observer::default()).unwrap();
        let (old, new): (Vec<u8>, Vec<u8>) = after[1].iter().map(|byte| (*byte, !*byte)).unzip();
        assert!(contents(&alone, 1)[0] == old);
        alone.device(0).unwrap().write_at(0, &new).unwrap();
        alone.commit().unwrap();
        drop(alone);
        after[1] = new;
        drop(session(&paths[..1], Access::Commit, None, Observer::default()).unwrap());
        let (both, notes) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
        assert_eq!(notes, [""; 0]);
        assert!(contents(&both, 2) == after, "{failing:?}");
        drop(both);
        assert_eq!(files(directory.path()).len(), 2, "{failing:?}: a file was left behind");
    }
}

#[test] // It may have come with the image from anywhere.
fn a_journal_cannot_have_a_file_written_to_that_does_not_lead_to_it() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["one.raw", "two.raw"]);
    leave_journal(&paths, &before);
    fs::remove_file(journal_of(&paths[1])).unwrap();
    let said = refusal(&paths[..1]);
    assert!(said.contains("two.raw") && said.contains("nothing beside it leads"), "{said}");
    assert!(fs::read(&paths[1]).unwrap() == before[1]);
}

#[test] // Its changes were overwritten, and mixed with those of the journal.
fn a_journal_is_not_finished_over_what_somebody_else_wrote_since() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["one.raw", "two.qcow2"]);
    let after = leave_journal(&paths, &before);
    let start = files(directory.path());
    let journal = journal_of(&paths[0]);
    // At the edge of new content, in its middle, and at the start of what becomes zeros.
    for (image, at) in [(0, 1000), (1, 0x30000), (1, 0x60000 + 4096), (0, 0xc0000), (1, 0xd0000)] {
        put_back(directory.path(), &start);
        let device = open_image(text(&paths[image]), format(&paths[image]), false).unwrap();
        let mut sector = before[image][at / 512 * 512..][..512].to_vec();
        sector[at % 512] = !sector[at % 512];
        if sector[..] == after[image][at / 512 * 512..][..512] {
            sector[at % 512] ^= 1;
        }
        device.write_at(at as u64 / 512 * 512, &sector).unwrap();
        device.flush().unwrap();
        drop(device);
        let changed = files(directory.path());
        let expected = format!("byte {:#x}", at / 512 * 512);
        for access in [Access::Commit, Access::Forget] {
            let said = session(&paths, access, None, Observer::default()).err().unwrap().to_string();
            assert!(said.contains(text(&paths[image])) && said.contains(&expected), "{said}");
            assert!(said.contains("delete the journal"), "{said}");
            assert!(files(directory.path()) == changed, "something was changed");
        }
        // Which is the way on.
        fs::remove_file(&journal).unwrap();
        let (taken, notes) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
        assert_eq!(notes, [""; 0]);
        let mut expected = before.clone();
        expected[image][at / 512 * 512..][..512].copy_from_slice(&sector);
        assert!(contents(&taken, 2) == expected);
    }
    // What the journal says nothing of is nobody's business: it is finished, and the other's stays.
    put_back(directory.path(), &start);
    let device = open_image(text(&paths[0]), "raw", false).unwrap();
    device.write_at(0x10000, &[0x5a; 512]).unwrap();
    drop(device);
    let (finished, notes) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
    assert!(notes[0].contains("complete now"), "{notes:?}");
    let mut expected = after;
    expected[0][0x10000..][..512].fill(0x5a);
    assert!(contents(&finished, 2) == expected);
}

#[test] // A pointer may be left behind when its journal is done, and a later one gets the same name.
fn a_pointer_to_a_later_journal_is_nothing() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["one.raw", "two.raw"]);
    leave_journal(&paths, &before);
    let pointer = journal_of(&paths[1]);
    let stale = fs::read(&pointer).unwrap();
    let (both, _) = session(&paths, Access::Commit, None, Observer::default()).unwrap();
    let now = contents(&both, 2);
    drop(both);
    leave_journal(&paths[..1], &now[..1]);
    fs::write(&pointer, stale).unwrap();
    let (alone, notes) = session(&paths[1..], Access::Commit, None, Observer::default()).unwrap();
    assert_eq!(notes, [""; 0]);
    assert!(contents(&alone, 1)[0] == now[1]);
    assert!(!pointer.exists() && journal_of(&paths[0]).exists());
}

#[test] // It was waited for, without an end.
fn a_pipe_in_the_place_of_a_journal_is_refused() {
    let directory = testkit::tempdir();
    let (paths, _) = make(directory.path(), &["one.raw"]);
    let journal = journal_of(&paths[0]);
    testkit::run_ok("mkfifo", [&journal]);
    let said = refusal(&paths);
    assert!(said.contains(text(&journal)), "{said}");
}

#[test] // Through an overlay, a half changed backing file would pass for a whole one.
fn a_backing_file_with_a_journal_is_refused() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["base.raw"]);
    let after = leave_journal(&paths, &before);
    let overlay = directory.path().join("overlay.qcow2");
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", text(&overlay)];
    testkit::run_ok("qemu-img", arguments);
    let said = open_image(text(&overlay), "qcow2", true).err().unwrap().to_string();
    assert!(said.contains("base.raw.vmcraft-journal") && said.contains("open it by itself first"), "{said}");
    drop(session(&paths, Access::Commit, None, Observer::default()).unwrap());
    assert!(read_all(&*open_image(text(&overlay), "qcow2", true).unwrap()) == after[0]);
}

#[test] // Whatever happened to a journal, what is not exactly right is never applied.
fn damaged_journals_are_refused() {
    let directory = testkit::tempdir();
    let (paths, before) = make(directory.path(), &["disk.raw"]);
    let after = leave_journal(&paths, &before);
    let path = journal_of(&paths[0]);
    let journal = fs::read(&path).unwrap();
    let image = fs::read(&paths[0]).unwrap();
    let try_one = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        match session(&paths, Access::Commit, None, Observer::default()) {
            Ok((transaction, _)) => {
                assert!(contents(&transaction, 1) == after, "{what}: accepted, and not what was written");
                drop(transaction);
                fs::write(&paths[0], &image).unwrap();
                true
            }
            Err(e) => {
                let said = e.to_string();
                assert!(said.contains("damaged") && said.contains("restore them from a backup"), "{said}");
                assert!(fs::read(&paths[0]).unwrap() == image, "{what}: the image was changed");
                false
            }
        }
    };
    let mut noise = Noise::new(9);
    // Everywhere in the header, and in a sample of all the rest.
    let places = (0..92).chain((0..150).map(|_| usize::try_from(noise.below(journal.len() as u64)).unwrap()));
    let index = usize::try_from(u64::from_le_bytes(journal[40..48].try_into().unwrap())).unwrap();
    let mut accepted = 0;
    for at in places.chain((index..journal.len()).step_by(7)) {
        let mut bytes = journal.clone();
        bytes[at] ^= 1 << (at % 8);
        let is_accepted = try_one(&bytes, &format!("bit {at:#x}"));
        // Only what no granule is in may be changed.
        assert!(!is_accepted || (4096..index).contains(&at), "byte {at:#x} does not matter");
        accepted += u32::from(is_accepted);
    }
    assert!(accepted < 120, "{accepted} changes of content went unnoticed");
    for len in (0..journal.len()).step_by(1 << 16).chain([0, 1, 91, 92, 4095, 4096, journal.len() - 1]) {
        assert!(!try_one(&journal[..len], &format!("cut off at {len}")), "cut off at {len}");
    }
    assert!(try_one(&journal, "the journal itself"));
}

#[test] // The host's disk is full: nothing changed, nothing is left, and there is room for less.
fn a_full_disk_of_the_host_changes_nothing() {
    if !testkit::have_root() {
        testkit::skip("a full disk of the host: mounting a tmpfs needs root");
        return;
    }
    let directory = testkit::tempdir();
    testkit::run_ok("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", text(directory.path())]);
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            testkit::run("umount", ["-l", text(&self.0)]);
        }
    }
    let _unmount = Unmount(directory.path().into());
    let path = directory.path().join("disk.raw");
    fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let before = files(directory.path());
    for memory in [64 << 20, 1 << 20] {
        let disks = vec![disk(&path, Access::Commit, None)];
        let options =
            TransactionOptions { memory, spill_directories: Vec::new(), ..TransactionOptions::default() };
        let (transaction, _) = Transaction::open(disks, options, &mut |_, _| unreachable!()).unwrap();
        let device = transaction.device(0).unwrap();
        device.write_at(5 << 20, &[5; 4096]).unwrap();
        transaction.savepoint();
        let written = device.write_at(0, &vec![1; 8 << 20]);
        let error = if memory > 8 << 20 { transaction.commit() } else { written }.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains(text(directory.path())), "{error}");
        assert!(files(directory.path()) == before, "something was left behind");
        transaction.rollback_to_savepoint();
        let mut expected = vec![0; 16 << 20];
        expected[5 << 20..][..4096].fill(5);
        assert_same(&read_all(&device), &expected, "the state before");
        transaction.commit().unwrap();
        drop((device, transaction));
        assert_same(&fs::read(&path).unwrap(), &expected, "the image");
        fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    }
}
