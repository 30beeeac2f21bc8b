//! Changed partition tables, judged by `sgdisk` and `sfdisk`.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::{run, run_ok, tempdir};
use uuid::Uuid;
use vmcraft_block::{BlockDevice, Discard, MapExtents, MemoryDevice};
use vmcraft_volume::Error;
use vmcraft_volume::partition::{
    LINUX_FILE_SYSTEM, NewPartition, PartitionRole, PartitionTable, TableEditor, TableKind,
};

use crate::partitions::{assert_equals_sfdisk, disk, read, sfdisk};

/// A device with sectors of 4096 bytes.
struct Sectors4096(MemoryDevice);

impl BlockDevice for Sectors4096 {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.0.write_at(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.0.flush()
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn logical_sector_size(&self) -> u32 {
        4096
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}

fn part(role: PartitionRole, first_sector: u64, last_sector: u64) -> NewPartition {
    NewPartition {
        number: None,
        role,
        first_sector,
        last_sector,
        type_guid: LINUX_FILE_SYSTEM,
        guid: Uuid::new_v4(),
        name: "primary".into(),
    }
}

fn primary(first: u64, last: u64) -> NewPartition {
    part(PartitionRole::Primary, first, last)
}

fn logical(first: u64, last: u64) -> NewPartition {
    part(PartitionRole::Logical, first, last)
}

/// Changes the table of an image.
fn edit<T>(image: &Path, change: impl FnOnce(&mut TableEditor) -> Result<T, Error>) -> Result<T, Error> {
    let device = MemoryDevice::new(fs::read(image).expect("the image is there"));
    let mut editor = TableEditor::open(&device)?;
    let done = change(&mut editor)?;
    editor.write(&device)?;
    fs::write(image, device.into_bytes()).expect("the image can be written");
    Ok(done)
}

/// An image of `mib` MiB with a new table.
fn new(dir: &Path, kind: TableKind, mib: u64) -> PathBuf {
    let image = disk(dir, mib);
    let device = MemoryDevice::new(fs::read(&image).expect("the image is there"));
    TableEditor::create(&device, kind, Uuid::new_v4())
        .and_then(|editor| editor.write(&device))
        .expect("room");
    fs::write(&image, device.into_bytes()).expect("the image can be written");
    image
}

/// Nothing is wrong with the table, as far as `sgdisk` or `sfdisk`, and we, can tell.
fn assert_sound(image: &Path) -> PartitionTable {
    let table = read(image);
    assert_eq!(table.warnings, Vec::<String>::new(), "{}", image.display());
    if table.sector_size == 512 {
        match table.kind {
            TableKind::Gpt => {
                let said = run_ok("sgdisk", ["-v".as_ref(), image.as_os_str()]);
                assert!(said.contains("No problems found"), "{said}");
            }
            TableKind::Mbr => {
                let said = run_ok("sfdisk", ["-V".as_ref(), image.as_os_str()]);
                assert!(said.contains("No errors detected"), "{said}");
            }
        }
        assert_equals_sfdisk(image, &table);
    }
    table
}

fn places(table: &PartitionTable) -> Vec<(u32, u64, u64)> {
    let sector = u64::from(table.sector_size);
    table.partitions.iter().map(|p| (p.number, p.start_bytes / sector, p.end_bytes() / sector - 1)).collect()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result.expect_err("it is refused") {
        Error::Refused(what) => what,
        other => panic!("{other}"),
    }
}

#[test]
fn a_gpt_is_made_filled_and_changed() {
    let dir = tempdir();
    let image = new(dir.path(), TableKind::Gpt, 64);
    assert_eq!(assert_sound(&image).partitions, []);
    let numbers = edit(&image, |table| {
        Ok([table.add(&primary(2048, 4095))?, table.add(&primary(4096, 8191))?, table.add(&primary(34, 34))?])
    });
    assert_eq!(numbers.expect("room"), [1, 2, 3]);
    assert_sound(&image);
    let guid = Uuid::from_u128(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF);
    edit(&image, |table| {
        table.delete(1)?;
        table.resize(2, 131_038)?;
        table.set_name(2, "d\u{e4}ta \u{1f427}")?;
        table.set_guid(2, guid)?;
        table.set_attributes(2, 1 << 63 | 5)?;
        table.set_bootable(3, true)?;
        table.set_disk_guid(guid)?;
        table.set_type_guid(2, Uuid::from_u128(0x4F68_BCE3_E8CD_4DB1_96E7_FBCA_F984_B709))
    })
    .expect("all of it is valid");
    let table = assert_sound(&image);
    assert_eq!(places(&table), [(2, 4096, 131_038), (3, 34, 34)]);
    assert_eq!(table.disk_guid.as_deref(), Some("01234567-89AB-CDEF-0123-456789ABCDEF"));
    let attributes = run_ok("sgdisk", ["-i".as_ref(), "2".as_ref(), image.as_os_str()]);
    assert!(attributes.contains("Attribute flags: 8000000000000005"), "{attributes}");
    assert_eq!(
        table.partition(3).and_then(|p| p.type_guid.as_deref()),
        Some("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
    );
    // The lowest number that is free, and nothing of what was there before.
    assert_eq!(edit(&image, |table| table.add(&primary(2048, 2048))).expect("room"), 1);
    let table = assert_sound(&image);
    assert_eq!(table.partition(1).map(|p| (p.name.as_deref(), p.attributes)), Some((Some("primary"), 0)));
}

#[test]
fn an_mbr_is_made_filled_and_changed() {
    let dir = tempdir();
    let image = new(dir.path(), TableKind::Mbr, 64);
    assert_eq!(assert_sound(&image).partitions, []);
    edit(&image, |table| {
        table.add(&primary(2048, 4095))?;
        table.add(&part(PartitionRole::Extended, 10_240, 131_071))?;
        assert_eq!(table.add(&logical(20_000, 29_999))?, 5);
        assert_eq!(table.add(&logical(12_288, 18_000))?, 6);
        assert_eq!(table.add(&logical(30_001, 40_000))?, 7);
        assert_eq!(table.add(&primary(4096, 8191))?, 3);
        table.set_bootable(1, true)?;
        table.set_bootable(3, true)?;
        table.set_mbr_type(6, 0x8e)
    })
    .expect("room");
    let table = assert_sound(&image);
    assert_eq!(
        places(&table),
        [
            (1, 2048, 4095),
            (2, 10_240, 131_071),
            (3, 4096, 8191),
            (5, 20_000, 29_999),
            (6, 12_288, 18_000),
            (7, 30_001, 40_000)
        ]
    );
    assert_eq!(table.partitions.iter().filter(|p| p.bootable).map(|p| p.number).collect::<Vec<_>>(), [3]);
    // The first record is at the start of the extended partition whichever partition is the first.
    edit(&image, |table| table.delete(5)).expect("there is one");
    assert_eq!(places(&assert_sound(&image))[3..], [(5, 12_288, 18_000), (6, 30_001, 40_000)]);
    edit(&image, |table| {
        table.resize(6, 131_071)?;
        table.resize(5, 19_000)?;
        table.set_bootable(6, true)?;
        table.set_disk_id(0x1bad_cafe)
    })
    .expect("room");
    let table = assert_sound(&image);
    assert_eq!(places(&table)[3..], [(5, 12_288, 19_000), (6, 30_001, 131_071)]);
    assert_eq!((table.mbr_id, table.partition(5).and_then(|p| p.mbr_type)), (Some(0x1bad_cafe), Some(0x8e)));
    edit(&image, |table| table.delete(6).and_then(|()| table.delete(5))).expect("they are there");
    assert_eq!(assert_sound(&image).partitions.len(), 3);
    edit(&image, |table| table.add(&logical(12_288, 18_000)).and_then(|_| table.delete(2))).expect("room");
    assert_eq!(places(&assert_sound(&image)), [(1, 2048, 4095), (3, 4096, 8191)]);
}

#[test] // Tables of other programs are changed as well as our own.
fn tables_made_by_others_are_changed() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    sfdisk(
        &image,
        "label: dos\nlabel-id: 0x1badcafe\n1 : start=2048, size=4096, type=c\n3 : start=8192, size=100000, type=f\n\
         5 : start=10240, size=2048, type=83\n6 : start=20480, size=2048, type=82\n7 : start=14336, size=2048\n",
    );
    // The code that boots the guest.
    let mut bytes = fs::read(&image).expect("there");
    bytes[..0x1b8].fill(0x5a);
    bytes[0x1b8 + 4..0x1be].fill(0x5a);
    fs::write(&image, &bytes).expect("writable");
    edit(&image, |table| {
        table.delete(6)?;
        table.add(&logical(30_000, 31_000))?;
        table.add(&primary(120_000, 131_071))
    })
    .expect("room");
    assert_eq!(
        places(&assert_sound(&image)),
        [
            (1, 2048, 6143),
            (2, 120_000, 131_071),
            (3, 8192, 108_191),
            (5, 10_240, 12_287),
            (6, 14_336, 16_383),
            (7, 30_000, 31_000)
        ]
    );
    let after = fs::read(&image).expect("there");
    assert_eq!((&after[..0x1b8], &after[0x1bc..0x1be]), (&bytes[..0x1b8], &bytes[0x1bc..0x1be]));

    let image = disk(dir.path(), 64);
    let path = image.to_str().expect("plain");
    run_ok("sgdisk", ["-S", "256", "-n", "1:2048:+1M", "-n", "200:0:+1M", "-c", "200:far", path]);
    edit(&image, |table| table.delete(1).and_then(|()| table.resize(200, 100_000))).expect("room");
    let table = assert_sound(&image);
    assert_eq!(places(&table), [(200, 4096, 100_000)]);
    assert_eq!(table.partitions[0].name.as_deref(), Some("far"));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = tempdir();
    let image = new(dir.path(), TableKind::Gpt, 8);
    edit(&image, |table| table.add(&primary(2048, 4095)).and_then(|_| table.add(&primary(8192, 9000))))
        .expect("room");
    let before = fs::read(&image).expect("there");
    let said =
        |change: &dyn Fn(&mut TableEditor) -> Result<(), Error>| refused(edit(&image, |table| change(table)));
    let add = |first, last| said(&|table| table.add(&primary(first, last)).map(drop));
    assert!(
        add(4095, 5000).contains("sectors 4095 to 5000 overlap partition 1, which has sectors 2048 to 4095")
    );
    assert!(add(2, 40).contains("34 to 16350"));
    assert!(add(10_000, 16_351).contains("34 to 16350"));
    assert!(add(10_000, 16_384).contains("beyond the end of the disk, whose last one is 16383"));
    assert!(add(10_000, u64::MAX).contains("beyond the end"));
    assert!(add(5000, 4999).contains("before it begins"));
    assert!(
        said(&|table| table.add(&part(PartitionRole::Extended, 5000, 6000)).map(drop))
            .contains("neither extended")
    );
    assert!(said(&|table| table.resize(1, 8192)).contains("overlap partition 2"));
    assert!(said(&|table| table.resize(1, 2047)).contains("cannot end at 2047"));
    assert!(said(&|table| table.resize(9, 2047)).contains("no partition 9"));
    assert!(said(&|table| table.delete(0)).contains("no partition 0"));
    assert!(said(&|table| table.delete(129)).contains("no partition 129"));
    assert!(said(&|table| table.set_mbr_type(1, 0x83)).contains("part-set-gpt-type"));
    assert!(said(&|table| table.set_name(1, &"x".repeat(37))).contains("36 UTF-16 units"));
    assert!(said(&|table| table.set_type_guid(1, Uuid::nil())).contains("unused entry"));
    assert_eq!(fs::read(&image).expect("there"), before);

    let image = new(dir.path(), TableKind::Mbr, 64);
    edit(&image, |table| {
        table.add(&part(PartitionRole::Extended, 2048, 100_000))?;
        table.add(&logical(4096, 8191))?;
        table.add(&logical(8193, 10_000))
    })
    .expect("room");
    let before = fs::read(&image).expect("there");
    let said =
        |change: &dyn Fn(&mut TableEditor) -> Result<(), Error>| refused(edit(&image, |table| change(table)));
    let add = |new: NewPartition| said(&|table| table.add(&new).map(drop));
    assert!(add(primary(0, 5)).contains("sector 0 is the MBR"));
    assert!(add(primary(90_000, 110_000)).contains("overlap partition 1"));
    assert!(add(part(PartitionRole::Extended, 110_000, 120_000)).contains("only one"));
    assert!(add(logical(2048, 3000)).contains("2049 to 100000"));
    assert!(add(logical(20_000, 100_001)).contains("2049 to 100000"));
    assert!(add(logical(10_001, 20_000)).contains("sector 10000 is needed for the boot record"));
    assert!(add(logical(8000, 8100)).contains("overlap partition 5"));
    assert!(
        said(&|table| table.resize(5, 8192))
            .contains("sector 8192 has the boot record of logical partition 6")
    );
    assert!(said(&|table| table.resize(1, 9000)).contains("a logical partition in it ends at sector 10000"));
    assert!(said(&|table| table.set_mbr_type(1, 0x83)).contains("delete them first"));
    assert!(said(&|table| table.set_mbr_type(5, 0xee)).contains("0xee"));
    assert!(said(&|table| table.set_mbr_type(5, 0)).contains("unused"));
    assert!(said(&|table| table.set_mbr_type(5, 0x0f)).contains("part-add"));
    assert!(said(&|table| table.set_name(1, "x")).contains("have no names"));
    assert!(said(&|table| table.expand_gpt()).contains("has an MBR"));
    assert!(said(&|table| table.delete(7)).contains("no partition 7"));
    assert_eq!(fs::read(&image).expect("there"), before);
    edit(&image, |table| {
        for start in [110_000, 112_000, 114_000] {
            table.add(&primary(start, start + 1000))?;
        }
        assert!(refused(table.add(&primary(120_000, 121_000))).contains("all four entries"));
        Ok(())
    })
    .expect("three are free");

    let empty = disk(dir.path(), 1);
    assert!(refused(edit(&empty, |table| table.delete(1))).contains("part-init"));
    let tiny = MemoryDevice::new(vec![0; 60 * 512]);
    assert!(refused(TableEditor::create(&tiny, TableKind::Gpt, Uuid::nil()).map(drop)).contains("too small"));
}

#[test]
fn numbers_can_be_chosen_while_they_are_free() {
    let dir = tempdir();
    for (kind, number) in [(TableKind::Gpt, 77), (TableKind::Mbr, 3)] {
        let image = new(dir.path(), kind, 8);
        let numbered = |number, first| NewPartition { number: Some(number), ..primary(first, first + 99) };
        assert_eq!(edit(&image, |table| table.add(&numbered(number, 2048))).expect("free"), number);
        assert!(refused(edit(&image, |table| table.add(&numbered(number, 4096)))).contains("is not free"));
        assert!(refused(edit(&image, |table| table.add(&numbered(129, 4096)))).contains("129 is not free"));
        assert!(refused(edit(&image, |table| table.add(&numbered(0, 4096)))).contains("0 is not free"));
        assert_eq!(assert_sound(&image).partitions[0].number, number);
    }
}

#[test]
fn full_tables_say_so() {
    let dir = tempdir();
    let image = new(dir.path(), TableKind::Gpt, 8);
    edit(&image, |table| {
        for number in 0..128 {
            assert_eq!(
                table.add(&primary(2048 + number, 2048 + number))?,
                u32::try_from(number).expect("small") + 1
            );
        }
        assert!(refused(table.add(&primary(8000, 8000))).contains("all 128 entries of the GPT are in use"));
        Ok(())
    })
    .expect("room");
    assert_sound(&image);
    let image = new(dir.path(), TableKind::Mbr, 8);
    edit(&image, |table| {
        table.add(&part(PartitionRole::Extended, 2048, 16_000))?;
        for number in 0..252 {
            table.add(&logical(2050 + 2 * number, 2050 + 2 * number))?;
        }
        assert!(refused(table.add(&logical(8000, 8000))).contains("252 logical partitions"));
        Ok(())
    })
    .expect("room");
    assert_eq!(read(&image).partitions.len(), 253);
}

#[test]
fn the_backup_moves_to_the_end_of_a_grown_disk() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    let path = image.to_str().expect("plain");
    run_ok("sgdisk", ["-n", "1:2048:0", path]);
    fs::OpenOptions::new().write(true).open(&image).and_then(|file| file.set_len(128 << 20)).expect("room");
    let said = refused(edit(&image, |table| table.resize(1, 200_000)));
    assert!(said.contains("34 to 131038; the disk is larger than the GPT knows: part-expand-gpt"), "{said}");
    edit(&image, |table| table.expand_gpt().and_then(|()| table.resize(1, 262_110))).expect("room");
    assert_eq!(places(&assert_sound(&image)), [(1, 2048, 262_110)]);
    // It is no backup any more, nor does it look like one.
    assert_eq!(fs::read(&image).expect("there")[(64 << 20) - 512..64 << 20], [0; 512]);

    fs::OpenOptions::new()
        .write(true)
        .open(&image)
        .and_then(|file| file.set_len(32 << 20))
        .expect("own file");
    assert!(refused(edit(&image, |table| table.set_name(1, "x"))).contains("it was cut off"));
    assert!(refused(edit(&image, |table| table.expand_gpt())).contains("would have to be larger"));
    edit(&image, |table| table.delete(1).and_then(|()| table.expand_gpt())).expect("room");
    assert_sound(&image);
}

#[test] // What is written is right, so a damaged copy is repaired with the next change.
fn a_damaged_copy_is_written_anew() {
    let dir = tempdir();
    let image = new(dir.path(), TableKind::Gpt, 8);
    edit(&image, |table| table.add(&primary(2048, 4095))).expect("room");
    let good = fs::read(&image).expect("there");
    for at in [512, 1024, good.len() - 512, good.len() - 33 * 512] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&image, &bytes).expect("own file");
        edit(&image, |table| table.set_name(1, "primary")).expect("one copy is good");
        assert_eq!(fs::read(&image).expect("there"), good, "{at:#x}");
    }
}

#[test] // Linux would believe the GPT, others the MBR: they must not come to say different things.
fn partitions_of_a_hybrid_mbr_keep_their_place() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    let path = image.to_str().expect("plain");
    run_ok("sgdisk", ["-n", "1:2048:+1M", "-n", "2:0:+1M", "-h", "1", path]);
    let mbr = fs::read(&image).expect("there")[..512].to_vec();
    let error = edit(&image, |table| table.delete(1)).expect_err("it is in the MBR");
    assert!(matches!(&error, Error::Unsupported(what) if what.contains("hybrid MBR")), "{error}");
    edit(&image, |table| table.set_name(1, "boot").and_then(|()| table.delete(2)))
        .expect("the MBR does not tell");
    assert_eq!(fs::read(&image).expect("there")[..512], mbr);
}

#[test]
fn disks_with_4096_byte_sectors_are_partitioned() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    for kind in [TableKind::Gpt, TableKind::Mbr] {
        let device = Sectors4096(MemoryDevice::new(vec![0; 64 << 20]));
        let mut table = TableEditor::create(&device, kind, Uuid::new_v4()).expect("room");
        assert_eq!(table.usable_sectors(), if kind == TableKind::Gpt { (6, 16_378) } else { (1, 16_383) });
        table.add(&primary(256, 511)).expect("room");
        if kind == TableKind::Mbr {
            table.add(&part(PartitionRole::Extended, 1024, 16_000)).expect("room");
            table.add(&logical(1280, 1300)).expect("room");
            table.add(&logical(2048, 4095)).expect("room");
        } else {
            table.add(&primary(1024, 16_378)).expect("room");
        }
        table.write(&device).expect("memory");
        fs::write(&image, device.0.into_bytes()).expect("own file");
        let ours = places(&assert_sound(&image));
        let fdisk = run("fdisk", ["-b", "4096", "-l", "-o", "Start,End", image.to_str().expect("plain")]);
        assert!(fdisk.status.success());
        let text = String::from_utf8_lossy(&fdisk.stdout).into_owned();
        let theirs: Vec<Vec<u64>> = text
            .lines()
            .map(|line| line.split_whitespace().map_while(|word| word.parse().ok()).collect())
            .filter(|numbers: &Vec<u64>| numbers.len() == 2)
            .collect();
        assert_eq!(
            ours.iter().map(|(_, first, last)| vec![*first, *last]).collect::<Vec<_>>(),
            theirs,
            "{text}"
        );
    }
}

#[test] // A disk that held something else is known by its new table only.
fn a_new_table_wipes_what_the_disk_was_known_by() {
    let dir = tempdir();
    for kind in [TableKind::Gpt, TableKind::Mbr] {
        for make in [
            &["sgdisk", "-n", "1:0:0"][..],
            &["mkfs.vfat", "-I"],
            &["mke2fs", "-q", "-F"],
            &["mkfs.xfs", "-q", "-f"],
        ] {
            let image = disk(dir.path(), if make[0] == "mkfs.xfs" { 320 } else { 16 });
            run_ok(make[0], make[1..].iter().map(AsRef::as_ref).chain([image.as_os_str()]));
            let device = MemoryDevice::new(fs::read(&image).expect("there"));
            TableEditor::create(&device, kind, Uuid::new_v4())
                .and_then(|table| table.write(&device))
                .expect("room");
            fs::write(&image, device.into_bytes()).expect("own file");
            let blkid = run_ok("blkid", ["-p".as_ref(), image.as_os_str()]);
            let name = if kind == TableKind::Gpt { "gpt" } else { "dos" };
            assert!(
                blkid.contains(&format!("PTTYPE=\"{name}\"")) && !blkid.contains(" TYPE="),
                "{make:?}: {blkid}"
            );
            assert_sound(&image);
        }
    }
}

#[test] // Many changes in a row, each read back, and judged at the end.
fn any_order_of_changes_leaves_a_sound_table() {
    let dir = tempdir();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..24 {
        let kind = if round % 2 == 0 { TableKind::Gpt } else { TableKind::Mbr };
        let device = MemoryDevice::new(vec![0; 8 << 20]);
        TableEditor::create(&device, kind, Uuid::new_v4())
            .and_then(|table| table.write(&device))
            .expect("room");
        let mut done = 0;
        for _ in 0..60 {
            let mut table = TableEditor::open(&device).expect("it was sound");
            let first = next(16_384);
            let last = first + next(1500);
            let number = u32::try_from(next(10)).expect("small");
            let role = match next(4) {
                0 => PartitionRole::Primary,
                1 => PartitionRole::Extended,
                _ => PartitionRole::Logical,
            };
            let last = if role == PartitionRole::Extended { last + 6000 } else { last };
            let role = if kind == TableKind::Gpt { PartitionRole::Primary } else { role };
            let result = match next(10) {
                0 => table.delete(number),
                1 | 2 => table.resize(number, last),
                3 => table.set_bootable(number, next(2) == 0),
                _ => table.add(&part(role, first, last)).map(drop),
            };
            match result {
                Ok(()) => done += 1,
                Err(Error::Refused(_)) => {}
                Err(e) => panic!("{e}"),
            }
            table.write(&device).expect("memory");
            let read = PartitionTable::read(&device).expect("sound").expect("a table");
            assert_eq!(read.warnings, Vec::<String>::new());
        }
        assert!(done > 5, "only {done} changes were possible");
        let image = dir.path().join("disk.img");
        fs::write(&image, device.into_bytes()).expect("own file");
        assert_sound(&image);
    }
}
