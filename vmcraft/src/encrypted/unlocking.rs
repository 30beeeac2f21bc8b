//! Opening all encrypted devices, with the keys that were given, those that guests have, and those that are asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_volume::luks::Effort;
use vmcraft_volume::{Error as VolumeError, Key};

use super::{Encryption, Header};
use crate::inspect::MAX_KEY_FILES;
use crate::keys::{Keys, is_uuid};
use crate::stack::MAPPER;
use crate::{DeviceName, Error, Guest, Result};

/// Where the key of a device is to come from.
enum Source<'a> {
    /// The keys that were given.
    Given,
    /// A file in a guest, tried with what is left of an effort.
    File(&'a Key, &'a mut Effort),
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
    /// file that the crypttab of a guest names for it, as that guest opens it, unless
    /// [`use_key_files`](Guest::use_key_files) says otherwise. Else [`set_key_prompt`](Guest::set_key_prompt)'s is asked; if there is nobody to ask, the device stays
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
        let mut effort = Effort::for_found_keys();
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
            let round = self.open_round(&closed, keys, &mut progress, &mut effort);
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

    /// Opens what the first source has keys for that has any. The key files of guests are tried with what is left of an
    /// effort.
    fn open_round(
        &mut self,
        closed: &[(String, String)],
        keys: &mut Keys,
        progress: &mut Progress,
        effort: &mut Effort,
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
        if progress.opened.len() == known && !keys.leaves_files {
            for (device, key) in self.key_files(closed)? {
                let is_same =
                    |tried: &(String, Key)| tried.0 == device && tried.1.as_bytes() == key.as_bytes();
                if progress.tried.len() < MAX_KEY_FILES && !progress.tried.iter().any(is_same) {
                    self.host.check_cancelled()?;
                    self.attempt(&device, Source::File(&key, effort), keys, progress)?;
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
            Source::File(key, effort) => match header.unlock_within(key, effort) {
                Err(VolumeError::WrongKey(_)) => Ok(None),
                Ok(None) => {
                    let warning = format!(
                        "{device}: a guest's key file was not tried with all key slots: their header asks for more \
                         time or memory than is taken for keys that nobody gave; give the key with --key \
                         {device}:file:FILENAME"
                    );
                    if !self.warnings.contains(&warning) {
                        self.warnings.push(warning);
                    }
                    Ok(None)
                }
                done => done,
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
