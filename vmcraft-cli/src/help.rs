//! `help`: from the tables of commands and calls.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use vmcraft::call::{self, Call};

use crate::error::{Error, Result, message};
use crate::shell::{local, suggest, syntax};

/// What `vmcraft help` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Help {
    /// The command; without it, all are listed
    command: Option<String>,
}

impl Help {
    /// Prints it.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        show(self.command.as_deref().unwrap_or_default())
    }
}

/// Prints the help of a command; of none, the list.
pub(crate) fn show(name: &str) -> Result<ExitCode> {
    let text = if name.is_empty() { list() } else { command(name)? };
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(ExitCode::SUCCESS)
}

/// How to begin.
pub(crate) fn overview() -> String {
    "Add disks with -a or -d on the command line, or with the add command.\n\
     Then run opens them, and list-filesystems shows what is on them; mount them, or let -i do all\n\
     of it. help --list lists the commands, help COMMAND shows one, and vmcraft help --man is the manual.\n"
        .to_owned()
}

/// All commands, with what they do.
pub(crate) fn list() -> String {
    let own = local::COMMANDS.iter().map(|command| (command.name, command.summary.to_owned()));
    let calls = call::table().map(|call| (call.name, lower_first(call.summary)));
    let all: BTreeMap<_, _> = own.chain(calls).collect();
    let mut text = String::from("    Command              Description\n");
    for (name, summary) in all {
        text.push_str(&format!("{name:<20} {summary}\n"));
    }
    text
}

/// The help of one command.
pub(crate) fn command(name: &str) -> Result<String> {
    let normal = syntax::normal_name(name.into());
    if let Some(command) = local::find(&normal) {
        return Ok(page(
            command.name,
            command.aliases,
            command.summary,
            &command.synopsis(),
            command.description,
        ));
    }
    let call = Call::find(&normal).ok_or_else(|| message(suggest::unknown(name)))?;
    Ok(page(call.name, call.aliases, call.summary, &call.synopsis(), call.description))
}

fn page(name: &str, aliases: &[&str], summary: &str, synopsis: &str, description: &str) -> String {
    let mut text = format!("NAME\n    {name} - {}\n\nSYNOPSIS\n     {synopsis}\n", lower_first(summary));
    if !description.is_empty() {
        text.push_str("\nDESCRIPTION\n");
        for line in description.lines() {
            text.push_str(format!("    {line}").trim_end());
            text.push('\n');
        }
    }
    if !aliases.is_empty() {
        text.push_str(&format!("\nYou can use {} as an alias for this command.\n", aliases.join(", ")));
    }
    text
}

/// A summary begins with a capital letter in the source and with a small one behind a dash.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        // An abbreviation stays as it is.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
