//! RAID levels and layouts, by md's numbers and `mdadm`'s names.

use crate::raid::{Layout, ParityLayout, Raid10, ZoneOrder};
use crate::{Error, Result};

/// A RAID level that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Linear,
    Raid0,
    Raid1,
    Raid4,
    Raid5,
    Raid6,
    Raid10,
}

const LEVELS: [(i32, Level, &str); 7] = [
    (-1, Level::Linear, "linear"),
    (0, Level::Raid0, "raid0"),
    (1, Level::Raid1, "raid1"),
    (4, Level::Raid4, "raid4"),
    (5, Level::Raid5, "raid5"),
    (6, Level::Raid6, "raid6"),
    (10, Level::Raid10, "raid10"),
];

/// The layouts of RAID-5 and RAID-6, by number.
const PARITY_LAYOUTS: [(u32, &str); 14] = [
    (0, "left-asymmetric"),
    (1, "right-asymmetric"),
    (2, "left-symmetric"),
    (3, "right-symmetric"),
    (4, "parity-first"),
    (5, "parity-last"),
    (8, "ddf-zero-restart"),
    (9, "ddf-N-restart"),
    (10, "ddf-N-continue"),
    (16, "left-asymmetric-6"),
    (17, "right-asymmetric-6"),
    (18, "left-symmetric-6"),
    (19, "right-symmetric-6"),
    (20, "parity-first-6"),
];

impl Level {
    /// The level of this number in a superblock; an error that names it if it cannot be opened.
    pub(super) fn from_number(number: i32) -> Result<Self> {
        match LEVELS.iter().find(|level| level.0 == number) {
            Some(level) => Ok(level.1),
            None => Err(Error::Unsupported(match number {
                -4 => "a multipath array: open one of its paths instead".into(),
                -5 => "an array of level \"faulty\", which exists to make errors".into(),
                _ => format!("RAID level {number}"),
            })),
        }
    }

    /// The level by name, or by number: `raid1`, `1`, `mirror`, `stripe`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "mirror" => "raid1",
            "stripe" => "raid0",
            other => other,
        };
        LEVELS
            .iter()
            .find(|level| level.2 == name || (level.0 >= 0 && level.0.to_string() == name))
            .map(|level| level.1)
    }

    /// The name that `mdadm` gives it, such as `raid5`.
    pub fn name(self) -> &'static str {
        LEVELS[self.index()].2
    }

    /// The number in a superblock.
    pub(super) fn number(self) -> i32 {
        LEVELS[self.index()].0
    }

    fn index(self) -> usize {
        self as usize // the table is in the order of the variants
    }

    /// Whether the level survives the loss of a member, and so has members of one size, a resync and a bitmap.
    pub(super) fn is_redundant(self) -> bool {
        !matches!(self, Self::Linear | Self::Raid0)
    }

    pub(super) fn has_parity(self) -> bool {
        matches!(self, Self::Raid4 | Self::Raid5 | Self::Raid6)
    }

    /// The arrangement that a layout number means for this level.
    pub(super) fn arrangement(self, layout: u32, members: usize) -> Result<Layout> {
        let parity = |parities| {
            ParityLayout::from_md(layout, parities)
                .ok_or_else(|| Error::Unsupported(format!("layout {layout:#x} of {}", self.name())))
        };
        Ok(match self {
            Self::Linear => Layout::Concatenated,
            Self::Raid0 => Layout::Striped(match layout {
                1 => ZoneOrder::Array,
                2 => ZoneOrder::Zone,
                _ => ZoneOrder::Unknown,
            }),
            Self::Raid1 => Layout::Mirrored,
            Self::Raid4 => Layout::SingleParity(ParityLayout::ParityLast),
            Self::Raid5 => Layout::SingleParity(parity(1)?),
            Self::Raid6 => Layout::DoubleParity(parity(2)?),
            Self::Raid10 => Layout::Raid10(
                Raid10::from_md(layout, members).map_err(|e| Error::Unsupported(e.to_string()))?,
            ),
        })
    }

    /// What `mdadm` calls the layout; nothing for levels that have none.
    pub(super) fn layout_name(self, layout: u32) -> Option<String> {
        match self {
            Self::Raid5 | Self::Raid6 => {
                PARITY_LAYOUTS.iter().find(|row| row.0 == layout).map(|row| row.1.to_owned())
            }
            Self::Raid10 => {
                let (near, far) = (layout & 0xff, layout >> 8 & 0xff);
                let far_name = if layout >> 16 & 1 == 1 { "offset" } else { "far" };
                let parts: Vec<_> = [("near", near), (far_name, far)]
                    .iter()
                    .filter(|part| part.1 > 1 || (part.0 == "near" && far <= 1))
                    .map(|part| format!("{}={}", part.0, part.1))
                    .collect();
                Some(parts.join(", "))
            }
            Self::Raid0 => match layout {
                1 => Some("original".into()),
                2 => Some("alternate".into()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The layout number of a name that `mdadm --layout` takes; `None` is a name that this level does not have.
    pub(super) fn layout_number(self, name: &str) -> Option<u32> {
        match self {
            Self::Raid0 => {
                [("original", 1), ("alternate", 2)].iter().find(|row| row.0 == name).map(|row| row.1)
            }
            Self::Raid5 | Self::Raid6 => PARITY_LAYOUTS
                .iter()
                .find(|row| row.1 == name && (self == Self::Raid6 || row.0 < 8))
                .map(|row| row.0),
            Self::Raid10 => {
                let copies: u32 = name.get(1..)?.parse().ok().filter(|copies| (2..=255).contains(copies))?;
                match name.as_bytes()[0] {
                    b'n' => Some(0x100 | copies),
                    b'f' => Some(copies << 8 | 1),
                    b'o' => Some(1 << 16 | copies << 8 | 1),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        for (number, level, name) in LEVELS {
            assert_eq!(Level::from_number(number).unwrap(), level);
            assert_eq!((level.name(), level.number()), (name, number));
            assert_eq!(Level::from_name(name), Some(level));
        }
        assert_eq!(Level::from_name("10"), Some(Level::Raid10));
        assert_eq!(Level::from_name("-1"), None);
        for (number, name) in PARITY_LAYOUTS {
            assert_eq!(Level::Raid6.layout_name(number).as_deref(), Some(name));
            assert_eq!(Level::Raid6.layout_number(name), Some(number));
        }
        assert_eq!(Level::Raid5.layout_number("ddf-N-restart"), None);
        for (name, long) in [("n2", "near=2"), ("f3", "far=3"), ("o2", "offset=2")] {
            let number = Level::Raid10.layout_number(name).unwrap();
            assert_eq!(Level::Raid10.layout_name(number).as_deref(), Some(long));
        }
        assert_eq!(Level::Raid10.layout_number("n"), None);
        assert_eq!(Level::Raid10.layout_number(""), None);
    }

    #[test] // What Linux knows and we do not is refused by its name.
    fn other_levels_are_named() {
        let error = Level::from_number(-4).unwrap_err().to_string();
        assert!(error.contains("multipath"), "{error}");
        assert!(Level::from_number(7).unwrap_err().to_string().contains("RAID level 7"));
    }
}
