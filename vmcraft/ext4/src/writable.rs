//! Whether a volume may be changed, and what is done before the first change and after the last.

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Error, OpenOptions, Result};

use crate::features::{Incompat, RoCompat};
use crate::filesystem::Mounted;
use crate::superblock::{JournalPlace, RawSuperblock, Superblock, state};
use crate::volume::Volume;
use crate::{orphan, replay};

/// What changes heed of `s_feature_ro_compat`.
const WRITABLE: RoCompat = RoCompat::SPARSE_SUPER
    .union(RoCompat::LARGE_FILE)
    .union(RoCompat::BTREE_DIR)
    .union(RoCompat::HUGE_FILE)
    .union(RoCompat::GDT_CSUM)
    .union(RoCompat::DIR_NLINK)
    .union(RoCompat::EXTRA_ISIZE)
    .union(RoCompat::METADATA_CSUM)
    .union(RoCompat::VERITY)
    .union(RoCompat::ORPHAN_PRESENT);

/// `mmp_seq` of a volume that no one has mounted, and the magic number of its block.
const MMP_CLEAN: u32 = 0xff4d_4d50;
const MMP_MAGIC: u32 = 0x004d_4d50;

/// The creator that has other fields in inodes.
const CREATOR_HURD: u32 = 1;

/// Refuses, with the reason, to change a volume that cannot be changed safely.
pub(crate) fn check(volume: &Volume, device: &Arc<dyn BlockDevice>, options: &OpenOptions) -> Result<()> {
    if options.read_only {
        return Err(Error::ReadOnly("it was opened read-only"));
    }
    if device.is_read_only() {
        return Err(Error::ReadOnly("its device refuses writes"));
    }
    let sb = &volume.sb;
    check_features(sb.ro_compat)?;
    if options.ignore_journal && sb.incompat.contains(Incompat::RECOVER) {
        return Err(Error::ReadOnly("its journal has changes that are not replayed (noload)"));
    }
    let raw = volume.raw_superblock()?;
    if raw.creator_os.get() == CREATOR_HURD {
        return Err(Error::Unsupported("changing a volume that the Hurd made, whose inodes differ".into()));
    }
    if raw.state.get() & state::ERROR != 0 || journal_error(volume, device)? {
        return Err(Error::ReadOnly("errors were found in it; check and repair it first (e2fsck -f)"));
    }
    if raw.state.get() & state::VALID == 0 {
        return Err(Error::ReadOnly("it was not unmounted cleanly; check and repair it first (e2fsck -f)"));
    }
    check_mmp(volume, &raw)
}

/// Refuses features that keep a volume from being changed, naming all of them.
fn check_features(features: RoCompat) -> Result<()> {
    let lacking = features.difference(WRITABLE);
    if lacking.is_empty() {
        return Ok(());
    }
    if lacking.contains(RoCompat::READONLY) {
        return Err(Error::ReadOnly("it has the feature read-only"));
    }
    let names: Vec<String> = (0..32)
        .map(|bit| lacking.bits() & 1 << bit)
        .filter(|&bit| bit != 0)
        .map(|bit| match RoCompat::from_bits_retain(bit) {
            RoCompat::HAS_SNAPSHOT => "has_snapshot".to_owned(),
            RoCompat::QUOTA => "quota (its quota files would go stale)".to_owned(),
            RoCompat::BIGALLOC => "bigalloc".to_owned(),
            RoCompat::PROJECT => "project (its quota files would go stale)".to_owned(),
            RoCompat::SHARED_BLOCKS => "shared_blocks".to_owned(),
            _ => format!("unknown feature {bit:#x}"),
        })
        .collect();
    Err(Error::Unsupported(format!("changing a volume with the ext4 features {}", names.join(", "))))
}

/// Refuses a volume that a host has mounted, as it says itself.
pub(crate) fn check_mmp(volume: &Volume, raw: &RawSuperblock) -> Result<()> {
    if !volume.sb.incompat.contains(Incompat::MMP) || raw.mmp_block.get() == 0 {
        return Ok(());
    }
    let number = raw.mmp_block.get();
    let block = volume.block(number, || "multiple mount protection".into())?;
    let word =
        |at: usize| block.bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    if word(0) != Some(MMP_MAGIC) {
        return Err(crate::corrupt("block of multiple mount protection: magic", volume.sb.byte_of(number)));
    }
    if word(4) != Some(MMP_CLEAN) {
        return Err(Error::Unsupported(
            "mmp: multiple mount protection says that a host has it mounted, or that a check is under way (tune2fs -f -E \
             clear_mmp, if that is not so)"
                .into(),
        ));
    }
    Ok(())
}

/// Whether the kernel gave up over an error that it could note in the journal only.
fn journal_error(volume: &Volume, device: &Arc<dyn BlockDevice>) -> Result<bool> {
    match volume.sb.journal {
        JournalPlace::Inode(number) => Ok(replay::noted_error(device, &volume.sb, number)? != 0),
        JournalPlace::None => Ok(false),
        JournalPlace::External(uuid) => Err(Error::Unsupported(format!(
            "changing a volume with an external journal (UUID {})",
            uuid::Uuid::from_bytes(uuid)
        ))),
    }
}

impl Mounted {
    /// Makes the volume ready for changes, before the first one: what the journal holds goes to the
    /// device, the journal is emptied, and orphans are finished with. Refused with nothing changed if it cannot be changed safely.
    pub(crate) fn make_writable(
        &mut self,
        device: &Arc<dyn BlockDevice>,
        options: &OpenOptions,
    ) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        check(&self.volume, device, options)?;
        if orphan::any(&self.volume)? {
            // Once in memory, to see that it can be done before the journal goes.
            let (seen, sb) = (self.volume.device.clone(), self.volume.sb.clone());
            let trial = Volume::new(seen, sb, options.sources.clone());
            trial.atomically(|| orphan::clean_up(&trial))?;
        }
        if let Some(replayed) = &self.replayed {
            replayed.write_back()?;
        }
        if let JournalPlace::Inode(number) = self.volume.sb.journal {
            replay::empty(device, &self.volume.sb, number)?;
        }
        self.volume = Volume::new(device.clone(), self.volume.sb.clone(), options.sources.clone());
        self.replayed = None;
        if self.volume.sb.incompat.contains(Incompat::RECOVER) {
            self.volume.edit_superblock(|raw| {
                let features = self.volume.sb.incompat - Incompat::RECOVER;
                raw.feature_incompat = features.bits().into();
            })?;
            self.refresh()?;
        }
        if orphan::any(&self.volume)? {
            self.volume.atomically(|| orphan::clean_up(&self.volume))?;
            self.refresh()?;
        }
        self.writable = true;
        Ok(())
    }

    /// Takes up what was changed in the superblock.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        if self.volume.edits.take_superblock_changed() {
            let raw = self.volume.raw_superblock()?;
            self.volume.sb = Superblock::decode(&raw, self.volume.device.size())?;
        }
        Ok(())
    }

    /// Brings all changes to the device, which then has a clean volume.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if !self.volume.edits.is_unwritten() {
            return Ok(());
        }
        let now = self.volume.now().seconds;
        self.volume.edit_superblock(|raw| {
            raw.wtime = ((now & 0xffff_ffff) as u32).into();
            raw.wtime_hi = (now >> 32 & 0xff) as u8;
        })?;
        self.volume.write_out()?;
        self.volume.edits.all_written();
        self.refresh()
    }
}
