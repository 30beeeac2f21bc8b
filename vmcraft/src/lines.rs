//! Lines of a stream, one at a time, in bounded memory.

use std::io::{self, BufRead};

use memchr::memchr;

/// The longest line that is kept.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;

/// How many bytes of a file are read at once where its lines or letters are looked at.
pub(crate) const STEP_BYTES: usize = 256 * 1024;

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'b> {
    /// Its bytes without the newline.
    Whole(&'b [u8]),
    /// It is longer than [`MAX_LINE_BYTES`]; its bytes are skipped.
    TooLong,
}

/// Reads lines from a stream.
pub(crate) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The next line, or `None` at the end of the stream. What follows the last newline is a line if
    /// it is not empty.
    // The line borrows the buffer, which `Iterator` cannot say.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut is_empty = true;
        let mut too_long = false;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                if is_empty {
                    return Ok(None);
                }
                break;
            }
            is_empty = false;
            let end = memchr(b'\n', chunk);
            let piece = &chunk[..end.unwrap_or(chunk.len())];
            too_long |= piece.len() > MAX_LINE_BYTES - self.line.len();
            if too_long {
                self.line.clear();
            } else {
                self.line.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(Some(if too_long { Line::TooLong } else { Line::Whole(&self.line) }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test] // Small buffers must not change what a line is.
    fn lines_end_at_newlines_and_at_the_end() {
        for capacity in [1, 2, 3, 100] {
            let reader = BufReader::with_capacity(capacity, &b"one\n\ntwo\r\nlast"[..]);
            let mut lines = Lines::new(reader);
            let mut all = Vec::new();
            while let Some(Line::Whole(line)) = lines.next().unwrap() {
                all.push(line.to_vec());
            }
            assert_eq!(all, [&b"one"[..], b"", b"two\r", b"last"]);
        }
        assert_eq!(Lines::new(&b""[..]).next().unwrap(), None);
        assert_eq!(Lines::new(&b"\n"[..]).next().unwrap(), Some(Line::Whole(b"")));
    }

    #[test] // A file without newlines must not fill the memory.
    fn long_lines_are_skipped() {
        let mut text = vec![b'a'; MAX_LINE_BYTES];
        text.push(b'\n');
        text.extend(vec![b'b'; MAX_LINE_BYTES + 1]);
        text.extend(b"\nshort");
        let mut lines = Lines::new(&text[..]);
        assert!(matches!(lines.next().unwrap(), Some(Line::Whole(line)) if line.len() == MAX_LINE_BYTES));
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"short")));
    }
}
