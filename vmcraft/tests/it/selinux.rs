//! The labels that a real policy gives, against libselinux's `matchpathcon`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vmcraft::customize::selinux::FileContexts;
use vmcraft_fs::FileType;

/// Where Debian's package `selinux-policy-default` has its policy.
const POLICY: &str = "/etc/selinux/default/contexts/files/file_contexts";

fn read(policy: &Path) -> FileContexts {
    FileContexts::read(|suffix| {
        let mut file = policy.as_os_str().to_owned();
        file.push(suffix);
        Ok(std::fs::read(PathBuf::from(file)).ok())
    })
    .unwrap()
}

/// What `matchpathcon` says of paths of one type, in their order.
fn matchpathcon(policy: &Path, kind: &str, paths: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    for some in paths.chunks(4000) {
        let policy = policy.to_str().unwrap();
        let mut arguments = vec!["-N", "-n", "-m", kind, "-f", policy];
        arguments.extend(some);
        said.extend(testkit::run_ok("matchpathcon", arguments).lines().map(str::to_owned));
    }
    assert_eq!(said.len(), paths.len());
    said
}

/// Paths that an expression could match, and some that it just does not.
fn samples(expression: &str) -> Vec<String> {
    let mut made = Vec::new();
    for (any, some, optional) in [("x", "ab", true), ("", "0", false), ("a/b.so", "z.pid", true)] {
        let mut path = String::new();
        let mut rest = expression;
        while let Some(first) = rest.chars().next() {
            let mut len = first.len_utf8();
            if let Some(after) = rest.strip_prefix(".*") {
                path.push_str(any);
                len = rest.len() - after.len();
            } else if let Some(after) = rest.strip_prefix("[^/]*").or_else(|| rest.strip_prefix("[^/]+")) {
                path.push_str(some);
                len = rest.len() - after.len();
            } else {
                match first {
                    '\\' => {
                        path.extend(rest.chars().nth(1));
                        len = 2.min(rest.len());
                    }
                    '(' | ')' | '[' | ']' | '+' | '*' | '^' | '$' => {}
                    '?' if optional => {}
                    '?' => drop(path.pop()),
                    '.' => path.push('-'),
                    '|' => break,
                    other => path.push(other),
                }
            }
            rest = &rest[len..];
        }
        made.extend([format!("{path}/below"), path]);
    }
    made.retain(|path| path.starts_with('/') && !path.ends_with('/') && !path.contains("//"));
    made
}

#[test]
fn labels_are_those_of_libselinux() {
    let policy = Path::new(POLICY);
    if !policy.exists() {
        return testkit::skip("no policy: install Debian package selinux-policy-default");
    }
    let contexts = read(policy);
    let mut paths = BTreeSet::new();
    for suffix in ["", ".homedirs"] {
        let content = std::fs::read_to_string(format!("{POLICY}{suffix}")).unwrap();
        for line in content.lines() {
            paths.extend(line.split_whitespace().next().into_iter().flat_map(samples));
        }
    }
    let listed = testkit::run("find", ["/etc", "/usr", "/var", "/home", "-xdev", "-maxdepth", "4"]);
    paths.extend(String::from_utf8_lossy(&listed.stdout).lines().take(20_000).map(str::to_owned));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert!(paths.len() > 5000, "only {} paths", paths.len());
    let types = [
        ("file", FileType::Regular),
        ("dir", FileType::Directory),
        ("lnk_file", FileType::Symlink),
        ("chr_file", FileType::CharDevice),
        ("sock_file", FileType::Socket),
    ];
    for (kind, file_type) in types {
        let expected = matchpathcon(policy, kind, &paths);
        let mut wrong = BTreeMap::new();
        for (path, expected) in paths.iter().zip(&expected) {
            let ours = contexts.lookup((*path).into(), file_type).unwrap();
            let ours = ours.map_or("<<none>>".to_owned(), ToString::to_string);
            if ours != *expected {
                wrong.insert(path, (ours, expected));
            }
        }
        assert!(
            wrong.is_empty(),
            "{kind}: {} of {} differ: {:#?}",
            wrong.len(),
            paths.len(),
            wrong.iter().take(20)
        );
    }
}

#[test] // Order, substitutes, exact lines and bars outside of groups, where a mistake would go unseen above.
fn odd_policies_are_read_as_libselinux_reads_them() {
    let dir = testkit::tempdir();
    let policy = dir.path().join("file_contexts");
    let context = |name: &str| format!("u:r:{name}_t:s0");
    let lines = [
        ("/.*", "all"),
        ("/a/b", "exact"),
        ("/a/.*", "below"),
        ("/a/b|/c/d", "bar"),
        ("/e(x|y)?", "group"),
        ("/f/g\\.h", "dot"),
        ("/f/g.h", "any"),
        ("/[a-z]z/k", "class"),
        ("/az/k.*", "stem"),
        ("/m/n{2}", "twice"),
        ("/o/p\\{q\\}", "brace"),
        ("/q.r/s", "odd"),
        ("/t\\.u/v", "escaped"),
        ("/t\\.u/.*", "wide"),
    ];
    let text: String = lines.iter().map(|(line, name)| format!("{line}\t{}\n", context(name))).collect();
    std::fs::write(&policy, text).unwrap();
    std::fs::write(dir.path().join("file_contexts.homedirs"), format!("/h/[^/]* {}\n", context("home")))
        .unwrap();
    std::fs::write(
        dir.path().join("file_contexts.local"),
        format!("/h/i {}\n/a/b.* {}\n", context("local"), context("last")),
    )
    .unwrap();
    std::fs::write(dir.path().join("file_contexts.subs_dist"), "/w /a\n/w/x /f\n/y /w\n").unwrap();
    std::fs::write(dir.path().join("file_contexts.subs"), "/z /w\n/zz /h\n").unwrap();
    let contexts = read(&policy);
    let paths = [
        "/", "/a", "/a/b", "/a/bc", "/a/c", "/c/d", "/c/de", "/x/c/d", "/e", "/ex", "/ey", "/exy", "/f/g.h",
        "/f/gxh", "/az/k", "/bz/k", "/m/nn", "/m/n", "/m/nnn", "/o/p{q}", "/q.r/s", "/qxr/s", "/t.u/v",
        "/t.u/w", "/txu/v", "/h/i", "/h/j", "/h/j/k", "/w/b", "/w/x/g.h", "/w", "/y/b", "/z/b", "/z",
        "/zz/i", "/wx", "/zzz", "/a//b",
    ];
    let expected = matchpathcon(&policy, "file", &paths);
    for (path, expected) in paths.iter().zip(expected) {
        let ours = contexts.lookup((*path).into(), FileType::Regular).unwrap();
        assert_eq!(ours.map_or("<<none>>".to_owned(), ToString::to_string), expected, "{path}");
    }
}
