//! `/etc/crypttab` of a guest: what it calls its encrypted devices when they are open.
//!
//! Spec: crypttab(5): name, device, key file and options, apart by blanks.

use bstr::{BString, ByteSlice};

use super::tree::Tree;

/// How many entries are taken.
const MAX_ENTRIES: usize = 1000;

/// A line of crypttab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name under `/dev/mapper/`.
    pub(crate) name: BString,
    /// The encrypted device: a device name or `UUID=…`.
    pub(crate) device: BString,
}

/// Reads the crypttab of a guest; empty if there is none.
pub(crate) fn read(tree: &Tree) -> Vec<Entry> {
    tree.read("/etc/crypttab").map_or_else(Vec::new, |content| parse(&content))
}

fn parse(content: &[u8]) -> Vec<Entry> {
    let lines = content.lines().map(ByteSlice::trim).filter(|line| !line.starts_with(b"#"));
    let entries = lines.filter_map(|line| {
        let mut fields = line.fields();
        Some(Entry { name: fields.next()?.into(), device: fields.next()?.into() })
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
}
