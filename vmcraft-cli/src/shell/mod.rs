//! The shell: where commands come from, and what runs them.

mod complete;
mod devices;
mod glob;
mod interactive;
mod json;
pub(crate) mod local;
mod print;
mod progress;
mod prompt;
mod refused;
mod remote;
mod script;
mod session;
pub(crate) mod suggest;
pub(crate) mod syntax;
mod trace;
mod windows;

use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use bstr::BString;

use crate::error::{Error, Result, message};
use crate::interrupt;
use crate::options::{Drive, ShellOptions};
use crate::output::Output;
use crate::shell::script::Script;
use crate::shell::session::Session;

/// Runs the shell that the command line asks for.
pub(crate) fn run(options: &ShellOptions) -> Result<ExitCode> {
    if let Some(command) = &options.command_help {
        return crate::help::show(command);
    }
    if options.guest.drives.0.contains(&Drive::Prepared("help".to_owned())) {
        let mut out = Output::stdout();
        let text = crate::prepared::help();
        out.write_text(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.live {
        return Err(message("--live: not supported: it needs an agent inside a running guest"));
    }
    if (options.listen || options.serve) && options.has_commands() {
        return Err(message("--listen: takes no commands: send them with --remote"));
    }
    if options.listen && !options.serve {
        return remote::listen(options.csh);
    }
    let mut options = options.clone();
    adopt_old_syntax(&mut options);
    let mut guest = options.guest.guest()?;
    if options.guest.wants_launch() {
        options.guest.launch(&mut guest)?;
    }
    interrupt::install(guest.cancel_flag(), options.asks())
        .map_err(|e| message(format!("cannot take over ^C: {e}")))?;
    let mut session = Session::new(guest, &options);
    if options.serve {
        return remote::serve(session);
    }
    // A pipe is waited for, which ^C ends.
    let file = options.file.as_deref().map(Script::open).transpose()?;
    if !options.asks() {
        // ^C between two commands is as one in them: what is not written then must be said.
        interrupt::running_to_the_end();
    }
    if let Some(pid) = &options.remote {
        session.set_remote(remote::Client::new(pid)?);
    }
    let result = execute(&mut session, &options, file);
    if result.is_ok() && options.asks() {
        interactive::run(session)?;
        return Ok(ExitCode::SUCCESS);
    }
    match session.conclude(result) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The session said so where it happened.
        Err(error @ Error::Interrupted) => Ok(error.exit_code()),
        Err(error) => Err(error),
    }
}

/// guestfish's old form `-i IMAGE…`: with -i and no disk, the words are disks.
fn adopt_old_syntax(options: &mut ShellOptions) {
    if !options.guest.inspector || !options.guest.drives.0.is_empty() {
        return;
    }
    for name in std::mem::take(&mut options.commands) {
        options.guest.drives.0.push(match name.to_str() {
            Some(domain) if !domain.contains('/') && !std::path::Path::new(domain).exists() => {
                Drive::Domain(domain.to_owned())
            }
            _ => Drive::image(name),
        });
    }
}

/// Runs what the options name, in this order: --run, -f, the words of the command line; without any
/// of them, standard input.
fn execute(session: &mut Session, options: &ShellOptions, file: Option<Script>) -> Result<()> {
    for line in &options.run {
        session.run_script(&mut Script::from_text(line))?;
    }
    if let Some(mut file) = file {
        session.run_script(&mut file)?;
    }
    if !options.commands.is_empty() {
        session.run_words(&command_words(options))?;
    }
    if options.has_commands() || options.asks() {
        return Ok(());
    }
    session.run_script(&mut Script::stdin())
}

impl ShellOptions {
    /// Whether the command line says what to do.
    fn has_commands(&self) -> bool {
        !self.run.is_empty() || self.file.is_some() || !self.commands.is_empty()
    }

    /// Whether a person is asked what to do.
    pub(crate) fn asks(&self) -> bool {
        !self.has_commands() && !self.serve && std::io::stdin().is_terminal()
    }
}

fn command_words(options: &ShellOptions) -> Vec<BString> {
    options.commands.iter().cloned().map(|word| BString::from(word.into_vec())).collect()
}
