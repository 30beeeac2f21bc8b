//! `cargo xtask fuzz`: the targets of `fuzz/`, from seeds that the formats' own tools made.

use std::path::Path;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::install;

/// What an input may cost. A decoder is to bound both by itself.
const LIMITS: &[&str] = &["-timeout=20", "-rss_limit_mb=1500", "-malloc_limit_mb=600", "-max_len=300000"];

/// Runs each of the targets, or those named, for so many seconds.
pub(crate) fn run(shell: &Shell, seconds: u64, wanted: &[String]) -> Result<()> {
    install::ensure(shell, true, |oracle| {
        [
            "bzip2", "cpio", "debugfs", "fdisk", "mke2fs", "nbdkit", "qemu-img", "qemu-io", "sfdisk",
            "sgdisk", "tar", "xz", "zstd",
        ]
        .contains(&oracle.program)
    })?;
    if testkit::find("c++").is_none() {
        bail!("missing: c++, which builds the fuzzer; install g++ with this system's package manager");
    }
    if testkit::find("cargo-fuzz").is_none() {
        cmd!(shell, "cargo install --locked --quiet cargo-fuzz").run()?;
    }
    let _dir = shell.push_dir("fuzz");
    // What earlier runs found is kept beside the seeds, and gone on from.
    let target = testkit::workspace().join("target/fuzz");
    let (corpus, found) = (target.join("corpus"), target.join("found"));
    let _target = shell.push_env("CARGO_TARGET_DIR", &target);
    cmd!(shell, "cargo run --quiet --example seeds {corpus}").run()?;
    // Journals are made durable for each input: in memory that takes no time.
    let _files = Path::new("/dev/shm").is_dir().then(|| shell.push_env("TMPDIR", "/dev/shm"));
    // cargo-fuzz wants a compiler that takes unstable options.
    let _unstable = shell.push_env("RUSTC_BOOTSTRAP", "1");
    // Safe Rust needs no sanitizer of addresses, which makes all slower.
    let build = ["--fuzz-dir", ".", "--sanitizer", "none", "--release"];
    let listed = cmd!(shell, "cargo fuzz list --fuzz-dir .").read()?;
    let targets: Vec<&str> = match wanted {
        [] => listed.lines().collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = targets.iter().find(|target| listed.lines().all(|name| name != **target)) {
        bail!("there is no target {unknown}; there are {}", listed.lines().collect::<Vec<_>>().join(", "));
    }
    for name in targets {
        let seeds = corpus.join(name);
        let found = found.join(name);
        shell.create_dir(&found)?;
        let (prefix, time) =
            (format!("-artifact_prefix={}/", found.display()), format!("-max_total_time={seconds}"));
        cmd!(shell, "cargo fuzz run {build...} {name} {seeds} -- {prefix} {time} {LIMITS...}").run()?;
    }
    Ok(())
}
