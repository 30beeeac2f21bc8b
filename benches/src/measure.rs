//! Running two commands by turns, and what comes out.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// A command that is measured; its output goes to `/dev/null`.
pub(crate) struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, &'static str)>,
    /// A line for `sh` that runs before, and is not measured.
    preparation: Option<String>,
}

impl Command {
    pub(crate) fn new(program: &Path, arguments: Vec<OsString>) -> Self {
        Self { program: program.into(), arguments, environment: Vec::new(), preparation: None }
    }

    pub(crate) fn shell(line: &str) -> Self {
        Self::new(Path::new("sh"), vec!["-c".into(), line.into()])
    }

    pub(crate) fn environment(&mut self, name: &'static str, value: &'static str) {
        self.environment.push((name, value));
    }

    /// What is to be done before each run, and not measured.
    pub(crate) fn prepare(&mut self, line: &str) {
        self.preparation = Some(line.to_owned());
    }

    /// Runs it once.
    pub(crate) fn run(&self) -> Result<()> {
        self.seconds().map(drop)
    }

    fn prepared(&self) -> Result<()> {
        if let Some(line) = &self.preparation {
            Command::shell(line).run()?;
        }
        Ok(())
    }

    fn seconds(&self) -> Result<f64> {
        self.prepared()?;
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let status = command.status().with_context(|| format!("{command:?}"))?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(started.elapsed().as_secs_f64())
    }
}

/// The middle of `runs` times, in seconds, after one that is not counted if there are several.
pub(crate) fn median(command: &Command, runs: usize) -> Result<f64> {
    if runs > 1 {
        command.seconds()?;
    }
    let times = (0..runs).map(|_| command.seconds()).collect::<Result<Vec<_>>>()?;
    Ok(middle(times))
}

pub(crate) fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The most memory that the command had, in KiB.
pub(crate) fn peak_kib(command: &Command) -> Result<f64> {
    command.prepared()?;
    let time = testkit::require("time");
    let output = std::process::Command::new(time)
        .args(["-f", "%M"])
        .arg(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    last.trim().parse().with_context(|| format!("time printed {text:?}"))
}

/// A row of the page.
pub(crate) struct Row {
    what: String,
    ours: String,
    other: String,
    ratio: String,
    bar: &'static str,
}

impl Row {
    /// A figure of ours alone.
    pub(crate) fn figure(what: &str, value: f64, unit: &str, bar: &'static str) -> Self {
        Self {
            what: what.into(),
            ours: format!("{value:.1} {unit}"),
            other: "-".into(),
            ratio: "-".into(),
            bar,
        }
    }

    /// How many times faster ours is.
    pub(crate) fn times(what: &str, ours: f64, other: f64, bar: &'static str) -> Self {
        Self {
            what: what.into(),
            ours: seconds(ours),
            other: seconds(other),
            ratio: format!("{:.2}", other / ours),
            bar,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} | {} | {} | {} |", self.what, self.ours, self.other, self.ratio, self.bar)
    }
}

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.1} ms", value * 1e3) } else { format!("{value:.2} s") }
}

/// Runs both by turns and compares their middle times.
pub(crate) fn compare(
    what: &str,
    ours: &Command,
    theirs: &Command,
    runs: usize,
    bar: &'static str,
) -> Result<Row> {
    ours.seconds()?;
    theirs.seconds()?;
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        our_times.push(ours.seconds()?);
        their_times.push(theirs.seconds()?);
    }
    Ok(Row::times(what, middle(our_times), middle(their_times), bar))
}
