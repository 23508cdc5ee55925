//! DRIVER: `loadgen send`. Starts a worker per connection on one executor and waits for all of
//! them. In: options. Out: requests to the server, lines in the ledger, a report.

mod body;
mod schedule;
mod tally;
mod worker;

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::executor;
use crate::http::Target;
use crate::ledger::Ledger;
use crate::options::SendOptions;
use crate::report::Report;
use crate::series::Run;
use tally::Tally;
use worker::Worker;

/// Servers refuse what is more than 10 minutes in the future.
const HORIZON_MS: i64 = 9 * 60 * 1000;
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Points,
    Span,
    Duration,
    Prebuilt,
    Horizon,
    Signal,
    GaveUp,
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Span => "span",
            Self::Duration => "duration",
            Self::Prebuilt => "prebuilt",
            Self::Horizon => "horizon",
            Self::Signal => "signal",
            Self::GaveUp => "gave-up",
        }
    }
}

/// What the workers of a run share. One thread: nothing is borrowed over an await.
struct RunState {
    options: SendOptions,
    run: Run,
    /// One for each `--url`.
    targets: Vec<Target>,
    ledger: RefCell<Ledger>,
    tally: RefCell<Tally>,
    started: Cell<Instant>,
    deadline: Cell<Option<Instant>>,
    points_left: Cell<u64>,
    newest_timestamp_ms: Cell<i64>,
    stop: Cell<Option<Stop>>,
    /// Somebody asked for the end: what is in flight is settled, nothing new is sent.
    interrupted: Arc<AtomicBool>,
}

impl RunState {
    /// The worst reason wins.
    fn stop_for(&self, stop: Stop) {
        self.stop.set(self.stop.get().max(Some(stop)));
    }
}

/// Sends as `options` say. A ledger that cannot be written ends the run.
pub fn run(options: SendOptions) -> io::Result<Report> {
    options.check().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
    if let Some(cpu) = options.cpu {
        executor::pin(cpu)?;
    }
    let (shared, mut workers) = set_up(options)?;
    if shared.options.prebuild {
        prebuild(&shared, &mut workers);
    }
    if shared.options.wait {
        writeln!(io::stdout(), "ready")?;
        if io::stdin().read_line(&mut String::new())? == 0 {
            return Err(io::Error::other("standard input ended before the word to start"));
        }
    }
    let cpu_before_ns = crate::cpu::process_cpu_ns("self");
    let started = Instant::now();
    shared.started.set(started);
    let SendOptions { points, span, prebuild, .. } = &shared.options;
    let unlimited = points.is_some() || span.is_some() || *prebuild;
    let duration = shared.options.duration.or((!unlimited).then_some(DURATION_DEFAULT));
    shared.deadline.set(duration.map(|duration| started + duration));
    executor::run(async move {
        let tasks: Vec<_> =
            workers.into_iter().map(|worker| glommio::spawn_local(worker.run())).collect();
        let mut result = Ok(());
        for task in tasks {
            result = result.and(task.await);
        }
        result
    })??;
    let cpu_ns = crate::cpu::process_cpu_ns("self") - cpu_before_ns;
    shared.ledger.borrow_mut().sync()?;
    let mut report = shared.tally.borrow_mut().finish(started, cpu_ns);
    report.stopped_by = shared.stop.get().map_or("", Stop::name).into();
    report.newest_timestamp_ms = shared.newest_timestamp_ms.get();
    Ok(report)
}

fn set_up(options: SendOptions) -> io::Result<(Rc<RunState>, Vec<Worker>)> {
    let start = options.start_ms(now_ms());
    let run = Run {
        seed: options.seed,
        label_count: options.labels,
        start_timestamp_ms: start,
        interval_ms: options.interval_ms(),
        shape: options.shape,
    };
    let targets = options.url.iter().map(|url| Target::resolve(url)).collect::<io::Result<_>>()?;
    let ledger = Ledger::open(options.ledger.as_deref(), &run)?;
    let now = Instant::now();
    let shared = Rc::new(RunState {
        tally: RefCell::new(Tally::new(options.protocol.name(), options.points, now)),
        points_left: Cell::new(options.points.unwrap_or(u64::MAX)),
        run,
        targets,
        ledger: RefCell::new(ledger),
        started: Cell::new(now),
        deadline: Cell::new(None),
        newest_timestamp_ms: Cell::new(start),
        stop: Cell::new(None),
        interrupted: watch_signals()?,
        options,
    });
    let workers = (0..shared.options.connections)
        .map(|connection| Worker::new(Rc::clone(&shared), connection))
        .collect::<Result<_, String>>()
        .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
    Ok((shared, workers))
}

/// Builds requests, a round of the workers at a time, until one of the limits is met.
fn prebuild(shared: &RunState, workers: &mut [Worker]) {
    let budget_bytes = shared.options.prebuild_mib << 20;
    let mut built_bytes = 0;
    while built_bytes < budget_bytes {
        for worker in &mut *workers {
            match worker.prebuild_one() {
                Some(len_bytes) => built_bytes += len_bytes,
                None => return,
            }
        }
    }
}

/// Set by SIGINT or SIGTERM; a second one ends the process at once.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let flag = || Arc::clone(&interrupted);
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag())?;
        signal_hook::flag::register(signal, flag())?;
    }
    Ok(interrupted)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
