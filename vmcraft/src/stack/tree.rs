//! All devices as a tree, from the disks up to what can be mounted.

use std::collections::BTreeSet;

use bstr::ByteSlice;
use serde::Serialize;
use vmcraft_block::BlockDevice;
use vmcraft_volume::partition::{Partition, PartitionRole, TableKind};
use vmcraft_volume::signature;

use super::{Kind, Volume};
use crate::device::{Disk, disk_name};
use crate::{Guest, Result};

/// How deep the tree can be: each volume can have partitions.
const MAX_DEPTH: usize = 64;

/// A disk, partition or volume, and what stands on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceNode {
    /// Its canonical name, such as `/dev/sda1` or `/dev/vg/lv`.
    pub name: String,
    /// What it is: `disk`, `partition`, `raid`, `lv`, `crypt`, `ldm-volume` or `ldm-partition`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its size in bytes; `None` if it cannot be opened.
    pub size_bytes: Option<u64>,
    /// How its data is laid out over what it lies on, such as `linear`, `thin` or `raid5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// What it holds: `gpt` or `mbr` for a partition table, else as `blkid` names it.
    pub content: Option<String>,
    /// The label of what it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The UUID of what it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The volume group or array that it is a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_of: Option<String>,
    /// What else should be known: that it is locked, degraded, or why it cannot be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where it is mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mountpoints: Vec<String>,
    /// Whether it has been shown before, under another device that it lies on: without what stands on it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// What stands on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<DeviceNode>,
}

impl Guest {
    /// All disks with what stands on them. A volume over several devices stands under each, and is shown
    /// whole under the first. Behind the disks come the volumes of which no device is there.
    pub fn device_tree(&self) -> Result<Vec<DeviceNode>> {
        let mut tree = Tree { guest: self, shown: BTreeSet::new() };
        let disks = self.launched()?.iter().enumerate();
        let mut nodes: Vec<_> = disks.map(|(index, disk)| tree.disk(index, disk)).collect();
        for volume in self.stack.volumes() {
            if !tree.shown.contains(&volume.name) {
                nodes.push(tree.volume(volume, 0));
            }
        }
        Ok(nodes)
    }
}

struct Tree<'a> {
    guest: &'a Guest,
    /// The volumes that were shown whole.
    shown: BTreeSet<String>,
}

impl Tree<'_> {
    fn disk(&mut self, index: usize, disk: &Disk) -> DeviceNode {
        let name = disk_name(index);
        let mut node = DeviceNode::new(name.clone(), "disk", disk.device.size());
        if self.guest.stack.shows_partitions(index) {
            self.fill(&mut node, disk, 0, |number| format!("{name}{number}"));
        } else {
            self.fill_content(&mut node, &disk.device, 0);
        }
        node
    }

    /// What is on something that can have partitions.
    fn fill(&mut self, node: &mut DeviceNode, disk: &Disk, depth: usize, name: impl Fn(u32) -> String) {
        let partitions = disk.partitions();
        match &disk.table {
            Ok(Some(table)) => {
                let kind = match table.kind {
                    TableKind::Gpt => "gpt",
                    TableKind::Mbr => "mbr",
                };
                node.content = Some(kind.to_owned());
            }
            Ok(None) => {}
            Err(e) => node.note = Some(e.to_string()),
        }
        if partitions.is_empty() && node.content.is_none() {
            self.fill_content(node, &disk.device, depth);
        }
        for partition in partitions {
            node.children.push(self.partition(partition, name(partition.number), depth + 1));
        }
    }

    fn partition(&mut self, partition: &Partition, name: String, depth: usize) -> DeviceNode {
        let mut node = DeviceNode::new(name, "partition", partition.len_bytes);
        if partition.role == PartitionRole::Extended {
            node.note = Some("extended".into());
            return node;
        }
        match self.guest.open_device(node.name.as_str().into()) {
            Ok((_, device)) => self.fill_content(&mut node, &device, depth),
            Err(e) => node.note = Some(e.to_string()),
        }
        node
    }

    /// What is recognised on a device, and the volumes that lie on it.
    fn fill_content(&mut self, node: &mut DeviceNode, device: &dyn BlockDevice, depth: usize) {
        let stack = &self.guest.stack;
        match signature::probe(device) {
            Ok(Some(signature)) => {
                let label = signature.label.to_str_lossy().into_owned();
                node.content = Some(signature.kind.to_owned());
                node.label = Some(label).filter(|label| !label.is_empty());
                node.uuid = Some(signature.uuid).filter(|uuid| !uuid.is_empty());
                if signature.usage == signature::Usage::Crypto && stack.content_of(&node.name).is_none() {
                    let problem = self.guest.problem_of_header(&node.name);
                    node.note = Some(problem.unwrap_or_else(|| "locked: open it with --key".into()));
                }
            }
            Ok(None) => {}
            Err(e) => node.note = Some(e.to_string()),
        }
        node.member_of = stack.container(&node.name).and_then(|container| container.member_of.clone());
        if let Some(note) = stack.container(&node.name).and_then(|container| container.note.clone()) {
            node.note = Some(note);
        }
        let mounts = self.guest.vfs.mounts().iter().filter(|mount| mount.device == node.name);
        node.mountpoints = mounts.map(|mount| mount.mountpoint.to_str_lossy().into_owned()).collect();
        if depth >= MAX_DEPTH {
            return;
        }
        let above: Vec<&Volume> = stack.above(&node.name).collect();
        for volume in above {
            let child = self.volume(volume, depth + 1);
            node.children.push(child);
        }
    }

    fn volume(&mut self, volume: &Volume, depth: usize) -> DeviceNode {
        let mut node = DeviceNode::new(volume.name.clone(), kind_name(volume.kind), 0);
        node.size_bytes = volume.device().map(|device| device.size());
        node.layout = volume.layout.clone();
        node.note = volume.note.clone();
        if !self.shown.insert(volume.name.clone()) {
            node.repeated = true;
            return node;
        }
        match &volume.disk {
            Ok(disk) => {
                let note = node.note.take();
                self.fill(&mut node, disk, depth, |number| volume.partition_name(number));
                node.note = note.or(node.note);
            }
            Err(reason) => node.note = Some(reason.clone()),
        }
        node
    }
}

impl DeviceNode {
    fn new(name: String, kind: &'static str, size: u64) -> Self {
        Self {
            name,
            kind,
            size_bytes: Some(size),
            layout: None,
            content: None,
            label: None,
            uuid: None,
            member_of: None,
            note: None,
            mountpoints: Vec::new(),
            repeated: false,
            children: Vec::new(),
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Array => "raid",
        Kind::LogicalVolume => "lv",
        Kind::Decrypted => "crypt",
        Kind::DynamicVolume => "ldm-volume",
        Kind::DynamicPartition => "ldm-partition",
    }
}
