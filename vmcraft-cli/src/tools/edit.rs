//! `virt-edit`: files of the guest in an editor of the host, or changed by a Perl expression.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use vmcraft::customize::perl;
use vmcraft::{Guest, GuestPath};

use crate::edit::edit;
use crate::error::{Error, Result, message};
use crate::options::GuestOptions;
use crate::report;
use crate::tools::Tool;
use crate::tools::common::{MountOptions, ToolOptions, trace};

/// Edit files of a virtual machine
///
/// A file that is not changed is not written. One that is keeps its owner, permissions and attributes.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Example:\n  virt-edit -a disk.qcow2 /etc/fstab\n  virt-edit -a disk.qcow2 -e 's/^#(port.*)/$1/' /etc/app.conf"
)]
pub(super) struct Edit {
    #[command(flatten)]
    options: ToolOptions,

    #[command(flatten)]
    mounts: MountOptions,

    /// Keep the old file under its name with this behind it, such as .orig
    #[arg(short, long, value_name = "EXTENSION")]
    backup: Option<OsString>,

    /// Run this expression of the host's perl for each line instead of an editor
    #[arg(short, long = "edit", visible_alias = "expr", value_name = "EXPR")]
    expression: Option<OsString>,

    /// The files, by their absolute paths in the guest
    #[arg(value_name = "FILE", required = true)]
    files: Vec<OsString>,
}

impl Tool for Edit {
    fn run(mut self) -> Result<ExitCode> {
        self.options.adopt_old_form(&mut self.files, 1)?;
        if self.backup.as_ref().is_some_and(|extension| extension.is_empty()) {
            return Err(message(
                "--backup: the extension is empty, and the old file has the new one's name then",
            ));
        }
        let mounts = self.mounts.mounts.clone();
        let options =
            GuestOptions { ro: false, inspector: mounts.is_empty(), mounts, ..self.options.guest_options() };
        options.refuse_snapshots()?;
        let mut guest = options.guest()?;
        options.launch(&mut guest)?;
        for file in &self.files {
            self.edit(&mut guest, file)?;
        }
        trace(&self.options, format_args!("commit"));
        guest.commit()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Edit {
    fn edit(&self, guest: &mut Guest, file: &OsStr) -> Result<()> {
        let path = GuestPath::new(file.as_bytes());
        let backup = self.backup.as_ref().map(|extension| [file.as_bytes(), extension.as_bytes()].concat());
        let change = |copy: &Path| match &self.expression {
            Some(expression) => run_perl(path, expression, copy),
            None => run_editor(std::env::var_os("EDITOR").unwrap_or_else(|| "vi".into()).as_os_str(), copy),
        };
        edit(guest, path, change, |guest| match &backup {
            Some(backup) => guest.cp_a(path, GuestPath::new(backup)).map_err(|e| Error::call("cp-a", e)),
            None => Ok(()),
        })?;
        Ok(())
    }
}

/// Runs an editor, which can be a command with options, on a file.
fn run_editor(editor: &OsStr, file: &Path) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    // The editor is a command line, and the file one word behind it.
    command
        .arg("-c")
        .arg([editor, OsStr::new(" \"$1\"")].into_iter().collect::<OsString>())
        .arg("sh")
        .arg(file);
    let editor = editor.display();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(message(format!("the editor failed, and nothing was changed: {editor}: {status}"))),
        Err(e) => Err(message(format!("cannot run {editor}: {e}"))),
    }
}

fn run_perl(path: &GuestPath, expression: &OsStr, file: &Path) -> Result<()> {
    let cannot = |e: io::Error| message(format!("{}: {e}", file.display()));
    let mut changed =
        tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("."))).map_err(cannot)?;
    let (from, to) = (File::open(file).map_err(cannot)?, changed.as_file_mut().try_clone().map_err(cannot)?);
    let said = perl::edit_lines(path, expression, from, to)?;
    if !said.is_empty() {
        report::warning(&format!("{path}: perl: {said}"));
    }
    changed.persist(file).map_err(|e| cannot(e.error))?;
    Ok(())
}
