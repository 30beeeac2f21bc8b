//! A disk with a partition table whose checksums fit: read, and changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use vmcraft_block::BlockDevice;
use vmcraft_fuzz::decode;
use vmcraft_volume::partition::{
    LINUX_FILE_SYSTEM, NewPartition, PartitionRole, PartitionTable, TableEditor,
};
use vmcraft_volume::signature;

/// What is left after changes must be a table still. One without partitions is none where the boot code is that of a
/// file system.
fn write(table: &TableEditor, disk: &dyn BlockDevice, may_be_empty: bool) {
    if table.write(disk).is_ok() {
        let read = PartitionTable::read(disk);
        let is_table = matches!(read, Ok(Some(_))) || (may_be_empty && matches!(read, Ok(None)));
        assert!(is_table, "what was written is no table: {read:?}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(disk) = decode(input).into_iter().next() else { return };
    let _ = (signature::probe(&*disk), signature::probe_container(&*disk));
    let Ok(Some(read)) = PartitionTable::read(&*disk) else { return };
    for partition in &read.partitions {
        assert!(partition.start_bytes.checked_add(partition.len_bytes).is_some(), "{partition:?}");
        assert_eq!(read.partition(partition.number).map(|found| found.number), Some(partition.number));
    }
    let Ok(mut table) = TableEditor::open(&*disk) else { return };
    let sector_size = u64::from(table.sector_size());
    for partition in read.partitions.iter().take(6) {
        let (number, end) = (partition.number, partition.end_bytes() / sector_size);
        let _ = (table.set_bootable(number, true), table.set_mbr_type(number, 0x83));
        let _ = (table.set_name(number, "name"), table.set_guid(number, Uuid::from_u128(7)));
        let _ = (table.resize(number, end + 100), table.resize(number, end.saturating_sub(100)));
    }
    write(&table, &*disk, false);
    let (first, last) = table.usable_sectors();
    for role in [PartitionRole::Primary, PartitionRole::Extended, PartitionRole::Logical] {
        for (first_sector, last_sector) in
            [(first, last), (last.saturating_sub(20), last), (2048, 4095), (5000, 6000)]
        {
            let _ = table.add(&NewPartition {
                number: None,
                role,
                first_sector,
                last_sector,
                type_guid: LINUX_FILE_SYSTEM,
                guid: Uuid::from_u128(9),
                name: "new".into(),
            });
        }
    }
    let _ = table.expand_gpt();
    write(&table, &*disk, false);
    for partition in read.partitions.iter().take(6) {
        let _ = table.delete(partition.number);
    }
    let _ = (table.set_disk_guid(Uuid::from_u128(8)), table.set_disk_id(9));
    write(&table, &*disk, true);
});
