//! The content of files.

use bstr::{BString, ByteSlice};
use vmcraft::value::FileOut;
use vmcraft::{DeviceOrPath, GuestPath};

use crate::sample::{Sample, lines};

const FILES: &[&str] =
    &["etc/passwd", "crlf", "zero", "holes", "numbers", "few", "zeros", "random", "words", "wide"];

fn path(name: &str) -> BString {
    format!("/{name}").into()
}

#[track_caller]
fn assert_lines(ours: &[BString], theirs: &[u8], what: &str) {
    let ours: Vec<_> = ours.iter().map(|line| line.as_bstr()).collect();
    let theirs: Vec<_> = lines(theirs).into_iter().map(|line| line.as_bstr()).collect();
    assert!(ours == theirs, "{what}: {} lines, not {}", ours.len(), theirs.len());
}

#[test] // Oracles: cat, dd, base64, hexdump and wc on the tree.
fn content_is_what_programs_read() {
    let sample = Sample::new();
    let mut guest = sample.guest();
    let dir = testkit::tempdir();
    for name in FILES {
        let content = std::fs::read(sample.tree().join(name)).unwrap();
        let path = path(name);
        let path = GuestPath::new(&path);
        assert!(guest.read_file(path).unwrap() == content, "{name}");
        assert!(guest.cat(path).unwrap() == content, "{name}");
        for (count, offset) in [(0, 0), (1, 0), (5000, 3), (1 << 20, 100), (10, 1 << 40)] {
            let start = content.len().min(offset);
            let end = content.len().min(start + count);
            let part = guest.pread(path, i32::try_from(count).unwrap(), i64::try_from(offset).unwrap());
            assert!(part.unwrap() == content[start..end], "{name} {count} {offset}");
        }
        let out = dir.path().join("out");
        guest.base64_out(path, &FileOut::Path(out.clone())).unwrap();
        assert!(std::fs::read(&out).unwrap() == sample.in_tree(&format!("base64 {name}")), "{name}");
        testkit::require("hexdump");
        assert!(guest.hexdump(path).unwrap() == sample.in_tree(&format!("hexdump -C {name}")), "{name}");
        let counts = [guest.wc_l(path).unwrap(), guest.wc_w(path).unwrap(), guest.wc_c(path).unwrap()]
            .map(|n| n.to_string());
        let theirs = ["l", "w", "c"].map(|o| sample.in_tree(&format!("wc -{o} < {name}")));
        assert_eq!(counts, theirs.map(|n| n.trim().to_str_lossy().into_owned()), "{name}");
        assert_eq!(guest.is_zero(path).unwrap(), content.iter().all(|byte| *byte == 0), "{name}");
        assert_eq!(guest.filesize(path).unwrap(), i64::try_from(content.len()).unwrap());
    }
    assert!(guest.pread("/few".into(), -1, 0).is_err());
    assert!(guest.pread("/few".into(), 1, -1).is_err());
}

#[test] // Oracles: head and tail, for numbers below, at and above the lines there are.
fn lines_are_those_of_head_and_tail() {
    let sample = Sample::new();
    let guest = sample.guest();
    for name in ["etc/passwd", "crlf", "zero", "numbers", "few", "words"] {
        let path = path(name);
        let path = GuestPath::new(&path);
        for number in [-20_001, -20_000, -101, -100, -99, -4, -3, -2, -1, 0, 1, 2, 3, 4, 99, 100, 101, 20_000]
        {
            let theirs = sample.in_tree(&format!("head -n {number} {name}"));
            assert_lines(&guest.head_n(number, path).unwrap(), &theirs, &format!("head-n {number} {name}"));
            let from = if number < 0 { format!("+{}", -number) } else { number.to_string() };
            let theirs = sample.in_tree(&format!("tail -n {from} {name}"));
            assert_lines(&guest.tail_n(number, path).unwrap(), &theirs, &format!("tail-n {number} {name}"));
        }
        assert_lines(&guest.head(path).unwrap(), &sample.in_tree(&format!("head {name}")), name);
        assert_lines(&guest.tail(path).unwrap(), &sample.in_tree(&format!("tail {name}")), name);
        let theirs = sample.in_tree(&format!("sed 's/\\r$//' {name}"));
        assert_lines(&guest.read_lines(path).unwrap(), &theirs, name);
    }
}

#[test] // Oracle: strings.
fn strings_are_those_of_strings() {
    testkit::require("strings");
    let sample = Sample::new();
    let guest = sample.guest();
    for name in ["random", "wide", "words", "usr/bin/script", "zero"] {
        let path = path(name);
        let path = GuestPath::new(&path);
        assert_lines(&guest.strings(path).unwrap(), &sample.in_tree(&format!("strings -a {name}")), name);
        for encoding in ["s", "S", "l", "b", "L", "B"] {
            let theirs = sample.in_tree(&format!("strings -a -e {encoding} {name}"));
            assert_lines(&guest.strings_e(encoding, path).unwrap(), &theirs, &format!("{encoding} {name}"));
        }
    }
    assert!(guest.strings_e("x", "/few".into()).is_err());
}

#[test] // Oracle: grep; what its expressions mean is tested beside their translation.
fn lines_are_found_as_by_grep() {
    let sample = Sample::new();
    let guest = sample.guest();
    let grep = |regex: &str, name: &str, extended: bool, fixed: bool, insensitive: bool| {
        let path = path(name);
        let some = |flag: bool| flag.then_some(true);
        guest
            .grep(regex.into(), GuestPath::new(&path), some(extended), some(fixed), some(insensitive), None)
            .unwrap()
    };
    let numbers = grep("^1.*7$", "numbers", false, false, false);
    assert_lines(&numbers, &sample.in_tree("grep '^1.*7$' numbers"), "numbers");
    let either = grep("(12|34)5+", "numbers", true, false, false);
    assert_lines(&either, &sample.in_tree("grep -E '(12|34)5+' numbers"), "either");
    let fixed = grep("ROOT:x", "etc/passwd", false, true, true);
    assert_lines(&fixed, &sample.in_tree("grep -iF 'ROOT:x' etc/passwd"), "fixed");
    assert_lines(
        &grep("caf. ", "words", false, false, false),
        &sample.in_tree("grep 'caf. ' words"),
        "words",
    );
    assert!(grep("x", "holes", false, false, false).is_empty());
    for packed in ["numbers", "numbers.gz", "numbers.xz", "numbers.bz2", "numbers.zst"] {
        let path = path(packed);
        let found = guest.zgrep("99$".into(), GuestPath::new(&path)).unwrap();
        assert_lines(&found, &sample.in_tree("grep '99$' numbers"), packed);
        let content = guest.zcat(GuestPath::new(&path)).unwrap();
        assert!(content == std::fs::read(sample.tree().join("numbers")).unwrap(), "{packed}");
    }
    let both = guest.grep("x".into(), "/few".into(), Some(true), Some(true), None, None);
    assert!(both.unwrap_err().to_string().contains("exclude each other"));
    assert_eq!(guest.egrep("a|b".into(), "/few".into()).unwrap(), Vec::<BString>::new());
}

#[test] // What no program could be tested on: all of it says what is wrong.
fn what_is_no_file_is_refused() {
    let mut guest = Sample::new().guest();
    let out = FileOut::Path(testkit::tempdir().path().join("out"));
    for (path, message) in [
        ("/dir", "/dir: is a directory"),
        ("/fifo", "/fifo: not a regular file"),
        ("/none", "/none: no such file or directory"),
        ("/few/", "/few/: not a directory (at /few)"),
        ("/loop", "/loop: too many levels of symbolic links"),
    ] {
        let path = GuestPath::new(path);
        let errors = [
            guest.cat(path).err(),
            guest.read_file(path).err(),
            guest.read_lines(path).err(),
            guest.pread(path, 1, 0).err(),
            guest.head(path).err(),
            guest.tail(path).err(),
            guest.hexdump(path).err(),
            guest.strings(path).err(),
            guest.is_zero(path).err(),
            guest.grep("x".into(), path, None, None, None, None).err(),
            guest.zcat(path).err(),
            guest.wc_l(path).err(),
            guest.wc_w(path).err(),
            guest.wc_c(path).err(),
            guest.file_architecture(path).err(),
            guest.base64_out(path, &out).err(),
        ];
        for error in errors {
            assert_eq!(error.map(|e| e.to_string()).as_deref(), Some(message));
        }
    }
}

#[test] // A sparse file costs its maker nothing; it must not cost the reader his memory.
fn huge_files_are_read_in_parts() {
    let sample_dir = testkit::tempdir();
    let tree = sample_dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::File::create(tree.join("huge")).and_then(|file| file.set_len(1 << 40)).unwrap();
    let image = sample_dir.path().join("image");
    crate::sample::make_image(&tree, &image);
    let mut guest = vmcraft::Guest::open(&image).unwrap();
    guest.mount("/dev/sda".into(), "/".into()).unwrap();
    let too_large = guest.read_file("/huge".into()).unwrap_err().to_string();
    assert!(too_large.contains("1099511627776 bytes") && too_large.contains("use download"), "{too_large}");
    assert_eq!(guest.pread("/huge".into(), 3, 1 << 39).unwrap(), [0; 3]);
    // Holes are skipped, not read.
    assert!(guest.is_zero("/huge".into()).unwrap());
    // An interrupted call ends.
    let flag = guest.cancel_flag();
    flag.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(guest.wc_l("/huge".into()).unwrap_err().to_string(), "interrupted");
    assert_eq!(guest.hexdump("/huge".into()).unwrap_err().errno(), 4);
    flag.store(false, std::sync::atomic::Ordering::Relaxed);
}

#[test] // Oracle: file(1) on the tree.
fn kinds_are_those_of_file1() {
    testkit::require("file");
    let sample = Sample::new();
    let guest = sample.guest();
    for name in ["etc/passwd", "crlf", "few", "usr/bin/program", "numbers.bz2", "zero"] {
        let theirs = sample.in_tree(&format!("file -zb {name}"));
        let path = path(name);
        let ours = guest.file(DeviceOrPath::new(&path)).unwrap();
        assert_eq!(ours, theirs.trim().to_str_lossy(), "{name}");
    }
    let file = |path: &str| guest.file(path.into()).unwrap();
    assert_eq!(
        ["/dir", "/link", "/fifo", "/usr/bin/script", "/dev/sda"].map(file),
        [
            "directory",
            "symbolic link",
            "FIFO",
            "setuid POSIX shell script, ASCII text executable",
            "Linux ext2/3/4 filesystem data"
        ]
    );
    let own = if std::env::consts::ARCH == "x86" { "i386" } else { std::env::consts::ARCH };
    assert_eq!(guest.file_architecture("/usr/bin/program".into()).unwrap(), own);
    assert!(guest.file_architecture("/few".into()).unwrap_err().to_string().contains("unknown architecture"));
    assert_eq!(guest.zfile("gzip", "/numbers.gz".into()).unwrap(), "ASCII text");
    assert!(guest.zfile("gzip", "/few".into()).is_err());
}
