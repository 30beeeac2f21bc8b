//! Encrypted devices: opening them with keys, before anything on them can be looked at.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_volume::bitlocker::BitLocker;
use vmcraft_volume::luks::Luks;
use vmcraft_volume::{Error as VolumeError, Key, Member};

use crate::inspect::MAX_KEY_FILES;
use crate::keys::{Keys, is_uuid};
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
}

/// Where the key of a device is to come from.
enum Source<'a> {
    /// The keys that were given.
    Given,
    /// A file in a guest.
    File(&'a Key),
    /// Who is asked.
    Prompt,
}

/// What came of trying to open a device.
enum Attempt {
    /// Its content has this name.
    Opened(String),
    /// No key was there, or a guest's own does not fit.
    NoKey,
    /// It cannot be opened, or nobody has its key.
    PassedOver,
}

/// How far opening all devices has come.
#[derive(Default)]
struct Progress {
    /// The names of the contents.
    opened: Vec<String>,
    /// The devices with their UUIDs, in the order in which they came to light: in this order keys are asked for.
    met: Vec<(String, String)>,
    /// Those that are open, and those that are passed over.
    done: BTreeSet<String>,
    /// Those that none of the keys that were given fits, with the errors that say so.
    refused: Vec<(String, Error)>,
    /// The key files of guests that were tried, with the devices that they are for. Each takes as long as a passphrase.
    tried: Vec<(String, Key)>,
}

impl Guest {
    /// Opens every encrypted device for which there is a key, also those that come to light when others are
    /// opened. Gives the names of their contents.
    ///
    /// The keys are those of [`add_key`](Guest::add_key). Where none was given for a device, it is opened with the key
    /// file that the crypttab of a guest names for it, as that guest opens it. Else
    /// [`set_key_prompt`](Guest::set_key_prompt)'s is asked; if there is nobody to ask, the device stays
    /// closed with a warning. A BitLocker volume whose protection is suspended needs no key. The content of a
    /// LUKS volume is named `/dev/mapper/luks-UUID`, that of a BitLocker volume on `/dev/sda2`
    /// `/dev/mapper/cryptsda2`.
    ///
    /// # Errors
    /// None of the keys for a device fits it.
    pub fn open_encrypted(&mut self) -> Result<Vec<String>> {
        self.launched()?;
        let mut keys = std::mem::take(&mut self.keys);
        let opened = self.open_with_keys(&mut keys);
        self.keys = keys;
        opened
    }

    /// Opens what these keys open, in rounds: what is opened can show other encrypted devices.
    fn open_with_keys(&mut self, keys: &mut Keys) -> Result<Vec<String>> {
        let mut progress = Progress::default();
        loop {
            for (device, uuid) in self.encrypted_devices() {
                if !progress.met.iter().any(|(known, _)| known == device) {
                    progress.met.push((device.to_owned(), uuid.to_owned()));
                }
            }
            let is_closed = |(device, _): &&(String, String)| {
                self.stack.content_of(device).is_none() && !progress.done.contains(device)
            };
            let closed: Vec<_> = progress.met.iter().filter(is_closed).cloned().collect();
            if closed.is_empty() {
                break;
            }
            let known = progress.opened.len();
            let round = self.open_round(&closed, keys, &mut progress);
            if progress.opened.len() > known {
                self.look_into_opened();
            }
            round?;
        }
        let is_device = |selector: &str| {
            self.encrypted_devices()
                .any(|(device, uuid)| self.is_name_of(selector, device) || is_uuid(selector, uuid))
        };
        let unused = keys.take_unused(is_device);
        self.warnings.extend(
            unused
                .iter()
                .map(|selector| format!("--key {selector}: no encrypted device has this name or UUID")),
        );
        Ok(progress.opened)
    }

    /// Opens what the first source has keys for that has any.
    fn open_round(
        &mut self,
        closed: &[(String, String)],
        keys: &mut Keys,
        progress: &mut Progress,
    ) -> Result<()> {
        let known = progress.opened.len();
        for (device, _) in closed {
            if progress.refused.iter().any(|(refused, _)| refused == device) {
                continue;
            }
            match self.attempt(device, Source::Given, keys, progress) {
                Err(e @ Error::Volume { source: VolumeError::WrongKey(_), .. }) => {
                    progress.refused.push((device.clone(), e));
                }
                done => done?,
            }
        }
        if progress.opened.len() == known {
            for (device, key) in self.key_files(closed)? {
                let is_same =
                    |tried: &(String, Key)| tried.0 == device && tried.1.as_bytes() == key.as_bytes();
                if progress.tried.len() < MAX_KEY_FILES && !progress.tried.iter().any(is_same) {
                    self.attempt(&device, Source::File(&key), keys, progress)?;
                    progress.tried.push((device, key));
                }
            }
        }
        let is_closed = |(device, _): &(String, Error)| !progress.done.contains(device);
        if progress.opened.len() == known
            && let Some(at) = progress.refused.iter().position(is_closed)
        {
            return Err(progress.refused.swap_remove(at).1);
        }
        for (device, _) in closed {
            // What a key opens that was asked for may have the keys of others.
            if progress.opened.len() == known {
                self.attempt(device, Source::Prompt, keys, progress)?;
            }
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        device: &str,
        source: Source<'_>,
        keys: &mut Keys,
        progress: &mut Progress,
    ) -> Result<()> {
        if progress.done.contains(device) {
            return Ok(());
        }
        match self.try_source(device, source, keys)? {
            Attempt::NoKey => return Ok(()),
            Attempt::Opened(name) => progress.opened.push(name),
            Attempt::PassedOver => {}
        }
        progress.done.insert(device.to_owned());
        Ok(())
    }

    /// All encrypted devices, open or not, with the UUIDs that are read without looking into them.
    fn encrypted_devices(&self) -> impl Iterator<Item = (&str, &str)> {
        let encrypted =
            self.stack.containers().filter(|(_, found)| Encryption::of(found.signature.kind).is_some());
        encrypted.map(|(device, found)| (device, found.signature.uuid.as_str()))
    }

    /// Whether a device is called so.
    fn is_name_of(&self, name: &str, device: &str) -> bool {
        self.find_device(DeviceName::new(name)).is_ok_and(|found| found.name == device)
    }

    /// Tries to open an encrypted device. A scan has to follow.
    fn try_source(&mut self, device: &str, source: Source<'_>, keys: &mut Keys) -> Result<Attempt> {
        let (encryption, member) = self.encrypted_device(device, None)?;
        let header = match Header::read(encryption, &member) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Attempt::PassedOver),
            Err(e) => {
                self.warnings.push(format!("{device}: {e}: not opened"));
                return Ok(Attempt::PassedOver);
            }
        };
        let uuid = header.uuid();
        let found = match source {
            Source::Given => {
                let given = keys.for_device(|selector| self.is_name_of(selector, device), &uuid);
                open_with_given(&header, &given).map_err(|reason| wrong_key(device, &reason))?
            }
            Source::File(key) => match header.unlock(key) {
                Err(VolumeError::WrongKey(_)) => Ok(None),
                done => done.map(Some),
            },
            Source::Prompt if keys.is_declined(device) => return Ok(Attempt::PassedOver),
            Source::Prompt => {
                let key = match &mut keys.prompt {
                    Some(prompt) => prompt(device),
                    None => Err("no key was given".to_owned()),
                };
                self.host.check_cancelled()?;
                match key.map(|key| header.unlock(&key)) {
                    Ok(Err(VolumeError::WrongKey(reason))) => return Err(wrong_key(device, &reason)),
                    Ok(done) => done.map(Some),
                    Err(reason) => {
                        self.warnings
                            .push(format!("{device}: encrypted with {}: {reason}", encryption.name()));
                        keys.decline(device);
                        return Ok(Attempt::PassedOver);
                    }
                }
            }
        };
        match found {
            Ok(Some(content)) => {
                let name = self.name_of_content(device, encryption, &uuid);
                self.add_content(device, None, &name, content, header.warnings(), false);
                Ok(Attempt::Opened(format!("{MAPPER}{name}")))
            }
            Ok(None) => Ok(Attempt::NoKey),
            Err(e) => {
                self.warnings.push(format!("{device}: {e}: not opened"));
                Ok(Attempt::PassedOver)
            }
        }
    }

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

/// The content of a device, if it needs no key or one that was given for it fits.
///
/// # Errors
/// Why none of those that were given fits.
fn open_with_given(
    header: &Header,
    given: &[(&str, &Key)],
) -> Result<vmcraft_volume::Result<Option<Arc<dyn BlockDevice>>>, String> {
    match header.open_clear() {
        Ok(None) => {}
        done => return Ok(done),
    }
    let mut last = None;
    for (_, key) in given {
        match header.unlock(key) {
            Err(VolumeError::WrongKey(reason)) => last = Some(reason),
            done => return Ok(done.map(Some)),
        }
    }
    let Some(reason) = last else { return Ok(Ok(None)) };
    let tried: Vec<_> = given.iter().map(|(selector, _)| format!("--key {selector}")).collect();
    Err(format!("{reason}; tried: {}", tried.join(", ")))
}

fn wrong_key(device: &str, reason: &str) -> Error {
    Error::Volume { device: device.to_owned(), source: VolumeError::WrongKey(reason.to_owned()) }
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
