//! Encrypted devices: opening and closing them, and the keys of LUKS volumes.

use vmcraft_macros::api;
use vmcraft_volume::luks::{self, FormatOptions, KeyOptions, Luks, Version};
use vmcraft_volume::{Key, Member};

use crate::encrypted::Encryption;
use crate::{DeviceName, Error, Guest, Result};

#[api(area = "encrypted")]
impl Guest {
    /// Open an encrypted device
    ///
    /// Its content is there as `/dev/mapper/MAPNAME` from then on, and so are the volumes on it. `key` is a
    /// passphrase or the content of a key file; for BitLocker a password, a recovery password of 48 digits,
    /// or the content of a startup key (`.BEK`).
    ///
    /// - `readonly` is whether nothing can be changed through it.
    /// - `header` is the device with the LUKS header, if that is not on `device` itself.
    /// - `crypttype` is what encrypts it, `luks` (`luks1`, `luks2`) or `bitlk`, if it is not to be found out.
    ///
    /// ```guestfish
    /// cryptsetup-open /dev/sda2 secret
    /// cryptsetup-open /dev/sda2 secret readonly:true crypttype:luks
    /// ```
    pub fn cryptsetup_open(
        &mut self,
        device: &DeviceName,
        key: &Key,
        mapname: &str,
        readonly: Option<bool>,
        crypttype: Option<&str>,
        header: Option<&DeviceName>,
    ) -> Result<()> {
        let wanted = match crypttype {
            None => None,
            Some("luks" | "luks1" | "luks2") => Some(Encryption::Luks),
            Some("bitlk") => Some(Encryption::BitLocker),
            Some(other) => {
                return Err(Error::Usage(format!("crypttype: {other}: not supported: luks and bitlk are")));
            }
        };
        let read_only = readonly.unwrap_or(false);
        match header {
            None => self.open_with_key(device, key, mapname, read_only, wanted),
            Some(_) if wanted == Some(Encryption::BitLocker) => {
                Err(Error::Usage("header: BitLocker has its header with the data".into()))
            }
            Some(header) => self.open_with_header(device, header, key, mapname, read_only),
        }
    }

    /// Close an encrypted device
    ///
    /// `device` is its content, `/dev/mapper/MAPNAME`. Nothing on it may be mounted, and no volume may stand
    /// on it.
    ///
    /// ```guestfish
    /// cryptsetup-close /dev/mapper/secret
    /// ```
    pub fn cryptsetup_close(&mut self, device: &DeviceName) -> Result<()> {
        self.close_content(device)
    }

    /// Open a LUKS volume
    ///
    /// ```guestfish
    /// luks-open /dev/sda2 secret
    /// ```
    #[call(deprecated = "cryptsetup-open")]
    pub fn luks_open(&mut self, device: &DeviceName, key: &Key, mapname: &str) -> Result<()> {
        self.open_with_key(device, key, mapname, false, Some(Encryption::Luks))
    }

    /// Open a LUKS volume so that nothing can be changed through it
    ///
    /// ```guestfish
    /// luks-open-ro /dev/sda2 secret
    /// ```
    #[call(deprecated = "cryptsetup-open")]
    pub fn luks_open_ro(&mut self, device: &DeviceName, key: &Key, mapname: &str) -> Result<()> {
        self.open_with_key(device, key, mapname, true, Some(Encryption::Luks))
    }

    /// Close a LUKS volume
    ///
    /// ```guestfish
    /// luks-close /dev/mapper/secret
    /// ```
    #[call(deprecated = "cryptsetup-close")]
    pub fn luks_close(&mut self, device: &DeviceName) -> Result<()> {
        self.close_content(device)
    }

    /// Return the UUID of a LUKS volume
    ///
    /// ```guestfish
    /// luks-uuid /dev/sda2
    /// ```
    pub fn luks_uuid(&self, device: &DeviceName) -> Result<String> {
        Ok(self.luks(device)?.1.uuid().to_owned())
    }

    /// Make a LUKS volume
    ///
    /// What the device held is lost. `key` is put into the key slot `keyslot`, from 0. The volume is one of
    /// LUKS2 with the cipher that cryptsetup has by default, unless `version` is 1.
    ///
    /// ```guestfish
    /// luks-format /dev/sda2 0
    /// luks-format /dev/sda2 0 version:1
    /// ```
    pub fn luks_format(
        &mut self,
        device: &DeviceName,
        key: &Key,
        keyslot: i32,
        version: Option<i32>,
    ) -> Result<()> {
        self.make_luks(device, key, keyslot, None, version)
    }

    /// Make a LUKS volume with a cipher
    ///
    /// As `luks-format`. `cipher` is named as dm-crypt names it, such as `aes-xts-plain64` or
    /// `aes-cbc-essiv:sha256`.
    ///
    /// ```guestfish
    /// luks-format-cipher /dev/sda2 0 aes-cbc-essiv:sha256
    /// ```
    pub fn luks_format_cipher(
        &mut self,
        device: &DeviceName,
        key: &Key,
        keyslot: i32,
        cipher: &str,
        version: Option<i32>,
    ) -> Result<()> {
        self.make_luks(device, key, keyslot, Some(cipher), version)
    }

    /// Add a key to a LUKS volume
    ///
    /// `key` is one that it has, and `newkey` is put into the key slot `keyslot`, which must be free.
    ///
    /// ```guestfish
    /// luks-add-key /dev/sda2 1
    /// ```
    pub fn luks_add_key(&mut self, device: &DeviceName, key: &Key, newkey: &Key, keyslot: i32) -> Result<()> {
        let options = KeyOptions { slot: Some(slot_number(keyslot)?), ..KeyOptions::default() };
        self.change_luks(device, |luks, random| luks.add_key(key, newkey, &options, random).map(drop))
    }

    /// Replace a key of a LUKS volume
    ///
    /// `key` is taken out of its key slot, and `newkey` put there. With `keyslot`, `key` must be the one in
    /// that slot.
    ///
    /// ```guestfish
    /// luks-change-key /dev/sda2
    /// luks-change-key /dev/sda2 keyslot:1
    /// ```
    pub fn luks_change_key(
        &mut self,
        device: &DeviceName,
        key: &Key,
        newkey: &Key,
        keyslot: Option<i32>,
    ) -> Result<()> {
        let options = KeyOptions { slot: keyslot.map(slot_number).transpose()?, ..KeyOptions::default() };
        self.change_luks(device, |luks, random| luks.change_key(key, newkey, &options, random).map(drop))
    }

    /// Take a key out of a LUKS volume
    ///
    /// The key slot `keyslot` is free afterwards. `key` is one of the other keys, so that there is one that
    /// still opens the volume.
    ///
    /// ```guestfish
    /// luks-kill-slot /dev/sda2 1
    /// ```
    pub fn luks_kill_slot(&mut self, device: &DeviceName, key: &Key, keyslot: i32) -> Result<()> {
        let slot = slot_number(keyslot)?;
        self.change_luks(device, |luks, random| luks.kill_slot(slot, key, random))
    }
}

impl Guest {
    /// The LUKS header on a device.
    fn luks(&self, device: &DeviceName) -> Result<(String, Luks)> {
        let name = self.find_device(device)?.name;
        let (_, member) = self.encrypted_device(&name, Some(Encryption::Luks))?;
        let luks = Luks::read(&member, None).map_err(on(&name))?;
        let luks = luks.ok_or_else(|| Error::Usage(format!("{name}: not encrypted with LUKS")))?;
        Ok((name, luks))
    }

    fn make_luks(
        &mut self,
        device: &DeviceName,
        key: &Key,
        keyslot: i32,
        cipher: Option<&str>,
        version: Option<i32>,
    ) -> Result<()> {
        let version = match version {
            None | Some(2) => Version::Luks2,
            Some(1) => Version::Luks1,
            Some(other) => return Err(Error::Usage(format!("version: {other}: there are 1 and 2"))),
        };
        let mut options = FormatOptions { slot: slot_number(keyslot)?, ..FormatOptions::new(version) };
        if let Some(cipher) = cipher {
            options.cipher = cipher.to_owned();
        }
        self.atomically(|guest| {
            let (name, opened) = guest.open_device_for_writing(device)?;
            guest.refuse_in_use(&name)?;
            let member = Member { name: name.clone(), device: opened };
            let made = guest
                .with_random(|random| luks::format(&member, None, key, &options, random).map_err(on(&name)));
            guest.device_changed(&name);
            made.map(drop)
        })
    }

    /// Changes the header of a LUKS volume, which may be open.
    fn change_luks(
        &mut self,
        device: &DeviceName,
        change: impl FnOnce(&mut Luks, &mut dyn FnMut(&mut [u8])) -> vmcraft_volume::Result<()>,
    ) -> Result<()> {
        self.atomically(|guest| {
            let (name, mut luks) = guest.luks(device)?;
            guest.refuse_write_protected(&name)?;
            guest.with_random(|random| change(&mut luks, random).map_err(on(&name)))
        })
    }
}

/// Says of which device an error is.
fn on(device: &str) -> impl FnOnce(vmcraft_volume::Error) -> Error + use<> {
    let device = device.to_owned();
    move |source| Error::Volume { device, source }
}

fn slot_number(keyslot: i32) -> Result<u32> {
    u32::try_from(keyslot).map_err(|_| Error::Usage(format!("keyslot: {keyslot}: they count from 0")))
}
