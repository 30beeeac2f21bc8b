//! Completion: what may stand where the cursor is, by the argument that the table says is there.

use std::fs;
use std::path::Path;

use bstr::{BStr, BString, ByteSlice};
use vmcraft::call::{self, ArgumentKind, Call};
use vmcraft::vfs::{LastLink, Node};
use vmcraft::{Guest, GuestPath};
use vmcraft_fs::FileType;

use crate::output::visible;
use crate::shell::syntax::{self, Partial};
use crate::shell::{devices, local};

/// How many entries of a directory are looked at.
const MOST_ENTRIES: usize = 50_000;

/// What completion may look at.
pub(crate) struct Surroundings<'a> {
    /// The handle; none if it cannot be asked now.
    pub(crate) guest: Option<&'a mut Guest>,
    /// Whether to look into the guest's directories.
    pub(crate) guest_paths: bool,
}

/// Something that may stand at the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// How a list of them shows it.
    pub(crate) shown: String,
    /// What takes the place of the word that was begun.
    pub(crate) replacement: String,
}

impl rustyline::completion::Candidate for Candidate {
    fn display(&self) -> &str {
        &self.shown
    }
    fn replacement(&self) -> &str {
        &self.replacement
    }
}

/// A word that would fit, and how it goes on.
struct Found {
    word: BString,
    /// What is shown: the last part of a path.
    shown: BString,
    /// Whether the word ends here; a directory and `name:` do not.
    is_whole: bool,
}

impl Found {
    fn whole(word: impl Into<BString>) -> Self {
        let word = word.into();
        Self { shown: word.clone(), word, is_whole: true }
    }
}

/// What may stand at the end of `line`: where the word begins, and what may take its place.
pub(crate) fn complete(line: &str, around: &mut Surroundings<'_>) -> (usize, Vec<Candidate>) {
    let Some(partial) = syntax::partial(line.as_bytes()) else { return (line.len(), Vec::new()) };
    let begun = partial.text.as_bstr();
    let mut found = match &partial.words[..] {
        _ if partial.is_host => host_files(begun, false),
        [] => commands(begun),
        [name, words @ ..] => arguments(name.as_bstr(), words, begun, around),
    };
    found.sort_by(|a, b| a.word.cmp(&b.word));
    found.dedup_by(|a, b| a.word == b.word);
    let start = partial.start;
    (start, candidates(&partial, &found))
}

/// Puts quotes where they are needed: around all words or none, so that what they have in common
/// can be inserted.
fn candidates(partial: &Partial, found: &[Found]) -> Vec<Candidate> {
    let quoted =
        partial.is_quoted || found.iter().any(|found| syntax::quote(found.word.as_bstr()) != found.word);
    let candidate = |found: &Found| {
        let mut replacement =
            if quoted { syntax::double_quote(found.word.as_bstr()) } else { found.word.to_string() };
        if found.is_whole {
            replacement.push(' ');
        } else if quoted {
            // The closing quote comes with the rest of the word.
            replacement.pop();
        }
        Candidate { shown: visible(&found.shown), replacement }
    };
    found.iter().map(candidate).collect()
}

fn commands(begun: &BStr) -> Vec<Found> {
    let own =
        local::COMMANDS.iter().flat_map(|command| std::iter::once(&command.name).chain(command.aliases));
    let calls = call::table().flat_map(|call| std::iter::once(&call.name).chain(call.aliases));
    let begun = syntax::normal_name(begun);
    own.chain(calls).filter(|name| name.starts_with(&begun)).map(|name| Found::whole(*name)).collect()
}

fn arguments(name: &BStr, words: &[BString], begun: &BStr, around: &mut Surroundings<'_>) -> Vec<Found> {
    let normal = syntax::normal_name(name);
    match normal.as_str() {
        // What follows these is a command of its own.
        "glob" | "not" | "time" => {
            return match words {
                [] => commands(begun),
                [name, words @ ..] => arguments(name.as_bstr(), words, begun, around),
            };
        }
        "help" => return if words.is_empty() { commands(begun) } else { Vec::new() },
        "lcd" => return host_files(begun, true),
        "more" | "less" | "edit" | "vi" | "emacs" => return guest_paths(begun, around),
        "copy-in" if begun.starts_with(b"/") && !words.is_empty() => {
            let mut found = guest_paths(begun, around);
            found.extend(host_files(begun, false));
            return found;
        }
        "copy-in" => return host_files(begun, false),
        "copy-out" if begun.starts_with(b"/") && !words.is_empty() => {
            let mut found = guest_paths(begun, around);
            found.extend(host_files(begun, true));
            return found;
        }
        "copy-out" if !words.is_empty() => return host_files(begun, true),
        _ => {}
    }
    let Some(call) = Call::find(&normal) else { return Vec::new() };
    match call.required().nth(words.len()).and_then(|at| call.arguments.get(at)) {
        Some(argument) => argument_values(argument.kind, argument.name, begun, around),
        _ => optional_arguments(call, words, begun, around),
    }
}

fn argument_values(
    kind: ArgumentKind,
    name: &str,
    begun: &BStr,
    around: &mut Surroundings<'_>,
) -> Vec<Found> {
    match kind {
        ArgumentKind::Path => guest_paths(begun, around),
        ArgumentKind::Device | ArgumentKind::Mountable => device_names(begun, around),
        ArgumentKind::DeviceOrPath if begun.starts_with(b"/dev/") => device_names(begun, around),
        ArgumentKind::DeviceOrPath => guest_paths(begun, around),
        ArgumentKind::FileIn | ArgumentKind::FileOut => host_files(begun, false),
        ArgumentKind::Bool => fixed(&["true", "false"], begun),
        // libguestfs's names for files of the host that are text in the table.
        ArgumentKind::String if ["filename", "localdir", "dom"].contains(&name) => host_files(begun, false),
        _ => Vec::new(),
    }
}

/// `name:`, and after it the value.
fn optional_arguments(
    call: &Call,
    words: &[BString],
    begun: &BStr,
    around: &mut Surroundings<'_>,
) -> Vec<Found> {
    let optional = call.arguments.iter().filter(|argument| argument.optional);
    if let Some((name, value)) = begun.split_once_str(":") {
        let Some(argument) = optional.into_iter().find(|argument| argument.name.as_bytes() == name) else {
            return Vec::new();
        };
        let mut found = argument_values(argument.kind, argument.name, value.as_bstr(), around);
        for found in &mut found {
            let value = std::mem::take(&mut found.word);
            found.word = bstr::join(":", [name, &value]).into();
        }
        return found;
    }
    let given = |name: &str| words.iter().any(|word| word.starts_with(format!("{name}:").as_bytes()));
    optional
        .filter(|argument| argument.name.as_bytes().starts_with(begun) && !given(argument.name))
        .map(|argument| {
            let word = BString::from(format!("{}:", argument.name));
            Found { shown: word.clone(), word, is_whole: false }
        })
        .collect()
}

fn fixed(values: &[&str], begun: &BStr) -> Vec<Found> {
    let fitting = values.iter().filter(|value| value.as_bytes().starts_with(begun));
    fitting.map(|value| Found::whole(*value)).collect()
}

fn device_names(begun: &BStr, around: &mut Surroundings<'_>) -> Vec<Found> {
    let Some(guest) = &mut around.guest else { return Vec::new() };
    let names = devices::names(guest);
    names.into_iter().filter(|name| name.starts_with(begun)).map(Found::whole).collect()
}

/// Splits a path that was begun into the directory, with its slash, and the begun name.
fn split_path(begun: &BStr) -> (&BStr, &BStr) {
    let (directory, name) = begun.split_at(begun.rfind_byte(b'/').map_or(0, |slash| slash + 1));
    (directory.as_bstr(), name.as_bstr())
}

fn guest_paths(begun: &BStr, around: &mut Surroundings<'_>) -> Vec<Found> {
    let (directory, name) = split_path(begun);
    let Some(guest) = around.guest.as_deref().filter(|_| around.guest_paths) else { return Vec::new() };
    let vfs = guest.vfs();
    let Ok(dir) = vfs.resolve(GuestPath::new(directory), LastLink::Follow) else { return Vec::new() };
    let Ok(entries) = dir.entries() else { return Vec::new() };
    let names = entries.iter().take(MOST_ENTRIES).map(|(name, ..)| name.as_bstr());
    let is_dir = |child: &BStr| {
        let path = bstr::concat([directory.as_bytes(), child.as_bytes()]);
        let node: Option<Node> = vfs.resolve(GuestPath::new(&path), LastLink::Follow).ok();
        node.and_then(|node| node.metadata().ok())
            .is_some_and(|metadata| metadata.file_type == FileType::Directory)
    };
    matching(directory, name, names, is_dir)
}

fn host_files(begun: &BStr, only_directories: bool) -> Vec<Found> {
    let (directory, name) = split_path(begun);
    let Ok(read_from) = directory.to_path() else { return Vec::new() };
    let read_from = if read_from.as_os_str().is_empty() { Path::new(".") } else { read_from };
    let Ok(entries) = fs::read_dir(read_from) else { return Vec::new() };
    let names: Vec<BString> = entries
        .take(MOST_ENTRIES)
        .flatten()
        .map(|entry| BString::from(entry.file_name().into_encoded_bytes()))
        .collect();
    let is_dir = |child: &BStr| child.to_path().is_ok_and(|child| read_from.join(child).is_dir());
    let found = matching(directory, name, names.iter().map(|name| name.as_bstr()), is_dir);
    found.into_iter().filter(|found| !only_directories || !found.is_whole).collect()
}

/// The names that begin as `begun`; without regard to case if there is none otherwise.
fn matching<'a>(
    directory: &BStr,
    begun: &BStr,
    names: impl Iterator<Item = &'a BStr>,
    is_dir: impl Fn(&BStr) -> bool,
) -> Vec<Found> {
    let names: Vec<_> = names.collect();
    let starts = |name: &&&BStr| name.starts_with(begun);
    let starts_in_any_case =
        |name: &&&BStr| name.get(..begun.len()).is_some_and(|start| start.eq_ignore_ascii_case(begun));
    let mut fitting: Vec<_> = names.iter().filter(starts).collect();
    if fitting.is_empty() {
        fitting = names.iter().filter(starts_in_any_case).collect();
    }
    fitting
        .into_iter()
        .map(|name| {
            let mut shown = BString::from(name.as_bytes());
            let is_whole = !is_dir(name);
            if !is_whole {
                shown.push(b'/');
            }
            Found { word: bstr::concat([directory.as_bytes(), &shown]).into(), shown, is_whole }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the line may become.
    fn completed(line: &str) -> Vec<String> {
        let (start, candidates) = complete(line, &mut Surroundings { guest: None, guest_paths: true });
        candidates.iter().map(|found| format!("{}{}", &line[..start], found.replacement)).collect()
    }

    #[test]
    fn the_first_word_is_a_command() {
        assert_eq!(completed("  -inspect-o"), ["  -inspect-os "]);
        assert_eq!(completed("time glob reop"), ["time glob reopen "]);
        assert_eq!(completed("help reop"), ["help reopen "]);
        assert_eq!(completed("# ech"), Vec::<String>::new());
        assert_eq!(completed("echo a | ech"), Vec::<String>::new());
    }

    #[test]
    fn optional_arguments_are_offered_once() {
        let line = "add-drive x ";
        assert!(completed(line).contains(&format!("{line}readonly:")), "{:?}", completed(line));
        let line = "add-drive x readonly:true ";
        assert!(!completed(line).contains(&format!("{line}readonly:")));
        assert!(completed(line).contains(&format!("{line}format:")));
        assert_eq!(completed("add-drive x readonly:t"), ["add-drive x readonly:true "]);
    }

    #[test] // A name with a space is completed to a word that the shell reads back.
    fn host_files_are_quoted_where_they_must_be() {
        let dir = testkit::tempdir();
        let path = dir.path().to_str().unwrap().to_owned();
        fs::write(dir.path().join("a b"), "").unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        assert_eq!(completed(&format!("add {path}/a")), [format!("add \"{path}/a b\" ")]);
        assert_eq!(completed(&format!("add \"{path}/a ")), [format!("add \"{path}/a b\" ")]);
        assert_eq!(completed(&format!("add {path}/S")), [format!("add {path}/sub/")]);
        assert_eq!(completed(&format!("add \"{path}/s")), [format!("add \"{path}/sub/")]);
        assert_eq!(completed(&format!("lcd {path}/")), [format!("lcd {path}/sub/")]);
        fs::write(dir.path().join("\u{1b}x"), "").unwrap();
        assert_eq!(completed(&format!("add {path}/\"")), Vec::<String>::new());
        let (_, found) =
            complete(&format!("add {path}/"), &mut Surroundings { guest: None, guest_paths: true });
        assert!(found.iter().any(|found| found.shown == "\\x1bx"), "{found:?}");
    }
}
