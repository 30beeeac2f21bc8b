//! A small volume with every structure, made without root, and where its structures are.

use std::path::{Path, PathBuf};

use testkit::{run, run_ok};

use crate::features::mke2fs;

pub(crate) fn name(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The source of the volume: files whose content, mode and time are known.
pub(crate) fn source(dir: &Path) -> PathBuf {
    const MAKE: &str = r#"
set -eu
mkdir "$1"; cd "$1"
mkdir many sub sub/deeper
for i in $(seq 1 300); do : > "many/a-rather-long-file-name-to-fill-blocks-$i"; done
printf content > sub/file
head -c 100000 /dev/zero | tr '\0' z > big
# A hole after each block, so that the map of blocks needs many entries.
for i in $(seq 0 99); do printf '%d' $i | dd of=fragmented bs=1 seek=$((i * 140000)) conv=notrunc status=none; done
ln -s sub/file short-link
ln -s "$(printf '%0200d' 7)" long-link
chmod 4750 big
touch -d '2001-02-03 04:05:06 UTC' sub/file
"#;
    let tree = dir.join("source");
    run_ok("bash", ["-c", MAKE, "source", name(&tree)]);
    tree
}

/// Makes the volume, with an index in its large directory and attributes in a block.
pub(crate) fn image(dir: &Path, size_mib: u64, options: &str) -> PathBuf {
    let tree = source(dir);
    let image = mke2fs(dir, size_mib, &format!("{options} -d {}", name(&tree)));
    let value = dir.join("value");
    std::fs::write(&value, "v".repeat(600)).expect("a file");
    debugfs(&image, &format!("ea_set -f {} /sub/file user.large", name(&value)));
    // Ends with 1, because it indexes the directory.
    let check = run("e2fsck", ["-fyD", name(&image)]);
    assert!(matches!(check.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&check.stdout));
    image
}

/// One command of debugfs, and what it prints.
pub(crate) fn debugfs(image: &Path, command: &str) -> String {
    run_ok("debugfs", ["-w", "-R", command, name(image)])
}

/// The number behind `key` in what debugfs prints.
pub(crate) fn number_after(text: &str, key: &str) -> u64 {
    let after = text.split(key).nth(1).unwrap_or_else(|| panic!("no {key:?} in {text}"));
    let digits: String = after.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|e| panic!("{key:?} in {text}: {e}"))
}

/// The byte where a file's inode is.
pub(crate) fn inode_at(image: &Path, path: &str, block_size: u64) -> u64 {
    let text = debugfs(image, &format!("imap {path}"));
    let offset = text.split("offset 0x").nth(1).expect("an offset").trim();
    number_after(&text, "located at block") * block_size + u64::from_str_radix(offset, 16).expect("an offset")
}

/// The number of a file's inode.
pub(crate) fn inode_of(image: &Path, path: &str) -> u64 {
    number_after(&debugfs(image, &format!("stat {path}")), "Inode:")
}

/// The first block of a file that is not inline.
pub(crate) fn first_block(image: &Path, path: &str) -> u64 {
    let text = debugfs(image, &format!("blocks {path}"));
    let number = text.split_whitespace().next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{path} has no blocks: {text}"))
}
