//! Compression of what is written.

use std::io::{self, Write};
use std::path::Path;

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::content::Content;
use crate::host::{Host, Sink};
use crate::{Error, Progress, Result};

/// How many bytes a frame of zstd holds: its encoder takes a whole frame at once.
const ZSTD_FRAME_BYTES: usize = 4 << 20;

/// A kind of compression, with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip(u32),
    Bzip2(u32),
    Xz(u32),
    Zstd,
}

impl Compression {
    /// The kind with libguestfs's name for it. Without `level`, the level that the program of this
    /// name uses by default.
    pub(crate) fn new(name: &str, level: Option<i32>) -> Result<Self> {
        let in_range = |default: u32, least: u32| match level {
            None => Ok(default),
            Some(level) => u32::try_from(level)
                .ok()
                .filter(|level| (least..=9).contains(level))
                .ok_or_else(|| Error::Usage(format!("{name} has levels {least} to 9, not {level}"))),
        };
        Ok(match name {
            "gzip" => Self::Gzip(in_range(6, 1)?),
            "bzip2" => Self::Bzip2(in_range(9, 1)?),
            "xz" => Self::Xz(in_range(6, 0)?),
            "zstd" => match level {
                None | Some(1) => Self::Zstd,
                Some(level) => {
                    return Err(Error::Unsupported(format!("zstd at level {level}; it has level 1 here")));
                }
            },
            "compress" | "lzop" => {
                return Err(Error::Unsupported(format!(
                    "the compression {name}; use gzip, bzip2, xz or zstd"
                )));
            }
            _ => {
                return Err(Error::Usage(format!(
                    "{name:?} is not a compression: use gzip, bzip2, xz or zstd"
                )));
            }
        })
    }

    /// Compresses to `inner`, which messages call `path`.
    pub(crate) fn encoder<W: Write>(this: Option<Self>, inner: W, path: &Path) -> Result<Encoder<W>> {
        Ok(match this {
            None => Encoder::Plain(inner),
            // The header holds no time and no name, so that equal content gives equal files.
            Some(Self::Gzip(level)) => Encoder::Gzip(GzEncoder::new(inner, flate2::Compression::new(level))),
            Some(Self::Bzip2(level)) => Encoder::Bzip2(BzEncoder::new(inner, bzip2::Compression::new(level))),
            Some(Self::Xz(level)) => {
                Encoder::Xz(Box::new(XzWriter::new(inner, XzOptions::with_preset(level)).map_err(
                    |source| Error::Host { path: path.to_owned(), doing: "cannot write", source },
                )?))
            }
            Some(Self::Zstd) => Encoder::Zstd(ZstdEncoder { inner, pending: Vec::new() }),
        })
    }
}

/// A stream that compresses what is written to it.
pub(crate) enum Encoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Bzip2(BzEncoder<W>),
    Xz(Box<XzWriter<W>>),
    Zstd(ZstdEncoder<W>),
}

impl<W: Write> Encoder<W> {
    /// Writes what is left. Without it the stream is not complete.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut inner) => inner.flush(),
            Self::Gzip(encoder) => encoder.finish().map(drop),
            Self::Bzip2(encoder) => encoder.finish().map(drop),
            Self::Xz(encoder) => encoder.finish().map(drop),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Bzip2(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Bzip2(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// zstd as a sequence of frames, which decoders read as one stream.
pub(crate) struct ZstdEncoder<W> {
    inner: W,
    pending: Vec<u8>,
}

impl<W: Write> ZstdEncoder<W> {
    fn write_frame(&mut self) -> io::Result<()> {
        let frame = compress_to_vec(self.pending.as_slice(), CompressionLevel::Fastest);
        self.pending.clear();
        self.inner.write_all(&frame)
    }

    fn finish(mut self) -> io::Result<()> {
        self.write_frame()?;
        self.inner.flush()
    }
}

impl<W: Write> Write for ZstdEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() == ZSTD_FRAME_BYTES {
            self.write_frame()?;
        }
        let n = bytes.len().min(ZSTD_FRAME_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes `content` compressed.
pub(crate) fn compress(
    host: &mut Host,
    sink: &mut Sink<'_>,
    content: &Content,
    compression: Compression,
) -> Result<()> {
    let path = sink.path().to_owned();
    let fail = |source| Error::Host { path: path.clone(), doing: "cannot write", source };
    let mut encoder = Compression::encoder(Some(compression), sink, &path)?;
    let total = content.size_bytes();
    content.read_all(&mut |position| host.step(Progress { position, total }), |data| {
        encoder.write_all(data).map_err(fail)
    })?;
    encoder.finish().map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::Guest;
    use crate::testing::MemoryFs;
    use crate::value::FileOut;
    use crate::vfs::Vfs;

    #[test] // Oracle: the programs whose formats these are; with nothing, little, and several frames.
    fn programs_read_what_is_compressed() {
        let long: Vec<u8> =
            (0..1_100_000_u32).flat_map(|i| (i / 3).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for content in [&b""[..], b"little", &long] {
            let mut guest = Guest::new();
            guest.vfs = Vfs::with_root("/dev/sda1", Arc::new(MemoryFs::new().file("/f", content)));
            let dir = testkit::tempdir();
            for (name, level) in
                [("gzip", Some(1)), ("gzip", None), ("bzip2", None), ("xz", Some(0)), ("zstd", None)]
            {
                let packed = dir.path().join("packed");
                guest.compress_out(name, "/f".into(), &FileOut::Path(packed.clone()), level).unwrap();
                let unpacked = fs::File::create(dir.path().join("unpacked")).unwrap();
                let status = std::process::Command::new(testkit::require(name))
                    .arg("-dc")
                    .stdin(fs::File::open(&packed).unwrap())
                    .stdout(unpacked)
                    .status()
                    .unwrap();
                assert!(status.success(), "{name}");
                assert!(
                    fs::read(dir.path().join("unpacked")).unwrap() == content,
                    "{name} of {}",
                    content.len()
                );
            }
        }
    }

    #[test]
    fn levels_and_kinds_that_are_missing_are_named() {
        for (name, level, errno) in [
            ("lzop", None, 95),
            ("compress", None, 95),
            ("zip", None, 22),
            ("gzip", Some(0), 22),
            ("xz", Some(10), 22),
            ("zstd", Some(19), 95),
        ] {
            let refused = Compression::new(name, level).unwrap_err();
            assert_eq!(refused.errno(), errno, "{refused}");
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
