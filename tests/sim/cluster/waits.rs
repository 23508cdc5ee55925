//! A cluster in which nodes stand still, or their disks do, and nothing else is wrong: who waits,
//! and for how long. A sample whose owners are well is answered as if nothing were wrong; what
//! waits for a node that stands still waits for the health timeout.

use tidegate::base::time::Duration;

use super::{World, delay};
use crate::steps::Steps;

/// The health timeout, the timer's quarter of a second, and the way of a sample.
const WITH_A_NODE_THAT_STANDS: Duration = Duration::from_millis(2_750);
/// The way of a sample: to the gateway and its shard, over the link, into the log, and back; behind
/// hints for its owner that are on the way already, a frame at a time if the window is no larger.
const WITHOUT: Duration = Duration::from_millis(500);

/// A run in which one node at a time stands still.
pub fn simulate(seed: u64) {
    let mut world = World::new(seed);
    world.calm_down();
    let mut steps = Steps::new();
    let mut next_at = world.now + Duration::from_secs(1);
    let mut standing = None;
    for _ in 0..6_000 {
        if !steps.take() {
            break;
        }
        if world.now >= next_at {
            let node = world.random.below(world.nodes.len());
            let until = world.now + delay(&mut world.random, 5_000);
            world.trace(|| format!("node {node} stands still until {until:?}"));
            world.nodes[node].stop(world.now, until);
            world.faults += 1;
            standing = Some(node);
            // Whoever was gone has time to come back.
            next_at = until + Duration::from_secs(3);
        }
        world.turn();
        world.check_waits(standing);
    }
    world.rest();
    world.check_end();
    world.say_counts(seed);
}

impl World {
    /// A fast network, healthy disks, and clients that wait.
    fn calm_down(&mut self) {
        self.turn_us_max = 4_000;
        self.enabled = 0;
        self.net.hurry();
        for client in &mut self.clients {
            client.wait_for_long();
        }
    }

    fn check_waits(&self, standing: Option<usize>) {
        for (name, arrived) in &self.arrived {
            let (attempt, gateway) = &self.attempts[name];
            let epoch = self.gateways[*gateway].epoch;
            let is_concerned = standing.is_some_and(|node| {
                let samples = attempt.samples.iter();
                samples.into_iter().any(|sample| {
                    self.plan.owners(epoch, &self.pool, sample.series).contains(&node)
                })
            });
            let bound = if is_concerned { WITH_A_NODE_THAT_STANDS } else { WITHOUT };
            let waited = self.now.duration_since(*arrived);
            assert!(
                waited <= bound,
                "attempt {name} waits for {waited:?}; node {standing:?} stands still, and it is \
                 {is_concerned} that it owns something of it"
            );
        }
    }
}
