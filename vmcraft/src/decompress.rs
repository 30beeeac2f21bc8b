//! Reading compressed content as a stream, in bounded memory.

use std::io::{self, BufRead, Read};

use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The most memory that a decoder of xz may take for its dictionary, in KiB. `xz -9` needs half.
const XZ_MEMORY_KIB: u32 = 128 * 1024;

/// A kind of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    /// compress(1), which is recognised and not decoded.
    Compress,
    /// lz4 as in initial RAM disks, which is recognised and not decoded.
    Lz4,
}

impl Kind {
    /// The kind that content of these first bytes is of.
    pub(crate) fn detect(start: &[u8]) -> Option<Self> {
        Some(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x1f, 0x9d, ..] => Self::Compress,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x02, 0x21, 0x4c, 0x18, ..] | [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            _ => return None,
        })
    }

    /// The content of a stream of this kind, or why it cannot be had.
    pub(crate) fn decoder<'r, R: BufRead + 'r>(self, reader: R) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(reader)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(reader)),
            Self::Xz => Box::new(XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB)),
            Self::Zstd => Box::new(ZstdReader::new(reader)),
            Self::Compress => return Err(unsupported("content compressed with compress (.Z)")),
            Self::Lz4 => return Err(unsupported("content compressed with lz4")),
        })
    }
}

fn unsupported(what: &str) -> io::Error {
    io::Error::other(crate::Error::Unsupported(what.to_owned()))
}

/// The content of a stream: decoded if it is compressed, else as it is.
pub(crate) fn plain<'r, R: BufRead + 'r>(mut reader: R) -> io::Result<Box<dyn Read + 'r>> {
    // The buffers that are read from here are larger than any magic number.
    match Kind::detect(reader.fill_buf()?) {
        Some(kind) => kind.decoder(reader),
        None => Ok(Box::new(reader)),
    }
}

/// What base64 decodes to, with white space between its letters.
pub(crate) fn base64_reader<'r, R: Read + 'r>(reader: R) -> impl Read + 'r {
    DecoderReader::new(WithoutSpace(reader), &STANDARD)
}

/// A stream without its white space.
struct WithoutSpace<R>(R);

impl<R: Read> Read for WithoutSpace<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.0.read(buf)?;
            let mut kept = 0;
            for at in 0..n {
                if !buf[at].is_ascii_whitespace() {
                    buf[kept] = buf[at];
                    kept += 1;
                }
            }
            if kept > 0 || n == 0 {
                return Ok(kept);
            }
        }
    }
}

/// Decodes all frames of a zstd stream, of which there may be several.
struct ZstdReader<R> {
    reader: R,
    decoder: FrameDecoder,
    /// Whether the decoder is within a frame.
    is_open: bool,
    /// Whether a frame was decoded.
    has_begun: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(reader: R) -> Self {
        Self { reader, decoder: FrameDecoder::new(), is_open: false, has_begun: false }
    }

    /// The decoder's error, or that of the stream below, which the decoder only has the text of.
    fn failed(&mut self, error: &FrameDecoderError) -> io::Error {
        match self.reader.fill_buf() {
            Err(below) => below,
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}")),
        }
    }

    /// Begins the next frame that has data; `false` at the end of the stream.
    fn open(&mut self) -> io::Result<bool> {
        loop {
            match self.reader.fill_buf()? {
                [] => return Ok(false),
                // What pads an archive to whole blocks is no frame.
                [0, ..] if self.has_begun => return Ok(false),
                _ => {}
            }
            self.has_begun = true;
            match self.decoder.reset(&mut self.reader) {
                Ok(()) => {
                    self.is_open = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.reader.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(e) => return Err(self.failed(&e)),
            }
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_open && !self.open()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|e| self.failed(&e))?;
            }
            let n = self.decoder.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "zstd: the checksum is wrong"));
            }
            self.is_open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::process::{Command, Stdio};

    use super::*;

    fn pack(program: &str, options: &[&str], content: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = Command::new(testkit::require(program))
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let content = content.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&content).unwrap());
        let packed = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        packed
    }

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        plain(BufReader::new(packed))?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test] // Oracle: the programs whose formats these are, one stream and two in a row.
    fn reads_what_programs_compress() {
        let long: Vec<u8> = (0..300_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for (program, options) in [
            ("gzip", &["-c"][..]),
            ("bzip2", &["-c"]),
            ("xz", &["-c", "-1"]),
            ("xz", &["-c", "--check=crc32", "--x86", "--lzma2=dict=1MiB"]),
            ("zstd", &["-c", "-q"]),
            ("zstd", &["-c", "-q", "--no-check", "-19"]),
        ] {
            for content in [&b""[..], b"little", &long] {
                let packed = pack(program, options, content);
                assert!(unpack(&packed).unwrap() == content, "{program} {options:?} {}", content.len());
                let twice = [&packed[..], &packed[..]].concat();
                assert!(unpack(&twice).unwrap() == content.repeat(2), "{program} {options:?} twice");
            }
        }
    }

    #[test]
    fn plain_content_stays() {
        assert_eq!(unpack(b"hello").unwrap(), b"hello");
        assert_eq!(unpack(b"").unwrap(), b"");
    }

    #[test] // A skippable frame, and zeros after the last frame as initial RAM disks have.
    fn zstd_frames_are_skipped_and_padding_ends_them() {
        let packed = pack("zstd", &["-c", "-q"], b"hello");
        let skip = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let all = [&packed[..], &skip, &packed, &[0; 100]].concat();
        assert_eq!(unpack(&all).unwrap(), b"hellohello");
    }

    #[test] // Damage is an error, never a panic or wrong content taken for right.
    fn damage_is_noticed() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(|i| (i * i / 7).to_le_bytes()).collect();
        for (program, options) in
            [("gzip", &["-c"][..]), ("bzip2", &["-c"]), ("xz", &["-c"]), ("zstd", &["-c", "-q"])]
        {
            let packed = pack(program, options, &content);
            for at in (6..packed.len()).step_by(packed.len() / 40) {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x10;
                assert!(!unpack(&damaged).is_ok_and(|wrong| wrong != content), "{program} at {at}");
                assert!(unpack(&packed[..at]).is_err(), "{program} cut at {at}");
            }
        }
    }

    #[test] // A header that asks for gigabytes.
    fn huge_dictionaries_are_refused() {
        // A frame header with a window of 2^41 bytes.
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        assert!(unpack(&zstd).is_err());
        let xz = pack("xz", &["-c", "--lzma2=preset=0,dict=1GiB"], b"hello");
        assert!(unpack(&xz).is_err());
    }

    #[test]
    fn kinds_that_are_not_decoded_are_named() {
        for (start, name) in [(&[0x1f, 0x9d, 0x90][..], "compress"), (&[0x02, 0x21, 0x4c, 0x18], "lz4")] {
            let refused = unpack(start).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
    }
}
