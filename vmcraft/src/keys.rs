//! The keys that a handle was given, and whom it asks for others.

use vmcraft_volume::Key;

/// Asked for the key of a device, by the device's name. The error says why there is none.
pub type KeyPrompt = Box<dyn FnMut(&str) -> Result<Key, String> + Send>;

/// What selects every device.
const ALL: &str = "all";

/// Keys, and what they are for.
#[derive(Default)]
pub(crate) struct Keys {
    given: Vec<(String, Key)>,
    pub(crate) prompt: Option<KeyPrompt>,
}

impl Keys {
    pub(crate) fn add(&mut self, selector: &str, key: Key) {
        self.given.push((selector.to_owned(), key));
    }

    /// The keys for a device with these names and UUID, with what selects them, in the order in which
    /// they were given.
    pub(crate) fn for_device(&self, is_name: impl Fn(&str) -> bool, uuid: &str) -> Vec<(&str, &Key)> {
        let fits = |selector: &str| {
            selector == ALL
                || is_name(selector)
                || (!uuid.is_empty() && plain_uuid(selector) == plain_uuid(uuid))
        };
        let fitting = self.given.iter().filter(|(selector, _)| fits(selector));
        fitting.map(|(selector, key)| (selector.as_str(), key)).collect()
    }
}

/// A UUID in lower case without dashes and braces.
fn plain_uuid(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The first key that fits is not always the first that was given.
    fn keys_are_selected_by_name_uuid_or_all() {
        let mut keys = Keys::default();
        for (selector, text) in [("/dev/sda1", "one"), ("all", "two"), ("0FC63DAF-8483-4772", "three")] {
            keys.add(selector, Key::new(text.into()));
        }
        let selected = |name: &str, uuid: &str| -> Vec<String> {
            let found = keys.for_device(|selector| selector == name, uuid);
            found.into_iter().map(|(selector, _)| selector.to_owned()).collect()
        };
        assert_eq!(selected("/dev/sda1", "x"), ["/dev/sda1", "all"]);
        assert_eq!(selected("/dev/sdb", "0fc63daf-8483-4772"), ["all", "0FC63DAF-8483-4772"]);
        assert_eq!(selected("/dev/sdb", ""), ["all"]);
    }
}
