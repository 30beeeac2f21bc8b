//! UFS of the BSDs, Solaris and others.
//!
//! Spec: FreeBSD `sys/ufs/ffs/fs.h`. Byte order and position are those of the system that made it.

use super::reader::Reader;
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const UFS: Format = Format::new("ufs", Usage::FileSystem, ufs);

const UFS2_MAGIC: u32 = 0x1954_0119;
const MAGICS: [u32; 6] = [UFS2_MAGIC, 0x0001_1954, 0x0019_5612, 0x0009_5014, 0x0061_2195, 0x0523_1994];

fn ufs(reader: &Reader<'_>) -> Result<Option<Found>> {
    for offset in [0, 8 << 10, 64 << 10, 256 << 10] {
        let Some(superblock) = reader.block(offset, 1376)? else { break };
        let is_big = MAGICS.iter().any(|magic| superblock.has(0x55c, &magic.to_be_bytes()));
        if !is_big && !MAGICS.iter().any(|magic| superblock.has(0x55c, &magic.to_le_bytes())) {
            continue;
        }
        let field = |at| if is_big { superblock.be32(at) } else { superblock.le32(at) };
        let is_ufs2 = field(0x55c) == UFS2_MAGIC;
        let id = (field(0x90), field(0x94));
        return Ok(Some(Found {
            label: if is_ufs2 { superblock.text(0x2a8, 32) } else { Default::default() },
            uuid: if id == (0, 0) { String::new() } else { format!("{:08x}{:08x}", id.0, id.1) },
            version: if is_ufs2 { "2" } else { "1" }.into(),
            ..Found::default()
        }));
    }
    Ok(None)
}
