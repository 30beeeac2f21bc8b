//! `cargo xtask test`: the oracles, then every test.

use anyhow::Result;
use testkit::guest::{Layout, Packing};
use xshell::{Shell, cmd};

use crate::{docs, fuzz, install};

/// How long each of the fuzz targets runs in the long suites.
const FUZZ_SECONDS: u64 = 30;

pub(crate) fn run(shell: &Shell, all: bool, may_install: bool, runner: &[String]) -> Result<()> {
    install::ensure(shell, may_install, |_| true)?;
    // Made once here, so that no test spends its time limit on it.
    for layout in [Layout::Mbr, Layout::Gpt] {
        testkit::guest::debian(layout, Packing::Raw);
    }
    if all {
        testkit::appliance::run_ok(&[], "");
    }
    let _all = all.then(|| shell.push_env("VMCRAFT_TEST_ALL", "1"));
    // The end-to-end tests run the binary.
    cmd!(shell, "cargo build --quiet --package vmcraft-cli").run()?;
    if testkit::find("cargo-nextest").is_some() {
        cmd!(shell, "cargo nextest run --workspace --no-fail-fast {runner...}").run()?;
        cmd!(shell, "cargo test --workspace --doc --quiet").run()?;
    } else {
        cmd!(shell, "cargo test --workspace --no-fail-fast {runner...}").run()?;
    }
    if runner.is_empty() {
        docs::run(shell, true)?;
    }
    if all && runner.is_empty() {
        fuzz::run(shell, FUZZ_SECONDS, &[])?;
    }
    Ok(())
}

pub(crate) fn bench(shell: &Shell) -> Result<()> {
    install::ensure(shell, true, |_| true)?;
    cmd!(shell, "cargo build --quiet --release --package vmcraft-cli").run()?;
    cmd!(shell, "cargo run --quiet --release --package vmcraft-benches").run()?;
    Ok(())
}
