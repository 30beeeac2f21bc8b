//! Files of shell assignments: os-release, lsb-release, `/etc/sysconfig/*`, `/etc/default/*`.
//!
//! Spec: os-release(5) and the quoting rules of POSIX sh, without expansion.

use bstr::ByteSlice;

/// The assignments of a file, with names and unquoted values; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShellVars(Vec<(String, String)>);

impl ShellVars {
    /// Takes each line of the form `NAME=value` or `export NAME=value`, and leaves the others out.
    pub(crate) fn parse(content: &[u8]) -> Self {
        let assignments = content.lines().filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix(b"export ").unwrap_or(line);
            let (name, value) = line.split_once_str("=")?;
            let name = name.trim_end();
            let is_name = !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
            is_name.then(|| {
                (name.to_str_lossy().into_owned(), unquote(value.trim()).to_str_lossy().into_owned())
            })
        });
        Self(assignments.collect())
    }

    /// The value of a name: of the last assignment to it, as in the shell. Empty counts as none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rev().find(|(found, _)| found == name)?;
        (!value.is_empty()).then_some(value)
    }
}

/// Takes the shell's quotes off a word; what follows it on the line is dropped.
pub(crate) fn unquote(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut bytes = word.iter().copied();
    let mut quote = None;
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b' ' | b'\t' | b';') => break,
            (Some(open), _) if byte == open => quote = None,
            (None, b'\\') => plain.extend(bytes.next()),
            (Some(b'"'), b'\\') => match bytes.next() {
                Some(next @ (b'"' | b'\\' | b'$' | b'`')) => plain.push(next),
                Some(next) => plain.extend([b'\\', next]),
                None => plain.push(b'\\'),
            },
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The forms that real os-release files have.
    fn values_are_unquoted_as_the_shell_does() {
        let vars = ShellVars::parse(
            b"# NAME=no\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID='12'\nA=\"say \\\"hi\\\" \\$x \\n\"\n\
              EMPTY=\nexport LANG=en_US.UTF-8 # comment\nID=ubuntu\nB=a\\ b\nNOT A NAME=x\nopen=\"never closed\nX=\xff",
        );
        let get = |name| vars.get(name).unwrap_or("none");
        assert_eq!(get("NAME"), "Debian GNU/Linux");
        assert_eq!(get("ID"), "ubuntu");
        assert_eq!(get("VERSION_ID"), "12");
        assert_eq!(get("A"), "say \"hi\" $x \\n");
        assert_eq!(get("EMPTY"), "none");
        assert_eq!(get("LANG"), "en_US.UTF-8");
        assert_eq!(get("B"), "a b");
        assert_eq!(get("open"), "never closed");
        assert_eq!(get("X"), "\u{fffd}");
    }
}
