//! A running shell: the handle, the output, and what is done with each line.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::Instant;

use bstr::{BStr, BString, ByteSlice};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;
use vmcraft::Guest;
use vmcraft::call::{ArgumentKind, Call};
use vmcraft::value::Value;

use crate::error::{Error, Result, message};
use crate::input::StandardInput;
use crate::interrupt;
use crate::logging;
use crate::options::ShellOptions;
use crate::output::{BINARY, Guarded, Output, is_binary};
use crate::report;
use crate::shell::progress::Meter;
use crate::shell::remote::Client;
use crate::shell::script::Script;
use crate::shell::syntax::{self, Action, Command, Line};
use crate::shell::{json, local, print, suggest, trace, windows};

/// How deep `<!` may nest: a program whose output runs that program again must end somewhere.
const MAX_INLINE_DEPTH: usize = 64;

/// A running shell.
pub(crate) struct Session {
    guest: Guest,
    /// Where commands are sent instead of being run here.
    remote: Option<Client>,
    pub(crate) options: ShellOptions,
    output: Output,
    /// What `setenv` and `unsetenv` changed: the environment of the programs that the shell starts.
    environment: BTreeMap<OsString, Option<OsString>>,
    pub(crate) wants_exit: bool,
    inline_depth: usize,
    /// Whether the command that runs may fail.
    tolerates_failure: bool,
    meter: Meter,
}

impl Session {
    /// A shell for this handle.
    pub(crate) fn new(guest: Guest, options: &ShellOptions) -> Self {
        let mut session = Self {
            guest,
            remote: None,
            options: options.clone(),
            output: Output::stdout(),
            environment: BTreeMap::new(),
            wants_exit: false,
            inline_depth: 0,
            tolerates_failure: false,
            meter: Meter::new(options.progress_bars, options.no_progress_bars),
        };
        session.connect();
        session
    }

    /// Gives the handle what `-` means, and what its calls report to.
    fn connect(&mut self) {
        self.guest.set_input(Box::new(StandardInput));
        self.guest.set_output(Box::new(Guarded(self.output.clone())));
        let meter = self.meter.clone();
        self.guest.set_progress(Some(Box::new(move |progress| meter.update(progress))));
        interrupt::follow(self.guest.cancel_flag());
    }

    /// Sends commands to a server from now on.
    pub(crate) fn set_remote(&mut self, remote: Client) {
        self.remote = Some(remote);
    }

    /// Uses what the standard descriptors are now: those of another client.
    pub(crate) fn attach_to_descriptors(&mut self) {
        self.output = Output::stdout();
        self.connect();
    }

    /// Says what the library noticed.
    pub(crate) fn report_warnings(&mut self) {
        for warning in self.guest.take_warnings() {
            report::warning(&warning);
        }
    }

    /// The handle.
    pub(crate) fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Replaces the handle by a fresh one, which may open what the old one might.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        if self.options.guest.undo.is_some() {
            // Nothing would be kept of what the fresh handle changes.
            return Err(message("reopen: not with --undo, whose file is of one session; end this one first"));
        }
        self.guest.shutdown().map_err(|e| Error::call("shutdown", e))?;
        self.guest = Guest::new();
        self.guest.allow_backing(self.options.guest.allow_backing.clone());
        self.guest.set_state_directory(crate::open::state_directory(true));
        self.connect();
        Ok(())
    }

    /// Where results go.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// What the person should know when the shell begins: the system that was found, and what is
    /// mounted.
    pub(crate) fn introduction(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.options.guest.inspector
            && let Ok(systems) = self.guest.operating_systems()
            && let [system] = systems
            && let Some(name) = &system.pretty_name
        {
            lines.push(format!("Operating system: {name}"));
        }
        for mount in self.guest.vfs().mounts() {
            lines.push(format!("{} mounted on {}", mount.device, mount.mountpoint));
        }
        lines
    }

    /// Sees that everything is written before the process ends.
    pub(crate) fn finish(&mut self) {
        // A failure was seen when the command's own output was flushed.
        let _ = self.output.flush();
    }

    /// Ends the session: what was changed is written to the images if all went well, or if the person
    /// wants it in any case. Says what was left undone.
    pub(crate) fn conclude(&mut self, result: Result<()>) -> Result<()> {
        self.finish();
        let _running = interrupt::running();
        let result = result.and_then(|()| self.go_on());
        let is_ready = self.remote.is_none() && self.guest.is_ready().unwrap_or(false);
        if !is_ready {
            return result;
        }
        let autosync = self.guest.get_autosync().unwrap_or(true) && !self.options.no_sync;
        let wanted = match &result {
            Ok(()) => autosync,
            Err(Error::Interrupted | Error::BrokenPipe) => false,
            Err(_) => self.options.commit_on_error,
        };
        if wanted {
            if let Err(error) = self.guest.commit() {
                report::error(None, &error);
                self.say_undone();
                return result.and(Err(Error::Reported));
            }
            self.report_warnings();
            if self.options.guest.dry_run {
                self.say_dry_run();
            }
        } else {
            self.say_undone();
        }
        result
    }

    /// Says which images stay as they were although something was changed.
    fn say_undone(&mut self) {
        if self.guest.is_commit_cut_off() {
            // They did not stay so, which the commit's own error said.
            return;
        }
        // What cannot be told does not reach the images either.
        let changed = self.guest.changed_images().unwrap_or_default();
        let images: Vec<_> =
            changed.iter().filter(|image| image.is_committed).map(|image| image.name.as_str()).collect();
        if !images.is_empty() {
            report::warning(&format!(
                "what was changed since the last commit was not written to {}",
                images.join(", ")
            ));
        }
    }

    /// Says which images would have been changed.
    fn say_dry_run(&mut self) {
        let changed = self.guest.changed_images().unwrap_or_default();
        let images: Vec<_> = changed.iter().map(|image| image.name.as_str()).collect();
        if images.is_empty() {
            report::note(&"dry run: nothing would have been changed");
        } else {
            report::note(&format_args!("dry run: nothing was written to {}", images.join(", ")));
        }
    }

    /// Runs lines to the end, to `exit` or to the first command that fails.
    pub(crate) fn run_script(&mut self, script: &mut Script) -> Result<()> {
        while !self.wants_exit {
            let line = script.next_line();
            self.go_on()?;
            let Some(line) = line? else { break };
            self.run_line(&line, script)?;
        }
        Ok(())
    }

    /// Between two commands: an error, which was reported, if ^C came.
    fn go_on(&self) -> Result<()> {
        if interrupt::pending() {
            self.report_failure(None, &Error::Interrupted);
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// Says that a command failed, and of ^C, which ends all that are one inside another, once.
    fn report_failure(&self, location: Option<&report::Location>, error: &Error) {
        if self.inline_depth == 0 || !matches!(error, Error::Interrupted) {
            report::error(location, error);
        }
    }

    /// Runs one line. What fails is reported here; the error only says that it was.
    pub(crate) fn run_line(&mut self, line: &[u8], script: &mut Script) -> Result<()> {
        let _running = interrupt::running();
        let (result, tolerate_failure) = match syntax::parse(line) {
            Ok(Line { tolerate_failure, action }) => {
                self.tolerates_failure = tolerate_failure || self.options.asks();
                (self.run_action(action, script), tolerate_failure)
            }
            Err((error, tolerate_failure)) => (Err(message(error.to_string())), tolerate_failure),
        };
        self.settle(result, tolerate_failure, script)
    }

    /// Runs the words of the command line: commands with a lone `:` between them.
    pub(crate) fn run_words(&mut self, words: &[BString]) -> Result<()> {
        let mut stdin = Script::stdin();
        let mut commands: Vec<_> = words.split(|word| word == ":").collect();
        // A colon at the end is not followed by an empty command.
        if commands.len() > 1 && commands.last().is_some_and(|last| last.is_empty()) {
            commands.pop();
        }
        for words in commands {
            if self.wants_exit {
                break;
            }
            self.go_on()?;
            let (command, tolerate_failure) =
                syntax::from_words(words).ok_or_else(|| message("empty command on the command line"))?;
            self.tolerates_failure = tolerate_failure;
            let _running = interrupt::running();
            let result = self.run_command(command, &mut stdin);
            self.settle_at(result, tolerate_failure, None)?;
        }
        Ok(())
    }

    fn settle(&mut self, result: Result<()>, tolerate_failure: bool, script: &Script) -> Result<()> {
        let location = if result.is_err() { script.location() } else { None };
        self.settle_at(result, tolerate_failure, location.as_ref())
    }

    /// Reports a failure, and forgets it if it is tolerated.
    fn settle_at(
        &mut self,
        result: Result<()>,
        tolerate_failure: bool,
        location: Option<&report::Location>,
    ) -> Result<()> {
        // A call's result must be on its way before the next program or message is.
        let result = result.and_then(|()| self.flush());
        // A program of the host that ^C ended is no reason to go on with the script.
        let result = if interrupt::pending() { Err(Error::Interrupted) } else { result };
        self.report_warnings();
        let Err(error) = result else { return Ok(()) };
        match error {
            Error::BrokenPipe => return Err(error),
            Error::Reported => {}
            _ => self.report_failure(location, &error),
        }
        match error {
            Error::Interrupted => Err(error),
            _ if tolerate_failure => Ok(()),
            _ => Err(Error::Reported),
        }
    }

    fn run_action(&mut self, action: Action, script: &mut Script) -> Result<()> {
        match action {
            Action::Nothing => Ok(()),
            Action::Host(command) => self.run_host(command.as_bstr()),
            Action::Inline(command) => self.run_inline(command.as_bstr()),
            Action::Command(command) => self.run_command(command, script),
        }
    }

    /// Runs a command, with its output through a pipe if it has one.
    pub(crate) fn run_command(&mut self, command: Command, script: &mut Script) -> Result<()> {
        let words: Vec<BString> = command
            .words
            .into_iter()
            .map(|word| if word.quoted { word.text } else { self.expand_home(word.text) })
            .collect();
        match command.pipe {
            None => self.dispatch(command.name.as_bstr(), words, script),
            Some(pipe) => self.run_piped(command.name.as_bstr(), words, pipe.as_bstr(), script),
        }
    }

    /// Runs a command, be it the shell's own or a call.
    pub(crate) fn dispatch(&mut self, name: &BStr, words: Vec<BString>, script: &mut Script) -> Result<()> {
        let normal = syntax::normal_name(name);
        if self.remote.is_some() {
            return self.dispatch_remote(&normal, words, script);
        }
        if let Some(command) = local::find(&normal) {
            return (command.run)(self, &words, script);
        }
        let Some(call) = Call::find(&normal) else { return Err(message(suggest::unknown(&normal))) };
        self.call(call, words, script)
    }

    /// Has the server run a command.
    fn dispatch_remote(&mut self, name: &str, mut words: Vec<BString>, script: &mut Script) -> Result<()> {
        let _here_documents = match Call::find(name) {
            Some(call) => here_documents(call, &mut words, script)?,
            None => Vec::new(),
        };
        self.flush()?;
        let Some(remote) = &self.remote else { return Ok(()) };
        let goes_on =
            remote.run(name.into(), words, self.tolerates_failure, self.options.json, &self.output)?;
        self.wants_exit |= !goes_on;
        Ok(())
    }

    /// Whether `-x` was given, or `set-trace` called.
    fn is_tracing(&self) -> bool {
        // Reading a setting cannot fail.
        self.guest.get_trace().unwrap_or(false)
    }

    /// Makes a call and prints its result.
    pub(crate) fn call(
        &mut self,
        call: &'static Call,
        mut words: Vec<BString>,
        script: &mut Script,
    ) -> Result<()> {
        // The files live until the call has read them.
        let _here_documents = here_documents(call, &mut words, script)?;
        windows::resolve(&self.guest, call, &mut words)?;
        let reader = self.options.guest.key_reader();
        let bound = call.bind_words(&words)?;
        let bound = bound.read_keys(call, |argument| {
            // Where a script takes the place of standard input, the keys are in it.
            if reader.asks_nobody() {
                script.key(argument.name)
            } else {
                reader.read(argument.name).map_err(|e| e.of(argument.name))
            }
        })?;
        if self.is_tracing() {
            report::trace(&trace::call(call, &words));
        }
        // A bar would stand in the middle of what the call writes.
        let writes_to_terminal = self.output.is_terminal() && words.iter().any(|word| word == "-");
        if !writes_to_terminal {
            self.meter.start(call.name);
        }
        let started = Instant::now();
        let result = (call.invoke)(&mut self.guest, &bound);
        self.meter.finish();
        tracing::debug!(call = call.name, elapsed = ?started.elapsed(), "called");
        logging::set_verbose(self.guest.get_verbose().unwrap_or(false));
        if self.is_tracing() {
            report::trace(&trace::result(call.name, &result));
        }
        let value = result.map_err(|e| Error::call(call.name, e))?;
        self.print(call, &value)?;
        if call.name == "launch" && !self.options.guest.keys.is_empty() {
            self.guest.open_encrypted()?;
        }
        Ok(())
    }

    fn print(&mut self, call: &Call, value: &Value) -> Result<()> {
        if !self.options.json
            && let Value::Buffer(bytes) = value
        {
            if self.output.is_terminal() && is_binary(bytes) {
                return Err(message(format!("{}: {BINARY}", call.name)));
            }
            return self.output.write_all(bytes).map_err(|e| Error::output(&e));
        }
        let mut text = Vec::new();
        let printed = if self.options.json {
            json::to_json(value).map_or(Ok(()), |json| writeln!(text, "{json}"))
        } else {
            print::print(&mut text, value, call.print)
        };
        printed.and_then(|()| self.output.write_text(&text)).map_err(|e| Error::output(&e))
    }

    /// Runs a command with its output going to a program of the host.
    pub(crate) fn run_piped(
        &mut self,
        name: &BStr,
        words: Vec<BString>,
        pipe: &BStr,
        script: &mut Script,
    ) -> Result<()> {
        self.flush()?;
        let mut child = self
            .host_shell(pipe)?
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| message(format!("cannot run {pipe}: {e}")))?;
        let stdin = child.stdin.take().map(|stdin| File::from(OwnedFd::from(stdin)));
        let stdin = stdin.ok_or_else(|| message(format!("cannot write to {pipe}")))?;
        let outer = std::mem::replace(&mut self.output, Output::file(stdin));
        self.connect();
        let result = self
            .dispatch(name, words, script)
            .and_then(|()| self.output.flush().map_err(|e| Error::output(&e)));
        // The handle holds a clone: both must go before the program sees the end of its input.
        self.output = outer;
        self.connect();
        let status = child.wait().map_err(|e| message(format!("{pipe}: {e}")))?;
        match result {
            Err(Error::BrokenPipe) if self.options.pipe_error => {
                Err(message(format!("{pipe}: stopped reading before the end")))
            }
            Err(Error::BrokenPipe) => Ok(()),
            result => {
                if !status.success() {
                    tracing::info!("{pipe}: {status}");
                }
                result
            }
        }
    }

    /// Runs a program of the host that reads these bytes.
    pub(crate) fn feed(&mut self, command: &BStr, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        let cannot = |e: io::Error| message(format!("cannot run {command}: {e}"));
        let mut child = self.host_shell(command)?.stdin(Stdio::piped()).spawn().map_err(cannot)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may stop reading before the end.
            let _ = stdin.write_all(bytes);
        }
        let status = child.wait().map_err(cannot)?;
        ended(&command, status)
    }

    /// Runs a program of the host.
    fn run_host(&mut self, command: &BStr) -> Result<()> {
        self.flush()?;
        let status =
            self.host_shell(command)?.status().map_err(|e| message(format!("cannot run {command}: {e}")))?;
        ended(&format_args!("!{command}"), status)
    }

    /// Runs a program of the host, and its output as commands.
    fn run_inline(&mut self, command: &BStr) -> Result<()> {
        if self.inline_depth >= MAX_INLINE_DEPTH {
            return Err(message(format!("<!{command}: nested more than {MAX_INLINE_DEPTH} deep")));
        }
        self.flush()?;
        let mut child = self
            .host_shell(command)?
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| message(format!("cannot run {command}: {e}")))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(message(format!("cannot read from {command}")));
        };
        self.inline_depth += 1;
        let mut script = Script::from_reader(stdout, format!("<!{}", command.trim().as_bstr()));
        let result = self.run_script(&mut script);
        self.inline_depth -= 1;
        drop(script);
        self.reap(&mut child, command, result)
    }

    fn reap(&mut self, child: &mut Child, command: &BStr, result: Result<()>) -> Result<()> {
        let status = child.wait().map_err(|e| message(format!("{command}: {e}")))?;
        result?;
        ended(&format_args!("<!{command}"), status)
    }

    /// A program of the host, run by its shell with the session's environment.
    pub(crate) fn host_shell(&self, command: &BStr) -> Result<Process> {
        let mut process = Process::new("/bin/sh");
        process.arg("-c").arg(command.to_os_str().map_err(|e| message(e.to_string()))?);
        for (name, value) in &self.environment {
            match value {
                Some(value) => process.env(name, value),
                None => process.env_remove(name),
            };
        }
        Ok(process)
    }

    /// A variable of the environment, as the session has it.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        match self.environment.get(OsStr::new(name)) {
            Some(value) => value.clone(),
            None => std::env::var_os(name),
        }
    }

    /// Changes a variable of the environment for the programs that the shell starts.
    pub(crate) fn set_variable(&mut self, name: OsString, value: Option<OsString>) {
        self.environment.insert(name, value);
    }

    /// Writes out what was printed, before something else prints.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.output.flush().map_err(|e| Error::output(&e))
    }

    /// `~` and `~NAME` at the start of a word are home directories of the host.
    pub(crate) fn expand_home(&self, word: BString) -> BString {
        let Some(rest) = word.strip_prefix(b"~") else { return word };
        let (name, path) = rest.split_at(rest.find_byte(b'/').unwrap_or(rest.len()));
        let home = if name.is_empty() {
            self.variable("HOME")
        } else {
            name.to_str()
                .ok()
                .and_then(|name| nix::unistd::User::from_name(name).ok().flatten())
                .map(|user| user.dir.into_os_string())
        };
        match home {
            Some(home) => {
                let mut expanded = Vec::from(home.as_encoded_bytes());
                expanded.extend_from_slice(path);
                expanded.into()
            }
            None => word,
        }
    }
}

/// How a program of the host ended.
fn ended(command: &dyn Display, status: ExitStatus) -> Result<()> {
    // The terminal tells us of ^C too, but its program may be gone before we hear.
    if status.signal() == Some(Signal::SIGINT as i32) {
        return Err(Error::Interrupted);
    }
    if status.success() { Ok(()) } else { Err(message(format!("{command}: {status}"))) }
}

/// Puts the here-documents of a line (`-<<END` where a call reads a file) into files, and their
/// names into the words.
fn here_documents(call: &Call, words: &mut [BString], script: &mut Script) -> Result<Vec<NamedTempFile>> {
    let mut files = Vec::new();
    for (argument, word) in call.required().map(|at| &call.arguments[at]).zip(words) {
        if argument.kind != ArgumentKind::FileIn {
            continue;
        }
        let Some(end) = word.strip_prefix(b"-<<") else { continue };
        let content = script.here_document(end)?;
        let file = tempfile::Builder::new()
            .prefix("vmcraft-here-")
            .tempfile()
            .and_then(|mut file| file.write_all(&content).map(|()| file))
            .map_err(|e| message(format!("cannot keep the here-document: {e}")))?;
        *word = file.path().as_os_str().as_encoded_bytes().into();
        files.push(file);
    }
    Ok(files)
}
