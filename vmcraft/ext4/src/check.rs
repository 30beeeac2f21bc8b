//! Checking a volume: everything that is known of the format is compared with everything else.
//!
//! First the groups are read, then all inodes with their maps, then all directories; what these say of
//! blocks, links and counts is compared with what bitmaps, inodes and descriptors say. In memory are a
//! bit for each block and a few bytes for each inode of the groups that are in use, and a record for
//! each directory and each block of attributes.

mod claims;
mod counts;
mod directories;
mod inodes;
mod repair;

use std::collections::HashMap;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{CheckOptions, Error, Finding, OpenOptions, Result};

use crate::features::Incompat;
use crate::filesystem::{Mounted, read_superblock};
use crate::group::Group;
use crate::superblock::{JournalPlace, RawSuperblock, state};
use crate::volume::Volume;
use crate::writable::check_mmp;
use crate::{orphan, replay};
use claims::{Claims, Facts};

/// More findings than this are only counted.
const MOST_FINDINGS: usize = 1000;

/// Checks the volume on a device; with `repair` puts right what can be put right without a loss.
pub(crate) fn check(device: &Arc<dyn BlockDevice>, options: CheckOptions) -> Result<Vec<Finding>> {
    let sb = read_superblock(device)?;
    if sb.cluster_blocks > 1 {
        return Err(Error::Unsupported("checking a volume with bigalloc".into()));
    }
    let mut findings = Findings::default();
    let open = OpenOptions::default();
    let mounted = match Mounted::open(device, &open) {
        Ok(mounted) => mounted,
        Err(error @ (Error::Corrupt { .. } | Error::Unsupported(_))) => {
            findings.add(error);
            Mounted::open(device, &OpenOptions { ignore_journal: true, ..open })?
        }
        Err(error) => return Err(error),
    };
    if sb.incompat.contains(Incompat::RECOVER) {
        findings.add(
            "the journal holds changes that are not on the volume; mounting it for writing replays them",
        );
    }
    let mut check = Check::new(&mounted.volume, findings);
    check.run()?;
    let Check { mut findings, fixes, .. } = check;
    if options.repair && findings.hard == 0 && (findings.total > 0) {
        repair::repair(device, &mounted, fixes)?;
        findings.list.iter_mut().for_each(|finding| finding.repaired = true);
    }
    Ok(findings.finish())
}

/// What was found.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    total: usize,
    /// How many of them cannot be put right here.
    hard: usize,
}

impl Findings {
    fn push(&mut self, what: String) {
        self.total += 1;
        if self.list.len() < MOST_FINDINGS {
            self.list.push(Finding { what, repaired: false });
        }
    }

    /// Something that e2fsck must put right.
    fn add(&mut self, what: impl ToString) {
        self.hard += 1;
        self.push(what.to_string());
    }

    /// Something that can be computed anew from the rest, if that is right.
    fn add_soft(&mut self, what: String) {
        self.push(what);
    }

    /// Takes up an error: what the volume contradicts is a finding, what is not supported cannot be
    /// looked at, and a device that fails ends the check.
    fn take<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ Error::Io(_)) => Err(error),
            Err(Error::Unsupported(what)) => {
                tracing::debug!("not checked: {what}");
                Ok(None)
            }
            Err(error) => {
                self.add(error);
                Ok(None)
            }
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        let left = self.total - self.list.len();
        if left > 0 {
            self.list.push(Finding { what: format!("and {left} more"), repaired: false });
        }
        if self.hard > 0 {
            let what = "what is wrong above cannot be put right here: run e2fsck -f".to_owned();
            self.list.push(Finding { what, repaired: false });
        }
        self.list
    }
}

/// What is put right if nothing else is wrong.
#[derive(Default)]
struct Fixes {
    /// Link counts, and space in units of 512 bytes, by inode.
    links: HashMap<u32, u16>,
    spaces: HashMap<u32, u64>,
    /// Block bitmaps and inode bitmaps by group.
    block_bitmaps: HashMap<u32, Vec<u8>>,
    inode_bitmaps: HashMap<u32, Vec<u8>>,
    /// What descriptors should count: free blocks, free inodes, directories.
    counts: HashMap<u32, (u32, u32, u32)>,
}

/// A check under way.
struct Check<'a> {
    volume: &'a Volume,
    raw: RawSuperblock,
    findings: Findings,
    fixes: Fixes,
    /// Those whose descriptor could be read.
    groups: Vec<Option<Group>>,
    claims: Claims,
    facts: Facts,
    /// Directories, by inode.
    directories: HashMap<u32, directories::Directory>,
    /// Blocks of attributes: the references that they count, and those that were found.
    xattrs: HashMap<u64, (u32, u32)>,
    /// Some names could not be read, so links cannot be counted.
    has_hidden_names: bool,
}

impl<'a> Check<'a> {
    fn new(volume: &'a Volume, findings: Findings) -> Self {
        use zerocopy::FromZeros;
        Self {
            volume,
            raw: RawSuperblock::new_zeroed(),
            findings,
            fixes: Fixes::default(),
            groups: Vec::new(),
            claims: Claims::default(),
            facts: Facts::new(&volume.sb),
            directories: HashMap::new(),
            xattrs: HashMap::new(),
            has_hidden_names: false,
        }
    }

    fn run(&mut self) -> Result<()> {
        self.raw = self.volume.raw_superblock()?;
        if self.raw.state.get() & state::ERROR != 0 {
            self.findings.add_soft("superblock: the kernel noted that it found errors".into());
        }
        if orphan::any(self.volume)? {
            self.findings
                .add("superblock: there are orphans, which mounting it for writing finishes with".to_owned());
        }
        self.journal()?;
        self.read_groups()?;
        self.scan_inodes()?;
        self.scan_directories()?;
        self.connect();
        self.count_links();
        self.count_references();
        self.compare_bitmaps()
    }

    fn journal(&mut self) -> Result<()> {
        if let JournalPlace::Inode(number) = self.volume.sb.journal {
            let noted = replay::noted_error(&self.volume.device, &self.volume.sb, number);
            if let Some(error) = self.findings.take(noted)?
                && error != 0
            {
                self.findings.add(format!("journal: the kernel noted error {error}"));
            }
        }
        Ok(())
    }

    /// Reads the descriptors, and claims what metadata of fixed place has.
    fn read_groups(&mut self) -> Result<()> {
        let sb = &self.volume.sb;
        for number in 0..sb.groups {
            let start = sb.group_start(number);
            for block in start..start + sb.blocks_at_start(number) {
                self.claims.claim(block);
            }
        }
        let mmp = self.raw.mmp_block.get();
        if sb.incompat.contains(Incompat::MMP) && sb.holds(mmp, 1) {
            self.claims.claim(mmp);
        }
        self.findings.take(check_mmp(self.volume, &self.raw))?;
        for number in 0..sb.groups {
            let group = self.findings.take(self.volume.read_group(number))?;
            if let Some(group) = group {
                for (what, first, len) in [
                    ("block bitmap", group.block_bitmap, 1),
                    ("inode bitmap", group.inode_bitmap, 1),
                    ("inode table", group.inode_table, u64::from(sb.inode_table_blocks())),
                ] {
                    if !sb.holds(first, len) {
                        self.findings.add(format!("group {number}: its {what} is at block {first}"));
                    } else if (first..first + len).filter(|block| !self.claims.claim(*block)).count() > 0 {
                        self.findings.add(format!(
                            "group {number}: its {what} at block {first} overlaps other metadata"
                        ));
                    } else if !sb.incompat.contains(Incompat::FLEX_BG)
                        && !(sb.group_start(number)..sb.group_end(number)).contains(&first)
                    {
                        self.findings
                            .add(format!("group {number}: its {what} at block {first} is outside of it"));
                    }
                }
            }
            self.groups.push(group);
        }
        Ok(())
    }
}
