//! Which members an archive leaves out: `tar --exclude`'s wildcards.
//!
//! As GNU tar does by default, `*` and `?` match slashes too, a pattern may begin at any name of the
//! path, and what is below an excluded directory is excluded.

use bstr::{BStr, BString};
use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::{Error, Result};

/// The most memory that the compiled patterns may take.
const COMPILED_BYTES: usize = 32 << 20;

/// Patterns that leave members out.
pub(crate) struct Exclude(RegexSet);

impl Exclude {
    pub(crate) fn new(patterns: &[BString]) -> Result<Self> {
        let regexes =
            patterns.iter().map(|pattern| format!(r"(?s-u)(?:\A|/)(?:{})(?:/|\z)", translate(pattern)));
        RegexSetBuilder::new(regexes)
            .size_limit(COMPILED_BYTES)
            .build()
            .map(Self)
            .map_err(|e| Error::Usage(format!("excludes: the patterns are too large or too many: {e}")))
    }

    /// Whether a member with this name, such as `./etc/fstab`, is left out.
    pub(crate) fn matches(&self, name: &BStr) -> bool {
        self.0.is_match(name)
    }
}

/// A shell wildcard pattern as a regular expression on bytes.
fn translate(pattern: &[u8]) -> String {
    let mut regex = String::new();
    let mut rest = pattern;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'*' => regex.push_str(".*"),
            b'?' => regex.push('.'),
            b'[' => match bracket(after) {
                Some((class, after)) => {
                    regex.push_str(&class);
                    rest = after;
                }
                // A bracket that is not closed means itself.
                None => push_byte(&mut regex, b'['),
            },
            b'\\' => {
                // At the end it means itself.
                let (byte, after) =
                    after.split_first().map_or((b'\\', after), |(byte, after)| (*byte, after));
                push_byte(&mut regex, byte);
                rest = after;
            }
            byte => push_byte(&mut regex, *byte),
        }
    }
    regex
}

fn push_byte(regex: &mut String, byte: u8) {
    regex.push_str(&format!(r"\x{byte:02x}"));
}

/// What stands in brackets, after the opening one, as a class of bytes; and what follows.
fn bracket(pattern: &[u8]) -> Option<(String, &[u8])> {
    let (is_negated, mut rest) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    let mut is_first = true;
    loop {
        match rest {
            [b']', after @ ..] if !is_first => {
                rest = after;
                break;
            }
            [b'[', b':', after @ ..] => {
                let end = after.windows(2).position(|pair| pair == b":]")?;
                ranges.extend(named_class(&after[..end])?);
                rest = &after[end + 2..];
            }
            _ => {
                let (low, after) = bracket_byte(rest)?;
                rest = after;
                match rest {
                    [b'-', after @ ..] if !after.starts_with(b"]") => {
                        let (high, after) = bracket_byte(after)?;
                        rest = after;
                        if low <= high {
                            ranges.push((low, high));
                        }
                    }
                    _ => ranges.push((low, low)),
                }
            }
        }
        is_first = false;
    }
    let items: String = ranges.iter().map(|(low, high)| format!(r"\x{low:02x}-\x{high:02x}")).collect();
    let class = match (is_negated, items.is_empty()) {
        (false, false) => format!("[{items}]"),
        (true, false) => format!("[^{items}]"),
        // Only ranges that run backwards: no byte, or any.
        (false, true) => r"[^\x00-\xff]".to_owned(),
        (true, true) => ".".to_owned(),
    };
    Some((class, rest))
}

fn bracket_byte(pattern: &[u8]) -> Option<(u8, &[u8])> {
    match pattern {
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

/// The bytes of a class such as `alpha`, in the C locale.
fn named_class(name: &[u8]) -> Option<Vec<(u8, u8)>> {
    let (digit, upper, lower) = ((b'0', b'9'), (b'A', b'Z'), (b'a', b'z'));
    Some(match name {
        b"alnum" => vec![digit, upper, lower],
        b"alpha" => vec![upper, lower],
        b"blank" => vec![(b' ', b' '), (b'\t', b'\t')],
        b"cntrl" => vec![(0, 0x1f), (0x7f, 0x7f)],
        b"digit" => vec![digit],
        b"graph" => vec![(b'!', b'~')],
        b"lower" => vec![lower],
        b"print" => vec![(b' ', b'~')],
        b"punct" => vec![(b'!', b'/'), (b':', b'@'), (b'[', b'`'), (b'{', b'~')],
        b"space" => vec![(b'\t', b'\r'), (b' ', b' ')],
        b"upper" => vec![upper],
        b"xdigit" => vec![digit, (b'A', b'F'), (b'a', b'f')],
        _ => return None,
    })
}
