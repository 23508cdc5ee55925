//! DRIVER: where the query API reads: the shards and blocks of this process, or the fleet.

use std::collections::BTreeSet;

use crate::control::gather::{
    GatherFault, GatherLimits, Question, SeriesRun, gather_labels, gather_samples, gather_strings,
};
use crate::control::reads::fleet::FleetReads;
use crate::control::shards::Shards;
use crate::query::merge::Merger;
use crate::wire::select::SelectWant;

/// Where to read. Cheap to clone.
#[derive(Clone)]
pub enum ReadSource {
    /// This process holds everything.
    Local(Shards),
    /// Nodes do.
    Fleet(FleetReads),
}

/// An answer, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// It.
    pub value: T,
    /// For people, one text for each reason; empty if the answer is complete.
    pub lacking: Vec<String>,
}

/// Whether an answer that lacks something is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialAnswers {
    /// It is, with warnings.
    Allowed,
    /// It is a fault.
    Denied,
}

impl<T> Found<T> {
    /// A complete answer.
    pub fn all(value: T) -> Self {
        Self { value, lacking: Vec::new() }
    }

    /// Itself, or [`GatherFault::Incomplete`].
    pub fn check(self, partial: PartialAnswers) -> Result<Self, GatherFault> {
        if partial == PartialAnswers::Denied && !self.lacking.is_empty() {
            return Err(GatherFault::Incomplete(self.lacking.join("; ")));
        }
        Ok(self)
    }

    /// Another value that lacks the same.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: change(self.value), lacking: self.lacking }
    }
}

impl ReadSource {
    /// All series with samples, sorted by labels as Prometheus sorts them; and what is left of the
    /// budget of samples.
    pub async fn samples(
        &self,
        question: &Question,
        limits: GatherLimits,
    ) -> Result<Found<(Vec<SeriesRun>, Merger)>, GatherFault> {
        match self {
            Self::Local(shards) => gather_samples(shards, question, limits).await.map(Found::all),
            Self::Fleet(fleet) => fleet.samples(question, limits).await,
        }
    }

    /// The labels of all series, sorted as Prometheus sorts them.
    pub async fn labels(
        &self,
        question: &Question,
        limits: GatherLimits,
    ) -> Result<Found<Vec<Box<[u8]>>>, GatherFault> {
        match self {
            Self::Local(shards) => gather_labels(shards, question, limits).await.map(Found::all),
            Self::Fleet(fleet) => fleet.labels(question, limits).await,
        }
    }

    /// The label names or values (`want`), sorted.
    pub async fn strings(
        &self,
        question: &Question,
        want: &SelectWant,
        limits: GatherLimits,
    ) -> Result<Found<BTreeSet<Box<str>>>, GatherFault> {
        match self {
            Self::Local(shards) => {
                gather_strings(shards, question, want, limits).await.map(Found::all)
            }
            Self::Fleet(fleet) => fleet.strings(question, want, limits).await,
        }
    }
}
