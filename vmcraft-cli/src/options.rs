//! The options by which disks are opened: those of guestfish, for the shell and the sub-commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Which disks, opened how, and what of them is mounted.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GuestOptions {
    #[command(flatten)]
    pub(crate) drives: Drives,

    /// Find the operating system and mount its file systems where it would mount them
    #[arg(short, long, help_heading = "Guest")]
    pub(crate) inspector: bool,

    /// With -i, which operating system if the disks hold several: its root device
    #[arg(long, value_name = "DEVICE", requires = "inspector", help_heading = "Guest")]
    pub(crate) root: Option<String>,

    /// Mount a device: on / unless a directory is given
    #[arg(
        short,
        long = "mount",
        value_name = "DEV[:DIR[:OPTIONS[:TYPE]]]",
        value_parser = parse_mount,
        help_heading = "Guest"
    )]
    pub(crate) mounts: Vec<MountOption>,

    /// Read only, and open images that other processes have in use
    #[arg(short, long, overrides_with = "rw", help_heading = "Guest")]
    pub(crate) ro: bool,

    /// Read and write, which is the default
    #[arg(short = 'w', long, overrides_with = "ro", help_heading = "Guest")]
    pub(crate) rw: bool,

    /// Do everything, but write nothing to the disks
    #[arg(long, overrides_with = "ro", help_heading = "Guest")]
    pub(crate) dry_run: bool,

    /// Keep what the disks held before in a new file, for vmcraft undo
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Guest")]
    pub(crate) undo: Option<PathBuf>,

    /// Whether the program itself changes nothing, whatever the options say
    #[arg(skip)]
    pub(crate) only_looks: bool,

    /// Whether the program does nothing with disks that have no operating system
    #[arg(skip)]
    pub(crate) needs_system: bool,

    /// The libvirt connection that -d asks
    #[arg(short, long, value_name = "URI", help_heading = "Guest")]
    pub(crate) connect: Option<String>,

    /// Let images name backing and data files below this directory (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Guest")]
    pub(crate) allow_backing: Vec<PathBuf>,

    /// A key for an encrypted volume: ID:key:TEXT, ID:file:NAME or ID:env:VARIABLE, where ID is a device, a UUID
    /// or all
    #[arg(long = "key", value_name = "SELECTOR", help_heading = "Guest")]
    pub(crate) keys: Vec<String>,

    /// Read keys and passphrases from standard input
    #[arg(long, help_heading = "Guest")]
    pub(crate) keys_from_stdin: bool,

    /// Show passphrases as they are typed
    #[arg(long, help_heading = "Guest")]
    pub(crate) echo_keys: bool,

    /// Say in detail what is done
    #[arg(short, long, help_heading = "Messages")]
    pub(crate) verbose: bool,

    /// Print each call and its result to standard error
    #[arg(short = 'x', long, help_heading = "Messages")]
    pub(crate) trace: bool,
}

/// The disks in the order of the command line, which is the order of their letters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drives(pub(crate) Vec<Drive>);

/// A disk, or several, as the command line names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Drive {
    /// `-a`: an image's path or URI.
    Image {
        /// The path or URI.
        name: OsString,
        /// What `--format=…` said last before it.
        format: Option<String>,
        /// What `--snapshot=…` said last before it.
        snapshot: Option<String>,
        /// What `--blocksize=…` said last before it.
        sector_size: Option<u32>,
    },
    /// `-d`: the disks of a libvirt domain.
    Domain(String),
    /// `-N`: a disk to be made.
    Prepared(String),
}

/// What `-m` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOption {
    /// The device, or a subvolume as `btrfsvol:DEVICE/NAME`.
    pub(crate) mountable: String,
    /// The directory.
    pub(crate) mountpoint: String,
    /// Mount options as `mount -o` takes them.
    pub(crate) options: Option<String>,
    /// The file system type.
    pub(crate) vfs_type: Option<String>,
}

/// Reads `DEV[:DIR[:OPTIONS[:TYPE]]]`.
pub(crate) fn parse_mount(text: &str) -> Result<MountOption, String> {
    const SUBVOLUME: &str = "btrfsvol:";
    let skip = if text.starts_with(SUBVOLUME) { SUBVOLUME.len() } else { 0 };
    let mut parts = text[skip..].splitn(4, ':');
    let device = parts.next().unwrap_or_default();
    if device.is_empty() {
        return Err("the device is missing".into());
    }
    let mut next = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
    Ok(MountOption {
        mountable: format!("{}{device}", &text[..skip]),
        mountpoint: next().unwrap_or_else(|| "/".into()),
        options: next(),
        vfs_type: next(),
    })
}

const HEADING: &str = "Disks";

impl Args for Drives {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("add")
                    .short('a')
                    .long("add")
                    .value_name("IMAGE|URI")
                    .help("Add a disk: a file, or a URI such as nbd://host/export (repeatable)")
                    .value_parser(ValueParser::os_string())
                    .value_hint(clap::ValueHint::FilePath)
                    .action(ArgAction::Append)
                    .help_heading(HEADING),
            )
            .arg(
                Arg::new("domain")
                    .short('d')
                    .long("domain")
                    .value_name("DOMAIN")
                    .help("Add the disks of a libvirt domain: its name or UUID, or a file of its XML")
                    .action(ArgAction::Append)
                    .help_heading(HEADING),
            )
            .arg(
                Arg::new("new")
                    .short('N')
                    .long("new")
                    .value_name("[FILE=]TYPE")
                    .help("Make a new disk, such as fs:ext4:1G, and add it; -N help lists the types (repeatable)")
                    .action(ArgAction::Append)
                    .help_heading(HEADING),
            )
            .arg(
                Arg::new("format")
                    .long("format")
                    .value_name("FORMAT")
                    .help("The format of the -a disks that follow; without FORMAT, detect it again")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("")
                    .action(ArgAction::Append)
                    .help_heading(HEADING),
            )
            .arg(
                Arg::new("snapshot")
                    .long("snapshot")
                    .value_name("NAME")
                    .help("Show the -a disks that follow as they were at this internal snapshot")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("")
                    .action(ArgAction::Append)
                    .help_heading(HEADING),
            )
            .arg(
                Arg::new("blocksize")
                    .long("blocksize")
                    .value_name("BYTES")
                    .help("The sector size of the -a disks that follow, 512 or 4096")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("")
                    .value_parser(["", "512", "4096"])
                    .hide_possible_values(true)
                    .action(ArgAction::Append)
                    .help_heading(HEADING),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl Drive {
    /// An image of which nothing is said but its name.
    pub(crate) fn image(name: OsString) -> Self {
        Self::Image { name, format: None, snapshot: None, sector_size: None }
    }
}

impl FromArgMatches for Drives {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(drives_of(matches, "add", "domain")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The disks that two options name, in their order, with what `--format` and `--blocksize` say of them.
pub(crate) fn drives_of(matches: &ArgMatches, add: &str, domain: &str) -> Vec<Drive> {
    /// What stands on the command line, of all that matters for disks.
    enum Said {
        Add(OsString),
        Domain(String),
        New(String),
        Format(String),
        Snapshot(String),
        SectorSize(String),
    }
    fn collect<T: Clone + Send + Sync + 'static>(
        matches: &ArgMatches,
        id: &str,
        make: fn(T) -> Said,
    ) -> Vec<(usize, Said)> {
        let indices = matches.indices_of(id).into_iter().flatten();
        let values = matches.get_many::<T>(id).into_iter().flatten();
        indices.zip(values.cloned().map(make)).collect()
    }
    let mut said = collect(matches, add, Said::Add);
    said.extend(collect(matches, domain, Said::Domain));
    said.extend(collect(matches, "new", Said::New));
    said.extend(collect(matches, "format", Said::Format));
    said.extend(collect(matches, "snapshot", Said::Snapshot));
    said.extend(collect(matches, "blocksize", Said::SectorSize));
    said.sort_by_key(|(index, _)| *index);
    let (mut drives, mut format, mut snapshot, mut sector_size) = (Vec::new(), None, None, None);
    for (_, said) in said {
        match said {
            Said::Add(name) => drives.push(Drive::Image {
                name,
                format: format.clone(),
                snapshot: snapshot.clone(),
                sector_size,
            }),
            Said::Domain(name) => drives.push(Drive::Domain(name)),
            Said::New(what) => drives.push(Drive::Prepared(what)),
            // libguestfs's tools have `auto` for it, guestfish nothing.
            Said::Format(name) => format = (!name.is_empty() && name != "auto").then_some(name),
            Said::Snapshot(name) => snapshot = (!name.is_empty()).then_some(name),
            Said::SectorSize(bytes) => sector_size = bytes.parse().ok(),
        }
    }
    drives
}

/// The shell's options, and the commands that follow them.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShellOptions {
    #[command(flatten)]
    pub(crate) guest: GuestOptions,

    /// Run a command line of the shell, with its quotes and pipes (repeatable)
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, help_heading = "Commands")]
    pub(crate) run: Vec<String>,

    /// Run the commands in a file
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath,
        help_heading = "Commands"
    )]
    pub(crate) file: Option<PathBuf>,

    /// Commands and their words, with a lone : between commands
    #[arg(value_name = "COMMAND", value_parser = OsStringValueParser::new(), help_heading = "Commands")]
    pub(crate) commands: Vec<OsString>,

    /// List the commands, or show the help of one
    #[arg(
        short = 'h',
        long = "cmd-help",
        value_name = "COMMAND",
        num_args = 0..=1,
        default_missing_value = "",
        help_heading = "Messages"
    )]
    pub(crate) command_help: Option<String>,

    /// Print results as JSON, one document a line
    #[arg(long, help_heading = "Messages")]
    pub(crate) json: bool,

    /// Show progress bars although standard error is not a terminal
    #[arg(long, overrides_with = "no_progress_bars", help_heading = "Messages")]
    pub(crate) progress_bars: bool,

    /// Show no progress bars
    #[arg(long, overrides_with = "progress_bars", help_heading = "Messages")]
    pub(crate) no_progress_bars: bool,

    /// Fail if the program behind a | stops reading
    #[arg(long, help_heading = "Commands")]
    pub(crate) pipe_error: bool,

    /// Do not complete paths of the guest
    #[arg(short = 'D', long, help_heading = "Commands")]
    pub(crate) no_dest_paths: bool,

    /// Stay in the background for --remote; prints what the host's shell has to evaluate
    #[arg(long, conflicts_with = "remote", help_heading = "Remote control")]
    pub(crate) listen: bool,

    /// With --listen, print it for csh
    #[arg(long, help_heading = "Remote control")]
    pub(crate) csh: bool,

    /// Send the commands to a vmcraft that listens: that of $VMCRAFT_PID, or this one
    #[arg(
        long,
        value_name = "PID",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        help_heading = "Remote control"
    )]
    pub(crate) remote: Option<String>,

    /// Be the process that --listen leaves in the background
    #[arg(long, hide = true)]
    pub(crate) serve: bool,

    /// Write nothing at the end: only what sync and umount-all wrote before stays
    #[arg(short, long, help_heading = "Commands")]
    pub(crate) no_sync: bool,

    /// Write what was changed to the disks even if a command failed
    #[arg(long, help_heading = "Commands")]
    pub(crate) commit_on_error: bool,

    /// Taken for guestfish's sake: there is no appliance with a network
    #[arg(long, hide = true)]
    pub(crate) network: bool,

    /// Taken for guestfish's sake
    #[arg(long, hide = true)]
    pub(crate) selinux: bool,

    /// Refused by name: no agent inside a running guest is asked
    #[arg(long, hide = true)]
    pub(crate) live: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Wrapper {
        #[command(flatten)]
        options: ShellOptions,
    }

    fn parse(line: &str) -> ShellOptions {
        Wrapper::try_parse_from(std::iter::once("vmcraft").chain(line.split(' '))).unwrap().options
    }

    #[test] // --format says how the disks after it are opened, not those before it.
    fn format_applies_to_the_disks_that_follow() {
        let options = parse("-a a --format=raw -a b --add c --format -d dom -ae");
        let image = |name: &str, format: Option<&str>| Drive::Image {
            name: name.into(),
            format: format.map(str::to_owned),
            snapshot: None,
            sector_size: None,
        };
        assert_eq!(
            options.guest.drives.0,
            [
                image("a", None),
                image("b", Some("raw")),
                image("c", Some("raw")),
                Drive::Domain("dom".into()),
                image("e", None)
            ]
        );
    }

    #[test] // A command whose failure is tolerated starts with a hyphen.
    fn a_command_to_run_may_start_with_a_hyphen() {
        assert_eq!(parse("--run -cat --run pwd").run, ["-cat", "pwd"]);
    }

    #[test] // guestfish takes options among the commands; only -- ends them.
    fn options_are_taken_among_the_commands() {
        let options = parse("add x : run --ro : ls / -- -a : -nosuch");
        assert!(options.guest.ro);
        assert_eq!(options.commands, ["add", "x", ":", "run", ":", "ls", "/", "-a", ":", "-nosuch"]);
    }

    #[test]
    fn mount_options_have_four_parts() {
        let mount = |mountable: &str, mountpoint: &str, options: Option<&str>, vfs: Option<&str>| {
            Ok(MountOption {
                mountable: mountable.into(),
                mountpoint: mountpoint.into(),
                options: options.map(str::to_owned),
                vfs_type: vfs.map(str::to_owned),
            })
        };
        assert_eq!(parse_mount("/dev/sda1"), mount("/dev/sda1", "/", None, None));
        assert_eq!(parse_mount("/dev/sda1:/boot"), mount("/dev/sda1", "/boot", None, None));
        assert_eq!(
            parse_mount("/dev/sda1:/:acl,ro:ext3"),
            mount("/dev/sda1", "/", Some("acl,ro"), Some("ext3"))
        );
        assert_eq!(parse_mount("/dev/sda1:/::ext3"), mount("/dev/sda1", "/", None, Some("ext3")));
        assert_eq!(
            parse_mount("btrfsvol:/dev/sda1/home:/home"),
            mount("btrfsvol:/dev/sda1/home", "/home", None, None)
        );
        assert!(parse_mount(":/boot").is_err());
    }

    #[test] // -h takes a command's name or none.
    fn command_help_takes_a_name_or_none() {
        assert_eq!(parse("-h").command_help.as_deref(), Some(""));
        assert_eq!(parse("-h cat").command_help.as_deref(), Some("cat"));
        assert_eq!(parse("--cmd-help cat").command_help.as_deref(), Some("cat"));
    }

    #[test] // The last of --ro and --rw counts.
    fn the_last_of_ro_and_rw_counts() {
        let options = parse("--ro --rw");
        assert!(options.guest.rw && !options.guest.ro);
    }
}
