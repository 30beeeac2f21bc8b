//! Changes to small text files that keep everything else in them.

use bstr::{BStr, BString, ByteSlice, ByteVec};

/// A file of shell assignments in which `name` has a value: the last assignment to it is replaced where it
/// stands, and one is added at the end if there is none.
pub fn with_assignment(content: &[u8], name: &str, value: &str) -> Vec<u8> {
    let is_of = |line: &[u8]| {
        let line = line.trim_start();
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    let quoted = if value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/+@:".contains(&b)) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    };
    let last = content.lines_with_terminator().filter(|line| is_of(line)).count();
    let mut changed = Vec::with_capacity(content.len() + name.len() + quoted.len() + 2);
    let mut seen = 0;
    for line in content.lines_with_terminator() {
        seen += usize::from(is_of(line));
        if seen != last || !is_of(line) {
            changed.push_str(line);
            continue;
        }
        // Also the blanks and `export` before it stay.
        let start = line.find(name).unwrap_or_default();
        changed.push_str(&line[..start]);
        changed.push_str(format!("{name}={quoted}"));
        changed.push_str(&line[line.trim_end_with(|c| c == '\n' || c == '\r').len()..]);
    }
    if last == 0 {
        changed = with_line(&changed, format!("{name}={quoted}").as_str().into());
    }
    changed
}

/// A file of shell assignments without those to these names.
pub fn without_assignments(content: &[u8], names: &[&str]) -> Vec<u8> {
    let is_of = |line: &[u8]| {
        let line = line.trim_start();
        names.iter().any(|name| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")))
    };
    content.lines_with_terminator().filter(|line| !is_of(line)).collect::<Vec<_>>().concat()
}

/// A file with one more line at its end, ended as its other lines are. A last line that has no end gets one.
pub fn with_line(content: &[u8], line: &BStr) -> Vec<u8> {
    let ending: &[u8] = match content.find_byte(b'\n') {
        Some(end) if content[..end].ends_with(b"\r") => b"\r\n",
        _ => b"\n",
    };
    let mut changed = content.to_vec();
    if !changed.is_empty() && !changed.ends_with(b"\n") {
        changed.push_str(ending);
    }
    changed.push_str(line);
    changed.push_str(ending);
    changed
}

/// A file of the form of `hosts(5)` in which one name stands for another. Comments and blanks stay.
pub fn with_renamed_host(content: &[u8], old: &BStr, new: &BStr) -> Vec<u8> {
    let mut changed = Vec::with_capacity(content.len() + new.len());
    for line in content.lines_with_terminator() {
        let end = line.find_byte(b'#').unwrap_or(line.len());
        let mut word = BString::default();
        let mut is_address = true;
        // A word ends at a blank, or with the line.
        for byte in line[..end].iter().copied() {
            if !byte.is_ascii_whitespace() {
                word.push_byte(byte);
                continue;
            }
            push_host(&mut changed, &word, is_address, old, new);
            is_address &= word.is_empty();
            word.clear();
            changed.push_byte(byte);
        }
        push_host(&mut changed, &word, is_address, old, new);
        changed.push_str(&line[end..]);
    }
    changed
}

fn push_host(out: &mut Vec<u8>, word: &BString, is_address: bool, old: &BStr, new: &BStr) {
    let renamed = !is_address && word == old;
    out.push_str(if renamed { new } else { word.as_bstr() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_replaced_where_they_stand() {
        let set =
            |content: &str, value| BString::from(with_assignment(content.as_bytes(), "HOSTNAME", value));
        assert_eq!(set("A=1\nHOSTNAME=old # c\nB=2\n", "new.x"), "A=1\nHOSTNAME=new.x\nB=2\n");
        assert_eq!(set("HOSTNAME=a\n  export HOSTNAME=b", "c"), "HOSTNAME=a\n  export HOSTNAME=c");
        assert_eq!(set("A=1", "it's"), "A=1\nHOSTNAME='it'\\''s'\n");
        assert_eq!(set("", "x"), "HOSTNAME=x\n");
        assert_eq!(set("#HOSTNAME=a\nHOSTNAMES=b\n", "x"), "#HOSTNAME=a\nHOSTNAMES=b\nHOSTNAME=x\n");
        let without = without_assignments(b"A=1\nHWADDR=x\n HWADDR=y\nHWADDRESS=z\n", &["HWADDR"]);
        assert_eq!(without.as_bstr(), "A=1\nHWADDRESS=z\n");
    }

    #[test] // The line ends as the file's do.
    fn lines_are_appended() {
        let append = |content: &str, line: &str| BString::from(with_line(content.as_bytes(), line.into()));
        assert_eq!(append("", "a"), "a\n");
        assert_eq!(append("x", "a"), "x\na\n");
        assert_eq!(append("x\n", ""), "x\n\n");
        assert_eq!(append("x\r\ny", "a"), "x\r\ny\r\na\r\n");
    }

    #[test]
    fn hosts_are_renamed_as_whole_words() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\told.example.com  old # old is old\n#1.1.1.1 old\n::1 older old\nold x";
        let renamed = with_renamed_host(hosts.as_bytes(), "old".into(), "new".into());
        assert_eq!(
            renamed.as_bstr(),
            "127.0.0.1 localhost\n127.0.1.1\told.example.com  new # old is old\n#1.1.1.1 old\n::1 older new\nold x"
        );
    }
}
