//! What an unknown command may have been meant to be.

use vmcraft::call;

use crate::shell::{local, refused};

/// How many names are suggested.
const MOST: usize = 3;

/// What is said of a name that is no command.
pub(crate) fn unknown(name: &str) -> String {
    if let Some(reason) = refused::reason(name) {
        return format!("{name}: {reason}");
    }
    let near = near(name);
    match near.split_last() {
        None => format!("{name}: unknown command (help lists the commands)"),
        Some((last, [])) => format!("{name}: unknown command; did you mean {last}?"),
        Some((last, others)) => {
            format!("{name}: unknown command; did you mean {} or {last}?", others.join(", "))
        }
    }
}

/// The commands with names like this, nearest first.
fn near(name: &str) -> Vec<&'static str> {
    let own =
        local::COMMANDS.iter().flat_map(|command| std::iter::once(&command.name).chain(command.aliases));
    let calls = call::table().flat_map(|call| std::iter::once(&call.name).chain(call.aliases));
    let mut found: Vec<(f64, &str)> = own
        .chain(calls)
        .map(|known| (likeness(name, known), *known))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().take(MOST).map(|(_, known)| known).collect()
}

/// From 0 to 1. Names that start alike, or that have the same words, are taken for likely.
fn likeness(typed: &str, known: &str) -> f64 {
    let letters = strsim::normalized_damerau_levenshtein(typed, known);
    let mut words: [Vec<&str>; 2] = [typed.split('-').collect(), known.split('-').collect()];
    words.iter_mut().for_each(|words| words.sort_unstable());
    if words[0] == words[1] { 1.0 } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Names that the scripts of the world have wrong.
    fn wrong_names_find_the_right_ones() {
        assert_eq!(near("ecoh")[0], "echo");
        assert_eq!(near("mont")[0], "mount");
        assert_eq!(near("drive-add")[0], "add-drive");
        assert!(near("xyzzyxyzzy").is_empty());
        assert!(unknown("ehco").ends_with("did you mean echo?"), "{}", unknown("ehco"));
    }
}
