//! Editing files with an expression of Perl, which the host's Perl evaluates for each line.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use bstr::{BString, ByteSlice};

use crate::{Error, GuestPath, Result};

/// What stands before and after the expression. As in virt-edit, `$_` is the line with its newline, `$lineno`
/// its number from 1, and `next` leaves the line out.
const PROGRAM: [&str; 2] = [
    "my $lineno = 0; while (<STDIN>) { $lineno++; ",
    "\n; print STDOUT $_ or die \"print: $!\"; } close STDOUT or die \"close: $!\";",
];

/// Writes the lines of `from` to `to` as an expression changes them. `path` is what errors call the file.
///
/// Returns what Perl said, such as warnings of the expression.
pub fn edit_lines(path: &GuestPath, expression: &OsStr, from: File, to: File) -> Result<BString> {
    let program: OsString =
        [OsStr::new(PROGRAM[0]), expression, OsStr::new(PROGRAM[1])].into_iter().collect();
    let ran =
        Command::new("perl").arg("-e").arg(program).stdin(Stdio::from(from)).stdout(Stdio::from(to)).output();
    let output = ran.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Usage(
            "editing with an expression needs Perl 5 on this host, and there is no program perl: install package perl"
                .into(),
        ),
        _ => Error::Host { path: "perl".into(), doing: "cannot run it", source },
    })?;
    let said = output.stderr.trim_end();
    if !output.status.success() {
        return Err(Error::Usage(format!(
            "{path}: perl failed, and nothing was changed ({}): {}",
            output.status,
            said.to_str_lossy()
        )));
    }
    Ok(said.into())
}
