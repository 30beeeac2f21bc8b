//! What client and server say: a request with the client's standard streams, and its answer.
//!
//! Numbers are little-endian. A text is its length in 4 bytes and its bytes. A request is a byte to
//! which the streams are attached, the texts `vmcraft-remote` and the version, a byte of flags, the
//! number of words in 4 bytes, and the words. An answer is a byte and a text.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bstr::BString;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

const NAME: &str = "vmcraft-remote";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The longest text: a word of a script, or a message.
const MAX_TEXT_BYTES: u32 = 16 << 20;
/// The most words of a command.
const MAX_WORDS: u32 = 100_000;

/// Standard input, output and error of the client.
pub(super) type Streams = [OwnedFd; 3];

/// A command for the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Whether the server goes on if it fails.
    pub(super) tolerate_failure: bool,
    /// Whether the result is wanted as JSON.
    pub(super) json: bool,
    /// The command and its words.
    pub(super) words: Vec<BString>,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was done.
    Done,
    /// It was done, and the server ends.
    Exit,
    /// It failed, and this is why; nothing if that was said already.
    Failed(BString),
}

/// Sends a request, with the streams that its command is to use.
pub(super) fn send_request(
    stream: &mut UnixStream,
    request: &Request,
    streams: [BorrowedFd<'_>; 3],
) -> io::Result<()> {
    let descriptors = streams.map(|stream| stream.as_raw_fd());
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::empty(), None)?;
    let mut bytes = Vec::new();
    push_text(&mut bytes, NAME.as_bytes())?;
    push_text(&mut bytes, VERSION.as_bytes())?;
    bytes.push(u8::from(request.tolerate_failure) | u8::from(request.json) << 1);
    let count = u32::try_from(request.words.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&count.to_le_bytes());
    request.words.iter().try_for_each(|word| push_text(&mut bytes, word))?;
    stream.write_all(&bytes)
}

/// Receives a request and the client's streams.
pub(super) fn receive_request(stream: &mut UnixStream) -> io::Result<(Request, Streams)> {
    let streams = receive_streams(stream)?;
    let name = read_text(stream)?;
    let version = read_text(stream)?;
    if name != NAME || version != VERSION {
        return Err(io::Error::other(format!(
            "the client is {name} {version}, and this server is {NAME} {VERSION}: both must be the same"
        )));
    }
    let flags = read_array::<1>(stream)?[0];
    let count = u32::from_le_bytes(read_array(stream)?);
    if count > MAX_WORDS {
        return Err(io::Error::other(format!("a command of {count} words is too long")));
    }
    let words = (0..count).map(|_| read_text(stream)).collect::<io::Result<_>>()?;
    Ok((Request { tolerate_failure: flags & 1 != 0, json: flags & 2 != 0, words }, streams))
}

/// Sends the answer.
pub(super) fn send_answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let (kind, text): (u8, &[u8]) = match answer {
        Answer::Done => (0, b""),
        Answer::Exit => (1, b""),
        Answer::Failed(text) => (2, text),
    };
    let mut bytes = vec![kind];
    push_text(&mut bytes, text)?;
    stream.write_all(&bytes)
}

/// Receives the answer.
pub(super) fn receive_answer(stream: &mut impl Read) -> io::Result<Answer> {
    let kind = read_array::<1>(stream)?[0];
    let text = read_text(stream)?;
    match kind {
        0 => Ok(Answer::Done),
        1 => Ok(Answer::Exit),
        2 => Ok(Answer::Failed(text)),
        _ => Err(io::Error::other("the answer is not in this program's protocol")),
    }
}

#[allow(unsafe_code)] // The kernel gives descriptors as numbers.
fn receive_streams(stream: &UnixStream) -> io::Result<Streams> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 3]);
    let received =
        recvmsg::<()>(stream.as_fd().as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut streams = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just opened these descriptors in this process, and nothing
            // else knows of them.
            streams.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    streams.try_into().map_err(|_| io::Error::other("the client did not send its three standard streams"))
}

fn push_text(bytes: &mut Vec<u8>, text: &[u8]) -> io::Result<()> {
    let len = u32::try_from(text.len()).ok().filter(|len| *len <= MAX_TEXT_BYTES);
    let len = len.ok_or_else(|| io::Error::other("a word is too long to be sent"))?;
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(text);
    Ok(())
}

fn read_array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_text(stream: &mut impl Read) -> io::Result<BString> {
    let len = u32::from_le_bytes(read_array(stream)?);
    if len > MAX_TEXT_BYTES {
        return Err(io::Error::other("a text is longer than this program's protocol has them"));
    }
    let mut text = Vec::new();
    if stream.take(len.into()).read_to_end(&mut text)? < usize::try_from(len).map_err(io::Error::other)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn devices() -> [File; 3] {
        std::array::from_fn(|_| File::open("/dev/null").unwrap())
    }

    #[test]
    fn requests_and_their_streams_arrive() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let request = Request {
            tolerate_failure: true,
            json: false,
            words: vec!["echo".into(), "".into(), b"a\0\xff\n".as_slice().into()],
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let null = devices();
        send_request(&mut client, &request, [file.as_fd(), null[1].as_fd(), null[2].as_fd()]).unwrap();
        let (received, streams) = receive_request(&mut server).unwrap();
        assert_eq!(received, request);
        let [input, ..] = streams;
        let mut content = String::new();
        let mut input = File::from(input);
        io::Seek::rewind(&mut input).unwrap();
        input.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn answers_arrive() {
        for answer in [Answer::Done, Answer::Exit, Answer::Failed("why".into())] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            send_answer(&mut server, &answer).unwrap();
            assert_eq!(receive_answer(&mut client).unwrap(), answer);
        }
    }

    #[test] // Another program of the same user must not make the server wait, fail or fill memory.
    fn what_is_not_a_request_is_refused() {
        for bytes in [&b""[..], b"x", b"\0\xff\xff\xff\xff", b"\0\x01\0\0\0x\x01\0\0\0y\0\0\0\0\0"] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            client.write_all(bytes).unwrap();
            drop(client);
            assert!(receive_request(&mut server).is_err(), "{bytes:?}");
        }
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let null = devices();
        let descriptors = null.each_ref().map(|file| file.as_raw_fd());
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(client.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::empty(), None).unwrap();
        client.write_all(b"\xff\xff\xff\xff").unwrap();
        assert!(receive_request(&mut server).unwrap_err().to_string().contains("longer"));
    }
}
