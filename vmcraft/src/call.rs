//! The call table: what a call is, and how it is made by name.
//!
//! Rows come from `#[api]` and from nowhere else. The shell, its help and completion, the reference
//! manual and scripts read them.

use std::path::PathBuf;

use bstr::{BString, ByteSlice};
use vmcraft_volume::Key;

use crate::path::{DeviceName, DeviceOrPath, GuestPath, Mountable};
use crate::value::{FileIn, FileOut, Value};
use crate::{Error, Guest, Result};

/// A call: one documented method of [`Guest`].
pub struct Call {
    /// Its name, as libguestfs spells it: `mkdir-p`.
    pub name: &'static str,
    /// Other names for the same.
    pub aliases: &'static [&'static str],
    /// The chapter of the manual that it belongs to.
    pub area: &'static str,
    /// What it does, in one line without a full stop.
    pub summary: &'static str,
    /// The rest of its documentation, in Markdown.
    pub description: &'static str,
    /// What it takes: first those that must be given, then the optional ones.
    pub arguments: &'static [Argument],
    /// What it returns.
    pub result: ResultKind,
    /// How the shell shows a number.
    pub print: Print,
    /// What to use instead, for calls that are kept for old scripts.
    pub deprecated: Option<&'static str>,
    /// Makes the call. `arguments` are as [`Call::bind`] gives them.
    pub invoke: fn(&mut Guest, &Bound) -> Result<Value>,
}

/// An argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// Its name, which for an optional one is what stands before the colon.
    pub name: &'static str,
    /// What it is.
    pub kind: ArgumentKind,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What an argument is, which says how a word of a script becomes one and how it is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentKind {
    /// Text.
    String,
    /// A list of texts: one quoted word, split at spaces.
    List,
    /// Bytes.
    Buffer,
    /// `true` or `false`.
    Bool,
    /// A number of 32 bits.
    Int,
    /// A number of 64 bits.
    Int64,
    /// A path inside the guest.
    Path,
    /// A block device.
    Device,
    /// A device or subvolume.
    Mountable,
    /// A device, or a path inside the guest.
    DeviceOrPath,
    /// A file of the host that is read.
    FileIn,
    /// A file of the host that is written.
    FileOut,
    /// A passphrase or key. It does not stand among the words of a script: it is asked for, and never
    /// shown.
    Key,
}

/// What a call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// Nothing.
    Unit,
    /// A truth value.
    Bool,
    /// A number.
    Int,
    /// Text.
    String,
    /// Bytes.
    Buffer,
    /// A list of texts.
    List,
    /// Pairs of texts.
    Hash,
    /// A record of this name.
    Struct(&'static str),
    /// A list of records of this name.
    Structs(&'static str),
}

/// How the shell shows a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Print {
    /// In decimal.
    Default,
    /// In octal with a leading 0, as `umask`.
    Octal,
    /// In hexadecimal with a leading 0x, as `part-get-mbr-id`.
    Hex,
}

/// The arguments of one invocation, in the order of [`Call::arguments`].
#[derive(Debug, Clone, PartialEq)]
pub struct Bound(Vec<Option<Value>>);

impl Bound {
    /// The value of the argument at `index`, if it was given.
    pub fn get(&self, index: usize) -> Option<&Value> {
        self.0.get(index)?.as_ref()
    }

    /// Has `read` give each key that the call needs, in order.
    pub fn read_keys<E>(
        mut self,
        call: &Call,
        mut read: impl FnMut(&'static Argument) -> Result<Key, E>,
    ) -> Result<Self, E> {
        for (slot, argument) in self.0.iter_mut().zip(call.arguments) {
            if argument.kind == ArgumentKind::Key && slot.is_none() && !argument.optional {
                *slot = Some(Value::Key(read(argument)?));
            }
        }
        Ok(self)
    }
}

impl Call {
    /// The call with this name or alias, in any case: scripts of guestfish have both `resize2fs-M` and
    /// `resize2fs-m`.
    pub fn find(name: &str) -> Option<&'static Call> {
        let fits = |known: &&'static str| known.eq_ignore_ascii_case(name);
        table().find(|call| fits(&call.name) || call.aliases.iter().any(fits))
    }

    /// How it is called, such as `mount-options options mountable mountpoint`, with optional
    /// arguments as `[name:..]`. Keys are not in it.
    pub fn synopsis(&self) -> String {
        let mut text = self.name.to_owned();
        for argument in self.arguments.iter().filter(|argument| argument.kind != ArgumentKind::Key) {
            match argument.optional {
                false => text.push_str(&format!(" {}", argument.name)),
                true => text.push_str(&format!(" [{}:..]", argument.name)),
            }
        }
        text
    }

    /// Checks the words of a script line against the call's arguments and converts them.
    ///
    /// The first words are the arguments that must be given; the rest are `name:value`. The keys are
    /// left to [`Bound::read_keys`].
    pub fn bind_words(&self, words: &[BString]) -> Result<Bound> {
        let required: Vec<_> = self.required().collect();
        let has_optional = self.arguments.iter().any(|argument| argument.optional);
        if words.len() < required.len() || (words.len() > required.len() && !has_optional) {
            return Err(Error::Usage(format!(
                "{} takes {} argument{}{}, not {} (usage: {})",
                self.name,
                required.len(),
                if required.len() == 1 { "" } else { "s" },
                if has_optional { " and optional ones" } else { "" },
                words.len(),
                self.synopsis(),
            )));
        }
        let mut bound = vec![None; self.arguments.len()];
        for (index, word) in required.iter().zip(words) {
            bound[*index] = Some(self.convert(&self.arguments[*index], word)?);
        }
        for word in &words[required.len()..] {
            let (name, value) = word.split_once_str(":").ok_or_else(|| {
                Error::Usage(format!("{}: {word:?} is not of the form name:value", self.name))
            })?;
            let index = self
                .arguments
                .iter()
                .position(|argument| argument.optional && argument.name.as_bytes() == name)
                .ok_or_else(|| {
                    Error::Usage(format!(
                        "{}: no optional argument {:?} (usage: {})",
                        self.name,
                        name.as_bstr(),
                        self.synopsis()
                    ))
                })?;
            if bound[index].is_some() {
                return Err(Error::Usage(format!("{}: {:?} is given twice", self.name, name.as_bstr())));
            }
            bound[index] = Some(self.convert(&self.arguments[index], &BString::from(value))?);
        }
        Ok(Bound(bound))
    }

    /// Where among the arguments those are that a script's first words are: all that must be given, but
    /// no keys.
    pub fn required(&self) -> impl Iterator<Item = usize> {
        let arguments = self.arguments.iter().enumerate();
        arguments
            .filter(|(_, argument)| !argument.optional && argument.kind != ArgumentKind::Key)
            .map(|(at, _)| at)
    }

    /// Checks typed values against the call's arguments: `None` for an optional one left out.
    pub fn bind(&self, values: Vec<Option<Value>>) -> Result<Bound> {
        if values.len() > self.arguments.len() {
            return Err(Error::Usage(format!(
                "{}: too many arguments (usage: {})",
                self.name,
                self.synopsis()
            )));
        }
        let mut values = values;
        values.resize(self.arguments.len(), None);
        for (argument, value) in self.arguments.iter().zip(&values) {
            if value.is_none() && !argument.optional {
                return Err(Error::Usage(format!(
                    "{}: {} is missing (usage: {})",
                    self.name,
                    argument.name,
                    self.synopsis()
                )));
            }
        }
        Ok(Bound(values))
    }

    fn convert(&self, argument: &Argument, word: &BString) -> Result<Value> {
        let refuse =
            |what: &str| Error::Usage(format!("{}: {}: {word:?} is not {what}", self.name, argument.name));
        Ok(match argument.kind {
            ArgumentKind::String
            | ArgumentKind::Device
            | ArgumentKind::Mountable
            | ArgumentKind::DeviceOrPath
            | ArgumentKind::Path => Value::String(word.clone()),
            ArgumentKind::Buffer => Value::Buffer(word.to_vec()),
            ArgumentKind::Key => Value::Key(Key::new(word.to_vec())),
            ArgumentKind::List => {
                Value::List(split_list(word).ok_or_else(|| refuse("a list: a quote is not closed"))?)
            }
            ArgumentKind::Bool => Value::Bool(parse_bool(word).ok_or_else(|| refuse("true or false"))?),
            ArgumentKind::Int => {
                let number = parse_int(word).ok_or_else(|| refuse("a number"))?;
                Value::Int(i32::try_from(number).map_err(|_| refuse("a number of 32 bits"))?.into())
            }
            ArgumentKind::Int64 => Value::Int(parse_int(word).ok_or_else(|| refuse("a number of 64 bits"))?),
            ArgumentKind::FileIn if word == "-" => Value::FileIn(FileIn::Input),
            ArgumentKind::FileIn => {
                Value::FileIn(FileIn::Path(host_path(word).ok_or_else(|| refuse("a file name"))?))
            }
            ArgumentKind::FileOut if word == "-" => Value::FileOut(FileOut::Output),
            ArgumentKind::FileOut => {
                Value::FileOut(FileOut::Path(host_path(word).ok_or_else(|| refuse("a file name"))?))
            }
        })
    }
}

/// All calls, by area in the order of the manual.
pub fn table() -> impl Iterator<Item = &'static Call> {
    crate::calls::AREAS.iter().flat_map(|calls| calls.iter())
}

/// A file name of the host.
fn host_path(word: &BString) -> Option<PathBuf> {
    (!word.is_empty()).then(|| word.to_path().ok().map(PathBuf::from)).flatten()
}

/// A truth value as guestfish takes it.
fn parse_bool(word: &[u8]) -> Option<bool> {
    match word.to_ascii_lowercase().as_slice() {
        b"1" | b"true" | b"t" | b"yes" | b"y" | b"on" => Some(true),
        b"0" | b"false" | b"f" | b"no" | b"n" | b"off" => Some(false),
        _ => None,
    }
}

/// A number as guestfish takes it: decimal, `0x…` or `0…` octal, then one of `kKMGTPE` for powers
/// of 1024 (`KiB` too), or `KB`, `MB` and so on for powers of 1000.
fn parse_int(word: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(word).ok()?.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_hex = digits.starts_with("0x") || digits.starts_with("0X");
    let (digits, factor) = if is_hex { (digits, 1) } else { split_suffix(digits)? };
    // from_str_radix takes a sign of its own, and ours is off already.
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let magnitude = if is_hex {
        let hex = &digits[2..];
        hex.as_bytes().first()?.is_ascii_hexdigit().then(|| i128::from_str_radix(hex, 16).ok())??
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    let magnitude = magnitude.checked_mul(factor)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Takes the suffix off a number: the digits, and what they are multiplied by.
fn split_suffix(text: &str) -> Option<(&str, i128)> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[digits.len()..];
    let Some(unit) = suffix.chars().next() else { return Some((digits, 1)) };
    let power = match unit {
        'k' => 1,
        _ => u32::try_from("KMGTPE".find(unit)?).ok()? + 1,
    };
    let base: i128 = match &suffix[1..] {
        "" | "iB" => 1024,
        "B" => 1000,
        _ => return None,
    };
    Some((digits, base.pow(power)))
}

/// Splits a list as guestfish does: at white space, with `'…'` around an item that has some.
/// `None` if a quote is not closed.
fn split_list(word: &[u8]) -> Option<Vec<BString>> {
    let mut items = Vec::new();
    let mut rest = word.trim_start();
    while let Some(first) = rest.first() {
        let (item, after) = if *first == b'\'' {
            let end = rest[1..].find_byte(b'\'')?;
            (&rest[1..=end], &rest[end + 2..])
        } else {
            let end = rest.find_byteset(b" \t\r\n").unwrap_or(rest.len());
            rest.split_at(end)
        };
        items.push(item.into());
        rest = after.trim_start();
    }
    Some(items)
}

/// Types that an argument of a call can have.
pub trait FromArgument<'a>: Sized {
    /// What the table says of it.
    const KIND: ArgumentKind;
    /// Whether it may be left out.
    const OPTIONAL: bool = false;
    /// The argument from what [`Call::bind`] made.
    fn from_argument(value: Option<&'a Value>) -> Result<Self>;
}

/// The table's own check failed to hold: a script binding passed a value of another type.
fn mistyped(wanted: &str, value: Option<&Value>) -> Error {
    Error::Usage(match value {
        Some(value) => format!("an argument should be {wanted}, not {value:?}"),
        None => format!("an argument is missing: {wanted}"),
    })
}

macro_rules! from_argument {
    ($type:ty, $kind:ident, $wanted:literal, $($pattern:pat => $result:expr),+) => {
        impl<'a> FromArgument<'a> for $type {
            const KIND: ArgumentKind = ArgumentKind::$kind;
            fn from_argument(value: Option<&'a Value>) -> Result<Self> {
                match value {
                    $($pattern => Ok($result),)+
                    other => Err(mistyped($wanted, other)),
                }
            }
        }
    };
}

from_argument!(&'a GuestPath, Path, "a path", Some(Value::String(s)) => GuestPath::new(s));
from_argument!(&'a DeviceName, Device, "a device", Some(Value::String(s)) => DeviceName::new(s));
from_argument!(&'a Mountable, Mountable, "a device", Some(Value::String(s)) => Mountable::new(s));
from_argument!(&'a DeviceOrPath, DeviceOrPath, "a device or path", Some(Value::String(s)) => DeviceOrPath::new(s));
from_argument!(&'a bstr::BStr, String, "text", Some(Value::String(s)) => s.as_bstr());
from_argument!(&'a [u8], Buffer, "bytes", Some(Value::Buffer(b)) => b, Some(Value::String(s)) => s);
from_argument!(&'a [BString], List, "a list", Some(Value::List(l)) => l);
from_argument!(&'a FileIn, FileIn, "a file of the host", Some(Value::FileIn(f)) => f);
from_argument!(&'a FileOut, FileOut, "a file of the host", Some(Value::FileOut(f)) => f);
from_argument!(&'a Key, Key, "a key", Some(Value::Key(k)) => k);
from_argument!(bool, Bool, "true or false", Some(Value::Bool(b)) => *b);
from_argument!(i64, Int64, "a number", Some(Value::Int(i)) => *i);

impl<'a> FromArgument<'a> for &'a str {
    const KIND: ArgumentKind = ArgumentKind::String;
    fn from_argument(value: Option<&'a Value>) -> Result<Self> {
        match value {
            Some(Value::String(s)) => s
                .to_str()
                .map_err(|_| Error::Usage(format!("{s:?} is not valid UTF-8, which this argument must be"))),
            other => Err(mistyped("text", other)),
        }
    }
}

impl<'a> FromArgument<'a> for i32 {
    const KIND: ArgumentKind = ArgumentKind::Int;
    fn from_argument(value: Option<&'a Value>) -> Result<Self> {
        match value {
            Some(Value::Int(i)) => {
                Self::try_from(*i).map_err(|_| Error::Usage(format!("{i} does not fit into 32 bits")))
            }
            other => Err(mistyped("a number", other)),
        }
    }
}

impl<'a, T: FromArgument<'a>> FromArgument<'a> for Option<T> {
    const KIND: ArgumentKind = T::KIND;
    const OPTIONAL: bool = true;
    fn from_argument(value: Option<&'a Value>) -> Result<Self> {
        value.map(|value| T::from_argument(Some(value))).transpose()
    }
}

/// Types that a call can return.
pub trait IntoValue {
    /// What the table says of it.
    const KIND: ResultKind;
    /// The value.
    fn into_value(self) -> Value;
}

macro_rules! into_value {
    ($type:ty, $kind:ident, $value:ident => $result:expr) => {
        impl IntoValue for $type {
            const KIND: ResultKind = ResultKind::$kind;
            fn into_value(self) -> Value {
                let $value = self;
                $result
            }
        }
    };
}

into_value!((), Unit, _unit => Value::Unit);
into_value!(bool, Bool, b => Value::Bool(b));
into_value!(i32, Int, i => Value::Int(i.into()));
into_value!(i64, Int, i => Value::Int(i));
into_value!(String, String, s => Value::String(s.into()));
into_value!(BString, String, s => Value::String(s));
into_value!(Vec<u8>, Buffer, b => Value::Buffer(b));
into_value!(Vec<BString>, List, l => Value::List(l));
into_value!(Vec<String>, List, l => Value::List(l.into_iter().map(BString::from).collect()));
into_value!(Vec<(BString, BString)>, Hash, h => Value::Hash(h));

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The forms that guestfish scripts use for numbers.
    fn numbers_take_suffixes_and_bases() {
        assert_eq!(parse_int(b"1G"), Some(1 << 30));
        assert_eq!(parse_int(b"-34"), Some(-34));
        assert_eq!(parse_int(b"0755"), Some(0o755));
        assert_eq!(parse_int(b"0x83"), Some(0x83));
        assert_eq!(parse_int(b"0"), Some(0));
        assert_eq!(parse_int(b"8k"), Some(8 << 10));
        assert_eq!(parse_int(b"2MiB"), Some(2 << 20));
        assert_eq!(parse_int(b"2MB"), Some(2_000_000));
        assert_eq!(parse_int(b"-7E"), Some(-7 << 60));
        assert_eq!(parse_int(b"0x1B"), Some(27));
        for bad in
            [&b""[..], b"-", b"--1", b"1X", b"089", b"16E", b"G", b"0x", b"0x-1", b"1Ki", b"1ZB", b"1KBB"]
        {
            assert_eq!(parse_int(bad), None, "{:?}", bad.as_bstr());
        }
    }

    #[test] // A list is one word of the script.
    fn lists_split_at_spaces_outside_quotes() {
        assert_eq!(split_list(b"a 'b c'  d").unwrap(), ["a", "b c", "d"]);
        assert_eq!(split_list(b"").unwrap(), Vec::<BString>::new());
        assert_eq!(split_list(b"''").unwrap(), [""]);
        assert_eq!(split_list(b"'a"), None);
    }

    #[test] // The seam that every way of calling relies on.
    fn table_is_sound() {
        let mut names = std::collections::HashSet::new();
        for call in table() {
            for name in std::iter::once(&call.name).chain(call.aliases) {
                assert!(names.insert(name.to_ascii_lowercase()), "{name} stands twice in the table");
                assert!(Call::find(&name.to_ascii_uppercase()).is_some_and(|found| found.name == call.name));
            }
            let first_optional =
                call.arguments.iter().position(|a| a.optional).unwrap_or(call.arguments.len());
            assert!(
                call.arguments[first_optional..].iter().all(|a| a.optional),
                "{}: optional arguments come last",
                call.name
            );
        }
    }
}
