//! A commit to the disks of an array that is cut off anywhere: after recovery the array is as before or as after, and
//! its members fit each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::device::{Hooked, Request};
use vmcraft_block::image::{self, OpenOptions};
use vmcraft_block::{
    Access, BlockDevice, ImageIdentity, Observer, Transaction, TransactionDisk, TransactionOptions,
};
use vmcraft_volume::Member;

use crate::md::{content, fixture, only};
use crate::md_write::scribble;

type Files = BTreeMap<PathBuf, Vec<u8>>;
type Before = dyn Fn() + Send + Sync;

fn files(directory: &Path) -> Files {
    let entries = std::fs::read_dir(directory).expect("listed").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
}

/// A disk that lets the crash happen before each write to it.
fn watched(inner: Arc<dyn BlockDevice>, before: Arc<Before>) -> Arc<dyn BlockDevice> {
    let hook = move |request| {
        if matches!(request, Request::Write(..)) {
            before();
        }
        Ok(())
    };
    Arc::new(Hooked { inner, hook })
}

fn open(path: &str, read_only: bool) -> vmcraft_block::Result<Arc<dyn BlockDevice>> {
    let options =
        OpenOptions { format: Some("raw".parse().expect("a format")), read_only, ..OpenOptions::default() };
    // A process that another test starts has all our files open until it is another program.
    for _ in 0..100 {
        match image::open(path, &options) {
            Err(vmcraft_block::Error::InUse { .. }) => std::thread::sleep(Duration::from_millis(20)),
            opened => return Ok(opened?.device),
        }
    }
    Ok(image::open(path, &options)?.device)
}

/// The array over the disks of a session, and its members.
fn session(paths: &[PathBuf], before: &Arc<Before>, observer: Observer) -> (Transaction, Vec<Member>) {
    let disks = paths.iter().map(|path| {
        let name = path.to_str().expect("UTF-8");
        TransactionDisk {
            device: watched(open(name, false).expect("opened"), before.clone()),
            name: name.into(),
            access: Access::Commit,
            image: Some(ImageIdentity::of(name, "raw").expect("identified")),
        }
    });
    let options = TransactionOptions { observer, ..TransactionOptions::default() };
    let (transaction, _) =
        Transaction::open(disks.collect(), options, &mut |name, _| open(name, false)).expect("recovered");
    let members = paths.iter().enumerate().map(|(index, path)| Member {
        name: path.display().to_string(),
        device: transaction.device(index).expect("a disk"),
    });
    let members = members.collect();
    (transaction, members)
}

fn crash_everywhere(name: &str, without: &[usize]) {
    let directory = testkit::tempdir();
    let fixture = fixture(name);
    let kept = fixture.members.iter().enumerate().filter(|(index, _)| !without.contains(index));
    let paths: Vec<PathBuf> = kept
        .map(|(index, bytes)| {
            let path = directory.path().join(format!("{index}.raw"));
            std::fs::write(&path, bytes).expect("written");
            path
        })
        .collect();
    let copies: Arc<Mutex<Vec<Files>>> = Arc::default();
    let crash: Arc<Before> = {
        let (copies, directory) = (copies.clone(), directory.path().to_owned());
        Arc::new(move || {
            let copy = files(&directory);
            let mut copies = copies.lock().expect("whole");
            if copies.last() != Some(&copy) {
                copies.push(copy);
            }
        })
    };
    let observer = {
        let crash = crash.clone();
        Observer::new(move |_| {
            crash();
            Ok(())
        })
    };
    let (transaction, members) = session(&paths, &crash, observer);
    let device = only(&members).open().expect("open");
    let before = content(&*device);
    let after = scribble(&*device);
    transaction.commit().expect("committed");
    crash();
    drop((device, members, transaction));
    let copies = std::mem::take(&mut *copies.lock().expect("whole"));
    assert!(copies.len() > 10, "only {} crashes", copies.len());
    let mut seen = [0, 0];
    for copy in copies {
        for path in files(directory.path()).into_keys().filter(|path| !copy.contains_key(path)) {
            std::fs::remove_file(path).expect("removed");
        }
        for (path, bytes) in &copy {
            std::fs::write(path, bytes).expect("put back");
        }
        let nothing: Arc<Before> = Arc::new(|| {});
        let (_transaction, members) = session(&paths, &nothing, Observer::default());
        let array = only(&members);
        assert_eq!(array.missing.len(), without.len(), "{name}: {:?}", array.warnings);
        let now = content(&*array.open().expect("open"));
        let is_after = now == after;
        assert!(is_after || now == before, "{name}: neither as before nor as after");
        seen[usize::from(is_after)] += 1;
        // With all members there, each of them is what the others make it.
        for lost in 0..if without.is_empty() { members.len() } else { 0 } {
            let mut kept = members.clone();
            kept.remove(lost);
            let degraded = only(&kept).open().expect("open");
            assert!(content(&*degraded) == now, "{name}: member {lost} does not fit the others");
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{name}: {seen:?}");
}

#[test]
fn every_crash_of_a_commit_leaves_whole_stripes() {
    crash_everywhere("raid5-0.90", &[]);
    crash_everywhere("raid1-1.0", &[]);
}

#[test] // The superblocks that tell of a degraded write reach the members with the data, or not at all.
fn every_crash_of_a_degraded_commit_leaves_members_of_one_mind() {
    crash_everywhere("raid5-bitmap", &[1]);
}
