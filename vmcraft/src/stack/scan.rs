//! Building the stack: looking at devices until nothing new appears.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Slice};
use vmcraft_volume::Member;
use vmcraft_volume::ldm::Ldm;
use vmcraft_volume::lvm::Lvm;
use vmcraft_volume::partition::{PartitionRole, PartitionTable};
use vmcraft_volume::signature;

use super::handle::Gone;
use super::{Container, Handle, Kind, Stack, Volume, arrays};
use crate::device::{Disk, disk_name};

/// How many volumes may lie on each other. Real stacks have three or four.
const MAX_DEPTH: usize = 12;
/// How many volumes are taken up. Large hosts have some hundreds.
const MAX_VOLUMES: usize = 4096;

/// A volume as one of the formats found it.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) kind: Kind,
    pub(super) layout: Option<String>,
    pub(super) note: Option<String>,
    pub(super) below: Vec<String>,
    /// The volume, or why it cannot be opened.
    pub(super) device: Result<Arc<dyn BlockDevice>, String>,
}

impl Stack {
    /// Looks at everything anew. Gives what the user should know.
    pub(crate) fn rescan(&mut self, disks: &[Disk]) -> Vec<String> {
        let mut scan = Scan {
            old_handles: std::mem::take(&mut self.handles),
            stack: self,
            queue: Vec::new(),
            warnings: Vec::new(),
        };
        scan.stack.volumes.clear();
        scan.stack.containers.clear();
        scan.stack.lvm = Lvm::default();
        scan.stack.dynamic = Ldm::default();
        scan.stack.arrays.clear();
        scan.stack.known_array_members = 0;
        scan.stack.hidden_tables.clear();
        scan.queue_disks(disks);
        for found in scan.stack.find_dynamic(disks) {
            scan.add(found);
        }
        scan.run();
        let mut warnings = scan.warnings;
        for (name, handle) in std::mem::take(&mut scan.old_handles) {
            let size = handle.size();
            handle.set(Arc::new(Gone { name, size }));
        }
        warnings.extend(self.dynamic.warnings.iter().cloned());
        warnings.extend(self.dynamic.groups.iter().flat_map(|group| group.warnings.iter().cloned()));
        // Those of earlier rounds lacked what came later.
        warnings.extend(self.arrays.iter().flat_map(|(name, array)| {
            array.warnings.iter().map(move |warning| format!("{name}: {warning}"))
        }));
        warnings.extend(self.lvm.warnings.iter().cloned());
        warnings.extend(self.close_gone());
        warnings
    }
}

struct Scan<'a> {
    stack: &'a mut Stack,
    /// The handles of the stack as it was that have not been met again.
    old_handles: BTreeMap<String, Arc<Handle>>,
    /// What is still to be looked at.
    queue: Vec<Member>,
    warnings: Vec<String>,
}

impl Scan<'_> {
    /// Each disk's partitions, or the disk if it has none.
    fn queue_disks(&mut self, disks: &[Disk]) {
        for (index, disk) in disks.iter().enumerate() {
            let name = disk_name(index);
            let partitions = self.partitions(disk, |number| format!("{name}{number}"));
            let is_member = || {
                // An array of whole disks whose superblock is at their end shows its partition table on each of
                // them. A superblock of version 0.90 at the end of the last partition looks the same.
                let of = |device: &dyn BlockDevice| match signature::probe_container(device) {
                    Ok(Some(signature)) if signature.kind == arrays::MEMBER => Some(signature.uuid),
                    _ => None,
                };
                let whole = of(&disk.device);
                whole.is_some() && !partitions.iter().any(|partition| of(&partition.device) == whole)
            };
            if partitions.is_empty() {
                self.queue.push(Member { name, device: disk.device.clone() });
            } else if is_member() {
                self.stack.hidden_tables.insert(index);
                self.queue.push(Member { name, device: disk.device.clone() });
            } else {
                self.queue.extend(partitions);
            }
        }
    }

    /// The partitions that can hold something. One that is not within its disk is left out: whoever opens
    /// it is told.
    fn partitions(&self, disk: &Disk, name: impl Fn(u32) -> String) -> Vec<Member> {
        let all = disk.partitions().iter().filter(|partition| partition.role != PartitionRole::Extended);
        let slices = all.filter_map(|partition| {
            let slice = Slice::new(disk.device.clone(), partition.start_bytes, partition.len_bytes).ok()?;
            Some(Member { name: name(partition.number), device: Arc::new(slice) as Arc<dyn BlockDevice> })
        });
        slices.collect()
    }

    fn run(&mut self) {
        for _ in 0..MAX_DEPTH {
            for member in std::mem::take(&mut self.queue) {
                self.look_at(member);
            }
            for found in self.find() {
                self.add(found);
            }
            if self.queue.is_empty() {
                return;
            }
        }
        let names: Vec<_> = self.queue.iter().map(|member| member.name.as_str()).collect();
        self.warnings.push(format!(
            "{}: not looked into: {MAX_DEPTH} volumes lie on each other below it already",
            names.join(", ")
        ));
    }

    /// Remembers a device if it is a member of something, or encrypted.
    fn look_at(&mut self, member: Member) {
        match signature::probe_container(&member.device) {
            Ok(Some(signature)) => {
                let device = self.handle(&member.name, member.device);
                let member = Member { name: member.name.clone(), device };
                self.stack.containers.insert(
                    member.name.clone(),
                    Container { member, signature, member_of: None, note: None },
                );
            }
            Ok(None) => {}
            Err(e) => self.warnings.push(format!("{}: {e}: not looked into", member.name)),
        }
    }

    /// The handle of this name, leading to the device.
    fn handle(&mut self, name: &str, device: Arc<dyn BlockDevice>) -> Arc<Handle> {
        let known = self.stack.handles.get(name).cloned().or_else(|| self.old_handles.remove(name));
        let handle = match known {
            Some(handle) => {
                // A volume that is a member of another is met as the handle that it has: one that leads to
                // itself would lead nowhere.
                if !std::ptr::addr_eq(Arc::as_ptr(&device), Arc::as_ptr(&handle)) {
                    handle.set(device);
                }
                handle
            }
            None => Arc::new(Handle::new(device)),
        };
        self.stack.handles.insert(name.to_owned(), handle.clone());
        handle
    }

    /// All volumes that can be made of the members met so far.
    fn find(&mut self) -> Vec<Found> {
        let mut found = self.stack.find_arrays();
        found.extend(self.stack.find_decrypted());
        found.extend(self.stack.find_logical_volumes());
        found
    }

    /// Takes up a volume, and queues what is on it unless it was there before.
    fn add(&mut self, found: Found) {
        if self.stack.volumes.len() >= MAX_VOLUMES {
            let warning = format!("there are more than {MAX_VOLUMES} volumes: the others are left out");
            if self.warnings.last() != Some(&warning) {
                self.warnings.push(warning);
            }
            return;
        }
        let known = self.stack.volumes.iter().position(|volume| volume.name == found.name);
        let was_open = known.is_some_and(|at| self.stack.volumes[at].disk.is_ok());
        let disk = found.device.map(|device| {
            let device: Arc<dyn BlockDevice> = self.handle(&found.name, device);
            let table = PartitionTable::read(&device);
            Disk { device, table, label: None }
        });
        let volume = Volume {
            name: found.name,
            aliases: found.aliases,
            kind: found.kind,
            layout: found.layout,
            note: found.note,
            below: found.below,
            disk,
        };
        if let Ok(disk) = &volume.disk
            && !was_open
        {
            let partitions = self.partitions(disk, |number| volume.partition_name(number));
            if partitions.is_empty() {
                self.queue.push(Member { name: volume.name.clone(), device: disk.device.clone() });
            }
            self.queue.extend(partitions);
        }
        match known {
            Some(at) if was_open => self.stack.volumes[at] = volume,
            // What it lacked came later than it did.
            Some(at) => {
                self.stack.volumes.remove(at);
                self.stack.volumes.push(volume);
            }
            None => self.stack.volumes.push(volume),
        }
    }
}
