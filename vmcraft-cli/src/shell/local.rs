//! The shell's own commands: what works on the shell, or on several calls at once.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use bstr::{BString, ByteSlice};
use vmcraft::GuestPath;
use vmcraft::call::Call;
use vmcraft_block::image::Space;

use crate::edit::edit;
use crate::error::{Error, Result, message};
use crate::help;
use crate::prepared::add_blank;
use crate::shell::glob;
use crate::shell::script::Script;
use crate::shell::session::Session;
use crate::size;

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

/// The commands that go before the calls of their names, which take one path.
const COPY_IN: &str = "copy-in";
const COPY_OUT: &str = "copy-out";

/// All of them, by name.
pub(crate) const COMMANDS: &[LocalCommand] = &[
    LocalCommand {
        name: "alloc",
        aliases: &["allocate"],
        arguments: "file size",
        summary: "make a blank disk and add it",
        description: "`file` of the host becomes a raw image of `size`, which takes that much space at once; what \
            it had is lost. `size` has a unit, such as `100M`; without one it is in KiB. Disks are added before \
            `run`.\n\n\
            ```guestfish\nalloc disk.img 100M\n```",
        run: |session, words, _| add_blank_disk(session, "alloc", words, Space::Allocated),
    },
    LocalCommand {
        name: COPY_IN,
        aliases: &[],
        arguments: "local [local...] /remotedir",
        summary: "copy files and directories in from the host",
        description: "Each `local` file or directory of the host is copied, with all that is below it, into the \
            guest's directory `remotedir`, which must exist.\n\n\
            ```guestfish\ncopy-in site.conf html /srv/www\n```",
        run: |session, words, script| {
            let [locals @ .., remote] = words else { return Err(usage(COPY_IN)) };
            if locals.is_empty() {
                return Err(usage(COPY_IN));
            }
            let call = Call::find(COPY_IN).ok_or_else(|| message("copy-in: there is no such call"))?;
            locals.iter().try_for_each(|local| {
                session.call(call, vec![session.expand_home(local.clone()), remote.clone()], script)
            })
        },
    },
    LocalCommand {
        name: COPY_OUT,
        aliases: &[],
        arguments: "remote [remote...] localdir",
        summary: "copy files and directories out to the host",
        description: "Each `remote` path of the guest is copied, with all that is below it, into the host's directory \
            `localdir`, which must exist. Wildcards work with the help of glob.\n\n\
            ```guestfish\ncopy-out /etc /home .\nglob copy-out /home/* .\n```",
        run: |session, words, script| {
            let [remotes @ .., local] = words else { return Err(usage(COPY_OUT)) };
            if remotes.is_empty() {
                return Err(usage(COPY_OUT));
            }
            let call = Call::find(COPY_OUT).ok_or_else(|| message("copy-out: there is no such call"))?;
            remotes
                .iter()
                .try_for_each(|remote| session.call(call, vec![remote.clone(), local.clone()], script))
        },
    },
    LocalCommand {
        name: "echo",
        aliases: &[],
        arguments: "[word...]",
        summary: "print words",
        description: "Prints the words with a space between them.",
        run: echo,
    },
    LocalCommand {
        name: "edit",
        aliases: &[],
        arguments: "path",
        summary: "edit a file in the editor of $EDITOR",
        description: "The file is edited on a copy; vi is the editor where `$EDITOR` is not set, and the commands \
            `vi` and `emacs` use those. A file that is not changed is not written; one that is keeps its owner, \
            permissions and attributes.",
        run: |session, words, _| {
            let editor = session.variable("EDITOR").filter(|editor| !editor.is_empty());
            run_editor(session, "edit", words, editor.unwrap_or_else(|| "vi".into()))
        },
    },
    LocalCommand {
        name: "emacs",
        aliases: &[],
        arguments: "path",
        summary: "edit a file in emacs",
        description: "See `edit`.",
        run: |session, words, _| run_editor(session, "emacs", words, "emacs".into()),
    },
    LocalCommand {
        name: "glob",
        aliases: &[],
        arguments: "command [word...]",
        summary: "run a command for each path that matches",
        description: "Words that begin with `/` may have wildcards: `*`, `?`, `[…]` and `{…,…}`. The command is run \
            once for each path of the guest that matches, and if several words have wildcards, for each combination. \
            A word that matches nothing stands for itself.\n\n\
            Nothing else expands wildcards.\n\n\
            ```guestfish\nglob checksum sha256 /boot/vmlinuz-*\n```",
        run: |session, words, script| {
            let [name, words @ ..] = words else { return Err(usage("glob")) };
            glob::run(session, name, words, script)
        },
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
        name: "less",
        aliases: &[],
        arguments: "path",
        summary: "look at a file in less",
        description: "",
        run: |session, words, script| {
            let [path] = words else { return Err(usage("less")) };
            view(session, path, "less".into(), script)
        },
    },
    LocalCommand {
        name: "man",
        aliases: &["manual"],
        arguments: "",
        summary: "open the manual",
        description: "It is what `vmcraft help --man` prints.",
        run: |session, words, _| {
            let [] = words else { return Err(usage("man")) };
            let manual = help::manual_page()?;
            session.feed("man -l -".into(), &manual)
        },
    },
    LocalCommand {
        name: "more",
        aliases: &["page", "pager"],
        arguments: "path",
        summary: "look at a file in a pager",
        description: "The pager is that of `$PAGER`, else more. `less` uses less.",
        run: |session, words, script| {
            let [path] = words else { return Err(usage("more")) };
            let pager = session.variable("PAGER").filter(|pager| !pager.is_empty());
            let pager =
                pager.map_or_else(|| "more".into(), |pager| BString::from(pager.into_encoded_bytes()));
            view(session, path, pager, script)
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
        description: "What was changed is written to the disks. So does `^D` at the prompt.",
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
        description: "What was changed is written to the disks. The new handle has no drives.",
        run: |session, words, _| {
            let [] = words else { return Err(usage("reopen")) };
            session.reopen()
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
        name: "sparse",
        aliases: &[],
        arguments: "file size",
        summary: "make a blank disk that takes no space yet and add it",
        description: "As `alloc`, but the image takes space only for what is written to it.\n\n\
            ```guestfish\nsparse disk.img 100G\n```",
        run: |session, words, _| add_blank_disk(session, "sparse", words, Space::Sparse),
    },
    LocalCommand {
        name: "supported",
        aliases: &[],
        arguments: "",
        summary: "list the groups of calls, and say which work",
        description: "See `available`.",
        run: |session, words, _| {
            let [] = words else { return Err(usage("supported")) };
            supported(session)
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
    LocalCommand {
        name: "vi",
        aliases: &[],
        arguments: "path",
        summary: "edit a file in vi",
        description: "See `edit`.",
        run: |session, words, _| run_editor(session, "vi", words, "vi".into()),
    },
];

/// Makes a blank disk and adds it.
fn add_blank_disk(session: &mut Session, name: &str, words: &[BString], space: Space) -> Result<()> {
    let [file, size] = words else { return Err(usage(name)) };
    let guest = session.guest();
    if !guest.is_config().unwrap_or(false) {
        return Err(message(format!("{name}: disks are added before the handle is launched")));
    }
    let named = |e: String| message(format!("{name}: {e}"));
    let bytes = size::parse(&size.to_str_lossy()).map_err(named)?;
    let file = file.to_str().map_err(|_| named(format!("{file:?}: the file's name is not UTF-8")))?;
    add_blank(guest, file, bytes, space)
}

fn echo(session: &mut Session, words: &[BString], _: &mut Script) -> Result<()> {
    let mut line = bstr::join(" ", words);
    line.push(b'\n');
    print(session, &line)
}

fn supported(session: &mut Session) -> Result<()> {
    let failed = |e| Error::call("available-all-groups", e);
    let guest = session.guest();
    let groups = guest.available_all_groups().map_err(failed)?;
    let width = groups.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for group in groups {
        let works = guest.feature_available(&[group.as_str().into()]).map_err(failed)?;
        text.push_str(&format!("{group:>width$} {}\n", if works { "yes" } else { "no" }));
    }
    print(session, text.as_bytes())
}

/// Has an editor change a file.
fn run_editor(session: &mut Session, name: &str, words: &[BString], editor: OsString) -> Result<()> {
    let [path] = words else { return Err(usage(name)) };
    session.flush()?;
    let mut command = BString::from(editor.into_encoded_bytes());
    command.extend_from_slice(b" \"$1\"");
    let mut editor = session.host_shell(command.as_bstr())?;
    let change = |copy: &Path| match editor.arg("sh").arg(copy).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(message(format!("the editor failed, and nothing was changed: {status}"))),
        Err(e) => Err(message(format!("cannot run the editor: {e}"))),
    };
    edit(session.guest(), GuestPath::new(path), change, |_| Ok(())).map(drop)
}

/// Shows a file in a pager.
fn view(session: &mut Session, path: &BString, pager: BString, script: &mut Script) -> Result<()> {
    let words = vec![path.clone(), "-".into()];
    session.run_piped("download".into(), words, pager.as_bstr(), script)
}

fn print(session: &mut Session, text: &[u8]) -> Result<()> {
    session.output().write_all(text).map_err(|e| Error::output(&e))
}

fn os(word: &BString) -> OsString {
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
                assert!(
                    [COPY_IN, COPY_OUT].contains(name) || Call::find(name).is_none(),
                    "{name} is a call too"
                );
            }
        }
    }

    #[test]
    fn commands_are_sorted() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
    }
}
