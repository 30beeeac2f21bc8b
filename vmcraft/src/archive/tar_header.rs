//! Header blocks of tar members, and the pax records for what they cannot hold.
//!
//! Spec: POSIX.1-2017, `pax` utility, "ustar Header Block" and "pax Extended Header".

use bstr::{BStr, ByteSlice};
use vmcraft_fs::Timestamp;

/// A field of the header: where it begins and how long it is.
#[derive(Clone, Copy)]
pub(super) struct Field(usize, usize);

impl Field {
    pub(super) const NAME: Self = Self(0, 100);
    pub(super) const MODE: Self = Self(100, 8);
    pub(super) const UID: Self = Self(108, 8);
    pub(super) const GID: Self = Self(116, 8);
    pub(super) const SIZE: Self = Self(124, 12);
    pub(super) const MTIME: Self = Self(136, 12);
    pub(super) const CHECKSUM: Self = Self(148, 8);
    pub(super) const TYPEFLAG: Self = Self(156, 1);
    pub(super) const LINKNAME: Self = Self(157, 100);
    pub(super) const MAGIC_AND_VERSION: Self = Self(257, 8);
    pub(super) const UNAME: Self = Self(265, 32);
    pub(super) const GNAME: Self = Self(297, 32);
    pub(super) const DEVMAJOR: Self = Self(329, 8);
    pub(super) const DEVMINOR: Self = Self(337, 8);
    pub(super) const PREFIX: Self = Self(345, 155);
}

/// A header block under construction.
pub(super) struct Header([u8; 512]);

impl Header {
    pub(super) fn new() -> Self {
        let mut header = Self([0; 512]);
        header.set_bytes(Field::MAGIC_AND_VERSION, b"ustar\x0000");
        header
    }

    /// As many of the bytes as the field holds.
    pub(super) fn set_bytes(&mut self, Field(start, len): Field, bytes: &[u8]) {
        let len = len.min(bytes.len());
        self.0[start..start + len].copy_from_slice(&bytes[..len]);
    }

    /// Octal digits and a NUL. `false` if the number has too many digits.
    pub(super) fn set_octal(&mut self, Field(start, len): Field, number: u64) -> bool {
        let mut rest = number;
        for digit in self.0[start..start + len - 1].iter_mut().rev() {
            *digit = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
        rest == 0
    }

    pub(super) fn set_mode(&mut self, permissions: u32) {
        self.set_octal(Field::MODE, u64::from(permissions & 0o7777));
    }

    /// The number, or a record with this key if it does not fit.
    pub(super) fn set_number(&mut self, field: Field, number: u64, key: &[u8], pax: &mut Vec<u8>) {
        if !self.set_octal(field, number) {
            self.set_octal(field, 0);
            push_record(pax, key, number.to_string().as_bytes());
        }
    }

    pub(super) fn set_time(&mut self, time: Timestamp, pax: &mut Vec<u8>) {
        let fits = u64::try_from(time.seconds).is_ok_and(|seconds| self.set_octal(Field::MTIME, seconds));
        if !fits {
            self.set_octal(Field::MTIME, 0);
        }
        if !fits || time.nanoseconds != 0 {
            push_record(pax, b"mtime", decimal(time).as_bytes());
        }
    }

    /// The member's name. Whether it became a record that is not UTF-8.
    pub(super) fn set_name(&mut self, name: &BStr, pax: &mut Vec<u8>) -> bool {
        let Field(_, longest) = Field::NAME;
        if name.len() <= longest {
            self.set_bytes(Field::NAME, name);
            return false;
        }
        // The header has room for directories before the name: split at the last slash that does.
        let Field(_, prefix_len) = Field::PREFIX;
        let head = &name[..name.len().min(prefix_len + 1)];
        if let Some(slash) = head.rfind_byte(b'/')
            && slash > 0
            && (1..=longest).contains(&(name.len() - slash - 1))
        {
            self.set_bytes(Field::PREFIX, &name[..slash]);
            self.set_bytes(Field::NAME, &name[slash + 1..]);
            return false;
        }
        self.set_bytes(Field::NAME, name);
        push_record(pax, b"path", name);
        name.to_str().is_err()
    }

    pub(super) fn set_link(&mut self, target: &BStr, pax: &mut Vec<u8>) -> bool {
        self.set_bytes(Field::LINKNAME, target);
        let Field(_, longest) = Field::LINKNAME;
        if target.len() <= longest {
            return false;
        }
        push_record(pax, b"linkpath", target);
        target.to_str().is_err()
    }

    /// Sets the type and the checksum, which counts its own field as spaces.
    pub(super) fn seal(&mut self, flag: u8) -> &[u8] {
        self.set_bytes(Field::TYPEFLAG, &[flag]);
        self.set_bytes(Field::CHECKSUM, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        // Six digits, a NUL and a space; at most 512 times 255, which fits.
        let Field(start, _) = Field::CHECKSUM;
        self.set_octal(Field(start, 7), sum);
        self.0[start + 6] = 0;
        &self.0
    }
}

/// Appends `LENGTH KEY=VALUE` and a newline, where the length counts itself.
pub(super) fn push_record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    pax.extend_from_slice(len.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// The time in seconds with a fraction, as `1700000000.5` or `-0.25`.
fn decimal(time: Timestamp) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let magnitude = nanoseconds.unsigned_abs();
    let text = format!("{sign}{}.{:09}", magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
