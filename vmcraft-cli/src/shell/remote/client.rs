//! The side that sends commands.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bstr::{BStr, BString};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, Uid};

use super::wire::{Answer, Request, receive_answer, send_request};
use crate::error::{Error, Result, message};
use crate::interrupt;
use crate::output::Output;
use crate::report::program;

/// How often a client that waits looks whether ^C came.
const PATIENCE: Duration = Duration::from_millis(100);

/// Sends commands to a server.
pub(crate) struct Client {
    socket: PathBuf,
    pid: Pid,
}

impl Client {
    /// A client of the server that the option or the environment names.
    pub(crate) fn new(option: &str) -> Result<Self> {
        let own = if program().name == "guestfish" { "GUESTFISH_PID" } else { "VMCRAFT_PID" };
        let variables = [own, "VMCRAFT_PID", "GUESTFISH_PID"];
        let pid = match option {
            "" => variables
                .into_iter()
                .find_map(|name| std::env::var(name).ok().filter(|pid| !pid.is_empty()))
                .ok_or_else(|| {
                    message(format!(
                        "--remote: ${own} is not set: eval \"$({} --listen)\" sets it",
                        program().name
                    ))
                })?,
            pid => pid.to_owned(),
        };
        let number = pid.parse().ok().filter(|pid| *pid > 0);
        let pid =
            number.ok_or_else(|| message(format!("--remote: {pid:?} is not the number of a process")))?;
        let pid = Pid::from_raw(pid);
        Ok(Self { socket: super::socket(&super::directory()?, pid), pid })
    }

    /// Has the server run a command. Its output goes to `output`. The answer is whether the server
    /// goes on.
    pub(crate) fn run(
        &self,
        name: &BStr,
        words: Vec<BString>,
        tolerate_failure: bool,
        json: bool,
        output: &Output,
    ) -> Result<bool> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|e| {
            message(format!("--remote: no {} listens as process {}: {e}", program().name, self.pid))
        })?;
        let failed = |e: io::Error| message(format!("--remote: process {}: {e}", self.pid));
        let peer = getsockopt(&stream, sockopt::PeerCredentials).map_err(|e| failed(e.into()))?;
        if peer.uid() != Uid::effective().as_raw() {
            return Err(message(format!("--remote: process {} belongs to another user", self.pid)));
        }
        let mut all = vec![name.into()];
        all.extend(words);
        let request = Request { tolerate_failure, json, words: all };
        let stdout = output.descriptor().map_err(failed)?;
        let (stdin, stderr) = (io::stdin(), io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        send_request(&mut stream, &request, streams).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        match receive_answer(&mut Waiting(&stream)) {
            Ok(Answer::Done) => Ok(true),
            Ok(Answer::Exit) => Ok(false),
            Ok(Answer::Failed(why)) if why.is_empty() => Err(Error::Reported),
            Ok(Answer::Failed(why)) => Err(message(why.to_string())),
            Err(_) if interrupt::pending() => Err(Error::Interrupted),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(message(format!("--remote: process {} ended before it answered", self.pid)))
            }
            Err(e) => Err(failed(e)),
        }
    }
}

/// Reads from the server, and hangs up when ^C comes: the server then ends the call.
struct Waiting<'a>(&'a UnixStream);

impl Read for Waiting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if interrupt::pending() {
                        self.0.shutdown(Shutdown::Both)?;
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}
