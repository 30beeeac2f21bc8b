//! The shell's own commands: what works on the shell, or on several calls at once.

use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use bstr::{BString, ByteSlice};
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result, message};
use crate::help;
use crate::shell::script::Script;
use crate::shell::session::Session;

/// A command of the shell's own.
pub(crate) struct LocalCommand {
    /// Its name.
    pub(crate) name: &'static str,
    /// Other names for it.
    pub(crate) aliases: &'static [&'static str],
    /// What follows the name.
    pub(crate) arguments: &'static str,
    /// What it does, in one line without a full stop.
    pub(crate) summary: &'static str,
    /// The rest of its documentation, in Markdown.
    pub(crate) description: &'static str,
    /// Runs it.
    pub(crate) run: fn(&mut Session, &[BString], &mut Script) -> Result<()>,
}

/// The command with this name or alias.
pub(crate) fn find(name: &str) -> Option<&'static LocalCommand> {
    COMMANDS.iter().find(|command| command.name == name || command.aliases.contains(&name))
}

/// All of them, by name.
pub(crate) const COMMANDS: &[LocalCommand] = &[
    LocalCommand {
        name: "echo",
        aliases: &[],
        arguments: "[word...]",
        summary: "print words",
        description: "Prints the words with a space between them.",
        run: echo,
    },
    LocalCommand {
        name: "help",
        aliases: &[],
        arguments: "[command|--list]",
        summary: "list the commands, or show the help of one",
        description: "Without a word it says how to begin. `help --list` (or `-l`, or `all`) lists the commands.",
        run: |session, words, _| {
            let text = match words {
                [] => help::overview(),
                [word] if word == "-l" || word == "--list" || word == "all" => help::list(),
                [word] => help::command(&word.to_str_lossy())?,
                _ => return Err(usage("help")),
            };
            print(session, text.as_bytes())
        },
    },
    LocalCommand {
        name: "lcd",
        aliases: &[],
        arguments: "directory",
        summary: "change the directory of the host",
        description: "File names of the host are relative to it. `!cd` would change the directory of a shell \
            that ends at once.",
        run: |session, words, _| {
            let [directory] = words else { return Err(usage("lcd")) };
            let directory = session.expand_home(directory.clone());
            std::env::set_current_dir(Path::new(OsStr::from_bytes(&directory)))
                .map_err(|e| message(format!("lcd: {directory}: {e}")))
        },
    },
    LocalCommand {
        name: "not",
        aliases: &[],
        arguments: "command [word...]",
        summary: "run a command that has to fail",
        description: "Succeeds if the command fails, and fails if it succeeds.",
        run: |session, words, script| {
            let [name, words @ ..] = words else { return Err(usage("not")) };
            match session.dispatch(name.as_bstr(), words.to_vec(), script) {
                Ok(()) => Err(message(format!("not: {name} did not fail"))),
                Err(error @ (Error::BrokenPipe | Error::Interrupted)) => Err(error),
                Err(error) => {
                    tracing::info!("not: {error}");
                    Ok(())
                }
            }
        },
    },
    LocalCommand {
        name: "quit",
        aliases: &["exit", "q"],
        arguments: "",
        summary: "leave the shell",
        description: "So does `^D` at the prompt.",
        run: |session, _, _| {
            session.wants_exit = true;
            Ok(())
        },
    },
    LocalCommand {
        name: "reopen",
        aliases: &[],
        arguments: "",
        summary: "close the handle and open a new one",
        description: "The new one has no drives.",
        run: |session, words, _| {
            let [] = words else { return Err(usage("reopen")) };
            session.reopen();
            Ok(())
        },
    },
    LocalCommand {
        name: "setenv",
        aliases: &[],
        arguments: "VARIABLE value",
        summary: "set a variable of the environment",
        description: "The programs of the host that the shell starts see it: `!echo $VARIABLE`.",
        run: |session, words, _| {
            let [name, value] = words else { return Err(usage("setenv")) };
            session.set_variable(os(name), Some(os(value)));
            Ok(())
        },
    },
    LocalCommand {
        name: "time",
        aliases: &[],
        arguments: "command [word...]",
        summary: "run a command and print how long it took",
        description: "",
        run: |session, words, script| {
            let [name, words @ ..] = words else { return Err(usage("time")) };
            let started = Instant::now();
            session.dispatch(name.as_bstr(), words.to_vec(), script)?;
            let elapsed = started.elapsed().as_secs_f64();
            print(session, format!("elapsed time: {elapsed:.2} seconds\n").as_bytes())
        },
    },
    LocalCommand {
        name: "unsetenv",
        aliases: &[],
        arguments: "VARIABLE",
        summary: "remove a variable of the environment",
        description: "",
        run: |session, words, _| {
            let [name] = words else { return Err(usage("unsetenv")) };
            session.set_variable(os(name), None);
            Ok(())
        },
    },
];

fn echo(session: &mut Session, words: &[BString], _: &mut Script) -> Result<()> {
    let mut line = bstr::join(" ", words);
    line.push(b'\n');
    print(session, &line)
}

fn print(session: &mut Session, text: &[u8]) -> Result<()> {
    session.output().write_all(text).map_err(|e| Error::output(&e))
}

fn os(word: &BString) -> std::ffi::OsString {
    OsStr::from_bytes(word).to_owned()
}

/// The command was given the wrong words.
fn usage(name: &str) -> Error {
    let synopsis = find(name).map(LocalCommand::synopsis).unwrap_or_default();
    message(format!("{name}: incorrect number of arguments (usage: {synopsis})"))
}

impl LocalCommand {
    /// How it is written.
    pub(crate) fn synopsis(&self) -> String {
        format!("{} {}", self.name, self.arguments).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A call of the same name could never be reached.
    fn no_command_hides_another() {
        let mut names = std::collections::BTreeSet::new();
        for command in COMMANDS {
            for name in std::iter::once(&command.name).chain(command.aliases) {
                assert!(names.insert(*name), "{name} stands twice in the table");
                assert!(vmcraft::call::Call::find(name).is_none(), "{name} is a call too");
            }
        }
    }

    #[test]
    fn commands_are_sorted() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
    }
}
