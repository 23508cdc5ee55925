//! Runs of samples -> points, as Prometheus 3 sees them. Pure; O(samples + instants) per series.
//!
//! Windows are open on the left: at `t` a vector selector sees the newest sample in `(t - lookback,
//! t]`, and none if that is a stale marker; `[range]` sees all samples in `(t - range, t]` but
//! stale markers. An `offset` moves the window, `@` pins it; the point keeps the time of the
//! instant that was asked for.

use crate::model::sample::{Sample, is_stale};
use crate::query::expression::{At, Selector};
use crate::query::merge::Window;

/// The instants that a query is evaluated at: `start_ms`, `start_ms + step_ms`, ... up to `end_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    /// First.
    pub start_ms: i64,
    /// None is later; `start_ms` itself for an instant query.
    pub end_ms: i64,
    /// Above 0.
    pub step_ms: i64,
}

impl Instants {
    /// One instant.
    pub fn one(at_ms: i64) -> Self {
        Self { start_ms: at_ms, end_ms: at_ms, step_ms: 1 }
    }

    /// All of them, rising.
    pub fn iter(self) -> impl Iterator<Item = i64> {
        let mut next_ms = Some(self.start_ms);
        std::iter::from_fn(move || {
            let at_ms = next_ms.filter(|at_ms| *at_ms <= self.end_ms)?;
            next_ms = at_ms.checked_add(self.step_ms);
            Some(at_ms)
        })
    }
}

impl Selector {
    /// The newest time that is looked at for the instant `at_ms`.
    fn reference_ms(&self, at_ms: i64, instants: Instants) -> i64 {
        let pinned_ms = match self.at {
            None => at_ms,
            Some(At::Start) => instants.start_ms,
            Some(At::End) => instants.end_ms,
            Some(At::Time(time_ms)) => time_ms,
        };
        pinned_ms.saturating_sub(self.offset_ms)
    }

    /// What to read so that every instant can look `reach_ms` (lookback or range) back.
    pub fn window(&self, instants: Instants, reach_ms: i64) -> Window {
        let oldest_ms = self.reference_ms(instants.start_ms, instants);
        let newest_ms = self.reference_ms(instants.end_ms, instants);
        Window { start_ms: after(oldest_ms, reach_ms), end_ms: newest_ms }
    }

    /// Appends a point for each instant that sees a value; `run` is sorted and holds at least the
    /// [`Selector::window`].
    pub fn vector_points(
        &self,
        run: &[Sample],
        instants: Instants,
        lookback_ms: i64,
        points: &mut Vec<Sample>,
    ) {
        // References never fall from instant to instant, so one walk over the run serves all of
        // them.
        let mut seen = 0;
        for at_ms in instants.iter() {
            let reference_ms = self.reference_ms(at_ms, instants);
            seen += run[seen..].iter().take_while(|s| s.timestamp_ms <= reference_ms).count();
            let Some(newest) = run[..seen].last() else {
                continue;
            };
            if newest.timestamp_ms >= after(reference_ms, lookback_ms) && !is_stale(newest.value) {
                points.push(Sample { timestamp_ms: at_ms, value: newest.value });
            }
        }
    }

    /// Appends the samples of the last `range_ms` at the instant `at_ms`, with their own times.
    pub fn matrix_points(
        &self,
        run: &[Sample],
        at_ms: i64,
        range_ms: i64,
        points: &mut Vec<Sample>,
    ) {
        let Window { start_ms, end_ms } = self.window(Instants::one(at_ms), range_ms);
        let is_inside = |s: &&Sample| start_ms <= s.timestamp_ms && s.timestamp_ms <= end_ms;
        points.extend(run.iter().filter(is_inside).filter(|s| !is_stale(s.value)));
    }
}

/// The oldest time inside `(reference - reach, reference]`.
fn after(reference_ms: i64, reach_ms: i64) -> i64 {
    reference_ms.saturating_sub(reach_ms).saturating_add(1)
}

#[cfg(test)]
mod tests;
