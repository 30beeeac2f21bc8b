//! The reference manual in Markdown: a page of all calls, and of the shell's own commands.

use vmcraft::call::{Argument, ArgumentKind, Call, Print, ResultKind};

use super::{Entry, entries};

/// The page.
pub(super) fn markdown() -> String {
    let mut page = String::from(
        "# Reference of the calls\n\n\
         This page is generated from the call table; `cargo xtask docs` writes it. Each call is a method of `Guest`, \
         and a command of the shell; the last chapter has the commands that are the shell's own.\n\n\
         Arguments in brackets are optional, and written `name:value`.\n\n",
    );
    let entries: Vec<_> = entries().collect();
    let mut areas: Vec<&str> = Vec::new();
    for entry in &entries {
        if !areas.contains(&entry.area) {
            areas.push(entry.area);
        }
    }
    for area in &areas {
        let names: Vec<_> = entries
            .iter()
            .filter(|entry| entry.area == *area)
            .map(|entry| format!("[{0}](#{0})", entry.name))
            .collect();
        page.push_str(&format!("- **{}**: {}\n", title(area), names.join(", ")));
    }
    for area in areas {
        page.push_str(&format!("\n## {}\n", title(area)));
        for entry in entries.iter().filter(|entry| entry.area == area) {
            push_entry(&mut page, entry);
        }
    }
    page
}

fn title(area: &str) -> String {
    let mut letters = area.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn push_entry(page: &mut String, entry: &Entry) {
    page.push_str(&format!("\n### {}\n\n    {}\n\n{}.\n", entry.name, entry.synopsis, entry.summary));
    if !entry.description.is_empty() {
        page.push_str(&format!("\n{}\n", entry.description.trim()));
    }
    let Some(call) = entry.call else { return push_notes(page, entry) };
    if !call.arguments.is_empty() {
        page.push('\n');
        for argument in call.arguments {
            page.push_str(&format!("- `{}`: {}\n", argument.name, kind(argument)));
        }
    }
    if let Some(result) = result(call) {
        page.push_str(&format!("\nReturns {result}.\n"));
    }
    push_notes(page, entry);
}

fn push_notes(page: &mut String, entry: &Entry) {
    for note in entry.notes() {
        page.push_str(&format!("\n{note}\n"));
    }
}

fn kind(argument: &Argument) -> String {
    let kind = match argument.kind {
        ArgumentKind::String => "text",
        ArgumentKind::List => "a list of texts: one word, split at white space outside `'…'`",
        ArgumentKind::Buffer => "bytes",
        ArgumentKind::Bool => "`true` or `false`",
        ArgumentKind::Int => "a number of 32 bits",
        ArgumentKind::Int64 => "a number of 64 bits",
        ArgumentKind::Path => "a path inside the guest",
        ArgumentKind::Device => "a device",
        ArgumentKind::Mountable => "a device, or a subvolume as `btrfsvol:DEVICE/NAME`",
        ArgumentKind::DeviceOrPath => "a device, or a path inside the guest",
        ArgumentKind::Key => "a passphrase or key: it is asked for, and does not stand in the command",
        ArgumentKind::FileIn => "a file of the host that is read; `-` is standard input",
        ArgumentKind::FileOut => "a file of the host that is written; `-` is standard output",
    };
    format!("{kind}{}", if argument.optional { " (optional)" } else { "" })
}

fn result(call: &Call) -> Option<String> {
    let kind = match call.result {
        ResultKind::Unit => return None,
        ResultKind::Bool => "a truth value".to_owned(),
        ResultKind::Int => "a number".to_owned(),
        ResultKind::String => "text".to_owned(),
        ResultKind::Buffer => "bytes".to_owned(),
        ResultKind::List => "a list of texts".to_owned(),
        ResultKind::Hash => "pairs of texts".to_owned(),
        ResultKind::Struct(name) => format!("a record `{name}`"),
        ResultKind::Structs(name) => format!("a list of records `{name}`"),
    };
    Some(match call.print {
        Print::Default => kind,
        Print::Octal => format!("{kind}, printed in octal"),
        Print::Hex => format!("{kind}, printed in hexadecimal"),
    })
}
