//! Partition tables against `sgdisk` and `sfdisk`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::{require, run_ok, tempdir};
use vmcraft_block::MemoryDevice;
use vmcraft_volume::Error;
use vmcraft_volume::partition::{PartitionRole, PartitionTable, TableKind};

/// An empty disk of `mib` MiB.
pub(crate) fn disk(dir: &Path, mib: u64) -> PathBuf {
    let image = dir.join("disk.img");
    File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("space for a sparse file");
    image
}

/// Makes a disk by a script of `sfdisk`.
pub(crate) fn sfdisk(image: &Path, script: &str) {
    let mut child = Command::new(require("sfdisk"))
        .args(["-q", "--no-reread", "--no-tell-kernel"])
        .arg(image)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk runs");
    child.stdin.take().expect("it is piped").write_all(script.as_bytes()).expect("sfdisk reads its script");
    assert!(child.wait().expect("sfdisk ends").success());
}

pub(crate) fn read_bytes(bytes: Vec<u8>) -> Result<Option<PartitionTable>, Error> {
    PartitionTable::read(&MemoryDevice::read_only(bytes))
}

/// The table of an image that must have one.
pub(crate) fn read(image: &Path) -> PartitionTable {
    read_bytes(fs::read(image).expect("the image is there"))
        .unwrap_or_else(|e| panic!("{}: {e}", image.display()))
        .unwrap_or_else(|| panic!("{}: no table", image.display()))
}

/// Compares all that `sfdisk -J` tells.
pub(crate) fn assert_equals_sfdisk(image: &Path, table: &PartitionTable) {
    let json: Value =
        serde_json::from_str(&run_ok("sfdisk", ["-J".as_ref(), image.as_os_str()])).expect("JSON");
    let theirs = &json["partitiontable"];
    assert_eq!(u64::from(table.sector_size), theirs["sectorsize"].as_u64().unwrap_or(512));
    match table.kind {
        TableKind::Gpt => {
            assert_eq!(theirs["label"], "gpt");
            assert_eq!(table.disk_guid.as_deref(), theirs["id"].as_str());
        }
        TableKind::Mbr => {
            assert_eq!(theirs["label"], "dos");
            assert_eq!(table.mbr_id.map(|id| format!("0x{id:08x}")).as_deref(), theirs["id"].as_str());
        }
    }
    let sector = u64::from(table.sector_size);
    let ours: Vec<_> = table
        .partitions
        .iter()
        .map(|p| {
            let kind = p.type_guid.clone().unwrap_or_else(|| format!("{:x}", p.mbr_type.expect("a type")));
            (
                format!("{}{}", image.display(), p.number),
                p.start_bytes / sector,
                p.len_bytes / sector,
                kind,
                p.guid.clone(),
                p.name.clone().filter(|name| !name.is_empty()),
                table.kind == TableKind::Mbr && p.bootable,
            )
        })
        .collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let theirs: Vec<_> = theirs["partitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| {
            (
                text(&p["node"]).expect("a node"),
                p["start"].as_u64().expect("a start"),
                p["size"].as_u64().expect("a size"),
                text(&p["type"]).expect("a type"),
                text(&p["uuid"]),
                text(&p["name"]),
                p["bootable"] == true,
            )
        })
        .collect();
    assert_eq!(ours, theirs, "{}", image.display());
}

/// A GPT disk with gaps in the numbers, names and attributes.
fn gpt_disk(dir: &Path) -> PathBuf {
    let image = disk(dir, 64);
    run_ok(
        "sgdisk",
        "-n 1:2048:+1M -t 1:EF02 -n 2:0:+8M -t 2:EF00 -c 2:ESP -n 5:0:+4M -t 5:8200 -n 128:0:0 -t 128:8300"
            .split(' ')
            .chain(["-c", "128:d\u{e4}ta \u{1f427}", "-A", "128:set:2", "-A", "5:set:63"])
            .chain([image.to_str().expect("a plain path")]),
    );
    image
}

#[test] // Numbers, ranges, types, GUIDs, names and flags, as the tool that made them sees them.
fn gpt_is_what_sgdisk_and_sfdisk_see() {
    let dir = tempdir();
    let image = gpt_disk(dir.path());
    let table = read(&image);
    assert_equals_sfdisk(&image, &table);
    assert_eq!(table.warnings, Vec::<String>::new());
    assert_eq!(table.partitions.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 5, 128]);
    for partition in &table.partitions {
        let info = run_ok("sgdisk", ["-i", &partition.number.to_string(), image.to_str().expect("plain")]);
        let field = |key: &str| {
            let line =
                info.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {info}"));
            line[key.len()..].trim().split(" (").next().expect("a value").to_owned()
        };
        assert_eq!(partition.type_guid, Some(field("Partition GUID code:")));
        assert_eq!(partition.guid, Some(field("Partition unique GUID:")));
        assert_eq!(partition.start_bytes / 512, field("First sector:").parse::<u64>().expect("a number"));
        assert_eq!(partition.end_bytes() / 512 - 1, field("Last sector:").parse::<u64>().expect("a number"));
        assert_eq!(format!("{:016X}", partition.attributes), field("Attribute flags:"));
        // Past U+FFFF it prints bytes that are no text; `sfdisk` got that right above.
        if let Some(name) = partition.name.as_deref().filter(|name| name.is_ascii()) {
            assert_eq!(format!("'{name}'"), field("Partition name:"));
        }
    }
    assert!(table.partitions[3].bootable && !table.partitions[2].bootable);
    let part_uuid = run_ok("blkid", ["-p", "-o", "value", "-s", "PTUUID", image.to_str().expect("plain")]);
    assert_eq!(table.disk_guid.as_deref().map(str::to_lowercase).as_deref(), Some(part_uuid.trim()));
}

#[test] // Logical partitions are numbered along the chain, not by place, and gaps at the front stay.
fn mbr_with_logical_partitions_is_what_sfdisk_sees() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    sfdisk(
        &image,
        "label: dos\nlabel-id: 0x1badcafe\n\
         1 : start=2048, size=4096, type=c, bootable\n\
         3 : start=8192, size=100000, type=f\n\
         5 : start=10240, size=2048, type=83\n\
         6 : start=20480, size=2048, type=82\n\
         7 : start=14336, size=2048, type=8e\n\
         4 : start=6144, size=2048, type=7\n",
    );
    let table = read(&image);
    assert_equals_sfdisk(&image, &table);
    assert_eq!(table.warnings, Vec::<String>::new());
    assert_eq!(table.mbr_id, Some(0x1bad_cafe));
    assert_eq!(table.partition(3).map(|p| p.role), Some(PartitionRole::Extended));
    assert_eq!(table.partition(6).map(|p| p.role), Some(PartitionRole::Logical));
    assert_eq!(table.partition(6).map(|p| p.part_uuid.as_str()), Some("1badcafe-06"));
}

#[test] // An empty table is a table: the disk was initialised.
fn empty_tables_are_tables() {
    let dir = tempdir();
    let image = disk(dir.path(), 8);
    sfdisk(&image, "label: dos\n");
    assert_eq!(read(&image).partitions, []);
    sfdisk(&image, "label: gpt\n");
    let table = read(&image);
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 0));
    assert_eq!(read_bytes(vec![0; 1 << 20]).expect("readable"), None);
    assert_eq!(read_bytes(Vec::new()).expect("readable"), None);
}

/// The offsets of what can be damaged in a GPT of `disk`.
fn damage(disk: &[u8], at: &[usize]) -> Vec<u8> {
    let mut bytes = disk.to_vec();
    for at in at {
        bytes[*at] ^= 0x01;
    }
    bytes
}

#[test] // One bad copy is survived with a warning that says which, two are not.
fn gpt_is_read_from_the_backup_when_the_first_is_damaged() {
    let dir = tempdir();
    let image = gpt_disk(dir.path());
    let good = fs::read(&image).expect("the image is there");
    let whole = read(&image).partitions;
    let (header, entries) = (512, 1024);
    let (backup_header, backup_entries) = (good.len() - 512, good.len() - 33 * 512);
    // In the header: signature, size, checksum, own position, position of the entries, entry count.
    for at in
        [header, header + 0x0c, header + 0x10, header + 0x18, header + 0x48, header + 0x50, entries + 40]
    {
        let table = read_bytes(damage(&good, &[at])).expect("the backup is good").expect("a table");
        assert_eq!(table.partitions, whole, "{at:#x}");
        assert_eq!(table.warnings.len(), 1, "{at:#x}: {:?}", table.warnings);
        assert!(table.warnings[0].contains("the backup at byte 0x3fffe00 is used"), "{:?}", table.warnings);
    }
    for at in [backup_header + 0x10, backup_entries] {
        let table = read_bytes(damage(&good, &[at])).expect("the first is good").expect("a table");
        assert_eq!(table.partitions, whole, "{at:#x}");
        assert!(table.warnings[0].contains("backup of the GPT is damaged"), "{:?}", table.warnings);
    }
    let error = read_bytes(damage(&good, &[header + 0x18, backup_entries])).expect_err("both are bad");
    assert_eq!(
        error.to_string(),
        "corrupt GPT header: checksum (and the backup is no better) at byte 0x210 of the device"
    );
}

#[test] // A table that fits its checksums can still lie about its size.
fn gpt_with_forged_sizes_is_refused() {
    let dir = tempdir();
    let good = fs::read(gpt_disk(dir.path())).expect("the image is there");
    let forge = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        for start in [512, good.len() - 512] {
            bytes[start + at..start + at + value.len()].copy_from_slice(value);
            testkit::seal::crc32(&mut bytes[start..start + 92], 0x10);
        }
        read_bytes(bytes).expect_err("it is forged").to_string()
    };
    assert!(forge(0x54, &0_u32.to_le_bytes()).contains("entry size"));
    assert!(forge(0x54, &96_u32.to_le_bytes()).contains("entry size"));
    assert!(forge(0x50, &u32::MAX.to_le_bytes()).contains("number of entries"));
    assert!(forge(0x48, &u64::MAX.to_le_bytes()).contains("position of the entries"));
    assert!(forge(0x48, &(1_u64 << 40).to_le_bytes()).contains("beyond the end of the disk"));
    assert!(forge(0x30, &0_u64.to_le_bytes()).contains("first usable sector"));
}

/// Makes a disk with 4096-byte sectors by keystrokes of `fdisk`.
fn fdisk_4k(image: &Path, keys: &str) {
    let mut child = Command::new(require("fdisk"))
        .args(["--sector-size", "4096"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("fdisk runs");
    child.stdin.take().expect("it is piped").write_all(keys.as_bytes()).expect("fdisk reads its keys");
    assert!(child.wait().expect("fdisk ends").success());
}

#[test] // A raw file does not tell that it is of a disk with 4096-byte sectors.
fn disks_with_4096_byte_sectors_open_from_a_file() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    let ranges = |table: &PartitionTable| {
        table
            .partitions
            .iter()
            .map(|p| (p.number, p.start_bytes >> 20, p.len_bytes >> 20))
            .collect::<Vec<_>>()
    };
    fdisk_4k(&image, "g\nn\n1\n256\n+4M\nn\n2\n2048\n+16M\nw\n");
    let table = read(&image);
    assert_eq!((table.kind, table.sector_size), (TableKind::Gpt, 4096));
    assert_eq!(ranges(&table), [(1, 1, 4), (2, 8, 16)]);
    assert_eq!(table.warnings, Vec::<String>::new());
    let mut bytes = fs::read(&image).expect("there");
    bytes[4096] = 0;
    let table = read_bytes(bytes).expect("the backup is good").expect("a table");
    assert_eq!(ranges(&table), [(1, 1, 4), (2, 8, 16)]);
    assert_eq!(table.warnings.len(), 1);

    let image = disk(dir.path(), 64);
    fdisk_4k(&image, "o\nn\np\n1\n256\n+4M\nn\ne\n2\n2048\n+32M\nn\nl\n2304\n+8M\nw\n");
    let table = read(&image);
    assert_eq!((table.kind, table.sector_size), (TableKind::Mbr, 4096));
    assert_eq!(ranges(&table), [(1, 1, 4), (2, 8, 32), (5, 9, 8)]);
}

#[test] // What the kernel does: the GPT wins, and the user is told.
fn hybrid_mbr_gives_way_to_the_gpt() {
    let dir = tempdir();
    let image = gpt_disk(dir.path());
    run_ok("sgdisk", ["-h", "2:5", image.to_str().expect("plain")]);
    let table = read(&image);
    assert_eq!(table.kind, TableKind::Gpt);
    assert_eq!(table.partitions.len(), 4);
    assert_eq!(
        table.warnings,
        ["the disk has a hybrid MBR: the GPT is used, and MBR partitions 2, 3 are ignored"]
    );
}

#[test] // mkfs on a whole disk leaves the MBR's signature, and sometimes what looks like entries.
fn boot_sectors_of_file_systems_are_not_tables() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    let path = image.to_str().expect("plain");
    for (program, options) in [
        ("mkfs.vfat", &["-F", "16", "-I"][..]),
        ("mkfs.vfat", &["-F", "32", "-I"]),
        ("mkntfs", &["-F", "-Q", "-q"]),
        ("mkfs.exfat", &[]),
    ] {
        run_ok(program, options.iter().copied().chain([path]));
        assert_eq!(read_bytes(fs::read(&image).expect("there")).expect("readable"), None, "{program}");
    }
}

#[test] // A boot loader keeps the parameters of the file system that was there before the table.
fn table_behind_leftover_fat_parameters_is_found() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    run_ok("mkfs.vfat", ["-I".as_ref(), image.as_os_str()]);
    sfdisk(&image, "label: dos\nstart=2048, size=4096, type=83\n");
    assert_equals_sfdisk(&image, &read(&image));
}

#[test] // An image that was cut off, or a table that is wrong: kept, and said.
fn partitions_beyond_the_end_of_the_disk_are_kept_with_a_warning() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    sfdisk(&image, "label: dos\nstart=2048, size=4096, type=83\nstart=8192, type=83\n");
    let mut bytes = fs::read(&image).expect("there");
    bytes.truncate(32 << 20);
    let table = read_bytes(bytes).expect("readable").expect("a table");
    assert_eq!(table.partitions.len(), 2);
    assert_eq!(
        table.warnings,
        ["partition 2 ends at byte 0x4000000, beyond the end of the disk at byte 0x2000000"]
    );
}

#[test] // Two partitions over the same bytes are the user's to know.
fn overlapping_partitions_are_reported() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    sfdisk(&image, "label: dos\nstart=2048, size=8192, type=83\nstart=20480, size=2048, type=83\n");
    let mut bytes = fs::read(&image).expect("there");
    bytes[0x1ce + 8..0x1ce + 12].copy_from_slice(&4096_u32.to_le_bytes());
    let table = read_bytes(bytes).expect("readable").expect("a table");
    assert_eq!(table.warnings, ["partitions 1 and 2 overlap at byte 0x200000"]);
}

#[test] // A forged chain must end.
fn chains_of_logical_partitions_that_loop_end() {
    let dir = tempdir();
    let image = disk(dir.path(), 64);
    sfdisk(
        &image,
        "label: dos\nstart=2048, size=100000, type=5\nstart=4096, size=2048, type=83\nstart=8192, size=2048\n",
    );
    let good = fs::read(&image).expect("there");
    assert_eq!(read_bytes(good.clone()).expect("readable").expect("a table").partitions.len(), 3);
    let link = |record_sector: usize| record_sector * 512 + 0x1ce + 8;
    let second = u32::from_le_bytes(good[link(2048)..link(2048) + 4].try_into().expect("four bytes"));
    let mut looped = good.clone();
    let at = link(2048 + second as usize);
    looped[at - 4] = 5;
    looped[at..at + 4].copy_from_slice(&second.to_le_bytes());
    looped[at + 4..at + 8].copy_from_slice(&2048_u32.to_le_bytes());
    let table = read_bytes(looped).expect("readable").expect("a table");
    assert_eq!(table.partitions.len(), 3);
    assert!(table.warnings[0].contains("comes back"), "{:?}", table.warnings);
    let mut broken = good;
    broken[link(2048)..link(2048) + 4].copy_from_slice(&70_000_u32.to_le_bytes());
    let table = read_bytes(broken).expect("readable").expect("a table");
    assert!(table.warnings[0].contains("breaks"), "{:?}", table.warnings);
}

#[test] // A GPT whose MBR was wiped is invisible to the guest; say so instead of nothing.
fn gpt_without_protective_mbr_is_named() {
    let dir = tempdir();
    let mut bytes = fs::read(gpt_disk(dir.path())).expect("there");
    bytes[..512].fill(0);
    assert!(read_bytes(bytes).expect_err("not a table").to_string().contains("protective MBR"));
}
