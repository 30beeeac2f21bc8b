//! `vmcraft customize`: sets up a guest without running any of its programs, under virt-customize's options.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Instant;

use bstr::ByteSlice;
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use vmcraft::Guest;
use vmcraft::customize::{OPTIONS, Operation, Options, Said};

use crate::error::{Result, message};
use crate::open::report_warnings;
use crate::options::GuestOptions;
use crate::output::visible;
use crate::report;
use crate::tools::common::ToolOptions;

/// Which guest is customised, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Customize {
    #[command(flatten)]
    pub(crate) changing: Changing,

    #[command(flatten)]
    pub(crate) operations: Operations,
}

impl Customize {
    /// Customises the guest.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let operations = self.operations.parse()?;
        self.changing.run(|guest, options, say| guest.customize(&operations, options, say))
    }
}

/// What `customize` and `sysprep` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Changing {
    #[command(flatten)]
    tool: ToolOptions,

    /// Do everything, but write nothing to the disks
    #[arg(short = 'n', long, alias = "dryrun", help_heading = "Disks")]
    dry_run: bool,

    /// Which operating system, if the disks hold several: its root device
    #[arg(long, value_name = "DEVICE", help_heading = "Disks")]
    root: Option<String>,

    /// Do not say what is done
    #[arg(short, long, help_heading = "Messages")]
    quiet: bool,

    /// Use colours although standard output is not a terminal
    #[arg(long, visible_alias = "colours", aliases = ["color", "colour"], help_heading = "Messages")]
    colors: bool,

    /// Leave new files of a guest with SELinux without labels
    #[arg(long, help_heading = "Disks")]
    no_selinux_relabel: bool,

    /// Taken for virt-customize's sake: no appliance is started
    #[arg(short, long, value_name = "MB", hide = true)]
    memsize: Option<u64>,

    /// Taken for virt-customize's sake: no appliance is started
    #[arg(long, value_name = "N", hide = true)]
    smp: Option<u64>,

    /// Taken for virt-customize's sake: there is no appliance with a network
    #[arg(long, hide = true)]
    network: bool,

    /// Taken for virt-customize's sake: there is no appliance with a network
    #[arg(long, hide = true)]
    no_network: bool,

    /// Taken for virt-customize's sake: there is no appliance that a disk could be attached to
    #[arg(long, value_name = "ISO", hide = true)]
    attach: Vec<OsString>,

    /// Taken for virt-customize's sake
    #[arg(long, value_name = "FORMAT", hide = true)]
    attach_format: Vec<String>,

    /// Taken for virt-customize's sake
    #[arg(long, hide = true)]
    debug_gc: bool,

    /// Taken for virt-customize's sake: messages are not wrapped
    #[arg(long, hide = true)]
    wrap: bool,
}

impl Changing {
    /// Opens the guest, changes it, and writes what was changed to the disks: all of it, or nothing.
    pub(crate) fn run(
        &self,
        change: impl FnOnce(&mut Guest, &Options, &mut dyn FnMut(Said<'_>)) -> vmcraft::Result<()>,
    ) -> Result<ExitCode> {
        if self.tool.drives.0.is_empty() {
            return Err(message("no disk was given: add -a IMAGE or -d DOMAIN"));
        }
        let mut log = Log { started: Instant::now(), quiet: self.quiet, colours: self.colours() };
        log.step("Examining the guest ...");
        let options = GuestOptions {
            inspector: true,
            ro: false,
            rw: true,
            dry_run: self.dry_run,
            needs_system: true,
            root: self.root.clone(),
            ..self.tool.guest_options()
        };
        options.refuse_snapshots()?;
        let mut guest = options.guest()?;
        options.launch(&mut guest)?;
        let changes = Options {
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(Into::into),
            no_selinux_labels: self.no_selinux_relabel,
        };
        let changed = change(&mut guest, &changes, &mut |said| log.say(said));
        report_warnings(&mut guest);
        changed?;
        log.step("Finishing off");
        guest.commit()?;
        report_warnings(&mut guest);
        if self.dry_run {
            report::note(&"dry run: nothing was written to the disks");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn colours(&self) -> bool {
        self.colors || std::io::stdout().is_terminal()
    }
}

/// What is said on standard output: each step with the seconds since the start.
struct Log {
    started: Instant,
    quiet: bool,
    colours: bool,
}

impl Log {
    fn say(&mut self, said: Said<'_>) {
        match said {
            Said::Step(text) => self.step(text),
            Said::Result(text) => self.print(text),
        }
    }

    fn step(&mut self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    fn print(&mut self, text: &str) {
        let (green, plain) = if self.colours { ("\x1b[0;32m", "\x1b[0m") } else { ("", "") };
        let seconds = self.started.elapsed().as_secs_f64();
        // A step can name what a guest holds.
        let text = visible(text.as_bytes());
        let mut out = std::io::stdout();
        // What is changed does not depend on somebody reading along.
        let _ = writeln!(out, "{green}[{seconds:6.1}] {text}{plain}").and_then(|()| out.flush());
    }
}

/// The options that change the guest, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operations(Vec<(&'static str, OsString)>);

impl Operations {
    /// What they stand for. What cannot be done is refused here, before a disk is opened.
    pub(crate) fn parse(&self) -> Result<Vec<Operation>> {
        let mut operations = Vec::new();
        for (name, value) in &self.0 {
            operations.extend(Operation::parse(name, value.as_bytes().as_bstr())?);
        }
        Ok(operations)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Args for Operations {
    fn augment_args(command: Command) -> Command {
        let arguments = OPTIONS.iter().map(|row| {
            let arg = Arg::new(row.name)
                .long(row.name)
                .help(row.help)
                .value_parser(ValueParser::os_string())
                .action(ArgAction::Append)
                .help_heading("Changes");
            match row.value {
                Some(value) => arg.value_name(value).allow_hyphen_values(true),
                None => arg.num_args(0).default_missing_value(""),
            }
        });
        // Here, as in libguestfs's tools, `--format` takes its value as a word of its own too.
        let command = command.mut_args(|arg| match arg.get_id() == "format" {
            true => arg.require_equals(false).num_args(1),
            false => arg,
        });
        command.args(arguments)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Operations {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for row in OPTIONS {
            let indices = matches.indices_of(row.name).into_iter().flatten();
            let values = matches.get_many::<OsString>(row.name).into_iter().flatten();
            given.extend(indices.zip(values).map(|(index, value)| (index, row.name, value.clone())));
        }
        given.sort_by_key(|(index, ..)| *index);
        Ok(Self(given.into_iter().map(|(_, name, value)| (name, value)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        customize: Customize,
    }

    #[test] // Changes are made in the order of the command line, also those of different options.
    fn operations_keep_their_order() {
        let words = [
            "x",
            "-a",
            "d",
            "--touch",
            "/a",
            "--selinux-relabel",
            "--mkdir=/b",
            "-n",
            "--touch",
            "/c",
            "--no-logfile",
        ];
        let line = Line::try_parse_from(words).unwrap();
        let names: Vec<_> = line.customize.operations.0.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["touch", "selinux-relabel", "mkdir", "touch", "no-logfile"]);
        assert!(line.customize.changing.dry_run);
        let operations = line.customize.operations.parse().unwrap();
        assert_eq!(operations[0], Operation::Touch("/a".into()));
        assert_eq!(operations[2], Operation::Mkdir("/b".into()));
    }
}
