//! The NBD protocol on the wire: its numbers, and its fixed-size structures as checked values.
//!
//! All integers are big-endian. Nothing here does I/O.
//!
//! Spec: `doc/proto.md` of the NetworkBlockDevice project; names are the spec's, without prefix.

use std::fmt;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first 8 bytes that a server sends: `NBDMAGIC`.
pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// The next 8 bytes of a newstyle server, and of each option that a client sends: `IHAVEOPT`.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// The next 8 bytes of a server of before 2011, which knows no export names.
pub(crate) const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Starts each reply to an option.
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Starts each request.
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts a simple reply.
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Starts a chunk of a structured reply.
pub(crate) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// The longest export name, and the longest string of any kind, in bytes.
pub(crate) const MAX_STRING: usize = 4096;

bitflags::bitflags! {
    /// What a newstyle server says of itself before the first option.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct HandshakeFlags: u16 {
        const FIXED_NEWSTYLE = 1 << 0;
        const NO_ZEROES = 1 << 1;
    }

    /// What an export can do.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct TransmissionFlags: u16 {
        const HAS_FLAGS = 1 << 0;
        const READ_ONLY = 1 << 1;
        const SEND_FLUSH = 1 << 2;
        const SEND_FUA = 1 << 3;
        const SEND_TRIM = 1 << 5;
        const SEND_WRITE_ZEROES = 1 << 6;
    }
}

/// What a client asks for before it reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionCode {
    ExportName = 1,
    Abort = 2,
    List = 3,
    Go = 7,
    StructuredReply = 8,
    SetMetaContext = 10,
}

/// Information that comes with `OptionCode::Go`.
pub(crate) const INFO_EXPORT: u16 = 0;
/// See [`INFO_EXPORT`].
pub(crate) const INFO_BLOCK_SIZE: u16 = 3;

/// How a server answers an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionReply {
    Ack,
    /// `NBD_REP_SERVER`: an export, in answer to `OptionCode::List`.
    Server,
    Info,
    MetaContext,
    /// A refusal; the text that may come with it is for people.
    Refused(Refusal),
    /// A reply that we do not know and that is not a refusal.
    Other(u32),
}

/// Why a server refused an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unsupported,
    Policy,
    Invalid,
    Platform,
    TlsRequired,
    UnknownExport,
    ShuttingDown,
    BlockSizeRequired,
    TooBig,
    Other(u32),
}

impl OptionReply {
    pub(crate) fn decode(code: u32) -> Self {
        match code {
            1 => Self::Ack,
            2 => Self::Server,
            3 => Self::Info,
            4 => Self::MetaContext,
            code if code & (1 << 31) == 0 => Self::Other(code),
            code => Self::Refused(match code & !(1 << 31) {
                1 => Refusal::Unsupported,
                2 => Refusal::Policy,
                3 => Refusal::Invalid,
                4 => Refusal::Platform,
                5 => Refusal::TlsRequired,
                6 => Refusal::UnknownExport,
                7 => Refusal::ShuttingDown,
                8 => Refusal::BlockSizeRequired,
                9 => Refusal::TooBig,
                other => Refusal::Other(other),
            }),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "the server does not know the request",
            Self::Policy => "the server's policy forbids it",
            Self::Invalid => "the server calls the request invalid",
            Self::Platform => "the server's platform cannot do it",
            Self::TlsRequired => "the server requires TLS",
            Self::UnknownExport => "the server has no such export",
            Self::ShuttingDown => "the server is shutting down",
            Self::BlockSizeRequired => "the server requires a block size that was not negotiated",
            Self::TooBig => "the server calls the request too big",
            Self::Other(code) => return write!(f, "the server refused with error {code}"),
        })
    }
}

/// An option, followed by `len` bytes.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawOption {
    magic: U64,
    code: U32,
    len: U32,
}
const _: () = assert!(size_of::<RawOption>() == 16);

impl RawOption {
    pub(crate) fn new(code: OptionCode, len: u32) -> Self {
        Self { magic: OPTION_MAGIC.into(), code: (code as u32).into(), len: len.into() }
    }
}

/// The reply to an option, followed by `len` bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Default)]
#[repr(C)]
pub(crate) struct RawOptionReply {
    pub(crate) magic: U64,
    /// 0x08: the option's code again.
    pub(crate) option: U32,
    /// 0x0c: see [`OptionReply`].
    pub(crate) reply: U32,
    /// 0x10: how many bytes follow.
    pub(crate) len: U32,
}
const _: () = assert!(size_of::<RawOptionReply>() == 20);

/// The commands of the transmission phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
    BlockStatus = 7,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::WriteZeroes => "write of zeros",
            Self::BlockStatus => "block status",
        })
    }
}

/// Command flag: the data is on stable storage before the server answers.
pub(crate) const COMMAND_FUA: u16 = 1 << 0;

/// A request, followed by `len` bytes if it is a write.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawRequest {
    magic: U32,
    flags: U16,
    command: U16,
    /// 0x08: chosen by the client; the server's answer carries it.
    cookie: U64,
    /// 0x10: in bytes from the start of the export.
    offset: U64,
    /// 0x18: in bytes.
    len: U32,
}
const _: () = assert!(size_of::<RawRequest>() == 28);

impl RawRequest {
    pub(crate) fn new(command: Command, flags: u16, cookie: u64, offset: u64, len: u32) -> Self {
        Self {
            magic: REQUEST_MAGIC.into(),
            flags: flags.into(),
            command: (command as u16).into(),
            cookie: cookie.into(),
            offset: offset.into(),
            len: len.into(),
        }
    }
}

/// A simple reply after its magic; a successful read's data follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Default)]
#[repr(C)]
pub(crate) struct RawSimpleReply {
    /// 0x04: an [`Errno`], 0 for success.
    pub(crate) error: U32,
    pub(crate) cookie: U64,
}
const _: () = assert!(size_of::<RawSimpleReply>() == 12);

/// The head of a chunk of a structured reply, after its magic; `len` bytes follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Default)]
#[repr(C)]
pub(crate) struct RawChunk {
    /// 0x04: bit 0 is set in a request's last chunk.
    pub(crate) flags: U16,
    /// 0x06: see [`ChunkKind`].
    pub(crate) kind: U16,
    pub(crate) cookie: U64,
    /// 0x10: how many bytes follow.
    pub(crate) len: U32,
}
const _: () = assert!(size_of::<RawChunk>() == 16);

impl RawChunk {
    pub(crate) fn is_last(&self) -> bool {
        self.flags.get() & 1 != 0
    }
}

/// What is in a chunk of a structured reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    None,
    /// A u64 offset, then data.
    OffsetData,
    /// A u64 offset, then a u32 number of zero bytes.
    OffsetHole,
    /// A u32 meta context, then descriptors of two u32 each.
    BlockStatus,
    /// A u32 error, a u16 length and that many bytes of text; perhaps more after them.
    Error,
    Other(u16),
}

impl ChunkKind {
    pub(crate) fn decode(kind: u16) -> Self {
        match kind {
            0 => Self::None,
            1 => Self::OffsetData,
            2 => Self::OffsetHole,
            5 => Self::BlockStatus,
            // All kinds with the top bit are errors, those of tomorrow too.
            kind if kind & (1 << 15) != 0 => Self::Error,
            kind => Self::Other(kind),
        }
    }
}

/// The zeros at the end of a read's structured reply.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Default)]
#[repr(C)]
pub(crate) struct RawHole {
    pub(crate) offset: U64,
    pub(crate) len: U32,
}
const _: () = assert!(size_of::<RawHole>() == 12);

/// One extent of a block status chunk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RawDescriptor {
    /// In bytes.
    pub(crate) len: U32,
    /// In `base:allocation`: [`STATE_HOLE`] and [`STATE_ZERO`].
    pub(crate) flags: U32,
}
const _: () = assert!(size_of::<RawDescriptor>() == 8);

/// `base:allocation`: the extent takes no space.
pub(crate) const STATE_HOLE: u32 = 1 << 0;
/// `base:allocation`: the extent reads as zeros.
pub(crate) const STATE_ZERO: u32 = 1 << 1;

/// The sizes that requests must keep to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockSizes {
    /// Offsets and lengths are multiples of it; a power of two from 1 to 65536.
    pub(crate) minimum: u32,
    /// Requests smaller than it are slow; a power of two, from 512, `minimum` or more.
    pub(crate) preferred: u32,
    /// The longest read or write; a multiple of `minimum`.
    pub(crate) maximum: u32,
}

impl BlockSizes {
    /// What the spec lets a client assume of a server that does not say.
    pub(crate) const DEFAULT: Self = Self { minimum: 1, preferred: 4096, maximum: 32 << 20 };

    /// Checks what a server said; the error says what is wrong.
    pub(crate) fn decode(minimum: u32, preferred: u32, maximum: u32) -> Result<Self, &'static str> {
        if !minimum.is_power_of_two() || minimum > 64 << 10 {
            return Err("minimum block size that is not a power of two from 1 to 65536");
        }
        if !preferred.is_power_of_two() || preferred < minimum.max(512) {
            return Err("preferred block size that is not a power of two from 512");
        }
        if maximum < minimum {
            return Err("maximum block size below the minimum");
        }
        // u32::MAX stands for "no limit". The spec asks for a multiple, servers exist that round nothing.
        Ok(Self { minimum, preferred, maximum: maximum - maximum % minimum })
    }
}

/// The errors that a server may answer with: Linux's numbers, on every platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) u32);

impl Errno {
    /// The kind that our callers match on.
    pub(crate) fn kind(self) -> std::io::ErrorKind {
        use std::io::ErrorKind;
        match self.0 {
            1 => ErrorKind::PermissionDenied,
            12 => ErrorKind::OutOfMemory,
            22 => ErrorKind::InvalidInput,
            28 => ErrorKind::StorageFull,
            95 => ErrorKind::Unsupported,
            108 => ErrorKind::ConnectionAborted,
            _ => ErrorKind::Other,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "operation not permitted",
            5 => "input/output error",
            12 => "the server is out of memory",
            22 => "invalid argument",
            28 => "no space left on the server",
            75 => "the server calls the request too long",
            95 => "the server does not support it",
            108 => "the server is shutting down",
            other => return write!(f, "error {other}"),
        })
    }
}

/// A server's text, fit for a terminal: control characters are escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).trim_end().chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The bytes of a request are those of the spec's table.
    fn request_is_laid_out_as_in_the_spec() {
        let request = RawRequest::new(Command::WriteZeroes, COMMAND_FUA, 7, 0x1_0000, 512);
        let expected =
            [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0];
        assert_eq!(request.as_bytes(), expected);
        assert_eq!(&INIT_MAGIC.to_be_bytes(), b"NBDMAGIC");
        assert_eq!(&OPTION_MAGIC.to_be_bytes(), b"IHAVEOPT");
    }

    #[test] // A hostile server's sizes must not become a division by zero or an endless split.
    fn block_sizes_are_checked() {
        assert!(BlockSizes::decode(0, 4096, 1 << 20).is_err());
        assert!(BlockSizes::decode(3, 4096, 1 << 20).is_err());
        assert!(BlockSizes::decode(1 << 17, 1 << 17, 1 << 20).is_err());
        assert!(BlockSizes::decode(4096, 512, 1 << 20).is_err());
        assert!(BlockSizes::decode(4096, 4096, 512).is_err());
        let sizes = BlockSizes::decode(4096, 65536, u32::MAX).unwrap();
        assert_eq!(sizes.maximum, 0xffff_f000);
    }

    #[test] // What a server says goes to a terminal.
    fn text_loses_its_control_characters() {
        assert_eq!(printable(b"a\x1b[31mb\n"), "a\\u{1b}[31mb");
        assert_eq!(printable("größe\tx\u{9b}".as_bytes()), "größe\\tx\\u{9b}");
    }

    #[test]
    fn option_replies_and_chunks_of_tomorrow_are_told_apart() {
        assert_eq!(OptionReply::decode(0x8000_0006), OptionReply::Refused(Refusal::UnknownExport));
        assert_eq!(OptionReply::decode(0x8000_1234), OptionReply::Refused(Refusal::Other(0x1234)));
        assert_eq!(OptionReply::decode(77), OptionReply::Other(77));
        assert_eq!(ChunkKind::decode(0x8777), ChunkKind::Error);
        assert_eq!(ChunkKind::decode(0x0777), ChunkKind::Other(0x777));
    }
}
