//! NBD servers for tests: real ones, and one whose every byte the test decides.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use vmcraft_block::nbd::{Address, ConnectOptions, NbdDevice};

/// A server's process, ended when dropped. It gets a socket that listens already, so that nobody has
/// to wait until it does.
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) process: Child,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts `qemu-nbd` or `nbdkit` on a Unix socket.
    pub(crate) fn start<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let dir = testkit::tempdir();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket can be bound");
        let process = spawn(program, arguments, listener.into());
        Self { address: Address::Unix(path), process, _dir: dir }
    }

    /// Starts `qemu-nbd` or `nbdkit` on a port of the loopback interface.
    pub(crate) fn start_tcp<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
        let port = listener.local_addr().expect("a bound port").port();
        let process = spawn(program, arguments, listener.into());
        Self {
            address: Address::Tcp { host: "127.0.0.1".to_owned(), port },
            process,
            _dir: testkit::tempdir(),
        }
    }

    /// The address as other NBD clients take it.
    pub(crate) fn uri(&self) -> String {
        match &self.address {
            Address::Unix(path) => format!("nbd+unix:///?socket={}", path.display()),
            Address::Tcp { host, port } => format!("nbd://{host}:{port}"),
        }
    }

    pub(crate) fn open(&self, read_only: bool) -> NbdDevice {
        let options = ConnectOptions { read_only, ..ConnectOptions::default() };
        NbdDevice::connect(&self.address, &options).expect("the server lends its export")
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the server still runs");
        self.process.wait().expect("the server was ours");
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait(&mut self) {
        self.process.wait().expect("the server was ours");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>, listener: OwnedFd) -> Child {
    Command::new("sh")
        .args(["-c", "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&0 </dev/null", "sh"])
        .arg(testkit::require(program))
        .args(arguments)
        .stdin(Stdio::from(listener))
        .spawn()
        .expect("a shell can be run")
}

/// The other end of a connection to a server that the test plays itself.
pub(crate) struct Puppet {
    pub(crate) stream: UnixStream,
}

/// `NBD_FLAG_HAS_FLAGS`, `SEND_FLUSH`, `SEND_TRIM`, `SEND_WRITE_ZEROES`.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6;
/// The number of `base:allocation`.
pub(crate) const CONTEXT: u32 = 42;

impl Puppet {
    /// Listens, does the handshake for an export of `size` bytes, and then plays what `play` says.
    /// The thread ends when the play does.
    pub(crate) fn serve(
        size: u64,
        play: impl FnOnce(&mut Self) + Send + 'static,
    ) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<()>) {
        let dir = testkit::tempdir();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket can be bound");
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the client connects");
            let mut puppet = Self { stream };
            puppet.handshake(size);
            play(&mut puppet);
        });
        (dir, path, thread)
    }

    pub(crate) fn send(&mut self, parts: &[&[u8]]) {
        // The client may have hung up on what was sent before.
        let _ = self.stream.write_all(&parts.concat());
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("the client goes on");
        bytes
    }

    fn handshake(&mut self, size: u64) {
        self.send(&[b"NBDMAGICIHAVEOPT", &[0, 3]]);
        let _client_flags: [u8; 4] = self.take();
        loop {
            let _magic: [u8; 8] = self.take();
            let option: [u8; 4] = self.take();
            let len = u32::from_be_bytes(self.take());
            let mut data = vec![0; len as usize];
            self.stream.read_exact(&mut data).expect("the client goes on");
            let reply = |kind: u32, data: &[u8]| {
                let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
                let len = u32::try_from(data.len()).expect("short");
                [&magic[..], &option, &kind.to_be_bytes(), &len.to_be_bytes(), data].concat()
            };
            match u32::from_be_bytes(option) {
                8 => self.send(&[&reply(1, b"")]),
                10 => {
                    let context = [&CONTEXT.to_be_bytes()[..], b"base:allocation"].concat();
                    self.send(&[&reply(4, &context), &reply(1, b"")]);
                }
                7 => {
                    let info = [&[0, 0][..], &size.to_be_bytes(), &FLAGS.to_be_bytes()].concat();
                    self.send(&[&reply(3, &info), &reply(1, b"")]);
                    return;
                }
                other => panic!("option {other}"),
            }
        }
    }

    /// The next request: command, cookie, offset, length. `None` when the client is gone.
    pub(crate) fn request(&mut self) -> Option<(u16, u64, u64, u32)> {
        let mut raw = [0; 28];
        self.stream.read_exact(&mut raw).ok()?;
        let [magic, command, cookie, offset, len] = [0..4, 6..8, 8..16, 16..24, 24..28]
            .map(|range| raw[range].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte)));
        assert_eq!(magic, 0x2560_9513);
        Some((u16::try_from(command).ok()?, cookie, offset, u32::try_from(len).ok()?))
    }

    /// A chunk of a structured reply.
    pub(crate) fn chunk(&mut self, flags: u16, kind: u16, cookie: u64, data: &[u8]) {
        let len = u32::try_from(data.len()).expect("short");
        self.chunk_head(flags, kind, cookie, len);
        self.send(&[data]);
    }

    /// The head of a chunk, without what should follow.
    pub(crate) fn chunk_head(&mut self, flags: u16, kind: u16, cookie: u64, len: u32) {
        let magic = 0x668e_33ef_u32.to_be_bytes();
        self.send(&[
            &magic,
            &flags.to_be_bytes(),
            &kind.to_be_bytes(),
            &cookie.to_be_bytes(),
            &len.to_be_bytes(),
        ]);
    }
}
