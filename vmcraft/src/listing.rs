//! Directory listings in the form of `ls -la`.

use std::fmt::Write;

use bstr::{BString, ByteSlice};
use vmcraft_fs::{FileType, Metadata, Timestamp};

use crate::Result;
use crate::vfs::Node;

/// Half a year of 365.2425 days, in seconds: older times show their year instead of the hour.
const HALF_A_YEAR: i64 = 31_556_952 / 2;

/// A line of a listing, before it is known how wide the columns are.
pub(crate) struct Row {
    name: BString,
    metadata: Metadata,
    /// What stands after the permissions: `+` for an ACL, `.` for a security context alone.
    mark: u8,
    context: BString,
    target: Option<BString>,
}

impl Row {
    /// The line for what a directory has under `name`.
    pub(crate) fn read(name: BString, node: &Node) -> Result<Self> {
        let metadata = node.metadata()?;
        let failed = |source| node.error(source);
        let (mut has_acl, mut context) = (false, None);
        for (name, value) in node.filesystem.xattrs(node.inode).map_err(failed)? {
            match name.as_bytes() {
                b"system.posix_acl_access" | b"system.posix_acl_default" => has_acl = true,
                b"security.selinux" => context = Some(BString::from(value.trim_end_with(|c| c == '\0'))),
                _ => {}
            }
        }
        let target = match metadata.file_type {
            FileType::Symlink => Some(node.filesystem.read_link(node.inode).map_err(failed)?),
            _ => None,
        };
        let mark = match &context {
            _ if has_acl => b'+',
            Some(_) => b'.',
            None => b' ',
        };
        Ok(Self { name, metadata, mark, context: context.unwrap_or_else(|| "?".into()), target })
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn len_bytes(&self) -> usize {
        size_of::<Self>()
            + self.name.len()
            + self.context.len()
            + self.target.as_ref().map_or(0, |target| target.len())
    }

    fn size(&self) -> String {
        match self.metadata.file_type {
            FileType::CharDevice | FileType::BlockDevice => String::new(),
            _ => self.metadata.size_bytes.to_string(),
        }
    }

    fn device(&self) -> Option<(String, String)> {
        let device = self.metadata.device.unwrap_or_default();
        matches!(self.metadata.file_type, FileType::CharDevice | FileType::BlockDevice)
            .then(|| (device.major.to_string(), device.minor.to_string()))
    }
}

/// The lines of a listing in the order of their names, with `now` to tell old times from new ones.
pub(crate) fn format(mut rows: Vec<Row>, with_contexts: bool, now: Timestamp) -> BString {
    rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let widest = |text: &dyn Fn(&Row) -> String| rows.iter().map(|row| text(row).len()).max().unwrap_or(0);
    let mark_width = usize::from(rows.iter().any(|row| row.mark != b' '));
    let links_width = widest(&|row| row.metadata.links.to_string());
    let uid_width = widest(&|row| row.metadata.uid.to_string());
    let gid_width = widest(&|row| row.metadata.gid.to_string());
    let context_width = rows.iter().map(|row| row.context.len()).max().unwrap_or(0);
    let minor_width = widest(&|row| row.device().map_or(String::new(), |(_, minor)| minor));
    let major_width = widest(&|row| row.device().map_or(String::new(), |(major, _)| major));
    let device_width = if major_width > 0 { major_width + 2 + minor_width } else { 0 };
    let size_width = widest(&Row::size).max(device_width);
    let mut text = BString::default();
    for row in &rows {
        let metadata = &row.metadata;
        let mut line = permissions(metadata);
        if mark_width > 0 {
            line.push(char::from(row.mark));
        }
        let size = match row.device() {
            Some((major, minor)) => {
                let major_width = size_width - minor_width - 2;
                format!("{major:>major_width$}, {minor:>minor_width$}")
            }
            None => format!("{:>size_width$}", row.size()),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " {:>links_width$} {:>uid_width$} {:>gid_width$} ",
            metadata.links, metadata.uid, metadata.gid
        );
        text.extend_from_slice(line.as_bytes());
        if with_contexts {
            text.extend_from_slice(&row.context);
            text.extend(std::iter::repeat_n(b' ', context_width - row.context.len() + 1));
        }
        text.extend_from_slice(format!("{size} {} ", time(metadata.modified, now)).as_bytes());
        text.extend_from_slice(&row.name);
        if let Some(target) = &row.target {
            text.extend_from_slice(b" -> ");
            text.extend_from_slice(target);
        }
        text.push(b'\n');
    }
    text
}

/// The line that `ls` begins a directory with: the space that its files take, in units of 1024 bytes.
pub(crate) fn total(rows: &[Row]) -> String {
    let blocks: u128 = rows.iter().map(|row| u128::from(row.metadata.blocks_512)).sum();
    format!("total {}\n", blocks.div_ceil(2))
}

/// Type and permissions as `drwxr-xr-x`.
fn permissions(metadata: &Metadata) -> String {
    let mut text = String::from(match metadata.file_type {
        FileType::Regular => '-',
        FileType::Fifo => 'p',
        FileType::Unknown => '?',
        other => char::from(other.letter()),
    });
    let mode = metadata.permissions;
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A time as `Nov 14 22:13`, or `Nov 14  2023` if it is more than half a year back or in the future.
fn time(time: Timestamp, now: Timestamp) -> String {
    // Times that no calendar covers are shown as they are, as ls does.
    let Ok(moment) = jiff::Timestamp::from_second(time.seconds) else { return time.seconds.to_string() };
    let date = jiff::tz::TimeZone::UTC.to_datetime(moment);
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // The month is from 1 to 12.
    let month = MONTHS.get(usize::from(date.month().unsigned_abs()).wrapping_sub(1)).unwrap_or(&"?");
    let is_recent = time <= now && now.seconds.saturating_sub(time.seconds) < HALF_A_YEAR;
    match is_recent {
        true => format!("{month} {:>2} {:02}:{:02}", date.day(), date.hour(), date.minute()),
        false => format!("{month} {:>2}  {:04}", date.day(), date.year()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The forms of ls in the C locale and UTC.
    fn times_show_the_hour_for_half_a_year() {
        let at = |seconds| Timestamp { seconds, nanoseconds: 0 };
        let now = at(1_700_000_000);
        assert_eq!(time(now, now), "Nov 14 22:13");
        assert_eq!(time(at(1_700_000_001), now), "Nov 14  2023");
        assert_eq!(time(at(1_700_000_000 - HALF_A_YEAR + 1), now), "May 16 07:18");
        assert_eq!(time(at(1_700_000_000 - HALF_A_YEAR), now), "May 16  2023");
        assert_eq!(time(at(-2_146_368_373), now), "Dec 26  1901");
        assert_eq!(time(at(i64::MAX), now), i64::MAX.to_string());
    }

    #[test]
    fn permissions_show_special_bits() {
        let mut metadata = Metadata {
            inode: vmcraft_fs::InodeNumber(1),
            file_type: FileType::Directory,
            permissions: 0o1777,
            links: 1,
            uid: 0,
            gid: 0,
            device: None,
            size_bytes: 0,
            blocks_512: 0,
            block_size: 1024,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            created: None,
        };
        assert_eq!(permissions(&metadata), "drwxrwxrwt");
        metadata.permissions = 0o7644;
        metadata.file_type = FileType::Regular;
        assert_eq!(permissions(&metadata), "-rwSr-Sr-T");
        metadata.permissions = 0o6711;
        metadata.file_type = FileType::Fifo;
        assert_eq!(permissions(&metadata), "prws--s--x");
    }
}
