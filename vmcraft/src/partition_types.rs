//! Partition types: what a type byte of an MBR would be in a GPT, and types that hold no file system.

use vmcraft_volume::partition::Partition;

const BASIC_DATA: &str = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";
const LDM_METADATA: &str = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3";
const LDM_DATA: &str = "AF9B60A0-1431-4F62-BC68-3311714A69AD";
const MICROSOFT_RESERVED: &str = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE";
const MICROSOFT_SNAPSHOT: &str = "CADDEBF1-4400-4DE8-B103-12117DCF3CCF";
/// The EFI system partition.
pub(crate) const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/// The type as a GPT has it. For an MBR, the one that `sgdisk` would convert the type byte to;
/// `None` if there is none.
pub(crate) fn type_guid(partition: &Partition) -> Option<&str> {
    match partition.mbr_type {
        Some(kind) => from_mbr(kind),
        None => partition.type_guid.as_deref(),
    }
}

fn from_mbr(kind: u8) -> Option<&'static str> {
    Some(match kind {
        // FAT, HPFS and NTFS, also hidden
        0x01 | 0x04 | 0x06 | 0x07 | 0x0b | 0x0c | 0x0e | 0x11 | 0x14 | 0x16 | 0x17 | 0x1b | 0x1c | 0x1e => {
            BASIC_DATA
        }
        0x27 => "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", // Windows recovery environment
        0x39 => "C91818F9-8025-47AF-89D2-F030D7000C2C", // Plan 9
        0x41 => "9E1A2D38-C612-4316-AA26-8B49521E5A8B", // PowerPC PReP boot
        0x42 => LDM_DATA,
        0x82 => "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", // Linux swap
        0x83 => "0FC63DAF-8483-4772-8E79-3D69D8477DE4", // Linux file system
        0x84 => "D3BFE2DE-3DAF-11DF-BA40-E3A556D89593", // Intel Rapid Start
        0x8e => "E6D6D379-F507-44C2-A23C-238F2A3DF928", // Linux LVM
        0xa5 => "516E7CB4-6ECF-11D6-8FF8-00022D09712B", // FreeBSD disklabel
        0xa6 => "824CC7A0-36A8-11E3-890A-952519AD3F61", // OpenBSD disklabel
        0xa8 => "55465300-0000-11AA-AA11-00306543ECAC", // Apple UFS
        0xa9 => "516E7CB4-6ECF-11D6-8FF8-00022D09712B", // NetBSD, as its disklabel
        0xab => "426F6F74-0000-11AA-AA11-00306543ECAC", // Apple boot
        0xaf => "48465300-0000-11AA-AA11-00306543ECAC", // Apple HFS and HFS+
        0xbe => "6A82CB45-1DD2-11B2-99A6-080020736631", // Solaris boot
        0xbf => "6A85CF4D-1DD2-11B2-99A6-080020736631", // Solaris root
        0xeb => "42465331-3BA3-10F1-802A-4861696B7521", // Haiku BFS
        0xef => ESP,
        0xfb => "AA31E02A-400F-11DB-9590-000C2911D1B8", // VMware VMFS
        0xfd => "A19D880F-05FC-4D3B-A006-743F0F84911E", // Linux RAID
        _ => return None,
    })
}

/// Whether a file system can be in it: not in a member of a Windows dynamic disk, and not in what
/// Windows reserves.
pub(crate) fn can_hold_file_system(partition: &Partition) -> bool {
    !matches!(type_guid(partition), Some(LDM_METADATA | LDM_DATA | MICROSOFT_RESERVED | MICROSOFT_SNAPSHOT))
}

/// Whether it belongs to a Windows dynamic disk.
pub(crate) fn is_dynamic_disk(partition: &Partition) -> bool {
    matches!(type_guid(partition), Some(LDM_METADATA | LDM_DATA))
}
