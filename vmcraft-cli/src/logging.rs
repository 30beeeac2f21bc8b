//! The events of the library and of the shell, on standard error: all of them with `-v`, else those
//! that warn.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

/// Whether all events are shown.
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Shows all events from now on, or no longer.
pub(crate) fn set_verbose(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
}

/// Makes ready to show events. Those of the crates that we are made of stay unseen.
pub(crate) fn install() {
    let shown = dynamic_filter_fn(|metadata, _| {
        let is_wanted = VERBOSE.load(Ordering::Relaxed) || *metadata.level() <= Level::WARN;
        is_wanted && metadata.target().starts_with("vmcraft")
    });
    let layer = fmt::layer().with_writer(io::stderr).without_time().with_filter(shown);
    // Fails only if there is one already.
    let _ = registry().with(layer).with(LevelFilter::DEBUG).try_init();
}
