//! The `vmcraft` command: a shell, one-shots and tools for the disks of virtual machines.
//!
//! It parses, calls the library and prints; all that it knows of disks is in the library. Under the
//! name of another tool, by a symbolic link, it is that tool.
#![deny(unsafe_code)]

mod commands;
mod edit;
mod error;
mod help;
mod input;
mod interrupt;
mod keys;
mod logging;
mod new_volume;
mod open;
mod options;
mod output;
mod prepared;
mod report;
mod shell;
mod size;
mod terminal;
mod tools;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::commands::Subcommand;
use crate::error::{Error, Result};
use crate::options::ShellOptions;
use crate::report::Program;

/// Work on the guest inside a virtual machine's disks: no root, no kernel module, no appliance
///
/// Without a sub-command it is a shell: it runs the commands on its command line, else those of the
/// file given with -f or of standard input, else it asks for them at a prompt. `help` lists them.
///
/// What the commands change is written to the disks at the end, all of it together, and by `sync` and
/// `umount-all` before. If a command fails, what was changed since then is not written.
#[derive(Debug, Parser)]
#[command(
    name = "vmcraft",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_flag = true,
    disable_help_subcommand = true,
    infer_long_args = true,
    subcommand_help_heading = "Sub-commands",
    subcommand_value_name = "SUBCOMMAND",
    after_help = "Examples:\n  \
        vmcraft -a disk.qcow2 -i                      a shell in the guest on the disk\n  \
        vmcraft -a disk.qcow2 -i cat /etc/hostname    one command\n  \
        vmcraft -a disk.qcow2 -i --run 'ls / | sort'  one command line of the shell\n  \
        vmcraft -a disk.qcow2 run : list-filesystems  several commands"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,

    #[command(flatten)]
    shell: ShellOptions,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help, help_heading = "Messages")]
    help: Option<bool>,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    match run(called, &arguments) {
        Ok(code) => code,
        Err(error) => {
            match &error {
                Error::BrokenPipe | Error::Reported => {}
                error => report::error(None, error),
            }
            error.exit_code()
        }
    }
}

/// Runs the program under the name that it was called by.
fn run(called: &OsStr, arguments: &[OsString]) -> Result<ExitCode> {
    if let Some(tool) = tools::find(called) {
        return tools::main(tool, arguments);
    }
    let is_guestfish = called == "guestfish";
    if is_guestfish {
        report::set_program(Program { name: "guestfish", speaker: "libguestfs" });
    }
    let mut command = command();
    if is_guestfish {
        // guestfish has no sub-commands: each word is a command of the shell.
        command = shell_command().name("guestfish");
    }
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Ok(usage(&error)),
    };
    if is_guestfish {
        return shell::run(
            &ShellOptions::from_arg_matches(&matches).map_err(|e| error::message(e.to_string()))?,
        );
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|e| error::message(e.to_string()))?;
    match &cli.subcommand {
        Some(subcommand) => subcommand.run(),
        None => shell::run(&cli.shell),
    }
}

/// The whole command line.
fn command() -> clap::Command {
    /// `--help` and `-h` for sub-commands: clap hands down to them that the shell has no `-h` of
    /// clap's.
    fn with_help(command: clap::Command) -> clap::Command {
        let help =
            clap::Arg::new("help").short('h').long("help").action(clap::ArgAction::Help).help("Print help");
        command.mut_subcommands(|subcommand| with_help(subcommand).disable_help_flag(true).arg(help.clone()))
    }
    with_help(Cli::command())
}

/// The options of the shell alone.
fn shell_command() -> clap::Command {
    #[derive(Parser)]
    #[command(version, disable_help_flag = true, infer_long_args = true)]
    struct Shell {
        #[command(flatten)]
        shell: ShellOptions,
        /// Print help
        #[arg(long, action = clap::ArgAction::Help, help_heading = "Messages")]
        help: Option<bool>,
    }
    Shell::command()
}

/// Prints what clap has to say: help or the version, or what is wrong with the command line, which
/// ends with status 1 as guestfish has it.
fn usage(error: &clap::Error) -> ExitCode {
    // There is nobody to tell if the terminal is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    #[test] // `vmcraft mount --help` is help, not an unexpected argument.
    fn every_subcommand_has_help() {
        fn check(command: &clap::Command, path: &[&str]) {
            for subcommand in command.get_subcommands() {
                let path = [path, &[subcommand.get_name()]].concat();
                let error =
                    super::command().try_get_matches_from(path.iter().chain(&["--help"])).unwrap_err();
                assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{path:?}: {error}");
                check(subcommand, &path);
            }
        }
        check(&super::command(), &["vmcraft"]);
    }

    use super::*;

    #[test]
    fn options_are_consistent() {
        Cli::command().debug_assert();
        shell_command().debug_assert();
    }

    #[test] // `mount` is a sub-command only where no option or command stands before it.
    fn words_after_options_are_commands_of_the_shell() {
        let line = ["vmcraft", "-a", "x", "completions", "a", ":", "completions"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(cli.subcommand.is_none());
        assert_eq!(cli.shell.commands, ["completions", "a", ":", "completions"]);
        let cli = Cli::try_parse_from(["vmcraft", "run", ":", "completions"]).unwrap();
        assert_eq!(cli.shell.commands, ["run", ":", "completions"]);
    }
}
