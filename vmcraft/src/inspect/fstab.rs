//! `/etc/fstab` of a guest.
//!
//! Spec: fstab(5): six fields apart by blanks, with `\040`-like escapes.

use bstr::{BString, ByteSlice};

use super::escape;
use super::shellvars::unquote;
use super::tree::Tree;

/// How many entries are taken. Real ones have some tens.
const MAX_ENTRIES: usize = 1000;

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What is mounted: a device name, `UUID=…`, or something that is no device.
    pub(crate) spec: BString,
    /// Where, in canonical form; `none` and `swap` for swap space.
    pub(crate) mountpoint: BString,
    /// The type of the file system.
    pub(crate) vfs_type: BString,
    /// The mount options.
    pub(crate) options: Vec<BString>,
}

/// Reads the fstab of a guest; empty if there is none.
pub(crate) fn read(tree: &Tree) -> Vec<Entry> {
    let Some(content) = tree.read("/etc/fstab") else { return Vec::new() };
    let mut entries: Vec<_> = parse(&content).take(MAX_ENTRIES + 1).collect();
    if entries.len() > MAX_ENTRIES {
        tree.note(format!("/etc/fstab: only its first {MAX_ENTRIES} entries were used"));
        entries.truncate(MAX_ENTRIES);
    }
    entries
}

/// The entries of an fstab; lines with fewer than three fields are no entries.
fn parse(content: &[u8]) -> impl Iterator<Item = Entry> {
    content.lines().filter_map(|line| {
        let line = line.trim();
        if line.starts_with(b"#") {
            return None;
        }
        let mut fields = Fields(line);
        let spec = fields.next()?;
        let mountpoint = fields.next()?;
        let vfs_type = fields.next()?;
        let options = fields.next().unwrap_or_default();
        Some(Entry {
            spec: unescape_spec(&spec),
            mountpoint: canonical(&escape::from_octal(&mountpoint)),
            vfs_type: vfs_type.into(),
            options: options.split_str(",").map(BString::from).collect(),
        })
    })
}

/// The fields of a line: apart by blanks, unless those stand in quotes.
struct Fields<'a>(&'a [u8]);

impl Iterator for Fields<'_> {
    type Item = Vec<u8>;
    fn next(&mut self) -> Option<Vec<u8>> {
        let line = self.0.trim_start();
        let mut quote = None;
        let end = line.iter().position(|byte| match (quote, *byte) {
            (None, b' ' | b'\t') => true,
            (None, b'"' | b'\'') => {
                quote = Some(*byte);
                false
            }
            (Some(open), _) => {
                if *byte == open {
                    quote = None;
                }
                false
            }
            _ => false,
        });
        let (field, rest) = line.split_at(end.unwrap_or(line.len()));
        self.0 = rest;
        (!field.is_empty()).then(|| field.to_vec())
    }
}

/// Takes escapes and quotes off the first field: `LABEL="my disk"`, `"UUID=…"`.
fn unescape_spec(field: &[u8]) -> BString {
    let plain = escape::from_octal(field);
    match plain.split_once_str("=") {
        Some((tag, value))
            if !tag.is_empty() && tag.iter().all(u8::is_ascii_uppercase) && is_quoted(value) =>
        {
            [tag, b"=", &unquote(value)].concat().into()
        }
        _ if is_quoted(&plain) => unquote(&plain).into(),
        _ => plain.into(),
    }
}

fn is_quoted(value: &[u8]) -> bool {
    matches!(value.first(), Some(b'"' | b'\''))
}

/// A path without doubled slashes and without one at its end. Anything else stays as it is.
fn canonical(path: &[u8]) -> BString {
    if !path.starts_with(b"/") {
        return path.into();
    }
    let mut canonical = Vec::with_capacity(path.len());
    for name in path.split_str("/").filter(|name| !name.is_empty()) {
        canonical.push(b'/');
        canonical.extend(name);
    }
    if canonical.is_empty() {
        canonical.push(b'/');
    }
    canonical.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // What people and installers write.
    fn entries_are_unescaped_and_canonical() {
        let entries: Vec<_> = parse(
            b"# /etc/fstab\n\nUUID=1234-ABCD\t/boot//efi/ vfat umask=0077 0 1\n\
              LABEL=\"my disk\" /srv/a\\040b ext4 defaults,nofail\n/dev/sda1 / ext4\n\
              /dev/sda2 none swap sw 0 0\nbroken /line\n\"UUID=5\" /q auto\nLABEL=a\\040b /x\\9 ext4\n\xff\xfe /y z",
        )
        .collect();
        let short: Vec<_> = entries.iter().map(|e| (e.spec.as_slice(), e.mountpoint.as_slice())).collect();
        assert_eq!(
            short,
            [
                (&b"UUID=1234-ABCD"[..], &b"/boot/efi"[..]),
                (b"LABEL=my disk", b"/srv/a b"),
                (b"/dev/sda1", b"/"),
                (b"/dev/sda2", b"none"),
                (b"UUID=5", b"/q"),
                (b"LABEL=a b", b"/x\\9"),
                (b"\xff\xfe", b"/y"),
            ]
        );
        assert_eq!(entries[1].options, ["defaults", "nofail"]);
        assert_eq!(entries[2].options, [""]);
    }
}
