//! Reading what is in a file.

use std::io::{BufReader, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bstr::BString;
use memchr::{memchr_iter, memrchr_iter};
use vmcraft_macros::api;

use crate::limits::{Budget, MAX_RESULT_BYTES};
use crate::lines::{Line, Lines, STEP_BYTES};
use crate::value::FileOut;
use crate::vfs::FileReader;
use crate::{Error, Guest, GuestPath, Result, hexdump, printable};

/// How many bytes of a file a line of base64 stands for: 76 letters.
const BASE64_LINE: usize = 57;

#[api(area = "files")]
impl Guest {
    /// Read a file as text
    ///
    /// The result is the content of `path`, of whatever bytes it is. For large files there is
    /// `download`.
    ///
    /// ```guestfish
    /// cat /etc/hostname
    /// ```
    pub fn cat(&self, path: &GuestPath) -> Result<BString> {
        self.read_file(path).map(BString::from)
    }

    /// Read a file
    ///
    /// The result is the content of `path`. For large files there is `download`.
    ///
    /// ```guestfish
    /// read-file /etc/hostname
    /// ```
    pub fn read_file(&self, path: &GuestPath) -> Result<Vec<u8>> {
        self.read(path)
    }

    /// Read a part of a file
    ///
    /// At most `count` bytes of `path` are read, from byte `offset` on. At the end of the file there
    /// are fewer, and past it none.
    ///
    /// ```guestfish
    /// pread /etc/hostname 4 0
    /// ```
    pub fn pread(&self, path: &GuestPath, count: i32, offset: i64) -> Result<Vec<u8>> {
        let negative = |what: &str, value: i64| Error::Usage(format!("{what} is negative: {value}"));
        let count = u64::try_from(count).map_err(|_| negative("count", count.into()))?;
        let offset = u64::try_from(offset).map_err(|_| negative("offset", offset))?;
        if count > MAX_RESULT_BYTES {
            return Err(Error::Usage(format!(
                "count is {count}, and at most {MAX_RESULT_BYTES} bytes are read into memory; use \
                 download-offset"
            )));
        }
        let mut reader = self.open_file(path)?;
        reader.seek_to(offset);
        let mut content = Vec::new();
        match reader.by_ref().take(count).read_to_end(&mut content) {
            Ok(_) => Ok(content),
            Err(e) => Err(reader.node().stream_error(e)),
        }
    }

    /// Read a file as lines
    ///
    /// The result has a text for each line of `path`, without the newline, or carriage return and
    /// newline, at its end.
    ///
    /// ```guestfish
    /// read-lines /etc/fstab
    /// ```
    pub fn read_lines(&self, path: &GuestPath) -> Result<Vec<BString>> {
        let mut lines = self.lines(path, 0, None, usize::MAX)?;
        for line in &mut lines {
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        Ok(lines)
    }

    /// Read the first 10 lines of a file
    ///
    /// The result has the first 10 lines of `path`, or all if there are fewer.
    ///
    /// ```guestfish
    /// head /etc/fstab
    /// ```
    pub fn head(&self, path: &GuestPath) -> Result<Vec<BString>> {
        self.head_n(10, path)
    }

    /// Read the first lines of a file
    ///
    /// The result has the first `nrlines` lines of `path`. A negative number leaves out that many
    /// lines at the end: `head-n -1` has all lines but the last. 0 gives an empty list.
    ///
    /// ```guestfish
    /// head-n 1 /etc/fstab
    /// ```
    pub fn head_n(&self, nrlines: i32, path: &GuestPath) -> Result<Vec<BString>> {
        let count = usize::try_from(nrlines.unsigned_abs()).unwrap_or(usize::MAX);
        if nrlines >= 0 {
            return self.lines(path, 0, None, count);
        }
        let end = self.start_of_last_lines(path, count)?;
        self.lines(path, 0, Some(end), usize::MAX)
    }

    /// Read the last 10 lines of a file
    ///
    /// The result has the last 10 lines of `path`, or all if there are fewer.
    ///
    /// ```guestfish
    /// tail /etc/fstab
    /// ```
    pub fn tail(&self, path: &GuestPath) -> Result<Vec<BString>> {
        self.tail_n(10, path)
    }

    /// Read the last lines of a file
    ///
    /// The result has the last `nrlines` lines of `path`. A negative number means to begin with that
    /// line: `tail-n -2` has all lines but the first. 0 gives an empty list.
    ///
    /// ```guestfish
    /// tail-n 1 /etc/fstab
    /// ```
    pub fn tail_n(&self, nrlines: i32, path: &GuestPath) -> Result<Vec<BString>> {
        let count = usize::try_from(nrlines.unsigned_abs()).unwrap_or(usize::MAX);
        let start = match nrlines {
            0.. => self.start_of_last_lines(path, count)?,
            _ => self.start_of_line(path, count)?,
        };
        self.lines(path, start, None, usize::MAX)
    }

    /// Write a file in base64 to the host
    ///
    /// The content of `filename` goes to the host's file `base64file`, in base64 with lines of 76
    /// letters.
    ///
    /// ```guestfish
    /// base64-out /etc/hostname -
    /// ```
    pub fn base64_out(&mut self, filename: &GuestPath, base64file: &FileOut) -> Result<()> {
        let mut reader = self.open_file(filename)?;
        self.host.write_to(base64file, |_, sink| {
            let mut bytes = Vec::new();
            let mut text = Vec::new();
            loop {
                bytes.clear();
                // Whole lines, so that padding comes at the end alone.
                let step = (BASE64_LINE * 4096) as u64;
                let n = reader
                    .by_ref()
                    .take(step)
                    .read_to_end(&mut bytes)
                    .map_err(|e| reader.node().stream_error(e))?;
                text.clear();
                for line in bytes.chunks(BASE64_LINE) {
                    text.extend_from_slice(STANDARD.encode(line).as_bytes());
                    text.push(b'\n');
                }
                sink.put(&text)?;
                if (n as u64) < step {
                    return Ok(());
                }
            }
        })
    }

    /// Show a file in hexadecimal
    ///
    /// The content of `path` is shown as `hexdump -C` does: 16 bytes a line, with a `*` for further
    /// lines that are the same.
    ///
    /// ```guestfish
    /// hexdump /etc/hostname
    /// ```
    pub fn hexdump(&self, path: &GuestPath) -> Result<BString> {
        let mut reader = self.open_file(path)?;
        let mut budget = Budget::new(path, "use pread or download for a part of it");
        let mut dump = hexdump::Dump::new();
        let mut text = BString::default();
        self.for_each_piece(&mut reader, |piece| {
            let before = text.len();
            dump.push(piece, &mut text);
            budget.spend(text.len() - before)
        })?;
        dump.finish(&mut text);
        Ok(text)
    }

    /// List the printable strings in a file
    ///
    /// The result has every run of at least 4 printable ASCII characters in `path`, as strings(1)
    /// finds them. Other encodings are `strings-e`'s.
    ///
    /// ```guestfish
    /// strings /etc/hostname
    /// ```
    pub fn strings(&self, path: &GuestPath) -> Result<Vec<BString>> {
        self.strings_e("s", path)
    }

    /// List the printable strings in a file, in some encoding
    ///
    /// The result has every run of at least 4 printable characters in `path`. `encoding` is one of
    /// - `s`: ASCII
    /// - `S`: 8 bits a character, so that every byte from 128 on is printable too
    /// - `b` and `l`: 16 bits a character, big- and little-endian; `l` is what Windows programs have
    /// - `B` and `L`: 32 bits a character, big- and little-endian
    ///
    /// Characters of 16 or 32 bits are printable if they are ASCII ones, as in strings(1).
    ///
    /// ```guestfish
    /// strings-e l /etc/hostname
    /// ```
    pub fn strings_e(&self, encoding: &str, path: &GuestPath) -> Result<Vec<BString>> {
        let encoding = printable::Encoding::parse(encoding)?;
        let mut reader = self.open_file(path)?;
        let mut budget = Budget::new(path, "use download");
        let mut found = Vec::new();
        let mut scan = printable::Scan::new(encoding);
        let mut keep = |text: &[u8]| {
            budget.spend_item(text.len())?;
            found.push(text.into());
            Ok(())
        };
        self.for_each_piece(&mut reader, |piece| scan.push(piece, &mut keep))?;
        scan.finish(&mut keep)?;
        Ok(found)
    }

    /// Test whether a file holds nothing but zeros
    ///
    /// The result is `true` if all bytes of `path` are zero, and if it is empty.
    ///
    /// ```guestfish
    /// is-zero /etc/hostname
    /// ```
    pub fn is_zero(&self, path: &GuestPath) -> Result<bool> {
        let node = self.open_file(path)?.node().clone();
        let failed = |source| node.error(source);
        let mut buf = vec![0; STEP_BYTES];
        let mut offset = 0;
        // Holes need not be read.
        while let Some((start, end)) = node.filesystem.next_data(node.inode, offset).map_err(failed)? {
            offset = offset.max(start);
            while offset < end {
                self.host.check_cancelled()?;
                let step = usize::try_from(end - offset).map_or(buf.len(), |left| left.min(buf.len()));
                let n = node.filesystem.read(node.inode, offset, &mut buf[..step]).map_err(failed)?;
                if n == 0 {
                    return Ok(true);
                }
                if buf[..n].iter().any(|byte| *byte != 0) {
                    return Ok(false);
                }
                offset += n as u64;
            }
        }
        Ok(true)
    }
}

impl Guest {
    /// A regular file of the guest as a stream that ends when the user interrupts the call.
    pub(crate) fn open_file(&self, path: &GuestPath) -> Result<FileReader> {
        Ok(FileReader::open(self.resolve(path)?)?.cancelled_by(self.host.cancel.clone()))
    }

    /// Shows a file's bytes from front to back.
    pub(crate) fn for_each_piece(
        &self,
        reader: &mut FileReader,
        mut show: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buf = vec![0; STEP_BYTES];
        loop {
            match reader.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => show(&buf[..n])?,
                Err(e) => return Err(reader.node().stream_error(e)),
            }
        }
    }

    /// At most `count` lines that begin between two bytes of a file.
    fn lines(&self, path: &GuestPath, start: u64, end: Option<u64>, count: usize) -> Result<Vec<BString>> {
        let mut reader = self.open_file(path)?;
        let node = reader.node().clone();
        reader.seek_to(start);
        let mut budget = Budget::new(path, "use download");
        let limited = reader.take(end.map_or(u64::MAX, |end| end.saturating_sub(start)));
        let mut lines = Lines::new(BufReader::with_capacity(STEP_BYTES, limited));
        let mut found = Vec::new();
        while found.len() < count {
            match lines.next().map_err(|e| node.stream_error(e))? {
                None => break,
                Some(Line::TooLong) => {
                    return Err(Error::Usage(format!("{path}: a line is too long for memory; use download")));
                }
                Some(Line::Whole(line)) => {
                    budget.spend_item(line.len())?;
                    found.push(line.into());
                }
            }
        }
        Ok(found)
    }

    /// Where the last `count` lines of a file begin, searched from its end.
    fn start_of_last_lines(&self, path: &GuestPath, count: usize) -> Result<u64> {
        let mut reader = self.open_file(path)?;
        let mut position = reader.node().metadata()?.size_bytes;
        if count == 0 {
            return Ok(position);
        }
        let mut left = count;
        let mut piece = Vec::new();
        // The newline at the very end ends the last line and begins none.
        let mut last = position.checked_sub(1);
        while position > 0 {
            let from = position.saturating_sub(STEP_BYTES as u64);
            piece.clear();
            reader.seek_to(from);
            let read = reader.by_ref().take(position - from).read_to_end(&mut piece);
            read.map_err(|e| reader.node().stream_error(e))?;
            for newline in memrchr_iter(b'\n', &piece) {
                let at = from + newline as u64;
                if last == Some(at) {
                    last = None;
                    continue;
                }
                left -= 1;
                if left == 0 {
                    return Ok(at + 1);
                }
            }
            position = from;
        }
        Ok(0)
    }

    /// Where the line with this number, from 1, begins.
    fn start_of_line(&self, path: &GuestPath, number: usize) -> Result<u64> {
        let mut left = number.saturating_sub(1);
        let mut reader = self.open_file(path)?;
        let mut start = 0;
        let mut position = 0;
        self.for_each_piece(&mut reader, |piece| {
            for newline in memchr_iter(b'\n', piece) {
                if left == 0 {
                    break;
                }
                left -= 1;
                start = position + newline as u64 + 1;
            }
            position += piece.len() as u64;
            Ok(())
        })?;
        Ok(if left == 0 { start } else { position })
    }
}
