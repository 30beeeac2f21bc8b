//! A value of the JSON metadata, with its path for messages.

use serde_json::{Map, Value};

/// What is wrong with the metadata.
pub(super) type Result<T> = std::result::Result<T, String>;

/// A value of the metadata and where it is, such as `keyslots/0/area`.
pub(super) struct Node<'a> {
    pub(super) path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    fn child(&self, name: &str, value: &'a Value) -> Self {
        let separator = if self.path.is_empty() { "" } else { "/" };
        Self { path: format!("{}{separator}{}", self.path, name.escape_debug()), value }
    }

    fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| format!("{} is not an object", self.path))
    }

    pub(super) fn find(&self, name: &str) -> Option<Self> {
        self.value.get(name).map(|value| self.child(name, value))
    }

    pub(super) fn get(&self, name: &str) -> Result<Self> {
        self.find(name).ok_or_else(|| {
            let place = if self.path.is_empty() { "the top" } else { &self.path };
            format!("{name} is missing in {place}")
        })
    }

    /// The members of an object whose names are numbers, in ascending order.
    pub(super) fn numbered(&self) -> Result<Vec<(u32, Self)>> {
        let mut members = Vec::new();
        for (name, value) in self.object()? {
            let child = self.child(name, value);
            let number = name.parse().map_err(|_| format!("{}: its name is not a number", child.path))?;
            members.push((number, child));
        }
        members.sort_by_key(|(number, _)| *number);
        Ok(members)
    }

    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| format!("{} is not a text", self.path))
    }

    /// A number that is written as a text, as all are that may need 64 bits.
    pub(super) fn long(&self) -> Result<u64> {
        self.text()?.parse().map_err(|_| format!("{} is not a number", self.path))
    }

    /// A number that is written as one.
    pub(super) fn int(&self) -> Result<u32> {
        let number = self.value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| format!("{} is not a number", self.path))
    }

    /// Bytes in Base64.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        use base64::Engine;
        let text = self.text()?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| format!("{} is not Base64", self.path))
    }

    /// An array of texts.
    pub(super) fn texts(&self) -> Result<Vec<&'a str>> {
        let wrong = || format!("{} is not a list of texts", self.path);
        self.value.as_array().ok_or_else(wrong)?.iter().map(|v| v.as_str().ok_or_else(wrong)).collect()
    }

    /// An array of numbers that are written as texts.
    pub(super) fn numbers(&self) -> Result<Vec<u32>> {
        self.texts()?
            .into_iter()
            .map(|text| text.parse().map_err(|_| format!("{}: not a number", self.path)))
            .collect()
    }
}
