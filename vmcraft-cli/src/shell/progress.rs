//! Progress bars on calls that take long.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vmcraft::Progress;

/// How long a call runs before its progress is shown: most are done by then.
const DELAY: Duration = Duration::from_secs(1);

/// How often a line is written where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the progress of the call that is running.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    enabled: bool,
    call: &'static str,
    started: Option<Instant>,
    shown: Shown,
}

#[derive(Default)]
enum Shown {
    #[default]
    Nothing,
    Bar(ProgressBar),
    Line(Instant),
}

impl Meter {
    /// Shows progress if it is asked for, or if nothing is said and a person reads standard error.
    pub(crate) fn new(wanted: bool, unwanted: bool) -> Self {
        let enabled = !unwanted && (wanted || io::stderr().is_terminal());
        Self(Arc::new(Mutex::new(State { enabled, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A call begins.
    pub(crate) fn start(&self, call: &'static str) {
        let mut state = self.state();
        state.call = call;
        state.started = state.enabled.then(Instant::now);
    }

    /// The call is over.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        state.started = None;
        if let Shown::Bar(bar) = std::mem::take(&mut state.shown) {
            bar.finish_and_clear();
        }
    }

    /// The call says how far it is.
    pub(crate) fn update(&self, progress: Progress) {
        let mut state = self.state();
        let Some(started) = state.started.filter(|started| started.elapsed() >= DELAY) else { return };
        let call = state.call;
        match &state.shown {
            Shown::Bar(_) => {}
            Shown::Line(last) if last.elapsed() < LINE_INTERVAL => {}
            Shown::Line(_) => {
                line(call, progress);
                state.shown = Shown::Line(Instant::now());
            }
            Shown::Nothing if io::stderr().is_terminal() => state.shown = Shown::Bar(bar(call, started)),
            Shown::Nothing => {
                line(call, progress);
                state.shown = Shown::Line(Instant::now());
            }
        }
        if let Shown::Bar(bar) = &state.shown {
            if progress.total > 0 {
                bar.set_length(progress.total);
            }
            bar.set_position(progress.position);
        }
    }
}

fn bar(call: &'static str, started: Instant) -> ProgressBar {
    let bar = ProgressBar::new(0).with_elapsed(started.elapsed());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {percent:>3}% [{bar:40}] {eta_precise}")
    {
        bar.set_style(style.progress_chars("#>-"));
    }
    bar.set_message(call);
    bar
}

/// What is said where there is no terminal.
fn line(call: &str, progress: Progress) {
    let far = match progress.position.checked_mul(100).and_then(|n| n.checked_div(progress.total)) {
        Some(percent) => format!("{percent}%"),
        None => progress.position.to_string(),
    };
    // Nobody reads it if it cannot be written.
    let _ = writeln!(io::stderr(), "{call}: {far}");
}
