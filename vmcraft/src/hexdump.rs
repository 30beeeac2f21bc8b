//! Bytes in hexadecimal, in the form of `hexdump -C`.

use std::fmt::Write;

use bstr::BString;

/// How many bytes a line shows.
const LINE: usize = 16;

/// Makes the text piece by piece, in memory for one line.
pub(crate) struct Dump {
    /// The bytes of a line that is not whole yet.
    pending: Vec<u8>,
    /// Where the next line begins, in bytes.
    offset: u64,
    /// The line that was shown last.
    last: Option<[u8; LINE]>,
    /// Whether a `*` stands for lines like the last.
    is_repeated: bool,
}

impl Dump {
    pub(crate) fn new() -> Self {
        Self { pending: Vec::new(), offset: 0, last: None, is_repeated: false }
    }

    /// Adds the lines that `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8], text: &mut BString) {
        let missing = (LINE - self.pending.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(missing);
        self.pending.extend_from_slice(first);
        if let Ok(line) = <[u8; LINE]>::try_from(self.pending.as_slice()) {
            self.pending.clear();
            self.line(line, text);
            let (lines, rest) = rest.as_chunks::<LINE>();
            for line in lines {
                self.line(*line, text);
            }
            self.pending.extend_from_slice(rest);
        }
    }

    /// Adds what is left, and the number of bytes.
    pub(crate) fn finish(self, text: &mut BString) {
        if !self.pending.is_empty() {
            show(self.offset, &self.pending, text);
        }
        let len = self.offset + self.pending.len() as u64;
        if len > 0 {
            text.extend_from_slice(format!("{len:08x}\n").as_bytes());
        }
    }

    fn line(&mut self, line: [u8; LINE], text: &mut BString) {
        if self.last == Some(line) {
            if !self.is_repeated {
                text.extend_from_slice(b"*\n");
                self.is_repeated = true;
            }
        } else {
            show(self.offset, &line, text);
            self.last = Some(line);
            self.is_repeated = false;
        }
        self.offset += LINE as u64;
    }
}

fn show(offset: u64, bytes: &[u8], text: &mut BString) {
    let mut hex = String::with_capacity(50);
    for half in 0..2 {
        hex.push(' ');
        for index in 0..LINE / 2 {
            // Writing to a string cannot fail.
            let _ = match bytes.get(half * LINE / 2 + index) {
                Some(byte) => write!(hex, " {byte:02x}"),
                None => write!(hex, "   "),
            };
        }
    }
    text.extend_from_slice(format!("{offset:08x}{hex}  |").as_bytes());
    text.extend(bytes.iter().map(|byte| if matches!(byte, b' '..=b'~') { *byte } else { b'.' }));
    text.extend_from_slice(b"|\n");
}
