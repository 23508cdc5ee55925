//! DRIVER: the timer of a task that drives something with a `poll_timeout`.

use crate::base::time::Instant;

/// Comes back at `at`; never if there is none.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
