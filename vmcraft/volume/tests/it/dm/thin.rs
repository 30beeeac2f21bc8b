//! Thin pools: those that Linux made, and all that we do to one, which `thin_check` must accept.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use testkit::appliance::{Disk, run_ok as appliance};
use testkit::device::Sparse;
use testkit::{run, run_ok, tempdir};
use vmcraft_block::BlockDevice;
use vmcraft_volume::dm::thin::{Discards, Options, Pool};

use super::{check_extents, content, facts, memory, sha256, unpack};

const KIND: &str = "dm-thin";
const BLOCK: u64 = 65536;

/// The pool that Linux made.
struct Linux {
    metadata: Arc<dyn BlockDevice>,
    data: Arc<dyn BlockDevice>,
    external: Arc<dyn BlockDevice>,
}

impl Linux {
    fn unpack(dir: &Path) -> Self {
        let device = |name: &str| memory(unpack(KIND, &format!("{name}.img"), dir));
        Self { metadata: device("metadata"), data: device("data"), external: device("external") }
    }

    fn pool(&self) -> Arc<Pool> {
        Pool::open("vg/pool", self.metadata.clone(), self.data.clone(), Options::default()).expect("a pool")
    }

    fn volume(&self, pool: &Arc<Pool>, id: u32) -> Arc<dyn BlockDevice> {
        let size = facts(KIND, &format!("t{id}")).0;
        pool.volume(id, size, (id == 3).then(|| self.external.clone())).expect("a volume")
    }
}

/// Lets `thin_check` look at metadata, and gives what `thin_dump` makes of it.
pub(super) fn check(metadata: &dyn BlockDevice, dir: &Path) -> String {
    let file = dir.join("metadata");
    fs::write(&file, content(metadata)).expect("space for the metadata");
    let checked = run("thin_check", [&file]);
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    run_ok("thin_dump", [&file])
}

/// Metadata that `thin_restore` makes of its XML.
pub(super) fn restore(xml: &str, mib: usize, dir: &Path) -> Arc<dyn BlockDevice> {
    let (source, target) = (dir.join("xml"), dir.join("restored"));
    fs::write(&source, xml).expect("space for XML");
    fs::write(&target, vec![0; mib << 20]).expect("space for the metadata");
    run_ok("thin_restore", ["-i".as_ref(), source.as_os_str(), "-o".as_ref(), target.as_os_str()]);
    memory(fs::read(&target).expect("restored metadata"))
}

/// XML of a pool with empty volumes.
fn empty_pool(data_blocks: u64, volumes: u32) -> String {
    let volumes: String = (0..volumes)
        .map(|id| format!(r#"<device dev_id="{id}" mapped_blocks="0" transaction="0" creation_time="0" snap_time="0"></device>"#))
        .collect();
    format!(
        r#"<superblock uuid="" time="0" transaction="1" flags="0" version="2" data_block_size="128" nr_data_blocks="{data_blocks}">{volumes}</superblock>"#
    )
}

#[test]
fn volumes_of_linux_read_as_in_linux() {
    let dir = tempdir();
    let linux = Linux::unpack(dir.path());
    let pool = linux.pool();
    assert_eq!(pool.transaction_id(), 5);
    assert_eq!(pool.block_bytes(), BLOCK);
    // As `dmsetup status` printed it; of the metadata it counts blocks that are free by now.
    assert_eq!(pool.data_usage(), (313, 1024));
    assert!(pool.metadata_usage().0 <= 121 && pool.metadata_usage().1 == 1024);
    let mapped: Vec<_> = pool.volumes().unwrap().iter().map(|v| (v.id, v.mapped_blocks * 128)).collect();
    assert_eq!(mapped, [(0, 1024), (1, 1024), (3, 256), (7, 38272), (8, 38400), (9, 0)]);
    for id in [0, 1, 3, 7, 8] {
        let volume = linux.volume(&pool, id);
        assert_eq!((volume.size(), sha256(&content(&*volume))), facts(KIND, &format!("t{id}")), "{id}");
        let holes = check_extents(&*volume);
        if id == 7 {
            assert_eq!(volume.size() - holes, 299 * BLOCK);
        }
    }
    let never_written = pool.volume(9, 1 << 40, None).unwrap();
    let extent = never_written.extents().unwrap().extent_at(12345).unwrap();
    assert!(extent.is_hole && extent.len == (1 << 40) - 12345);
    assert!(pool.volume(2, 512, None).is_err());
}

#[test] // Shared blocks, shared B-tree nodes, and an external origin: nobody else's content changes.
fn writing_leaves_the_other_volumes_alone() {
    let dir = tempdir();
    let linux = Linux::unpack(dir.path());
    let pool = linux.pool();
    let ids = [0, 1, 3, 7, 8];
    let mut model: Vec<_> = ids.iter().map(|id| content(&*linux.volume(&pool, *id))).collect();
    let mut random = 12345_u64;
    for round in 0..120 {
        let mut next = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % limit
        };
        let index = next(ids.len());
        let volume = linux.volume(&pool, ids[index]);
        let start = next(model[index].len());
        let len = next(200_000).min(model[index].len() - start);
        let discard = volume.discard().unwrap();
        if round % 5 == 4 {
            discard.write_zeroes(start as u64, len as u64).unwrap();
            model[index][start..start + len].fill(0);
        } else {
            let value = u8::try_from(round).unwrap();
            volume.write_at(start as u64, &vec![value; len]).unwrap();
            model[index][start..start + len].fill(value);
        }
        if round % 20 == 19 {
            check(&*linux.metadata, dir.path());
        }
    }
    for pool in [pool, linux.pool()] {
        for (id, expected) in ids.iter().zip(&model) {
            assert!(content(&*linux.volume(&pool, *id)) == *expected, "volume {id}");
        }
    }
}

#[test] // Trees of several levels grow and shrink, and every step is one that thin_check accepts.
fn trees_grow_and_shrink() {
    let dir = tempdir();
    let metadata = restore(&empty_pool(40_000, 3), 4, dir.path());
    let data: Arc<dyn BlockDevice> = Arc::new(Sparse::new(40_000 * BLOCK));
    let options = Options { zero_new_blocks: false, discards: Discards::NoPassdown };
    let open = || Pool::open("vg/pool", metadata.clone(), data.clone(), options).unwrap();
    let pool = open();
    let size = 100_000 * BLOCK;
    let mut model: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    let write = |pool: &Arc<Pool>, id: u32, block: u64, model: &mut BTreeMap<(u32, u64), u64>| {
        pool.volume(id, size, None).unwrap().write_at(block * BLOCK, &block.to_le_bytes()).unwrap();
        model.insert((id, block), block);
    };
    // In order, backwards, and all over the place.
    for n in 0..1500 {
        write(&pool, 0, n, &mut model);
        write(&pool, 1, 50_000 - n, &mut model);
        write(&pool, 2, n * 7919 % 99_991, &mut model);
    }
    let agrees = |pool: &Arc<Pool>, model: &BTreeMap<(u32, u64), u64>| {
        let dump = check(&*metadata, dir.path());
        let mapped: u64 = pool.volumes().unwrap().iter().map(|volume| volume.mapped_blocks).sum();
        assert_eq!(mapped, model.len() as u64, "{}", &dump[..1000.min(dump.len())]);
        assert_eq!(pool.data_usage().0, mapped);
        for (&(id, block), value) in model {
            let mut found = [0; 8];
            pool.volume(id, size, None).unwrap().read_at(block * BLOCK, &mut found).unwrap();
            assert_eq!(u64::from_le_bytes(found), *value, "volume {id}, block {block}");
        }
    };
    agrees(&pool, &model);
    // A discard takes away blocks in the middle, and then all but a few.
    for keep in [3, 700] {
        let gone: Vec<_> =
            model.keys().copied().enumerate().filter(|(n, _)| n % keep != 0).map(|(_, key)| key).collect();
        for (id, block) in gone {
            pool.volume(id, size, None).unwrap().discard().unwrap().discard(block * BLOCK, BLOCK).unwrap();
            model.remove(&(id, block));
        }
        agrees(&pool, &model);
    }
    for n in 0..400 {
        write(&pool, 1, n * 31 % 397, &mut model);
    }
    let pool = open();
    agrees(&pool, &model);
    for id in 0..3 {
        pool.volume(id, size, None).unwrap().discard().unwrap().discard(0, size).unwrap();
    }
    agrees(&pool, &BTreeMap::new());
    assert_eq!(pool.data_usage().0, 0);
}

#[test] // Out of space is an error, and nothing has changed.
fn full_pools_refuse_cleanly() {
    let dir = tempdir();
    let metadata = restore(&empty_pool(4, 1), 4, dir.path());
    let data = Arc::new(Sparse::new(4 * BLOCK));
    let pool = Pool::open("vg/pool", metadata.clone(), data, Options::default()).unwrap();
    let volume = pool.volume(0, 100 * BLOCK, None).unwrap();
    volume.write_at(BLOCK, &[1; 70_000]).unwrap();
    let before = content(&*metadata);
    let error = volume.write_at(10 * BLOCK, &[2; 3 * 65536]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("no free data block (all 4"), "{error}");
    assert!(content(&*metadata) == before);
    let mut there = [9; 10];
    volume.read_at(10 * BLOCK, &mut there).unwrap();
    assert_eq!(there, [0; 10]);
    volume.write_at(10 * BLOCK, &[2; 2 * 65536]).unwrap();
    check(&*metadata, dir.path());
    volume.discard().unwrap().discard(0, 100 * BLOCK).unwrap();
    assert_eq!(pool.data_usage(), (0, 4));
    check(&*metadata, dir.path());
}

/// Writes to new blocks of a volume of a pool with little metadata until that is refused.
fn fill_metadata(dir: &Path) -> Arc<dyn BlockDevice> {
    let metadata = restore(&empty_pool(100_000, 1), 1, dir);
    let data = Arc::new(Sparse::new(100_000 * BLOCK));
    let options = Options { zero_new_blocks: false, ..Options::default() };
    let pool = Pool::open("vg/pool", metadata.clone(), data, options).unwrap();
    let volume = pool.volume(0, 1 << 40, None).unwrap();
    let (mut written, mut before) = (0_u64, content(&*metadata));
    let error = loop {
        assert!(written < 100_000, "the metadata is too small for this");
        match volume.write_at(written * 1009 % 99_991 * BLOCK, &[1]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        before = content(&*metadata);
    };
    assert!(content(&*metadata) == before);
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    // A tenth of 256 blocks.
    let (used, all) = pool.metadata_usage();
    assert!(all == 256 && (26..30).contains(&(all - used)), "{used} of {all}");
    let told = error.to_string();
    assert!(told.starts_with("thin pool vg/pool: its metadata would have 25 of 256 blocks"), "{told}");
    assert!(told.contains("keeps 25 in reserve") && told.contains("lvextend --poolmetadatasize"), "{told}");
    assert_eq!(pool.volumes().unwrap()[0].mapped_blocks, written);
    // What needs no new block goes on.
    volume.write_at(0, &[2; 512]).unwrap();
    metadata
}

#[test] // Linux keeps some metadata blocks free, and lets a pool only be read that has no more than those.
fn the_reserve_of_metadata_is_kept() {
    let dir = tempdir();
    let metadata = fill_metadata(dir.path());
    check(&*metadata, dir.path());
    let data = Arc::new(Sparse::new(100_000 * BLOCK));
    let pool = Pool::open("vg/pool", metadata.clone(), data, Options::default()).unwrap();
    let volume = pool.volume(0, 1 << 40, None).unwrap();
    // Space comes back with a discard.
    volume.discard().unwrap().discard(0, 50_000 * BLOCK).unwrap();
    check(&*metadata, dir.path());
    for block in 0..500 {
        volume.write_at(block * BLOCK, &[1]).unwrap();
    }
    check(&*metadata, dir.path());
}

#[test] // Up to the reserve, and Linux still writes to the pool.
fn linux_takes_a_pool_that_was_filled_to_the_reserve() {
    if !testkit::long_suites("a full thin pool in Linux") {
        return;
    }
    let dir = tempdir();
    let metadata = fill_metadata(dir.path());
    let (image, data) = (dir.path().join("metadata.img"), dir.path().join("data.img"));
    fs::write(&image, content(&*metadata)).expect("space for the metadata");
    fs::File::create(&data).unwrap().set_len(100_000 * BLOCK).expect("a sparse file");
    let printed = appliance(
        &[Disk::raw(&image), Disk::raw(&data)],
        "modprobe dm-thin-pool
        dmsetup create pool --table \"0 $(blockdev --getsz /dev/vdb) thin-pool /dev/vda /dev/vdb 128 0\"
        dmsetup status pool; dmsetup status pool
        dmsetup create t0 --table '0 2147483648 thin /dev/mapper/pool 0'
        dd if=/dev/zero of=/dev/mapper/t0 bs=4096 count=1 seek=1600000 oflag=direct status=none
        dd if=/dev/mapper/t0 of=/dev/null bs=4096 count=1 skip=1600000 iflag=direct status=none
        dmsetup remove t0; dmsetup remove pool
        thin_check /dev/vda > /dev/null && echo checked",
    );
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[..2].iter().all(|line| line.contains(" rw ") && line.contains("/256 ")), "{printed}");
    assert_eq!(lines[2], "checked", "{printed}");
}

#[test] // A discard goes down only when nobody has the block any more.
fn discards_are_passed_down() {
    let dir = tempdir();
    let metadata = restore(&empty_pool(10, 1), 4, dir.path());
    for (discards, left) in [(Discards::Passdown, 0), (Discards::NoPassdown, 128), (Discards::Ignore, 128)] {
        let data = Arc::new(Sparse::new(10 * BLOCK));
        let metadata = memory(content(&*metadata));
        let pool = Pool::open("vg/pool", metadata, data.clone(), Options { zero_new_blocks: true, discards })
            .unwrap();
        let volume = pool.volume(0, 3 * BLOCK + 512, None).unwrap();
        volume.write_at(BLOCK, &[1; 65536]).unwrap();
        volume.discard().unwrap().discard(BLOCK - 1, BLOCK + 2).unwrap();
        assert_eq!(data.used(), left, "{discards:?}");
        assert_eq!(pool.data_usage().0, u64::from(discards == Discards::Ignore));
        // The last block reaches beyond the end.
        volume.write_at(3 * BLOCK, &[1; 512]).unwrap();
        volume.discard().unwrap().write_zeroes(3 * BLOCK, 512).unwrap();
        assert_eq!(content(&*volume)[3 * 65536..], [0; 512]);
    }
}

#[test] // What a snapshot shares stays with it, and all of the rest comes back to the pool.
fn removed_volumes_leave_the_others_alone() {
    let dir = tempdir();
    let linux = Linux::unpack(dir.path());
    let pool = linux.pool();
    let mut left = vec![0, 1, 3, 7, 8];
    let before: BTreeMap<u32, String> =
        left.iter().map(|id| (*id, sha256(&content(&*linux.volume(&pool, *id))))).collect();
    for (step, id) in [(1, 7), (2, 0), (3, 9), (4, 3), (5, 8), (6, 1)] {
        let used = pool.data_usage().0;
        pool.remove_volumes(&[id], 5 + step).unwrap();
        left.retain(|other| *other != id);
        let dump = check(&*linux.metadata, dir.path());
        assert!(
            !dump.contains(&format!(r#"dev_id="{id}""#))
                && dump.contains(&format!(r#"transaction="{}""#, 5 + step))
        );
        assert!(pool.volume(id, 512, None).is_err());
        assert!(pool.data_usage().0 < used || [9, 0].contains(&id), "{id}: {used}");
        for pool in [&pool, &linux.pool()] {
            assert_eq!(pool.transaction_id(), 5 + step);
            for other in &left {
                assert_eq!(
                    sha256(&content(&*linux.volume(pool, *other))),
                    before[other],
                    "{other} without {id}"
                );
            }
        }
        // What came back is given out again.
        if let Some(other) = left.first() {
            linux
                .volume(&pool, *other)
                .write_at(0, &content(&*linux.volume(&pool, *other))[..100_000])
                .unwrap();
        }
    }
    assert_eq!(pool.data_usage().0, 0);
    assert!(pool.volumes().unwrap().is_empty());
    pool.remove_volumes(&[1, 77], 99).unwrap();
    assert_eq!(linux.pool().transaction_id(), 99);
    check(&*linux.metadata, dir.path());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test] // Volumes that share data blocks, with random writes and discards, against vectors.
    fn random_operations_agree_with_a_model(
        operations in prop::collection::vec(
            (0..3_u32, 0..20 * BLOCK, 1..150_000_u64, 0..4_u8, any::<u8>()), 1..40)
    ) {
        let dir = tempdir();
        // Volume 1 is a snapshot of 0 made at time 1; 2 has blocks of its own.
        let mapping = |block: u64, data: u64, time: u32| format!(
            r#"<single_mapping origin_block="{block}" data_block="{data}" time="{time}"/>"#);
        let shared: String = (0..12).map(|n| mapping(n, n, 0)).collect();
        let own: String = (5..10).map(|n| mapping(n, n + 20, 0)).collect();
        let xml = format!(
            r#"<superblock uuid="" time="1" transaction="4" flags="0" version="2" data_block_size="128" nr_data_blocks="70">
            <device dev_id="0" mapped_blocks="12" transaction="0" creation_time="0" snap_time="1">{shared}</device>
            <device dev_id="1" mapped_blocks="12" transaction="1" creation_time="1" snap_time="1">{shared}</device>
            <device dev_id="2" mapped_blocks="5" transaction="2" creation_time="0" snap_time="0">{own}</device></superblock>"#);
        let metadata = restore(&xml, 4, dir.path());
        let data: Vec<u8> = (0..70 * BLOCK).map(|n| n.to_le_bytes()[1]).collect();
        let data = memory(data);
        let open = || Pool::open("vg/pool", metadata.clone(), data.clone(), Options::default()).unwrap();
        let mut pool = open();
        let size = 20 * BLOCK;
        let mut model: Vec<_> =
            (0..3).map(|id| content(&*pool.volume(id, size, None).unwrap())).collect();
        for (id, offset, len, kind, value) in operations {
            let len = len.min(size - offset);
            let volume = pool.volume(id, size, None).unwrap();
            let (start, end) = (usize::try_from(offset).unwrap(), usize::try_from(offset + len).unwrap());
            let part = &mut model[id as usize][start..end];
            match kind {
                0 | 1 => {
                    part.fill(value);
                    volume.write_at(offset, part).unwrap();
                }
                2 => {
                    part.fill(0);
                    volume.discard().unwrap().write_zeroes(offset, len).unwrap();
                }
                _ => {
                    volume.discard().unwrap().discard(offset, len).unwrap();
                    let now = content(&*volume);
                    for (new, old) in now[start..end].iter().zip(&*part) {
                        prop_assert!(*new == 0 || new == old);
                    }
                    part.copy_from_slice(&now[start..end]);
                    pool = open();
                }
            }
        }
        for (id, expected) in model.iter().enumerate() {
            let volume = pool.volume(u32::try_from(id).unwrap(), size, None).unwrap();
            prop_assert!(content(&*volume) == *expected);
            check_extents(&*volume);
        }
        check(&*metadata, dir.path());
    }
}

#[test] // What we wrote, as Linux reads it, and goes on with it.
fn linux_reads_what_we_wrote() {
    if !testkit::long_suites("thin pools in Linux") {
        return;
    }
    let dir = tempdir();
    let linux = Linux::unpack(dir.path());
    let pool = linux.pool();
    for (id, offset, len) in [
        (0, 100_u64, 300_000_usize),
        (1, 4_000_000, 10),
        (3, 3_999_000, 200_000),
        (7, 0, 1_000_000),
        (8, 20_000_000, 5_000_000),
    ] {
        linux.volume(&pool, id).write_at(offset, &vec![b'w'; len]).unwrap();
    }
    linux.volume(&pool, 8).discard().unwrap().discard(0, 10_000_000).unwrap();
    let expected = [0, 1, 3, 7, 8].map(|id| sha256(&content(&*linux.volume(&pool, id))));
    let images: Vec<_> = ["metadata", "data", "external"].map(|name| dir.path().join(name)).into();
    for (image, device) in images.iter().zip([&linux.metadata, &linux.data, &linux.external]) {
        fs::write(image, content(&**device)).expect("space for an image");
    }
    let disks: Vec<_> = images.iter().map(|image| Disk::raw(image)).collect();
    let printed = appliance(
        &disks,
        "set -e; modprobe dm-thin-pool
        dmsetup create pool --table \"0 $(blockdev --getsz /dev/vdb) thin-pool /dev/vda /dev/vdb 128 0\"
        for t in 0:16384 1:16384 3:12288 7:65636 8:65636; do
            origin=; [ $t != 3:12288 ] || origin=/dev/vdc
            dmsetup create t${t%:*} --table \"0 ${t#*:} thin /dev/mapper/pool ${t%:*} $origin\"
        done
        for t in 0 1 3 7 8; do sha256sum < /dev/mapper/t$t; done
        for t in 0 1 3 7 8; do
            dd if=/dev/urandom of=/dev/mapper/t$t bs=64k count=20 seek=60 conv=notrunc status=none
        done
        sync; dmsetup status | sed -n 's/^pool: //p'
        for t in 0 1 3 7 8; do dmsetup remove t$t; done; dmsetup remove pool
        thin_check /dev/vda > /dev/null && echo checked",
    );
    let lines: Vec<_> = printed.lines().collect();
    let sums: Vec<_> = lines.iter().take(5).map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(sums, expected, "{printed}");
    assert!(lines[5].contains(" rw ") && !lines[5].contains("needs_check"), "{printed}");
    assert_eq!(lines[6], "checked", "{printed}");
}
