//! Text: its encoding, its line ends, and what language it is in where the first line says so.

use bstr::ByteSlice;

/// The longest line that is not remarkable, in bytes.
const LONG_LINE: usize = 300;

/// The description of text, `None` for anything else.
pub(super) fn describe(head: &[u8]) -> Option<String> {
    if let Some(text) = utf16(head) {
        return Some(text);
    }
    let encoding = encoding(head)?;
    let (kind, is_program) = language(head);
    // These are said without an encoding.
    if matches!(kind.as_deref(), Some("JSON text data" | "Perl script text executable")) {
        return kind;
    }
    let mut text = kind.map_or(String::new(), |kind| kind + ", ");
    text.push_str(encoding);
    text.push_str(" text");
    if is_program {
        text.push_str(" executable");
    }
    let longest = head.lines().map(<[u8]>::len).max().unwrap_or(0);
    if longest > LONG_LINE {
        text.push_str(&format!(", with very long lines ({longest})"));
    }
    // The next-line character of ISO 8859; in UTF-8 the byte is a part of others.
    let nel = if encoding.starts_with("Unicode") { 0 } else { head.find_iter(b"\x85").count() };
    text.push_str(&line_ends(head, nel));
    if head.contains(&0x1b) {
        text.push_str(", with escape sequences");
    }
    if head.contains(&0x08) {
        text.push_str(", with overstriking");
    }
    Some(text)
}

/// The name of the encoding; `None` if it is no text.
fn encoding(head: &[u8]) -> Option<&'static str> {
    let is_text = |byte: u8| matches!(byte, 0x07..=0x0d | 0x1b | b' '..=b'~');
    if head.iter().all(|byte| is_text(*byte)) {
        return Some("ASCII");
    }
    if head.iter().any(|byte| byte.is_ascii() && !is_text(*byte)) {
        return None;
    }
    // The head may end within a character.
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none() && head.len() >= super::HEAD_LEN,
    };
    Some(match is_utf8 {
        true if head.starts_with(b"\xef\xbb\xbf") => "Unicode text, UTF-8 (with BOM)",
        true => "Unicode text, UTF-8",
        false if head.iter().any(|byte| (0x80..0xa0).contains(byte) && *byte != 0x85) => {
            "Non-ISO extended-ASCII"
        }
        false => "ISO-8859",
    })
}

fn utf16(head: &[u8]) -> Option<String> {
    let (order, is_big_endian) = match head {
        [0xff, 0xfe, ..] => ("little-endian", false),
        [0xfe, 0xff, ..] => ("big-endian", true),
        _ => return None,
    };
    let (pairs, _) = head.as_chunks::<2>();
    let unit =
        |pair: &[u8; 2]| if is_big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) };
    let units: Vec<u16> = pairs.iter().map(unit).collect();
    if units.iter().any(|unit| *unit == 0xfffe || (*unit < 0x20 && !matches!(*unit, 0x07..=0x0d | 0x1b))) {
        return None;
    }
    // Line ends are those of the text's characters.
    let text = String::from_utf16_lossy(&units);
    Some(format!("Unicode text, UTF-16, {order} text{}", line_ends(text.as_bytes(), 0)))
}

/// What is said of line ends other than plain newlines.
fn line_ends(text: &[u8], nel: usize) -> String {
    let crlf = text.find_iter("\r\n").count();
    let cr = text.find_iter("\r").count() - crlf;
    let lf = text.find_iter("\n").count() - crlf;
    if crlf + cr + lf + nel == 0 {
        return ", with no line terminators".into();
    }
    if crlf + cr + nel == 0 {
        return String::new();
    }
    let present = [(crlf, "CRLF"), (cr, "CR"), (lf, "LF"), (nel, "NEL")];
    let names: Vec<_> = present.iter().filter(|(count, _)| *count > 0).map(|(_, name)| *name).collect();
    format!(", with {} line terminators", names.join(", "))
}

/// What language the text is in, and whether it is a program.
fn language(head: &[u8]) -> (Option<String>, bool) {
    if let Some(line) = head.strip_prefix(b"#!").and_then(|rest| rest.lines().next()) {
        let kind = script(&line.to_str_lossy());
        let is_program = !matches!(kind.as_str(), "makefile script" | "Node.js script executable");
        return (Some(kind), is_program);
    }
    let start = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_start();
    if let Some(version) = start.strip_prefix(b"<?xml version=").and_then(|rest| rest.get(1..4)) {
        return (Some(format!("XML {} document", version.to_str_lossy())), false);
    }
    let lower = start[..start.len().min(64)].to_ascii_lowercase();
    if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") {
        return (Some("HTML document".into()), false);
    }
    let is_json = matches!(start.first(), Some(b'{' | b'[')) && head.len() < super::HEAD_LEN;
    if is_json && serde_json::from_slice::<serde::de::IgnoredAny>(start).is_ok() {
        return (Some("JSON text data".into()), false);
    }
    (None, false)
}

/// The description of a script by its first line, after `#!`.
fn script(line: &str) -> String {
    let line = line.trim();
    let mut words = line.split_whitespace();
    let mut program = words.next().unwrap_or_default();
    if program.ends_with("/env") {
        program = words.next().unwrap_or_default();
    }
    let name = program.rsplit('/').next().unwrap_or_default();
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    match bare {
        "sh" => "POSIX shell script".into(),
        "bash" => "Bourne-Again shell script".into(),
        "ksh" => "Korn shell script".into(),
        "zsh" => "Paul Falstad's zsh script".into(),
        "csh" => "C shell script".into(),
        "tcsh" => "Tenex C shell script".into(),
        "perl" => "Perl script text executable".into(),
        "python" => "Python script".into(),
        "ruby" => "Ruby script".into(),
        "php" => "PHP script".into(),
        "node" => "Node.js script executable".into(),
        "awk" => "awk script".into(),
        "gawk" => "GNU awk script".into(),
        "make" => "makefile script".into(),
        "tclsh" | "wish" => "Tcl/Tk script".into(),
        _ => format!("a {line} script"),
    }
}
