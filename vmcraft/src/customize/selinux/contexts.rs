//! Which SELinux context a policy gives to a path: what `selabel_lookup` of libselinux answers.
//!
//! A policy has `file_contexts`, and beside it `file_contexts.homedirs` (made of the users), `.local`
//! (the administrator's), `.subs_dist` and `.subs` (paths that are labelled as others are). A line is an
//! expression that the whole path must match, maybe a type of file, and a context or `<<none>>`.
//!
//! Spec: `file_contexts(5)`, `selabel_file(5)`. The last line that matches counts, and lines without any
//! character that is special in expressions count after all others.

use std::cell::OnceCell;
use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice, ByteVec};
use regex::bytes::Regex;
use vmcraft_fs::FileType;

use super::pattern;
use crate::{Error, Result};

/// How many lines a policy may have in all. Real ones have some ten thousand.
const MAX_SPECS: usize = 1 << 18;

/// What makes a character of an expression more than itself.
const SPECIAL: &[u8] = b".^$?*+|[({";

/// The rules of a policy by which files are labelled.
#[derive(Default)]
pub struct FileContexts {
    /// In the order of the files.
    specs: Vec<Spec>,
    /// Lines that match one path alone: their numbers by the path.
    exact: HashMap<BString, Vec<usize>>,
    /// The others, by their stem: the first directory, where no special character stands in it.
    by_stem: HashMap<BString, Vec<usize>>,
    /// Those without a stem.
    stemless: Vec<usize>,
    /// Of the distribution, and of the administrator. The last that fits counts.
    distribution_substitutes: Vec<(BString, BString)>,
    substitutes: Vec<(BString, BString)>,
}

/// A line of a policy.
struct Spec {
    /// The expression after its stem.
    expression: BString,
    /// What every path that matches has after its stem.
    prefix: BString,
    /// Where it stands, for messages.
    place: (&'static str, usize),
    file_type: Option<FileType>,
    /// `None` for `<<none>>`.
    context: Option<BString>,
    regex: OnceCell<Regex>,
}

impl FileContexts {
    /// Reads the policy's files. `read` gives the content of the one whose name has this suffix; only the
    /// first, without a suffix, must be there.
    pub fn read(mut read: impl FnMut(&'static str) -> Result<Option<Vec<u8>>>) -> Result<Self> {
        let mut contexts = Self::default();
        for suffix in ["", ".homedirs", ".local"] {
            match read(suffix)? {
                Some(content) => contexts.add(suffix, &content)?,
                None if suffix.is_empty() => return Err(Error::Usage("there is no file_contexts".into())),
                None => {}
            }
        }
        contexts.substitutes = substitutes(&read(".subs")?.unwrap_or_default());
        contexts.distribution_substitutes = substitutes(&read(".subs_dist")?.unwrap_or_default());
        Ok(contexts)
    }

    /// Adds the lines of a file, of which `suffix` is the end of its name.
    fn add(&mut self, suffix: &'static str, content: &[u8]) -> Result<()> {
        for (number, line) in content.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            let place = (suffix, number + 1);
            if self.specs.len() == MAX_SPECS {
                return Err(at(place, &format!("more than {MAX_SPECS} lines")));
            }
            let fields: Vec<&[u8]> = line.fields().collect();
            let (expression, file_type, context) = match fields.as_slice() {
                [expression, context] => (*expression, None, *context),
                [expression, kind, context] => {
                    let kind = file_type(kind)
                        .ok_or_else(|| at(place, &format!("{} is no type of file", kind.as_bstr())))?;
                    (*expression, Some(kind), *context)
                }
                _ => return Err(at(place, "expected an expression, maybe a type, and a context")),
            };
            let index = self.specs.len();
            let (stem, rest) = split_stem(expression);
            if expression.iter().enumerate().any(|(i, b)| SPECIAL.contains(b) && !is_escaped(expression, i)) {
                match stem {
                    Some(stem) => self.by_stem.entry(stem.into()).or_default().push(index),
                    None => self.stemless.push(index),
                }
            } else {
                self.exact.entry(unescape(expression)).or_default().push(index);
            }
            self.specs.push(Spec {
                expression: rest.into(),
                prefix: fixed_prefix(rest),
                place,
                file_type,
                context: (context != b"<<none>>").then(|| context.into()),
                regex: OnceCell::new(),
            });
        }
        Ok(())
    }

    /// The context of a path: `None` if the policy says none.
    pub fn lookup(&self, path: &BStr, file_type: FileType) -> Result<Option<&BStr>> {
        let mut key = without_double_slashes(path);
        for substitutes in [&self.substitutes, &self.distribution_substitutes] {
            if let Some(substituted) = substitute(substitutes, key.as_bstr()) {
                key = substituted;
            }
        }
        let fits = |index: &&usize| self.specs[**index].file_type.is_none_or(|wanted| wanted == file_type);
        if let Some(index) = self.exact.get(&key).and_then(|found| found.iter().rfind(fits)) {
            return Ok(self.specs[*index].context());
        }
        let (stem, rest) = split_path(&key);
        let stemmed = stem.and_then(|stem| self.by_stem.get(stem)).map_or(&[][..], Vec::as_slice);
        // Both lists are sorted: the larger of their ends is the later line.
        let (mut stemmed, mut stemless) =
            (stemmed.iter().rev().peekable(), self.stemless.iter().rev().peekable());
        loop {
            let (index, rest) = match (stemmed.peek(), stemless.peek()) {
                (None, None) => return Ok(None),
                (Some(a), Some(b)) if a > b => (stemmed.next(), rest),
                (Some(_), None) => (stemmed.next(), rest),
                _ => (stemless.next(), key.as_bstr()),
            };
            let Some(index) = index.filter(|index| fits(index)) else { continue };
            let spec = &self.specs[*index];
            if spec.matches(rest)? {
                return Ok(spec.context());
            }
        }
    }
}

impl Spec {
    fn context(&self) -> Option<&BStr> {
        self.context.as_ref().map(|context| context.as_bstr())
    }

    fn matches(&self, rest: &BStr) -> Result<bool> {
        if !rest.starts_with(&self.prefix) {
            return Ok(false);
        }
        if let Some(regex) = self.regex.get() {
            return Ok(regex.is_match(rest));
        }
        let regex = pattern::compile(self.expression.as_bstr()).map_err(|e| at(self.place, &e))?;
        Ok(self.regex.get_or_init(|| regex).is_match(rest))
    }
}

fn at((suffix, line): (&'static str, usize), what: &str) -> Error {
    Error::Usage(format!("file_contexts{suffix}: line {line}: {what}"))
}

fn file_type(word: &[u8]) -> Option<FileType> {
    Some(match word {
        b"--" => FileType::Regular,
        b"-d" => FileType::Directory,
        b"-l" => FileType::Symlink,
        b"-c" => FileType::CharDevice,
        b"-b" => FileType::BlockDevice,
        b"-p" => FileType::Fifo,
        b"-s" => FileType::Socket,
        _ => return None,
    })
}

/// Whether the byte at `index` stands after a backslash that is not itself escaped.
fn is_escaped(expression: &[u8], index: usize) -> bool {
    let before = expression[..index].iter().rev().take_while(|b| **b == b'\\').count();
    before % 2 == 1
}

/// What an expression without special characters matches.
fn unescape(expression: &[u8]) -> BString {
    let mut plain = BString::default();
    let mut bytes = expression.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.push_byte(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    plain
}

/// The stem of an expression with what follows it.
fn split_stem(expression: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let slash = expression.iter().skip(1).position(|b| *b == b'/').map(|found| found + 1);
    match slash {
        Some(end) if !expression[..end].iter().any(|b| SPECIAL.contains(b) || *b == b'\\') => {
            (Some(&expression[..end]), &expression[end..])
        }
        _ => (None, expression),
    }
}

/// The first directory of a path with what follows it.
fn split_path(path: &BString) -> (Option<&BStr>, &BStr) {
    match path.iter().skip(1).position(|b| *b == b'/').map(|found| found + 1) {
        Some(end) => (Some(path[..end].as_bstr()), path[end..].as_bstr()),
        None => (None, path.as_bstr()),
    }
}

/// What everything that matches starts with.
fn fixed_prefix(expression: &[u8]) -> BString {
    // A bar outside of a group makes what stands before it optional.
    if expression.contains(&b'|') && top_level_bar(expression) {
        return BString::default();
    }
    let end = expression
        .iter()
        .position(|b| SPECIAL.contains(b) || matches!(b, b'\\' | b')'))
        .unwrap_or(expression.len());
    // What is before one of these may be absent.
    let optional = matches!(expression.get(end), Some(b'?' | b'*' | b'{' | b'+'));
    expression[..end.saturating_sub(usize::from(optional))].into()
}

fn top_level_bar(expression: &[u8]) -> bool {
    let (mut depth, mut in_class, mut bytes) = (0_usize, false, expression.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'[' => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => depth += 1,
            b')' if !in_class => depth = depth.saturating_sub(1),
            b'|' if !in_class && depth == 0 => return true,
            _ => {}
        }
    }
    false
}

fn without_double_slashes(path: &BStr) -> BString {
    let mut clean = BString::default();
    for byte in path.bytes() {
        if byte != b'/' || !clean.ends_with(b"/") {
            clean.push_byte(byte);
        }
    }
    clean
}

/// The pairs of a file of substitutes.
fn substitutes(content: &[u8]) -> Vec<(BString, BString)> {
    let pair = |line: &[u8]| {
        let mut words = line.fields();
        let from = words.next().filter(|from| !from.starts_with(b"#"))?;
        Some((BString::from(from), BString::from(words.next()?)))
    };
    content.lines().filter_map(pair).take(MAX_SPECS).collect()
}

fn substitute(substitutes: &[(BString, BString)], path: &BStr) -> Option<BString> {
    substitutes.iter().rev().find_map(|(from, to)| {
        let rest = path.strip_prefix(from.as_slice())?;
        let rest = match rest.first() {
            None => rest,
            Some(b'/') if to == "/" => &rest[1..],
            Some(b'/') => rest,
            Some(_) => return None,
        };
        let mut substituted = to.clone();
        substituted.push_str(rest);
        Some(substituted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(files: &[(&'static str, &str)]) -> FileContexts {
        FileContexts::read(|suffix| {
            Ok(files.iter().find(|(name, _)| *name == suffix).map(|(_, content)| content.as_bytes().to_vec()))
        })
        .unwrap()
    }

    fn label(contexts: &FileContexts, path: &str, file_type: FileType) -> String {
        contexts.lookup(path.into(), file_type).unwrap().map_or("none".into(), ToString::to_string)
    }

    #[test] // The last line counts, but one for a single path counts more, wherever it stands.
    fn the_last_line_counts_and_exact_ones_more() {
        let policy = contexts(&[(
            "",
            "# comment\n/.* d\n/etc/passwd exact\n/etc/.* etc\n/etc/(.*/)?x\\.conf -- conf\n/etc/pas.* late\n/run/.* <<none>>\n\
             /a\\.b dotted\n",
        )]);
        let file = FileType::Regular;
        assert_eq!(label(&policy, "/etc/passwd", file), "exact");
        assert_eq!(label(&policy, "/etc/passes", file), "late");
        assert_eq!(label(&policy, "/etc/a/x.conf", file), "conf");
        assert_eq!(label(&policy, "/etc/a/x.conf", FileType::Directory), "etc");
        assert_eq!(label(&policy, "/etc/xaconf", file), "etc");
        assert_eq!(label(&policy, "/srv//x", file), "d");
        assert_eq!(label(&policy, "/run/x", file), "none");
        assert_eq!(label(&policy, "/a.b", file), "dotted");
        assert_eq!(label(&policy, "/aab", file), "d");
    }

    #[test]
    fn further_files_add_to_it_and_substitutes_lead_elsewhere() {
        let policy = contexts(&[
            ("", "/usr/lib/.* lib\n/home -d home\n/x/.* x\n"),
            (".homedirs", "/home/[^/]+ -d user\n"),
            (".local", "/usr/lib/mine mine\n"),
            (".subs_dist", "# a comment\n/lib /usr/lib\n/alt /\n"),
            (".subs", "/library /lib\n"),
        ]);
        assert_eq!(label(&policy, "/home/u", FileType::Directory), "user");
        assert_eq!(label(&policy, "/lib/mine", FileType::Regular), "mine");
        assert_eq!(label(&policy, "/library/b", FileType::Regular), "lib");
        assert_eq!(label(&policy, "/liberty", FileType::Regular), "none");
        assert_eq!(label(&policy, "/alt/x/y", FileType::Regular), "x");
    }

    #[test] // A guest's policy is a guest's file.
    fn odd_policies_are_refused_with_their_line() {
        let refused = |content: &str| {
            let content = content.as_bytes().to_vec();
            FileContexts::read(|suffix| Ok(suffix.is_empty().then(|| content.clone())))
                .err()
                .unwrap()
                .to_string()
        };
        assert_eq!(refused("\n/x -y c"), "file_contexts: line 2: -y is no type of file");
        assert!(refused("/x").contains("line 1: expected"));
        let bad = contexts(&[("", "/x/(.* c")]);
        let message = bad.lookup("/x/y".into(), FileType::Regular).unwrap_err().to_string();
        assert!(message.starts_with("file_contexts: line 1: "), "{message}");
    }
}
