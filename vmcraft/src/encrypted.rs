//! Encrypted devices: opening them with keys, before anything on them can be looked at.

mod unlocking;

use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_volume::bitlocker::BitLocker;
use vmcraft_volume::luks::{Effort, Luks};
use vmcraft_volume::{Key, Member};

use crate::stack::MAPPER;
use crate::{DeviceName, Error, Guest, Result};

/// What encrypts a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Luks,
    BitLocker,
}

impl Encryption {
    /// By the name that `blkid` has.
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "crypto_LUKS" => Some(Self::Luks),
            "BitLocker" => Some(Self::BitLocker),
            _ => None,
        }
    }

    /// What users call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Luks => "LUKS",
            Self::BitLocker => "BitLocker",
        }
    }
}

/// An encrypted device whose header was read.
enum Header {
    Luks(Box<Luks>),
    BitLocker(Box<BitLocker>),
}

impl Header {
    fn read(encryption: Encryption, member: &Member) -> vmcraft_volume::Result<Option<Self>> {
        Ok(match encryption {
            Encryption::Luks => Luks::read(member, None)?.map(|header| Self::Luks(Box::new(header))),
            Encryption::BitLocker => BitLocker::read(member)?.map(|header| Self::BitLocker(Box::new(header))),
        })
    }

    fn warnings(&self) -> &[String] {
        match self {
            Self::Luks(header) => header.warnings(),
            Self::BitLocker(header) => header.warnings(),
        }
    }

    /// What keys can be selected by.
    fn uuid(&self) -> String {
        match self {
            Self::Luks(header) => header.uuid().to_owned(),
            Self::BitLocker(header) => header.guid(),
        }
    }

    /// The content, if no key is needed for it.
    fn open_clear(&self) -> vmcraft_volume::Result<Option<Arc<dyn BlockDevice>>> {
        match self {
            Self::BitLocker(header) if !header.needs_key() => header.unlock_clear().map(Some),
            Self::BitLocker(_) | Self::Luks(_) => Ok(None),
        }
    }

    fn unlock(&self, key: &Key) -> vmcraft_volume::Result<Arc<dyn BlockDevice>> {
        match self {
            Self::Luks(header) => header.unlock(key, None),
            Self::BitLocker(header) => header.unlock(key),
        }
    }

    /// With a key that nobody gave; `None` if opening takes more effort than that.
    fn unlock_within(
        &self,
        key: &Key,
        effort: &mut Effort,
    ) -> vmcraft_volume::Result<Option<Arc<dyn BlockDevice>>> {
        match self {
            Self::Luks(header) => header.unlock_within(key, effort),
            // Its header does not say how much work a key is.
            Self::BitLocker(header) => header.unlock(key).map(Some),
        }
    }
}

impl Guest {
    /// Opens an encrypted device as `/dev/mapper/NAME`.
    pub(crate) fn open_with_key(
        &mut self,
        device: &DeviceName,
        key: &Key,
        name: &str,
        read_only: bool,
        wanted: Option<Encryption>,
    ) -> Result<()> {
        let device = self.find_device(device)?.name;
        self.check_unopened(&device, name)?;
        let (encryption, member) = self.encrypted_device(&device, wanted)?;
        let on_device = |source| Error::Volume { device: device.clone(), source };
        let header = Header::read(encryption, &member).map_err(on_device)?;
        let header = header.ok_or_else(|| Error::Usage(format!("{device}: no longer encrypted")))?;
        let opened = match header.open_clear().map_err(on_device)? {
            Some(content) => content,
            None => header.unlock(key).map_err(on_device)?,
        };
        self.add_content(&device, None, name, opened, header.warnings(), read_only);
        self.look_into_opened();
        Ok(())
    }

    /// Opens a LUKS volume whose header is on another device, as `/dev/mapper/NAME`.
    pub(crate) fn open_with_header(
        &mut self,
        device: &DeviceName,
        header: &DeviceName,
        key: &Key,
        name: &str,
        read_only: bool,
    ) -> Result<()> {
        let (device, data) = self.open_device(device)?;
        let header = self.find_device(header)?.name;
        self.check_unopened(&header, name)?;
        self.check_unopened(&device, name)?;
        self.refuse_mounted(&device)?;
        let (_, on) = self.encrypted_device(&header, Some(Encryption::Luks))?;
        let on_header = |source| Error::Volume { device: header.clone(), source };
        let member = Member { name: device.clone(), device: data };
        let luks = Luks::read(&member, Some(&on)).map_err(on_header)?;
        let luks = luks.ok_or_else(|| Error::Usage(format!("{header}: it has no LUKS header")))?;
        let content = luks.unlock(key, None).map_err(on_header)?;
        self.add_content(&header, Some(&device), name, content, luks.warnings(), read_only);
        self.look_into_opened();
        Ok(())
    }

    /// Refuses a name that is taken, and a device that is open.
    fn check_unopened(&self, device: &str, name: &str) -> Result<()> {
        check_name(name)?;
        let content = format!("{MAPPER}{name}");
        if self.stack.find(&content).is_some() {
            return Err(Error::Usage(format!("{content}: there is such a device already")));
        }
        match self.stack.content_of(device) {
            Some(content) => Err(Error::Usage(format!("{device}: busy: it is open as {content}"))),
            None => Ok(()),
        }
    }

    /// Closes what was opened as `/dev/mapper/NAME`.
    pub(crate) fn close_content(&mut self, device: &DeviceName) -> Result<()> {
        let name = self.find_device(device)?.name;
        let Some(volume) =
            self.stack.find(&name).filter(|volume| volume.kind == crate::stack::Kind::Decrypted)
        else {
            return Err(Error::Usage(format!(
                "{name}: not the content of an encrypted device, which is /dev/mapper/NAME"
            )));
        };
        for part in volume.names() {
            self.refuse_mounted(&part)?;
            if let Some(above) = self.stack.above(&part).next() {
                return Err(Error::Usage(format!(
                    "{name}: busy: {} stands on it; close that first (a logical volume with vg-activate false)",
                    above.name
                )));
            }
        }
        self.stack.remove_opened(&name);
        self.reopen_volumes();
        Ok(())
    }

    /// What encrypts a device, and the device as what is opened on it sees it.
    pub(crate) fn encrypted_device(
        &self,
        device: &str,
        wanted: Option<Encryption>,
    ) -> Result<(Encryption, Member)> {
        let found = self.stack.container(device).and_then(|container| {
            Some((Encryption::of(container.signature.kind)?, container.member.clone()))
        });
        match (found, wanted) {
            (Some((encryption, _)), Some(wanted)) if encryption != wanted => Err(Error::Usage(format!(
                "{device}: encrypted with {}, not {}",
                encryption.name(),
                wanted.name()
            ))),
            (Some(found), _) => Ok(found),
            (None, Some(wanted)) => {
                Err(Error::Usage(format!("{device}: not encrypted with {}", wanted.name())))
            }
            (None, None) => Err(Error::Usage(format!("{device}: not encrypted with LUKS or BitLocker"))),
        }
    }

    /// Why an encrypted device could not be opened with any key, if that is so.
    pub(crate) fn problem_of_header(&self, device: &str) -> Option<String> {
        let (encryption, member) = self.encrypted_device(device, None).ok()?;
        Header::read(encryption, &member).err().map(|e| e.to_string())
    }

    /// Has the content of a device be there from the next scan on.
    fn add_content(
        &mut self,
        device: &str,
        data: Option<&str>,
        name: &str,
        content: Arc<dyn BlockDevice>,
        warnings: &[String],
        read_only: bool,
    ) {
        self.warnings.extend(warnings.iter().map(|warning| format!("{device}: {warning}")));
        self.stack.add_opened(device, data, name, content, read_only);
    }

    /// Looks for what stands on devices that were opened.
    fn look_into_opened(&mut self) {
        self.rescan();
        self.inspection = None;
    }

    /// What the content of a device is called that is opened without being told a name.
    fn name_of_content(&self, device: &str, encryption: Encryption, uuid: &str) -> String {
        let by_uuid = format!("luks-{uuid}");
        let is_free =
            self.stack.find(&format!("{MAPPER}{by_uuid}")).is_none() && !self.stack.is_opened_as(&by_uuid);
        if encryption == Encryption::Luks && is_free && check_name(&by_uuid).is_ok() {
            return by_uuid;
        }
        let plain = device.strip_prefix("/dev/").unwrap_or(device);
        format!("crypt{}", plain.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
    }

    /// Calls `make` with random bytes that keys can be made of.
    pub(crate) fn with_random<T>(
        &self,
        make: impl FnOnce(&mut dyn FnMut(&mut [u8])) -> Result<T>,
    ) -> Result<T> {
        let mut failure = None;
        let made = make(&mut |bytes| failure = failure.take().or(getrandom::fill(bytes).err()));
        match failure {
            // What was made of what should have been random must not be used.
            Some(e) => Err(Error::Device { device: "random numbers".into(), source: io::Error::other(e) }),
            None => made,
        }
    }
}

/// The longest name that the device mapper has.
const MAX_NAME: usize = 127;

/// Refuses a name under `/dev/mapper/` that would not be one.
fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
        return Err(Error::Usage(format!(
            "{name:?}: not a name for a device: it has 1 to {MAX_NAME} characters, and no blanks and slashes"
        )));
    }
    if matches!(name, "control" | "." | "..") {
        return Err(Error::Usage(format!("{name}: the name is reserved")));
    }
    Ok(())
}
