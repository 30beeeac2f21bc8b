//! The text that LVM keeps its metadata in: nested sections of `key = value`.
//!
//! Spec: lvm.conf(5), "syntax". Only what LVM itself writes into metadata: no includes, no `key += value`.

use std::fmt::Write as _;

use bstr::{BString, ByteSlice};

/// How deep sections may nest: LVM's own go four deep.
const MAX_DEPTH: usize = 16;
/// How many sections and values a text may have: some thousands of logical volumes fit.
const MAX_NODES: usize = 2_000_000;

/// A section: named sections and values in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section {
    entries: Vec<(String, Node)>,
}

/// What stands behind a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// `key { … }`
    Section(Section),
    /// `key = …`
    Value(Value),
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A whole number.
    Integer(i64),
    /// A number with a point, as it stands.
    Float(String),
    /// `"…"`
    Text(BString),
    /// `[ …, … ]`
    List(Vec<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl Section {
    /// Parses a whole text. The error says what is wrong and in which line.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut parser = Parser { rest: text, line: 1, nodes: 0 };
        parser.section(0)
    }

    /// The entries in their order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// The sections inside, in their order.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.entries().filter_map(|(key, node)| match node {
            Node::Section(section) => Some((key, section)),
            Node::Value(_) => None,
        })
    }

    fn node(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// The section of this name.
    pub(crate) fn section(&self, key: &str) -> Option<&Section> {
        match self.node(key)? {
            Node::Section(section) => Some(section),
            Node::Value(_) => None,
        }
    }

    /// The section of this name, for changing it; made at the end where there is none.
    pub(crate) fn section_mut(&mut self, key: &str) -> &mut Section {
        let index =
            match self.entries.iter().position(|(k, node)| k == key && matches!(node, Node::Section(_))) {
                Some(index) => index,
                None => {
                    self.entries.push((key.into(), Node::Section(Section::default())));
                    self.entries.len() - 1
                }
            };
        match &mut self.entries[index].1 {
            Node::Section(section) => section,
            Node::Value(_) => unreachable!("the index is that of a section"),
        }
    }

    /// The value of this name.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        match self.node(key)? {
            Node::Value(value) => Some(value),
            Node::Section(_) => None,
        }
    }

    /// A whole number from 0 up.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A text that is UTF-8, as all that names something is.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => text.to_str().ok(),
            _ => None,
        }
    }

    /// A list of texts: none where the key is missing. One text stands for a list of one.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(list)) => list
                .iter()
                .filter_map(|value| match value {
                    Value::Text(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect(),
            Some(Value::Text(text)) => vec![text.to_string()],
            _ => Vec::new(),
        }
    }

    /// Sets a value: in its place where the key is there, at the end otherwise.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, node)) => *node = Node::Value(value),
            None => self.entries.push((key.into(), Node::Value(value))),
        }
    }

    /// Sets a list of texts.
    pub(crate) fn set_texts(&mut self, key: &str, texts: &[&str]) {
        self.set(key, Value::List(texts.iter().map(|text| Value::from(*text)).collect()));
    }

    /// Adds a section at the end.
    pub(crate) fn push(&mut self, key: &str, section: Section) {
        self.entries.push((key.into(), Node::Section(section)));
    }

    /// Removes what has this key, and says whether there was something.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(k, _)| k != key);
        self.entries.len() < before
    }

    /// Gives an entry another key.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        for (key, _) in self.entries.iter_mut().filter(|(key, _)| key == from) {
            *key = to.into();
        }
    }

    /// Calls `change` with each text value in the section and all below it, with the key it stands behind.
    pub(crate) fn change_texts(&mut self, change: &mut impl FnMut(&str, &mut BString)) {
        for (key, node) in &mut self.entries {
            match node {
                Node::Section(section) => section.change_texts(change),
                Node::Value(Value::Text(text)) => change(key, text),
                Node::Value(Value::List(list)) => {
                    for value in list {
                        if let Value::Text(text) = value {
                            change(key, text);
                        }
                    }
                }
                Node::Value(_) => {}
            }
        }
    }

    /// The text, as LVM writes it into a metadata area: not indented, without comments.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (key, node) in &self.entries {
            match node {
                Node::Section(section) => {
                    // The text of a group begins with its name: LVM's tools look there without parsing.
                    if !out.is_empty() {
                        out.push(b'\n');
                    }
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b" {\n");
                    section.write(out);
                    out.extend_from_slice(b"}\n");
                }
                Node::Value(value) => {
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b" = ");
                    value.write(out);
                    out.push(b'\n');
                }
            }
        }
    }
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(text) => {
                out.push(b'"');
                for &byte in text.iter() {
                    if matches!(byte, b'"' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(byte);
                }
                out.push(b'"');
            }
            Self::List(list) => {
                out.push(b'[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        out.extend_from_slice(b", ");
                    }
                    value.write(out);
                }
                out.push(b']');
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    line: usize,
    nodes: usize,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, what: &str) -> Result<T, String> {
        let mut message = format!("{what} in line {}", self.line);
        let near: String =
            self.rest.iter().take(20).map(|b| char::from(*b)).take_while(|c| *c != '\n').collect();
        if !near.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(message, ", at {near:?}");
        }
        Err(message)
    }

    fn count(&mut self) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES { self.fail("too many values") } else { Ok(()) }
    }

    /// Skips blanks and comments; the next byte, not taken.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.rest {
                [b'\n', rest @ ..] => (self.rest, self.line) = (rest, self.line + 1),
                [b' ' | b'\t' | b'\r', rest @ ..] => self.rest = rest,
                [b'#', ..] => {
                    let end = self.rest.find_byte(b'\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                // What was left unused of the area may follow as NULs.
                [] | [0, ..] => return None,
                [byte, ..] => return Some(*byte),
            }
        }
    }

    /// Takes the next byte if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn section(&mut self, depth: usize) -> Result<Section, String> {
        if depth > MAX_DEPTH {
            return self.fail("sections nested too deep");
        }
        let mut section = Section::default();
        loop {
            let key = match self.peek() {
                None if depth == 0 => return Ok(section),
                None => return self.fail("the text ends inside a section"),
                Some(b'}') if depth > 0 => {
                    self.rest = &self.rest[1..];
                    return Ok(section);
                }
                Some(_) => self.key()?,
            };
            self.count()?;
            let node = if self.take(b'{') {
                Node::Section(self.section(depth + 1)?)
            } else if self.take(b'=') {
                Node::Value(self.value(0)?)
            } else {
                return self.fail("neither '=' nor '{' after a name");
            };
            section.entries.push((key, node));
        }
    }

    fn key(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Some(b'"' | b'\'')) {
            let text = self.quoted()?;
            return match String::from_utf8(text.into()) {
                Ok(key) => Ok(key),
                Err(_) => self.fail("a name that is not UTF-8"),
            };
        }
        let is_key = |b: &u8| b.is_ascii_alphanumeric() || b"_-.+/@".contains(b);
        let len = self.rest.iter().take_while(|b| is_key(b)).count();
        if len == 0 {
            return self.fail("no name where one is expected");
        }
        let (key, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(key.iter().map(|b| char::from(*b)).collect())
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        self.count()?;
        match self.peek() {
            Some(b'[') if depth == 0 => {
                self.rest = &self.rest[1..];
                let mut list = Vec::new();
                while !self.take(b']') {
                    list.push(self.value(depth + 1)?);
                    if !self.take(b',') && self.peek() != Some(b']') {
                        return self.fail("neither ',' nor ']' in a list");
                    }
                }
                Ok(Value::List(list))
            }
            Some(b'"' | b'\'') => self.quoted().map(Value::Text),
            _ => self.number(),
        }
    }

    /// A text: in double quotes with escapes, in single quotes as it stands.
    fn quoted(&mut self) -> Result<BString, String> {
        let Some((&quote, mut rest)) = self.rest.split_first() else { return self.fail("no text") };
        let mut text = BString::default();
        loop {
            match rest {
                [b'\\', escaped, after @ ..] if quote == b'"' => {
                    text.push(*escaped);
                    rest = after;
                }
                [byte, after @ ..] if *byte == quote => {
                    self.rest = after;
                    return Ok(text);
                }
                [byte, after @ ..] => {
                    self.line += usize::from(*byte == b'\n');
                    text.push(*byte);
                    rest = after;
                }
                [] => return self.fail("a text that does not end"),
            }
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let is_number = |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.');
        let len = self.rest.iter().take(64).take_while(|b| is_number(b)).count();
        let (digits, rest) = self.rest.split_at(len);
        let digits: String = digits.iter().map(|b| char::from(*b)).collect();
        let value = match digits.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) if digits.contains('.') && digits.parse::<f64>().is_ok() => Value::Float(digits),
            Err(_) => return self.fail("not a value"),
        };
        self.rest = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#"# comment
vg {
id = "a\"b\\c"   # another
list = [
"pv0", 0,
"pv1", -5
]
empty = []

inner.x-1 {
ratio = 0.500
raw = 'a\b'
}
}
version = 1
"#;

    #[test]
    fn values_sections_and_comments_are_read() {
        let root = Section::parse(TEXT).unwrap();
        assert_eq!(root.number("version"), Some(1));
        let vg = root.section("vg").unwrap();
        assert_eq!(vg.text("id"), Some("a\"b\\c"));
        let list = [Value::from("pv0"), Value::Integer(0), Value::from("pv1"), Value::Integer(-5)];
        assert_eq!(vg.value("list"), Some(&Value::List(list.into())));
        assert_eq!(vg.value("empty"), Some(&Value::List(Vec::new())));
        let inner = vg.section("inner.x-1").unwrap();
        assert_eq!(inner.value("ratio"), Some(&Value::Float("0.500".into())));
        assert_eq!(inner.text("raw"), Some("a\\b"));
    }

    #[test] // What is written reads as the same.
    fn text_round_trip() {
        let root = Section::parse(TEXT).unwrap();
        let mut out = Vec::new();
        root.write(&mut out);
        assert_eq!(Section::parse(&out).unwrap(), root, "{}", out.as_bstr());
    }

    #[test] // Damage is an error with its line, never a panic or a hang.
    fn damage_names_its_line() {
        for (text, message) in [
            ("a {\nb = 1\n", "the text ends inside a section"),
            ("a = \"x", "a text that does not end in line 1"),
            ("\n\na b", "neither '=' nor '{' after a name in line 3"),
            ("a = [1, 2", "neither ',' nor ']' in a list"),
            ("a = 99999999999999999999", "not a value"),
            ("= 1", "no name where one is expected in line 1, at \"= 1\""),
            ("}", "no name"),
            ("a = [[1]]", "not a value"),
        ] {
            let error = Section::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        let deep = "a {".repeat(100_000);
        assert!(Section::parse(deep.as_bytes()).unwrap_err().contains("nested too deep"));
    }
}
