//! The documentation of calls: each has an example, and examples are calls as the shell takes them.

use bstr::BString;
use vmcraft::call::{Call, table};

/// The words of a line, with single and double quotes around those that have spaces.
fn words(line: &str) -> Vec<BString> {
    let mut words: Vec<BString> = Vec::new();
    let mut quote = None;
    let mut is_open = false;
    for letter in line.chars() {
        match (letter, quote) {
            ('"' | '\'', None) => {
                (quote, is_open) = (Some(letter), {
                    words.push("".into());
                    true
                })
            }
            (_, Some(end)) if letter == end => quote = None,
            (' ', None) => is_open = false,
            _ => {
                if !is_open {
                    words.push("".into());
                    is_open = true;
                }
                words.last_mut().unwrap().extend(letter.to_string().bytes());
            }
        }
    }
    words
}

#[test] // A misspelt example would be the first thing that a user tries.
fn examples_are_calls() {
    let mut missing = Vec::new();
    for call in table() {
        let Some((_, rest)) = call.description.split_once("```guestfish\n") else {
            missing.push(call.name);
            continue;
        };
        let (example, _) = rest.split_once("```").expect("an end of the example");
        let mut has_call = false;
        for line in example.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let line = line.split_once(" | ").map_or(line, |(line, _)| line);
            let words = words(line.trim_start_matches('-'));
            let name = words[0].to_string();
            let shown = Call::find(&name).unwrap_or_else(|| panic!("{}: {line}: no such call", call.name));
            shown.bind_words(&words[1..]).unwrap_or_else(|e| panic!("{}: {line}: {e}", call.name));
            has_call |= shown.name == call.name;
        }
        assert!(has_call, "{}: its example does not call it", call.name);
    }
    assert!(missing.is_empty(), "without an example: {missing:?}");
}
