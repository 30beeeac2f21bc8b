//! Calls made by name, and trees shown as lines, so that tests read like scripts.

use bstr::{BString, ByteSlice};

use crate::call::Call;
use crate::value::Value;
use crate::vfs::LastLink;
use crate::walk::Walk;
use crate::{Guest, Result};

/// Makes the call of a line, whose words have spaces between them and none in them.
pub(crate) fn call(guest: &mut Guest, line: &str) -> Result<Value> {
    let words: Vec<BString> = line.split_whitespace().map(BString::from).collect();
    let call = Call::find(&words[0].to_string()).unwrap_or_else(|| panic!("{line}: no such call"));
    (call.invoke)(guest, &call.bind_words(&words[1..])?)
}

/// Makes the calls of all lines, which succeed.
pub(crate) fn run(guest: &mut Guest, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        call(guest, line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

/// What the call of a line says, which fails.
pub(crate) fn refusal(guest: &mut Guest, line: &str) -> String {
    match call(guest, line) {
        Ok(value) => panic!("{line}: {value:?}"),
        Err(e) => e.to_string(),
    }
}

/// Everything below a path, a line each: its mode, links, owner, size and path, and where it leads.
pub(crate) fn tree(guest: &Guest, path: &str) -> Vec<String> {
    let start = guest.vfs.resolve(path.into(), LastLink::Keep).expect("it is there");
    let mut walk = Walk::new(&guest.vfs, start).by_name();
    let mut lines = Vec::new();
    while let Some(entry) = walk.next().expect("the tree is sound") {
        let metadata = entry.metadata;
        let mut line = format!("{:o} {} {}:{}", metadata.mode(), metadata.links, metadata.uid, metadata.gid);
        if !metadata.is_dir() {
            line.push_str(&format!(" {}", metadata.size_bytes));
        }
        let shown = if entry.path.is_empty() { ".".into() } else { entry.path };
        line.push_str(&format!(" {shown}"));
        if let Ok(target) = entry.mount.filesystem.read_link(entry.inode) {
            line.push_str(&format!(" -> {}", target.as_bstr()));
        }
        if let Some(device) = metadata.device {
            line.push_str(&format!(" {},{}", device.major, device.minor));
        }
        lines.push(line);
    }
    lines
}
