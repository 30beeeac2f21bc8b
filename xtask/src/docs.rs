//! `cargo xtask docs`: what is generated from the call table.

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

/// The reference manual, generated.
const REFERENCE: &str = "docs/reference/calls.md";

pub(crate) fn run(shell: &Shell, check: bool) -> Result<()> {
    let text =
        cmd!(shell, "cargo run --quiet --package vmcraft-cli -- help --reference").quiet().read()? + "\n";
    if !check {
        shell.write_file(REFERENCE, text)?;
        return Ok(());
    }
    if shell.read_file(REFERENCE)? != text {
        bail!("{REFERENCE} is not current: run `cargo xtask docs` and commit it");
    }
    Ok(())
}
