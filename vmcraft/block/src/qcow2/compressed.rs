//! Compressed clusters.

use std::io::Read;

use flate2::{Decompress, FlushDecompress};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::header::Compression;

/// The largest zstd window we make room for, in bytes. An encoder that is told the content's size,
/// as QEMU tells it, needs no more than a cluster: at most 2 MiB.
const MAX_ZSTD_WINDOW: u64 = 32 << 20;

/// Fills `out`, a cluster, from its compressed bytes; what follows those is ignored. `None` if they
/// are not what they should be, or hold less than a cluster.
pub(super) fn decompress(compression: Compression, bytes: &[u8], out: &mut [u8]) -> Option<()> {
    match compression {
        Compression::Zlib => inflate(bytes, out),
        // Refused when the image was opened.
        Compression::Other(_) => None,
        Compression::Zstd => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(MAX_ZSTD_WINDOW);
            StreamingDecoder::new_with_decoder(bytes, decoder).ok()?.read_exact(out).ok()
        }
    }
}

fn inflate(bytes: &[u8], out: &mut [u8]) -> Option<()> {
    let mut stream = Decompress::new(false);
    loop {
        let (read, written) = (stream.total_in(), stream.total_out());
        let input = bytes.get(usize::try_from(read).ok()?..)?;
        let output = out.get_mut(usize::try_from(written).ok()?..)?;
        if output.is_empty() {
            return Some(());
        }
        stream.decompress(input, output, FlushDecompress::Finish).ok()?;
        // Without progress the input has ended, or the stream has.
        if (stream.total_in(), stream.total_out()) == (read, written) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A short stream must not leave the rest of the cluster as it was.
    fn short_and_broken_streams_are_refused() {
        for compression in [Compression::Zlib, Compression::Zstd] {
            assert_eq!(decompress(compression, &[], &mut [0; 512]), None);
            assert_eq!(decompress(compression, &[0xff; 64], &mut [0; 512]), None);
        }
        // A final stored block with two bytes.
        let stored = [1, 2, 0, 0xfd, 0xff, b'a', b'b', 9, 9];
        let mut out = [0; 2];
        assert_eq!(decompress(Compression::Zlib, &stored, &mut out), Some(()));
        assert_eq!(&out, b"ab");
        assert_eq!(decompress(Compression::Zlib, &stored, &mut [0; 3]), None);
    }
}
