//! Clients of the simulated cluster: each writes series of its own, one request at a time, over any
//! gateway, and sends it again until it is told that it is written, or never will be.

use std::collections::BTreeMap;

use tidegate::base::time::{Duration, Instant};
use tidegate::gateway::owner::AckPolicy;

use super::gateway::{Answer, Sample};
use super::record::Record;
use crate::random::Random;

/// Seconds of the wall clock between samples.
const GRID_MS: i64 = 1_000;

/// How long an attempt waits while little happens.
const LONELY_TIMEOUT: Duration = Duration::from_secs(10);

/// One of them.
pub struct Client {
    index: usize,
    series: Vec<usize>,
    /// Series that it writes now, from this place on.
    focus: usize,
    job: Option<Job>,
    next_at: Instant,
    pause_ms: usize,
    samples_max: usize,
    timeout: Duration,
    /// With one owner that has it, the others may get an old value late, over another gateway.
    may_rewrite: bool,
    /// Pauses of this length at most, while little happens.
    lonely_ms: Option<usize>,
}

/// What it wants written.
struct Job {
    samples: Vec<Sample>,
    /// With the first attempt only.
    before: Vec<Sample>,
    is_backfill: bool,
    /// Under way, and when it is given up.
    attempt: Option<(u64, Instant)>,
    again_at: Instant,
    began: Instant,
    /// Where it was tried last: the process of a gateway.
    gateway: Option<(usize, u64)>,
    /// Whether an attempt got no answer, or another process was asked: something of it may still
    /// be under way, and arrive late.
    is_doubtful: bool,
}

/// A request on its way to a gateway.
pub struct Attempt {
    pub client: usize,
    pub gateway: usize,
    pub samples: Vec<Sample>,
    /// Sent before it, without waiting for the answer, over the same connection: other values of
    /// the same samples.
    pub before: Vec<Sample>,
    /// Of the gateway: whoever has the connection.
    pub shard: Option<usize>,
    pub is_backfill: bool,
}

impl Client {
    pub fn new(
        index: usize,
        series: Vec<usize>,
        (now, ack): (Instant, AckPolicy),
        random: &mut Random,
    ) -> Self {
        Self {
            may_rewrite: ack == AckPolicy::All,
            lonely_ms: None,
            index,
            series,
            focus: 0,
            job: None,
            next_at: now,
            pause_ms: [20, 150, 600][random.below(3)],
            samples_max: [3, 20, 20, 400][random.below(4)],
            timeout: Duration::from_millis([800, 5_000][random.below(2)]),
        }
    }

    /// Whether nothing is to be written any more.
    pub fn is_done(&self) -> bool {
        self.job.is_none()
    }

    /// Writes now and then only, and does not insist.
    pub fn slow_down(&mut self, now: Instant, pause_ms: usize, random: &mut Random) {
        self.lonely_ms = Some(pause_ms);
        self.next_at = now + Duration::from_millis(random.below(pause_ms + 1) as u64);
    }

    /// As it was.
    pub fn hurry_up(&mut self, now: Instant) {
        self.lonely_ms = None;
        self.next_at = now;
        if let Some(job) = &mut self.job {
            job.again_at = now;
        }
    }

    /// Gives no attempt up.
    pub fn wait_for_long(&mut self) {
        self.timeout = Duration::from_secs(60);
    }

    /// When it does something next, unless an answer comes before.
    pub fn due(&self) -> Instant {
        let job = self.job.as_ref();
        job.map_or(self.next_at, |job| job.attempt.map_or(job.again_at, |(_, until)| until))
    }

    /// How long it tries already.
    pub fn tries_for(&self, now: Instant) -> Duration {
        self.job.as_ref().map_or(Duration::ZERO, |job| now.duration_since(job.began))
    }

    /// The next request, under the name `attempt`, if it is time for one. `lives`: how often each
    /// gateway began.
    pub fn poll(
        &mut self,
        now: Instant,
        attempt: u64,
        (now_ms, is_over, lives): (i64, bool, &[u64]),
        (record, random): (&mut Record, &mut Random),
    ) -> Option<Attempt> {
        if self.job.is_none() && !is_over && now >= self.next_at {
            self.begin(now, now_ms, record, random);
        }
        let job = self.job.as_mut()?;
        if job.attempt.is_some_and(|(_, until)| now >= until) {
            job.attempt = None;
            job.is_doubtful = true;
            let again_ms = self.lonely_ms.map_or(0, |pause_ms| random.below(pause_ms));
            job.again_at = now + Duration::from_millis(again_ms as u64);
        }
        if job.attempt.is_some() || now < job.again_at {
            return None;
        }
        let timeout = if self.lonely_ms.is_some() { LONELY_TIMEOUT } else { self.timeout };
        job.attempt = Some((attempt, now + timeout));
        let is_same = random.once_in(2);
        let gateway = job
            .gateway
            .filter(|_| is_same)
            .map_or_else(|| random.below(lives.len()), |(gateway, _)| gateway);
        let asked = (gateway, lives[gateway]);
        job.is_doubtful |= job.gateway.replace(asked).is_some_and(|before| before != asked);
        let (samples, before) = (job.samples.clone(), std::mem::take(&mut job.before));
        let is_backfill = job.is_backfill;
        let (client, shard) = (self.index, None);
        Some(Attempt { client, gateway, samples, before, shard, is_backfill })
    }

    fn begin(&mut self, now: Instant, now_ms: i64, record: &mut Record, random: &mut Random) {
        if random.once_in(8) {
            self.focus = random.below(self.series.len());
        }
        let mut samples: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        let samples_max = if self.lonely_ms.is_some() { 3 } else { self.samples_max };
        for _ in 0..=random.below(samples_max) {
            let place = self.focus + random.below(3);
            let series = self.series[place % self.series.len()];
            let back = i64::try_from(random.below(900)).expect("small");
            let mut at_ms = (now_ms / GRID_MS - back) * GRID_MS;
            if random.once_in(4)
                && let Some(settled_ms) = record.settled_near(series, now_ms)
            {
                at_ms = settled_ms;
            }
            if record.is_free(series, at_ms) && !samples.contains_key(&(series, at_ms)) {
                samples.insert((series, at_ms), record.value());
            }
        }
        if samples.is_empty() {
            return;
        }
        let sample = |((series, at_ms), bits)| Sample { series, at_ms, bits };
        let mut samples: Vec<_> = samples.into_iter().map(sample).collect();
        if random.once_in(2) {
            samples.reverse();
        }
        let mut before = Vec::new();
        if self.may_rewrite && random.once_in(3) {
            before.extend(samples.iter().map(|one| Sample { bits: record.value(), ..*one }));
        }
        for sample in before.iter().chain(&samples) {
            record.begin(sample.series, sample.at_ms, sample.bits);
        }
        self.job = Some(Job {
            samples,
            before,
            is_backfill: random.once_in(6),
            attempt: None,
            again_at: now,
            began: now,
            gateway: None,
            is_doubtful: false,
        });
    }

    /// The connection of an attempt broke: nobody knows what became of it.
    pub fn handle_lost(&mut self, now: Instant, attempt: u64) {
        if let Some(job) = self.job_of(attempt) {
            job.attempt = None;
            job.is_doubtful = true;
            job.again_at = now + Duration::from_millis(50);
        }
    }

    /// An answer came. `epoch_of`: under which a series was written.
    pub fn handle_answer(
        &mut self,
        now: Instant,
        answer: &Answer,
        (gateway, epoch_of): (usize, impl Fn(usize) -> u64),
        (record, random): (&mut Record, &mut Random),
    ) {
        let pause_ms = self.lonely_ms.unwrap_or(self.pause_ms);
        let (may_rewrite, again_ms) = (self.may_rewrite, self.lonely_ms.unwrap_or(300));
        let Some(job) = self.job_of(answer.attempt) else { return };
        job.attempt = None;
        match answer.status {
            200..300 => {
                assert_eq!(answer.refused, 0, "2xx with refused samples");
                let is_certain = !job.is_doubtful && may_rewrite;
                for sample in &job.samples {
                    let by = (epoch_of(sample.series), gateway);
                    record.acknowledge((sample.series, sample.at_ms), by, is_certain);
                }
            }
            503 => {
                job.again_at = now + Duration::from_millis(random.below(again_ms) as u64);
                return;
            }
            // It never will be; some of its samples may have been written.
            400 => {}
            status => panic!("an answer of {status}"),
        }
        self.job = None;
        self.next_at = now + Duration::from_millis(random.below(pause_ms + 1) as u64);
    }

    fn job_of(&mut self, attempt: u64) -> Option<&mut Job> {
        let is_it = |job: &&mut Job| job.attempt.is_some_and(|(name, _)| name == attempt);
        self.job.as_mut().filter(is_it)
    }
}
