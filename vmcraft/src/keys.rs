//! The keys that a handle was given, and whom it asks for others.

use std::collections::BTreeSet;

use vmcraft_volume::Key;

/// Asked for the key of a device, by the device's name. The error says why there is none.
pub type KeyPrompt = Box<dyn FnMut(&str) -> Result<Key, String> + Send>;

/// What selects every device.
const ALL: &str = "all";

/// Keys, and what they are for.
#[derive(Default)]
pub(crate) struct Keys {
    given: Vec<Given>,
    /// The devices for which nobody had a key.
    declined: BTreeSet<String>,
    pub(crate) prompt: Option<KeyPrompt>,
    /// Whether key files of guests are not used.
    pub(crate) leaves_files: bool,
}

/// A key that was given.
struct Given {
    selector: String,
    key: Key,
    /// Whether it is known to be for a device, or was said not to be.
    is_settled: bool,
}

impl Keys {
    pub(crate) fn add(&mut self, selector: &str, key: Key) {
        self.given.push(Given { selector: selector.to_owned(), key, is_settled: selector == ALL });
        self.ask_again();
    }

    /// Who is asked for keys that were not given.
    pub(crate) fn set_prompt(&mut self, prompt: Option<KeyPrompt>) {
        self.prompt = prompt;
        self.ask_again();
    }

    /// The keys for a device with these names and UUID, with what selects them, in the order in which
    /// they were given.
    pub(crate) fn for_device(&mut self, is_name: impl Fn(&str) -> bool, uuid: &str) -> Vec<(&str, &Key)> {
        let fitting = self.given.iter_mut().filter(|given| {
            let selector = &given.selector;
            selector == ALL || is_name(selector) || is_uuid(selector, uuid)
        });
        let used = fitting.map(|given| {
            given.is_settled = true;
            (given.selector.as_str(), &given.key)
        });
        used.collect()
    }

    /// The selectors that no device is known for, without those that are for one of which `is_device` knows. Each
    /// is given once.
    pub(crate) fn take_unused(&mut self, is_device: impl Fn(&str) -> bool) -> Vec<String> {
        let mut unused = Vec::new();
        for given in self.given.iter_mut().filter(|given| !given.is_settled) {
            given.is_settled = true;
            if !is_device(&given.selector) {
                unused.push(given.selector.clone());
            }
        }
        unused
    }

    /// Whether nobody had a key for a device.
    pub(crate) fn is_declined(&self, device: &str) -> bool {
        self.declined.contains(device)
    }

    /// Remembers that nobody has a key for a device: it is asked for once.
    pub(crate) fn decline(&mut self, device: &str) {
        self.declined.insert(device.to_owned());
    }

    /// Forgets who had no keys.
    pub(crate) fn ask_again(&mut self) {
        self.declined.clear();
    }
}

/// Whether a selector is this UUID, however it is written.
pub(crate) fn is_uuid(selector: &str, uuid: &str) -> bool {
    !uuid.is_empty() && plain_uuid(selector) == plain_uuid(uuid)
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
        let mut selected = |name: &str, uuid: &str| -> Vec<String> {
            let found = keys.for_device(|selector| selector == name, uuid);
            found.into_iter().map(|(selector, _)| selector.to_owned()).collect()
        };
        assert_eq!(selected("/dev/sda1", "x"), ["/dev/sda1", "all"]);
        assert_eq!(selected("/dev/sdb", "0fc63daf-8483-4772"), ["all", "0FC63DAF-8483-4772"]);
        assert_eq!(selected("/dev/sdb", ""), ["all"]);
        keys.add("/dev/sdx", Key::new("four".into()));
        assert_eq!(keys.take_unused(|_| false), ["/dev/sdx"]);
        assert_eq!(keys.take_unused(|_| false), Vec::<String>::new(), "it is said once");
    }
}
