//! The devices of an origin and of its snapshots.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

use super::store::{CopyError, Place, Store};
use super::{Shared, Sibling, StoreState, invalid};

/// The origin over all of its snapshots.
pub(super) struct Origin {
    pub(super) shared: Arc<Shared>,
}

/// One snapshot.
pub(super) struct Snapshot {
    pub(super) shared: Arc<Shared>,
    /// Its place among the origin's.
    pub(super) index: usize,
    pub(super) size_bytes: u64,
}

impl Origin {
    /// Copies what is about to change to all snapshots. Those that are full become invalid.
    fn preserve(&self, members: &mut [Sibling], offset: u64, len: u64) -> io::Result<()> {
        if let Some((name, why)) = members.iter().find_map(|member| match &member.store {
            StoreState::Broken(why) => Some((&member.name, why)),
            _ => None,
        }) {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!(
                    "the origin of snapshot {name} cannot be written, as the snapshot would be lost: {why}"
                ),
            ));
        }
        for member in members {
            let StoreState::Valid(store) = &mut member.store else { continue };
            if offset >= member.size_bytes {
                continue;
            }
            match store.copy_out(&self.shared.origin, offset, len, member.size_bytes) {
                Ok(()) => {}
                Err(CopyError::Io(error)) => return Err(error),
                Err(CopyError::Full) => {
                    store.invalidate()?;
                    self.shared.lost().push(member.name.clone());
                    member.store = StoreState::Invalid;
                }
            }
        }
        Ok(())
    }
}

impl BlockDevice for Origin {
    fn size(&self) -> u64 {
        self.shared.origin.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.shared.origin.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size(), "a write")?;
        let mut members = self.shared.write();
        self.preserve(&mut members, offset, buf.len() as u64)?;
        self.shared.origin.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        for member in self.shared.read().iter() {
            if let StoreState::Valid(store) = &member.store {
                store.device().flush()?;
            }
        }
        self.shared.origin.flush()
    }
    fn is_read_only(&self) -> bool {
        self.shared.origin.is_read_only()
            || self.shared.read().iter().any(|member| match &member.store {
                StoreState::Valid(store) => store.device().is_read_only(),
                StoreState::Invalid => false,
                StoreState::Broken(_) => true,
            })
    }
    fn logical_sector_size(&self) -> u32 {
        self.shared.origin.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.shared.origin.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        self.shared.origin.discard().map(|_| self as &dyn Discard)
    }
}

impl Discard for Origin {
    /// Nothing happens while a snapshot needs the content: keeping it would cost space instead.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a discard")?;
        let members = self.shared.write();
        if members.iter().any(|member| !matches!(member.store, StoreState::Invalid)) {
            return Ok(());
        }
        self.shared.origin.discard().ok_or(io::ErrorKind::Unsupported)?.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a write of zeros")?;
        let mut members = self.shared.write();
        self.preserve(&mut members, offset, len)?;
        self.shared.origin.discard().ok_or(io::ErrorKind::Unsupported)?.write_zeroes(offset, len)
    }
}

impl Snapshot {
    fn store<'a>(&self, members: &'a [Sibling]) -> io::Result<&'a Store> {
        let member = members.get(self.index).ok_or(io::ErrorKind::NotFound)?;
        match &member.store {
            StoreState::Valid(store) => Ok(store),
            _ => Err(io::Error::other(invalid(&member.name))),
        }
    }
}

impl BlockDevice for Snapshot {
    fn size(&self) -> u64 {
        self.size_bytes
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size_bytes, "a read")?;
        let members = self.shared.read();
        let store = self.store(&members)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (place, len) = store.find(at);
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            match place {
                Place::Cow(position) => store.device().read_at(position, now)?,
                Place::Origin => self.shared.origin.read_at(at, now)?,
            }
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size_bytes, "a write")?;
        let mut members = self.shared.write();
        let member = members.get_mut(self.index).ok_or(io::ErrorKind::NotFound)?;
        let StoreState::Valid(store) = &mut member.store else {
            return Err(io::Error::other(invalid(&member.name)));
        };
        store.copy_out(&self.shared.origin, offset, buf.len() as u64, self.size_bytes).map_err(|error| {
            match error {
                CopyError::Io(error) => error,
                CopyError::Full => io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!(
                        "the exception store {} of snapshot {} is full; lvextend can enlarge it",
                        store.name(),
                        member.name
                    ),
                ),
            }
        })?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (Place::Cow(position), len) = store.find(at) else {
                return Err(io::Error::other("a chunk of the snapshot was not copied"));
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(len);
            store.device().write_at(position, now)?;
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.store(&self.shared.read())?.device().flush()
    }
    fn is_read_only(&self) -> bool {
        self.store(&self.shared.read()).map_or(true, |store| store.device().is_read_only())
    }
    fn logical_sector_size(&self) -> u32 {
        self.shared.origin.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        Some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}

impl MapExtents for Snapshot {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size_bytes)?;
        let members = self.shared.read();
        let store = self.store(&members)?;
        let (place, len) = store.find(offset);
        let len = len.min(self.size_bytes - offset);
        let (device, position) = match place {
            Place::Cow(position) => (store.device(), position),
            Place::Origin => (&*self.shared.origin, offset),
        };
        Ok(match device.extents() {
            Some(map) => {
                let below = map.extent_at(position)?;
                Extent { offset, len: below.len.min(len), is_hole: below.is_hole }
            }
            None => Extent { offset, len, is_hole: false },
        })
    }
}
