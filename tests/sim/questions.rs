//! Queries of a simulation: the blocks asked as the background does, answers put together as the
//! control plane does.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate::background::blocks::select;
use tidegate::background::blocks::store::BlockStore;
use tidegate::model::matcher::Matcher;
use tidegate::model::sample::Sample;
use tidegate::model::series::TenantId;
use tidegate::node::block::request::BlockSelect;
use tidegate::query::merge::{Merger, Window};
use tidegate::wire::select::{
    SelectAnswer, SelectFault, SelectRequest, SelectWant, SelectedSeries,
};

use crate::drive::drive;
use crate::fake_disk::FakeDisk;

/// All times.
pub const ALWAYS: Window = Window { start_ms: i64::MIN, end_ms: i64::MAX };
const SAMPLES_MAX: u64 = 10_000_000;

/// The disk did not let the blocks answer.
#[derive(Debug)]
pub struct Unanswered;

/// A question for samples.
pub fn request(tenant: TenantId, matchers: Vec<Matcher>, window: Window) -> SelectRequest {
    SelectRequest {
        tenant,
        matchers,
        start_ms: window.start_ms,
        end_ms: window.end_ms,
        want: SelectWant::Samples,
        series_max: 10_000,
    }
}

/// The runs of one question, by labels.
pub struct Runs {
    window: Window,
    merger: Merger,
    pub by_labels: BTreeMap<Box<[u8]>, Vec<Sample>>,
}

impl Runs {
    pub fn new(window: Window) -> Self {
        Self { window, merger: Merger::new(SAMPLES_MAX), by_labels: BTreeMap::new() }
    }

    /// What a head answered.
    pub fn add_head(&mut self, series: &SelectedSeries) {
        let run = self.by_labels.entry(series.labels.clone()).or_default();
        self.merger.merge(series, self.window, run).expect("what is in memory decodes");
    }

    /// What the blocks answered, after all heads.
    pub fn add_blocks(&mut self, series: &SelectedSeries) {
        let run = self.by_labels.entry(series.labels.clone()).or_default();
        self.merger.merge_below(series, self.window, run).expect("what is answered decodes");
    }
}

/// Asks the blocks. `None`: the power was cut.
pub fn ask_blocks(
    disk: &FakeDisk,
    store: &Rc<BlockStore<FakeDisk>>,
    request: SelectRequest,
) -> Option<Result<Vec<SelectedSeries>, SelectFault>> {
    let (reply, answers) = flume::unbounded();
    let select = BlockSelect { request: Arc::new(request), reply };
    // What the disk refused is in the answer too.
    let _ = drive(disk, select::answer(store, select, || ()))?;
    let mut found = Vec::new();
    let mut is_over = false;
    for answer in answers.drain() {
        assert!(!is_over, "an answer after the last");
        match answer {
            SelectAnswer::Series(series) => found.extend(series),
            SelectAnswer::End { .. } => is_over = true,
            SelectAnswer::Fault(fault) => return Some(Err(fault)),
            SelectAnswer::Strings(_) => panic!("nobody asked for strings"),
        }
    }
    assert!(is_over, "an answer without an end");
    Some(Ok(found))
}
