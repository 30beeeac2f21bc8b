//! What the superblock says, for people: the names, values and order of `tune2fs -l`.

use bstr::{BStr, BString, ByteSlice};
use jiff::Timestamp;
use uuid::Uuid;
use vmcraft_block::BlockDevice;
use vmcraft_fs::Result;
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::features::{Compat, Feature, Incompat, NAMES, RoCompat};
use crate::superblock::{RawSuperblock, START, Superblock, state};

type Rows = Vec<(&'static str, BString)>;

/// Describes the volume on a device.
pub(crate) fn describe(device: &dyn BlockDevice) -> Result<Rows> {
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(START, raw.as_mut_bytes())?;
    let sb = Superblock::decode(&raw, device.size())?;
    let mut rows = Rows::new();
    names(&raw, &sb, &mut rows);
    sizes(&raw, &sb, &mut rows);
    history(&raw, &mut rows);
    inodes(&raw, &sb, &mut rows);
    errors(&raw, &mut rows);
    places(&raw, &sb, &mut rows);
    Ok(rows)
}

fn add(rows: &mut Rows, name: &'static str, value: impl ToString) {
    rows.push((name, value.to_string().into()));
}

/// Adds a number unless it is 0.
fn add_number(rows: &mut Rows, name: &'static str, value: impl Into<u64>) {
    let value = value.into();
    if value != 0 {
        add(rows, name, value);
    }
}

/// Adds a UUID unless it is all zeros.
fn add_uuid(rows: &mut Rows, name: &'static str, bytes: [u8; 16]) {
    let uuid = Uuid::from_bytes(bytes);
    if !uuid.is_nil() {
        add(rows, name, uuid);
    }
}

/// Text up to its first NUL.
fn text(bytes: &[u8]) -> &BStr {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().as_bstr()
}

fn names(raw: &RawSuperblock, sb: &Superblock, rows: &mut Rows) {
    let or = |bytes, otherwise: &str| {
        Some(text(bytes)).filter(|t| !t.is_empty()).unwrap_or(otherwise.into()).into()
    };
    rows.push(("Filesystem volume name", or(&raw.volume_name, "<none>")));
    rows.push(("Last mounted on", or(&raw.last_mounted, "<not available>")));
    add(rows, "Filesystem UUID", Uuid::from_bytes(raw.uuid));
    add(rows, "Filesystem magic number", format!("{:#06X}", raw.magic.get()).replacen("0X", "0x", 1));
    let revision = ["original", "dynamic"].get(usize::try_from(raw.rev_level.get()).unwrap_or(usize::MAX));
    let revision = format!("{} ({})", raw.rev_level, revision.unwrap_or(&"unknown"));
    add(rows, "Filesystem revision #", revision);
    add(rows, "Filesystem features", list(&features(raw)));
    let flags = [(1, "signed_directory_hash"), (2, "unsigned_directory_hash"), (4, "test_filesystem")];
    let flags: Vec<_> =
        flags.iter().filter(|(bit, _)| raw.flags.get() & bit != 0).map(|(_, name)| *name).collect();
    if raw.flags.get() != 0 {
        add(rows, "Filesystem flags", flags.join(" "));
    }
    add(rows, "Default mount options", list(&mount_options(raw.default_mount_opts.get())));
    if !text(&raw.mount_opts).is_empty() {
        rows.push(("Mount options", text(&raw.mount_opts).into()));
    }
    let clean = if raw.state.get() & state::VALID != 0 { "clean" } else { "not clean" };
    let errors = if raw.state.get() & state::ERROR != 0 { " with errors" } else { "" };
    add(rows, "Filesystem state", format!("{clean}{errors}"));
    let behavior = match raw.errors.get() {
        1 => "Continue",
        2 => "Remount read-only",
        3 => "Panic",
        _ => "Unknown (continue)",
    };
    add(rows, "Errors behavior", behavior);
    let systems = ["Linux", "Hurd", "Masix", "FreeBSD", "Lites"];
    let system = usize::try_from(raw.creator_os.get()).ok().and_then(|number| systems.get(number).copied());
    add(rows, "Filesystem OS type", system.unwrap_or("(unknown os)"));
    add(rows, "Inode count", sb.inodes);
}

/// The names with blanks between them, or that there is none.
fn list(names: &[String]) -> String {
    if names.is_empty() { "(none)".to_owned() } else { names.join(" ") }
}

fn features(raw: &RawSuperblock) -> Vec<String> {
    let words = [(raw.feature_compat, 'C'), (raw.feature_incompat, 'I'), (raw.feature_ro_compat, 'R')];
    let mut names = Vec::new();
    for (word, letter) in words {
        for bit in (0..32).filter(|bit| word.get() & 1 << bit != 0) {
            let flag = match letter {
                'C' => Feature::Compat(Compat::from_bits_retain(1 << bit)),
                'I' => Feature::Incompat(Incompat::from_bits_retain(1 << bit)),
                _ => Feature::RoCompat(RoCompat::from_bits_retain(1 << bit)),
            };
            let known = NAMES.iter().find(|(_, feature)| *feature == flag);
            names
                .push(known.map_or_else(|| format!("FEATURE_{letter}{bit}"), |(name, _)| (*name).to_owned()));
        }
    }
    names
}

fn mount_options(flags: u32) -> Vec<String> {
    // How files are journaled is a number of two bits, the rest are flags.
    const JOURNAL_MODE: u32 = 0x60;
    let known = [
        (0x20, "journal_data"),
        (0x40, "journal_data_ordered"),
        (0x60, "journal_data_writeback"),
        (0x1, "debug"),
        (0x2, "bsdgroups"),
        (0x4, "user_xattr"),
        (0x8, "acl"),
        (0x10, "uid16"),
        (0x100, "nobarrier"),
        (0x200, "block_validity"),
        (0x400, "discard"),
        (0x800, "nodelalloc"),
    ];
    let is_set = |bits: u32| {
        if bits & JOURNAL_MODE == 0 { flags & bits != 0 } else { flags & JOURNAL_MODE == bits }
    };
    known.iter().filter(|(bits, _)| is_set(*bits)).map(|(_, name)| (*name).to_owned()).collect()
}

fn sizes(raw: &RawSuperblock, sb: &Superblock, rows: &mut Rows) {
    let is_wide = sb.incompat.contains(Incompat::SIXTY_FOUR_BIT);
    let free_high = if is_wide { u64::from(raw.free_blocks_count_hi.get()) << 32 } else { 0 };
    let free = free_high | u64::from(raw.free_blocks_count_lo.get());
    let has_clusters = sb.ro_compat.contains(RoCompat::BIGALLOC);
    add(rows, "Block count", sb.blocks);
    add(rows, "Reserved block count", sb.reserved_blocks);
    add_number(rows, "Overhead clusters", sb.overhead_clusters);
    add(rows, "Free blocks", free);
    add(rows, "Free inodes", raw.free_inodes_count);
    add(rows, "First block", sb.first_data_block);
    add(rows, "Block size", sb.block_size);
    let cluster = u64::from(sb.block_size) * u64::from(sb.cluster_blocks);
    add(rows, if has_clusters { "Cluster size" } else { "Fragment size" }, cluster);
    if is_wide {
        add(rows, "Group descriptor size", raw.desc_size);
    }
    add_number(rows, "Reserved GDT blocks", raw.reserved_gdt_blocks.get());
    add(rows, "Blocks per group", sb.blocks_per_group);
    let units = if has_clusters { "Clusters per group" } else { "Fragments per group" };
    add(rows, units, raw.clusters_per_group);
    add(rows, "Inodes per group", sb.inodes_per_group);
    let table = u64::from(sb.inodes_per_group) * u64::from(sb.inode_size);
    add(rows, "Inode blocks per group", table.div_ceil(sb.block_size.into()));
    add_number(rows, "First meta block group", raw.first_meta_bg.get());
    add_number(rows, "RAID stride", raw.raid_stride.get());
    add_number(rows, "RAID stripe width", raw.raid_stripe_width.get());
    if raw.log_groups_per_flex != 0 {
        add(rows, "Flex block group size", sb.flex_groups);
    }
}

/// A time of 40 bits as `ctime` has it, in UTC.
fn time(low: U32, high: u8) -> String {
    let seconds = i64::from(low.get()) | i64::from(high) << 32;
    Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.strftime("%a %b %e %H:%M:%S %Y").to_string())
}

fn history(raw: &RawSuperblock, rows: &mut Rows) {
    if raw.mkfs_time.get() != 0 || raw.mkfs_time_hi != 0 {
        add(rows, "Filesystem created", time(raw.mkfs_time, raw.mkfs_time_hi));
    }
    let is_mounted = raw.mtime.get() != 0 || raw.mtime_hi != 0;
    add(rows, "Last mount time", if is_mounted { time(raw.mtime, raw.mtime_hi) } else { "n/a".into() });
    add(rows, "Last write time", time(raw.wtime, raw.wtime_hi));
    add(rows, "Mount count", raw.mnt_count);
    // As a number with a sign: -1 for never.
    add(rows, "Maximum mount count", raw.max_mnt_count.get().cast_signed());
    add(rows, "Last checked", time(raw.lastcheck, raw.lastcheck_hi));
    let interval = raw.checkinterval.get();
    add(rows, "Check interval", format!("{interval} ({})", duration(interval)));
    if interval != 0 {
        let (next, carried) = raw.lastcheck.get().overflowing_add(interval);
        add(rows, "Next check after", time(next.into(), raw.lastcheck_hi.wrapping_add(carried.into())));
    }
    let written = raw.kbytes_written.get();
    if written != 0 {
        let units = ["kB", "MB", "GB", "TB", "PB"];
        let at = (0..4).find(|unit| written < 1 << (13 + 10 * unit)).unwrap_or(4);
        let half = if at == 0 { 0 } else { 1 << (10 * at - 1) };
        let value = written.saturating_add(half) >> (10 * at);
        add(rows, "Lifetime writes", format!("{value} {}", units.get(at).unwrap_or(&"")));
    }
    for (name, kind, number) in [
        ("Reserved blocks uid", "user", raw.def_resuid.get()),
        ("Reserved blocks gid", "group", raw.def_resgid.get()),
    ] {
        // The other names are the guest's, or the host's, to know.
        let known = if number == 0 { "root" } else { "unknown" };
        add(rows, name, format!("{number} ({kind} {known})"));
    }
}

/// A number of seconds in months of 30 days, weeks, days, and hours.
fn duration(mut seconds: u32) -> String {
    const DAY: u32 = 86400;
    if seconds == 0 {
        return "<none>".to_owned();
    }
    let mut parts = Vec::new();
    for (len, unit) in [(30 * DAY, "month"), (7 * DAY, "week"), (DAY, "day")] {
        let count = seconds / len;
        seconds %= len;
        if count > 0 {
            parts.push(format!("{count} {unit}{}", if count > 1 { "s" } else { "" }));
        }
    }
    if seconds > 0 {
        parts.push(format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    }
    parts.join(", ")
}

fn inodes(raw: &RawSuperblock, sb: &Superblock, rows: &mut Rows) {
    if raw.rev_level.get() > 0 {
        add(rows, "First inode", raw.first_ino);
        add(rows, "Inode size", sb.inode_size);
        add_number(rows, "Required extra isize", raw.min_extra_isize.get());
        add_number(rows, "Desired extra isize", raw.want_extra_isize.get());
    }
    add_uuid(rows, "Journal UUID", raw.journal_uuid);
    add_number(rows, "Journal inode", raw.journal_inum.get());
    if raw.journal_dev.get() != 0 {
        add(rows, "Journal device", format!("{:#06x}", raw.journal_dev.get()));
    }
    add_number(rows, "First orphan inode", raw.last_orphan.get());
    if sb.compat.contains(Compat::DIR_INDEX) || raw.def_hash_version != 0 {
        let known =
            ["legacy", "half_md4", "tea", "legacy_unsigned", "half_md4_unsigned", "tea_unsigned", "siphash"];
        let hash = known.get(usize::from(raw.def_hash_version)).map(|name| (*name).to_owned());
        let hash = hash.unwrap_or_else(|| format!("HASHALG_{}", raw.def_hash_version));
        add(rows, "Default directory hash", hash);
    }
    let mut seed = [0; 16];
    seed.copy_from_slice(raw.hash_seed.as_bytes());
    add_uuid(rows, "Directory Hash Seed", seed);
    match raw.jnl_backup_type {
        0 => {}
        1 => add(rows, "Journal backup", "inode blocks"),
        other => add(rows, "Journal backup", format!("type {other}")),
    }
}

fn errors(raw: &RawSuperblock, rows: &mut Rows) {
    add_number(rows, "FS Error count", raw.error_count.get());
    let first = (raw.first_error_time, raw.first_error_time_hi);
    if first.0.get() != 0 || first.1 != 0 {
        add(rows, "First error time", time(first.0, first.1));
        rows.push(("First error function", text(&raw.first_error_func).into()));
        add(rows, "First error line #", raw.first_error_line);
        add_number(rows, "First error inode #", raw.first_error_ino.get());
        add_number(rows, "First error block #", raw.first_error_block.get());
        add_code(rows, "First error err", raw.first_error_errcode);
    }
    let last = (raw.last_error_time, raw.last_error_time_hi);
    if last.0.get() != 0 || last.1 != 0 {
        add(rows, "Last error time", time(last.0, last.1));
        rows.push(("Last error function", text(&raw.last_error_func).into()));
        add(rows, "Last error line #", raw.last_error_line);
        add_number(rows, "Last error inode #", raw.last_error_ino.get());
        add_number(rows, "Last error block #", raw.last_error_block.get());
        add_code(rows, "Last error err", raw.last_error_errcode);
    }
}

/// What kind of error it was, if that is known.
fn add_code(rows: &mut Rows, name: &'static str, code: u8) {
    const CODES: [&str; 17] = [
        "UNKNOWN",
        "EIO",
        "ENOMEM",
        "EFSBADCRC",
        "EFSCORRUPTED",
        "ENOSPC",
        "ENOKEY",
        "EROFS",
        "EFBIG",
        "EEXIST",
        "ERANGE",
        "EOVERFLOW",
        "EBUSY",
        "ENOTDIR",
        "ENOTEMPTY",
        "ESHUTDOWN",
        "EFAULT",
    ];
    if let Some(index) = usize::from(code).checked_sub(1) {
        add(
            rows,
            name,
            CODES.get(index).map_or_else(|| format!("UNKNOWN_ERRCODE_{code}"), |c| (*c).to_owned()),
        );
    }
}

fn places(raw: &RawSuperblock, sb: &Superblock, rows: &mut Rows) {
    if sb.incompat.contains(Incompat::MMP) {
        add(rows, "MMP block number", raw.mmp_block);
        add(rows, "MMP update interval", raw.mmp_interval);
    }
    add_number(rows, "User quota inode", raw.usr_quota_inum.get());
    add_number(rows, "Group quota inode", raw.grp_quota_inum.get());
    add_number(rows, "Project quota inode", raw.prj_quota_inum.get());
    if sb.metadata_csum() {
        add(rows, "Checksum type", "crc32c");
        add(rows, "Checksum", format!("{:#010x}", raw.checksum.get()));
    }
    add_uuid(rows, "Encryption PW Salt", raw.encrypt_pw_salt);
    if sb.incompat.contains(Incompat::CSUM_SEED) {
        add(rows, "Checksum seed", format!("{:#010x}", raw.checksum_seed.get()));
    }
    if sb.incompat.contains(Incompat::CASEFOLD) {
        let encoding = match raw.encoding.get() {
            1 => "utf8-12.1".to_owned(),
            other => format!("UNKNOWN_ENCODING_{other}"),
        };
        add(rows, "Character encoding", encoding);
    }
    if sb.compat.contains(Compat::ORPHAN_FILE) {
        add(rows, "Orphan file inode", raw.orphan_file_inum);
    }
}
