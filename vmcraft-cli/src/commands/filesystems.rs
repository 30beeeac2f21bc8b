//! `vmcraft filesystems`: all disks, partitions and volumes as a tree, with what they hold.

use std::ffi::OsString;
use std::process::ExitCode;

use vmcraft::DeviceNode;

use crate::error::{Result, message};
use crate::open::report_warnings;
use crate::options::{Drive, GuestOptions};
use crate::tools::common::print;
use crate::tools::size::human;
use crate::tools::table::lined_up;

/// Which disks are looked at, and how the tree is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Filesystems {
    #[command(flatten)]
    guest: GuestOptions,

    /// Disks of the guest in their order, after those of -a
    #[arg(value_name = "DISK")]
    disks: Vec<OsString>,

    /// Print JSON
    #[arg(long, group = "form")]
    json: bool,

    /// Print sizes in bytes
    #[arg(long, conflicts_with = "json")]
    bytes: bool,
}

impl Filesystems {
    /// Prints the tree.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mut options = self.guest.clone();
        options.drives.0.extend(self.disks.iter().cloned().map(Drive::image));
        options.only_looks = true;
        if options.drives.0.is_empty() {
            return Err(message("no disk was given: vmcraft filesystems DISK, or -a DISK"));
        }
        let mut guest = options.guest()?;
        options.launch(&mut guest)?;
        let tree = guest.device_tree()?;
        report_warnings(&mut guest);
        if self.json {
            let json = serde_json::to_string_pretty(&tree);
            let json = json.map_err(|e| message(format!("cannot print the tree: {e}")))?;
            print(format!("{json}\n").as_bytes())?;
        } else {
            print(self.text(&tree).as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, tree: &[DeviceNode]) -> String {
        let titles = ["NAME", "TYPE", "SIZE", "CONTENT", "LABEL", "UUID", "NOTE"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        for node in tree {
            self.add(node, "", "", &mut rows);
        }
        // A column that nothing has a word in takes no place.
        let is_used = |column: &usize| rows[1..].iter().any(|row| !row[*column].is_empty());
        let used: Vec<_> = (0..titles.len()).filter(is_used).collect();
        let rows = rows.iter().map(|row| used.iter().map(|column| row[*column].clone()).collect());
        lined_up(&rows.collect::<Vec<_>>())
    }

    /// The row of a device and those of what stands on it. `branch` is what stands before its name, and
    /// `trunk` what stands there in the rows below.
    fn add(&self, node: &DeviceNode, branch: &str, trunk: &str, rows: &mut Vec<Vec<String>>) {
        let size = match node.size_bytes {
            Some(bytes) if self.bytes => bytes.to_string(),
            Some(bytes) => human(bytes.into()),
            None => String::new(),
        };
        let kind = match &node.layout {
            Some(layout) => format!("{}:{layout}", node.kind),
            None => node.kind.to_owned(),
        };
        let mut notes = Vec::new();
        notes.extend(node.member_of.iter().map(|group| format!("of {group}")));
        notes.extend(node.note.clone());
        notes.extend((!node.mountpoints.is_empty()).then(|| format!("on {}", node.mountpoints.join(", "))));
        notes.extend(node.repeated.then(|| "see above".to_owned()));
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        rows.push(vec![
            format!("{branch}{}", node.name.escape_debug()),
            kind,
            size,
            text(&node.content),
            text(&node.label).escape_debug().to_string(),
            text(&node.uuid),
            notes.join("; "),
        ]);
        for (index, child) in node.children.iter().enumerate() {
            let (bend, line) =
                if index + 1 < node.children.len() { ("├─", "│ ") } else { ("└─", "  ") };
            self.add(child, &format!("{trunk}{bend}"), &format!("{trunk}{line}"), rows);
        }
    }
}
