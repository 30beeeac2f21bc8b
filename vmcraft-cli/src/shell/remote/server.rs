//! The side that runs commands.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bstr::BString;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::wire::{Answer, Request, Streams, receive_request, send_answer};
use crate::error::{Error, Result, message};
use crate::interrupt;
use crate::shell::script::Script;
use crate::shell::session::Session;
use crate::shell::syntax;

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server says when it can take commands.
const READY: &str = "ready";

/// Starts a server in the background, waits until it can take commands, and prints what a shell has
/// to evaluate.
pub(crate) fn listen(csh: bool) -> Result<ExitCode> {
    let cannot = |e: io::Error| message(format!("--listen: cannot start: {e}"));
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    if let Some(called) = arguments.next() {
        command.arg0(called);
    }
    let mut child = command
        .arg("--serve")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(cannot)?;
    }
    if line.trim_end() != READY {
        // It said why on standard error.
        child.wait().map_err(cannot)?;
        return Err(Error::Reported);
    }
    let pid = child.id();
    let text: String = ["GUESTFISH_PID", "VMCRAFT_PID"]
        .map(|name| match csh {
            true => format!("setenv {name} {pid}; "),
            false => format!("{name}={pid}; export {name}; "),
        })
        .concat();
    let mut out = io::stdout();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(ExitCode::SUCCESS)
}

/// A socket that is there as long as the server is.
struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever removed it before us had the right to.
        let _ = fs::remove_file(&self.path);
    }
}

/// Runs the commands that clients send, until one is `exit` or fails.
pub(crate) fn serve(mut session: Session) -> Result<ExitCode> {
    let directory = super::directory()?;
    super::remove_stale(&directory);
    let path = super::socket(&directory, Pid::this());
    let cannot = |e: io::Error| message(format!("{}: cannot listen: {e}", path.display()));
    // The directory is entered by this user alone, so the socket's own mode does not matter.
    let listener = UnixListener::bind(&path).map_err(cannot)?;
    let socket = Socket { path: path.clone(), listener };
    // The terminal's ^C is not meant for us.
    setsid().map_err(|e| cannot(e.into()))?;
    println!("{READY}");
    detach().map_err(cannot)?;
    for stream in socket.listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let is_ours = getsockopt(&stream, sockopt::PeerCredentials)
            .is_ok_and(|peer| peer.uid() == Uid::effective().as_raw());
        if !is_ours {
            continue;
        }
        // One client that says nothing must not keep the others waiting.
        let _ = stream.set_read_timeout(Some(REQUEST_TIMEOUT));
        let received = receive_request(&mut stream);
        let _ = stream.set_read_timeout(None);
        match received {
            Ok((request, streams)) => {
                if !run(&mut session, request, streams, &mut stream) {
                    break;
                }
            }
            Err(e) => {
                // The client may be gone.
                let _ = send_answer(&mut stream, &Answer::Failed(e.to_string().into()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one command. Whether the server goes on.
fn run(session: &mut Session, request: Request, streams: Streams, stream: &mut UnixStream) -> bool {
    let answer = match attach(streams) {
        Ok(()) => {
            session.attach_to_descriptors();
            session.options.json = request.json;
            answer(session, &request.words, request.tolerate_failure, stream)
        }
        Err(e) => Answer::Failed(format!("cannot take the client's standard streams: {e}").into()),
    };
    session.finish();
    // Without them the next command would write to this client.
    let detached = detach().is_ok();
    let ends = match answer {
        Answer::Done => false,
        Answer::Exit => true,
        Answer::Failed(_) => !request.tolerate_failure,
    };
    // A client that hung up does not want the answer.
    let _ = send_answer(stream, &answer);
    detached && !ends
}

fn answer(session: &mut Session, words: &[BString], tolerate_failure: bool, stream: &UnixStream) -> Answer {
    let Some((command, _)) = syntax::from_words(words) else {
        return Answer::Failed("the request has no command".into());
    };
    let running = interrupt::running();
    let watched = watch(stream);
    // Here-documents were read by the client.
    let result = session.run_command(command, &mut Script::from_text("")).and_then(|()| session.flush());
    // The end is a part of the last command: its client hears of what fails.
    let ends = session.wants_exit || (result.is_err() && !tolerate_failure);
    let result = if ends { session.conclude(result) } else { result };
    session.report_warnings();
    *watched.lock().unwrap_or_else(|e| e.into_inner()) = false;
    drop(running);
    match result {
        Ok(()) if session.wants_exit => Answer::Exit,
        Ok(()) => Answer::Done,
        Err(Error::Reported) => Answer::Failed(BString::default()),
        Err(error) => Answer::Failed(error.to_string().into()),
    }
}

/// Ends the command if the client hangs up before the value in the result becomes false.
fn watch(stream: &UnixStream) -> Arc<Mutex<bool>> {
    let running = Arc::new(Mutex::new(true));
    let watched = running.clone();
    if let Ok(mut stream) = stream.try_clone() {
        // A thread that cannot be made only means that ^C in the client does not end the command.
        let _ = std::thread::Builder::new().name("client".into()).spawn(move || {
            let gone = !matches!(stream.read(&mut [0]), Ok(n) if n > 0);
            let running = watched.lock().unwrap_or_else(|e| e.into_inner());
            if gone && *running {
                interrupt::request();
            }
        });
    }
    running
}

/// Takes a client's streams for our own.
fn attach([input, output, error]: Streams) -> nix::Result<()> {
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(error)
}

/// Leaves the streams of whoever started us or sent the last command.
fn detach() -> io::Result<()> {
    io::stdout().flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
