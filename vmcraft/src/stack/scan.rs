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

/// Whose a handle is. Names alone do not tell: a volume can be called as a partition of another one is, or as
/// what it lies on itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A disk or a partition of one.
    Disk,
    Volume(Kind),
    /// A partition of a volume.
    Partition(Kind),
}

/// A device that is to be looked at.
struct Queued {
    owner: Owner,
    member: Member,
}

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
        for ((name, _), handle) in std::mem::take(&mut scan.old_handles) {
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
        warnings.extend(self.degraded_logical_volumes());
        warnings.extend(self.note_copies());
        warnings.extend(self.close_gone());
        warnings
    }
}

struct Scan<'a> {
    stack: &'a mut Stack,
    /// The handles of the stack as it was that have not been met again.
    old_handles: BTreeMap<(String, Owner), Arc<Handle>>,
    /// What is still to be looked at.
    queue: Vec<Queued>,
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
                self.queue(Owner::Disk, [Member { name, device: disk.device.clone() }]);
            } else if is_member() {
                self.stack.hidden_tables.insert(index);
                self.queue(Owner::Disk, [Member { name, device: disk.device.clone() }]);
            } else {
                self.queue(Owner::Disk, partitions);
            }
        }
    }

    fn queue(&mut self, owner: Owner, members: impl IntoIterator<Item = Member>) {
        self.queue.extend(members.into_iter().map(|member| Queued { owner, member }));
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
            // Of a volume and a partition of one with the same name, the volume has it.
            self.queue.sort_by_key(|queued| matches!(queued.owner, Owner::Partition(_)));
            for queued in std::mem::take(&mut self.queue) {
                self.look_at(queued);
            }
            for found in self.find() {
                self.add(found);
            }
            if self.queue.is_empty() {
                return;
            }
        }
        let names: Vec<_> = self.queue.iter().map(|queued| queued.member.name.as_str()).collect();
        self.warnings.push(format!(
            "{}: not looked into: {MAX_DEPTH} volumes lie on each other below it already",
            names.join(", ")
        ));
    }

    /// Remembers a device if it is a member of something, or encrypted.
    fn look_at(&mut self, Queued { owner, member }: Queued) {
        match signature::probe_container(&member.device) {
            Ok(Some(signature)) => {
                let device = self.handle(&member.name, owner, member.device);
                let known = self.stack.containers.get(&member.name);
                if known.is_some_and(|known| {
                    !std::ptr::addr_eq(Arc::as_ptr(&known.member.device), Arc::as_ptr(&device))
                }) {
                    let name = member.name;
                    self.warnings.push(format!("{name}: two devices have this name: one is not looked into"));
                    return;
                }
                let met = known.map_or(self.stack.containers.len(), |known| known.met);
                let member = Member { name: member.name.clone(), device };
                self.stack.containers.insert(
                    member.name.clone(),
                    Container { member, signature, met, member_of: None, note: None },
                );
            }
            Ok(None) => {}
            Err(e) => self.warnings.push(format!("{}: {e}: not looked into", member.name)),
        }
    }

    /// The handle of this name, leading to the device.
    fn handle(&mut self, name: &str, owner: Owner, device: Arc<dyn BlockDevice>) -> Arc<Handle> {
        let key = (name.to_owned(), owner);
        let known = self.stack.handles.get(&key).cloned().or_else(|| self.old_handles.remove(&key));
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
        self.stack.handles.insert(key, handle.clone());
        handle
    }

    /// Whether a device is the one of this name, or lies on it.
    fn lies_on(&self, device: &str, name: &str) -> bool {
        device == name || self.stack.all_below(device).contains(name)
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
        let is_other = known.is_some_and(|at| self.stack.volumes[at].kind != found.kind);
        if is_other || found.below.iter().any(|below| self.lies_on(below, &found.name)) {
            self.warnings.push(format!(
                "{}: there is another device of this name, or it would lie on itself: not opened",
                found.name
            ));
            return;
        }
        let was_open = known.is_some_and(|at| self.stack.volumes[at].disk.is_ok());
        let disk = found.device.map(|device| {
            let device: Arc<dyn BlockDevice> = self.handle(&found.name, Owner::Volume(found.kind), device);
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
                let whole = Member { name: volume.name.clone(), device: disk.device.clone() };
                self.queue(Owner::Volume(volume.kind), [whole]);
            }
            self.queue(Owner::Partition(volume.kind), partitions);
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
