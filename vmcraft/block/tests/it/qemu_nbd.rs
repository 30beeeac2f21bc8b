//! Images that a `qemu-nbd` child opens.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::Digest;
use vmcraft_block::image::{self, Format, Image, OpenOptions};

use crate::support::{
    Noise, assert_same, given, mixed_disk, open, options, qemu_bytes, read_all, refusal, text, write_file,
};

const MIB: usize = 1 << 20;

/// The formats that `qemu-img` can make, with the options of each kind.
const KINDS: &[(&str, &str)] = &[
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=fixed"),
    ("vdi", "static=off"),
    ("qed", "cluster_size=64k"),
    ("parallels", "cluster_size=1M"),
    ("qcow", "encryption=off"),
];

/// A disk of these bytes in a format, made by `qemu-img`.
fn converted(dir: &Path, bytes: &[u8], format: &str, option: &str) -> PathBuf {
    let raw = write_file(dir, "raw", bytes);
    let name = format!("{format}-{}", option.split(['=', ',']).nth(1).unwrap_or_default());
    let image = dir.join(name);
    let arguments = ["convert", "-f", "raw", "-O", format, "-o", option, text(&raw), text(&image)];
    testkit::run_ok("qemu-img", arguments);
    image
}

fn via_qemu(format: &str) -> Format {
    Format::ViaQemu(format.into())
}

#[test] // Detected, and read as qemu-img wrote them.
fn every_format_reads_as_it_was_written() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(11, 8 * MIB);
    for (format, option) in KINDS {
        let path = converted(dir.path(), &bytes, format, option);
        let image = open(&path);
        assert_eq!(image.format, via_qemu(format), "{option}");
        assert!(image.device.is_read_only());
        // Some formats round the size up.
        let read = read_all(&*image.device);
        assert!(read.len() - bytes.len() < 2 * MIB, "{format} {option}: {}", read.len());
        assert_same(&read[..bytes.len()], &bytes, &format!("{format} {option}"));
        assert!(read[bytes.len()..].iter().all(|byte| *byte == 0));
        assert!(image.device.extents().is_some());
    }
}

#[test] // Written through us, read by qemu-img.
fn writes_arrive_in_the_image() {
    const SIZE: usize = 8 * MIB;
    let dir = testkit::tempdir();
    for (format, option) in KINDS {
        if matches!(*option, "subformat=streamOptimized" | "encryption=off") || option.contains("MaxExtent") {
            continue; // QEMU does not write the first, and we not the others.
        }
        if *option == "subformat=monolithicFlat" {
            continue; // Several files.
        }
        let mut expected = mixed_disk(12, SIZE);
        let path = converted(dir.path(), &expected, format, option);
        let options = OpenOptions { read_only: false, ..given(via_qemu(format)) };
        let image = image::open(text(&path), &options).unwrap_or_else(|e| panic!("{e}"));
        let mut noise = Noise::new(13);
        for _ in 0..60 {
            let at = usize::try_from(noise.below(SIZE as u64)).unwrap();
            let len = usize::try_from(noise.below(200_000)).unwrap().min(SIZE - at);
            match noise.below(3) {
                0 => {
                    image.device.discard().unwrap().write_zeroes(at as u64, len as u64).unwrap();
                    expected[at..at + len].fill(0);
                }
                _ => {
                    let bytes = noise.bytes(len);
                    image.device.write_at(at as u64, &bytes).unwrap();
                    expected[at..at + len].copy_from_slice(&bytes);
                }
            }
        }
        image.device.flush().unwrap();
        drop(image);
        // What was written is complete.
        let after = qemu_img_bytes(&path, format);
        assert_same(&after[..SIZE], &expected, &format!("{format} {option}"));
        if !matches!(*format, "vpc") {
            testkit::run_ok("qemu-img", ["check", "-q", "-U", "-f", format, text(&path)]);
        }
    }
}

/// What the image holds. `-U`: a process that another test starts at this moment has our lock until it
/// runs its program.
fn qemu_img_bytes(path: &Path, format: &str) -> Vec<u8> {
    let raw = path.with_extension("out");
    testkit::run_ok("qemu-img", ["convert", "-U", "-f", format, "-O", "raw", text(path), text(&raw)]);
    std::fs::read(&raw).unwrap()
}

#[test] // Real images, by the hash of what qemu-img made of them.
fn corpus_reads_as_qemu_img_reads_it() {
    let Some(corpus) = testkit::corpus::dir() else { return };
    let dir = testkit::tempdir();
    let mut compared = 0;
    for kind in ["vmdk/", "vhd/", "vhdx/", "vdi/"] {
        for row in testkit::corpus::rows(&corpus, kind) {
            let facts: serde_json::Value = serde_json::from_str(&row.facts).unwrap();
            let path = testkit::corpus::unpack(&corpus, &row, dir.path());
            if row.path.ends_with("image_t1.vmdk") {
                let extents = testkit::corpus::rows(&corpus, "vmdk/openslx-t1/image_t1-s001");
                testkit::corpus::unpack(&corpus, &extents[0], dir.path());
            }
            let opened = image::open(text(&path), &options());
            match (facts["qemu"]["raw_sha256"].as_str(), opened) {
                (Some(expected), Ok(image)) => {
                    let size = image.device.size();
                    assert_eq!(Some(size), facts["qemu"]["raw_size"].as_u64(), "{}", row.path);
                    if size <= 2 << 30 {
                        assert_eq!(sha256(&image), expected, "{}", row.path);
                        compared += 1;
                    }
                }
                (Some(_), Err(e)) => panic!("{e}"),
                // What QEMU refuses may be refused, in words, or read.
                (None, Ok(image)) => drop(image.device.read_at(0, &mut [0; 512])),
                (None, Err(e)) => assert!(e.to_string().contains(text(&path)), "{e}"),
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
    assert!(compared >= 10, "only {compared} images were compared");
}

fn sha256(image: &Image) -> String {
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; 4 * MIB];
    let mut offset = 0;
    while offset < image.device.size() {
        let len = usize::try_from(image.device.size() - offset).unwrap().min(piece.len());
        image.device.read_at(offset, &mut piece[..len]).unwrap();
        hash.update(&piece[..len]);
        offset += len as u64;
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A chain of three VMDKs of a kind, the top one's path, and what is in it.
fn vmdk_chain(dir: &Path, subformat: &str) -> (PathBuf, Vec<u8>) {
    let mut bytes = mixed_disk(14, 4 * MIB);
    let path = |name: &str| dir.join(format!("{subformat}-{name}.vmdk"));
    // Extents are named after the image, so it must be made under its own name.
    let raw = write_file(dir, "raw", &bytes);
    let (top, option) = (path("0"), format!("subformat={subformat}"));
    let arguments = ["convert", "-f", "raw", "-O", "vmdk", "-o", &option, text(&raw), text(&top)];
    testkit::run_ok("qemu-img", arguments);
    for (below, above, at) in [("0", path("1"), MIB), ("1", path("2"), 2 * MIB)] {
        let base = format!("{subformat}-{below}.vmdk");
        let option = "subformat=monolithicSparse";
        let arguments = ["create", "-q", "-f", "vmdk", "-o", option, "-F", "vmdk", "-b", &base, text(&above)];
        testkit::run_ok("qemu-img", arguments);
        let write = format!("write -P 77 {at} 300k");
        testkit::run_ok("qemu-io", ["-f", "vmdk", "-c", &write, text(&above)]);
        bytes[at..at + 300 * 1024].fill(77);
    }
    (path("2"), bytes)
}

#[test] // Extents and parents are found by us, and the gate is asked about each.
fn vmdk_chain_goes_through_the_gate() {
    let dir = testkit::tempdir();
    let (path, bytes) = vmdk_chain(dir.path(), "monolithicFlat");
    assert_same(&qemu_bytes(&path), &bytes, "qemu-img");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let gate = {
        let asked = asked.clone();
        Arc::new(move |reference: &image::Reference<'_>| {
            asked.lock().unwrap().push((reference.named.to_owned(), reference.role));
            Ok(())
        })
    };
    let image = image::open(text(&path), &OpenOptions { gate, ..OpenOptions::default() }).unwrap();
    assert_same(&read_all(&*image.device), &bytes, "the chain");
    let expected = [
        ("monolithicFlat-1.vmdk", "backing file"),
        ("monolithicFlat-0.vmdk", "backing file"),
        ("monolithicFlat-0-flat.vmdk", "data file"),
    ];
    assert_eq!(*asked.lock().unwrap(), expected.map(|(name, role)| (name.to_owned(), role)));
    let message = refusal(&path, &OpenOptions::default());
    assert!(message.contains("refers to \"monolithicFlat-1.vmdk\", which was not opened"), "{message}");
    // Two files below, the error leads there.
    std::fs::remove_file(dir.path().join("monolithicFlat-0-flat.vmdk")).unwrap();
    let message = refusal(&path, &options());
    assert!(message.contains("monolithicFlat-1.vmdk: ") && message.contains("0-flat.vmdk"), "{message}");
}

#[test]
fn vmdk_chain_of_split_images_reads() {
    let dir = testkit::tempdir();
    for subformat in ["twoGbMaxExtentSparse", "monolithicSparse"] {
        let (path, bytes) = vmdk_chain(dir.path(), subformat);
        assert_same(&read_all(&*open(&path).device), &bytes, subformat);
    }
}

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
                          createType=\"monolithicFlat\"\n";

#[test] // A FIFO would stop whoever opens it; QEMU must not even try.
fn vmdk_names_lead_nowhere_that_the_gate_does_not_allow() {
    let dir = testkit::tempdir();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = text(&fifo);
    let gated = |reference: &image::Reference<'_>| {
        if reference.resolved.ends_with("good") { Ok(()) } else { Err("not allowed".to_owned()) }
    };
    let gated = OpenOptions { gate: Arc::new(gated), ..OpenOptions::default() };
    write_file(dir.path(), "good", &[7; 4096]);
    let with = |lines: &str| write_file(dir.path(), "d.vmdk", format!("{DESCRIPTOR}{lines}").as_bytes());
    for (lines, says) in [
        (format!("RW 8 FLAT \"{fifo}\" 0\n"), "not allowed"),
        (format!("RW 8 FLAT \"good\" 0\nRW 8 FLAT \"{fifo}\" 0\n"), "not allowed"),
        ("RW 8 FLAT \"nbd://localhost/x\" 0\n".to_owned(), "the protocol \"nbd\""),
        ("RW 8 FLAT \"fat:rw:/\" 0\n".to_owned(), "the protocol \"fat\""),
        (
            "RW 8 FLAT \"json:{'driver':'raw','file':{'driver':'file','filename':'/good'}}\" 0\n"
                .replace('\'', "\\\""),
            "json:",
        ),
    ] {
        let message = refusal(&with(&lines), &gated);
        assert!(message.contains(says), "{lines}: {message}");
    }
    let message = refusal(&with(&format!("RW 8 FLAT \"{fifo}\" 0\n")), &options());
    assert!(message.contains("is a FIFO, not a disk image"), "{message}");
    // Names that count for nothing are not followed either.
    let path = with(&format!("parentFileNameHint=\"{fifo}\"\nRW 8 FLAT \"good\" 0\n"));
    let image = image::open(text(&path), &gated).unwrap_or_else(|e| panic!("{e}"));
    assert_same(&read_all(&*image.device), &[7; 4096], "the extent");
    // A descriptor where QEMU, but not we, would expect one.
    let path =
        write_file(dir.path(), "d.vmdk", format!("#\n{DESCRIPTOR}RW 8 FLAT \"{fifo}\" 0\n").as_bytes());
    let message = refusal(&path, &given(via_qemu("vmdk")));
    assert!(message.contains("it is no descriptor"), "{message}");
}

#[test] // Within a sparse extent, and in the embedded descriptor of one without a capacity.
fn vmdk_names_in_sparse_headers_are_not_followed() {
    let dir = testkit::tempdir();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let bytes = mixed_disk(15, MIB);
    let path = converted(dir.path(), &bytes, "vmdk", "subformat=monolithicSparse");
    let file = std::fs::File::options().write(true).read(true).open(&path).unwrap();
    // The embedded descriptor, with a parent's name that has no parent to go with.
    let hint = format!("parentFileNameHint=\"{}\"\n", text(&fifo));
    let mut descriptor = vec![0; 1024];
    file.read_exact_at(&mut descriptor, 512).unwrap();
    let end = descriptor.iter().position(|byte| *byte == 0).unwrap();
    file.write_all_at(hint.as_bytes(), 512 + end as u64).unwrap();
    assert_same(&read_all(&*open(&path).device), &bytes, "with the hint");
    // A capacity of 0 makes QEMU read the embedded descriptor's extents.
    file.write_all_at(&[0; 8], 0x0c).unwrap();
    assert!(refusal(&path, &options()).contains("has no capacity"));
    let line = format!("RW 2048 SPARSE \"{}\"\n", path.file_name().unwrap().to_str().unwrap());
    let split = DESCRIPTOR.replace("monolithicFlat", "twoGbMaxExtentSparse");
    let outer = write_file(dir.path(), "outer.vmdk", format!("{split}{line}").as_bytes());
    assert!(refusal(&outer, &options()).contains("has no capacity"));
}

#[test] // Images that are only half of a disk must not be shown as a whole one.
fn images_that_need_a_parent_are_refused_by_name() {
    let dir = testkit::tempdir();
    write_file(dir.path(), "base", &[1; MIB]);
    for format in ["qed", "qcow"] {
        let path = dir.path().join(format);
        let base = dir.path().join("base");
        testkit::run_ok(
            "qemu-img",
            ["create", "-q", "-f", format, "-b", text(&base), "-F", "raw", text(&path)],
        );
        let message = refusal(&path, &options());
        assert!(message.contains(&format!("a {format} image with a backing file")), "{message}");
    }
    let path = converted(dir.path(), &mixed_disk(16, MIB), "vpc", "subformat=dynamic");
    let file = std::fs::File::options().write(true).read(true).open(&path).unwrap();
    let mut footer = [0; 512];
    file.read_exact_at(&mut footer, 0).unwrap();
    footer[60..64].copy_from_slice(&4u32.to_be_bytes());
    footer[64..68].fill(0);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    file.write_all_at(&footer, 0).unwrap();
    assert!(refusal(&path, &options()).contains("a differencing VHD"));
}

#[test] // Bit flips in headers: an error or a disk, and no hang.
fn broken_images_end_in_an_error() {
    let dir = testkit::tempdir();
    for (format, option) in
        [("vmdk", "subformat=monolithicSparse"), ("vdi", "static=off"), ("vhdx", "subformat=dynamic")]
    {
        let path = converted(dir.path(), &mixed_disk(17, MIB), format, option);
        let whole = std::fs::read(&path).unwrap();
        let mut noise = Noise::new(18);
        let mut refused = 0;
        for _ in 0..6 {
            let mut bytes = whole.clone();
            for _ in 0..64 {
                let at = usize::try_from(noise.below(2048)).unwrap();
                bytes[at] ^= 1 << noise.below(8);
            }
            std::fs::write(&path, &bytes).unwrap();
            match image::open(text(&path), &given(via_qemu(format))) {
                Ok(image) => _ = image.device.read_at(0, &mut [0; 4096]),
                Err(e) => {
                    assert!(e.to_string().starts_with(text(&path)), "{e}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{format}");
        std::fs::write(&path, b"").unwrap();
        assert!(image::open(text(&path), &given(via_qemu(format))).is_err());
    }
}

#[test] // What the child says is in the message, on one line, with the image's name.
fn the_childs_words_are_shown() {
    let dir = testkit::tempdir();
    let path = converted(dir.path(), &mixed_disk(19, MIB), "vdi", "static=off");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 4], 0x44).unwrap(); // The version.
    let message = refusal(&path, &options());
    assert!(message.starts_with(&format!("{}: qemu-nbd cannot open it: ", text(&path))), "{message}");
    assert!(message.contains("unsupported VDI image (version"), "{message}");
}

#[test] // QEMU's own lock is the one that counts here.
fn image_in_use_is_refused_or_read_with_a_warning() {
    let dir = testkit::tempdir();
    let bytes = mixed_disk(20, MIB);
    let path = converted(dir.path(), &bytes, "vdi", "static=off");
    let writer = OpenOptions { read_only: false, ..given(via_qemu("vdi")) };
    let first = image::open(text(&path), &writer).unwrap_or_else(|e| panic!("{e}"));
    for options in [options(), writer] {
        let message = refusal(&path, &options);
        assert!(message.contains("in use by another process (QEMU did not get"), "{message}");
    }
    let image = image::open(text(&path), &OpenOptions { allow_in_use: true, ..options() }).unwrap();
    assert!(image.warnings.iter().any(|warning| warning.contains("another process")), "{:?}", image.warnings);
    assert_same(&read_all(&*image.device), &bytes, "while it is in use");
    drop(first);
    assert!(open(&path).warnings.is_empty());
}
