//! What the binary is under the names of libguestfs's tools: the same options, the same output.
//!
//! Each tool is one file: a clap definition, and what it prints. What they share is beside them.

mod cat;
pub(crate) mod common;
mod csv;
mod customize;
mod df;
mod diff;
mod edit;
mod fields;
mod filesystems;
mod format;
mod inspector;
mod log;
mod ls;
mod make_fs;
mod mount;
mod resize;
pub(crate) mod size;
pub(crate) mod table;
mod wrappers;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches};

use crate::error::{Result, message};
use crate::report::{self, Program};

/// What a tool is made of.
trait Tool: CommandFactory + FromArgMatches {
    /// Does what the command line says.
    fn run(self) -> Result<ExitCode>;
}

/// A name that the binary answers to, and what it is then.
#[derive(Debug)]
pub(crate) struct Personality {
    /// The name of the tool.
    name: &'static str,
    /// Its definition, without what all tools have.
    command: fn() -> clap::Command,
    /// What runs it, once the command line is read.
    run: fn(&clap::ArgMatches) -> Result<ExitCode>,
}

impl Personality {
    const fn of<T: Tool>(name: &'static str) -> Self {
        Self { name, command: T::command, run: run::<T> }
    }

    /// What clap knows of the tool.
    pub(crate) fn command(&self) -> clap::Command {
        (self.command)()
            .name(self.name)
            .disable_help_flag(true)
            .infer_long_args(true)
            // The tools make no prepared disks.
            .mut_args(|arg| if arg.get_id() == "new" { arg.hide(true) } else { arg })
            .arg(
                clap::Arg::new("help")
                    .long("help")
                    .action(ArgAction::Help)
                    .help("Print help")
                    .help_heading("Messages"),
            )
    }

    /// Runs the tool.
    pub(crate) fn run(&self, matches: &clap::ArgMatches) -> Result<ExitCode> {
        report::set_program(Program { name: self.name, speaker: self.name });
        (self.run)(matches)
    }
}

fn run<T: Tool>(matches: &clap::ArgMatches) -> Result<ExitCode> {
    T::from_arg_matches(matches).map_err(|e| message(e.to_string()))?.run()
}

/// The tools, by the names of the symbolic links that lead to the binary.
pub(crate) const PERSONALITIES: &[Personality] = &[
    Personality::of::<mount::Guestmount>("guestmount"),
    Personality::of::<mount::Guestunmount>("guestunmount"),
    Personality::of::<cat::Cat>("virt-cat"),
    Personality::of::<wrappers::CopyIn>("virt-copy-in"),
    Personality::of::<wrappers::CopyOut>("virt-copy-out"),
    Personality::of::<customize::VirtCustomize>("virt-customize"),
    Personality::of::<df::Df>("virt-df"),
    Personality::of::<diff::Diff>("virt-diff"),
    Personality::of::<edit::Edit>("virt-edit"),
    Personality::of::<filesystems::Filesystems>("virt-filesystems"),
    Personality::of::<format::Format>("virt-format"),
    Personality::of::<inspector::Inspector>("virt-inspector"),
    Personality::of::<log::Log>("virt-log"),
    Personality::of::<ls::Ls>("virt-ls"),
    Personality::of::<customize::VirtSysprep>("virt-sysprep"),
    Personality::of::<make_fs::MakeFs>("virt-make-fs"),
    Personality::of::<wrappers::TarIn>("virt-tar-in"),
    Personality::of::<resize::Resize>("virt-resize"),
    Personality::of::<wrappers::TarOut>("virt-tar-out"),
];

/// The tool that the name is of.
pub(crate) fn find(called: &OsStr) -> Option<&'static Personality> {
    PERSONALITIES.iter().find(|personality| called == personality.name)
}

/// Runs the tool with a command line, whose first word is the name.
pub(crate) fn main(tool: &Personality, arguments: &[OsString]) -> Result<ExitCode> {
    match tool.command().try_get_matches_from(arguments) {
        Ok(matches) => tool.run(&matches),
        Err(error) => Ok(crate::usage(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_all_tools_are_consistent() {
        for tool in PERSONALITIES {
            tool.command().debug_assert();
        }
    }
}
