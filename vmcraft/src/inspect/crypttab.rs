//! `/etc/crypttab` of a guest: what it calls its encrypted devices when they are open, and where their keys are.
//!
//! Spec: crypttab(5) of systemd and of Debian's cryptsetup: name, device, key file and options, apart by blanks.

use bstr::{BString, ByteSlice};
use vmcraft_volume::Key;

use super::tree::Tree;

/// How many entries are taken.
const MAX_ENTRIES: usize = 1000;
/// The longest key that is read, in bytes: as cryptsetup's.
const MAX_KEY: u64 = 8 << 20;

/// A line of crypttab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name under `/dev/mapper/`.
    pub(crate) name: BString,
    /// The encrypted device: a device name or `UUID=…`.
    pub(crate) device: BString,
    /// The file in the guest that is the key, if that is where it comes from.
    pub(crate) key_file: Option<KeyFile>,
}

/// A file, or a part of one, that is a key byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFile {
    pub(crate) path: BString,
    /// Where in it the key begins, in bytes.
    pub(crate) offset: u64,
    /// How many bytes the key has; `None` if it goes to the end.
    pub(crate) len: Option<u64>,
}

impl KeyFile {
    /// By the third and fourth field. Where a script makes the key, these are its arguments.
    fn parse(key: &[u8], options: &[u8]) -> Option<Self> {
        let value = |name: &str| {
            let mut options = options.split_str(",");
            options.find_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        };
        let number = |name: &str| match value(name) {
            Some(digits) => digits.to_str().ok()?.parse().ok().map(Some),
            None => Some(None),
        };
        if !key.starts_with(b"/") || key.starts_with(b"/dev/") || value("keyscript").is_some() {
            return None;
        }
        Some(Self {
            path: key.into(),
            offset: number("keyfile-offset")?.unwrap_or(0),
            len: number("keyfile-size")?,
        })
    }

    /// The key; `None` if it is not there, empty, or longer than a key can be.
    pub(crate) fn read(&self, tree: &Tree) -> Option<Key> {
        let rest = tree.file_size(&self.path)?.checked_sub(self.offset)?;
        let len = self.len.unwrap_or(rest);
        if len == 0 || len > rest.min(MAX_KEY) {
            return None;
        }
        let len = usize::try_from(len).ok()?;
        let key = Key::new(tree.read_at(&self.path, self.offset, len)?);
        (key.as_bytes().len() == len).then_some(key)
    }
}

/// Reads the crypttab of a guest; empty if there is none.
pub(crate) fn read(tree: &Tree) -> Vec<Entry> {
    tree.read("/etc/crypttab").map_or_else(Vec::new, |content| parse(&content))
}

fn parse(content: &[u8]) -> Vec<Entry> {
    let lines = content.lines().map(ByteSlice::trim).filter(|line| !line.starts_with(b"#"));
    let entries = lines.filter_map(|line| {
        let mut fields = line.fields();
        let (name, device) = (fields.next()?.into(), fields.next()?.into());
        let (key, options) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        Some(Entry { name, device, key_file: KeyFile::parse(key, options) })
    });
    entries.take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_names_and_devices() {
        let entries = parse(
            b"# comment\nroot UUID=1234 none luks,discard\n\nbroken\n swap\t/dev/sda2 /dev/urandom swap\n",
        );
        let short: Vec<_> = entries.iter().map(|e| (e.name.as_slice(), e.device.as_slice())).collect();
        assert_eq!(short, [(&b"root"[..], &b"UUID=1234"[..]), (b"swap", b"/dev/sda2")]);
    }

    #[test] // Only a file of the guest is a key that we have.
    fn key_files_are_told_from_other_keys() {
        for (rest, expected) in [
            ("", None),
            ("none luks", None),
            ("- luks", None),
            ("/dev/urandom swap,cipher=aes-xts-plain64", None),
            ("/dev/disk/by-label/usb:/key luks,keyscript=/lib/cryptsetup/scripts/passdev", None),
            ("/etc/name luks,keyscript=decrypt_derived", None),
            ("/etc/key luks,keyfile-offset=x", None),
            ("/etc/key", Some(("/etc/key", 0, None))),
            ("/etc/key luks,discard", Some(("/etc/key", 0, None))),
            ("/etc/key keyfile-size=32,keyfile-offset=512,luks", Some(("/etc/key", 512, Some(32)))),
        ] {
            let entries = parse(format!("home UUID=1 {rest}\n").as_bytes());
            let found = entries[0].key_file.clone();
            let expected = expected.map(|(path, offset, len)| KeyFile { path: path.into(), offset, len });
            assert_eq!(found, expected, "{rest}");
        }
    }
}
