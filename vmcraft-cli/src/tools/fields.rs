//! The lines that `virt-ls -lR` and `virt-diff` print of files: a field each, or a cell each in CSV.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use vmcraft::walk::Entry;
use vmcraft_fs::{DeviceNumber, FileType, Metadata, Timestamp};

use crate::error::{Error, Result, message};
use crate::output::Output;
use crate::tools::csv;
use crate::tools::size::human;

/// Which fields are printed, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FieldOptions {
    /// Print comma-separated values
    #[arg(long)]
    pub(super) csv: bool,

    /// Print sizes for people: 1.5G
    #[arg(short, long)]
    pub(super) human_readable: bool,

    /// Print owner and group numbers
    #[arg(long)]
    pub(super) uids: bool,

    /// Print device, inode, links, device node and blocks
    #[arg(long)]
    pub(super) extra_stats: bool,

    /// Print the times
    #[arg(long, alias = "time")]
    pub(super) times: bool,

    /// Print the times as seconds since 1970
    #[arg(long, overrides_with_all = ["time_relative", "time_days"])]
    pub(super) time_t: bool,

    /// Print the times as seconds before now
    #[arg(long, overrides_with_all = ["time_t", "time_days"])]
    pub(super) time_relative: bool,

    /// Print the times as days before now
    #[arg(long, overrides_with_all = ["time_t", "time_relative"])]
    pub(super) time_days: bool,

    /// Compute checksums of files: md5 unless a type is given (crc, md5, sha1, sha224, sha256, …)
    #[arg(
        long,
        alias = "checksums",
        value_name = "TYPE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "md5",
        value_parser = ["crc", "md5", "sha1", "sha224", "sha256", "sha384", "sha512"],
        hide_possible_values = true
    )]
    pub(super) checksum: Option<String>,
}

/// A file as it is printed and compared.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Its whole path in the guest.
    pub(super) path: Vec<u8>,
    /// What `stat` says of it.
    pub(super) metadata: Metadata,
    /// The device that it is on.
    pub(super) device: DeviceNumber,
    /// The target of a symbolic link.
    pub(super) link: Option<Vec<u8>>,
    /// The checksum of a regular file, if one is asked for.
    pub(super) checksum: String,
}

impl File {
    /// What a walk shows, without a checksum.
    pub(super) fn new(entry: &Entry<'_>) -> vmcraft::Result<Self> {
        let link = match entry.metadata.file_type {
            FileType::Symlink => {
                let target = entry.mount.filesystem.read_link(entry.inode);
                Some(target.map_err(|source| entry.error(source))?.into())
            }
            _ => None,
        };
        Ok(Self {
            path: entry.guest_path().into(),
            metadata: entry.metadata,
            device: entry.device(),
            link,
            checksum: String::new(),
        })
    }

    /// Whether it is a regular file.
    pub(super) fn is_regular(&self) -> bool {
        self.metadata.file_type == FileType::Regular
    }
}

/// Prints lines of fields.
pub(super) struct Lines {
    csv: bool,
    line: Vec<u8>,
    fields: usize,
    out: Output,
    now: i64,
    zone: TimeZone,
}

impl Lines {
    /// Lines on standard output, with times in the host's time zone.
    pub(super) fn new(csv: bool) -> Self {
        Self {
            csv,
            line: Vec::new(),
            fields: 0,
            out: Output::stdout(),
            now: jiff::Timestamp::now().as_second(),
            zone: TimeZone::system(),
        }
    }

    /// Adds a text. In a line for people, an empty one is left out.
    pub(super) fn text(&mut self, text: &[u8]) {
        if self.csv {
            csv::push_cell(&mut self.line, self.fields == 0, text);
        } else if !text.is_empty() {
            if self.fields > 0 {
                self.line.push(b' ');
            }
            self.line.extend_from_slice(text);
        }
        self.fields += 1;
    }

    /// Adds a number, which is padded to a width in a line for people.
    fn number(&mut self, number: &str, width: usize) {
        match self.csv {
            true => self.text(number.as_bytes()),
            false => self.text(format!("{number:>width$}").as_bytes()),
        }
    }

    fn time(&mut self, options: &FieldOptions, time: Timestamp) {
        let age = self.now.saturating_sub(time.seconds);
        if options.time_t {
            self.number(&time.seconds.to_string(), 10);
        } else if options.time_relative {
            self.number(&age.to_string(), 8);
        } else if options.time_days {
            self.number(&(age / 86400).to_string(), 3);
        } else {
            let shown = jiff::Timestamp::from_second(time.seconds).map_or_else(
                |_| time.seconds.to_string(),
                |moment| {
                    let date = self.zone.to_datetime(moment);
                    let (clock, date) = (date.time(), date.date());
                    format!("{date} {:02}:{:02}:{:02}", clock.hour(), clock.minute(), clock.second())
                },
            );
            // It has a space, which is no reason for the tools to quote it.
            if self.csv {
                self.line.extend_from_slice(format!(",{shown}").as_bytes());
                self.fields += 1;
            } else {
                self.text(shown.as_bytes());
            }
        }
    }

    /// Adds all fields of a file.
    pub(super) fn file(&mut self, options: &FieldOptions, with_atime: bool, file: &File) {
        let metadata = &file.metadata;
        self.text(&[match metadata.file_type {
            FileType::Regular => b'-',
            FileType::Fifo => b'p',
            other => other.letter(),
        }]);
        self.text(format!("{:04o}", metadata.permissions & 0o7777).as_bytes());
        match options.human_readable {
            true => self.number(&human(metadata.size_bytes.into()), 10),
            false => self.number(&metadata.size_bytes.to_string(), 10),
        }
        if options.uids {
            self.number(&metadata.uid.to_string(), 4);
            self.number(&metadata.gid.to_string(), 4);
        }
        if options.times || options.time_t || options.time_relative || options.time_days {
            if with_atime {
                self.time(options, metadata.accessed);
            }
            self.time(options, metadata.modified);
            self.time(options, metadata.changed);
        }
        if options.extra_stats {
            let number = |device: DeviceNumber| format!("{}:{}", device.major, device.minor);
            self.text(number(file.device).as_bytes());
            self.text(metadata.inode.0.to_string().as_bytes());
            self.text(metadata.links.to_string().as_bytes());
            self.text(number(metadata.device.unwrap_or_default()).as_bytes());
            self.text(metadata.blocks_512.to_string().as_bytes());
        }
        if options.checksum.is_some() {
            self.text(file.checksum.as_bytes());
        }
        self.text(&file.path);
        if let Some(target) = &file.link {
            if !self.csv {
                self.text(b"->");
            }
            self.text(target);
        }
    }

    /// Ends the line and writes it.
    pub(super) fn end(&mut self) -> Result<()> {
        self.line.push(b'\n');
        let line = std::mem::take(&mut self.line);
        self.fields = 0;
        self.raw(&line)
    }

    /// Writes text that is no line of fields.
    pub(super) fn raw(&mut self, text: &[u8]) -> Result<()> {
        self.out.write_text(text).map_err(|e| Error::output(&e))
    }

    /// Writes what is still held back.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|e: io::Error| Error::output(&e))
    }
}

/// The checksum of a file.
pub(super) fn checksum(guest: &mut vmcraft::Guest, kind: &str, path: &[u8]) -> Result<String> {
    guest.checksum(kind, vmcraft::GuestPath::new(path)).map_err(|e| message(format!("checksum: {e}")))
}
