//! Paths as Windows has them: `win:\windows\system32`.

use bstr::{BString, ByteSlice};
use vmcraft::call::{ArgumentKind, Call};
use vmcraft::{Guest, GuestPath};

use crate::error::{Error, Result, message};

const PREFIX: &[u8] = b"win:";

/// Turns words that are such paths into paths of the guest, with the case that its names have.
pub(super) fn resolve(guest: &Guest, call: &Call, words: &mut [BString]) -> Result<()> {
    for (argument, word) in call.required().map(|at| &call.arguments[at]).zip(words) {
        let is_path = matches!(argument.kind, ArgumentKind::Path | ArgumentKind::DeviceOrPath);
        if !is_path {
            continue;
        }
        let Some(path) = word.get(PREFIX.len()..).filter(|_| word.to_ascii_lowercase().starts_with(PREFIX))
        else {
            continue;
        };
        if path.get(1) == Some(&b':') && path[0].is_ascii_alphabetic() {
            return Err(message(format!(
                "{word}: drive letters are for Windows guests, and this version opens none: \
                 leave the letter out, or give the path with /"
            )));
        }
        let path = path.replace("\\", "/");
        *word = guest
            .case_sensitive_path(GuestPath::new(&path))
            .map_err(|e| Error::call("case-sensitive-path", e))?;
    }
    Ok(())
}
