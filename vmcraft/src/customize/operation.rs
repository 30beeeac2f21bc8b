//! What can be asked for, under the names of virt-customize's options.

use std::path::PathBuf;

use bstr::{BStr, BString, ByteSlice};

use super::crypt::Crypt;
use super::password::Selector;
use super::ssh::KeySource;
use crate::{Error, Result};

/// One change to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds a line to the end of a file.
    AppendLine {
        /// The file.
        path: BString,
        /// The line without its end.
        line: BString,
    },
    /// Changes permissions.
    Chmod {
        /// The low 12 bits of `st_mode`.
        mode: u32,
        /// What is changed.
        path: BString,
    },
    /// Changes the owner.
    Chown {
        /// The owner's number.
        uid: u32,
        /// The group's number.
        gid: u32,
        /// What is changed.
        path: BString,
    },
    /// Copies files or directories inside the guest.
    Copy {
        /// What is copied.
        from: BString,
        /// Its new name, or the directory for it.
        to: BString,
    },
    /// Copies a file or directory of the host into the guest.
    CopyIn {
        /// What is copied.
        local: PathBuf,
        /// The guest's directory that it is put in.
        directory: BString,
    },
    /// Removes what a pattern matches, directories with their content.
    Delete(BString),
    /// Edits a file with an expression of Perl, which the host's Perl evaluates for each line.
    Edit {
        /// The file.
        path: BString,
        /// The expression.
        expression: BString,
    },
    /// Installs a script of the host that runs when the guest boots next.
    Firstboot(PathBuf),
    /// Installs a command that runs when the guest boots next.
    FirstbootCommand(BString),
    /// Has packages installed when the guest boots next.
    FirstbootInstall(Vec<String>),
    /// Sets the name of the guest.
    Hostname(String),
    /// Makes symbolic links.
    Link {
        /// Where they lead.
        target: BString,
        /// Their names.
        links: Vec<BString>,
    },
    /// Makes a directory and those above it.
    Mkdir(BString),
    /// Moves files or directories inside the guest.
    Move {
        /// What is moved.
        from: BString,
        /// Its new name, or the directory for it.
        to: BString,
    },
    /// Sets or locks the password of a user.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        selector: Selector,
    },
    /// How passwords are hashed, in place of what the guest's version can check.
    PasswordCrypto(Crypt),
    /// Removes a regular file after its content was overwritten.
    Scrub(BString),
    /// Gives all files the SELinux labels of the guest's policy.
    SelinuxRelabel,
    /// Lets a user log in with a key.
    SshInject {
        /// The user's name.
        user: String,
        /// Where the key is.
        key: KeySource,
    },
    /// Unpacks a tar archive of the host.
    TarIn {
        /// The archive.
        local: PathBuf,
        /// The guest's directory that it is unpacked into.
        directory: BString,
    },
    /// Sets the time zone.
    Timezone(String),
    /// Makes an empty file, or changes the times of one that is there.
    Touch(BString),
    /// Empties a file.
    Truncate(BString),
    /// Empties all regular files below a directory.
    TruncateRecursive(BString),
    /// Copies a file of the host into the guest, with its permissions.
    Upload {
        /// The host's file.
        local: PathBuf,
        /// Its name in the guest, or the directory for it.
        path: BString,
    },
    /// Writes a file.
    Write {
        /// The file.
        path: BString,
        /// Its whole content.
        content: BString,
    },
}

/// An option of virt-customize that stands for an operation.
pub struct OptionRow {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What its value is, as help shows it; `None` for one without a value.
    pub value: Option<&'static str>,
    /// What it does, for help.
    pub help: &'static str,
    /// What becomes of it.
    pub meaning: Meaning,
}

/// What becomes of an option.
pub enum Meaning {
    /// An operation of this value.
    Operation(fn(&BStr) -> Result<Operation>),
    /// More options, from the file that the value names.
    CommandsFromFile,
    /// Nothing: it is taken for the sake of scripts.
    Nothing,
    /// It needs a program of the guest to run, and is refused; what to use instead.
    Refused(&'static str),
}

/// How often a file of commands may name a further one.
const MAX_NESTING: usize = 16;

/// The longest file of commands, in bytes.
const MAX_COMMANDS: u64 = 16 << 20;

const RUN: &str = "it runs programs of the guest, which is not done here; --firstboot runs a script when the guest \
                   boots next";
const RUN_COMMAND: &str = "it runs programs of the guest, which is not done here; --firstboot-command runs a command \
                           when the guest boots next";
const INSTALL: &str = "it runs the guest's package manager, which is not done here; --firstboot-install installs \
                       packages when the guest boots next";
const UPDATE: &str = "it runs the guest's package manager, which is not done here; --firstboot-command with the \
                      package manager's command does it when the guest boots next";
const SUBSCRIPTION: &str = "it runs subscription-manager in the guest, which is not done here; --firstboot-command \
                            with the same arguments does it when the guest boots next";

const fn row(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    meaning: fn(&BStr) -> Result<Operation>,
) -> OptionRow {
    OptionRow { name, value: Some(value), help, meaning: Meaning::Operation(meaning) }
}

const fn refused(name: &'static str, value: Option<&'static str>, why: &'static str) -> OptionRow {
    OptionRow { name, value, help: "Refused: no program of the guest is run", meaning: Meaning::Refused(why) }
}

/// The options that change the guest, sorted by name.
pub const OPTIONS: &[OptionRow] = &[
    row("append-line", "FILE:LINE", "Add a line to the end of a file", |value| {
        let (path, line) = pair(value)?;
        Ok(Operation::AppendLine { path, line })
    }),
    row("chmod", "PERMISSIONS:FILE", "Change permissions (0755 is octal, 755 is not)", |value| {
        let (mode, path) = pair(value)?;
        Ok(Operation::Chmod { mode: permissions(mode.as_bstr())?, path })
    }),
    row("chown", "UID[.GID]:PATH", "Change the owner, by numbers", |value| {
        let (owner, path) = pair(value)?;
        let (uid, gid) = owner.split_once_str(".").unwrap_or((owner.as_slice(), owner.as_slice()));
        Ok(Operation::Chown { uid: number(uid)?, gid: number(gid)?, path })
    }),
    OptionRow {
        name: "commands-from-file",
        value: Some("FILENAME"),
        help: "Take further options from a file, one a line without dashes",
        meaning: Meaning::CommandsFromFile,
    },
    row("copy", "SOURCE:DEST", "Copy files or directories inside the guest", |value| {
        let (from, to) = pair(value)?;
        Ok(Operation::Copy { from, to })
    }),
    row("copy-in", "LOCALPATH:REMOTEDIR", "Copy a file or directory of the host into the guest", |value| {
        let (local, directory) = pair(value)?;
        Ok(Operation::CopyIn { local: host_path(local.as_bstr())?, directory })
    }),
    row("delete", "PATH", "Remove files and directories, which may be given by a pattern", |value| {
        Ok(Operation::Delete(value.into()))
    }),
    row("edit", "FILE:EXPR", "Edit a file with an expression of Perl", |value| {
        let (path, expression) = pair(value)?;
        Ok(Operation::Edit { path, expression })
    }),
    row("firstboot", "SCRIPT", "Run a script when the guest boots next", |value| {
        Ok(Operation::Firstboot(host_path(value)?))
    }),
    row("firstboot-command", "'CMD+ARGS'", "Run a command when the guest boots next", |value| {
        Ok(Operation::FirstbootCommand(value.into()))
    }),
    row("firstboot-install", "PKG,PKG..", "Install packages when the guest boots next", |value| {
        let packages: Vec<_> = text(value)?
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if packages.is_empty() {
            return Err(Error::Usage("no package is named".into()));
        }
        Ok(Operation::FirstbootInstall(packages))
    }),
    row("hostname", "HOSTNAME", "Set the name of the guest", |value| Ok(Operation::Hostname(text(value)?))),
    refused("install", Some("PKG,PKG.."), INSTALL),
    row("link", "TARGET:LINK[:LINK..]", "Make symbolic links", |value| {
        let (target, links) = pair(value)?;
        Ok(Operation::Link { target, links: links.split(|b| *b == b':').map(BString::from).collect() })
    }),
    row("mkdir", "DIR", "Make a directory, and those above it", |value| Ok(Operation::Mkdir(value.into()))),
    row("move", "SOURCE:DEST", "Move files or directories inside the guest", |value| {
        let (from, to) = pair(value)?;
        Ok(Operation::Move { from, to })
    }),
    OptionRow {
        name: "no-logfile",
        value: None,
        help: "Taken for virt-customize's sake: no log is left in the guest",
        meaning: Meaning::Nothing,
    },
    row("password", "USER:SELECTOR", "Set the password of a user", |value| {
        let (user, selector) = pair(value)?;
        Ok(Operation::Password {
            user: text(user.as_bstr())?,
            selector: Selector::parse(selector.as_bstr())?,
        })
    }),
    row("password-crypto", "md5|sha256|sha512|yescrypt", "How passwords are hashed", |value| {
        let name = text(value)?;
        let crypt = Crypt::named(&name).ok_or_else(|| {
            Error::Usage(format!("{name}: passwords are hashed by md5, sha256, sha512 or yescrypt"))
        })?;
        Ok(Operation::PasswordCrypto(crypt))
    }),
    row("root-password", "SELECTOR", "Set the password of root", |value| {
        Ok(Operation::Password { user: "root".into(), selector: Selector::parse(value)? })
    }),
    refused("run", Some("SCRIPT"), RUN),
    refused("run-command", Some("'CMD+ARGS'"), RUN_COMMAND),
    row("scrub", "FILE", "Overwrite a file and remove it", |value| Ok(Operation::Scrub(value.into()))),
    OptionRow {
        name: "selinux-relabel",
        value: None,
        help: "Give all files the SELinux labels of the guest's policy",
        meaning: Meaning::Operation(|_| Ok(Operation::SelinuxRelabel)),
    },
    refused("sm-attach", Some("SELECTOR"), SUBSCRIPTION),
    refused("sm-credentials", Some("SELECTOR"), SUBSCRIPTION),
    refused("sm-register", None, SUBSCRIPTION),
    refused("sm-remove", None, SUBSCRIPTION),
    refused("sm-unregister", None, SUBSCRIPTION),
    row("ssh-inject", "USER[:SELECTOR]", "Let a user log in with a key", |value| {
        let (user, key) = match value.split_once_str(":") {
            Some((user, selector)) => (user, KeySource::parse(selector.as_bstr())?),
            None => (value.as_bytes(), KeySource::Default),
        };
        Ok(Operation::SshInject { user: text(user.as_bstr())?, key })
    }),
    row("tar-in", "TARFILE:REMOTEDIR", "Unpack a tar archive of the host into the guest", |value| {
        let (local, directory) = pair(value)?;
        Ok(Operation::TarIn { local: host_path(local.as_bstr())?, directory })
    }),
    row("timezone", "TIMEZONE", "Set the time zone, such as Europe/London", |value| {
        Ok(Operation::Timezone(text(value)?))
    }),
    row("touch", "FILE", "Make an empty file, or change the times of one", |value| {
        Ok(Operation::Touch(value.into()))
    }),
    row("truncate", "FILE", "Empty a file", |value| Ok(Operation::Truncate(value.into()))),
    row("truncate-recursive", "PATH", "Empty all files below a directory", |value| {
        Ok(Operation::TruncateRecursive(value.into()))
    }),
    refused("uninstall", Some("PKG,PKG.."), UPDATE),
    refused("update", None, UPDATE),
    row("upload", "FILE:DEST", "Copy a file of the host into the guest, with its permissions", |value| {
        let (local, path) = pair(value)?;
        Ok(Operation::Upload { local: host_path(local.as_bstr())?, path })
    }),
    row("write", "FILE:CONTENT", "Write a file", |value| {
        let (path, content) = pair(value)?;
        Ok(Operation::Write { path, content })
    }),
];

impl Operation {
    /// The operations that an option stands for: one, none, or those of a file of commands. Files of the
    /// host that hold passwords or commands are read now.
    pub fn parse(name: &str, value: &BStr) -> Result<Vec<Self>> {
        Self::parse_nested(name, value, 0)
    }

    fn parse_nested(name: &str, value: &BStr, depth: usize) -> Result<Vec<Self>> {
        let Some(row) = OPTIONS.iter().find(|row| row.name == name) else {
            return Err(Error::Usage(format!("{name}: there is no such option")));
        };
        let with_name = |e: Error| match e {
            Error::Usage(text) => Error::Usage(format!("--{name}: {text}")),
            other => other,
        };
        if row.value.is_none() && !value.is_empty() {
            return Err(Error::Usage(format!("--{name}: the option takes no value")));
        }
        match row.meaning {
            Meaning::Operation(parse) => parse(value).map(|operation| vec![operation]).map_err(with_name),
            Meaning::Nothing => Ok(Vec::new()),
            Meaning::Refused(why) => Err(Error::Unsupported(format!("--{name}: {why}"))),
            Meaning::CommandsFromFile => {
                let path = host_path(value)?;
                if depth == MAX_NESTING {
                    return Err(Error::Usage(format!(
                        "{}: files of commands are nested too deep",
                        path.display()
                    )));
                }
                let content = super::read_host(&path, MAX_COMMANDS)?;
                let mut operations = Vec::new();
                for (line, command) in commands(&content) {
                    let (name, value) = command.split_once_str(" ").unwrap_or((command.as_slice(), b""));
                    let parsed =
                        Self::parse_nested(&name.to_str_lossy(), value.trim_start().as_bstr(), depth + 1);
                    operations.extend(parsed.map_err(|e| match e {
                        Error::Usage(text) => Error::Usage(format!("{}:{line}: {text}", path.display())),
                        Error::Unsupported(text) => {
                            Error::Unsupported(format!("{}:{line}: {text}", path.display()))
                        }
                        other => other,
                    })?);
                }
                Ok(operations)
            }
        }
    }
}

/// The commands of a file with the numbers of their first lines. A backslash at the end of a line goes on
/// with the next, of which blanks at its start are left out.
fn commands(content: &[u8]) -> Vec<(usize, BString)> {
    let mut found: Vec<(usize, BString)> = Vec::new();
    let mut goes_on = false;
    for (index, line) in content.lines().enumerate() {
        let line = line.trim_start();
        if !goes_on && (line.is_empty() || line.starts_with(b"#")) {
            continue;
        }
        let (line, more) = match line.strip_suffix(b"\\") {
            Some(line) => (line, true),
            None => (line, false),
        };
        match found.last_mut() {
            Some((_, command)) if goes_on => command.extend_from_slice(line),
            _ => found.push((index + 1, line.into())),
        }
        goes_on = more;
    }
    found
}

fn pair(value: &BStr) -> Result<(BString, BString)> {
    match value.split_once_str(":") {
        Some((first, second)) if !first.is_empty() => Ok((first.into(), second.into())),
        _ => Err(Error::Usage(format!("{value:?}: expected two parts with a colon between them"))),
    }
}

fn text(value: &BStr) -> Result<String> {
    value.to_str().map(str::to_owned).map_err(|_| Error::Usage(format!("{value:?}: the text must be UTF-8")))
}

fn host_path(value: &BStr) -> Result<PathBuf> {
    value
        .to_path()
        .map(PathBuf::from)
        .map_err(|_| Error::Usage(format!("{value:?}: not a path of this host")))
}

fn number(text: &[u8]) -> Result<u32> {
    text.to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Usage(format!("{:?}: not a number", text.as_bstr())))
}

/// Permissions as C writes numbers: octal after a 0, hexadecimal after a 0x, else decimal.
fn permissions(text: &BStr) -> Result<u32> {
    let wrong = || Error::Usage(format!("{text:?}: not permissions: octal ones start with a 0, as in 0755"));
    let digits = text.to_str().map_err(|_| wrong())?;
    let parsed = if let Some(octal) = digits.strip_prefix("0o") {
        u32::from_str_radix(octal, 8)
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        u32::from_str_radix(hexadecimal, 16)
    } else if digits.starts_with('0') {
        u32::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    parsed.ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Operation {
        let mut parsed = Operation::parse(name, value.into()).unwrap();
        assert_eq!(parsed.len(), 1);
        parsed.remove(0)
    }

    fn refused(name: &str, value: &str) -> String {
        Operation::parse(name, value.into()).unwrap_err().to_string()
    }

    #[test]
    fn values_are_split_at_their_first_colon() {
        assert_eq!(
            parse("append-line", "/etc/hosts:::1 foo"),
            Operation::AppendLine { path: "/etc/hosts".into(), line: "::1 foo".into() }
        );
        assert_eq!(parse("chmod", "0640:/a:b"), Operation::Chmod { mode: 0o640, path: "/a:b".into() });
        assert_eq!(parse("chmod", "420:/a"), Operation::Chmod { mode: 0o644, path: "/a".into() });
        assert_eq!(parse("chown", "5.6:/a"), Operation::Chown { uid: 5, gid: 6, path: "/a".into() });
        assert_eq!(
            parse("link", "t:/a:/b"),
            Operation::Link { target: "t".into(), links: vec!["/a".into(), "/b".into()] }
        );
        assert_eq!(
            parse("firstboot-install", "a, b,"),
            Operation::FirstbootInstall(vec!["a".into(), "b".into()])
        );
        assert_eq!(parse("write", "/a:"), Operation::Write { path: "/a".into(), content: "".into() });
        assert!(refused("write", "/a").starts_with("--write: \"/a\": expected two parts"));
        assert!(refused("chmod", "u+x:/a").contains("octal"));
        assert!(refused("chmod", "077777:/a").contains("octal"));
        assert!(refused("password-crypto", "des").contains("sha512"));
        assert!(refused("nonsense", "").contains("no such option"));
    }

    #[test] // They are refused before anything changes, and say what to do.
    fn what_would_run_the_guests_programs_is_refused() {
        for name in ["run", "run-command", "install", "update", "uninstall", "sm-register"] {
            let error = Operation::parse(name, "".into()).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)));
            assert!(error.to_string().contains("--firstboot"), "{error}");
        }
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(OPTIONS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn files_of_commands_are_read() {
        let dir = testkit::tempdir();
        let file = dir.path().join("commands");
        std::fs::write(&file, "# comment\n\n  mkdir /a b\nedit /f:\\\n   s/x/y/\nselinux-relabel\n").unwrap();
        let parsed = Operation::parse("commands-from-file", file.to_str().unwrap().into()).unwrap();
        assert_eq!(
            parsed,
            [
                Operation::Mkdir("/a b".into()),
                Operation::Edit { path: "/f".into(), expression: "s/x/y/".into() },
                Operation::SelinuxRelabel
            ]
        );
        std::fs::write(&file, "touch /a\nrun x\n").unwrap();
        let error = refused("commands-from-file", file.to_str().unwrap());
        assert!(error.contains("commands:2: --run: "), "{error}");
        // A file that names itself.
        std::fs::write(&file, format!("commands-from-file {}", file.display())).unwrap();
        assert!(refused("commands-from-file", file.to_str().unwrap()).contains("nested too deep"));
    }
}
