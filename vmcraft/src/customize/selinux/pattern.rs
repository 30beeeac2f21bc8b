//! The expressions of `file_contexts`, which are PCRE's.

use bstr::{BStr, BString, ByteSlice, ByteVec};
use regex::bytes::{Regex, RegexBuilder};

/// How large an expression may become in memory, in bytes.
const MAX_SIZE: usize = 4 << 20;

/// Compiles an expression that a path is matched with from its start to its end, as libselinux does:
/// between `^` and `$`, with a dot that matches every byte.
pub(super) fn compile(expression: &BStr) -> Result<Regex, String> {
    let translated = translate(expression);
    let text = translated.to_str().map_err(|_| format!("{expression}: the expression is not UTF-8"))?;
    RegexBuilder::new(&format!("^{text}$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(MAX_SIZE)
        .dfa_size_limit(MAX_SIZE)
        .build()
        .map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => format!("{expression}: the expression is too large"),
            e => {
                // The rest of the message repeats the expression over several lines.
                let reason = e.to_string();
                let reason =
                    reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                format!("{expression}: the expression is not supported: {reason}")
            }
        })
}

/// Where PCRE takes characters as they are that have a meaning in the syntax of `regex`, they are escaped.
fn translate(expression: &BStr) -> BString {
    let mut out = BString::default();
    let bytes = expression.as_bytes();
    let mut i = 0;
    let mut class_start = None;
    while let Some(&byte) = bytes.get(i) {
        let next = bytes.get(i + 1).copied();
        match (byte, class_start) {
            (b'\\', _) => {
                // An escaped character that `regex` gives no meaning to stands for itself.
                match next {
                    Some(escaped) if escaped.is_ascii() => out.push_str([byte, escaped]),
                    Some(escaped) => out.push_byte(escaped),
                    None => out.push_str(b"\\\\"),
                }
                i += 2;
                continue;
            }
            (b'[', None) => {
                class_start = Some(i + 1 + usize::from(next == Some(b'^')));
                out.push_byte(byte);
                if next == Some(b'^') {
                    out.push_byte(b'^');
                    i += 2;
                    continue;
                }
            }
            (b'[', Some(_)) if next == Some(b':') => {
                // A named class: all of it, up to its `:]`.
                let end = bytes[i..].find(":]").map_or(bytes.len(), |end| i + end + 2);
                out.push_str(&bytes[i..end]);
                i = end;
                continue;
            }
            (b']', Some(start)) if i > start => {
                class_start = None;
                out.push_byte(byte);
            }
            (b'[' | b']' | b'&' | b'~', Some(_)) => out.push_str([b'\\', byte]),
            (b'-', Some(_)) if next == Some(b'-') => out.push_str(b"\\-"),
            (b'{', None) if !is_repetition(&bytes[i..]) => out.push_str(b"\\{"),
            _ => out.push_byte(byte),
        }
        i += 1;
    }
    out
}

/// Whether a brace starts a repetition: `{2}`, `{2,}` or `{2,3}`.
fn is_repetition(rest: &[u8]) -> bool {
    let Some(end) = rest.iter().position(|b| *b == b'}') else { return false };
    let mut numbers = rest[1..end].split(|b| *b == b',');
    let first = numbers.next().is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit));
    let second = numbers.next().is_none_or(|n| n.iter().all(u8::is_ascii_digit));
    first && second && numbers.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, path: &str) -> bool {
        compile(expression.into()).unwrap().is_match(path.as_bytes())
    }

    #[test] // PCRE takes these as they are.
    fn characters_without_a_meaning_in_pcre_stand_for_themselves() {
        assert!(matches("/a{b}", "/a{b}") && matches("/a{2}", "/aa") && matches("/a{1,}", "/aaa"));
        assert!(matches("/[[]x", "/[x") && matches("/[]a]", "/]") && matches("/[^]a]", "/b"));
        assert!(matches("/[a&&b]", "/&") && matches("/[~~]", "/~"));
        assert!(matches("/[[:digit:]a]+", "/12a") && !matches("/[[:digit:]]", "/:"));
        assert!(matches(r"/a\_b\-c\/d", "/a_b-c/d"));
        assert!(matches("/.", "/\n") && matches("/a(/.*)?", "/a/\n"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = |expression: &str| compile(expression.into()).unwrap_err();
        assert!(refused("/a(?=b)").contains("look-around"), "{}", refused("/a(?=b)"));
        assert!(refused("/(a){1000}{1000}{1000}").contains("too large"));
    }
}
