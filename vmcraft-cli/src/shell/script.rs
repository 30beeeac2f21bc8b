//! Where lines come from: a file, standard input, an option, a program's output, a person.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use bstr::{BString, ByteSlice};
use vmcraft::Key;

use crate::error::{Error, Result, message};
use crate::input;
use crate::interrupt::{self, Interruptible};
use crate::report::Location;
use crate::shell::syntax;

/// Gives lines, without their newlines, until there are no more.
pub(crate) trait Lines {
    /// The next line. `more` says that it goes on with a command that is not complete.
    fn next(&mut self, more: bool) -> Result<Option<BString>>;
}

/// Lines to run, with their numbers.
pub(crate) struct Script {
    lines: Box<dyn Lines>,
    /// What messages call it; none for what a person typed.
    name: Option<String>,
    /// How many lines were read.
    line: u64,
    /// The number of the line that the current command began on.
    start: u64,
}

impl Script {
    /// The lines of a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| message(format!("{name}: cannot open: {e}")))?;
        Ok(Self::from_reader(Interruptible(file), name))
    }

    /// The lines of standard input. A command that reads `-` gets what follows it there.
    pub(crate) fn stdin() -> Self {
        Self::new(Box::new(StdinLines), Some("standard input".into()))
    }

    /// The lines of an option.
    pub(crate) fn from_text(text: &str) -> Self {
        Self::new(Box::new(ReadLines(Cursor::new(text.as_bytes().to_vec()))), None)
    }

    /// The lines that a file or a program gives.
    pub(crate) fn from_reader(reader: impl Read + 'static, name: String) -> Self {
        Self::new(Box::new(ReadLines(BufReader::new(reader))), Some(name))
    }

    /// Lines of another source; messages name it, if it has a name.
    pub(crate) fn new(lines: Box<dyn Lines>, name: Option<String>) -> Self {
        Self { lines, name, line: 0, start: 0 }
    }

    /// Where the current command stands.
    pub(crate) fn location(&self) -> Option<Location> {
        self.name.clone().map(|file| Location { file, line: self.start })
    }

    /// The next command's line, with those that continue it; `None` at the end.
    pub(crate) fn next_line(&mut self) -> Result<Option<BString>> {
        let Some(mut line) = self.raw_line(false)? else { return Ok(None) };
        self.start = self.line;
        while syntax::is_continued(&line) {
            line.pop();
            match self.raw_line(true)? {
                Some(more) => line.extend_from_slice(&more),
                None => break,
            }
        }
        Ok(Some(line))
    }

    /// The lines up to the one that is `end`: a here-document.
    pub(crate) fn here_document(&mut self, end: &[u8]) -> Result<BString> {
        let mut content = BString::default();
        while let Some(line) = self.raw_line(true)? {
            if line == end {
                return Ok(content);
            }
            content.extend_from_slice(&line);
            content.push(b'\n');
        }
        Err(message(format!("the here-document has no end: no line is {}", end.as_bstr())))
    }

    /// The next line, as the key of what is named.
    pub(crate) fn key(&mut self, what: &str) -> Result<Key> {
        let line = self.raw_line(true)?;
        let line =
            line.ok_or_else(|| message(format!("{what}: a key is needed, and the input has ended")))?;
        Ok(Key::new(line.into()))
    }

    fn raw_line(&mut self, more: bool) -> Result<Option<BString>> {
        self.line += 1;
        self.lines.next(more)
    }
}

fn read_line(reader: &mut dyn BufRead) -> Result<Option<BString>> {
    let mut line = Vec::new();
    let n = reader.read_until(b'\n', &mut line).map_err(|e| match interrupt::pending() {
        true => Error::Interrupted,
        false => message(format!("cannot read the script: {e}")),
    })?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok((n > 0).then(|| line.into()))
}

struct ReadLines<R>(R);

impl<R: BufRead> Lines for ReadLines<R> {
    fn next(&mut self, _more: bool) -> Result<Option<BString>> {
        read_line(&mut self.0)
    }
}

/// Those of standard input.
struct StdinLines;

impl Lines for StdinLines {
    fn next(&mut self, _more: bool) -> Result<Option<BString>> {
        read_line(&mut *input::lines())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, u64)> {
        let mut script = Script::from_reader(Cursor::new(text.as_bytes().to_vec()), "x".into());
        let mut lines = Vec::new();
        while let Some(line) = script.next_line().unwrap() {
            lines.push((line.to_string(), script.location().unwrap().line));
        }
        lines
    }

    #[test] // A message names the line that a command begins on.
    fn continued_lines_have_the_number_of_the_first() {
        let expected = [("a", 1), ("b  c d", 2), ("", 5), ("# x\\", 6), ("e", 7)];
        let expected = expected.map(|(line, number)| (line.to_owned(), number));
        assert_eq!(lines("a\nb \\\n c\\\n d\n\n# x\\\ne"), expected);
        assert_eq!(lines("a\\"), [("a".to_owned(), 1)]);
        assert_eq!(lines(""), []);
    }

    #[test]
    fn here_documents_keep_their_bytes() {
        let mut script = Script::from_text("upload -<<END /x\n a\\\n\"b\n\nEND\nnext");
        script.next_line().unwrap();
        assert_eq!(script.here_document(b"END").unwrap(), " a\\\n\"b\n\n");
        assert_eq!(script.next_line().unwrap().unwrap(), "next");
        let error = Script::from_text("a\nb").here_document(b"END").unwrap_err();
        assert!(error.to_string().contains("END"), "{error}");
    }
}
