//! The records of a pax header.
//!
//! Spec: POSIX.1-2017, `pax` utility, "pax Extended Header"; `GNU.sparse.*` as GNU tar's manual;
//! `SCHILY.*` as star's `star(5)`; `RHT.security.selinux` as GNU tar writes it.

use bstr::{BString, ByteSlice};
use vmcraft_fs::Timestamp;

use crate::unpack::sparse::{Map, parse_number};

/// The most extended attributes that a member has, and the most bytes of their names and values.
const MOST_XATTRS: usize = 1024;
const XATTR_BYTES: usize = 16 << 20;

/// What records say of a member.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<BString>,
    pub(super) link_path: Option<BString>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) device_major: Option<u64>,
    pub(super) device_minor: Option<u64>,
    pub(super) xattrs: Vec<(BString, Vec<u8>)>,
    pub(super) selinux: Option<Vec<u8>>,
    pub(super) acl: Option<BString>,
    pub(super) default_acl: Option<BString>,
    pub(super) sparse: SparseRecords,
}

/// What they say of a sparse file, in all of GNU tar's three formats.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseRecords {
    /// The real name, where the header has one for readers that know nothing of sparse files.
    pub(super) name: Option<BString>,
    /// The size of the file with its holes.
    pub(super) size: Option<u64>,
    /// The map, in the formats 0.0 and 0.1.
    pub(super) map: Option<Map>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// The offset of the run whose length comes next, in the format 0.0.
    offset: Option<u64>,
}

impl Records {
    /// Takes all records of a header. `None` if they are not of the right form, or have more attributes
    /// than a file can have.
    pub(super) fn add(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            // `LENGTH KEY=VALUE` and a newline, where the length counts itself.
            let (digits, _) = bytes.split_once_str(" ")?;
            let len = usize::try_from(parse_number(digits)?).ok()?;
            let record = bytes.get(..len)?;
            let content = record.get(digits.len() + 1..)?.strip_suffix(b"\n")?;
            let (key, value) = content.split_once_str("=")?;
            self.set(key, value)?;
            bytes = &bytes[len..];
        }
        Some(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // Nothing as a value takes back what was said before.
        let text = || (!value.is_empty()).then(|| BString::from(value));
        let number = || if value.is_empty() { Some(None) } else { parse_number(value).map(Some) };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link_path = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.modified = if value.is_empty() { None } else { Some(parse_time(value)?) },
            b"atime" => self.accessed = if value.is_empty() { None } else { Some(parse_time(value)?) },
            b"SCHILY.devmajor" => self.device_major = number()?,
            b"SCHILY.devminor" => self.device_minor = number()?,
            b"SCHILY.acl.access" => self.acl = text(),
            b"SCHILY.acl.default" => self.default_acl = text(),
            b"RHT.security.selinux" => self.selinux = text().map(Vec::from),
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.map" => self.sparse.map = Some(Map::parse(value)?),
            b"GNU.sparse.offset" => self.sparse.offset = number()?,
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take()?;
                self.sparse.map.get_or_insert_default().push(offset, number()??)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    // As GNU tar writes them: an equals sign would end the key.
                    let name = name.replace("%3D", "=").replace("%25", "%");
                    let mut bytes = name.len() + value.len();
                    self.xattrs.retain(|(other, value)| {
                        let stays = *other != name;
                        bytes += if stays { other.len() + value.len() } else { 0 };
                        stays
                    });
                    if self.xattrs.len() == MOST_XATTRS || bytes > XATTR_BYTES {
                        return None;
                    }
                    self.xattrs.push((name.into(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// Seconds with a fraction, as `1700000000.5` or `-0.25`.
fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once_str(".").unwrap_or((text, b""));
    let seconds = i64::try_from(parse_number(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, seconds, nanoseconds) in [
            ("1700000000", 1_700_000_000, 0),
            ("1700000000.5", 1_700_000_000, 500_000_000),
            ("0.1234567899", 0, 123_456_789),
            ("-1", -1, 0),
            ("-0.25", -1, 750_000_000),
            ("-2000000000.000000001", -2_000_000_001, 999_999_999),
        ] {
            assert_eq!(parse_time(text.as_bytes()), Some(Timestamp { seconds, nanoseconds }), "{text}");
        }
        for bad in ["", "-", "x", "1.x", "+1", "99999999999999999999"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test] // Headers follow each other without a member between them, and each may bring more.
    fn attributes_are_bounded() {
        let record = |name: &str, value: &str| {
            let content = format!(" SCHILY.xattr.user.{name}={value}\n");
            let len = (1..8)
                .map(|digits| digits + content.len())
                .find(|len| len.to_string().len() + content.len() == *len);
            format!("{}{content}", len.unwrap()).into_bytes()
        };
        let mut records = Records::default();
        for number in 0..MOST_XATTRS {
            assert_eq!(records.add(&record(&number.to_string(), "")), Some(()));
        }
        assert_eq!(records.add(&record("7", "other")), Some(()));
        assert_eq!(records.add(&record("more", "")), None);
        let (mut records, long) = (Records::default(), "x".repeat(XATTR_BYTES / 4));
        for name in ["a", "b", "c", "a"] {
            assert_eq!(records.add(&record(name, &long)), Some(()));
        }
        assert_eq!(records.add(&record("d", &long)), None);
    }

    #[test] // The length is the archive's own claim.
    fn records_that_do_not_fit_are_refused() {
        let mut records = Records::default();
        assert_eq!(records.add(b"12 path=abc\n11 uid=123\n"), Some(()));
        assert_eq!((records.path, records.uid), (Some("abc".into()), Some(123)));
        for bad in [
            &b"13 path=abc\n"[..],
            b"12 path=abcX",
            b"0 path=abc\n",
            b"2 path=a\n",
            b"x",
            b"9 pathab\n",
            b"99999999999999999999999 path=a\n",
            b"12 size=abc\n",
            b"27 GNU.sparse.numbytes=100\n",
        ] {
            assert_eq!(Records::default().add(bad), None, "{:?}", bad.as_bstr());
        }
    }
}
