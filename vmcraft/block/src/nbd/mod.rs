//! Network block devices: disks that a server lends.
//!
//! Own client of the NBD protocol: fixed newstyle handshake, structured and simple replies, what is
//! allocated, requests of many threads at once, on Unix and TCP sockets. `docs/formats/nbd.md` has
//! what is supported.
#![forbid(unsafe_code)]

mod connection;
mod coverage;
mod device;
mod handshake;
mod protocol;
mod stream;

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub use device::NbdDevice;
pub(crate) use protocol::printable;
pub use stream::Address;

use crate::BlockDevice as _;
use connection::Connection;
use handshake::HandshakeError;
use stream::{Stream, WithDeadline};

/// How an export is opened.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The export's name; empty for the server's default.
    pub export: String,
    /// Whether writes are refused. If not, the export must be writable.
    pub read_only: bool,
    /// How long the server may take from the connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// How long the server may be silent while a request waits; `None` for as long as it likes.
    pub reply_timeout: Option<Duration>,
}

impl Default for ConnectOptions {
    /// The default export, read-only; 30 seconds for the handshake, 5 minutes for a reply, which is
    /// as long as a flush to a slow disk may take.
    fn default() -> Self {
        Self {
            export: String::new(),
            read_only: true,
            handshake_timeout: Duration::from_secs(30),
            reply_timeout: Some(Duration::from_secs(300)),
        }
    }
}

impl NbdDevice {
    /// Connects to a server.
    ///
    /// `Unsupported` is a server that requires what we do not have, such as TLS; `NotFound` names
    /// the exports there are; `ReadOnlyFilesystem` is an export that may not be written.
    pub fn connect(address: &Address, options: &ConnectOptions) -> io::Result<Self> {
        let until = deadline(options);
        let stream = Stream::connect(address, until)?;
        let peer = match options.export.as_str() {
            "" => format!("NBD server {address}"),
            export => format!("NBD server {address}, export {export:?}"),
        };
        Self::over(stream, peer, until, options)
    }

    /// Uses a socket that is connected already. `peer` names the server in messages.
    pub fn from_socket(socket: UnixStream, peer: String, options: &ConnectOptions) -> io::Result<Self> {
        Self::over(Stream::Unix(socket), peer, deadline(options), options)
    }

    fn over(mut stream: Stream, peer: String, until: Instant, options: &ConnectOptions) -> io::Result<Self> {
        let talk = WithDeadline { stream: &mut stream, until };
        let export = handshake::negotiate(talk, &options.export).map_err(HandshakeError::into_io)?;
        tracing::debug!(peer, ?export, "NBD handshake done");
        let connection = Connection::new(peer, stream, &export, options.reply_timeout)?;
        let device = Self::new(connection, &export, options.read_only);
        if device.is_read_only() && !options.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the export is read-only; open it read-only",
            ));
        }
        Ok(device)
    }
}

fn deadline(options: &ConnectOptions) -> Instant {
    let now = Instant::now();
    // A time limit past the end of time is a century.
    now.checked_add(options.handshake_timeout).unwrap_or(now + Duration::from_secs(3_000_000_000))
}
