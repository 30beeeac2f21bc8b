//! Undo files: what a session changed is put back, exactly and only if nothing else did.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmcraft_block::image::{self, OpenOptions};
use vmcraft_block::{
    Access, BlockDevice, ImageIdentity, Transaction, TransactionDisk, TransactionOptions, undo,
};

use crate::support::{Noise, assert_same, mixed_disk, options, qemu_bytes, text, write_file};

const SIZE: usize = 1 << 20;

fn open_image(name: &str, format: &str) -> vmcraft_block::Result<Arc<dyn BlockDevice>> {
    let options = OpenOptions { format: Some(format.parse().unwrap()), read_only: false, ..options() };
    // A process that another test starts has all our files open until it is another program.
    for _ in 0..100 {
        match image::open(name, &options) {
            Err(vmcraft_block::Error::InUse { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            opened => return Ok(opened?.device),
        }
    }
    Ok(image::open(name, &options)?.device)
}

fn session(images: &[(PathBuf, &str)], undo: &Path) -> vmcraft_block::Result<Transaction> {
    let disks = images.iter().map(|(path, format)| TransactionDisk {
        device: open_image(text(path), format).unwrap(),
        name: text(path).into(),
        access: Access::Commit,
        image: Some(ImageIdentity::of(text(path), format).unwrap()),
    });
    let options = TransactionOptions { undo: Some(undo.into()), ..TransactionOptions::default() };
    Ok(Transaction::open(disks.collect(), options, &mut |_, _| unreachable!())?.0)
}

fn put_back(file: &Path) -> Result<Vec<String>, String> {
    undo(file, TransactionOptions::default(), &mut open_image).map_err(|e| e.to_string())
}

fn change(transaction: &Transaction, seed: u64) {
    let mut noise = Noise::new(seed);
    for index in 0..2 {
        let device = transaction.device(index).unwrap();
        for _ in 0..10 {
            let at = noise.below(SIZE as u64 - 70_000);
            let len = noise.below(70_000);
            match noise.below(4) {
                0 => device.discard().unwrap().discard(at, len).unwrap(),
                1 => device.discard().unwrap().write_zeroes(at, len).unwrap(),
                _ => {
                    let len = usize::try_from(len).unwrap();
                    device.write_at(at, &noise.bytes(len)).unwrap();
                }
            }
        }
    }
}

#[test]
fn what_a_session_changed_is_put_back() {
    let directory = testkit::tempdir();
    let disks = [mixed_disk(1, SIZE), mixed_disk(2, SIZE)];
    let raw = write_file(directory.path(), "one.raw", &disks[0]);
    let source = write_file(directory.path(), "source", &disks[1]);
    let qcow2 = directory.path().join("two.qcow2");
    testkit::run_ok("qemu-img", ["convert", "-O", "qcow2", text(&source), text(&qcow2)]);
    let images = [(raw.clone(), "raw"), (qcow2.clone(), "qcow2")];
    let file = directory.path().join("undo");
    let transaction = session(&images, &file).unwrap();
    for seed in 0..3 {
        change(&transaction, seed);
        transaction.commit().unwrap();
    }
    change(&transaction, 9);
    drop(transaction);
    // Said before anything is done, not at the commit.
    let refused = |file: &Path| session(&images, file).err().unwrap().to_string();
    assert!(refused(&file).contains("cannot make the undo file: there is such a file already"));
    let nowhere = directory.path().join("none").join("undo");
    assert!(refused(&nowhere).contains("cannot make the undo file: there is no directory"));
    let changed = [fs::read(&raw).unwrap(), qemu_bytes(&qcow2)];
    assert!(changed[0] != disks[0] && changed[1] != disks[1]);

    // Something else changed an image since: one byte that the session had written.
    let at = (0..SIZE).find(|at| changed[0][*at] != disks[0][*at]).unwrap();
    let mut other = changed[0].clone();
    other[at] ^= 0xff;
    fs::write(&raw, &other).unwrap();
    let said = put_back(&file).unwrap_err();
    assert!(said.contains("one.raw was changed since") && said.contains("Nothing was changed"), "{said}");
    assert_same(&fs::read(&raw).unwrap(), &other, "the image that was refused");
    assert_same(&qemu_bytes(&qcow2), &changed[1], "the other image");
    fs::write(&raw, &changed[0]).unwrap();

    // Damaged files put nothing back.
    let bytes = fs::read(&file).unwrap();
    let damaged = directory.path().join("damaged");
    // The last is content that the first commit changed.
    for at in [0, 20, 40, 83, 4096 + at] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&damaged, &bytes).unwrap();
        put_back(&damaged).unwrap_err();
        fs::write(&damaged, &bytes[..at]).unwrap();
        put_back(&damaged).unwrap_err();
    }
    // Neither do those whose second of three commits is damaged: it was taken for one that never was.
    let sections: Vec<usize> =
        (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"VMCRAFT\n")).collect();
    assert_eq!(sections.len(), 3);
    let index_of = |section: usize| {
        let field = bytes[section + 40..section + 48].try_into().unwrap();
        section + usize::try_from(u64::from_le_bytes(field)).unwrap()
    };
    for (at, len) in [(sections[1] + 50, 1), (sections[1], 4096), (index_of(sections[1]) + 100, 1)] {
        let mut bytes = bytes.clone();
        bytes[at..at + len].iter_mut().for_each(|byte| *byte = if len == 1 { !*byte } else { 0 });
        fs::write(&damaged, &bytes).unwrap();
        let said = put_back(&damaged).unwrap_err();
        assert!(said.contains(&format!("damaged at byte {:#x}", sections[1])), "{said}");
    }
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    let said = put_back(&damaged).unwrap_err();
    assert!(said.contains(&format!("damaged at byte {:#x}", sections[2])), "{said}");
    assert_same(&fs::read(&raw).unwrap(), &changed[0], "after damaged undo files");
    assert_same(&qemu_bytes(&qcow2), &changed[1], "after damaged undo files");

    let names = put_back(&file).unwrap();
    assert_eq!(names, [text(&raw), text(&qcow2)]);
    assert_same(&fs::read(&raw).unwrap(), &disks[0], "the raw image");
    assert_same(&qemu_bytes(&qcow2), &disks[1], "the qcow2 image");
    testkit::run_ok("qemu-img", ["check", "-q", "-U", "-f", "qcow2", text(&qcow2)]);
    // It has been put back: there is nothing that the file could be for.
    put_back(&file).unwrap_err();
    assert_same(&fs::read(&raw).unwrap(), &disks[0], "the raw image");
    fs::remove_file(&qcow2).unwrap();
    assert!(put_back(&file).unwrap_err().contains("two.qcow2: cannot find the image"));
}

#[test] // A commit that never happened is nothing to take back.
fn a_failed_commit_leaves_no_trace() {
    let directory = testkit::tempdir();
    let disk = mixed_disk(3, SIZE);
    let images = [
        (write_file(directory.path(), "one.raw", &disk), "raw"),
        (write_file(directory.path(), "two.raw", &disk), "raw"),
    ];
    let file = directory.path().join("undo");
    let transaction = session(&images, &file).unwrap();
    change(&transaction, 1);
    transaction.commit().unwrap();
    let len = fs::metadata(&file).unwrap().len();
    // The journal's name is taken.
    let journal = directory.path().join("one.raw.vmcraft-journal");
    fs::write(&journal, "in the way").unwrap();
    change(&transaction, 2);
    transaction.commit().unwrap_err();
    assert_eq!(fs::metadata(&file).unwrap().len(), len);
    fs::remove_file(&journal).unwrap();
    transaction.commit().unwrap();
    drop(transaction);
    put_back(&file).unwrap();
    for (path, _) in &images {
        assert_same(&fs::read(path).unwrap(), &disk, "the image");
    }
}

#[test] // It was read again and again, until there was no memory left.
fn a_section_of_no_length_is_refused() {
    let directory = testkit::tempdir();
    let mut bytes = vec![0; 8192];
    bytes[..8].copy_from_slice(b"VMCRAFT\n");
    bytes[8] = 2;
    bytes[12] = 2;
    let sum = crc32c::crc32c(&bytes[..88]);
    bytes[88..92].copy_from_slice(&sum.to_le_bytes());
    let file = write_file(directory.path(), "undo", &bytes);
    let said = put_back(&file).unwrap_err();
    assert!(said.contains("its header contradicts itself"), "{said}");
}
