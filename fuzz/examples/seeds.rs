//! Writes the inputs that fuzzing starts from, made of the images in `fixtures/` and by the formats' own tools, into
//! `corpus/TARGET/` of the directory given.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use testkit::{run_ok, tempdir, volumes};
use vmcraft_fuzz::{encode, thin_kind};

fn main() {
    let corpus = std::env::args_os().nth(1).expect("the directory of the corpus");
    let corpus = Path::new(&corpus);
    let save = |target: &str, name: &str, bytes: &[u8]| {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(dir.join(name), bytes))
            .expect("a place for the seeds");
    };
    for name in volumes::names("") {
        let case = volumes::case(&name);
        let disks: Vec<Vec<u8>> = case.disks.iter().map(|disk| fs::read(disk).expect("a disk")).collect();
        save("volumes", &name, &encode(&disks, |_| 0));
        if name.starts_with("lvm-") || name == "stack-thin-on-raid" {
            save("lvm_text", &name, &lvm_text(&disks[0]));
        }
        if let Some(json) = luks2_json(&disks) {
            save("luks2_json", &name, json);
        }
    }
    let dir = tempdir();
    let metadata = testkit::workspace().join("fixtures/images/volumes/dm-thin/metadata.img.zst");
    let image = dir.path().join("metadata.img");
    run_ok("zstd", ["-dqf".as_ref(), metadata.as_os_str(), "-o".as_ref(), image.as_os_str()]);
    save("thin", "metadata", &encode(&[fs::read(&image).expect("the metadata")], thin_kind));

    for (index, options) in
        ["-text2", "-text3", "-text4", "-text4 -O inline_data,^has_journal -I 256"].iter().enumerate()
    {
        let image = dir.path().join("ext4.img");
        let _ = fs::remove_file(&image);
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("dir")).expect("a directory");
        fs::write(tree.join("hello"), "hello\n").expect("a file");
        fs::write(tree.join("dir/1"), vec![1; 9000]).expect("a file");
        let mut words = vec!["-q", "-F", "-b", "1024"];
        let options = options.replace("-text", "-t ext");
        words.extend(options.split(' '));
        // Checksums of metadata would keep the fuzzer from what is behind them.
        words.extend(["-O", "^metadata_csum,^uninit_bg", "-N", "32", "-d"]);
        run_ok(
            "mke2fs",
            words.into_iter().map(OsString::from).chain([tree.into(), image.clone().into(), "512".into()]),
        );
        save("ext4", &index.to_string(), &encode(&[fs::read(&image).expect("the image")], |_| 0));
    }
    for (name, options) in [
        ("v2", "compat=0.10,cluster_size=512"),
        ("v3", "compat=1.1,cluster_size=512"),
        ("extended", "extended_l2=on,cluster_size=16384"),
        ("wide", "refcount_bits=64,cluster_size=4096"),
    ] {
        let image = dir.path().join("image.qcow2");
        let words = ["create", "-q", "-f", "qcow2", "-o", options];
        run_ok(
            "qemu-img",
            words.map(OsString::from).into_iter().chain([image.clone().into(), "256K".into()]),
        );
        let write = ["-f", "qcow2", "-c", "write -P 7 0 3k", "-c", "write -P 8 100k 2k"];
        run_ok("qemu-io", write.map(OsString::from).into_iter().chain([image.clone().into()]));
        save("qcow2", name, &fs::read(&image).expect("the image"));
    }
}

/// The label's sector and the newest text of a physical volume.
fn lvm_text(disk: &[u8]) -> Vec<u8> {
    let le64 = |at: usize| u64::from_le_bytes(disk[at..at + 8].try_into().expect("8 bytes")) as usize;
    let (offset, size) = (le64(4096 + 40), le64(4096 + 48));
    let text = disk.get(4096 + offset..4096 + offset + size).unwrap_or_default();
    [&disk[512..1024], text].concat()
}

/// The text of the first LUKS2 header there is.
fn luks2_json(disks: &[Vec<u8>]) -> Option<&[u8]> {
    disks.iter().find_map(|disk| {
        let at = disk.chunks(512).position(|sector| sector.starts_with(b"LUKS\xba\xbe\0\x02"))? * 512;
        disk.get(at + 4096..at + 16384)?.split(|byte| *byte == 0).next()
    })
}
