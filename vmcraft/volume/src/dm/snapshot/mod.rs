//! Old-style snapshots: the targets `snapshot` and `snapshot-origin` with persistent exception stores.
//!
//! A snapshot is the origin, but for the chunks that were written since, on either side: those are
//! copied to the snapshot's COW device first. All snapshots of one origin are opened together, so
//! that no write to the origin can miss one.
//!
//! Spec: Linux `Documentation/admin-guide/device-mapper/snapshot.rst` and
//! `drivers/md/dm-snap-persistent.c`.
//!
//! Not supported: transient stores (`N`), which keep nothing over a restart, and `snapshot-merge`.

mod device;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use vmcraft_block::BlockDevice;

use crate::{Error, Member, Result};
use device::{Origin, Snapshot};
use store::{Opened, Store};

/// What a snapshot is made of.
pub struct Cow {
    /// The snapshot's name.
    pub name: String,
    /// The device that has the exception store, or why there is none.
    pub store: Result<Member, String>,
    /// The snapshot's size in bytes: that of the origin when it was made.
    pub size_bytes: u64,
    /// The chunk size in bytes that a store gets which no kernel has used yet. Others say their own.
    pub chunk_bytes: u64,
}

/// What has become of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can be read.
    Valid {
        /// How many bytes of the COW device are in use, those of metadata included.
        used_bytes: u64,
        /// How many of them are the header's and metadata: as many as `used_bytes` if nothing was kept yet.
        metadata_bytes: u64,
        /// How many bytes the COW device has.
        total_bytes: u64,
    },
    /// It is lost: its store ran full, or failed. The origin does not copy to it any more.
    Invalid,
    /// Its store cannot be understood, and why. The origin cannot be written.
    Broken(String),
}

/// An origin and all of its snapshots.
pub struct Family {
    shared: Arc<Shared>,
}

/// What the devices of a family share.
struct Shared {
    origin: Arc<dyn BlockDevice>,
    /// Held for writing by all that adds exceptions, and by writes to the origin.
    members: RwLock<Vec<Sibling>>,
    /// The names of the snapshots that became invalid, until they are taken.
    lost: Mutex<Vec<String>>,
}

struct Sibling {
    name: String,
    size_bytes: u64,
    store: StoreState,
}

enum StoreState {
    Valid(Box<Store>),
    Invalid,
    Broken(String),
}

impl Family {
    /// Reads the exception stores of all snapshots of `origin`, the device that has the origin's
    /// content. A store that cannot be used is no error here: [`Self::state`] tells.
    ///
    /// # Errors
    /// [`Error::Io`] if a device cannot be read.
    pub fn open(origin: Arc<dyn BlockDevice>, cows: Vec<Cow>) -> Result<Self> {
        let mut members = Vec::with_capacity(cows.len());
        for cow in cows {
            let opened = cow.store.map(|store| Store::open(store, cow.chunk_bytes, cow.size_bytes));
            let store = match opened {
                Ok(Ok(Opened::Store(store))) => StoreState::Valid(store),
                Ok(Ok(Opened::Invalid)) => StoreState::Invalid,
                Ok(Err(Error::Io(error))) => return Err(Error::Io(error)),
                Ok(Err(error)) => StoreState::Broken(error.to_string()),
                Err(why) => StoreState::Broken(why),
            };
            members.push(Sibling { name: cow.name, size_bytes: cow.size_bytes, store });
        }
        let (members, lost) = (RwLock::new(members), Mutex::new(Vec::new()));
        Ok(Self { shared: Arc::new(Shared { origin, members, lost }) })
    }

    /// The origin's device: what is written to it is copied to all snapshots first.
    ///
    /// A snapshot whose store has no room for that becomes invalid, as it would in Linux, and
    /// [`Self::take_lost`] tells: the origin's user has no means to prevent it. The device is
    /// read-only if a store cannot be understood or written.
    pub fn origin(&self) -> Arc<dyn BlockDevice> {
        Arc::new(Origin { shared: self.shared.clone() })
    }

    /// The device of a snapshot. A write that its store has no room for fails with `StorageFull`
    /// and changes nothing.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if the snapshot is invalid, [`Error::Refused`] if there is none of this
    /// name, and what was wrong with its store.
    pub fn snapshot(&self, name: &str) -> Result<Arc<dyn BlockDevice>> {
        let members = self.shared.read();
        let found = members.iter().enumerate().find(|(_, member)| member.name == name);
        let (index, member) =
            found.ok_or_else(|| Error::Refused(format!("the origin has no snapshot {name}")))?;
        match &member.store {
            StoreState::Valid(_) => {
                Ok(Arc::new(Snapshot { shared: self.shared.clone(), index, size_bytes: member.size_bytes }))
            }
            StoreState::Invalid => Err(Error::Incomplete(invalid(name))),
            StoreState::Broken(why) => Err(Error::Incomplete(format!("snapshot {name}: {why}"))),
        }
    }

    /// Takes the names of the snapshots that writes to the origin made invalid.
    pub fn take_lost(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.lost())
    }

    /// What has become of a snapshot; `None` if there is none of this name.
    pub fn state(&self, name: &str) -> Option<State> {
        let members = self.shared.read();
        let member = members.iter().find(|member| member.name == name)?;
        Some(match &member.store {
            StoreState::Valid(store) => {
                let (used, total) = store.usage();
                State::Valid {
                    used_bytes: used.saturating_mul(store.chunk_bytes()),
                    metadata_bytes: store.metadata_chunks().saturating_mul(store.chunk_bytes()),
                    total_bytes: total.saturating_mul(store.chunk_bytes()),
                }
            }
            StoreState::Invalid => State::Invalid,
            StoreState::Broken(why) => State::Broken(why.clone()),
        })
    }
}

impl Shared {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Sibling>> {
        self.members.read().unwrap_or_else(|e| e.into_inner())
    }

    fn lost(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Sibling>> {
        self.members.write().unwrap_or_else(|e| e.into_inner())
    }
}

fn invalid(name: &str) -> String {
    format!(
        "snapshot {name} is invalid: its exception store ran full or failed, and only removing it is left"
    )
}
