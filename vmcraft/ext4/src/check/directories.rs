//! Checking directories: their entries, and the tree that they are.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;

use bstr::{BString, ByteSlice};
use vmcraft_fs::{FileType, Result};

use super::Check;
use crate::features::{Compat, Incompat};
use crate::inode::{InodeFlags, ROOT};
use crate::map::OpenInode;
use crate::{dir, inline};

/// Links that a directory counts at most; one with more says that it has 1.
const MOST_LINKS: u32 = 65_000;

/// What was found of a directory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Directory {
    /// What its `..` leads to.
    up: u32,
    /// The directory with an entry for it; 0 if none was found.
    parent: u32,
    subdirectories: u32,
}

/// An entry of a directory, as far as it is looked at again.
struct Seen {
    name: BString,
    inode: u32,
    file_type: FileType,
}

impl Check<'_> {
    /// Looks at all directories, in the order of their inodes.
    pub(super) fn scan_directories(&mut self) -> Result<()> {
        if self.facts.get(ROOT).kind != 4 {
            self.findings.add(format!("inode {ROOT}: the root is no directory"));
        }
        let mut all: Vec<u32> = self.directories.keys().copied().collect();
        all.sort_unstable();
        for number in all {
            self.scan_directory(number)?;
        }
        Ok(())
    }

    fn scan_directory(&mut self, number: u32) -> Result<()> {
        let volume = self.volume;
        let inode = OpenInode::new(volume.any_inode(number)?);
        if inode.flags.contains(InodeFlags::ENCRYPT) {
            self.has_hidden_names = true;
            return Ok(());
        }
        let is_inline = inode.flags.contains(InodeFlags::INLINE_DATA);
        let indexed = dir::is_indexed(&inode, &volume.sb) && !inode.flags.contains(InodeFlags::CASEFOLD);
        let mut dots = [None, None];
        let hasher = RandomState::new();
        let mut names = HashSet::new();
        let mut position = 0u64;
        let mut order = Vec::new();
        let scanned = dir::each_list(volume, &inode, 0, &mut |list, _| {
            let mut seen = Vec::new();
            let mut wrong = None;
            for entry in list.entries(&volume.sb) {
                match entry {
                    Ok(entry) if entry.name == "." || entry.name == ".." => {
                        let slot = entry.name.len() - 1;
                        if position != slot as u64 || dots[slot].is_some() {
                            order.push(entry.name.to_owned());
                        }
                        dots[slot] = Some(entry.inode);
                        position += 1;
                    }
                    Ok(entry) => {
                        seen.push(Seen {
                            name: entry.name.to_owned(),
                            inode: entry.inode,
                            file_type: entry.file_type,
                        });
                        position += 1;
                    }
                    Err(error) => wrong = Some(error),
                }
            }
            for (index, entry) in seen.iter().enumerate() {
                if !names.insert(hasher.hash_one(&entry.name)) {
                    self.findings.add(format!("directory inode {number}: {:?} is there twice", entry.name));
                }
                self.entry(number, entry);
                // If its first and last name are found, the leaf is where its hashes say.
                if indexed && (index == 0 || index + 1 == seen.len()) {
                    let found = dir::find(volume, &inode, entry.name.as_bstr());
                    if self.findings.take(found)?.flatten() != Some(entry.inode) {
                        let what =
                            format!("directory inode {number}: its htree does not lead to {:?}", entry.name);
                        self.findings.add(what);
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            wrong.map_or(Ok(ControlFlow::Continue(())), Err)
        });
        self.findings.take(scanned)?;
        if is_inline {
            dots = [Some(number), Some(inline::parent(&inode))];
        }
        for name in order {
            self.findings.add(format!("directory inode {number}: {name:?} is not where it should be"));
        }
        if dots[0] != Some(number) {
            self.findings
                .add(format!("directory inode {number}: its entry . leads to {}", dots[0].unwrap_or(0)));
        }
        if let Some(directory) = self.directories.get_mut(&number) {
            directory.up = dots[1].unwrap_or(0);
        }
        Ok(())
    }

    fn entry(&mut self, dir: u32, entry: &Seen) {
        let Seen { name, inode, file_type } = entry;
        let fact = self.facts.get(*inode);
        let reserved = *inode < self.volume.sb.first_inode;
        if !fact.in_use || reserved {
            let why = if reserved { "is reserved" } else { "is not in use" };
            self.findings.add(format!("directory inode {dir}: {name:?} leads to inode {inode}, which {why}"));
            return;
        }
        if let Some(fact) = self.facts.of(*inode) {
            fact.found = fact.found.saturating_add(1);
        }
        let typed = self.volume.sb.incompat.contains(Incompat::FILETYPE);
        let actual = FileType::from_mode(u32::from(fact.kind) << 12);
        if typed && *file_type != actual && actual != FileType::Unknown {
            self.findings.add(format!(
                "directory inode {dir}: {name:?} is a {file_type:?} there, and a {actual:?} as inode {inode}"
            ));
        }
        if fact.kind == 4 {
            let mut twice = false;
            if let Some(child) = self.directories.get_mut(inode) {
                twice = child.parent != 0 || *inode == ROOT;
                child.parent = dir;
            }
            if let Some(parent) = self.directories.get_mut(&dir) {
                parent.subdirectories = parent.subdirectories.saturating_add(1);
            }
            if twice {
                self.findings
                    .add(format!("directory inode {inode}: {name:?} in inode {dir} is a second name for it"));
            }
        }
    }

    /// Compares `..` with where each directory is, and sees that all are below the root.
    pub(super) fn connect(&mut self) {
        if self.has_hidden_names {
            return;
        }
        let mut connected: HashSet<u32> = HashSet::from([ROOT]);
        let mut all: Vec<u32> = self.directories.keys().copied().collect();
        all.sort_unstable();
        for number in all {
            let Some(&directory) = self.directories.get(&number) else { continue };
            let parent = if number == ROOT { ROOT } else { directory.parent };
            if directory.up != parent && parent != 0 {
                self.findings.add(format!(
                    "directory inode {number}: its entry .. leads to {}, but it is in {parent}",
                    directory.up
                ));
            }
            let (mut at, mut path) = (number, Vec::new());
            let is_connected = loop {
                if connected.contains(&at) {
                    break true;
                }
                // No path is longer than there are directories: then it is a circle.
                if path.len() > self.directories.len() {
                    break false;
                }
                path.push(at);
                match self.directories.get(&at) {
                    Some(above) if above.parent != 0 => at = above.parent,
                    _ => break false,
                }
            };
            if is_connected {
                connected.extend(path);
            } else {
                self.findings.add(format!("directory inode {number}: no path from the root leads to it"));
            }
        }
    }

    /// Compares the links that inodes count with those that were found.
    pub(super) fn count_links(&mut self) {
        let sb = &self.volume.sb;
        if self.has_hidden_names {
            return;
        }
        for group in 0..sb.groups {
            let Some(facts) = self.facts.group(group) else { continue };
            for (number, fact) in (group * sb.inodes_per_group + 1..).zip(facts) {
                if !fact.in_use || fact.nameless || fact.kind == 0 {
                    continue;
                }
                let expected = match self.directories.get(&number) {
                    Some(directory) => directory.subdirectories.saturating_add(2),
                    None => fact.found,
                };
                let links = u32::from(fact.links);
                let is_directory = self.directories.contains_key(&number);
                if is_directory
                    && links == 1
                    && (expected > MOST_LINKS || sb.compat.contains(Compat::DIR_INDEX))
                {
                    continue; // it has stopped counting
                }
                if links == expected {
                    continue;
                }
                if !is_directory && fact.found == 0 {
                    self.findings.add(format!("inode {number}: it is in use, but no name leads to it"));
                } else {
                    let what =
                        format!("inode {number}: it says that it has {links} links, and has {expected}");
                    self.findings.add_soft(what);
                    let links = if is_directory && expected > MOST_LINKS { 1 } else { expected };
                    match u16::try_from(links) {
                        Ok(links) => drop(self.fixes.links.insert(number, links)),
                        Err(_) => self.findings.add(format!("inode {number}: it has too many names")),
                    }
                }
            }
        }
    }
}
