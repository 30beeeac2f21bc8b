//! A journal that is found when images are opened. The input has how it is found (u8), two images, and the
//! journal beside the first of them. Only what its checksums cover may reach an image.
#![no_main]

use std::ffi::OsString;
use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vmcraft_block::{Access, BlockDevice, Transaction};
use vmcraft_fuzz::section::{self, Image, open_image, session_disk, session_options};
use vmcraft_fuzz::{decode, read_around};

/// Only the first image is named.
const ALONE: u8 = 8;
/// The second image has something that leads to the journal.
const POINTER: u8 = 16;

static NAMES: LazyLock<[OsString; 2]> = LazyLock::new(section::journal_names);

fn look(device: &dyn BlockDevice) -> Vec<Option<Vec<u8>>> {
    let size = device.size();
    let read = |at: u64| {
        let mut bytes = vec![0; usize::try_from(size.saturating_sub(at).min(70_000)).unwrap_or(0)];
        device.read_at(at, &mut bytes).ok().map(|()| bytes)
    };
    [0, 70_000, size / 2, size.saturating_sub(70_000)].map(read).to_vec()
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, input)) = input.split_first() else { return };
    let mut files = decode(input).into_iter();
    let (Some(first), Some(second), Some(file)) = (files.next(), files.next(), files.next()) else { return };
    let Some(mut journal) = section::bytes(&*file) else { return };
    section::seal(how, &mut journal, &[&*first, &*second]);

    let dir = testkit::tempdir();
    let [path, other] = NAMES.each_ref().map(|name| dir.path().join(name));
    fs::write(&path, &journal).expect("room for the journal");
    if how & POINTER != 0 {
        fs::write(other, section::pointer(&path)).expect("room for the pointer");
    }
    let images = [first, second].map(Image::new);
    let open = |access: Access| {
        let named = &images[..if how & ALONE != 0 { 1 } else { 2 }];
        let disks =
            named.iter().enumerate().map(|(number, image)| session_disk(number, image, access.clone()));
        Transaction::open(disks.collect(), session_options(dir.path()), &mut open_image(&images)).ok()
    };
    let shown = open(Access::Forget).map(|(transaction, _)| {
        transaction.device(0).inspect(|device| read_around(&**device)).map(|device| look(&*device))
    });
    assert!(!images.iter().any(Image::is_written), "written by who only reads");
    assert!(fs::read(&path).is_ok_and(|now| now == journal), "the journal is there for who writes");

    let opened = open(Access::Commit);
    if images.iter().any(Image::is_written) {
        assert!(section::is_sealed(&journal), "content was written whose checksum does not fit");
    }
    if let Some((transaction, notes)) = opened
        && !notes.is_empty()
    {
        assert!(!path.exists(), "the finished journal is gone");
        if let Some(shown) = shown {
            assert!(shown == transaction.device(0).map(|device| look(&*device)), "who reads sees the same");
        }
        let (_, notes) = open(Access::Commit).expect("nothing is left to be done");
        assert!(notes.is_empty(), "{notes:?}");
    }
});
