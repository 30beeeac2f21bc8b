//! The transmission phase: requests of many threads on one socket.
//!
//! There is no thread of our own. Each request has a cookie; a thread that waits for an answer reads
//! the socket if no other thread does, and hands on the answers that are not its own. When it has
//! its own it passes the reading on to a thread that still waits. A single caller thus reads
//! straight into its own buffer and never changes threads.
//!
//! That cannot get stuck, even with a server that does one thing at a time: a thread sends all that
//! it wants in one go and then does nothing but read or wait for who reads, so that while anybody
//! is blocked in sending, every answer that could block the server has a reader.
//!
//! Everything that a server sends is checked against the request before memory is taken for it. A
//! server that breaks the protocol is not listened to any more: the connection is dead, and all
//! requests, now and later, fail with the reason.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::coverage::Coverage;
use super::handshake::Export;
use super::protocol::{
    ChunkKind, Command, Errno, MAX_STRING, RawChunk, RawDescriptor, RawHole, RawRequest, RawSimpleReply,
    SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, printable,
};
use super::stream::{Stream, timed_out};

/// Bytes that are read ahead from the socket: heads of replies, not data.
const READ_AHEAD: usize = 4096;
/// Writes up to this many bytes are sent together with their head.
const SEND_TOGETHER: usize = 16 << 10;
/// The longest chunk that is neither data nor block status: an error's numbers and its text.
const MAX_ERROR_CHUNK: usize = MAX_STRING + 64;
/// The longest block status chunk, as QEMU and libnbd have it too.
const MAX_STATUS_CHUNK: usize = 1 << 20;

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) command: Command,
    pub(crate) flags: u16,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) data: Data<'a>,
}

/// What goes along with a request or comes with its answer.
pub(crate) enum Data<'a> {
    Nothing,
    /// As long as the request.
    Send(&'a [u8]),
    /// As long as the request.
    Receive(&'a mut [u8]),
    Descriptors(&'a mut Vec<RawDescriptor>),
}

/// A connection after its handshake.
pub(crate) struct Connection {
    /// For messages: which server and export this is.
    peer: String,
    structured_replies: bool,
    allocation_context: Option<u32>,
    stream: Stream,
    writer: Mutex<Stream>,
    state: Mutex<State>,
}

struct State {
    next_cookie: u64,
    /// Requests without a whole answer, by cookie. The one whose answer is being read is not in it.
    in_flight: HashMap<u64, InFlight>,
    /// Requests with a whole answer, until their thread takes it.
    done: HashMap<u64, InFlight>,
    /// The socket's reading end; `None` while a thread reads.
    reader: Option<BufReader<Stream>>,
    /// Threads that wait for who reads.
    waiting: Vec<Waiter>,
    dead: Option<Dead>,
}

/// A request that was sent, and what has arrived of its answer.
struct InFlight {
    command: Command,
    offset: u64,
    len: u32,
    coverage: Coverage,
    /// A read's data, if another thread than the one that asked has received it.
    data: Option<Vec<u8>>,
    descriptors: Option<Vec<RawDescriptor>>,
    failure: Option<(Errno, String)>,
}

struct Waiter {
    cookies: std::ops::Range<u64>,
    wake: Arc<Condvar>,
}

/// Why a connection cannot be used any more.
#[derive(Debug, Clone)]
struct Dead {
    kind: io::ErrorKind,
    reason: String,
}

impl From<io::Error> for Dead {
    fn from(e: io::Error) -> Self {
        let e = timed_out(e);
        let reason = match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                "the server closed the connection".to_owned()
            }
            io::ErrorKind::TimedOut => "the server did not answer in time".to_owned(),
            _ => e.to_string(),
        };
        let kind = match e.kind() {
            io::ErrorKind::UnexpectedEof => io::ErrorKind::ConnectionAborted,
            kind => kind,
        };
        Self { kind, reason }
    }
}

/// The server did what the spec does not allow.
fn broken(what: impl std::fmt::Display) -> Dead {
    let reason = format!("the server does not keep to the NBD protocol: {what}");
    Dead { kind: io::ErrorKind::InvalidData, reason }
}

impl Connection {
    /// Takes over a socket whose handshake is done. `timeout` is how long the server may be silent
    /// while a request waits.
    pub(crate) fn new(
        peer: String,
        stream: Stream,
        export: &Export,
        timeout: Option<Duration>,
    ) -> io::Result<Self> {
        stream.set_timeout(timeout)?;
        let reader = BufReader::with_capacity(READ_AHEAD, stream.try_clone()?);
        Ok(Self {
            peer,
            structured_replies: export.structured_replies,
            allocation_context: export.allocation_context,
            writer: Mutex::new(stream.try_clone()?),
            stream,
            state: Mutex::new(State {
                next_cookie: 1,
                in_flight: HashMap::new(),
                done: HashMap::new(),
                reader: Some(reader),
                waiting: Vec::new(),
                dead: None,
            }),
        })
    }

    /// Whether the server is gone, or broke the protocol.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead.is_some()
    }

    /// Sends all requests at once and waits for all answers. The error is the first one's.
    pub(crate) fn run(&self, calls: &mut [Call<'_>]) -> io::Result<()> {
        let cookies = self.register(calls)?;
        if let Err(e) = self.send(cookies.start, calls) {
            self.die(&mut self.state(), e.into());
        }
        let mut state = self.state();
        while state.dead.is_none() && !cookies.clone().all(|cookie| state.done.contains_key(&cookie)) {
            if let Some(mut reader) = state.reader.take() {
                drop(state);
                let outcome = self.lead(&mut reader, &cookies, calls);
                state = self.state();
                state.reader = Some(reader);
                if let Err(dead) = outcome {
                    self.die(&mut state, dead);
                }
            } else {
                let wake = Arc::new(Condvar::new());
                state.waiting.push(Waiter { cookies: cookies.clone(), wake: wake.clone() });
                // Spurious wake-ups only go once more round the loop.
                state = wake.wait(state).unwrap_or_else(|e| e.into_inner());
                state.waiting.retain(|waiter| waiter.cookies != cookies);
            }
        }
        if state.reader.is_some()
            && let Some(waiter) = state.waiting.first()
        {
            waiter.wake.notify_one();
        }
        self.take_answers(state, cookies, calls)
    }

    /// Says goodbye. The server answers nothing.
    pub(crate) fn disconnect(&self) {
        if !self.is_dead() {
            let request = RawRequest::new(Command::Disconnect, 0, 0, 0, 0);
            // A server that does not take it finds the socket closed.
            let _ = self.writer().write_all(request.as_bytes());
        }
        self.die(
            &mut self.state(),
            Dead { kind: io::ErrorKind::NotConnected, reason: "the connection was closed".to_owned() },
        );
    }

    // A thread that panicked here left nothing half done that others rely on: a request whose answer
    // it was reading stays without one, and the reader it took stays away. The latter would make
    // others wait, but no code between taking and returning the reader can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn writer(&self) -> MutexGuard<'_, Stream> {
        self.writer.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn error(&self, dead: &Dead) -> io::Error {
        io::Error::new(dead.kind, format!("{}: {}", self.peer, dead.reason))
    }

    fn register(&self, calls: &[Call<'_>]) -> io::Result<std::ops::Range<u64>> {
        let mut state = self.state();
        if let Some(dead) = &state.dead {
            return Err(self.error(dead));
        }
        let first = state.next_cookie;
        for call in calls {
            let cookie = state.next_cookie;
            state.next_cookie = cookie.wrapping_add(1);
            state.in_flight.insert(
                cookie,
                InFlight {
                    command: call.command,
                    offset: call.offset,
                    len: call.len,
                    coverage: Coverage::default(),
                    data: None,
                    descriptors: None,
                    failure: None,
                },
            );
        }
        Ok(first..state.next_cookie)
    }

    fn send(&self, first: u64, calls: &[Call<'_>]) -> io::Result<()> {
        let mut writer = self.writer();
        let mut together = Vec::with_capacity(calls.len() * size_of::<RawRequest>());
        for (cookie, call) in (first..).zip(calls) {
            let request = RawRequest::new(call.command, call.flags, cookie, call.offset, call.len);
            together.extend_from_slice(request.as_bytes());
            match call.data {
                Data::Send(data) if data.len() <= SEND_TOGETHER => together.extend_from_slice(data),
                Data::Send(data) => {
                    writer.write_all(&together)?;
                    together.clear();
                    writer.write_all(data)?;
                }
                _ => {}
            }
        }
        writer.write_all(&together)
    }

    /// Ends the connection and wakes everybody up.
    fn die(&self, state: &mut State, dead: Dead) {
        state.dead.get_or_insert(dead);
        self.stream.shutdown();
        for waiter in &state.waiting {
            waiter.wake.notify_one();
        }
    }

    /// Reads answers until all of `cookies` have theirs.
    fn lead(
        &self,
        reader: &mut BufReader<Stream>,
        cookies: &std::ops::Range<u64>,
        calls: &mut [Call<'_>],
    ) -> Result<(), Dead> {
        let done = |state: &State| cookies.clone().filter(|cookie| state.done.contains_key(cookie)).count();
        let mut missing = calls.len() - done(&self.state());
        while missing > 0 {
            let answered = self.read_reply(reader, |cookie| {
                let index = usize::try_from(cookie.checked_sub(cookies.start)?).ok()?;
                match &mut calls.get_mut(index)?.data {
                    Data::Receive(buf) => Some(&mut **buf),
                    _ => None,
                }
            })?;
            if answered.is_some_and(|cookie| cookies.contains(&cookie)) {
                missing -= 1;
            }
        }
        Ok(())
    }

    /// Reads one reply, or one chunk of one. The answer is the cookie of a request that has all of
    /// its reply now. `own` gives the buffer of a request that is the reading thread's.
    fn read_reply<'a>(
        &self,
        reader: &mut BufReader<Stream>,
        own: impl FnOnce(u64) -> Option<&'a mut [u8]>,
    ) -> Result<Option<u64>, Dead> {
        let magic: U32 = read(reader)?;
        let (cookie, reply) = match magic.get() {
            SIMPLE_REPLY_MAGIC => {
                let reply: RawSimpleReply = read(reader)?;
                (reply.cookie.get(), Reply::Simple { error: reply.error.get() })
            }
            STRUCTURED_REPLY_MAGIC if self.structured_replies => {
                let chunk: RawChunk = read(reader)?;
                (chunk.cookie.get(), Reply::Chunk(chunk))
            }
            STRUCTURED_REPLY_MAGIC => return Err(broken("a structured reply, which was not agreed on")),
            magic => return Err(broken(format!("a reply that starts with {magic:#010x}"))),
        };
        // Only the thread that reads takes requests out, and puts them back or among those done.
        let Some(mut call) = self.state().in_flight.remove(&cookie) else {
            return Err(broken(format!("a reply to request {cookie}, which is not open")));
        };
        let target = own(cookie);
        let is_last = match reply {
            Reply::Simple { error } => self.simple_reply(reader, &mut call, target, error).map(|()| true)?,
            Reply::Chunk(chunk) => {
                self.chunk(reader, &mut call, target, &chunk)?;
                chunk.is_last()
            }
        };
        if is_last {
            call.check_whole()?;
        }
        let mut state = self.state();
        if !is_last {
            state.in_flight.insert(cookie, call);
            return Ok(None);
        }
        state.done.insert(cookie, call);
        if let Some(waiter) = state.waiting.iter().find(|waiter| waiter.cookies.contains(&cookie)) {
            waiter.wake.notify_one();
        }
        Ok(Some(cookie))
    }

    fn simple_reply(
        &self,
        reader: &mut BufReader<Stream>,
        call: &mut InFlight,
        target: Option<&mut [u8]>,
        error: u32,
    ) -> Result<(), Dead> {
        match (error, call.command) {
            (0, Command::Read) if self.structured_replies => {
                Err(broken("a simple reply to a read, where a structured one was agreed on"))
            }
            (0, Command::Read) => call.receive(reader, target, 0, call.len.into()),
            (0, Command::BlockStatus) => Err(broken("a simple reply to a block status request")),
            (0, _) => Ok(()),
            (error, _) => {
                call.failure = Some((Errno(error), String::new()));
                Ok(())
            }
        }
    }

    fn chunk(
        &self,
        reader: &mut BufReader<Stream>,
        call: &mut InFlight,
        target: Option<&mut [u8]>,
        chunk: &RawChunk,
    ) -> Result<(), Dead> {
        let len = usize::try_from(chunk.len.get()).unwrap_or(usize::MAX);
        let kind = ChunkKind::decode(chunk.kind.get());
        match (kind, call.command) {
            (ChunkKind::None, _) if len == 0 && chunk.is_last() => Ok(()),
            (ChunkKind::OffsetData, Command::Read) if len > size_of::<U64>() => {
                let start: U64 = read(reader)?;
                let start = call.relative(start.get())?;
                call.receive(reader, target, start, (len - size_of::<U64>()) as u64)
            }
            (ChunkKind::OffsetHole, Command::Read) if len == size_of::<RawHole>() => {
                let hole: RawHole = read(reader)?;
                let (start, len) = (call.relative(hole.offset.get())?, hole.len.get().into());
                call.target(target, start, len)?.fill(0);
                Ok(())
            }
            (ChunkKind::BlockStatus, Command::BlockStatus) if len <= MAX_STATUS_CHUNK => {
                let data = read_vec(reader, len)?;
                let status = U32::read_from_prefix(&data).ok().and_then(|(context, rest)| {
                    let descriptors = <[RawDescriptor]>::ref_from_bytes(rest).ok()?;
                    (Some(context.get()) == self.allocation_context && !descriptors.is_empty())
                        .then(|| descriptors.to_vec())
                });
                match status {
                    Some(descriptors) if call.descriptors.is_none() => call.descriptors = Some(descriptors),
                    _ => return Err(broken("a block status that was not asked for")),
                }
                Ok(())
            }
            (ChunkKind::Error, _) if len <= MAX_ERROR_CHUNK => {
                let data = read_vec(reader, len)?;
                let error = decode_error(&data).ok_or_else(|| broken("an error chunk that is cut off"))?;
                call.failure.get_or_insert(error);
                Ok(())
            }
            (kind, command) => {
                Err(broken(format!("a chunk {kind:?} of {len} bytes in answer to a {command} request")))
            }
        }
    }

    /// Gives each call its answer; after the connection's death, its reason.
    fn take_answers(
        &self,
        mut state: MutexGuard<'_, State>,
        cookies: std::ops::Range<u64>,
        calls: &mut [Call<'_>],
    ) -> io::Result<()> {
        let answers: Vec<_> = cookies
            .map(|cookie| {
                state.in_flight.remove(&cookie);
                state.done.remove(&cookie)
            })
            .collect();
        let dead = state.dead.clone();
        drop(state);
        let mut result = Ok(());
        for (call, answer) in calls.iter_mut().zip(answers) {
            let failure = match answer {
                Some(InFlight { failure: Some((errno, text)), .. }) => self.failed(call, errno, &text),
                Some(answer) => {
                    match (&mut call.data, answer.data, answer.descriptors) {
                        (Data::Receive(buf), Some(data), _) => buf.copy_from_slice(&data),
                        (Data::Descriptors(list), _, Some(descriptors)) => **list = descriptors,
                        _ => {}
                    }
                    continue;
                }
                None => match &dead {
                    Some(dead) => self.error(dead),
                    // The caller's loop ends only with an answer to each or with death.
                    None => io::ErrorKind::ConnectionAborted.into(),
                },
            };
            if result.is_ok() {
                result = Err(failure);
            }
        }
        result
    }

    fn failed(&self, call: &Call<'_>, errno: Errno, text: &str) -> io::Error {
        let Call { command, offset, len, .. } = call;
        let what = match command {
            Command::Flush | Command::Disconnect => command.to_string(),
            command => format!("{command} of {len} bytes at byte {offset:#x}"),
        };
        let says = if text.is_empty() { String::new() } else { format!(" (it says: {text})") };
        io::Error::new(errno.kind(), format!("{}: {what}: {errno}{says}", self.peer))
    }
}

enum Reply {
    Simple { error: u32 },
    Chunk(RawChunk),
}

impl InFlight {
    /// Where in the request an offset into the export is.
    fn relative(&self, offset: u64) -> Result<u64, Dead> {
        offset.checked_sub(self.offset).ok_or_else(|| broken("data from before the request"))
    }

    /// The part of the buffer that `len` bytes from `start` go to, counted from the request's start.
    /// Each byte can be had only once.
    fn target<'a>(
        &'a mut self,
        own: Option<&'a mut [u8]>,
        start: u64,
        len: u64,
    ) -> Result<&'a mut [u8], Dead> {
        let end = start.checked_add(len).filter(|end| *end <= self.len.into() && len > 0);
        let end = end.ok_or_else(|| broken("data from past the request"))?;
        self.coverage.add(start, end).map_err(broken)?;
        let whole = usize::try_from(self.len).map_err(broken)?;
        // What another thread has begun to receive must stay in one place.
        let buf = match (&mut self.data, own) {
            (None, Some(own)) => own,
            (data, _) => data.get_or_insert_with(|| vec![0; whole]),
        };
        let range = usize::try_from(start).map_err(broken)?..usize::try_from(end).map_err(broken)?;
        buf.get_mut(range).ok_or_else(|| broken("data from past the request"))
    }

    fn receive(
        &mut self,
        reader: &mut BufReader<Stream>,
        own: Option<&mut [u8]>,
        start: u64,
        len: u64,
    ) -> Result<(), Dead> {
        Ok(reader.read_exact(self.target(own, start, len)?)?)
    }

    /// Checks, at the end of an answer, that it has all that was asked for.
    fn check_whole(&self) -> Result<(), Dead> {
        let whole = match self.command {
            _ if self.failure.is_some() => true,
            Command::Read => self.coverage.is_whole(self.len.into()),
            Command::BlockStatus => self.descriptors.is_some(),
            _ => true,
        };
        if whole {
            Ok(())
        } else {
            Err(broken(format!("an incomplete answer to a {} request", self.command)))
        }
    }
}

fn read<T: FromBytes + IntoBytes>(reader: &mut impl Read) -> Result<T, Dead> {
    let mut value = T::new_zeroed();
    reader.read_exact(value.as_mut_bytes())?;
    Ok(value)
}

/// `len` is bounded by the caller.
fn read_vec(reader: &mut impl Read, len: usize) -> Result<Vec<u8>, Dead> {
    let mut data = vec![0; len];
    reader.read_exact(&mut data)?;
    Ok(data)
}

/// The number and the text of an error chunk.
fn decode_error(data: &[u8]) -> Option<(Errno, String)> {
    let (error, rest) = U32::read_from_prefix(data).ok()?;
    let (len, rest) = U16::read_from_prefix(rest).ok()?;
    let text = rest.get(..len.get().into())?;
    Some((Errno(error.get()), printable(text)))
}
