//! Encrypted devices that were opened with a key.

use std::sync::Arc;

use vmcraft_block::{BlockDevice, ReadOnly};

use super::scan::Found;
use super::{Kind, Stack};

/// An encrypted device that was opened.
pub(super) struct Opened {
    /// The name under `/dev/mapper/` that its content has.
    name: String,
    /// The canonical name of the encrypted device, which has the header.
    device: String,
    /// That of the device with the data, if it is another.
    data: Option<String>,
    /// What it was recognised as: it is closed if something else is there.
    kind: &'static str,
    uuid: String,
    /// Its content. It lies over a handle, so it stays right when the stack is built again.
    content: Arc<dyn BlockDevice>,
}

/// The prefix of the names of opened devices.
pub(crate) const MAPPER: &str = "/dev/mapper/";

impl Stack {
    /// Shows the content of an encrypted device as `/dev/mapper/NAME` from the next scan on. The content
    /// has to lie over the member that [`Stack::container`] gives, and over `data` if the header is on a device
    /// of its own.
    pub(crate) fn add_opened(
        &mut self,
        device: &str,
        data: Option<&str>,
        name: &str,
        content: Arc<dyn BlockDevice>,
        read_only: bool,
    ) {
        let Some(container) = self.containers.get(device) else { return };
        let content = if read_only { Arc::new(ReadOnly::new(content)) } else { content };
        self.opened.push(Opened {
            name: name.to_owned(),
            device: device.to_owned(),
            data: data.map(str::to_owned),
            kind: container.signature.kind,
            uuid: container.signature.uuid.clone(),
            content,
        });
    }

    /// Forgets an opened device from the next scan on. `false` if there is none with this canonical name.
    pub(crate) fn remove_opened(&mut self, name: &str) -> bool {
        let before = self.opened.len();
        self.opened.retain(|opened| name.strip_prefix(MAPPER) != Some(&opened.name));
        self.opened.len() < before
    }

    /// Whether a device was opened as `/dev/mapper/NAME`, scanned or not.
    pub(crate) fn is_opened_as(&self, name: &str) -> bool {
        self.opened.iter().any(|opened| opened.name == name)
    }

    /// The canonical name of the content of an encrypted device, if it was opened.
    pub(crate) fn content_of(&self, device: &str) -> Option<String> {
        let opened = self.opened.iter().find(|o| o.device == device || o.data.as_deref() == Some(device))?;
        Some(format!("{MAPPER}{}", opened.name))
    }

    /// The contents of the opened devices that have been met.
    pub(super) fn find_decrypted(&self) -> Vec<Found> {
        let there = self.opened.iter().filter(|opened| {
            self.containers.get(&opened.device).is_some_and(|container| {
                container.signature.kind == opened.kind && container.signature.uuid == opened.uuid
            })
        });
        let found = there.map(|opened| Found {
            name: format!("{MAPPER}{}", opened.name),
            aliases: Vec::new(),
            kind: Kind::Decrypted,
            layout: None,
            note: None,
            below: std::iter::once(&opened.device).chain(&opened.data).cloned().collect(),
            device: Ok(opened.content.clone()),
        });
        found.collect()
    }

    /// Forgets what was opened and is not there any more.
    pub(super) fn close_gone(&mut self) -> Vec<String> {
        let is_there = |opened: &Opened| {
            let name = format!("{MAPPER}{}", opened.name);
            self.volumes.iter().any(|volume| volume.name == name)
        };
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.opened).into_iter().partition(is_there);
        self.opened = kept;
        let closed = gone.into_iter();
        closed
            .map(|o| format!("{MAPPER}{}: closed: what {} held is not there any more", o.name, o.device))
            .collect()
    }
}
