//! DRIVER: one question to all shards, then to the blocks -> their answers put together. Memory is
//! bounded by the reply queue and the query's limits.
//!
//! The shards first, and the blocks when all of them have answered: what leaves a head meanwhile is
//! in a block by then, so that nothing falls between the two.

mod runs;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::control::report::ShardReport;
use crate::control::shards::{Done, ShardHandle, ShardRequest, Shards};
use crate::model::chunk::ChunkFault;
use crate::model::labels;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::series::TenantId;
use crate::node::block::request::{BlockSelect, StoreReport, StoreRequest};
use crate::node::cardinality::Cardinality;
use crate::query::merge::{MergeFault, Merger, SampleBudget, Window};
use crate::wire::select::{
    SelectAnswer, SelectFault, SelectLayer, SelectRequest, SelectWant, SelectedSeries,
};

/// Answers that wait for the query, per shard. An answer is some tens of series.
const REPLIES_PER_SHARD: usize = 2;

pub(super) use runs::Runs;

/// What a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherLimits {
    /// Series, all shards together.
    pub series_max: u32,
    /// Samples decoded and points made of them.
    pub samples_max: u64,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatherFault {
    /// A regular expression does not compile.
    BadRegex(String),
    /// The limit on series.
    TooManySeries {
        /// It.
        series_max: u32,
    },
    /// The limit on samples.
    TooManySamples,
    /// A chunk in memory does not decode.
    Chunk(ChunkFault),
    /// A shard, or the blocks, ended without an answer.
    ShardGone,
    /// A block could not be read; the text says which and why.
    Disk(String),
    /// Nobody in the fleet answered; the text says why.
    Nobody(String),
    /// The answer lacks something, which the request does not allow; the text says what.
    Incomplete(String),
}

impl From<MergeFault> for GatherFault {
    fn from(fault: MergeFault) -> Self {
        match fault {
            MergeFault::Chunk(fault) => Self::Chunk(fault),
            MergeFault::TooManySamples => Self::TooManySamples,
        }
    }
}

/// A series and its samples in the window, sorted, each timestamp once.
#[derive(Clone, Debug)]
pub struct SeriesRun {
    /// Canonical label bytes.
    pub labels: Box<[u8]>,
    /// Samples.
    pub run: Vec<Sample>,
}

/// One question, before it is known which of its groups of matchers and what of the series.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose series.
    pub tenant: TenantId,
    /// A series is wanted if it matches all of any one group.
    pub groups: Vec<Vec<Matcher>>,
    /// When.
    pub window: Window,
}

/// All series with samples, sorted by labels as Prometheus sorts them; and what is left of the
/// budget of samples.
pub async fn gather_samples(
    shards: &Shards,
    question: &Question,
    limits: GatherLimits,
) -> Result<(Vec<SeriesRun>, Merger), GatherFault> {
    let budget = SampleBudget::new(limits.samples_max);
    let mut runs = Runs::new(question.window, limits, budget.clone());
    for group in &question.groups {
        let mut answers = ask(shards, question, group, SelectWant::Samples, limits).await?;
        while let Some(answer) = answers.next().await? {
            runs.take(answers.layer(), answer)?;
        }
    }
    let mut series = runs.into_series();
    sort_by_labels(&mut series);
    Ok((series, Merger::within(budget)))
}

/// As Prometheus sorts them.
pub(super) fn sort_by_labels(series: &mut [SeriesRun]) {
    series.sort_by(|one, other| labels::iterate(&one.labels).cmp(labels::iterate(&other.labels)));
}

/// The labels of all series, sorted as Prometheus sorts them.
pub async fn gather_labels(
    shards: &Shards,
    question: &Question,
    limits: GatherLimits,
) -> Result<Vec<Box<[u8]>>, GatherFault> {
    let mut found = BTreeSet::new();
    for group in &question.groups {
        let mut answers = ask(shards, question, group, SelectWant::Labels, limits).await?;
        while let Some(answer) = answers.next().await? {
            found.extend(into_series(answer).into_iter().map(|series| series.labels));
            check_series_count(found.len(), limits)?;
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    sort_label_sets(&mut found);
    Ok(found)
}

/// As Prometheus sorts them.
pub(super) fn sort_label_sets(found: &mut [Box<[u8]>]) {
    found.sort_by(|one, other| labels::iterate(one).cmp(labels::iterate(other)));
}

/// The label names or values (`want`), sorted.
pub async fn gather_strings(
    shards: &Shards,
    question: &Question,
    want: &SelectWant,
    limits: GatherLimits,
) -> Result<BTreeSet<Box<str>>, GatherFault> {
    let mut found = BTreeSet::new();
    for group in &question.groups {
        let mut answers = ask(shards, question, group, want.clone(), limits).await?;
        while let Some(answer) = answers.next().await? {
            if let SelectAnswer::Strings(strings) = answer {
                found.extend(strings);
            }
            check_series_count(found.len(), limits)?;
        }
    }
    Ok(found)
}

/// What each shard tells about itself, in shard order; `None` where one is gone or takes longer
/// than `patience`.
pub async fn gather_reports(shards: &Shards, patience: Duration) -> Vec<Option<Box<ShardReport>>> {
    // All at once, so that a stuck shard hides none of the others.
    let ask = |shard: &ShardHandle| {
        let shard = shard.clone();
        tokio::spawn(tokio::time::timeout(patience, async move { report(&shard).await }))
    };
    let asked: Vec<_> = shards.iter().map(ask).collect();
    let mut found = Vec::with_capacity(asked.len());
    for report in asked {
        found.push(report.await.ok().and_then(Result::ok).flatten());
    }
    found
}

/// What the series in memory are made of.
pub async fn gather_cardinality(shards: &Shards, limit: usize) -> Result<Cardinality, GatherFault> {
    let mut answers = Vec::with_capacity(shards.len());
    for shard in shards.iter() {
        let (reply, answer) = flume::bounded(1);
        let request = ShardRequest::Cardinality { tenant: TenantId::default(), limit, reply };
        shard.push(request).await.map_err(|_| GatherFault::ShardGone)?;
        answers.push(answer);
    }
    let mut all = Cardinality::default();
    for answer in answers {
        all.add(*answer.recv_async().await.map_err(|_| GatherFault::ShardGone)?, limit);
    }
    Ok(all)
}

/// What the blocks tell about themselves.
pub async fn gather_store(shards: &Shards, patience: Duration) -> Option<Box<StoreReport>> {
    let blocks = shards.blocks()?;
    let (reply, reports) = flume::bounded(1);
    let ask = async {
        blocks.requests.send_async(StoreRequest::Report { reply }).await.ok()?;
        reports.recv_async().await.ok()
    };
    tokio::time::timeout(patience, ask).await.ok().flatten()
}

async fn report(shard: &ShardHandle) -> Option<Box<ShardReport>> {
    let (reply, reports) = flume::bounded(1);
    shard.push(ShardRequest::Report { reply }).await.ok()?;
    reports.recv_async().await.ok()
}

/// A shard closed its channel without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// Asks the same of every shard, and waits until all have done it.
pub async fn ask_each(
    shards: &Shards,
    request: impl Fn(flume::Sender<Done>) -> ShardRequest,
) -> Result<(), Unanswered> {
    let mut answers = Vec::with_capacity(shards.len());
    for shard in shards.iter() {
        let (reply, answer) = flume::bounded(1);
        shard.push(request(reply)).await.map_err(|_| Unanswered)?;
        answers.push(answer);
    }
    for answer in answers {
        answer.recv_async().await.map_err(|_| Unanswered)?;
    }
    Ok(())
}

/// Asks every shard for the series of one group.
pub async fn ask(
    shards: &Shards,
    question: &Question,
    group: &[Matcher],
    want: SelectWant,
    limits: GatherLimits,
) -> Result<Answers, GatherFault> {
    let request = SelectRequest {
        tenant: question.tenant,
        matchers: group.to_vec(),
        start_ms: question.window.start_ms,
        end_ms: question.window.end_ms,
        want,
        series_max: limits.series_max,
    };
    ask_shards(shards, request.into()).await
}

/// Asks every shard, and then the blocks.
pub async fn ask_shards(
    shards: &Shards,
    request: Arc<SelectRequest>,
) -> Result<Answers, GatherFault> {
    let (reply, replies) = flume::bounded(REPLIES_PER_SHARD * shards.len());
    for shard in shards.iter() {
        let (request, reply) = (Arc::clone(&request), reply.clone());
        let pushed = shard.push(ShardRequest::Select { request, reply }).await;
        pushed.map_err(|_| GatherFault::ShardGone)?;
    }
    let (shards, unfinished) = (shards.clone(), shards.len());
    let (layer, series_count) = (SelectLayer::Heads, 0);
    Ok(Answers { replies: Some(replies), unfinished, shards, request, layer, series_count })
}

/// The answers of all shards to one question, then those of the blocks, as they come. Dropping it
/// ends the work on them.
pub struct Answers {
    /// `None` once dropped.
    replies: Option<flume::Receiver<SelectAnswer>>,
    unfinished: usize,
    shards: Shards,
    request: Arc<SelectRequest>,
    layer: SelectLayer,
    series_count: u32,
}

impl Answers {
    /// The next piece; `None` when every shard has said all.
    pub async fn next(&mut self) -> Result<Option<SelectAnswer>, GatherFault> {
        loop {
            if self.unfinished == 0 && !self.ask_blocks().await? {
                return Ok(None);
            }
            let Some(replies) = &self.replies else { return Ok(None) };
            // All senders gone before all have ended: a shard died.
            let answer = replies.recv_async().await.map_err(|_| GatherFault::ShardGone)?;
            if self.layer == SelectLayer::Heads {
                self.shards.wake_all();
            }
            match answer {
                SelectAnswer::End { series_count } => {
                    self.unfinished -= 1;
                    self.series_count = self.series_count.saturating_add(series_count);
                }
                SelectAnswer::Fault(SelectFault::BadRegex(text)) => {
                    return Err(GatherFault::BadRegex(text));
                }
                SelectAnswer::Fault(SelectFault::TooManySeries { series_max }) => {
                    return Err(GatherFault::TooManySeries { series_max });
                }
                SelectAnswer::Fault(SelectFault::Disk(text)) => {
                    return Err(GatherFault::Disk(text));
                }
                SelectAnswer::Fault(SelectFault::Unavailable(_)) => {
                    return Err(GatherFault::ShardGone);
                }
                SelectAnswer::Series(_) | SelectAnswer::Strings(_) => return Ok(Some(answer)),
            }
        }
    }

    /// Where the last answer came from.
    pub fn layer(&self) -> SelectLayer {
        self.layer
    }

    /// Series that matched so far, those of shards and blocks added.
    pub fn series_count(&self) -> u32 {
        self.series_count
    }

    /// Asks the blocks, once; false if they have said all, or there are none.
    async fn ask_blocks(&mut self) -> Result<bool, GatherFault> {
        if self.layer == SelectLayer::Blocks {
            return Ok(false);
        }
        self.layer = SelectLayer::Blocks;
        let Some(blocks) = self.shards.blocks() else { return Ok(false) };
        let (reply, replies) = flume::bounded(REPLIES_PER_SHARD);
        let select = BlockSelect { request: Arc::clone(&self.request), reply };
        let sent = blocks.selects.send_async(select).await;
        sent.map_err(|_| GatherFault::ShardGone)?;
        self.replies = Some(replies);
        self.unfinished = 1;
        Ok(true)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // First the receiver, then the wake-up: a paused shard must find it gone.
        self.replies = None;
        if self.unfinished > 0 && self.layer == SelectLayer::Heads {
            self.shards.wake_all();
        }
    }
}

/// The series of an answer that holds series.
pub fn into_series(answer: SelectAnswer) -> Vec<SelectedSeries> {
    match answer {
        SelectAnswer::Series(series) => series,
        SelectAnswer::Strings(_) | SelectAnswer::End { .. } | SelectAnswer::Fault(_) => Vec::new(),
    }
}

pub(super) fn check_series_count(count: usize, limits: GatherLimits) -> Result<(), GatherFault> {
    if count as u64 > u64::from(limits.series_max) {
        return Err(GatherFault::TooManySeries { series_max: limits.series_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
