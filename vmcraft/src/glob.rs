//! Wildcards in paths, as glob(3) of Linux expands them with `GLOB_BRACE`.
//!
//! `*`, `?` and `[…]` match within one name, and not a dot that begins it; `{a,b}` stands for either;
//! a backslash takes the meaning of the character after it away. Names are bytes.

use bstr::{BStr, BString, ByteSlice, ByteVec};

use crate::limits::Budget;
use crate::vfs::{LastLink, Vfs, join};
use crate::{Error, GuestPath, Result};

/// How many patterns the braces of one may stand for.
const MAX_ALTERNATIVES: usize = 10_000;

/// All paths that `pattern` matches. With `mark`, a slash follows those of directories. `tick` is
/// asked now and then whether to go on.
pub(crate) fn expand(
    vfs: &Vfs,
    pattern: &BStr,
    mark: bool,
    tick: &dyn Fn() -> Result<()>,
) -> Result<Vec<BString>> {
    let mut found = Vec::new();
    let mut budget = Budget::for_names(pattern, "give a narrower pattern");
    for alternative in alternatives(pattern)? {
        tick()?;
        let from = found.len();
        expand_one(vfs, &alternative, mark, tick, &mut budget, &mut found)?;
        found[from..].sort_unstable();
    }
    Ok(found)
}

/// The paths that a pattern without braces matches.
fn expand_one(
    vfs: &Vfs,
    pattern: &[u8],
    mark: bool,
    tick: &dyn Fn() -> Result<()>,
    budget: &mut Budget,
    found: &mut Vec<BString>,
) -> Result<()> {
    let wants_dir = pattern.ends_with(b"/");
    let mut paths = vec![BString::from("/")];
    for part in pattern.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if !has_wildcard(part) {
            let name = unescape(part);
            for path in &mut paths {
                *path = join(path, name.as_bstr());
            }
            continue;
        }
        let mut matching = Vec::new();
        for path in &paths {
            tick()?;
            matching_names(vfs, path, part, &mut |name| {
                let path = join(path, name);
                budget.spend_item(path.len())?;
                matching.push(path);
                Ok(())
            })?;
        }
        paths = matching;
    }
    for mut path in paths {
        tick()?;
        let is_dir = match present(vfs.resolve(GuestPath::new(&path), LastLink::Follow))? {
            Some(node) => node.metadata()?.is_dir(),
            None => false,
        };
        let is_there =
            is_dir || present(vfs.resolve(GuestPath::new(&path), LastLink::Keep))?.is_some() && !wants_dir;
        if !is_there {
            continue;
        }
        if is_dir && (mark || wants_dir) && !path.ends_with(b"/") {
            path.push_byte(b'/');
        }
        budget.spend_item(path.len())?;
        found.push(path);
    }
    Ok(())
}

/// Shows the names in a directory, `.` and `..` among them, that a pattern matches; none if the path
/// leads to no directory.
fn matching_names(
    vfs: &Vfs,
    path: &BString,
    pattern: &[u8],
    show: &mut dyn FnMut(&BStr) -> Result<()>,
) -> Result<()> {
    let Some(dir) = present(vfs.resolve(GuestPath::new(path), LastLink::Follow))? else { return Ok(()) };
    if !dir.metadata()?.is_dir() {
        return Ok(());
    }
    let mut show_matching = |name: &BStr| if matches(pattern, name) { show(name) } else { Ok(()) };
    show_matching(".".into())?;
    show_matching("..".into())?;
    dir.visit_entries(|entry| show_matching(entry.name))
}

/// glob(3) passes over what is not there, and over links in a circle.
fn present<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::TooManySymlinks(_)) => Ok(None),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The patterns that a pattern with braces stands for. A brace that is not closed stands for itself.
fn alternatives(pattern: &[u8]) -> Result<Vec<BString>> {
    let mut done = Vec::new();
    let mut open = vec![BString::from(pattern)];
    while let Some(pattern) = open.pop() {
        let Some((start, commas, end)) = first_braces(&pattern) else {
            done.push(pattern);
            if done.len() > MAX_ALTERNATIVES {
                return Err(Error::Usage(format!(
                    "the pattern's braces stand for more than {MAX_ALTERNATIVES} patterns"
                )));
            }
            continue;
        };
        let mut ends = commas;
        ends.push(end);
        let mut from = start + 1;
        let mut choices = Vec::new();
        for to in ends {
            choices
                .push(BString::from([&pattern[..start], &pattern[from..to], &pattern[end + 1..]].concat()));
            from = to + 1;
        }
        // The first choice is taken off first.
        open.extend(choices.into_iter().rev());
        if open.len() > MAX_ALTERNATIVES {
            return Err(Error::Usage(format!(
                "the pattern's braces stand for more than {MAX_ALTERNATIVES} patterns"
            )));
        }
    }
    Ok(done)
}

/// Where the first closed pair of braces opens, its commas, and where it closes.
fn first_braces(pattern: &[u8]) -> Option<(usize, Vec<usize>, usize)> {
    // Positions of open braces, each with its commas.
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut first = None;
    let mut position = 0;
    while let Some(byte) = pattern.get(position) {
        match byte {
            b'\\' => position += 1,
            b'{' => open.push((position, Vec::new())),
            b',' => {
                if let Some((_, commas)) = open.last_mut() {
                    commas.push(position);
                }
            }
            b'}' => {
                if let Some((start, commas)) = open.pop() {
                    let is_outermost = open.is_empty();
                    first = Some((start, commas, position));
                    if is_outermost {
                        break;
                    }
                }
            }
            _ => {}
        }
        position += 1;
    }
    first
}

fn has_wildcard(part: &[u8]) -> bool {
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

fn unescape(part: &[u8]) -> BString {
    let mut name = BString::default();
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => name.extend(bytes.next()),
            byte => name.push_byte(*byte),
        }
    }
    name
}

/// Whether a name fits a pattern. A dot that begins the name must stand in the pattern itself.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && !pattern.starts_with(b".") && !pattern.starts_with(b"\\.") {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on if what follows the last star does not fit: one byte further.
    let mut retry = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if let Some(len) = match_one(&pattern[p..], name[n]) {
            p += len;
            n += 1;
            continue;
        }
        match &mut retry {
            Some((after_star, from)) => {
                *from += 1;
                (p, n) = (*after_star, *from);
            }
            None => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// If the pattern's first item, which is no star, matches the byte: how long the item is.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => match bracket(rest, byte) {
            Some((true, len)) => Some(1 + len),
            Some((false, _)) => None,
            // A bracket that is not closed stands for itself.
            None => (byte == b'[').then_some(1),
        },
        [first, ..] => (*first == byte).then_some(1),
    }
}

/// What stands after `[`: whether the set has the byte, and how long it is with its `]`. `None` if it
/// is not closed.
fn bracket(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut has = false;
    loop {
        match set.get(at)? {
            b']' if at > first => return Some((has != negated, at + 1)),
            b'[' if set.get(at + 1) == Some(&b':') && set[at + 2..].contains_str(":]") => {
                let len = set[at + 2..].find(":]")?;
                has |= class(&set[at + 2..at + 2 + len], byte);
                at += len + 4;
            }
            _ => {
                let (low, len) = bracket_byte(&set[at..])?;
                at += len;
                // A minus at the end of the set stands for itself.
                let (high, len) = match set.get(at..) {
                    Some([b'-', next, ..]) if *next != b']' => {
                        let (high, len) = bracket_byte(&set[at + 1..])?;
                        (high, len + 1)
                    }
                    _ => (low, 0),
                };
                at += len;
                has |= (low..=high).contains(&byte);
            }
        }
    }
}

fn bracket_byte(set: &[u8]) -> Option<(u8, usize)> {
    match set {
        [b'\\', escaped, ..] => Some((*escaped, 2)),
        [byte, ..] => Some((*byte, 1)),
        [] => None,
    }
}

/// Whether a byte is in a class, as `[:alpha:]`, of the C locale.
fn class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::MemoryFs;

    #[test] // The language of glob(7).
    fn patterns_match_as_in_glob7() {
        for (pattern, name) in [
            ("*", "a"),
            ("*.c", "x.c"),
            ("a*b*c", "aXbYbZc"),
            ("?[a-c]?", "xbz"),
            ("[]a]", "]"),
            ("[!a]", "b"),
            ("[^a]", "b"),
            ("[a-]", "-"),
            ("[[:digit:]x]", "7"),
            ("[[:digit:]x]", "x"),
            ("\\*", "*"),
            ("[", "["),
            ("a[b", "a[b"),
            (".*", ".hidden"),
            ("\\.x", ".x"),
            ("[\\]]", "]"),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", ".hidden"),
            ("?x", ".x"),
            ("[.]x", ".x"),
            ("*.c", "x.cc"),
            ("[!a]", "a"),
            ("[a-c]", "d"),
            ("\\*", "a"),
            ("", "a"),
            ("a", ""),
            ("[[:nonesuch:]]", "n"),
        ] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        assert!(matches(b"caf?", b"caf\xe9"));
    }

    #[test] // A pattern that makes naive matchers take for ever.
    fn many_stars_end() {
        assert!(!matches(&b"a*".repeat(50), &[b'b'; 250]));
        assert!(!matches(&[&b"*a".repeat(30)[..], b"b"].concat(), &[b'a'; 250]));
    }

    #[test]
    fn braces_stand_for_alternatives() {
        let of = |pattern: &str| alternatives(pattern.as_bytes()).unwrap();
        assert_eq!(of("/{a,b}{1,2}"), ["/a1", "/a2", "/b1", "/b2"]);
        assert_eq!(of("/x.{c,{h,i}p}"), ["/x.c", "/x.hp", "/x.ip"]);
        assert_eq!(of("/x{"), ["/x{"]);
        assert_eq!(of("/x{a,b"), ["/x{a,b"]);
        assert_eq!(of("/x{a,{b,c}"), ["/x{a,b", "/x{a,c"]);
        assert_eq!(of("/\\{a,b}"), ["/\\{a,b}"]);
        assert_eq!(of("/x{}y{one}"), ["/xyone"]);
        assert!(alternatives("{a,b}".repeat(40).as_bytes()).is_err());
    }

    fn expanded(pattern: &str, mark: bool) -> Vec<BString> {
        let fs = MemoryFs::new()
            .file("/d/x.c", "")
            .file("/d/y.c", "")
            .file("/d/z.h", "")
            .file("/d/.hid", "")
            .dir("/d/a1")
            .file("/sp ace/x.c", "")
            .symlink("/link", "d")
            .symlink("/loop", "loop")
            .symlink("/dangling", "nowhere");
        let vfs = Vfs::with_root("/dev/sda1", Arc::new(fs));
        expand(&vfs, pattern.into(), mark, &|| Ok(())).unwrap()
    }

    #[test] // Each was printed by guestfish 1.48.6 for the same tree.
    fn paths_expand_as_in_guestfish() {
        for (pattern, paths) in [
            ("/d/*", &["/d/a1/", "/d/x.c", "/d/y.c", "/d/z.h"][..]),
            ("/d/{z,x,nope}.[ch]", &["/d/z.h", "/d/x.c"]),
            ("/nowhere", &[]),
            ("/d", &["/d/"]),
            ("/d/", &["/d/"]),
            ("/d/x.c/", &[]),
            ("/link", &["/link/"]),
            ("/dangling", &["/dangling"]),
            ("/loop", &["/loop"]),
            ("/*/x.?", &["/d/x.c", "/link/x.c", "/sp ace/x.c"]),
            ("/d/.*", &["/d/../", "/d/./", "/d/.hid"]),
            ("/*/*/", &["/d/a1/", "/link/a1/"]),
            ("/sp\\ ace", &["/sp ace/"]),
            ("/", &["/"]),
        ] {
            assert_eq!(expanded(pattern, true), paths, "{pattern}");
        }
        assert_eq!(expanded("/d/[a-x]*", false), ["/d/a1", "/d/x.c"]);
        assert_eq!(expanded("/d/*/", false), ["/d/a1/"]);
    }
}
