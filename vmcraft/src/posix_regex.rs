//! Regular expressions of grep(1): basic and extended ones as POSIX has them, with GNU's additions,
//! where every byte is a character (the C locale).
//!
//! They are translated for the `regex` crate, whose matching takes time linear in the text whatever
//! the expression. It has no back-references, so those are refused.

use regex::bytes::{Regex, RegexBuilder};

use crate::{Error, Result};

/// The highest count in an interval: `RE_DUP_MAX` of the GNU C library.
const MAX_COUNT: u32 = 32_767;

/// The most memory that a compiled expression takes, in bytes.
const MAX_COMPILED_BYTES: usize = 32 << 20;

/// How an expression is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// `grep`: `\(`, `\{`, `\+`, `\?` and `\|` are operators.
    Basic,
    /// `grep -E`: `(`, `{`, `+`, `?` and `|` are operators.
    Extended,
    /// `grep -F`: nothing is an operator.
    Fixed,
}

/// Compiles an expression that is matched against one line without its newline.
///
/// Lines of the expression are alternatives, as in grep.
pub(crate) fn compile(pattern: &[u8], syntax: Syntax, ignore_case: bool) -> Result<Regex> {
    let refused =
        |what: String| Error::Usage(format!("the regular expression {:?}: {what}", bstr::BStr::new(pattern)));
    let mut alternatives = Vec::new();
    for line in pattern.split(|byte| *byte == b'\n') {
        let mut translator = Translator::new(line, syntax, ignore_case);
        translator.translate().map_err(|what| refused(what.to_owned()))?;
        alternatives.push(translator.out);
    }
    RegexBuilder::new(&format!("(?:{})", alternatives.join("|")))
        .unicode(false)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => refused("it is too big".into()),
            // The expression is ours, and its nesting is all that can be too much.
            _ => refused("it is nested too deeply".into()),
        })
}

struct Translator<'p> {
    pattern: &'p [u8],
    at: usize,
    syntax: Syntax,
    ignore_case: bool,
    /// What the `regex` crate is given.
    out: String,
    /// Where in `out` begins what a repetition would repeat.
    item: Option<usize>,
    /// Where in `out` the open groups begin.
    groups: Vec<usize>,
}

impl<'p> Translator<'p> {
    fn new(pattern: &'p [u8], syntax: Syntax, ignore_case: bool) -> Self {
        Self { pattern, at: 0, syntax, ignore_case, out: String::new(), item: None, groups: Vec::new() }
    }

    fn translate(&mut self) -> Result<(), &'static str> {
        while let Some(byte) = self.take() {
            match (self.syntax, byte) {
                (Syntax::Fixed, _) => self.literal(byte),
                (_, b'\\') => {
                    let escaped = self.take().ok_or("trailing backslash")?;
                    self.escape(escaped)?;
                }
                (_, b'.') => self.item("(?s:.)"),
                (_, b'[') => self.bracket()?,
                (Syntax::Basic, b'*') if self.item.is_none() => self.literal(byte),
                (_, b'*') => self.repeat("*"),
                (Syntax::Basic, b'^') if !self.is_at_start() => self.literal(byte),
                // After it a star is a star in a basic expression.
                (Syntax::Basic, b'^') => self.out.push_str("\\A"),
                (Syntax::Extended, b'^') => self.item("\\A"),
                (Syntax::Basic, b'$') if !self.is_at_end() => self.literal(byte),
                (_, b'$') => self.item("\\z"),
                (Syntax::Extended, b'+') => self.repeat("+"),
                (Syntax::Extended, b'?') => self.repeat("?"),
                (Syntax::Extended, b'|') => self.alternative(),
                (Syntax::Extended, b'(') => self.open(),
                // One that closes nothing stands for itself.
                (Syntax::Extended, b')') if !self.groups.is_empty() => self.close()?,
                (Syntax::Extended, b'{') => match self.interval("}") {
                    Some(interval) => self.repeat(&interval?),
                    None => self.literal(byte),
                },
                _ => self.literal(byte),
            }
        }
        if self.groups.is_empty() { Ok(()) } else { Err("unmatched ( or \\(") }
    }

    fn take(&mut self) -> Option<u8> {
        let byte = *self.pattern.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn escape(&mut self, byte: u8) -> Result<(), &'static str> {
        match (self.syntax, byte) {
            (_, b'1'..=b'9') => return Err("back-references (\\1 to \\9) are not supported"),
            (Syntax::Basic, b'(') => self.open(),
            (Syntax::Basic, b')') => self.close()?,
            (Syntax::Basic, b'|') => self.alternative(),
            (Syntax::Basic, b'{' | b'+' | b'?') if self.item.is_none() => self.literal(byte),
            (Syntax::Basic, b'{') => {
                let interval = self.interval("\\}").ok_or("invalid content of \\{\\}")??;
                self.repeat(&interval);
            }
            (Syntax::Basic, b'+') => self.repeat("+"),
            (Syntax::Basic, b'?') => self.repeat("?"),
            (_, b'w') => self.item("[0-9A-Za-z_]"),
            (_, b'W') => self.item("[^0-9A-Za-z_]"),
            (_, b's') => self.item("[ \\t\\n\\x0b\\f\\r]"),
            (_, b'S') => self.item("[^ \\t\\n\\x0b\\f\\r]"),
            (_, b'b') => self.item("\\b"),
            (_, b'B') => self.item("\\B"),
            (_, b'<') => self.item("\\b{start}"),
            (_, b'>') => self.item("\\b{end}"),
            (_, b'`') => self.item("\\A"),
            (_, b'\'') => self.item("\\z"),
            _ => self.literal(byte),
        }
        Ok(())
    }

    /// Whether `^` at the byte before this place anchors a basic expression.
    fn is_at_start(&self) -> bool {
        let before = &self.pattern[..self.at - 1];
        before.is_empty() || (self.item.is_none() && (before.ends_with(b"\\(") || before.ends_with(b"\\|")))
    }

    /// Whether `$` at the byte before this place anchors a basic expression.
    fn is_at_end(&self) -> bool {
        let after = &self.pattern[self.at..];
        after.is_empty() || after.starts_with(b"\\)") || after.starts_with(b"\\|")
    }

    fn item(&mut self, text: &str) {
        self.item = Some(self.out.len());
        self.out.push_str(text);
    }

    fn literal(&mut self, byte: u8) {
        let mut set = ByteSet::default();
        set.insert(byte);
        self.set(set, false);
    }

    fn set(&mut self, mut set: ByteSet, is_negated: bool) {
        if self.ignore_case {
            set.fold_case();
        }
        let text = set.to_class(is_negated);
        self.item(&text);
    }

    fn open(&mut self) {
        self.groups.push(self.out.len());
        self.out.push_str("(?:");
        self.item = None;
    }

    fn close(&mut self) -> Result<(), &'static str> {
        let start = self.groups.pop().ok_or("unmatched ) or \\)")?;
        self.out.push(')');
        self.item = Some(start);
        Ok(())
    }

    fn alternative(&mut self) {
        self.out.push('|');
        self.item = None;
    }

    /// Repeats the last item. Where there is none, as after `(`, nothing is repeated.
    fn repeat(&mut self, how: &str) {
        if let Some(start) = self.item {
            self.out.insert_str(start, "(?:");
            self.out.push(')');
            self.out.push_str(how);
        }
    }

    /// The interval after its opening brace, up to `end`, in the form `{1,2}`. `None`, and nothing is
    /// taken, if it is not one.
    fn interval(&mut self, end: &str) -> Option<Result<String, &'static str>> {
        let rest = &self.pattern[self.at..];
        let len = rest.windows(end.len()).position(|window| window == end.as_bytes())?;
        let content = std::str::from_utf8(&rest[..len]).ok()?;
        let (low, high) = content.split_once(',').unwrap_or((content, content));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(low) || !is_number(high) {
            return None;
        }
        self.at += len + end.len();
        // An empty number on the left is 0, and on the right no limit; too many digits are too big.
        let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
        let low = if low.is_empty() { 0 } else { number(low) };
        let high = if high.is_empty() { None } else { Some(number(high)) };
        Some(match high {
            _ if content.is_empty() => Err("invalid content of {}"),
            Some(high) if high < low => Err("invalid content of {}"),
            _ if low.max(high.unwrap_or(0)) > MAX_COUNT => Err("an interval is too big"),
            Some(high) => Ok(format!("{{{low},{high}}}")),
            None => Ok(format!("{{{low},}}")),
        })
    }

    /// What stands after `[`.
    fn bracket(&mut self) -> Result<(), &'static str> {
        const UNMATCHED: &str = "unmatched [, [^, [:, [., or [=";
        let start = self.at;
        let is_negated = self.pattern.get(self.at) == Some(&b'^');
        self.at += usize::from(is_negated);
        let mut set = ByteSet::default();
        let first = self.at;
        loop {
            let (low, is_class) = match self.take().ok_or(UNMATCHED)? {
                b']' if self.at - 1 > first => break,
                b'[' if self.pattern.get(self.at) == Some(&b':') => {
                    self.at += 1;
                    let name = self.up_to(b":]").ok_or(UNMATCHED)?;
                    set.insert_class(name)?;
                    (0, true)
                }
                b'[' if matches!(self.pattern.get(self.at), Some(b'.' | b'=')) => {
                    (self.collating_element().ok_or(UNMATCHED)??, false)
                }
                byte => (byte, false),
            };
            // A minus before the closing bracket stands for itself.
            let is_range = self.pattern.get(self.at) == Some(&b'-')
                && self.pattern.get(self.at + 1).is_some_and(|next| *next != b']');
            if !is_range {
                if !is_class {
                    set.insert(low);
                }
                continue;
            }
            self.at += 1;
            let high = match self.take().ok_or(UNMATCHED)? {
                b'[' if matches!(self.pattern.get(self.at), Some(b'.' | b'=')) => {
                    self.collating_element().ok_or(UNMATCHED)??
                }
                b'[' if self.pattern.get(self.at) == Some(&b':') => return Err("invalid range end"),
                byte => byte,
            };
            if is_class || high < low {
                return Err("invalid range end");
            }
            (low..=high).for_each(|byte| set.insert(byte));
            // What ends a range does not begin another.
            let begins_another = self.pattern.get(self.at) == Some(&b'-')
                && self.pattern.get(self.at + 1).is_some_and(|next| *next != b']');
            if begins_another {
                return Err("invalid range end");
            }
        }
        let content = &self.pattern[start..self.at - 1];
        if content.len() > 1 && content.starts_with(b":") && content.ends_with(b":") {
            return Err("character class syntax is [[:space:]], not [:space:]");
        }
        self.set(set, is_negated);
        Ok(())
    }

    /// A character written as `[.a.]` or `[=a=]`, after its first bracket.
    fn collating_element(&mut self) -> Option<Result<u8, &'static str>> {
        let mark = self.take()?;
        let name = self.up_to(&[mark, b']'])?;
        Some(match name {
            [byte] => Ok(*byte),
            _ => Err("invalid collation character"),
        })
    }

    fn up_to(&mut self, end: &[u8]) -> Option<&'p [u8]> {
        let rest = &self.pattern[self.at..];
        let len = rest.windows(end.len()).position(|window| window == end)?;
        self.at += len + end.len();
        Some(&rest[..len])
    }
}

/// A set of bytes.
#[derive(Default)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
    }

    fn insert_class(&mut self, name: &[u8]) -> Result<(), &'static str> {
        let has: fn(&u8) -> bool = match name {
            b"alnum" => u8::is_ascii_alphanumeric,
            b"alpha" => u8::is_ascii_alphabetic,
            b"blank" => |byte| matches!(byte, b' ' | b'\t'),
            b"cntrl" => u8::is_ascii_control,
            b"digit" => u8::is_ascii_digit,
            b"graph" => u8::is_ascii_graphic,
            b"lower" => u8::is_ascii_lowercase,
            b"print" => |byte| matches!(byte, b' '..=b'~'),
            b"punct" => u8::is_ascii_punctuation,
            b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
            b"upper" => u8::is_ascii_uppercase,
            b"xdigit" => u8::is_ascii_hexdigit,
            _ => return Err("invalid character class name"),
        };
        (0..=u8::MAX).filter(has).for_each(|byte| self.insert(byte));
        Ok(())
    }

    fn fold_case(&mut self) {
        for byte in b'a'..=b'z' {
            let upper = byte.to_ascii_uppercase();
            if self.contains(byte) || self.contains(upper) {
                self.insert(byte);
                self.insert(upper);
            }
        }
    }

    /// The set, or all other bytes, as the `regex` crate writes it.
    fn to_class(&self, is_negated: bool) -> String {
        let mut class = String::from("[");
        let mut byte = 0_u16;
        let in_set = |byte: u16| u8::try_from(byte).is_ok_and(|byte| self.contains(byte) != is_negated);
        while byte < 256 {
            let start = byte;
            while in_set(byte) {
                byte += 1;
            }
            match byte - start {
                0 => byte += 1,
                1 => class.push_str(&format!("\\x{start:02x}")),
                _ => class.push_str(&format!("\\x{start:02x}-\\x{:02x}", byte - 1)),
            }
        }
        if class.len() == 1 {
            // The empty class.
            return "[^\\x00-\\xff]".into();
        }
        class.push(']');
        class
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// The lines that grep in the C locale prints, or `None` if it refuses the expression.
    fn grep(option: &str, pattern: &str, text: &[u8]) -> Option<Vec<u8>> {
        let mut child = Command::new(testkit::require("grep"))
            .args(["-a", option, "-e", pattern])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may end before it reads.
        let _ = child.stdin.take().unwrap().write_all(text);
        let output = child.wait_with_output().unwrap();
        (output.status.code() != Some(2)).then_some(output.stdout)
    }

    fn ours(regex: &Regex, text: &[u8]) -> Vec<u8> {
        let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
        lines.filter(|line| regex.is_match(line)).flat_map(|line| [line, b"\n"].concat()).collect()
    }

    const TEXT: &[u8] = b"a\nb\n*a\n+a\n{1}\na{1\n(\n)\n()\na)\n\naa\naaa\nA\nAb\n[\n]\n-\nab\na^b\na$b\nd\nw\nt\nn\n\\\n*\n^*\n\
        a|b\nx{1\n{\na{x\n+\n?a\n?\na**\n=\nfoo bar\nfoobar\n_x1\n\tx\ncaf\xc3\xa9\ncaf\xe9\n\x7f\n:\n1234\nabcabc\n";

    fn compare(pattern: &str) {
        for (syntax, option) in [(Syntax::Basic, "-G"), (Syntax::Extended, "-E"), (Syntax::Fixed, "-F")] {
            let theirs = grep(option, pattern, TEXT);
            match compile(pattern.as_bytes(), syntax, false) {
                Ok(regex) => {
                    let ours = ours(&regex, TEXT);
                    assert_eq!(
                        theirs.as_deref().map(bstr::BStr::new),
                        Some(bstr::BStr::new(&ours)),
                        "grep {option} {pattern:?} ({regex})"
                    );
                }
                Err(e) if e.to_string().contains("back-references") => {}
                Err(e) => assert_eq!(theirs, None, "grep {option} {pattern:?}: {e}"),
            }
        }
    }

    #[test] // Oracle: grep itself, for every operator and every place where it may lose its meaning.
    fn expressions_match_what_grep_matches() {
        for pattern in [
            "",
            "a",
            "abc",
            "*a",
            "*",
            "a{1",
            "{1}",
            "a{,2}",
            "a{2,1}",
            "a{99999}",
            "(",
            ")",
            "a)",
            "()",
            "a|",
            "|a",
            "a||b",
            "(|a)",
            "^*",
            "^*a",
            "a^b",
            "a$b",
            "+a",
            "?a",
            "(*a)",
            "(+a)",
            "a|*b",
            "{",
            "a{",
            "a{x",
            "a{1x}",
            "a{1,x}",
            "[",
            "[]",
            "[]a",
            "[a",
            "[b-a]",
            "[[:foo:]]",
            "[:space:]",
            "[[:alpha:]",
            "[[.a.]]",
            "[[=a=]]",
            "[[.space.]]",
            "[[.xy.]]",
            "\\",
            "a\\",
            "\\d",
            "\\w",
            "\\W",
            "\\s",
            "\\S",
            "\\<a",
            "b\\>",
            "\\bfoo\\b",
            "o\\B",
            "a**",
            "a+*?",
            "a{1}{2}",
            "\\(",
            "\\)",
            "\\{",
            "x\\{1",
            "[a-]",
            "[-a]",
            "[\\]",
            "[\\n]",
            "\\n",
            "\\t",
            "[a-c-e]",
            "[--/]",
            "[a\\]]",
            "$*",
            "^+",
            "(^*",
            "(^a)",
            "(a$)",
            "a{1,2}{3}",
            "a{,}",
            "a{}",
            "\\`",
            "\\'",
            "a{3}",
            "a\\{3\\}",
            "a\\{2,\\}",
            "a\\{,2\\}b",
            "\\(a\\)",
            "\\(^a\\)",
            "\\(a$\\)",
            "\\(*a\\)",
            "a\\|b",
            "\\|b",
            "\\(\\|a\\)",
            "a\\+",
            "\\+a",
            "\\?a",
            "a\\?b",
            "\\{1\\}",
            "a\\{1x\\}",
            "x^",
            "^^",
            "$$",
            "a^",
            "$a",
            "^$",
            "a\\|^b",
            "a$\\|b",
            "[^a]",
            "[^a-z]",
            "[]-a]",
            "[^]a]",
            "[[:digit:][:upper:]]",
            "[[:alnum:]_]*",
            "caf.$",
            "caf..$",
            ".",
            "\\.",
            "a.c",
            "(foo|bar) ?bar",
            "^(a|b)+$",
            "([ab]c?)+",
            "(a(b)|c)",
            "[[:space:]]x",
            "x]",
            "[a]]",
            "a\nb",
            "a\\{2",
            "\\}",
            "}",
            "[.a.]",
            "[=a=]",
            "[.",
            "[[.a",
            "[a-[.c.]]",
            "[[:digit:]-z]",
            "[a-[:digit:]]",
            "(((((a)))))",
            "a{0}b",
            "a{0}",
            "(a{2}){2}",
            "[^[:print:]]",
            "[\x7f]",
            "^[^ ]* bar",
            "\\_",
            "a\\{1\\}*",
        ] {
            compare(pattern);
        }
    }

    #[test] // Case is folded before a set is turned around: `[^a]` has neither a nor A.
    fn case_is_ignored_as_grep_does() {
        for pattern in ["AB", "[^a]", "[a-c]+", "^[[:upper:]]*$", "FOO|\\W", "caf\\S$"] {
            let regex = compile(pattern.as_bytes(), Syntax::Extended, true).unwrap();
            let theirs = {
                let lower = grep("-iE", pattern, TEXT);
                lower.unwrap()
            };
            assert_eq!(bstr::BStr::new(&ours(&regex, TEXT)), bstr::BStr::new(&theirs), "{pattern}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (pattern, why) in [
            ("\\(a\\)\\1", "back-references"),
            ("[", "unmatched ["),
            ("a\\", "trailing backslash"),
            ("\\(", "unmatched ("),
        ] {
            let refused = compile(pattern.as_bytes(), Syntax::Basic, false).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let nested = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
        let refused = compile(nested.as_bytes(), Syntax::Extended, false).unwrap_err().to_string();
        assert!(refused.contains("nested too deeply"), "{refused}");
        let big = compile(b"((a{1000}){1000}){1000}", Syntax::Extended, false).unwrap_err().to_string();
        assert!(big.contains("too big"), "{big}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test] // Expressions that nobody thought of.
        fn any_expression_matches_what_grep_matches(
            pattern in r"([ab.*+?|()^$:,-]|\{[12],?\}|\\\{[12],?\\\}|\\[()|+?a1w]|\[[a-c^]{1,2}\]|\{|\[){0,8}",
        ) {
            compare(&pattern);
        }
    }
}
