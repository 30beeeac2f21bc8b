//! Raw images.

use vmcraft_block::image::{self, Format, OpenOptions};

use crate::support::{given, open, text, write_file};

fn writable() -> OpenOptions {
    OpenOptions { read_only: false, ..given(Format::Raw) }
}

#[test] // QEMU's rule: the last sector is filled up with zeros.
fn size_is_rounded_up_to_a_sector() {
    let dir = testkit::tempdir();
    let path = write_file(dir.path(), "odd.raw", &[7; 1000]);
    let image = open(&path);
    let said = testkit::run_ok("qemu-img", ["info", "--output=json", "-f", "raw", text(&path)]);
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(info["virtual-size"].as_u64(), Some(image.device.size()));
    let mut end = [1; 100];
    image.device.read_at(924, &mut end).unwrap();
    assert_eq!(end[..76], [7; 76]);
    assert_eq!(end[76..], [0; 24]);
    assert!(image.device.read_at(1000, &mut end).is_err());

    drop(image);
    let image = image::open(text(&path), &writable()).unwrap();
    image.device.write_at(990, &[9; 34]).unwrap();
    image.device.discard().unwrap().write_zeroes(1020, 4).unwrap();
    image.device.read_at(924, &mut end).unwrap();
    assert_eq!(end[66..], [&[9; 30][..], &[0; 4]].concat());
}

#[test] // A sparse disk of 1 TiB takes no time to copy, as its holes are known.
fn holes_are_seen_and_made() {
    let dir = testkit::tempdir();
    let path = dir.path().join("sparse.raw");
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let image = image::open(text(&path), &writable()).unwrap();
    let device = &image.device;
    let map = device.extents().unwrap();
    let hole = map.extent_at(12345).unwrap();
    assert_eq!((hole.len, hole.is_hole), ((1 << 40) - 12345, true));
    device.write_at(1 << 30, &[1; 1 << 20]).unwrap();
    let hole = map.extent_at(0).unwrap();
    assert_eq!((hole.len, hole.is_hole), (1 << 30, true));
    let data = map.extent_at(1 << 30).unwrap();
    assert_eq!((data.len, data.is_hole), (1 << 20, false));
    device.discard().unwrap().write_zeroes(1 << 30, 1 << 20).unwrap();
    assert!(map.extent_at(0).unwrap().len > 1 << 30, "the range is a hole again");
    let mut buf = [1; 4096];
    device.read_at((1 << 30) + 4096, &mut buf).unwrap();
    assert_eq!(buf, [0; 4096]);
    assert!(device.discard().unwrap().discard((1 << 40) - 1, 2).is_err());
}

#[test] // Whatever a caller does wrong, the image stays as it is.
fn read_only_images_are_not_written() {
    let dir = testkit::tempdir();
    let path = write_file(dir.path(), "disk.raw", &[7; 4096]);
    let image = open(&path);
    assert!(image.device.is_read_only());
    let kind = std::io::ErrorKind::ReadOnlyFilesystem;
    assert_eq!(image.device.write_at(0, &[1]).unwrap_err().kind(), kind);
    assert_eq!(image.device.discard().unwrap().discard(0, 512).unwrap_err().kind(), kind);
    assert_eq!(image.device.discard().unwrap().write_zeroes(0, 512).unwrap_err().kind(), kind);
    assert_eq!(std::fs::read(&path).unwrap(), [7; 4096]);
}
