//! Flushes against a model of the background that answers late, in parts, or with a failure: at any
//! time blocks and head together hold what was written and not deleted, and after the last flush
//! the head holds nothing.

use std::collections::BTreeMap;

use super::*;
use crate::base::random::Random;
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::node::head::tests::read;
use crate::node::tests::{WINDOW_MS, hash_of, head, labels_of};
use crate::wire::delete::Deletion;

const SERIES: u32 = 150;
const START_MS: i64 = 5 * BLOCK_RANGE_MS;

type Samples = BTreeMap<(Vec<u8>, i64), u64>;

/// What the background has of the flush that runs.
struct Run {
    flush: u64,
    tombstones_applied: u64,
    series: Vec<FlushSeries>,
    published: usize,
    is_ended: bool,
}

struct World {
    random: Random,
    head: Head,
    course: FlushCourse,
    clock_ms: i64,
    written: Samples,
    blocks: Samples,
    deletions: Vec<(Deletion, Vec<u8>)>,
    run: Option<Run>,
    value: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut head = head();
        for number in 0..SERIES {
            head.register(TenantId(0), hash_of(number), &labels_of(number)).expect("room");
        }
        Self {
            random: Random(seed),
            head,
            course: FlushCourse::new(WINDOW_MS, 0),
            clock_ms: START_MS,
            written: Samples::new(),
            blocks: Samples::new(),
            deletions: Vec::new(),
            run: None,
            value: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..50 => self.write(),
            50..65 => self.poll(),
            65..85 => self.answer(),
            85..95 => {
                // Mostly seconds, sometimes across a cut, and back.
                self.clock_ms += match self.random.below(12) {
                    0 => BLOCK_RANGE_MS / 2,
                    1 => -BLOCK_RANGE_MS,
                    _ => 1000,
                };
                self.course.handle_second(&self.head, self.clock_ms);
            }
            95..97 => {
                self.course.handle_request();
            }
            _ => self.delete(),
        }
    }

    fn write(&mut self) {
        for _ in 0..self.random.below(200) {
            let id = u32::try_from(self.random.below(u64::from(SERIES))).expect("small");
            let late_ms = self.random.below(20) / 18 * self.random.below(2 * WINDOW_MS as u64);
            let at_ms =
                self.clock_ms - late_ms.cast_signed() + self.random.below(900).cast_signed();
            self.value += 1;
            let value = self.value as f64;
            let mut refused = Vec::new();
            self.head.append(&[id], &[at_ms], &[value], &mut refused);
            if refused.is_empty() {
                self.written.insert((labels_of(id), at_ms), value.to_bits());
            }
        }
    }

    fn poll(&mut self) {
        match self.course.poll(&mut self.head) {
            Some(FlushStep::Begin { flush, tombstones_applied }) => {
                let newest = self.deletions.last().map_or(0, |(deletion, _)| deletion.id);
                assert_eq!(tombstones_applied, newest, "all that the head has seen");
                let (series, published, is_ended) = (Vec::new(), 0, false);
                self.run = Some(Run { flush, tombstones_applied, series, published, is_ended });
            }
            Some(FlushStep::Series { flush, series }) => {
                // Of a run that failed: the background has forgotten it.
                let Some(run) = self.run.as_mut().filter(|run| run.flush == flush) else { return };
                run.series.extend(series);
            }
            Some(FlushStep::End { flush }) => {
                let Some(run) = self.run.as_mut().filter(|run| run.flush == flush) else { return };
                run.is_ended = true;
            }
            Some(FlushStep::Abandon { flush }) => {
                self.run = self.run.take_if(|run| run.flush != flush);
            }
            None => {}
        }
    }

    fn answer(&mut self) {
        let fate = self.random.below(10);
        let Some(run) = &mut self.run else { return };
        let flush = run.flush;
        self.course.handle_piece_taken(flush);
        if fate == 0 {
            self.run = None;
            self.course.handle_done(flush, Err(libc::ENOSPC));
        } else if run.is_ended {
            self.publish(usize::MAX);
            self.run = None;
            self.course.handle_done(flush, Ok(()));
        } else if fate < 5 {
            let count = usize::try_from(self.random.below(100)).expect("small");
            self.publish(count);
        }
    }

    fn answer_well(&mut self) {
        let Some(run) = &self.run else { return };
        let flush = run.flush;
        self.course.handle_piece_taken(flush);
        if run.is_ended {
            self.publish(usize::MAX);
            self.run = None;
            self.course.handle_done(flush, Ok(()));
        }
    }

    /// Nothing fails any more.
    fn answer_all(&mut self, turns: u32) {
        for _ in 0..turns {
            self.poll();
            self.answer_well();
        }
    }

    /// The next `count` series of the run are in a block now.
    fn publish(&mut self, count: usize) {
        let Some(run) = &mut self.run else { return };
        let until = run.published.saturating_add(count).min(run.series.len());
        for series in &run.series[run.published..until] {
            let mut samples = Vec::new();
            series.chunks.iter().for_each(|chunk| chunk.decode(&mut samples).expect("ours"));
            for sample in samples {
                let is_hidden = self.deletions.iter().any(|(deletion, labels)| {
                    deletion.id > run.tombstones_applied
                        && **labels == *series.labels
                        && deletion.range().holds(sample.timestamp_ms)
                });
                if !is_hidden {
                    let key = (series.labels.to_vec(), sample.timestamp_ms);
                    self.blocks.insert(key, sample.value.to_bits());
                }
            }
        }
        run.published = until;
        let (flush, published) = (run.flush, until as u64);
        self.course.handle_published(flush, published);
    }

    fn delete(&mut self) {
        let number = u32::try_from(self.random.below(u64::from(SERIES))).expect("small");
        let start_ms = self.clock_ms - self.random.below(3 * WINDOW_MS as u64).cast_signed();
        let end_ms = start_ms + self.random.below(2 * WINDOW_MS as u64).cast_signed();
        let deletion = Deletion {
            id: self.deletions.len() as u64 + 1,
            tenant: TenantId(0),
            matchers: vec![Matcher::equal("__name__", &format!("metric_{number}"))],
            start_ms,
            end_ms,
        };
        let labels = labels_of(number);
        self.course.handle_delete(deletion.id);
        self.head.delete(&deletion);
        let is_kept = |key: &(Vec<u8>, i64)| key.0 != labels || !deletion.range().holds(key.1);
        self.written.retain(|key, _| is_kept(key));
        self.blocks.retain(|key, _| is_kept(key));
        self.deletions.push((deletion, labels));
    }

    fn head_samples(&self) -> Samples {
        let mut all = Samples::new();
        for number in 0..SERIES {
            for (at_ms, bits) in read(&self.head, number) {
                all.insert((labels_of(number), at_ms), bits);
            }
        }
        all
    }

    /// The head wins over blocks.
    fn check(&self) {
        let mut merged = self.blocks.clone();
        merged.extend(self.head_samples());
        assert!(merged == self.written, "blocks and head are not what was written");
    }

    /// The background answers until nothing is under way.
    fn settle(&mut self) {
        let wanted = self.course.handle_request();
        let mut turns = 0;
        while self.course.answered() < wanted {
            self.poll();
            self.course.handle_second(&self.head, self.clock_ms);
            if let Some(run) = &self.run {
                let (flush, is_ended) = (run.flush, run.is_ended);
                self.publish(usize::MAX);
                self.course.handle_piece_taken(flush);
                if is_ended {
                    self.run = None;
                    self.course.handle_done(flush, Ok(()));
                }
            }
            turns += 1;
            assert!(turns < 10_000, "a flush that was asked for ends");
        }
    }
}

#[test]
fn blocks_and_head_hold_what_was_written() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
            world.check();
        }
        world.settle();
        world.check();
        assert_eq!(world.head.report().samples, 0, "seed={seed}");
        assert!(world.course.taken.is_empty());
        assert!(world.blocks == world.written && !world.blocks.is_empty());
    }
}

#[test]
fn a_flush_is_due_when_the_clock_passes_a_cut_and_not_before() {
    let mut world = World::new(1);
    world.write();
    let ready = |world: &mut World, now_ms: i64| {
        world.course.handle_second(&world.head, now_ms);
        world.course.is_ready()
    };
    // Once after the start: what is older than this range goes.
    assert!(ready(&mut world, START_MS + WINDOW_MS));
    while world.course.is_ready() || world.run.is_some() {
        world.poll();
        if let Some(run) = world.run.take_if(|run| run.is_ended) {
            world.course.handle_done(run.flush, Ok(()));
        }
    }
    // What was late and lies before it went; the rest is of a range that is not over.
    let stats = world.course.stats();
    assert!((stats.flushes, stats.failed) == (1, 0) && (1..20).contains(&stats.series));
    assert!(!ready(&mut world, START_MS + BLOCK_RANGE_MS + WINDOW_MS - 1), "late samples may come");
    assert!(ready(&mut world, START_MS + BLOCK_RANGE_MS + WINDOW_MS));
}

/// Two asked for a flush, the second while that of the first was under way, which a deletion then
/// gave up. The one that began anew was for both, and counted as that of the first: the second
/// waited for ever.
///
/// Red when flushes are counted instead of those who asked.
#[test]
fn everybody_who_asked_is_answered_after_a_deletion() {
    let mut world = World::new(4);
    world.write();
    world.course.handle_request();
    while world.run.is_none() {
        world.poll();
    }
    let wanted = world.course.handle_request();
    world.delete();
    world.answer_all(1000);
    assert!(world.course.answered() >= wanted);
}

/// A head full of raw points had no chunk to give: it refused samples until the clock passed the
/// next cut, up to three hours.
#[test]
fn a_head_that_is_full_of_points_is_flushed_at_once() {
    let limits =
        crate::node::head::HeadLimits { out_of_order_window_ms: WINDOW_MS, bytes_max: 2 << 20 };
    let mut head = Head::new(limits);
    for number in 0..2000 {
        head.register(TenantId(0), hash_of(number), &labels_of(number)).expect("room");
    }
    let mut course = FlushCourse::new(WINDOW_MS, 0);
    let mut flush = |head: &mut Head, now_ms: i64| {
        let mut series = 0;
        course.handle_second(head, now_ms);
        while course.is_ready() {
            match course.poll(head) {
                Some(FlushStep::Series { flush, series: some }) => {
                    series += some.len();
                    course.handle_piece_taken(flush);
                }
                Some(FlushStep::End { flush }) => course.handle_done(flush, Ok(())),
                _ => {}
            }
        }
        series
    };
    let now_ms = START_MS + WINDOW_MS;
    assert_eq!(flush(&mut head, now_ms), 0);
    let mut refused = Vec::new();
    for time_ms in (now_ms..).take_while(|ms| *ms < now_ms + 60) {
        (0..2000).for_each(|row| head.append(&[row], &[time_ms], &[1.0], &mut refused));
        if !refused.is_empty() {
            break;
        }
        assert_eq!(flush(&mut head, now_ms), 0, "there is room");
    }
    assert!(!refused.is_empty() && head.report().chunks == 0, "full of points");
    assert_eq!((flush(&mut head, now_ms), head.report().samples), (2000, 0));
    refused.clear();
    head.append(&[1], &[now_ms + 60], &[1.0], &mut refused);
    assert_eq!(refused, []);
}

#[test]
fn a_failed_log_stops_flushes() {
    let mut world = World::new(2);
    world.write();
    world.course.handle_request();
    for _ in 0..5 {
        world.poll();
    }
    world.course.stop();
    assert!(matches!(world.course.poll(&mut world.head), Some(FlushStep::Abandon { .. })));
    for second in 0..1000 {
        world.course.handle_second(&world.head, START_MS + second * BLOCK_RANGE_MS);
        assert!(world.course.poll(&mut world.head).is_none());
    }
}

/// A deletion gave up a flush that somebody waited for, and the clock passed a cut before it began
/// anew: only what lay before the cut was flushed, and the asker waited for ever.
///
/// Red when `abandon` does not remember that somebody asked.
#[test]
fn a_flush_that_was_asked_for_is_not_forgotten_for_a_deletion() {
    let mut world = World::new(3);
    world.write();
    let wanted = world.course.handle_request();
    while world.run.is_none() {
        world.poll();
    }
    world.delete();
    world.course.handle_second(&world.head, START_MS + 10 * BLOCK_RANGE_MS);
    world.answer_all(1000);
    assert!(world.course.answered() >= wanted);
}

/// Whoever asks is answered, whatever deletions and seconds come between, and without another who
/// asks.
#[test]
fn everybody_who_asked_is_answered() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.write();
        let mut wanted = 0;
        for _ in 0..200 {
            match world.random.below(20) {
                0 => wanted = world.course.handle_request(),
                1 => world.delete(),
                2 => world.course.handle_second(&world.head, world.clock_ms),
                3 => world.write(),
                4..8 => world.answer_well(),
                _ => world.poll(),
            }
        }
        for _ in 0..30 {
            world.course.handle_second(&world.head, world.clock_ms);
            world.answer_all(100);
        }
        assert!(world.course.answered() >= wanted, "seed {seed}: {:?}", world.course);
    }
}
