//! `help`: from the tables of commands and calls.

mod manual;
mod markdown;
mod reference;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use vmcraft::call::{self, Call};

use crate::error::{Error, Result, message};
use crate::shell::local::{self, LocalCommand};
use crate::shell::{suggest, syntax};

/// What `vmcraft help` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Help {
    /// A command of the shell; without it, all are listed
    #[arg(conflicts_with = "form")]
    command: Option<String>,

    /// Print the manual, to be read with `man -l -`
    #[arg(long, group = "form")]
    man: bool,

    /// Print the reference of all commands in Markdown
    #[arg(long, group = "form")]
    reference: bool,
}

impl Help {
    /// Prints it.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if self.man {
            write(&manual::roff()?)
        } else if self.reference {
            write(reference::markdown().as_bytes())
        } else {
            show(self.command.as_deref().unwrap_or_default())
        }
    }
}

/// Prints the help of a command; of none, the list.
pub(crate) fn show(name: &str) -> Result<ExitCode> {
    write(if name.is_empty() { list() } else { command(name)? }.as_bytes())
}

fn write(text: &[u8]) -> Result<ExitCode> {
    let mut out = io::stdout();
    out.write_all(text).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(ExitCode::SUCCESS)
}

/// The manual, for `man -l -`.
pub(crate) fn manual_page() -> Result<Vec<u8>> {
    manual::roff()
}

/// How to begin.
pub(crate) fn overview() -> String {
    "Add disks with -a or -d on the command line, or with the add command. Then run opens them,\n\
     list-filesystems shows what is on them, and mount mounts it; -i does all of that at once.\n\n\
     help --list lists the commands, help COMMAND shows one, man opens the manual.\n"
        .to_owned()
}

/// All commands, with what they do.
pub(crate) fn list() -> String {
    let all: BTreeMap<_, _> = entries().map(|entry| (entry.name, entry.summary())).collect();
    let mut text = String::from("    Command              Description\n");
    for (name, summary) in all {
        text.push_str(&format!("{name:<20} {summary}\n"));
    }
    text
}

/// What the help of a command is made of, be it the shell's own or a call.
#[derive(Clone)]
struct Entry {
    name: &'static str,
    aliases: &'static [&'static str],
    area: &'static str,
    summary: &'static str,
    synopsis: String,
    description: &'static str,
    call: Option<&'static Call>,
}

impl Entry {
    fn of_call(call: &'static Call) -> Self {
        Self {
            name: call.name,
            aliases: call.aliases,
            area: call.area,
            summary: call.summary,
            synopsis: call.synopsis(),
            description: call.description,
            call: Some(call),
        }
    }

    fn of_local(command: &'static LocalCommand) -> Self {
        Self {
            name: command.name,
            aliases: command.aliases,
            area: "shell",
            summary: command.summary,
            synopsis: command.synopsis(),
            description: command.description,
            call: None,
        }
    }

    /// It begins with a capital letter in the source, and with a small one behind a dash.
    fn summary(&self) -> String {
        let mut letters = self.summary.chars();
        match (letters.next(), letters.clone().next()) {
            // An abbreviation stays as it is.
            (Some(first), Some(second)) if !second.is_uppercase() => {
                first.to_lowercase().chain(letters).collect()
            }
            _ => self.summary.to_owned(),
        }
    }

    /// What has to be said besides the description.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(instead) = self.call.and_then(|call| call.deprecated) {
            notes.push(format!("This is kept for old scripts. Use `{instead}` instead."));
        }
        if !self.aliases.is_empty() {
            let aliases: Vec<_> = self.aliases.iter().map(|alias| format!("`{alias}`")).collect();
            notes.push(format!("It can also be called {}.", aliases.join(" or ")));
        }
        notes
    }
}

/// All commands: calls by area in the order of the manual, then the shell's own. A command of the
/// shell's own stands for the call that it goes before.
fn entries() -> impl Iterator<Item = Entry> {
    let calls = call::table().filter(|call| local::find(call.name).is_none()).map(Entry::of_call);
    calls.chain(local::COMMANDS.iter().map(Entry::of_local))
}

/// The help of one command.
pub(crate) fn command(name: &str) -> Result<String> {
    let normal = syntax::normal_name(name.into());
    let entry = match local::find(&normal) {
        Some(command) => Entry::of_local(command),
        None => Entry::of_call(Call::find(&normal).ok_or_else(|| message(suggest::unknown(name)))?),
    };
    let mut text =
        format!("NAME\n    {} - {}\n\nSYNOPSIS\n    {}\n", entry.name, entry.summary(), entry.synopsis);
    let mut description = entry.description.to_owned();
    for note in entry.notes() {
        description.push_str(&format!("\n\n{note}"));
    }
    if !description.trim().is_empty() {
        text.push_str("\nDESCRIPTION\n");
        text.push_str(&markdown::plain(&description));
    }
    let cli = crate::command();
    let mut names = std::iter::once(&entry.name).chain(entry.aliases);
    if let Some(name) = names.find(|name| **name != "help" && cli.find_subcommand(name).is_some()) {
        text.push_str(&format!(
            "\nThere is a sub-command of the same name besides: see vmcraft {name} --help.\n"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_help() {
        for entry in entries() {
            let text = command(entry.name).unwrap();
            assert!(text.contains(&format!("{} - {}", entry.name, entry.summary())), "{text}");
            for alias in entry.aliases {
                let name = format!("NAME\n    {} - ", entry.name);
                assert!(command(alias).unwrap().starts_with(&name), "{alias}");
            }
        }
        assert!(list().contains("add-drive            add a disk"), "{}", list());
    }

    #[test]
    fn unknown_commands_have_no_help() {
        assert!(command("nosuch").unwrap_err().to_string().contains("unknown command"));
    }

    #[test] // The documentation of a release is made from it.
    fn the_manual_and_the_reference_name_every_command() {
        let manual = String::from_utf8(manual::roff().unwrap()).unwrap().replace('\\', "");
        let reference = reference::markdown();
        for entry in entries() {
            assert!(manual.contains(&entry.synopsis), "{}", entry.synopsis);
            assert!(reference.contains(&format!("### {}\n", entry.name)), "{}", entry.name);
        }
    }
}
