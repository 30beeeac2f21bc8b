//! Searching and counting text.

use std::io::{BufReader, Read};

use bstr::{BStr, BString};
use memchr::{memchr, memchr_iter};
use vmcraft_macros::api;

use crate::limits::Budget;
use crate::lines::{Line, Lines, STEP_BYTES};
use crate::posix_regex::{self, Syntax};
use crate::{Error, Guest, GuestPath, Result, decompress};

#[api(area = "text")]
impl Guest {
    /// List the lines of a file that match a regular expression
    ///
    /// The result has the lines of `path` that `regex` matches, as grep(1) finds them in the C
    /// locale: every byte is a character. `regex` is a basic regular expression, in which `\(`, `\{`,
    /// `\|`, `\+` and `\?` are operators. Back-references (`\1`) are refused. Lines with a NUL byte,
    /// and lines of more than 16 MiB, are not text and are left out.
    ///
    /// - `extended:true` takes an extended regular expression, as `grep -E`
    /// - `fixed:true` takes text in which nothing is an operator, as `grep -F`
    /// - `insensitive:true` ignores the case of ASCII letters
    /// - `compressed:true` decompresses a file in gzip, bzip2, xz or zstd form first; one that is not
    ///   compressed is searched as it is
    ///
    /// ```guestfish
    /// grep ^root: /etc/passwd
    /// ```
    #[call(alias = "grep-opts")]
    pub fn grep(
        &self,
        regex: &BStr,
        path: &GuestPath,
        extended: Option<bool>,
        fixed: Option<bool>,
        insensitive: Option<bool>,
        compressed: Option<bool>,
    ) -> Result<Vec<BString>> {
        let syntax = match (extended.unwrap_or(false), fixed.unwrap_or(false)) {
            (true, true) => {
                return Err(Error::Usage("extended:true and fixed:true exclude each other".into()));
            }
            (true, false) => Syntax::Extended,
            (false, true) => Syntax::Fixed,
            (false, false) => Syntax::Basic,
        };
        let ignore_case = insensitive.unwrap_or(false);
        self.matching_lines(regex, path, syntax, ignore_case, compressed.unwrap_or(false))
    }

    /// List the lines of a file that match an extended regular expression
    ///
    /// The result has the lines of `path` that `regex` matches.
    ///
    /// ```guestfish
    /// egrep "root|daemon" /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn egrep(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Extended, false, false)
    }

    /// List the lines of a file that have some text in them
    ///
    /// The result has the lines of `path` that `pattern` stands in, as it is.
    ///
    /// ```guestfish
    /// fgrep root: /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn fgrep(&self, pattern: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(pattern, path, Syntax::Fixed, false, false)
    }

    /// List the lines of a file that match a regular expression, whatever the case of letters
    ///
    /// The result has the lines of `path` that `regex` matches.
    ///
    /// ```guestfish
    /// grepi ROOT /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn grepi(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Basic, true, false)
    }

    /// List the lines of a file that match an extended regular expression, whatever the case of letters
    ///
    /// The result has the lines of `path` that `regex` matches.
    ///
    /// ```guestfish
    /// egrepi "ROOT|daemon" /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn egrepi(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Extended, true, false)
    }

    /// List the lines of a file that have some text in them, whatever the case of letters
    ///
    /// The result has the lines of `path` that `pattern` stands in.
    ///
    /// ```guestfish
    /// fgrepi ROOT: /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn fgrepi(&self, pattern: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(pattern, path, Syntax::Fixed, true, false)
    }

    /// List the lines of a compressed file that match a regular expression
    ///
    /// The result has the lines that `regex` matches in what `path` is when decompressed.
    ///
    /// ```guestfish
    /// zgrep root /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn zgrep(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Basic, false, true)
    }

    /// List the lines of a compressed file that match an extended regular expression
    ///
    /// The result has the lines that `regex` matches in what `path` is when decompressed.
    ///
    /// ```guestfish
    /// zegrep "root|daemon" /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn zegrep(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Extended, false, true)
    }

    /// List the lines of a compressed file that have some text in them
    ///
    /// The result has the lines that `pattern` stands in, in what `path` is when decompressed.
    ///
    /// ```guestfish
    /// zfgrep root: /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn zfgrep(&self, pattern: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(pattern, path, Syntax::Fixed, false, true)
    }

    /// List the lines of a compressed file that match a regular expression, whatever the case of letters
    ///
    /// The result has the lines that `regex` matches in what `path` is when decompressed.
    ///
    /// ```guestfish
    /// zgrepi ROOT /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn zgrepi(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Basic, true, true)
    }

    /// List the lines of a compressed file that match an extended regular expression, whatever the case
    /// of letters
    ///
    /// The result has the lines that `regex` matches in what `path` is when decompressed.
    ///
    /// ```guestfish
    /// zegrepi "ROOT|daemon" /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn zegrepi(&self, regex: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(regex, path, Syntax::Extended, true, true)
    }

    /// List the lines of a compressed file that have some text in them, whatever the case of letters
    ///
    /// The result has the lines that `pattern` stands in, in what `path` is when decompressed.
    ///
    /// ```guestfish
    /// zfgrepi ROOT: /etc/passwd
    /// ```
    #[call(deprecated = "grep")]
    pub fn zfgrepi(&self, pattern: &BStr, path: &GuestPath) -> Result<Vec<BString>> {
        self.matching_lines(pattern, path, Syntax::Fixed, true, true)
    }

    /// Read a compressed file
    ///
    /// The result is what `path` is when decompressed. It may be in gzip, bzip2, xz or zstd form; one
    /// that is not compressed is read as it is. libguestfs does not have this call.
    ///
    /// ```guestfish
    /// zcat /etc/hostname
    /// ```
    pub fn zcat(&self, path: &GuestPath) -> Result<Vec<u8>> {
        let mut budget = Budget::new(path, "use download, and decompress on the host");
        let mut content = Vec::new();
        self.for_each_plain_piece(path, |piece| {
            budget.spend(piece.len())?;
            content.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(content)
    }

    /// Count the lines of a file
    ///
    /// The result is the number of newlines in `path`, as of `wc -l`.
    ///
    /// ```guestfish
    /// wc-l /etc/passwd
    /// ```
    pub fn wc_l(&self, path: &GuestPath) -> Result<i64> {
        let mut count = 0;
        let mut reader = self.open_file(path)?;
        self.for_each_piece(&mut reader, |piece| {
            count += memchr_iter(b'\n', piece).count() as u64;
            Ok(())
        })?;
        Ok(count.cast_signed())
    }

    /// Count the words of a file
    ///
    /// The result is the number of words in `path`, as of `wc -w` in the C locale: runs of bytes
    /// other than white space, with at least one printable ASCII character.
    ///
    /// ```guestfish
    /// wc-w /etc/passwd
    /// ```
    pub fn wc_w(&self, path: &GuestPath) -> Result<i64> {
        let mut count = 0_i64;
        let mut is_in_word = false;
        let mut reader = self.open_file(path)?;
        self.for_each_piece(&mut reader, |piece| {
            for byte in piece {
                match byte {
                    b' ' | b'\t'..=b'\r' => is_in_word = false,
                    b'!'..=b'~' => {
                        count += i64::from(!is_in_word);
                        is_in_word = true;
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// Count the bytes of a file
    ///
    /// The result is the size of `path` in bytes, as of `wc -c`.
    ///
    /// ```guestfish
    /// wc-c /etc/passwd
    /// ```
    pub fn wc_c(&self, path: &GuestPath) -> Result<i64> {
        Ok(self.open_file(path)?.node().metadata()?.size_bytes.cast_signed())
    }
}

impl Guest {
    fn matching_lines(
        &self,
        pattern: &BStr,
        path: &GuestPath,
        syntax: Syntax,
        ignore_case: bool,
        is_compressed: bool,
    ) -> Result<Vec<BString>> {
        let regex = posix_regex::compile(pattern, syntax, ignore_case)?;
        let file = self.open_file(path)?;
        let node = file.node().clone();
        let failed = |e| node.stream_error(e);
        let reader = BufReader::with_capacity(STEP_BYTES, file);
        let reader: Box<dyn Read> =
            if is_compressed { decompress::plain(reader).map_err(failed)? } else { Box::new(reader) };
        let mut lines = Lines::new(BufReader::with_capacity(STEP_BYTES, reader));
        let mut budget = Budget::new(path, "give a narrower expression, or use download");
        let mut found = Vec::new();
        while let Some(line) = lines.next().map_err(failed)? {
            match line {
                Line::Whole(line) if memchr(0, line).is_none() && regex.is_match(line) => {
                    budget.spend_item(line.len())?;
                    found.push(line.into());
                }
                // No text has such lines.
                Line::Whole(_) | Line::TooLong => {}
            }
        }
        Ok(found)
    }

    /// Shows the bytes of a file from front to back, decompressed.
    pub(crate) fn for_each_plain_piece(
        &self,
        path: &GuestPath,
        mut show: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let file = self.open_file(path)?;
        let node = file.node().clone();
        let failed = |e| node.stream_error(e);
        let mut reader = decompress::plain(BufReader::with_capacity(STEP_BYTES, file)).map_err(failed)?;
        let mut buf = vec![0; STEP_BYTES];
        loop {
            match reader.read(&mut buf).map_err(failed)? {
                0 => return Ok(()),
                n => show(&buf[..n])?,
            }
        }
    }
}
