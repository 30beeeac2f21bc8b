//! File systems that Linux has or had beside the usual ones: ReiserFS, JFS, NILFS2, BeFS, VxFS.

use super::reader::{Block, Reader, crc32_from};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const REISERFS: Format = Format::new("reiserfs", Usage::FileSystem, reiserfs).at_least(128 << 10);
pub(super) const REISER4: Format = Format::new("reiser4", Usage::FileSystem, |reader| {
    let superblock = reader.block_with(64 << 10, 64, 0, b"ReIsEr4")?;
    Ok(superblock.map(|superblock| Found {
        label: superblock.text(36, 16),
        uuid: superblock.uuid(20),
        version: "4".into(),
        ..Found::default()
    }))
})
.at_least(128 << 10);
pub(super) const JFS: Format = Format::new("jfs", Usage::FileSystem, jfs).at_least(16 << 20);
pub(super) const NILFS2: Format = Format::new("nilfs2", Usage::FileSystem, nilfs2).at_least(1 << 20);
pub(super) const BEFS: Format = Format::new("befs", Usage::FileSystem, befs).at_least(1440 << 10);
pub(super) const VXFS: Format = Format::new("vxfs", Usage::FileSystem, |reader| {
    const MAGIC: u32 = 0xa501_fcf5;
    let version_at = |offset, magic: [u8; 4]| reader.block_with(offset, 8, 0, &magic);
    if let Some(superblock) = version_at(1024, MAGIC.to_le_bytes())? {
        return Ok(Some(Found { version: superblock.le32(4).to_string(), ..Found::default() }));
    }
    let superblock = version_at(8192, MAGIC.to_be_bytes())?;
    Ok(superblock.map(|s| Found { version: s.be32(4).to_string(), ..Found::default() }))
});

fn reiserfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    for (offset, at, magic, version) in [
        (8 << 10, 0x34, &b"ReIsErFs"[..], "3.5"),
        (64 << 10, 0x34, b"ReIsEr2Fs", "3.6"),
        (64 << 10, 0x34, b"ReIsEr3Fs", "JR"),
        (64 << 10, 0x34, b"ReIsErFs", "3.5"),
        (8 << 10, 20, b"ReIsErFs", "3.5"),
    ] {
        let Some(superblock) = reader.block_with(offset, 128, at, magic)? else { continue };
        let block_bytes = u64::from(superblock.le16(44));
        // A copy of the superblock inside the journal is not it.
        if block_bytes < 512 || offset / 1024 / (block_bytes / 512) > u64::from(superblock.le32(12)) / 2 {
            return Ok(None);
        }
        let mut found = Found { version: version.into(), ..Found::default() };
        if version != "3.5" {
            found.label = superblock.text(100, 16);
            found.uuid = superblock.uuid(84);
        }
        return Ok(Some(found));
    }
    Ok(None)
}

fn jfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block_with(32 << 10, 256, 0, b"JFS1")? else { return Ok(None) };
    let (block_log, factor_log, physical_log) =
        (superblock.le16(20), superblock.le16(22), superblock.le16(28));
    let is_power = |bytes: u32, log: u16| Some(bytes) == 1_u32.checked_shl(log.into());
    let is_sound = is_power(superblock.le32(16), block_log)
        && is_power(superblock.le32(24), physical_log)
        && block_log.checked_sub(physical_log) == Some(factor_log);
    Ok(is_sound.then(|| Found {
        label: superblock.text(152, 16),
        uuid: superblock.uuid(136),
        ..Found::default()
    }))
}

/// Two superblocks, the second in the last whole 4 KiB; the one that was written last counts.
fn nilfs2(reader: &Reader<'_>) -> Result<Option<Found>> {
    let is_sound = |superblock: &Block<'_>| {
        let len = usize::from(superblock.le16(8));
        let before = crc32_from(superblock.le32(12), superblock.bytes(0, 16));
        let rest = superblock.bytes(20, len.saturating_sub(20));
        len >= 20
            && superblock.le64(32) == reader.size()
            && crc32_from(crc32_from(before, &[0; 4]), rest) == superblock.le32(16)
    };
    let read = |offset| reader.block_with(offset, 1024, 6, &[0x34, 0x34]);
    let first = read(1024)?.filter(is_sound);
    let backup = read((reader.size() / 512 - 8) * 512)?.filter(is_sound);
    // Checkpoints are counted up.
    let superblock = match (first, backup) {
        (Some(first), Some(backup)) if backup.le64(56) > first.le64(56) => Some(backup),
        (first, backup) => first.or(backup),
    };
    Ok(superblock.map(|superblock| Found {
        label: superblock.text(168, 80),
        uuid: superblock.uuid(152),
        version: superblock.le32(0).to_string(),
        ..Found::default()
    }))
}

/// In either byte order. Its identifier is an attribute of the root directory, which is not read.
fn befs(reader: &Reader<'_>) -> Result<Option<Found>> {
    for offset in [0, 512] {
        let Some(superblock) = reader.block(offset, 132)? else { break };
        let is_with = |field: &dyn Fn(usize) -> u32| {
            let block_log = field(44);
            field(32) == 0x4246_5331
                && field(36) == 0x4249_4745
                && field(68) == 0xdd12_1031
                && field(112) == 0x15b6_830e
                && (10..=13).contains(&block_log)
                && field(40) == 1 << block_log
        };
        let version = if is_with(&|at| superblock.le32(at)) {
            "little-endian"
        } else if is_with(&|at| superblock.be32(at)) {
            "big-endian"
        } else {
            continue;
        };
        return Ok(Some(Found {
            label: superblock.text(0, 32),
            version: version.into(),
            ..Found::default()
        }));
    }
    Ok(None)
}
