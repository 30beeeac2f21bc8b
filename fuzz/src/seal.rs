//! Where checksums are in a fuzzer's input, which are made to fit there.

use std::io;

use testkit::seal;
use vmcraft_block::{BlockDevice, MemoryDevice};

/// How large the text of [`lvm`] may be.
pub const LVM_TEXT_LIMIT: usize = (1 << 20) - 8192;

/// What a superblock of md begins with: the magic number and the version.
const MD_VERSION_0: &[u8] = b"\xfc\x4e\x2b\xa9\0\0\0\0";
/// See [`MD_VERSION_0`].
const MD_VERSION_1: &[u8] = b"\xfc\x4e\x2b\xa9\x01\0\0\0";

/// Makes the checksums fit that tell themselves by a magic number, and the one that `kind` (from 1) names.
pub fn seal(kind: u8, block: &mut [u8]) {
    if let Some(seed) = usize::from(kind).checked_sub(1).and_then(|index| seal::THIN.get(index)) {
        seal::dm(block, *seed);
    } else if block.starts_with(b"LABELONE") {
        seal::lvm_label(block);
    } else if block[4..].starts_with(b" LVM2 x[5A%r0N*>") {
        seal::lvm_header(block);
    } else if block.starts_with(MD_VERSION_1) {
        seal::md(block);
    }
}

/// Makes the checksums fit that are over more than a block.
pub fn seal_disk(disk: &dyn BlockDevice) -> io::Result<()> {
    seal::gpt(disk)?;
    seal::bitlocker_volume(disk)?;
    // An md superblock of version 0.90 lies in the last 64 KiB but for a rest.
    let mut superblock = [0; 4096];
    if let Some(at) = (disk.size() & !0xffff).checked_sub(0x1_0000)
        && disk.read_at(at, &mut superblock).is_ok()
        && superblock.starts_with(MD_VERSION_0)
    {
        seal::md(&mut superblock);
        disk.write_at(at, &superblock)?;
    }
    Ok(())
}

/// Which kind of block of dm-thin this is.
pub fn thin_kind(block: &[u8]) -> u8 {
    seal::thin_kind(block).map_or(0, |index| index as u8 + 1)
}

/// A physical volume of 16 MiB with this text as its metadata.
pub fn lvm(label: &[u8], text: &[u8]) -> MemoryDevice {
    let mut bytes = vec![0; 16 << 20];
    let label = &label[..label.len().min(512)];
    bytes[512..512 + label.len()].copy_from_slice(label);
    seal(0, &mut bytes[512..1024]);
    let area = &mut bytes[4096..];
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    area[20..24].copy_from_slice(&1_u32.to_le_bytes());
    area[24..32].copy_from_slice(&4096_u64.to_le_bytes());
    area[32..40].copy_from_slice(&((1_u64 << 20) - 4096).to_le_bytes());
    seal::lvm_text(area, &text[..text.len().min(LVM_TEXT_LIMIT)]);
    MemoryDevice::new(bytes)
}

/// A LUKS2 device of 1 MiB with this JSON in both its headers.
pub fn luks2(json: &[u8]) -> MemoryDevice {
    let device = MemoryDevice::new(vec![0; 1 << 20]);
    let json = &json[..json.len().min(16384 - 4096 - 1)];
    for (at, magic) in [(0_u64, b"LUKS\xba\xbe"), (16384, b"SKUL\xba\xbe")] {
        let mut header = vec![0; 16384];
        header[..6].copy_from_slice(magic);
        header[6..8].copy_from_slice(&2_u16.to_be_bytes());
        header[8..16].copy_from_slice(&16384_u64.to_be_bytes());
        header[16..24].copy_from_slice(&1_u64.to_be_bytes());
        header[72..78].copy_from_slice(b"sha256");
        header[168..204].copy_from_slice(b"95040029-d12f-4a62-a720-07dcb2dae9fd");
        header[256..264].copy_from_slice(&at.to_be_bytes());
        seal::luks2(&mut header, json);
        device.write_at(at, &header).expect("within the device");
    }
    device
}
