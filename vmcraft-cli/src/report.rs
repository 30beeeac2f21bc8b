//! Messages to the person at the terminal: standard error, with the program's name before them.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;

use crate::output::visible;

/// Under which names the program speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// How it was called: `vmcraft`, `guestfish`, `virt-cat` …
    pub(crate) name: &'static str,
    /// What stands before errors and traces. As `guestfish` it is `libguestfs`, which scripts look
    /// for in its messages.
    pub(crate) speaker: &'static str,
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Says once under which names the program speaks.
pub(crate) fn set_program(program: Program) {
    // Only main calls it, and once.
    let _ = PROGRAM.set(program);
}

/// The names under which the program speaks.
pub(crate) fn program() -> Program {
    *PROGRAM.get().unwrap_or(&Program { name: "vmcraft", speaker: "vmcraft" })
}

/// The line of a script that a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The script's name.
    pub(crate) file: String,
    /// The number of the line, from 1.
    pub(crate) line: u64,
}

/// Says that something failed.
pub(crate) fn error(location: Option<&Location>, error: &dyn Display) {
    say(location, "error", error);
}

/// Says what the user should know although nothing failed.
pub(crate) fn warning(warning: &dyn Display) {
    say(None, "warning", warning);
}

/// Says what became of something, where that is neither wrong nor doubtful.
pub(crate) fn note(text: &dyn Display) {
    say(None, "note", text);
}

/// Says which call is made, or what it returned.
pub(crate) fn trace(text: &dyn Display) {
    say(None, "trace", text);
}

fn say(location: Option<&Location>, kind: &str, text: &dyn Display) {
    let place = location.map(|at| format!("{}:{}: ", at.file, at.line)).unwrap_or_default();
    // A message can quote what a guest holds.
    let text = visible(text.to_string().as_bytes());
    // There is nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "{place}{}: {kind}: {text}", program().speaker);
}
