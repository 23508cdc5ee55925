//! DRIVER: SIGTERM and SIGINT as calls on a thread of their own, never in a handler.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;

/// Exit code after a second signal: that of a process which a signal ended.
const EXIT_BY_SIGNAL: i32 = 128;

/// Calls `drain` at the first signal; a second one ends the process at once, which loses nothing
/// acknowledged.
pub fn watch(drain: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let watcher = std::thread::Builder::new().name("signals".into());
    watcher.spawn(move || {
        let mut arriving = signals.forever();
        if arriving.next().is_none() {
            return;
        }
        drain();
        if let Some(signal) = arriving.next() {
            tracing::warn!("second signal: ending at once; nothing acknowledged is lost");
            std::process::exit(EXIT_BY_SIGNAL + signal);
        }
    })?;
    Ok(())
}
