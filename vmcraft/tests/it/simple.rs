//! The library's short ways.

use vmcraft::{DriveOptions, Guest};

use crate::sample::Sample;

#[test]
fn an_image_is_opened_and_read_in_three_lines() {
    let sample = Sample::new();
    let mut guest = Guest::open(sample.image()).unwrap();
    guest.mount("/dev/sda".into(), "/".into()).unwrap();
    assert_eq!(guest.read("/link").unwrap(), guest.read(b"/etc/passwd").unwrap());
    // A tree without an operating system is neither.
    assert!(!guest.is_linux().unwrap() && !guest.is_windows().unwrap());
}

#[test]
fn what_cannot_be_opened_is_named() {
    let missing = Guest::open("/nonexistent/disk.img").err().unwrap().to_string();
    assert!(missing.starts_with("/nonexistent/disk.img: "), "{missing}");
    let sample = Sample::new();
    let options =
        DriveOptions { format: Some(vmcraft_block::image::Format::Qcow2), ..DriveOptions::default() };
    assert!(Guest::open_with(sample.image(), options).is_err());
}
