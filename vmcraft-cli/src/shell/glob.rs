//! `glob`: a command once for each way in which the wildcards of its words match.

use bstr::{BString, ByteSlice};
use globset::GlobBuilder;
use vmcraft::GuestPath;

use crate::error::{Error, Result, message};
use crate::interrupt;
use crate::report;
use crate::shell::devices;
use crate::shell::script::Script;
use crate::shell::session::Session;

/// Runs `name` for each combination of what the words stand for. If some fail, the others are run
/// all the same.
pub(crate) fn run(
    session: &mut Session,
    name: &BString,
    words: &[BString],
    script: &mut Script,
) -> Result<()> {
    let alternatives = words.iter().map(|word| expand(session, word)).collect::<Result<Vec<_>>>()?;
    let mut failed = false;
    let mut at = vec![0; words.len()];
    loop {
        let combination = alternatives.iter().zip(&at).map(|(words, index)| words[*index].clone()).collect();
        match session.dispatch(name.as_bstr(), combination, script) {
            Ok(()) => {}
            Err(error @ (Error::BrokenPipe | Error::Interrupted)) => return Err(error),
            Err(error) => {
                report::error(script.location().as_ref(), &error);
                failed = true;
            }
        }
        if interrupt::pending() {
            return Err(Error::Interrupted);
        }
        // The last word changes fastest.
        let Some(next) = (0..at.len()).rev().find(|index| at[*index] + 1 < alternatives[*index].len()) else {
            return if failed { Err(Error::Reported) } else { Ok(()) };
        };
        at[next] += 1;
        at[next + 1..].fill(0);
    }
}

/// What a word stands for: itself if nothing matches.
fn expand(session: &mut Session, word: &BString) -> Result<Vec<BString>> {
    let found = if word.starts_with(b"/dev/") {
        matching_devices(session, word)?
    } else if word.starts_with(b"/") {
        session.guest().glob_expand(GuestPath::new(word), None).map_err(|e| Error::call("glob-expand", e))?
    } else {
        Vec::new()
    };
    Ok(if found.is_empty() { vec![word.clone()] } else { found })
}

fn matching_devices(session: &mut Session, pattern: &BString) -> Result<Vec<BString>> {
    let text =
        pattern.to_str().map_err(|_| message(format!("glob: {pattern:?} is not the name of a device")))?;
    let matcher = GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map_err(|e| message(format!("glob: {e}")))?
        .compile_matcher();
    let names = devices::names(session.guest());
    Ok(names.into_iter().filter(|name| matcher.is_match(name.to_path_lossy())).collect())
}
