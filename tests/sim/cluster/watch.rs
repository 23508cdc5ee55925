//! `TIDEGATE_SIM_WATCH=SERIES:TIME` tells what becomes of one sample: when which node has which
//! value of it, and when which gateway is to keep which for a node. A failed run names the sample.

use std::collections::BTreeMap;

use super::World;
use super::keeper::HintKey;
use crate::random::Random;

/// The sample, and the value that each node had last.
pub struct Watch {
    sample: HintKey,
    seen: BTreeMap<usize, u64>,
}

impl Watch {
    /// The sample that the environment names, if it names one.
    pub fn from_environment() -> Option<Self> {
        let text = std::env::var("TIDEGATE_SIM_WATCH").ok()?;
        let (series, at_ms) = text.split_once(':').expect("SERIES:TIME");
        let sample = (series.parse().expect("a number"), at_ms.parse().expect("a time in ms"));
        Some(Self { sample, seen: BTreeMap::new() })
    }
}

impl World {
    /// Says of the watched sample what nodes have now and did not have before.
    pub fn watch_nodes(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        // One of its own: a run that is watched goes as if it were not.
        let mut random = Random::new(0);
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.running.is_none() {
                continue;
            }
            let (series, at_ms) = watch.sample;
            let found = node.find(&self.pool, &mut random);
            let value = found.get(&series).and_then(|run| run.get(&at_ms)).copied();
            if value != watch.seen.get(&index).copied() {
                let text =
                    value.map_or("nothing".to_owned(), |bits| f64::from_bits(bits).to_string());
                println!("turn {}: node {index} has {text}", self.turns);
                watch.seen.remove(&index);
                watch.seen.extend(value.map(|value| (index, value)));
            }
        }
        self.watch = Some(watch);
    }

    /// Says that a gateway is to keep a value of the watched sample.
    pub fn watch_hint(&self, gateway: usize, node: usize, (sample, bits): (HintKey, u64)) {
        if self.watch.as_ref().is_some_and(|watch| watch.sample == sample) {
            let (turn, value) = (self.turns, f64::from_bits(bits));
            println!("turn {turn}: gateway {gateway} is to keep {value} for node {node}");
        }
    }
}
