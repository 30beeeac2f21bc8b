//! An undo file. The input has which of its checksums are made to fit (u8), two images, and the file: what it
//! has is put back all or not at all.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use vmcraft_fuzz::decode;
use vmcraft_fuzz::section::{self, Image, open_image, session_options};

fuzz_target!(|input: &[u8]| {
    let Some((&how, input)) = input.split_first() else { return };
    let mut files = decode(input).into_iter();
    let (Some(first), Some(second), Some(file)) = (files.next(), files.next(), files.next()) else { return };
    let Some(mut undo) = section::bytes(&*file) else { return };
    section::seal(how, &mut undo, &[&*first, &*second]);

    let dir = testkit::tempdir();
    let path = dir.path().join("undo");
    fs::write(&path, &undo).expect("room for the file");
    let images = [first, second].map(Image::new);
    let result = vmcraft_block::undo(&path, session_options(dir.path()), &mut open_image(&images));
    if images.iter().any(Image::is_written) {
        assert!(result.is_ok(), "half put back: {result:?}");
        assert!(section::is_sealed(&undo), "content was written whose checksum does not fit");
    }
    assert!(fs::read(&path).is_ok_and(|now| now == undo), "the file stays");
    assert!(dir.path().read_dir().is_ok_and(|files| files.count() == 1), "no journal is left");
});
