//! LVM's identifiers: 32 letters and digits.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The characters that LVM makes new identifiers of; it reads `!` and `#` too.
const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Where dashes stand when an identifier is printed.
const DASHES: [usize; 6] = [6, 10, 14, 18, 22, 26];

/// The identifier of a physical volume, a volume group or a logical volume.
///
/// Printed as LVM does, in groups of 6-4-4-4-4-4-6; parsed with or without the dashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LvmUuid([u8; 32]);

impl LvmUuid {
    /// The 32 bytes of a header, if they are letters and digits.
    pub(crate) fn decode(bytes: &[u8; 32]) -> Option<Self> {
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#')).then_some(Self(*bytes))
    }

    /// The 32 bytes, as they stand in a header.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 characters without dashes, as libguestfs returns them.
    pub fn undashed(&self) -> String {
        self.0.iter().map(|b| char::from(*b)).collect()
    }

    /// A new one, of the bytes that `random` fills.
    pub fn generate(random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut drawn = [0; 64];
        random(&mut drawn);
        let mut bytes = [0; 32];
        for (target, pair) in bytes.iter_mut().zip(drawn.as_chunks().0) {
            *target = ALPHABET[usize::from(u16::from_le_bytes(*pair) % 62)];
        }
        Self(bytes)
    }
}

impl fmt::Display for LvmUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if DASHES.contains(&index) {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for LvmUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LvmUuid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        <[u8; 32]>::try_from(bytes)
            .ok()
            .and_then(|bytes| Self::decode(&bytes))
            .ok_or_else(|| Error::Refused(format!("{text:?} is not an identifier of LVM")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_and_parsed() {
        let text = "dtJQ0F-hA29-WymR-uwPT-IRY8-l8TR-eVC6XZ";
        let uuid: LvmUuid = text.parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(uuid.undashed().parse::<LvmUuid>().unwrap(), uuid);
        assert!("short".parse::<LvmUuid>().is_err());
        assert!("ätJQ0F-hA29-WymR-uwPT-IRY8-l8TR-eVC6X".parse::<LvmUuid>().is_err());
    }

    #[test]
    fn generated_of_random_bytes() {
        let mut next = 0_u8;
        let uuid = LvmUuid::generate(&mut |bytes| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(31);
            }
        });
        assert_eq!(LvmUuid::decode(uuid.as_bytes()), Some(uuid));
        let distinct: std::collections::HashSet<_> = uuid.as_bytes().iter().collect();
        assert!(distinct.len() > 8, "{uuid}");
    }
}
