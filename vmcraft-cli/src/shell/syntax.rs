//! The shell's language, which is guestfish's: one line to a command and its words.
//!
//! Nothing is executed or looked up here. A line is bytes: names in a guest need not be text.

use bstr::{BStr, BString, ByteSlice};

/// What one line of a script says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether the script goes on if it fails: a `-` stood before it.
    pub(crate) tolerate_failure: bool,
    /// What it does.
    pub(crate) action: Action,
}

/// What a line does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: the line is blank or a comment.
    Nothing,
    /// `!…`: runs a program of the host.
    Host(BString),
    /// `<!…`: runs a program of the host, and its output as commands.
    Inline(BString),
    /// Runs a command of the shell.
    Command(Command),
}

/// A command and its words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Command {
    /// Its name, as it was written.
    pub(crate) name: BString,
    /// What follows.
    pub(crate) words: Vec<Word>,
    /// The host's shell command that gets its output: what stood behind a `|`.
    pub(crate) pipe: Option<BString>,
}

/// A word, without its quotes and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its bytes.
    pub(crate) text: BString,
    /// Whether it stood in quotes, and so means itself even with a `~` in front.
    pub(crate) quoted: bool,
}

/// Why a line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// A `"` without its partner.
    #[error("unterminated double quote")]
    DoubleQuote,
    /// A `'` without its partner.
    #[error("unterminated single quote")]
    SingleQuote,
    /// `"a"b`
    #[error("command arguments not separated by whitespace: {0:?} follows a closing quote")]
    NoSpace(BString),
    /// A backslash that does not start an escape.
    #[error("invalid escape sequence {0:?} in a double-quoted string (a literal backslash is \\\\)")]
    Escape(BString),
}

/// Reads one line, without its newline; a carriage return before it is taken for a part of it. What
/// cannot be read is told with whether the script goes on all the same.
pub(crate) fn parse(line: &[u8]) -> Result<Line, (SyntaxError, bool)> {
    let mut rest = skip_space(line.strip_suffix(b"\r").unwrap_or(line));
    let mut tolerate_failure = false;
    while let Some(after) = rest.strip_prefix(b"-") {
        tolerate_failure = true;
        rest = skip_space(after);
    }
    let action = if rest.is_empty() || rest.starts_with(b"#") {
        Action::Nothing
    } else if let Some(command) = rest.strip_prefix(b"!") {
        Action::Host(command.into())
    } else if let Some(command) = rest.strip_prefix(b"<!") {
        Action::Inline(command.into())
    } else {
        Action::Command(parse_command(rest).map_err(|error| (error, tolerate_failure))?)
    };
    Ok(Line { tolerate_failure, action })
}

/// A command from words that a host's shell has split already: nothing is special in them.
///
/// The second is whether it may fail: its name stood with a `-` before it.
pub(crate) fn from_words(words: &[BString]) -> Option<(Command, bool)> {
    let (name, words) = words.split_first()?;
    let bare = name.trim_start_with(|c| c == '-');
    let command = Command {
        name: bare.into(),
        words: words.iter().map(|text| Word { text: text.clone(), quoted: true }).collect(),
        pipe: None,
    };
    Some((command, bare.len() < name.len()))
}

/// Whether the next line belongs to this one: an odd number of backslashes stands at its end, and
/// it is not a comment.
pub(crate) fn is_continued(line: &[u8]) -> bool {
    let backslashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
    backslashes % 2 == 1 && !skip_space(line).starts_with(b"#")
}

fn parse_command(text: &[u8]) -> Result<Command, SyntaxError> {
    let (name, mut rest) = text.split_at(end_of_word(text));
    let mut command = Command { name: name.into(), ..Command::default() };
    loop {
        rest = skip_space(rest);
        let word = match rest.first() {
            None => return Ok(command),
            Some(b'|') => {
                command.pipe = Some(skip_space(&rest[1..]).into());
                return Ok(command);
            }
            Some(b'"') => {
                let (text, after) = double_quoted(&rest[1..])?;
                rest = separated(after)?;
                Word { text, quoted: true }
            }
            Some(b'\'') => {
                let end = rest[1..].find_byte(b'\'').ok_or(SyntaxError::SingleQuote)?;
                let text = rest[1..=end].into();
                rest = separated(&rest[end + 2..])?;
                Word { text, quoted: true }
            }
            Some(_) => {
                let (word, after) = rest.split_at(end_of_word(rest));
                rest = after;
                Word { text: word.into(), quoted: false }
            }
        };
        command.words.push(word);
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn skip_space(text: &[u8]) -> &[u8] {
    text.trim_start_with(|c| matches!(c, ' ' | '\t'))
}

fn end_of_word(text: &[u8]) -> usize {
    text.iter().position(|byte| is_space(*byte)).unwrap_or(text.len())
}

/// What follows a closing quote, which must be white space or nothing.
fn separated(rest: &[u8]) -> Result<&[u8], SyntaxError> {
    match rest.first() {
        Some(byte) if !is_space(*byte) => Err(SyntaxError::NoSpace(rest[..end_of_word(rest)].into())),
        _ => Ok(rest),
    }
}

/// Reads up to the closing `"`; gives the text and what follows the quote.
fn double_quoted(text: &[u8]) -> Result<(BString, &[u8]), SyntaxError> {
    let mut word = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [] => return Err(SyntaxError::DoubleQuote),
            [b'"', after @ ..] => return Ok((word.into(), after)),
            [b'\\', ..] => {
                let (byte, len) = escape(rest)?;
                word.push(byte);
                rest = &rest[len..];
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

/// The byte that an escape stands for, and the length of the escape. `text` starts at the backslash.
fn escape(text: &[u8]) -> Result<(u8, usize), SyntaxError> {
    let invalid = |len: usize| SyntaxError::Escape(text[..len.min(text.len())].into());
    let simple = |byte| Ok((byte, 2));
    match text.get(1).copied() {
        None => Err(SyntaxError::DoubleQuote),
        Some(b'a') => simple(7),
        Some(b'b') => simple(8),
        Some(b't') => simple(b'\t'),
        Some(b'n') => simple(b'\n'),
        Some(b'v') => simple(11),
        Some(b'f') => simple(12),
        Some(b'r') => simple(b'\r'),
        Some(quoted @ (b'"' | b'\'' | b'?' | b'\\')) => simple(quoted),
        Some(b'0'..=b'7') => number(text, 1, 3, 8).ok_or_else(|| invalid(4)),
        Some(b'x') => number(text, 2, 2, 16).ok_or_else(|| invalid(4)),
        Some(_) => Err(invalid(2)),
    }
}

/// The byte of a numeric escape with exactly `digits` digits from `start` on. NUL is none: no name
/// or text of a guest holds it.
fn number(text: &[u8], start: usize, digits: usize, radix: u32) -> Option<(u8, usize)> {
    let end = start + digits;
    let mut value = 0;
    for byte in text.get(start..end)? {
        value = value * radix + char::from(*byte).to_digit(radix)?;
    }
    u8::try_from(value).ok().filter(|byte| *byte != 0).map(|byte| (byte, end))
}

/// How a command's name is looked up: guestfish takes any case, and `_` for `-`.
pub(crate) fn normal_name(name: &BStr) -> String {
    name.to_str_lossy().to_ascii_lowercase().replace('_', "-")
}

/// Writes a word as a script would have it, so that [`parse`] gives it back.
pub(crate) fn quote(word: &BStr) -> BString {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.iter().all(plain) && !matches!(word[0], b'|' | b'~') {
        return word.into();
    }
    double_quote(word).into()
}

/// Writes a word in double quotes, with escapes for what is not printable.
pub(crate) fn double_quote(word: &BStr) -> String {
    let mut text = String::from("\"");
    for chunk in ByteSlice::utf8_chunks(word.as_bytes()) {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                c if c.is_control() => escape_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text.push('"');
    text
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    bytes.iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
}

/// A line that a person has not finished.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partial {
    /// The command and the words before the last.
    pub(crate) words: Vec<BString>,
    /// The last word as far as it goes, without quotes and escapes.
    pub(crate) text: BString,
    /// Where the last word begins in the line, its quote included.
    pub(crate) start: usize,
    /// Whether it begins with a quote.
    pub(crate) is_quoted: bool,
    /// Whether the host's shell would read it: after `!` or `|`.
    pub(crate) is_host: bool,
}

/// Reads a line up to the cursor; `None` if nothing can be completed there.
pub(crate) fn partial(line: &[u8]) -> Option<Partial> {
    let mut rest = skip_space(line);
    while let Some(after) = rest.strip_prefix(b"-") {
        rest = skip_space(after);
    }
    if rest.starts_with(b"#") {
        return None;
    }
    let mut is_host = false;
    for start in [&b"!"[..], b"<!"] {
        if let Some(after) = rest.strip_prefix(start) {
            (rest, is_host) = (after, true);
        }
    }
    let mut words = Vec::new();
    loop {
        rest = skip_space(rest);
        let start = line.len() - rest.len();
        let last = |words, text: BString, is_quoted| Some(Partial { words, text, start, is_quoted, is_host });
        match rest.first() {
            Some(b'|') if !is_host && !words.is_empty() => {
                (rest, is_host) = (&rest[1..], true);
                words.clear();
            }
            Some(b'"') if !is_host && !words.is_empty() => match double_quoted(&rest[1..]) {
                Ok((word, after)) => {
                    words.push(word);
                    rest = after;
                }
                // What is there of it: the closing quote is added to read it.
                Err(_) => {
                    let closed = [&rest[1..], b"\""].concat();
                    let (text, _) = double_quoted(&closed).ok()?;
                    return last(words, text, true);
                }
            },
            Some(b'\'') if !is_host && !words.is_empty() => match rest[1..].find_byte(b'\'') {
                Some(end) => {
                    words.push(rest[1..=end].into());
                    rest = &rest[end + 2..];
                }
                None => return last(words, rest[1..].into(), true),
            },
            _ => {
                let (word, after) = rest.split_at(end_of_word(rest));
                if after.is_empty() {
                    return last(words, word.into(), false);
                }
                words.push(word.into());
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        match parse(line.as_bytes()).unwrap().action {
            Action::Command(command) => std::iter::once(command.name.to_string())
                .chain(command.words.iter().map(|word| word.text.to_string()))
                .collect(),
            other => panic!("{line:?} is not a command: {other:?}"),
        }
    }

    fn error(line: &str) -> SyntaxError {
        parse(line.as_bytes()).unwrap_err().0
    }

    #[test]
    fn words_split_at_white_space() {
        assert_eq!(words("  ls   /etc\t-l "), ["ls", "/etc", "-l"]);
        assert_eq!(words("echo a\rb\r"), ["echo", "a\rb"]);
        assert_eq!(words("add-drive /x readonly:true"), ["add-drive", "/x", "readonly:true"]);
    }

    #[test] // guestfish knows quotes at the start of a word only.
    fn quotes_inside_a_word_are_literal() {
        assert_eq!(words(r#"echo a"b"c 'x"y' "x'y""#), ["echo", r#"a"b"c"#, "x\"y", "x'y"]);
        assert_eq!(words("\"echo\" x"), ["\"echo\"", "x"]);
        assert_eq!(words("echo '' \"\""), ["echo", "", ""]);
        assert_eq!(words("echo a#b # c"), ["echo", "a#b", "#", "c"]);
    }

    #[test]
    fn double_quotes_take_escapes() {
        assert_eq!(words(r#"echo "a\x41\101\n\"\\\t\'\?""#), ["echo", "aAA\n\"\\\t'?"]);
        assert_eq!(words(r#"echo "a\x411""#), ["echo", "aA1"]);
        assert_eq!(words(r#"echo "\a\b\f\r\v""#), ["echo", "\x07\x08\x0c\r\x0b"]);
        for bad in [r"\q", r"\x4", r"\xg1", r"\4", r"\4444", r"\000", r"\x00", r"\777"] {
            assert!(matches!(error(&format!("echo \"a{bad}\"")), SyntaxError::Escape(_)), "{bad}");
        }
    }

    #[test]
    fn single_quotes_and_bare_words_take_no_escapes() {
        assert_eq!(words(r"echo 'a\nb' a\nb"), ["echo", r"a\nb", r"a\nb"]);
    }

    #[test]
    fn quotes_must_close_and_be_followed_by_space() {
        assert_eq!(error("echo \"abc"), SyntaxError::DoubleQuote);
        assert_eq!(error("echo \"abc\\"), SyntaxError::DoubleQuote);
        assert_eq!(error("echo 'abc"), SyntaxError::SingleQuote);
        assert_eq!(error("echo 'abc'd e"), SyntaxError::NoSpace("d".into()));
        assert_eq!(error("echo \"abc\"|cat"), SyntaxError::NoSpace("|cat".into()));
    }

    #[test]
    fn comments_and_blank_lines_are_nothing() {
        for line in ["", "  \t", "# x", "\t# 'x", "-", "- # x"] {
            assert_eq!(parse(line.as_bytes()).unwrap().action, Action::Nothing, "{line:?}");
        }
    }

    #[test]
    fn a_dash_tolerates_failure() {
        for (line, tolerated) in [("ls /", false), ("-ls /", true), ("- ls /", true), ("--ls /", true)] {
            let parsed = parse(line.as_bytes()).unwrap();
            assert_eq!(parsed.tolerate_failure, tolerated);
            assert_eq!(words(line), ["ls", "/"]);
            assert!(matches!(parsed.action, Action::Command(_)));
        }
        assert!(parse(b"-echo 'a").unwrap_err().1);
        assert!(!parse(b"echo 'a").unwrap_err().1);
        assert_eq!(
            parse(b"-!false").unwrap(),
            Line { tolerate_failure: true, action: Action::Host("false".into()) }
        );
    }

    #[test]
    fn host_commands_take_the_rest_of_the_line_as_it_is() {
        let action = |line: &str| parse(line.as_bytes()).unwrap().action;
        assert_eq!(action("!echo 'a"), Action::Host("echo 'a".into()));
        assert_eq!(action("<! echo \"a"), Action::Inline(" echo \"a".into()));
    }

    #[test] // The space before it makes a bar a pipe.
    fn pipes_need_a_space_before_them() {
        let command = |line: &str| match parse(line.as_bytes()).unwrap().action {
            Action::Command(command) => command,
            other => panic!("{other:?}"),
        };
        assert_eq!(command("cat /x | wc -l | tr a 'b").pipe.unwrap(), "wc -l | tr a 'b");
        assert_eq!(command("cat /x |wc").pipe.unwrap(), "wc");
        assert_eq!(command("echo a|wc").pipe, None);
        assert_eq!(command("echo \"|\" wc").pipe, None);
        assert_eq!(command("echo |").pipe.unwrap(), "");
    }

    #[test] // A quoted tilde is not a home directory.
    fn words_remember_their_quotes() {
        let Action::Command(command) = parse(b"echo ~ '~' \"~\"").unwrap().action else { panic!() };
        assert_eq!(command.words.iter().map(|word| word.quoted).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn a_backslash_at_the_end_continues_the_line() {
        assert!(is_continued(b"ls \\"));
        assert!(!is_continued(b"ls \\\\"));
        assert!(!is_continued(b"# ls \\"));
        assert!(!is_continued(b"ls"));
    }

    #[test] // On the command line the host's shell has split the words: they are taken as they are.
    fn words_of_the_command_line_are_literal() {
        let (command, tolerated) = from_words(&["-write".into(), r"a\n".into(), "|".into()]).unwrap();
        assert!(tolerated);
        assert_eq!(command.name, "write");
        assert_eq!(command.words[0].text, r"a\n");
        assert_eq!(command.pipe, None);
        assert_eq!(from_words(&[]), None);
    }

    #[test]
    fn unfinished_lines_give_their_last_word() {
        let read = |line: &str| {
            let partial = partial(line.as_bytes()).unwrap();
            let words: Vec<_> = partial.words.iter().map(|word| word.to_string()).collect();
            (words.join(","), partial.text.to_string(), line[partial.start..].to_owned())
        };
        let is = |words: &str, text: &str, rest: &str| (words.to_owned(), text.to_owned(), rest.to_owned());
        assert_eq!(read(""), is("", "", ""));
        assert_eq!(read(" -ca"), is("", "ca", "ca"));
        assert_eq!(read("cat "), is("cat", "", ""));
        assert_eq!(read("cat /e"), is("cat", "/e", "/e"));
        assert_eq!(read("cat \"/a\\x20b"), is("cat", "/a b", "\"/a\\x20b"));
        assert_eq!(read("x 'a b' 'c d"), is("x,a b", "c d", "'c d"));
        assert_eq!(read("x \"a\" b"), is("x,a", "b", "b"));
        assert_eq!(read("cat /e | we"), is("", "we", "we"));
        assert!(partial(b"!ls /e").unwrap().is_host);
        assert_eq!(partial(b"# x"), None);
    }

    proptest! {
        #[test]
        fn any_unfinished_line_is_read(line in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(partial) = partial(&line) {
                prop_assert!(partial.start <= line.len());
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        #[test] // Completion and traces write words so that the shell reads them back.
        fn quoted_words_read_back(texts in prop::collection::vec("[^\0]{0,12}", 0..5)) {
            let mut line = BString::from("echo");
            for text in &texts {
                line.push(b' ');
                line.extend_from_slice(&quote(text.as_str().into()));
            }
            let Action::Command(command) = parse(&line).unwrap().action else { panic!() };
            prop_assert_eq!(command.pipe, None);
            let read: Vec<_> = command.words.iter().map(|word| word.text.to_string()).collect();
            prop_assert_eq!(read, texts);
        }
    }
}
