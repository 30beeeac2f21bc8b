//! The handshake: from a fresh connection to an export that can be read.
//!
//! Fixed newstyle: structured replies and the `base:allocation` context are asked for, then the
//! export by `NBD_OPT_GO`, which tells block sizes and says why it refuses. A server that does not
//! know `NBD_OPT_GO` is asked by `NBD_OPT_EXPORT_NAME`, which can only hang up.

use std::fmt;
use std::io::{self, Read, Write};

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::protocol::{
    BlockSizes, HandshakeFlags, INFO_BLOCK_SIZE, INFO_EXPORT, INIT_MAGIC, MAX_STRING, OLDSTYLE_MAGIC,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionCode, OptionReply, RawOption, RawOptionReply, Refusal,
    TransmissionFlags, printable,
};

/// The longest reply to an option that we take: two strings and what is around them.
const MAX_REPLY: usize = 4 * MAX_STRING;
/// How many replies a server may give to one option.
const MAX_REPLIES: usize = 4096;
/// How many exports an error message names.
const EXPORTS_NAMED: usize = 20;

const ALLOCATION: &[u8] = b"base:allocation";

/// What was agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    /// In bytes; fits in an `i64`.
    pub(crate) size: u64,
    pub(crate) flags: TransmissionFlags,
    pub(crate) block_sizes: BlockSizes,
    /// Whether reads are answered in chunks.
    pub(crate) structured_replies: bool,
    /// The number that the server gave `base:allocation`, if it has it.
    pub(crate) allocation_context: Option<u32>,
}

/// Why there is no export to read.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Io(io::Error),
    /// The server speaks, but not what we speak; the feature's name.
    Unsupported(&'static str),
    /// Not what the spec allows a server to send.
    Protocol(String),
    /// The server said no; its words may follow.
    Refused {
        refusal: Refusal,
        text: String,
    },
    /// There is no export of that name. `None`: the server does not tell which it has.
    UnknownExport {
        name: String,
        others: Option<Vec<String>>,
    },
}

impl From<io::Error> for HandshakeError {
    fn from(e: io::Error) -> Self {
        Self::Io(match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                io::Error::new(io::ErrorKind::ConnectionAborted, "the server hung up during the handshake")
            }
            io::ErrorKind::TimedOut => {
                io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")
            }
            _ => e,
        })
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Unsupported(feature) => f.write_str(feature),
            Self::Protocol(what) => write!(f, "the server does not keep to the NBD protocol: {what}"),
            Self::Refused { refusal, text } if text.is_empty() => refusal.fmt(f),
            Self::Refused { refusal, text } => write!(f, "{refusal} (it says: {text})"),
            Self::UnknownExport { name, others } => {
                write!(f, "no export {name:?}; ")?;
                match others.as_deref() {
                    None => f.write_str("the server does not tell which it has"),
                    Some([]) => f.write_str("the server has none"),
                    Some(others) => {
                        f.write_str("the server has ")?;
                        for (i, other) in others.iter().take(EXPORTS_NAMED).enumerate() {
                            write!(f, "{}{other:?}", if i > 0 { ", " } else { "" })?;
                        }
                        match others.len().saturating_sub(EXPORTS_NAMED) {
                            0 => Ok(()),
                            more => write!(f, " and {more} more"),
                        }
                    }
                }
            }
        }
    }
}

impl HandshakeError {
    /// As an I/O error, for who cannot tell them apart.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Io(_) => {
                let Self::Io(e) = self else { return io::ErrorKind::Other.into() };
                return e;
            }
            Self::Unsupported(_) => io::ErrorKind::Unsupported,
            Self::Protocol(_) => io::ErrorKind::InvalidData,
            Self::Refused { .. } => io::ErrorKind::PermissionDenied,
            Self::UnknownExport { .. } => io::ErrorKind::NotFound,
        };
        io::Error::new(kind, self.to_string())
    }
}

type Result<T> = std::result::Result<T, HandshakeError>;

const TLS: &str = "TLS, which the NBD server requires; offer the export on a Unix socket or without TLS";
const OLDSTYLE: &str =
    "NBD's oldstyle handshake, which the server speaks; its program has an option for newstyle";

/// Asks for the export of that name. The caller sees to it that reads and writes do not last forever.
pub(crate) fn negotiate<S: Read + Write>(stream: S, name: &str) -> Result<Export> {
    if name.len() > MAX_STRING {
        return Err(HandshakeError::Protocol(format!("an export name is at most {MAX_STRING} bytes long")));
    }
    let mut peer = Peer { stream };
    let flags = peer.greet()?;
    let fixed = flags.contains(HandshakeFlags::FIXED_NEWSTYLE);
    let (mut structured_replies, mut allocation_context) = (false, None);
    if fixed {
        structured_replies = peer.structured_replies()?;
        if structured_replies {
            allocation_context = peer.allocation_context(name)?;
        }
        if let Some((size, flags, block_sizes)) = peer.go(name)? {
            return export(size, flags, block_sizes, structured_replies, allocation_context);
        }
    }
    let (size, transmission) = peer.export_name(name, flags.contains(HandshakeFlags::NO_ZEROES))?;
    export(size, transmission, BlockSizes::DEFAULT, structured_replies, allocation_context)
}

fn export(
    size: u64,
    flags: u16,
    block_sizes: BlockSizes,
    structured_replies: bool,
    allocation_context: Option<u32>,
) -> Result<Export> {
    if i64::try_from(size).is_err() {
        return Err(HandshakeError::Protocol(format!("an export of {size} bytes")));
    }
    let mut flags = TransmissionFlags::from_bits_truncate(flags);
    if !flags.contains(TransmissionFlags::HAS_FLAGS) {
        flags = TransmissionFlags::empty();
    }
    Ok(Export { size, flags, block_sizes, structured_replies, allocation_context })
}

/// A server in its handshake.
struct Peer<S> {
    stream: S,
}

/// A reply to an option, with what came with it.
struct Reply {
    kind: OptionReply,
    data: Vec<u8>,
}

impl Reply {
    fn refused(&self, refusal: Refusal) -> HandshakeError {
        match refusal {
            Refusal::TlsRequired => HandshakeError::Unsupported(TLS),
            refusal => HandshakeError::Refused { refusal, text: printable(&self.data) },
        }
    }
    fn unexpected(&self, option: OptionCode) -> HandshakeError {
        HandshakeError::Protocol(format!("{:?} in answer to {option:?}", self.kind))
    }
}

impl<S: Read + Write> Peer<S> {
    fn read<T: FromBytes + IntoBytes>(&mut self) -> Result<T> {
        let mut value = T::new_zeroed();
        self.stream.read_exact(value.as_mut_bytes())?;
        Ok(value)
    }

    fn write<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Result<()> {
        Ok(self.stream.write_all(value.as_bytes())?)
    }

    /// The greetings of both sides.
    fn greet(&mut self) -> Result<HandshakeFlags> {
        let [magic, style] = self.read::<[U64; 2]>()?.map(U64::get);
        match (magic, style) {
            (INIT_MAGIC, OPTION_MAGIC) => {}
            (INIT_MAGIC, OLDSTYLE_MAGIC) => return Err(HandshakeError::Unsupported(OLDSTYLE)),
            _ => return Err(HandshakeError::Protocol("it is no NBD server".to_owned())),
        }
        let flags = HandshakeFlags::from_bits_truncate(self.read::<U16>()?.get());
        self.write(&U32::new(flags.bits().into()))?;
        Ok(flags)
    }

    fn send_option(&mut self, option: OptionCode, data: &[u8]) -> Result<()> {
        let len = u32::try_from(data.len()).map_err(|e| HandshakeError::Protocol(e.to_string()))?;
        let mut bytes = RawOption::new(option, len).as_bytes().to_vec();
        bytes.extend_from_slice(data);
        self.write(bytes.as_slice())
    }

    fn read_reply(&mut self, option: OptionCode) -> Result<Reply> {
        let raw: RawOptionReply = self.read()?;
        if raw.magic.get() != OPTION_REPLY_MAGIC || raw.option.get() != option as u32 {
            return Err(HandshakeError::Protocol(format!("not a reply to {option:?}")));
        }
        let len = usize::try_from(raw.len.get()).unwrap_or(usize::MAX);
        if len > MAX_REPLY {
            return Err(HandshakeError::Protocol(format!("a reply of {len} bytes to {option:?}")));
        }
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data)?;
        Ok(Reply { kind: OptionReply::decode(raw.reply.get()), data })
    }

    fn structured_replies(&mut self) -> Result<bool> {
        self.send_option(OptionCode::StructuredReply, &[])?;
        let reply = self.read_reply(OptionCode::StructuredReply)?;
        match reply.kind {
            OptionReply::Ack => Ok(true),
            // Without TLS nothing else would be granted either.
            OptionReply::Refused(refusal @ Refusal::TlsRequired) => Err(reply.refused(refusal)),
            OptionReply::Refused(_) => Ok(false),
            _ => Err(reply.unexpected(OptionCode::StructuredReply)),
        }
    }

    /// The number under which the server will tell what is allocated. A refusal is no error: the
    /// export's own refusal, by `go`, has the better message.
    fn allocation_context(&mut self, name: &str) -> Result<Option<u32>> {
        const OPTION: OptionCode = OptionCode::SetMetaContext;
        let mut data = string(name.as_bytes());
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&string(ALLOCATION));
        self.send_option(OPTION, &data)?;
        let mut context = None;
        for _ in 0..MAX_REPLIES {
            let reply = self.read_reply(OPTION)?;
            match reply.kind {
                OptionReply::Ack => return Ok(context),
                OptionReply::Refused(_) => return Ok(None),
                OptionReply::MetaContext => match U32::read_from_prefix(&reply.data) {
                    Ok((id, ALLOCATION)) => context = Some(id.get()),
                    _ => return Err(HandshakeError::Protocol("a meta context not asked for".to_owned())),
                },
                _ => return Err(reply.unexpected(OPTION)),
            }
        }
        Err(too_many(OPTION))
    }

    /// Size, flags and block sizes; `None` from a server that does not know the option.
    fn go(&mut self, name: &str) -> Result<Option<(u64, u16, BlockSizes)>> {
        const OPTION: OptionCode = OptionCode::Go;
        let mut data = string(name.as_bytes());
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
        self.send_option(OPTION, &data)?;
        let (mut export, mut sizes) = (None, BlockSizes::DEFAULT);
        for _ in 0..MAX_REPLIES {
            let reply = self.read_reply(OPTION)?;
            match reply.kind {
                OptionReply::Ack => {
                    let Some((size, flags)) = export else {
                        return Err(HandshakeError::Protocol("an export without a size".to_owned()));
                    };
                    return Ok(Some((size, flags, sizes)));
                }
                OptionReply::Info => match decode_info(&reply.data)? {
                    Info::Export { size, flags } => export = Some((size, flags)),
                    Info::BlockSizes(found) => sizes = found,
                    Info::Other => {}
                },
                OptionReply::Refused(Refusal::Unsupported) => return Ok(None),
                OptionReply::Refused(Refusal::UnknownExport) => {
                    let others = self.list().ok();
                    // The server may hang up first; the error is the same.
                    let _ = self.send_option(OptionCode::Abort, &[]);
                    return Err(HandshakeError::UnknownExport { name: name.to_owned(), others });
                }
                OptionReply::Refused(refusal) => return Err(reply.refused(refusal)),
                _ => return Err(reply.unexpected(OPTION)),
            }
        }
        Err(too_many(OPTION))
    }

    /// The names of the server's exports.
    fn list(&mut self) -> Result<Vec<String>> {
        const OPTION: OptionCode = OptionCode::List;
        self.send_option(OPTION, &[])?;
        let mut names = Vec::new();
        for _ in 0..MAX_REPLIES {
            let reply = self.read_reply(OPTION)?;
            match reply.kind {
                OptionReply::Ack => return Ok(names),
                OptionReply::Server => {
                    let (len, rest) = U32::read_from_prefix(&reply.data)
                        .map_err(|_| HandshakeError::Protocol("an export without a name".to_owned()))?;
                    let len = usize::try_from(len.get()).unwrap_or(usize::MAX);
                    let name = rest
                        .get(..len)
                        .ok_or_else(|| HandshakeError::Protocol("an export's name cut off".to_owned()))?;
                    names.push(String::from_utf8_lossy(name).into_owned());
                }
                OptionReply::Refused(refusal) => return Err(reply.refused(refusal)),
                _ => return Err(reply.unexpected(OPTION)),
            }
        }
        Ok(names)
    }

    /// Size and flags, the old way.
    fn export_name(&mut self, name: &str, no_zeroes: bool) -> Result<(u64, u16)> {
        self.send_option(OptionCode::ExportName, name.as_bytes())?;
        // All that this option lets a server do for "no" is to hang up.
        let size = match self.read::<U64>() {
            Err(HandshakeError::Io(e)) if e.kind() == io::ErrorKind::ConnectionAborted => {
                return Err(HandshakeError::UnknownExport { name: name.to_owned(), others: None });
            }
            size => size?.get(),
        };
        let flags: U16 = self.read()?;
        if !no_zeroes {
            self.read::<[u8; 124]>()?;
        }
        Ok((size, flags.get()))
    }
}

fn too_many(option: OptionCode) -> HandshakeError {
    HandshakeError::Protocol(format!("more than {MAX_REPLIES} replies to {option:?}"))
}

/// A string as options carry it: its length, then its bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    // Both callers' strings are at most MAX_STRING long.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], bytes].concat()
}

/// A piece of information about an export.
enum Info {
    Export { size: u64, flags: u16 },
    BlockSizes(BlockSizes),
    Other,
}

fn decode_info(data: &[u8]) -> Result<Info> {
    let wrong = |what: &str| HandshakeError::Protocol(what.to_owned());
    let (kind, rest) = U16::read_from_prefix(data).map_err(|_| wrong("information without a type"))?;
    match kind.get() {
        INFO_EXPORT => {
            let (size, rest) = U64::read_from_prefix(rest).map_err(|_| wrong("an export's size cut off"))?;
            let flags = U16::read_from_bytes(rest).map_err(|_| wrong("an export's flags cut off"))?;
            Ok(Info::Export { size: size.get(), flags: flags.get() })
        }
        INFO_BLOCK_SIZE => {
            let sizes = <[U32; 3]>::read_from_bytes(rest).map_err(|_| wrong("block sizes cut off"))?;
            let [minimum, preferred, maximum] = sizes.map(U32::get);
            BlockSizes::decode(minimum, preferred, maximum).map(Info::BlockSizes).map_err(wrong)
        }
        _ => Ok(Info::Other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A server whose words are fixed; what the client says is kept.
    struct Script {
        server: Cursor<Vec<u8>>,
        client: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.server.read(buf)
        }
    }

    impl Write for Script {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.client.write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn greeting() -> Vec<u8> {
        [&b"NBDMAGICIHAVEOPT"[..], &[0, 3]].concat()
    }

    fn reply(option: OptionCode, code: u32, data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).unwrap();
        let head = RawOptionReply {
            magic: OPTION_REPLY_MAGIC.into(),
            option: (option as u32).into(),
            reply: code.into(),
            len: len.into(),
        };
        [head.as_bytes(), data].concat()
    }

    fn talk(server: &[Vec<u8>]) -> (Result<Export>, Vec<u8>) {
        let mut script = Script { server: Cursor::new(server.concat()), client: Vec::new() };
        let result = negotiate(&mut script, "x");
        (result, script.client)
    }

    const UNSUPPORTED: u32 = (1 << 31) | 1;

    #[test] // The size must never be one that arithmetic on offsets cannot hold.
    fn export_larger_than_an_i64_is_refused() {
        let info = [&0u16.to_be_bytes()[..], &u64::MAX.to_be_bytes(), &1u16.to_be_bytes()].concat();
        let (result, _) = talk(&[
            greeting(),
            reply(OptionCode::StructuredReply, UNSUPPORTED, b""),
            reply(OptionCode::Go, 3, &info),
            reply(OptionCode::Go, 1, b""),
        ]);
        assert!(matches!(result, Err(HandshakeError::Protocol(_))), "{result:?}");
    }

    #[test] // 4 GiB must not be allocated because a server says that so much follows.
    fn reply_of_4_gib_is_refused_before_it_is_read() {
        let mut huge = reply(OptionCode::StructuredReply, 1, b"");
        huge[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        let (result, _) = talk(&[greeting(), huge]);
        assert!(matches!(result, Err(HandshakeError::Protocol(_))), "{result:?}");
    }

    #[test] // An endless list of exports must end.
    fn endless_list_of_exports_is_cut_off() {
        let mut server = vec![
            greeting(),
            reply(OptionCode::StructuredReply, UNSUPPORTED, b""),
            reply(OptionCode::Go, (1 << 31) | 6, b""),
        ];
        server.extend((0..10_000).map(|_| reply(OptionCode::List, 2, &string(b"a\n"))));
        let (result, _) = talk(&server);
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with("no export \"x\"; the server has \"a\\n\", "), "{message}");
        assert!(message.ends_with("and 4076 more"), "{message}");
    }

    #[test] // What comes with a refusal is shown, without its escapes.
    fn refusal_carries_the_servers_words() {
        let (result, _) = talk(&[
            greeting(),
            reply(OptionCode::StructuredReply, UNSUPPORTED, b""),
            reply(OptionCode::Go, (1 << 31) | 2, b"not \x1b[1mtoday\n"),
        ]);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "the server's policy forbids it (it says: not \\u{1b}[1mtoday)");
    }

    #[test] // TLS and oldstyle are refused by name.
    fn tls_and_oldstyle_are_named() {
        let (result, _) = talk(&[greeting(), reply(OptionCode::StructuredReply, (1 << 31) | 5, b"")]);
        assert!(result.unwrap_err().to_string().contains("TLS"));
        let (result, _) = talk(&[b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53".to_vec()]);
        assert!(result.unwrap_err().to_string().contains("oldstyle"));
        let (result, _) = talk(&[b"SSH-2.0-OpenSSH_9.2p1".to_vec()]);
        assert!(result.unwrap_err().to_string().contains("no NBD server"));
    }

    #[test] // The fallback for servers without NBD_OPT_GO, with the 124 zeros that old ones send.
    fn export_name_is_asked_for_when_go_is_unknown() {
        let mut greeting = greeting();
        greeting[17] = 1; // FIXED_NEWSTYLE without NO_ZEROES
        let (result, client) = talk(&[
            greeting,
            reply(OptionCode::StructuredReply, UNSUPPORTED, b""),
            reply(OptionCode::Go, UNSUPPORTED, b""),
            [&4096u64.to_be_bytes()[..], &0b11u16.to_be_bytes(), &[0; 124]].concat(),
        ]);
        let export = result.unwrap();
        assert_eq!(export.size, 4096);
        assert_eq!(export.flags, TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY);
        assert_eq!(client[..4], [0, 0, 0, 1]);
        assert!(client.ends_with(b"IHAVEOPT\0\0\0\x01\0\0\0\x01x"));
    }

    #[test] // Whatever a server says, the handshake ends without a panic.
    fn handshake_survives_any_bytes() {
        use proptest::prelude::*;
        proptest!(|(tail in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..4)| {
            let mut server = vec![
                greeting(),
                reply(OptionCode::StructuredReply, 1, b""),
                reply(OptionCode::SetMetaContext, 4, b"\0\0\0\x01base:allocation"),
                reply(OptionCode::SetMetaContext, 1, b""),
            ];
            server.truncate(cut + 1);
            server.push(tail);
            let _ = talk(&server);
        });
    }
}
