//! Names of logical volumes: which there may be, and changing them.

use super::{Author, all, visible};
use crate::lvm::edit::check_new_name;
use crate::lvm::{Lvm, Metadata, SegmentKind, mapper_name};
use crate::{Error, Result};

/// The longest name that the device mapper takes.
const MAX_MAPPER_NAME: usize = 127;
/// Names and parts of names that LVM keeps for the parts of volumes.
const RESERVED_PARTS: [&str; 16] = [
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_mlog", "_mimage", "_pmspare", "_rimage",
    "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_iorig",
];
/// Keys of segments whose values are names of logical volumes.
const REFERENCES: [&str; 20] = [
    "stripes",
    "mirrors",
    "mirror_log",
    "raids",
    "raid0_lvs",
    "metadata",
    "pool",
    "thin_pool",
    "origin",
    "external_origin",
    "merge",
    "cow_store",
    "merging_store",
    "cache_pool",
    "data",
    "writecache",
    "vdo_pool",
    "meta_dev",
    "create",
    "descendants",
];

impl Lvm {
    /// Gives a logical volume another name, as `lvrename` does, and its parts along with it.
    pub fn rename_volume(
        &mut self,
        group: &str,
        name: &str,
        to: &str,
        author: &mut Author<'_>,
    ) -> Result<()> {
        let vg = self.changeable(group)?;
        let metadata = &vg.metadata;
        visible(vg, name)?;
        check_new_volume_name(metadata, to)?;
        if let Some(segment) = metadata.segments().find(|segment| segment.kind == SegmentKind::Unknown) {
            return Err(Error::Unsupported(format!(
                "renaming in volume group {}, which has segments of type {}",
                vg.name(),
                segment.type_name
            )));
        }
        let mut names = vec![(name.to_string(), to.to_string())];
        let prefix = format!("{name}_");
        for part in metadata.parts(name) {
            if let Some(suffix) = part.strip_prefix(&prefix) {
                names.push((part.clone(), format!("{to}_{suffix}")));
            }
        }
        let mut draft = vg.draft();
        for (_, new) in &names {
            if metadata.logical_volume(new).is_some() {
                return Err(Error::Refused(format!("there is a logical volume {}/{new} already", vg.name())));
            }
        }
        let volumes = draft.logical_volumes();
        for (old, new) in &names {
            volumes.rename(old, new);
        }
        volumes.change_texts(&mut |key, text| {
            if REFERENCES.contains(&key)
                && let Some((_, new)) = names.iter().find(|(old, _)| *text == *old.as_str())
            {
                *text = new.as_str().into();
            }
        });
        let plan = vg.rewrite(draft.tree, &all(vg), author, "lvrename")?;
        self.carry_out(&plan)
    }
}

pub(super) fn check_new_volume_name(metadata: &Metadata, name: &str) -> Result<()> {
    check_new_name(name)?;
    let group = &metadata.name;
    let is_reserved = name.starts_with("snapshot")
        || name.starts_with("pvmove")
        || RESERVED_PARTS.iter().any(|part| name.contains(part));
    if is_reserved {
        return Err(Error::Refused(format!("LVM keeps names such as {name:?} for the parts of volumes")));
    }
    if metadata.logical_volume(name).is_some() {
        return Err(Error::Refused(format!("there is a logical volume {group}/{name} already")));
    }
    if mapper_name(group, name).len() > MAX_MAPPER_NAME {
        return Err(Error::Refused(format!("the names {group} and {name} are too long together")));
    }
    Ok(())
}
