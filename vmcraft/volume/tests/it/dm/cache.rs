//! Caches, with metadata that `cache_restore` makes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use testkit::{run, run_ok, seal, tempdir};
use vmcraft_block::BlockDevice;
use vmcraft_volume::Error;
use vmcraft_volume::dm::cache::{Cache, Mode};

use super::{content, memory};

const BLOCK: u64 = 65536;

/// Metadata of a cache that has the given blocks of the origin, of which some are dirty.
fn metadata(mappings: &[(u64, bool)], version: u32, is_clean: bool, dir: &Path) -> Arc<dyn BlockDevice> {
    let mappings: String = mappings
        .iter()
        .enumerate()
        .map(|(n, (origin, dirty))| {
            format!(r#"<mapping cache_block="{n}" origin_block="{origin}" dirty="{dirty}"/>"#)
        })
        .collect();
    let xml = format!(
        r#"<superblock uuid="" block_size="128" nr_cache_blocks="2000" policy="smq" hint_width="4"><mappings>{mappings}</mappings><hints></hints></superblock>"#
    );
    let (source, target) = (dir.join("xml"), dir.join("metadata"));
    fs::write(&source, xml).expect("space for XML");
    fs::write(&target, vec![0; 4 << 20]).expect("space for the metadata");
    let version = version.to_string();
    let mut arguments =
        vec!["-i", source.to_str().unwrap(), "-o", target.to_str().unwrap(), "--metadata-version", &version];
    if !is_clean {
        arguments.push("--omit-clean-shutdown");
    }
    run_ok("cache_restore", arguments);
    memory(fs::read(&target).expect("restored metadata"))
}

/// What `cache_dump` makes of metadata that `cache_check` accepts.
fn check(metadata: &dyn BlockDevice, dir: &Path) -> String {
    let file = dir.join("checked");
    fs::write(&file, content(metadata)).expect("space for the metadata");
    let checked = run("cache_check", [&file]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    run_ok("cache_dump", [&file])
}

fn origin() -> Arc<dyn BlockDevice> {
    memory((0..32 * BLOCK).map(|n| n.to_le_bytes()[1]).collect())
}

fn message(result: Result<Arc<dyn BlockDevice>, Error>) -> String {
    result.map(|_| ()).expect_err("this is refused").to_string()
}

#[test] // What is written is not in the cache any more, and all else still is.
fn writes_drop_cached_copies() {
    let dir = tempdir();
    let cached: Vec<_> = (0..1500).map(|n| (n * 7 % 1500, false)).collect();
    for (version, mode, is_clean) in
        [(1, Mode::Writeback, true), (2, Mode::Writeback, true), (2, Mode::Writethrough, false)]
    {
        let metadata = metadata(&cached, version, is_clean, dir.path());
        let origin = origin();
        let device = Cache::open(metadata.clone(), origin.clone(), mode).unwrap();
        let mut expected = content(&*origin);
        assert!(content(&*device) == expected);
        for (offset, len) in [(0, 1), (3 * 65536 - 1, 2), (10 * 65536, 3 * 65536)] {
            expected[offset..offset + len].fill(0xee);
            device.write_at(offset as u64, &vec![0xee; len]).unwrap();
        }
        assert!(content(&*device) == expected && content(&*origin) == expected);
        let dump = check(&*metadata, dir.path());
        for block in 0..1500 {
            let is_cached = dump.contains(&format!(r#"origin_block="{block}" "#));
            assert_eq!(is_cached, ![0, 2, 3, 10, 11, 12].contains(&block), "{block}: version {version}");
        }
        let again = Cache::open(metadata, origin, mode).unwrap();
        assert!(content(&*again) == expected);
    }
}

#[test] // Blocks that the origin has not are not read past.
fn dirty_caches_are_refused() {
    let dir = tempdir();
    for version in [1, 2] {
        let some = metadata(&[(1, false), (2, true), (9, true)], version, true, dir.path());
        assert!(
            message(Cache::open(some, origin(), Mode::Writeback))
                .contains("2 dirty blocks (dirty writeback)")
        );
        let unclean = metadata(&[(1, false)], version, false, dir.path());
        assert!(message(Cache::open(unclean, origin(), Mode::Writeback)).contains("was not stopped"));
    }
    let blank = Cache::open(memory(vec![0; 1 << 20]), origin(), Mode::Writeback).unwrap();
    blank.write_at(0, &[1]).unwrap();
}

#[test]
fn damaged_metadata_is_named() {
    let dir = tempdir();
    let good = metadata(&[(1, false), (2, true)], 1, true, dir.path());
    let open = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = content(&*good);
        change(&mut bytes);
        Cache::open(memory(bytes), origin(), Mode::Writethrough)
    };
    assert!(message(open(&|b| b[100] ^= 1)).contains("superblock of the cache's metadata (checksum)"));
    let sealed = |b: &mut Vec<u8>| seal::dm(&mut b[..4096], seal::CACHE);
    assert!(
        message(open(&|b| {
            b[32] ^= 1;
            sealed(b)
        }))
        .contains("magic number")
    );
    assert!(
        message(open(&|b| {
            b[40] = 3;
            sealed(b)
        }))
        .contains("version 3")
    );
    assert!(
        message(open(&|b| {
            b[252] = 4;
            sealed(b)
        }))
        .contains("incompatible features 0x4")
    );
    assert!(
        message(open(&|b| {
            b[192..200].fill(0xff);
            sealed(b)
        }))
        .contains("beyond the end")
    );
    let marked = open(&|b| {
        b[4] |= 2;
        sealed(b)
    });
    // A dirty block is refused first; without one, the mark keeps it from being written.
    assert!(message(marked).contains("dirty"));
    let mut bytes = content(&*metadata(&[(1, false)], 2, true, dir.path()));
    bytes[4] |= 2;
    sealed(&mut bytes);
    let marked = Cache::open(memory(bytes), origin(), Mode::Writeback).unwrap();
    assert!(marked.is_read_only());
    assert!(marked.write_at(0, &[1]).unwrap_err().to_string().contains("needs_check"));
}
