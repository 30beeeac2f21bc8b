//! Checksums, made to fit: what is behind them would else never be reached.

use sha2::{Digest, Sha256};
use vmcraft_block::{BlockDevice, MemoryDevice};

/// What the checksums of dm-thin's superblock, nodes, bitmaps and indexes are combined with.
const THIN: [u32; 4] = [160_774, 121_107, 240_779, 160_478];
/// The checksum of LVM starts here.
const LVM_START: u32 = 0xf597_a6cf;
/// How large the text of [`lvm`] may be.
pub const LVM_TEXT_LIMIT: usize = (1 << 20) - 8192;

/// Makes the checksums fit that tell themselves by a magic number, and the one that `kind` (from 1) names.
pub fn seal(kind: u8, block: &mut [u8]) {
    if let Some(seed) = usize::from(kind).checked_sub(1).and_then(|index| THIN.get(index)) {
        let sum = !crc32c::crc32c(&block[4..]) ^ seed;
        block[..4].copy_from_slice(&sum.to_le_bytes());
    } else if block.starts_with(b"LABELONE") {
        let sum = lvm_sum(&block[20..]);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
    } else if block[4..].starts_with(b" LVM2 x[5A%r0N*>") {
        let sum = lvm_sum(&block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    } else if block.starts_with(&0xa92b_4efc_u32.to_le_bytes()) {
        md(block);
    }
}

/// Which kind of block of dm-thin this is.
pub fn thin_kind(block: &[u8]) -> u8 {
    let sum = !crc32c::crc32c(&block[4..]);
    let found = THIN.iter().position(|seed| block[..4] == (sum ^ seed).to_le_bytes());
    found.map_or(0, |index| index as u8 + 1)
}

fn lvm_sum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!LVM_START);
    hasher.update(bytes);
    !hasher.finalize()
}

fn md(block: &mut [u8]) {
    let word = |block: &[u8], at: usize| {
        u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
    };
    if word(block, 4) == 0 {
        // 0.90: its 4096 bytes lie in 8 blocks, of which the others are mostly zeros.
        block[152..156].fill(0);
        let sum: u64 = block.chunks_exact(4).map(|bytes| u64::from(word(bytes, 0))).sum();
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        block[152..156].copy_from_slice(&sum.to_le_bytes()[..4]);
        return;
    }
    block[216..220].fill(0);
    let len = (word(block, 220) as usize).saturating_mul(2).saturating_add(256).min(block.len());
    let mut sum: u64 = block[..len / 4 * 4].chunks_exact(4).map(|bytes| u64::from(word(bytes, 0))).sum();
    if len % 4 == 2 {
        sum += u64::from(u16::from_le_bytes([block[len - 2], block[len - 1]]));
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    block[216..220].copy_from_slice(&sum.to_le_bytes()[..4]);
}

/// A physical volume of 16 MiB with this text as its metadata.
pub fn lvm(label: &[u8], text: &[u8]) -> MemoryDevice {
    let mut bytes = vec![0; 16 << 20];
    let label = &label[..label.len().min(512)];
    bytes[512..512 + label.len()].copy_from_slice(label);
    seal(0, &mut bytes[512..1024]);
    let text = &text[..text.len().min(LVM_TEXT_LIMIT)];
    bytes[4608..4608 + text.len()].copy_from_slice(text);
    let header = &mut bytes[4096..4608];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20..24].copy_from_slice(&1_u32.to_le_bytes());
    header[24..32].copy_from_slice(&4096_u64.to_le_bytes());
    header[32..40].copy_from_slice(&((1_u64 << 20) - 4096).to_le_bytes());
    header[40..48].copy_from_slice(&512_u64.to_le_bytes());
    header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
    header[56..60].copy_from_slice(&lvm_sum(text).to_le_bytes());
    seal(0, header);
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
        header[4096..4096 + json.len()].copy_from_slice(json);
        let sum = Sha256::digest(&header);
        header[448..480].copy_from_slice(&sum);
        device.write_at(at, &header).expect("within the device");
    }
    device
}
