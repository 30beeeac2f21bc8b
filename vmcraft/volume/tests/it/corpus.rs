//! Partition tables of disks that no one here made.

use serde_json::Value;
use testkit::{corpus, tempdir};
use vmcraft_block::MemoryDevice;
use vmcraft_volume::Error;
use vmcraft_volume::partition::{PartitionRole, PartitionTable, TableKind};

fn read(image: &std::path::Path) -> Result<Option<PartitionTable>, Error> {
    PartitionTable::read(&MemoryDevice::read_only(std::fs::read(image).expect("the image is there")))
}

#[test] // Numbers, places and sector sizes are those that fdisk found.
fn tables_are_what_fdisk_sees() {
    let Some(corpus) = corpus::dir() else { return };
    let mut compared = 0;
    for row in corpus::rows(&corpus, "ptable/") {
        let dir = tempdir();
        let table = read(&corpus::unpack(&corpus, &row, dir.path()));
        let facts: Value = serde_json::from_str(&row.facts).expect("facts are JSON");
        let fdisk = &facts["check"]["fdisk"];
        // Heads of larger disks have their GPT where fdisk sees only the protective MBR.
        let cut_off = row.path.starts_with("ptable/dissect-gpt");
        let (Some(label @ ("dos" | "gpt")), false) = (fdisk["label"].as_str(), cut_off) else { continue };
        let table = table.unwrap_or_else(|e| panic!("{}: {e}", row.path));
        let table = table.unwrap_or_else(|| panic!("{}: no table", row.path));
        assert_eq!(if table.kind == TableKind::Gpt { "gpt" } else { "dos" }, label, "{}", row.path);
        let sector = u64::from(table.sector_size);
        assert_eq!(Some(sector), fdisk["sector_size"].as_u64(), "{}", row.path);
        let ours: Vec<_> = table
            .partitions
            .iter()
            .map(|p| format!("{} {} {}", p.number, p.start_bytes / sector, p.len_bytes / sector))
            .collect();
        let theirs: Vec<_> = fdisk["parts"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(ours, theirs, "{}", row.path);
        if let (TableKind::Gpt, Some(id)) = (table.kind, fdisk["id"].as_str()) {
            assert_eq!(table.disk_guid.as_deref(), Some(id), "{}", row.path);
        }
        compared += 1;
    }
    assert!(compared >= 8, "only {compared} tables");
}

#[test] // The first sectors of disks whose rest is gone: everything is listed, and said to be gone.
fn heads_of_disks_are_read_with_warnings() {
    let Some(corpus) = corpus::dir() else { return };
    for (path, names) in [
        ("ptable/dissect-gpt.bin", &["EFI System Partition", ""][..]),
        ("ptable/dissect-gpt_hybrid.bin", &["Linux filesystem", "Linux filesystem", "Linux filesystem"]),
    ] {
        let dir = tempdir();
        let row = corpus::rows(&corpus, path).remove(0);
        let table = read(&corpus::unpack(&corpus, &row, dir.path())).expect("readable").expect("a table");
        let found: Vec<_> = table.partitions.iter().map(|p| p.name.as_deref().unwrap_or("-")).collect();
        assert_eq!(found, names, "{path}");
        assert!(
            table.warnings.iter().any(|w| w.contains("backup of the GPT")),
            "{path}: {:?}",
            table.warnings
        );
        assert!(table.warnings.iter().any(|w| w.contains("beyond the end")), "{path}: {:?}", table.warnings);
        assert!(table.warnings.iter().any(|w| w.contains("hybrid MBR")), "{path}: {:?}", table.warnings);
    }
    // Here the entries do not fit their checksum, and there is no backup.
    let dir = tempdir();
    let row = corpus::rows(&corpus, "ptable/dissect-gpt_no_name_xff.bin").remove(0);
    let error = read(&corpus::unpack(&corpus, &row, dir.path())).expect_err("no copy is good");
    assert!(error.to_string().contains("GPT entries: checksum"), "{error}");
}

#[test] // A table that is not understood is named, not taken for an empty disk.
fn other_tables_are_named() {
    let Some(corpus) = corpus::dir() else { return };
    for (path, name) in [("ptable/ul-sun", "a Sun disk label"), ("ptable/ul-bsd", "a BSD disklabel")] {
        let dir = tempdir();
        let row = corpus::rows(&corpus, path).remove(0);
        let error = read(&corpus::unpack(&corpus, &row, dir.path())).expect_err("not our table");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test] // The extended partition of a disk with 4096-byte sectors tells what its numbers count.
fn mbr_with_4096_byte_sectors_is_recognised() {
    let Some(corpus) = corpus::dir() else { return };
    let dir = tempdir();
    let row = corpus::rows(&corpus, "ptable/dfir-mbr-4096-p1e0").remove(0);
    let table = read(&corpus::unpack(&corpus, &row, dir.path())).expect("readable").expect("a table");
    assert_eq!(table.sector_size, 4096);
    let roles: Vec<_> = table.partitions.iter().map(|p| p.role).collect();
    assert_eq!(roles, [PartitionRole::Primary, PartitionRole::Extended]);
}
