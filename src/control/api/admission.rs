//! DRIVER: lets `query-concurrency-max` queries work at a time; the others wait a while, then are
//! told to come again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::control::api::QueryLimits;
use crate::control::api::error::ApiError;
use crate::control::metrics::QueryReport;

/// Who may work, and how many did.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    limits: QueryLimits,
    waiting: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Admission {
    /// With all places free.
    pub fn new(limits: QueryLimits) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.concurrency_max as usize)),
            limits,
            waiting: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Runs `work` when there is a place, and ends it at the deadline: `timeout_ms` from now, or
    /// the limit if that is sooner.
    pub async fn run<T>(
        &self,
        timeout_ms: Option<i64>,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let deadline = self.timeout(timeout_ms);
        let admitted = async {
            let _place = self.place().await?;
            work.await
        };
        let result = tokio::time::timeout(deadline, admitted).await.unwrap_or_else(|_| {
            Err(ApiError::Timeout("query timed out in expression evaluation".into()))
        });
        self.count(result.is_ok());
        result
    }

    /// The time that a query has, whatever it asked for.
    pub fn timeout(&self, timeout_ms: Option<i64>) -> Duration {
        let asked_ms = timeout_ms.and_then(|ms| u64::try_from(ms).ok());
        let asked = asked_ms.map_or(Duration::MAX, Duration::from_millis);
        asked.min(self.limits.timeout)
    }

    /// Waits for a place, which is free again when the permit is dropped.
    pub async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let waiting = Waiting::of(&self.waiting);
        let permit = Arc::clone(&self.places).acquire_owned();
        let permit = tokio::time::timeout(self.limits.wait_max, permit).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::Unavailable(format!(
                "{} queries are running already (query-concurrency-max)",
                self.limits.concurrency_max
            ))),
        }
    }

    /// Counts an answered query.
    pub fn count(&self, is_ok: bool) {
        let counter = if is_ok { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// For `/metrics`.
    pub fn report(&self) -> QueryReport {
        let free = self.places.available_permits() as u64;
        QueryReport {
            running: u64::from(self.limits.concurrency_max).saturating_sub(free),
            waiting: self.waiting.load(Ordering::Relaxed),
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// Counts one up for as long as it lives, also if its future is dropped half-way.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn of(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
