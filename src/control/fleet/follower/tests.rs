//! Gateways and nodes without a network: what is asked is answered at once, or never.

#![cfg(test)]

mod founding;
mod late;

use std::net::SocketAddr;

use super::*;
use crate::base::time::monotonic_now;
use crate::model::placement::PlacedNode;
use crate::model::placement::agreement::{Acceptor, Draft, Learned, Saved};

const TURN: Duration = Duration::from_millis(100);

struct Node {
    address: SocketAddr,
    /// Another way to it.
    also: Option<SocketAddr>,
    shards: usize,
    acceptor: Acceptor,
    is_up: bool,
    /// How much later it is by its clock.
    ahead_ms: i64,
}

/// What came of dialling.
#[derive(Debug, PartialEq)]
enum Dialled {
    Nothing,
    Answer(NodeId),
    Silence,
}

struct Gateway {
    follower: Follower,
    dialled: BTreeMap<SocketAddr, Dialled>,
    /// Nothing comes of dialling there, for now.
    hangs_at: Option<SocketAddr>,
    replies: BTreeMap<u64, Result<Reply, CommandFault>>,
    is_cut: bool,
}

struct World {
    now: Now,
    nodes: Vec<Node>,
    gateways: Vec<Gateway>,
    commands: u64,
}

fn address(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], 9000 + 10 * number).into()
}

fn node(number: u16) -> Node {
    let id = NodeId(u128::from(number) << 120 | 7);
    let acceptor = Acceptor::new(id, None, [], Draft::default());
    Node { address: address(number), also: None, shards: 2, acceptor, is_up: true, ahead_ms: 0 }
}

fn config() -> FollowerConfig {
    FollowerConfig {
        replication: 2,
        strategy: Strategy::Hash {},
        is_auto_join: false,
        bounds: SampleBounds { ahead_ms: 1000, behind_ms: 1000 },
        retention_ms: 0,
    }
}

impl World {
    fn new(nodes: u16, gateways: u16, config: &FollowerConfig) -> Self {
        let now = Now { monotonic: monotonic_now(), unix_ms: 1_000_000 };
        let gateway = |number: u16| Gateway {
            follower: Follower::new(now, config.clone(), u128::from(number) << 64),
            dialled: BTreeMap::new(),
            hangs_at: None,
            replies: BTreeMap::new(),
            is_cut: false,
        };
        let gateways = (1..=gateways).map(gateway).collect();
        let nodes = (1..=nodes).map(node).collect();
        Self { now, nodes, gateways, commands: 0 }
    }

    fn seed(&mut self, seeds: &[u16]) {
        let seeds: Vec<Seed> = seeds.iter().map(|number| Seed::at(address(*number))).collect();
        self.seed_names(&seeds);
    }

    fn seed_names(&mut self, seeds: &[Seed]) {
        for gateway in &mut self.gateways {
            gateway.follower.handle_seeds(self.now, seeds);
        }
    }

    fn run(&mut self, seconds: f64) {
        let mut left = seconds;
        while left > 0.05 {
            left -= 0.1;
            self.now.monotonic += TURN;
            self.now.unix_ms += 100;
            for gateway in &mut self.gateways {
                gateway.turn(self.now, &mut self.nodes);
            }
        }
    }

    fn command(&mut self, gateway: usize, command: Command) -> u64 {
        self.commands += 1;
        self.gateways[gateway].follower.handle_command(self.now, self.commands, command);
        self.commands
    }

    #[track_caller]
    fn plan_of(&mut self, gateway: usize, command: Command) -> PlanReport {
        let number = self.command(gateway, command);
        self.run(2.0);
        match self.gateways[gateway].replies.remove(&number) {
            Some(Ok(Reply::Plan(report))) => *report,
            other => panic!("no plan: {other:?}"),
        }
    }

    #[track_caller]
    fn status_of(&mut self, gateway: usize) -> StatusReport {
        let number = self.command(gateway, Command::Status);
        self.run(0.1);
        match self.gateways[gateway].replies.remove(&number) {
            Some(Ok(Reply::Status(report))) => *report,
            other => panic!("no status: {other:?}"),
        }
    }

    fn epochs(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.acceptor.newest_epoch()).collect()
    }

    fn newest(&self, gateway: usize) -> Option<&PlacementDocument> {
        self.gateways[gateway].follower.newest().map(|placement| placement.document())
    }

    fn fleet(&self, gateway: usize) -> &Fleet {
        self.gateways[gateway].follower.view().fleet.as_ref().expect("a fleet")
    }
}

impl Node {
    fn is_at(&self, address: SocketAddr) -> bool {
        self.is_up && (self.address == address || self.also == Some(address))
    }
}

impl Gateway {
    fn turn(&mut self, now: Now, nodes: &mut [Node]) {
        for (address, known) in &mut self.dialled {
            if self.hangs_at == Some(*address) {
                continue;
            }
            let there = nodes.iter().find(|node| node.is_at(*address));
            let there = there.filter(|_| !self.is_cut);
            let of = |node: &Node| Dialled::Answer(node.acceptor.node());
            let heard = there.map_or(Dialled::Silence, of);
            match there {
                Some(node) if *known != heard => {
                    let port = |index: usize| {
                        let index = u16::try_from(index).expect("few");
                        SocketAddr::new(address.ip(), address.port() + index)
                    };
                    let met = Met {
                        node: node.acceptor.node(),
                        incarnation: 1,
                        shards: (0..node.shards).map(port).collect(),
                        read: port(node.shards),
                    };
                    self.follower.handle_met(now, *address, met);
                }
                None if *known != heard => {
                    self.follower.handle_lost(now, *address, "nobody answers there".into());
                }
                _ => {}
            }
            *known = heard;
        }
        self.follower.handle_timer(now);
        while let Some(action) = self.follower.poll_action() {
            match action {
                Action::Dial(address) => {
                    assert_eq!(
                        self.dialled.insert(address, Dialled::Nothing),
                        None,
                        "dialled twice"
                    );
                }
                Action::Leave(address) => {
                    assert!(self.dialled.remove(&address).is_some(), "left twice");
                }
                Action::Reply(number, answer) => {
                    self.replies.insert(number, answer);
                }
                Action::Ask(address, request) => {
                    let node = nodes.iter_mut().find(|node| node.is_at(address));
                    let Some(node) = node.filter(|_| !self.is_cut) else { continue };
                    let step = node.acceptor.handle_request(&request, now.unix_ms + node.ahead_ms);
                    if let Some(saved) = step.save {
                        node.acceptor.apply_saved(saved);
                    }
                    self.follower.handle_answer(now, address, step.answer);
                }
            }
        }
    }
}

/// The other address of a node, as `localhost` and most names have one.
fn v6(number: u16) -> SocketAddr {
    (std::net::Ipv6Addr::LOCALHOST, address(number).port()).into()
}

fn named(name: &str, addresses: &[SocketAddr]) -> Seed {
    Seed { name: name.into(), addresses: addresses.to_vec() }
}

/// Three nodes, two gateways, founded.
fn founded(config: &FollowerConfig) -> World {
    let mut world = World::new(3, 2, config);
    world.seed(&[1, 2, 3]);
    world.run(3.0);
    assert_eq!(world.epochs(), [1, 1, 1]);
    world
}

fn adding(number: u16) -> Command {
    Command::Apply(Change { add: vec![address(number).to_string()], ..Change::default() })
}

#[test]
fn a_fleet_is_founded_once_when_all_are_there() {
    let mut world = World::new(3, 2, &config());
    world.nodes[2].is_up = false;
    world.seed(&[1, 2, 3]);
    world.run(15.0);
    // Red if it is founded by those who answer.
    assert_eq!(world.epochs(), [0, 0, 0]);
    let status = world.status_of(0);
    assert!(status.faults[0].contains("10.0.0.1:9030: nobody answers"), "{:?}", status.faults);
    assert_eq!(status.others.len(), 2);
    world.nodes[2].is_up = true;
    world.run(8.0);
    assert_eq!(world.epochs(), [1, 1, 1]);
    let documents = world.nodes.iter().map(|node| node.acceptor.newest().expect("founded"));
    let hashes: BTreeSet<u128> = documents.map(|document| document.content_hash()).collect();
    assert_eq!(hashes.len(), 1);
    let fleet = world.fleet(1);
    assert_eq!(fleet.nodes.len(), 3);
    assert_eq!(fleet.nodes[0].shards, [address(1), "10.0.0.1:9011".parse().expect("one")]);
    let status = world.status_of(1);
    assert!(status.faults.is_empty(), "{:?}", status.faults);
    assert_eq!((status.epoch, status.epoch_in_force, status.replication), (1, 1, 2));
    let slots: u32 = status.nodes.iter().map(|node| node.slots).sum();
    assert_eq!(slots, 2 * 16384);
}

#[test]
fn a_node_is_added_and_everybody_follows_from_its_start_on() {
    let mut world = founded(&config());
    world.nodes.push(node(4));
    // It is no seed: red if it is not dialled for the command.
    let plan = world.plan_of(
        0,
        Command::Plan(Change { add: vec![address(4).to_string()], ..Change::default() }),
    );
    assert_eq!((plan.epoch_before, plan.epoch_after, plan.is_done), (1, 2, false));
    assert_eq!(world.epochs(), [1, 1, 1, 0], "a plan changes nothing");
    // By a name of two addresses. Red if only the first is tried.
    let looked_up = [("n:1".to_owned(), vec![v6(4), address(4)])].into();
    let change = Change { add: vec!["n:1".into()], looked_up, ..Change::default() };
    assert_eq!(world.plan_of(1, Command::Plan(change)).epoch_after, 2);
    let done = world.plan_of(0, adding(4));
    assert!(done.is_done);
    assert_eq!(done.groups[0].nodes.len(), 4);
    assert!(f64::from(done.groups[0].slots_moved) < 1.05 * done.groups[0].slots_moved_fair);
    assert_eq!(world.epochs(), [2, 2, 2, 2]);
    // Red if the view does not wait for the start, or if the other gateway does not read.
    assert_eq!(world.newest(1).map(|document| document.epoch), Some(2));
    assert_eq!(world.fleet(1).placement.document().epoch, 1);
    world.run(4.0);
    for gateway in [0, 1] {
        let fleet = world.fleet(gateway);
        assert_eq!(fleet.placement.document().epoch, 2);
        assert!(fleet.nodes.iter().all(|node| node.shards.len() == 2), "{:?}", fleet.nodes);
        assert_eq!(world.gateways[gateway].follower.view().history.count(), 2);
        assert_eq!(world.gateways[gateway].follower.view().reads.len(), 4);
    }
    // Once more is no change, and no fault.
    let again = world.plan_of(1, adding(4));
    assert_eq!((again.epoch_before, again.epoch_after, again.is_done), (2, 2, true));
}

#[test]
fn commands_of_two_gateways_are_both_done() {
    // Red if a command that somebody was faster than is not planned again.
    let mut world = founded(&config());
    world.nodes.extend([node(4), node(5)]);
    world.seed(&[1, 2, 3, 4, 5]);
    world.run(2.0);
    let weight = BTreeMap::from([(address(1).to_string(), 50)]);
    let weights = Change { weights: weight, ..Change::default() };
    let commands = [(0, adding(4)), (1, adding(5)), (0, Command::Apply(weights))];
    let numbers: Vec<_> =
        commands.into_iter().map(|(at, command)| (at, world.command(at, command))).collect();
    world.run(5.0);
    for (gateway, number) in numbers {
        let reply = world.gateways[gateway].replies.remove(&number);
        assert!(matches!(reply, Some(Ok(Reply::Plan(_)))), "{reply:?}");
    }
    assert_eq!(world.epochs(), [4; 5]);
    let newest = world.newest(0).expect("a fleet");
    assert_eq!(newest.nodes.len(), 5);
    assert_eq!(newest.nodes[0].weight, 50);
}

#[test]
fn whoever_is_behind_is_brought_up_to_date() {
    let mut world = founded(&config());
    world.nodes[1].is_up = false;
    world.nodes.push(node(4));
    world.plan_of(0, adding(4));
    assert_eq!(world.epochs(), [2, 1, 2, 2]);
    // Red without the pushes of followers.
    world.nodes[1].is_up = true;
    world.run(3.0);
    assert_eq!(world.epochs(), [2; 4]);
    // A node that was restored without its placement, and one that never belonged to the fleet.
    let restored = world.nodes[2].acceptor.node();
    world.nodes[2].is_up = false;
    world.run(0.3);
    world.nodes[2].acceptor = Acceptor::new(restored, None, [], Draft::default());
    world.nodes[2].is_up = true;
    world.nodes.push(node(5));
    world.seed(&[1, 2, 3, 5]);
    world.run(3.0);
    // Red if who knows nothing is never told, or if strangers are.
    assert_eq!(world.epochs(), [2, 2, 2, 2, 0]);
    assert_eq!(world.nodes[2].acceptor.oldest_epoch(), 1);
    world.nodes.pop();
    // A gateway that comes later reads what happened before: red if it reads only the newest.
    let late = World::new(0, 1, &config()).gateways.pop().expect("one");
    world.gateways.push(late);
    world.seed(&[2]);
    world.run(5.0);
    assert_eq!(world.gateways[2].follower.view().history.count(), 2);
    assert_eq!(world.fleet(2).nodes.iter().filter(|node| node.shards.len() == 2).count(), 4);
}

#[test]
fn without_a_majority_nothing_happens_and_it_is_said() {
    let mut world = founded(&config());
    world.nodes.push(node(4));
    world.seed(&[1, 2, 3, 4]);
    world.run(2.0);
    world.nodes[1].is_up = false;
    world.nodes[2].is_up = false;
    let number = world.command(0, adding(4));
    world.run(25.0);
    let reply = world.gateways[0].replies.remove(&number);
    let Some(Err(fault)) = reply else { panic!("{reply:?}") };
    assert!(fault.to_string().starts_with("cannot reach agreement in 20 s"), "{fault}");
    assert!(fault.to_string().matches("no answer").count() == 2, "{fault}");
    assert_eq!(world.epochs(), [1, 1, 1, 0]);
}

#[test]
fn a_node_that_moved_is_found_and_owns_what_it_owned() {
    let mut world = founded(&config());
    let before = world.newest(0).expect("a fleet").clone();
    world.nodes[1].address = address(7);
    world.nodes[1].shards = 3;
    world.seed(&[1, 3, 7]);
    world.run(2.0);
    // Where it is now is known at once; red if the document is believed more than the node.
    assert_eq!(world.fleet(0).nodes[1].shards.len(), 3);
    assert_eq!(world.fleet(0).nodes[1].shards[0], address(7));
    world.run(15.0);
    let newest = world.newest(1).expect("a fleet");
    assert_eq!(newest.epoch, 2, "one of the two gateways proposed it");
    assert_eq!(newest.nodes[1].link, address(7).to_string());
    assert_eq!(newest.nodes[1].shards, 3);
    assert_eq!(newest.nodes[1].id, before.nodes[1].id);
    assert!(!world.gateways[0].dialled.contains_key(&address(2)), "it is dialled for ever");
    // Red if a node that is only silent counts as moved.
    world.nodes[0].is_up = false;
    world.run(15.0);
    assert_eq!(world.newest(0).map(|document| document.epoch), Some(2));
}

#[test]
fn seeds_join_by_themselves_only_if_asked_to_and_once() {
    for is_auto_join in [false, true] {
        let mut world = founded(&FollowerConfig { is_auto_join, ..config() });
        world.nodes.push(node(4));
        world.seed(&[1, 2, 3, 4]);
        world.run(5.0);
        let count = world.newest(0).expect("a fleet").nodes.len();
        assert_eq!(count, if is_auto_join { 4 } else { 3 });
        if !is_auto_join {
            continue;
        }
        let remove = vec![world.nodes[3].acceptor.node().to_string()];
        let gone = Change { remove, ..Change::default() };
        assert!(world.plan_of(1, Command::Apply(gone)).is_done);
        world.run(10.0);
        // Red if whoever was taken out comes back by itself.
        let newest = world.newest(0).expect("a fleet");
        assert_eq!((newest.epoch, newest.nodes.len()), (3, 3));
        let status = world.status_of(0);
        assert_eq!(status.others.len(), 1);
        // Reads still ask it.
        assert_eq!(world.gateways[0].follower.view().reads.len(), 4);
    }
}

#[test]
fn a_node_of_another_fleet_is_told_nothing() {
    let mut world = founded(&config());
    world.nodes.push(node(4));
    world.plan_of(0, adding(4));
    let mut stranger = node(5);
    let nodes = vec![PlacedNode::new(stranger.acceptor.node(), &address(5).to_string(), 2)];
    let theirs = PlacementDocument::found(5, 1, Strategy::Hash {}, nodes).expect("a fleet");
    stranger.acceptor.apply_saved(Saved::Document(Learned::at(Arc::new(theirs.clone()), 0)));
    world.nodes.push(stranger);
    world.seed(&[1, 2, 3, 4, 5]);
    world.run(5.0);
    // Red if epoch 2 of this fleet is pushed to it: it would follow a mixture of both.
    assert_eq!(world.nodes[4].acceptor.newest().map(|each| (**each).clone()), Some(theirs));
    assert_eq!(world.newest(0).map(|document| document.epoch), Some(2));
    let status = world.status_of(0);
    assert!(status.faults[0].contains("two fleets were mixed up"), "{:?}", status.faults);
    assert_eq!(status.others[0].fault.as_deref(), Some("it belongs to another fleet"));
}

#[test]
fn wishes_that_make_no_sense_say_why() {
    #[track_caller]
    fn check(world: &mut World, change: Change, want: &str) {
        let number = world.command(0, Command::Apply(change));
        world.run(6.0);
        let reply = world.gateways[0].replies.remove(&number);
        let Some(Err(CommandFault::Change(fault))) = reply else { panic!("{want}: {reply:?}") };
        assert!(fault.to_string().contains(want), "{fault}");
    }
    let mut world = founded(&config());
    let remove = |name: &str| Change { remove: vec![name.into()], ..Change::default() };
    check(&mut world, remove("beef"), "no node \"beef\"");
    check(&mut world, remove("01"), "no node \"01\"");
    let add = vec![address(9).to_string()];
    check(&mut world, Change { add, ..Change::default() }, "nobody answers there");
    let two = Change { remove: vec!["0100".into(), "0200".into()], ..Change::default() };
    check(&mut world, two, "2 owners for each slot, and a group of 1 nodes");
    let replication = Some(4);
    check(&mut world, Change { replication, ..Change::default() }, "4 is not in 1..=3");
    assert_eq!(world.epochs(), [1, 1, 1]);
}

#[test]
fn a_node_that_was_lost_is_replaced_by_an_empty_one_at_its_address() {
    let mut world = founded(&FollowerConfig { replication: 3, ..config() });
    let lost = world.nodes[1].acceptor.node();
    let mut empty = node(9);
    empty.address = address(2);
    world.nodes[1] = empty;
    world.run(3.0);
    let at = address(2).to_string();
    // Alone it is refused: two nodes would have one address.
    let number = world.command(0, adding(2));
    world.run(2.0);
    let reply = world.gateways[0].replies.remove(&number);
    assert!(format!("{reply:?}").contains("AddressOf"), "{reply:?}");
    // Red if the lost one goes first: three owners of two nodes.
    let swap =
        Change { add: vec![at.clone()], remove: vec![lost.to_string()], ..Change::default() };
    let done = world.plan_of(1, Command::Apply(swap));
    assert_eq!((done.is_done, done.epoch_after), (true, 2));
    let newest = world.newest(0).expect("a fleet");
    assert_eq!(newest.nodes.len(), 3);
    assert!(newest.find(lost).is_none());
    let new = newest.find(world.nodes[1].acceptor.node()).expect("it is in");
    assert_eq!(newest.nodes[new].link, at);
}

fn tags(text: &str) -> Strategy {
    let rules: crate::control::config::group_rules::GroupRules = text.parse().expect("rules");
    Strategy::of(rules.0, Vec::new())
}

#[test]
fn rules_and_groups_come_together_and_go() {
    let config = FollowerConfig { replication: 1, ..config() };
    let mut world = founded(&config);
    let strategy = Some(tags("{team=\"pay\"} -> pay"));
    let wish = |groups: &[(u16, &str)]| {
        let named = |(number, group): &(u16, &str)| (address(*number).to_string(), (*group).into());
        let groups = groups.iter().map(named).collect();
        Command::Apply(Change { strategy: strategy.clone(), groups, ..Change::default() })
    };
    // A rule without nodes is refused, and says so.
    let number = world.command(0, wish(&[]));
    world.run(1.0);
    let reply = format!("{:?}", world.gateways[0].replies.remove(&number));
    assert!(reply.contains("EmptyGroup"), "{reply}");
    // Red if groups are set before rules, or after: each alone is refused.
    let done = world.plan_of(0, wish(&[(3, "pay")]));
    assert!(done.is_done && done.is_resharded);
    assert_eq!(done.groups.len(), 2);
    let groups = |world: &World| -> Vec<Option<String>> {
        world.newest(0).expect("a fleet").nodes.iter().map(|node| node.group.clone()).collect()
    };
    let pay = || Some("pay".to_owned());
    assert_eq!(groups(&world), [None, None, pay()]);
    let status = world.status_of(1);
    assert_eq!((status.strategy.as_str(), status.groups.len()), ("tags, 1 rule", 2));
    assert_eq!(status.rules, ["{team=\"pay\"} -> pay"]);
    assert!(status.groups.iter().all(|group| group.deviation < 0.01), "{:?}", status.groups);
    // A node that says itself where it belongs. Red if that is not asked, or if it takes slots of
    // other groups.
    let mut fourth = node(4);
    fourth.acceptor = fourth.acceptor.in_group(pay());
    world.nodes.push(fourth);
    let added = world.plan_of(0, adding(4));
    assert_eq!(groups(&world), [None, None, pay(), pay()]);
    let moved: Vec<u32> = added.groups.iter().map(|group| group.slots_moved).collect();
    assert!(!added.is_resharded && moved[0] == 0 && moved[1].abs_diff(8192) < 100, "{moved:?}");
    // Another group of one node; its old group has slots enough without it.
    let back = BTreeMap::from([(address(3).to_string(), String::new())]);
    let change = Change { groups: back, ..Change::default() };
    let moved = world.plan_of(1, Command::Apply(change));
    assert_eq!(groups(&world), [None, None, None, pay()]);
    assert!(moved.groups[0].slots_moved.abs_diff(16384 / 3) < 100, "{:?}", moved.groups[0]);
    // Red if the group is placed anew for it.
    let gained: Vec<u32> = moved.groups[0].nodes.iter().map(|node| node.slots_gained).collect();
    assert_eq!(gained[..2], [0, 0], "{:?}", moved.groups[0]);
    // Without rules there are no groups; with them, nodes are asked again.
    let hash = Change { strategy: Some(Strategy::Hash {}), ..Change::default() };
    assert!(world.plan_of(0, Command::Apply(hash)).is_done);
    assert_eq!(groups(&world), [None, None, None, None]);
    assert!(world.plan_of(0, wish(&[])).is_done);
    assert_eq!(groups(&world), [None, None, None, pay()]);
    // Once more is no change.
    let again = world.plan_of(1, wish(&[]));
    assert_eq!(again.epoch_before, again.epoch_after);
}

#[test]
fn there_are_never_more_epochs_than_gateways_can_follow() {
    // Red without the check: the fleet would be changed, and its gateways could not follow.
    let mut world = founded(&config());
    let mut epochs = 1;
    let fault = loop {
        assert!(epochs as usize <= EPOCHS_MAX, "nobody stops it");
        let weights = BTreeMap::from([(address(1).to_string(), 100 + epochs)]);
        let change = Command::Apply(Change { weights, ..Change::default() });
        let number = world.command(0, change);
        world.run(0.3);
        match world.gateways[0].replies.remove(&number) {
            Some(Ok(Reply::Plan(report))) => {
                epochs = u32::try_from(report.epoch_after).expect("few");
            }
            Some(Err(fault)) => break fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fault, CommandFault::Change(ChangeFault::TooManyEpochs));
    assert_eq!(epochs as usize, EPOCHS_MAX - EPOCHS_SPARE);
    world.run(2.0);
    assert!(world.status_of(1).faults.is_empty());
}
