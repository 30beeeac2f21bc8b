//! The two kinds of socket that a server listens on.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::TimeVal;

/// Where an NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port; the protocol's own is 10809.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects, or fails with `TimedOut`. Looking up a host's name has the resolver's own limit.
    pub(crate) fn connect(address: &Address, until: Instant) -> io::Result<Self> {
        match address {
            Address::Unix(path) => {
                let path = UnixAddr::new(path)?;
                let fd = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
                // A server that accepts nobody makes `connect` wait for room in its queue.
                let micros = i64::try_from(remaining(until)?.as_micros()).unwrap_or(i64::MAX);
                let limit = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
                socket::setsockopt(&fd, sockopt::SendTimeout, &limit)?;
                socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &path).map_err(|e| match e {
                    nix::errno::Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
                    e => io::Error::from(e),
                })?;
                Ok(Self::Unix(fd.into()))
            }
            Address::Tcp { host, port } => {
                let mut failure = None;
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, remaining(until)?) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            // A server whose machine is gone must not look like one that is slow.
                            socket::setsockopt(&stream, sockopt::KeepAlive, &true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(e) => failure = Some(e),
                    }
                }
                Err(failure.unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))
                }))
            }
        }
    }

    /// The same socket once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }

    /// How long a read or write waits for the server before it fails with `WouldBlock`.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    /// Ends the connection; readers and writers of all clones return.
    pub(crate) fn shutdown(&self) {
        // It fails only if the other end was quicker.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buf),
            Self::Tcp(stream) => stream.read(buf),
        }
    }
}

// There is no `write_vectored` on purpose: the standard library's `write` on a socket raises no
// SIGPIPE, its `write_vectored` does.
impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buf),
            Self::Tcp(stream) => stream.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream on which everything must be over at one moment, however many bytes trickle in before.
pub(crate) struct WithDeadline<'a> {
    pub(crate) stream: &'a mut Stream,
    pub(crate) until: Instant,
}

impl Read for WithDeadline<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_timeout(Some(remaining(self.until)?))?;
        self.stream.read(buf).map_err(timed_out)
    }
}

impl Write for WithDeadline<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_timeout(Some(remaining(self.until)?))?;
        self.stream.write(buf).map_err(timed_out)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time left, never 0.
fn remaining(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}

/// A socket's time limit shows as `WouldBlock`.
pub(crate) fn timed_out(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { e }
}
