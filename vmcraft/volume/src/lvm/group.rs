//! Volume groups: the metadata's text as typed values.

use std::collections::{HashMap, HashSet};

use super::label::SECTOR;
use super::segment::Segment;
use super::text::{Section, Value};
use super::uuid::LvmUuid;

/// The longest name that LVM allows.
const MAX_NAME: usize = 127;

/// What the metadata of a volume group says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The name of the group.
    pub name: String,
    /// Its identifier.
    pub uuid: LvmUuid,
    /// How often the metadata was written: the copy with the highest counts.
    pub seqno: u64,
    /// The size of an extent, in bytes.
    pub extent_size: u64,
    /// Words such as `RESIZEABLE`, `READ`, `WRITE`, `EXPORTED`, `CLUSTERED`.
    pub status: Vec<String>,
    /// The most logical volumes it may have; 0 for no limit.
    pub max_lv: u64,
    /// The most physical volumes it may have; 0 for no limit.
    pub max_pv: u64,
    /// How many copies of the metadata are wanted; 0 for all areas.
    pub metadata_copies: u64,
    /// The host that the group belongs to (`lvmsystemid(7)`).
    pub system_id: Option<String>,
    /// `sanlock`, `dlm` or `idm`: a group shared by hosts (`lvmlockd(8)`).
    pub lock_type: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// How extents are chosen, where it is not `normal`.
    pub allocation_policy: Option<String>,
    /// The name of its metadata profile.
    pub profile: Option<String>,
    /// Its physical volumes, also those that are missing, in the metadata's order.
    pub physical_volumes: Vec<PhysicalVolumeEntry>,
    /// Its logical volumes, also hidden ones, in the metadata's order.
    pub logical_volumes: Vec<LogicalVolume>,
    /// When it was written, in seconds since 1970.
    pub creation_time: Option<u64>,
    /// The host that wrote it.
    pub creation_host: Option<String>,
    /// What it was written for.
    pub description: Option<String>,
}

/// A physical volume as its group knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalVolumeEntry {
    /// Its name inside the metadata, such as `pv0`.
    pub id: String,
    /// Its identifier.
    pub uuid: LvmUuid,
    /// The name of the device when the metadata was written.
    pub device_hint: Option<String>,
    /// Words such as `ALLOCATABLE`, `EXPORTED`, `MISSING`.
    pub status: Vec<String>,
    /// The size of the device, in bytes.
    pub device_size: Option<u64>,
    /// Where its first extent is on the device, in bytes.
    pub pe_start: u64,
    /// How many extents it has.
    pub pe_count: u64,
    /// Where a bootloader may be, in bytes.
    pub bootloader: Option<super::label::Range>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name in the group.
    pub name: String,
    /// Its identifier.
    pub uuid: LvmUuid,
    /// Words such as `READ`, `WRITE`, `VISIBLE`.
    pub status: Vec<String>,
    /// Words that an LVM that does not know them may pass over, such as `ACTIVATION_SKIP`.
    pub flags: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
    /// Its segments, one after the other.
    pub segments: Vec<Segment>,
    /// Its tags.
    pub tags: Vec<String>,
    /// How extents are chosen, where it is not inherited.
    pub allocation_policy: Option<String>,
    /// When it was made, in seconds since 1970.
    pub creation_time: Option<u64>,
    /// The host that made it.
    pub creation_host: Option<String>,
    /// Why it cannot be used: its metadata contradicts itself.
    pub problem: Option<String>,
    is_visible: bool,
}

impl LogicalVolume {
    /// Whether users see it. Others are parts of volumes.
    pub fn is_visible(&self) -> bool {
        self.is_visible
    }

    /// Whether the metadata lets it be written.
    pub fn is_writable(&self) -> bool {
        self.status.iter().any(|word| word == "WRITE")
    }

    /// How many extents its segments have.
    pub fn extent_count(&self) -> u64 {
        // Those of a volume that contradicts itself may overflow.
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.extent_count))
    }
}

impl Metadata {
    /// The logical volume of this name.
    pub fn logical_volume(&self, name: &str) -> Option<&LogicalVolume> {
        self.logical_volumes.iter().find(|lv| lv.name == name)
    }

    /// The physical volume of this name inside the metadata.
    pub fn physical_volume(&self, id: &str) -> Option<&PhysicalVolumeEntry> {
        self.physical_volumes.iter().find(|pv| pv.id == id)
    }

    /// Whether the status has this word.
    pub fn has_status(&self, word: &str) -> bool {
        self.status.iter().any(|w| w == word)
    }

    /// Decodes a whole text.
    pub(crate) fn decode(root: &Section) -> Result<Self, String> {
        if let Some(contents) = root.text("contents").filter(|text| *text != "Text Format Volume Group") {
            return Err(format!("the metadata says that it is {contents:?}"));
        }
        match root.number("version") {
            Some(1) => {}
            Some(version) => {
                return Err(format!("not supported: metadata of version {version}, newer than 1"));
            }
            None => return Err("the metadata does not say its version".into()),
        }
        let (name, vg) = root.sections().next().ok_or("the metadata has no volume group")?;
        check_name(name)?;
        if let Some(format) = vg.text("format").filter(|format| *format != "lvm2") {
            return Err(format!("not supported: volume group {name} has metadata of format {format}"));
        }
        let number = |key: &str| vg.number(key).ok_or(format!("volume group {name}: no {key}"));
        let extent_size = number("extent_size")?;
        let extent_size = extent_size.checked_mul(SECTOR).filter(|size| *size > 0);
        let mut metadata = Self {
            name: name.into(),
            uuid: uuid(vg).ok_or(format!("volume group {name}: no identifier"))?,
            seqno: number("seqno")?,
            extent_size: extent_size.ok_or(format!("volume group {name}: its extent size"))?,
            status: vg.texts("status"),
            max_lv: vg.number("max_lv").unwrap_or(0),
            max_pv: vg.number("max_pv").unwrap_or(0),
            metadata_copies: vg.number("metadata_copies").unwrap_or(0),
            system_id: vg.text("system_id").filter(|id| !id.is_empty()).map(str::to_string),
            lock_type: vg.text("lock_type").filter(|kind| *kind != "none").map(str::to_string),
            tags: vg.texts("tags"),
            allocation_policy: vg.text("allocation_policy").map(str::to_string),
            profile: vg.text("profile").map(str::to_string),
            physical_volumes: Vec::new(),
            logical_volumes: Vec::new(),
            creation_time: root.number("creation_time"),
            creation_host: root.text("creation_host").map(str::to_string),
            description: match root.value("description") {
                Some(Value::Text(text)) => Some(text.to_string()),
                _ => None,
            },
        };
        let mut uuids = HashSet::new();
        let mut ids = HashSet::new();
        for (id, section) in vg.section("physical_volumes").map(Section::sections).into_iter().flatten() {
            let pv = metadata.decode_pv(id, section)?;
            if !uuids.insert(pv.uuid) || !ids.insert(id) {
                return Err(format!("volume group {name}: it has physical volume {id} twice"));
            }
            metadata.physical_volumes.push(pv);
        }
        let counts: HashMap<&str, u64> =
            metadata.physical_volumes.iter().map(|pv| (pv.id.as_str(), pv.pe_count)).collect();
        let mut logical_volumes = Vec::new();
        let mut names = HashSet::new();
        for (lv_name, section) in vg.section("logical_volumes").map(Section::sections).into_iter().flatten() {
            let lv = metadata.decode_lv(lv_name, section, &counts)?;
            if !names.insert(lv_name) {
                return Err(format!("volume group {name}: it has logical volume {lv_name} twice"));
            }
            logical_volumes.push(lv);
        }
        metadata.logical_volumes = logical_volumes;
        metadata.swap_snapshots();
        metadata.find_overlaps();
        Ok(metadata)
    }

    fn decode_pv(&self, id: &str, section: &Section) -> Result<PhysicalVolumeEntry, String> {
        let wrong = |what: &str| format!("volume group {}: physical volume {id}: {what}", self.name);
        let bytes = |key: &str| section.number(key).map(|sectors| sectors.checked_mul(SECTOR));
        let pe_start = bytes("pe_start").flatten().ok_or_else(|| wrong("pe_start"))?;
        let pe_count = section.number("pe_count").ok_or_else(|| wrong("pe_count"))?;
        let data = pe_count.checked_mul(self.extent_size);
        // All places on it can be computed without an overflow from here on.
        data.and_then(|data| data.checked_add(pe_start)).ok_or_else(|| wrong("its size overflows"))?;
        let bootloader = match (bytes("ba_start").flatten(), bytes("ba_size").flatten()) {
            (Some(offset), Some(len)) if len > 0 => Some(super::label::Range { offset, len }),
            _ => None,
        };
        Ok(PhysicalVolumeEntry {
            id: id.into(),
            uuid: uuid(section).ok_or_else(|| wrong("no identifier"))?,
            device_hint: section.text("device").map(str::to_string),
            status: section.texts("status"),
            device_size: bytes("dev_size").flatten(),
            pe_start,
            pe_count,
            bootloader,
            tags: section.texts("tags"),
        })
    }

    fn decode_lv(
        &self,
        name: &str,
        section: &Section,
        pe_counts: &HashMap<&str, u64>,
    ) -> Result<LogicalVolume, String> {
        check_name(name).map_err(|e| format!("volume group {}: {e}", self.name))?;
        let uuid = uuid(section);
        let uuid = uuid.ok_or(format!("volume group {}: logical volume {name}: no identifier", self.name))?;
        let mut lv = LogicalVolume {
            name: name.into(),
            uuid,
            status: section.texts("status"),
            flags: section.texts("flags"),
            size: 0,
            segments: Vec::new(),
            tags: section.texts("tags"),
            allocation_policy: section.text("allocation_policy").map(str::to_string),
            creation_time: section.number("creation_time"),
            creation_host: section.text("creation_host").map(str::to_string),
            problem: None,
            is_visible: section.texts("status").iter().any(|word| word == "VISIBLE"),
        };
        lv.problem = self.decode_segments(&mut lv, section, pe_counts).err();
        Ok(lv)
    }

    fn decode_segments(
        &self,
        lv: &mut LogicalVolume,
        section: &Section,
        pe_counts: &HashMap<&str, u64>,
    ) -> Result<(), String> {
        for (_, segment) in section.sections().filter(|(key, _)| key.starts_with("segment")) {
            lv.segments.push(Segment::decode(segment, &|name| pe_counts.contains_key(name))?);
        }
        lv.segments.sort_by_key(|segment| segment.start_extent);
        let mut next = 0_u64;
        for segment in &lv.segments {
            if segment.start_extent != next {
                return Err(format!("extents {next} to {} are not there, or twice", segment.start_extent));
            }
            next = next.checked_add(segment.extent_count).ok_or("its size overflows")?;
            for (id, start, count) in segment.physical_areas() {
                let pe_count = pe_counts.get(id).copied().unwrap_or(0);
                if start.checked_add(count).is_none_or(|end| end > pe_count) {
                    return Err(format!(
                        "a segment is beyond the {pe_count} extents of physical volume {id}"
                    ));
                }
            }
            if let super::SegmentKind::Striped { areas, .. } = &segment.kind
                && !segment.extent_count.is_multiple_of(areas.len() as u64)
            {
                return Err(format!("{} extents do not make {} stripes", segment.extent_count, areas.len()));
            }
        }
        let count = section.number("segment_count");
        if count.is_some_and(|count| count != lv.segments.len() as u64) {
            return Err(format!("it has {} segments, and should have another number", lv.segments.len()));
        }
        lv.size = next.checked_mul(self.extent_size).ok_or("its size overflows")?;
        Ok(())
    }

    /// Shows the stores of snapshots in place of what ties them to their origins: LVM writes it the other way round.
    fn swap_snapshots(&mut self) {
        let mut stores = HashSet::new();
        for lv in &mut self.logical_volumes {
            for segment in &lv.segments {
                if let super::SegmentKind::Snapshot { cow, is_merging, .. } = &segment.kind {
                    lv.is_visible = false;
                    if !is_merging {
                        stores.insert(cow.clone());
                    }
                }
            }
        }
        for lv in self.logical_volumes.iter_mut().filter(|lv| stores.contains(&lv.name)) {
            lv.is_visible = true;
        }
    }

    /// Finds logical volumes that share extents of a physical volume, which LVM never makes.
    fn find_overlaps(&mut self) {
        let mut runs: HashMap<&str, Vec<(u64, u64, usize)>> = HashMap::new();
        for (index, lv) in self.logical_volumes.iter().enumerate() {
            for (id, start, count) in lv.segments.iter().flat_map(Segment::physical_areas) {
                runs.entry(id).or_default().push((start, start.saturating_add(count), index));
            }
        }
        let mut overlaps = Vec::new();
        for (id, mut runs) in runs {
            runs.sort_unstable();
            for pair in runs.windows(2) {
                if let [(_, end, first), (start, _, second)] = pair
                    && start < end
                {
                    overlaps.push((*first, *second, format!("extent {start} of {id}")));
                }
            }
        }
        for (first, second, place) in overlaps {
            for (one, other) in [(first, second), (second, first)] {
                let other = self.logical_volumes[other].name.clone();
                let problem = &mut self.logical_volumes[one].problem;
                problem.get_or_insert_with(|| format!("it shares {place} with {other}"));
            }
        }
    }
}

fn uuid(section: &Section) -> Option<LvmUuid> {
    section.text("id")?.parse().ok()
}

/// Refuses what LVM does not allow as the name of a volume group or a logical volume. Such a name could lead out of
/// `/dev`.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("the name {name:?} has {} bytes, not 1 to {MAX_NAME}", name.len()));
    }
    if name.starts_with('-') || name == "." || name == ".." || !name.chars().all(is_allowed) {
        return Err(format!(
            "LVM does not allow the name {name:?}: letters, digits and +_.- are, no '-' first"
        ));
    }
    Ok(())
}
