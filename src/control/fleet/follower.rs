//! A gateway's view of the fleet, and its part in how it changes. Pure: no socket, no clock.
//!
//! ```text
//!  seeds, who is met where, answers, commands, time --> Follower --> dial, ask, reply
//!                                                          |
//!                                                          v   FleetView, when it changes
//! ```
//! - Reads every node's documents, follows the highest epoch, tells nodes what they have missed.
//! - Founds a fleet when none of the seeds belongs to one and all of them answer.
//! - Proposes a node's new address when its old one is silent, and, if asked to, joins seeds.
//! - Carries out commands, one after the other: plans on the newest document, proposes, and plans
//!   again if somebody was faster.
//!
//! A change starts [`START_DELAY_MS`] after it is planned, so that gateways hear of it before.
//! Gateways need no leader: whatever several of them propose, one document of an epoch is decided.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::change::{Change, ChangeFault};
use super::peers::{Met, Peer, Peers};
use super::report::{PlanReport, StatusReport, plan_report, status};
use crate::base::time::{Duration, Instant, Now};
use crate::control::discovery::schedule::Seed;
use crate::gateway::fleet::{Fleet, FleetNode};
use crate::model::placement::agreement::{Answer, Outcome, Proposal, Request};
use crate::model::placement::{
    Accepted, EPOCHS_MAX, History, HistoryFault, NodeId, Placement, PlacementDocument,
    SampleBounds, Strategy,
};

/// A new epoch starts so much later than it is planned: longer than gateways that are in touch with
/// nodes take to hear of it.
pub const START_DELAY_MS: i64 = 3_000;
/// How often each node is asked for news.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a command may take, and so what the gateway proposes by itself.
const COMMAND_WITHIN: Duration = Duration::from_secs(20);
/// A node that is to be added and was not met: how long it is waited for.
const MEET_WITHIN: Duration = Duration::from_secs(5);
/// Pause after a proposal of its own that came to nothing.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Epochs that are left free: whoever has not forgotten the oldest yet must be able to follow.
const EPOCHS_SPARE: usize = 8;
/// Commands that wait.
const COMMANDS_MAX: usize = 16;

/// A follower's settings.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// Owners of each slot, of a fleet that is founded.
    pub replication: u8,
    /// How series find their slots, of a fleet that is founded.
    pub strategy: Strategy,
    /// Whether seeds that belong to no fleet are added by themselves.
    pub is_auto_join: bool,
    /// How far samples may be from their arrival.
    pub bounds: SampleBounds,
    /// How long samples are kept; 0: for ever.
    pub retention_ms: i64,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Keep a connection to this address, again and again.
    Dial(SocketAddr),
    /// No more.
    Leave(SocketAddr),
    /// Ask the node there. An answer that does not come is not missed.
    Ask(SocketAddr, Request),
    /// The answer to a command.
    Reply(u64, Result<Reply, CommandFault>),
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// How is the fleet?
    Status,
    /// What would this come to?
    Plan(Change),
    /// Do it.
    Apply(Change),
}

/// What comes of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Status`.
    Status(Box<StatusReport>),
    /// To the others.
    Plan(Box<PlanReport>),
}

/// Why nothing comes of it.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandFault {
    /// The wish is wrong.
    Change(ChangeFault),
    /// There is no fleet yet; why, if that is known.
    NotFounded(Vec<String>),
    /// Too few nodes answered in time, with what each said. It may have happened all the same.
    NoMajority(Vec<(NodeId, Option<String>)>),
    /// Others wait already.
    Busy,
}

/// What the rest of the gateway needs to know. A new value for each change.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// For the shards: what samples follow that arrive now. `None`: there is no fleet yet.
    pub fleet: Option<Arc<Fleet>>,
    /// For reads: all epochs that are known and may have samples within retention.
    pub history: History,
    /// For reads: where each node answers questions, and how many shards it has; of nodes that were
    /// met once.
    pub reads: BTreeMap<NodeId, (SocketAddr, u32)>,
}

/// The proposal that is under way.
#[derive(Debug)]
struct Running {
    proposal: Proposal,
    deadline: Instant,
    /// Whose it is; `None`: the gateway's own.
    command: Option<Waiting>,
    base: Option<Arc<PlacementDocument>>,
}

/// A command that is not answered.
#[derive(Debug)]
struct Waiting {
    number: u64,
    change: Change,
    since: Instant,
}

/// A gateway's view.
#[derive(Debug)]
pub struct Follower {
    config: FollowerConfig,
    seeds: Vec<Seed>,
    seeds_since: Instant,
    peers: Peers,
    history: History,
    documents: BTreeMap<u64, Arc<PlacementDocument>>,
    running: Option<Running>,
    waiting: VecDeque<Waiting>,
    /// Those that only ask.
    plans: VecDeque<Waiting>,
    /// Nothing is proposed without a command before.
    propose_after: Instant,
    /// Drawn once; each proposal takes the next, so none is used twice.
    next_proposer: u128,
    view: FleetView,
    actions: VecDeque<Action>,
    /// What is wrong with documents, by epoch.
    faults: BTreeMap<u64, String>,
    /// Why there is no fleet.
    founding_fault: Option<String>,
    /// When it was looked at last.
    clock: Now,
}

impl Follower {
    /// Without seeds. `chance` was drawn for this process and cannot be guessed.
    pub fn new(now: Now, config: FollowerConfig, chance: u128) -> Self {
        Self {
            config,
            seeds: Vec::new(),
            seeds_since: now.monotonic,
            peers: Peers::default(),
            history: History::default(),
            documents: BTreeMap::new(),
            running: None,
            waiting: VecDeque::new(),
            plans: VecDeque::new(),
            propose_after: now.monotonic,
            next_proposer: chance,
            view: FleetView::default(),
            actions: VecDeque::new(),
            faults: BTreeMap::new(),
            founding_fault: None,
            clock: now,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the rest of the gateway goes by.
    pub fn view(&self) -> &FleetView {
        &self.view
    }

    /// Nodes by name, with the addresses of their first link ports, as discovery has them now.
    pub fn handle_seeds(&mut self, now: Now, seeds: &[Seed]) {
        if self.seeds != seeds {
            self.seeds = seeds.to_vec();
            self.seeds_since = now.monotonic;
        }
        self.turn(now);
    }

    /// A node answered at an address that is dialled.
    pub fn handle_met(&mut self, now: Now, address: SocketAddr, met: Met) {
        self.peers.handle_met(now.monotonic, address, met);
        self.turn(now);
    }

    /// Nobody answers there (any more).
    pub fn handle_lost(&mut self, now: Now, address: SocketAddr, fault: String) {
        self.peers.handle_lost(now.monotonic, address, fault);
        self.turn(now);
    }

    /// A node's answer.
    pub fn handle_answer(&mut self, now: Now, address: SocketAddr, answer: Answer) {
        let Some(peer) = self.peers.by_address.get_mut(&address) else { return };
        let Some(node) = peer.met.as_ref().map(|met| met.node) else { return };
        match &answer {
            Answer::Documents { newest_epoch, documents, zone, group } => {
                peer.newest_epoch = Some(*newest_epoch);
                peer.zone.clone_from(zone);
                peer.group.clone_from(group);
                if !peer.is_foreign {
                    peer.fault = None;
                }
                self.handle_documents(now, (address, node), documents);
            }
            Answer::Ahead { newest } => {
                let newest = Arc::clone(newest);
                self.follow(now, &newest);
            }
            Answer::Committed { newest_epoch } => peer.newest_epoch = Some(*newest_epoch),
            Answer::Failed { text } => peer.fault = Some(text.clone()),
            _ => {}
        }
        if let Some(running) = &mut self.running {
            running.proposal.handle_answer(now.monotonic, node, answer);
        }
        self.turn(now);
    }

    /// An operator asks; the answer bears the number.
    pub fn handle_command(&mut self, now: Now, number: u64, command: Command) {
        match command {
            Command::Status => {
                let newest = self.history.newest().map(Arc::as_ref);
                let faults = self.faults();
                let mut report = status((newest, &self.view), &self.peers, faults);
                self.leave_out_alternatives(&mut report);
                self.reply(number, Ok(Reply::Status(Box::new(report))));
            }
            Command::Plan(_) | Command::Apply(_)
                if self.waiting.len() + self.plans.len() >= COMMANDS_MAX =>
            {
                self.reply(number, Err(CommandFault::Busy));
            }
            Command::Plan(change) => {
                self.plans.push_back(Waiting { number, change, since: now.monotonic });
                self.turn(now);
            }
            Command::Apply(change) => {
                self.waiting.push_back(Waiting { number, change, since: now.monotonic });
                self.turn(now);
            }
        }
    }

    /// Time went by; to be called every 100 ms or so.
    pub fn handle_timer(&mut self, now: Now) {
        self.handle_clock(now);
        let mut asks = Vec::new();
        let newest = self.history.newest().cloned();
        let is_placed = |node: NodeId| {
            newest.as_ref().is_some_and(|newest| newest.document().find(node).is_some())
        };
        for (address, peer) in &mut self.peers.by_address {
            let Some(node) = peer.met.as_ref().map(|met| met.node) else { continue };
            if peer.ask_at <= now.monotonic {
                peer.ask_at = now.monotonic + ASK_EVERY;
                asks.push(Action::Ask(*address, Request::Read { from_epoch: peer.read_from }));
                // The answer says how far it has come; what it has not by then it is told.
                let Some(epoch) = peer.newest_epoch.filter(|_| !peer.is_foreign) else { continue };
                // Whether it belongs to this fleet is known when all of its documents are; of a
                // node that has none, as after a restore, by the newest one here.
                let is_known = if epoch > 0 { epoch < peer.read_from } else { is_placed(node) };
                if !is_known {
                    continue;
                }
                for document in self.documents.range(epoch + 1..).map(|(_, document)| document) {
                    let document = Arc::clone(document);
                    asks.push(Action::Ask(*address, Request::Commit { document }));
                }
            }
        }
        self.actions.extend(asks);
        if let Some(running) = &mut self.running {
            running.proposal.handle_timer(now.monotonic);
        }
        self.turn(now);
    }

    /// Everything that follows from what was just heard.
    fn turn(&mut self, now: Now) {
        self.finish_running(now);
        self.begin_next(now);
        self.answer_plans(now);
        self.send_requests();
        self.dial(now);
        self.renew_view(now);
    }

    /// Takes a decided document; false: it is another fleet's.
    fn follow(&mut self, now: Now, document: &Arc<PlacementDocument>) -> bool {
        let epoch = document.epoch;
        if self.documents.get(&epoch).is_some_and(|known| known == document) {
            return true;
        }
        let placement = match Placement::new((**document).clone()) {
            Ok(placement) => Arc::new(placement),
            Err(fault) => {
                self.note_fault(epoch, fault.to_string());
                return true;
            }
        };
        let mut accepted = self.history.handle_placement(Arc::clone(&placement));
        if matches!(accepted, Err(HistoryFault::TooMany { .. })) {
            self.history.make_room(self.oldest_ms(now), self.config.bounds);
            accepted = self.history.handle_placement(placement);
        }
        match accepted {
            Ok(Accepted::Forgotten) => {}
            Ok(_) => {
                self.documents.insert(epoch, Arc::clone(document));
                while self.documents.len() > EPOCHS_MAX {
                    self.documents.pop_first();
                }
                self.faults.remove(&epoch);
                self.founding_fault = None;
                tracing::info!(
                    "placement epoch {epoch}, {} nodes, starts in {} ms",
                    document.nodes.len(),
                    document.start_ms.saturating_sub(now.unix_ms).max(0)
                );
            }
            Err(fault) => {
                self.note_fault(epoch, fault.to_string());
                return !matches!(fault, HistoryFault::Conflict { .. });
            }
        }
        true
    }

    /// Once each.
    fn note_fault(&mut self, epoch: u64, text: String) {
        if self.faults.get(&epoch) != Some(&text) {
            tracing::error!("{text}");
            self.faults.insert(epoch, text);
            while self.faults.len() > COMMANDS_MAX {
                self.faults.pop_first();
            }
        }
    }

    fn faults(&self) -> Vec<String> {
        self.faults.values().chain(&self.founding_fault).cloned().collect()
    }

    /// Whether another epoch could be followed, here and by gateways that know a few more.
    fn has_room(&self) -> bool {
        self.view.history.count() + EPOCHS_SPARE < EPOCHS_MAX
    }

    fn newest(&self) -> Option<&Arc<Placement>> {
        self.history.newest()
    }

    fn plan(&self, now: Now, change: &Change) -> Result<Reply, CommandFault> {
        let not_founded = || CommandFault::NotFounded(self.faults());
        let before = self.newest().ok_or_else(not_founded)?;
        let start_ms = now.unix_ms.saturating_add(START_DELAY_MS);
        let next = change.apply(before.document(), &self.peers, start_ms);
        let next = next.map_err(CommandFault::Change)?;
        let next = next.unwrap_or_else(|| before.document().clone());
        let after = Placement::new(next).map_err(|fault| CommandFault::Change(fault.into()))?;
        Ok(Reply::Plan(Box::new(plan_report(before, &after, false))))
    }

    fn answer_plans(&mut self, now: Now) {
        for waiting in std::mem::take(&mut self.plans) {
            let waited = now.monotonic.saturating_duration_since(waiting.since);
            match self.plan(now, &waiting.change) {
                Err(CommandFault::Change(ChangeFault::NotMet { .. })) if waited < MEET_WITHIN => {
                    self.plans.push_back(waiting);
                }
                answer => self.reply(waiting.number, answer),
            }
        }
    }

    /// What comes of the proposal that is under way, if it is over.
    fn finish_running(&mut self, now: Now) {
        let Some(running) = &mut self.running else { return };
        let outcome = running.proposal.outcome().cloned();
        let is_late = now.monotonic >= running.deadline;
        if outcome.is_none() && !is_late {
            return;
        }
        // Whoever was not told yet is told as one that is behind.
        self.send_requests();
        let Some(Running { proposal, command, base, .. }) = self.running.take() else { return };
        let is_ours = matches!(outcome, Some(Outcome::Decided { is_ours: true, .. }));
        let document = match outcome {
            Some(Outcome::Decided { document, .. }) => document,
            Some(Outcome::Overtaken { newest }) => newest,
            None => {
                self.propose_after = now.monotonic + AGAIN_AFTER;
                let missing: Vec<_> = proposal.missing();
                let owned = |(id, text): (NodeId, Option<&str>)| (id, text.map(str::to_owned));
                let fault = CommandFault::NoMajority(missing.into_iter().map(owned).collect());
                if let Some(waiting) = command {
                    self.reply(waiting.number, Err(fault));
                } else {
                    tracing::warn!("{fault}");
                    self.founding_fault = base.is_none().then(|| fault.to_string());
                }
                return;
            }
        };
        self.follow(now, &document);
        let Some(waiting) = command else { return };
        if !is_ours {
            // Planned again, on what is there now.
            self.waiting.push_front(waiting);
            return;
        }
        let before = base.and_then(|base| Placement::new((*base).clone()).ok());
        let after = Placement::new((*document).clone()).ok();
        if let (Some(before), Some(after)) = (before, after) {
            let report = plan_report(&before, &after, true);
            self.reply(waiting.number, Ok(Reply::Plan(Box::new(report))));
        }
    }

    /// Commands first, then what the gateway wants by itself.
    fn begin_next(&mut self, now: Now) {
        while self.running.is_none() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            if !self.begin_command(now, waiting) {
                break;
            }
        }
        if self.running.is_some() || now.monotonic < self.propose_after || !self.has_room() {
            return;
        }
        let start_ms = now.unix_ms.saturating_add(START_DELAY_MS);
        let next = match self.newest() {
            None => self.founding(now),
            Some(newest) => {
                let document = newest.document();
                self.moved(now, document, start_ms)
                    .or_else(|| self.joining(document, start_ms))
                    .map(|next| (Some(Arc::new(document.clone())), next))
            }
        };
        if let Some((base, next)) = next {
            self.propose(now, (base, next), None);
        }
    }

    /// Whether the next command may be looked at.
    fn begin_command(&mut self, now: Now, waiting: Waiting) -> bool {
        let waited = now.monotonic.saturating_duration_since(waiting.since);
        let number = waiting.number;
        let Some(before) = self.newest().cloned() else {
            let fault = CommandFault::NotFounded(self.faults());
            self.reply(number, Err(fault));
            return true;
        };
        if waited >= COMMAND_WITHIN {
            self.reply(number, Err(CommandFault::NoMajority(Vec::new())));
            return true;
        }
        let start_ms = now.unix_ms.saturating_add(START_DELAY_MS);
        if !self.has_room() {
            self.reply(number, Err(CommandFault::Change(ChangeFault::TooManyEpochs)));
            return true;
        }
        match waiting.change.apply(before.document(), &self.peers, start_ms) {
            Err(ChangeFault::NotMet { .. }) if waited < MEET_WITHIN => {
                self.waiting.push_front(waiting);
                return false;
            }
            Err(fault) => self.reply(number, Err(CommandFault::Change(fault))),
            Ok(None) => {
                let report = plan_report(&before, &before, true);
                self.reply(number, Ok(Reply::Plan(Box::new(report))));
            }
            Ok(Some(next)) => {
                let base = Arc::new(before.document().clone());
                self.propose(now, (Some(base), next), Some(waiting));
            }
        }
        true
    }

    fn propose(
        &mut self,
        now: Now,
        (base, next): (Option<Arc<PlacementDocument>>, PlacementDocument),
        command: Option<Waiting>,
    ) {
        self.next_proposer = self.next_proposer.wrapping_add(1);
        let proposer = self.next_proposer;
        let proposal = match base.clone() {
            None => Proposal::found(now.monotonic, proposer, next),
            Some(base) => match Proposal::change(now.monotonic, proposer, base, next) {
                Ok(proposal) => proposal,
                Err(fault) => {
                    if let Some(Waiting { number, .. }) = command {
                        self.reply(number, Err(CommandFault::Change(fault.into())));
                    } else {
                        tracing::error!("cannot propose a placement: {fault}");
                    }
                    return;
                }
            },
        };
        let since = command.as_ref().map_or(now.monotonic, |waiting| waiting.since);
        let deadline = since + COMMAND_WITHIN;
        self.running = Some(Running { proposal, deadline, command, base });
    }

    fn send_requests(&mut self) {
        let Some(running) = &mut self.running else { return };
        while let Some((node, request)) = running.proposal.poll_request() {
            if let Some(address) = self.peers.address_of(node) {
                self.actions.push_back(Action::Ask(address, request));
            }
        }
    }

    /// Whom to talk to: seeds, the nodes of the newest document, those of older ones that still
    /// have samples, and those that are to be added.
    fn dial(&mut self, now: Now) {
        let seeds = self.seeds.iter().flat_map(|seed| &seed.addresses);
        let mut wanted: BTreeSet<SocketAddr> = seeds.copied().collect();
        let waiting = self.waiting.iter().chain(&self.plans);
        wanted.extend(waiting.flat_map(|waiting| waiting.change.addresses()));
        let running = self.running.as_ref().and_then(|running| running.command.as_ref());
        wanted.extend(running.iter().flat_map(|waiting| waiting.change.addresses()));
        let mut named = BTreeSet::new();
        for document in self.documents.values().rev() {
            for node in &document.nodes {
                // Of a node's addresses only the newest counts.
                if named.insert(node.id) {
                    wanted.extend(node.link.parse::<SocketAddr>());
                }
            }
        }
        let known: BTreeSet<SocketAddr> = self.peers.by_address.keys().copied().collect();
        for address in wanted.difference(&known) {
            self.peers.by_address.insert(*address, Peer::new(now.monotonic));
            self.actions.push_back(Action::Dial(*address));
        }
        for address in known.difference(&wanted) {
            self.peers.by_address.remove(address);
            self.actions.push_back(Action::Leave(*address));
        }
    }

    fn renew_view(&mut self, now: Now) {
        let read_of = |met: &Met| {
            let shard_count = u32::try_from(met.shards.len()).expect("at most 1024");
            (met.read, shard_count)
        };
        let reads = self.peers.last_met.iter().map(|(id, (_, met))| (*id, read_of(met))).collect();
        let fleet = self.history.current(now.unix_ms).map(|placement| {
            let shards_of = |id| {
                let met = self.peers.last_met.get(&id);
                met.map_or(Vec::new(), |(_, met)| met.shards.clone())
            };
            let ids = placement.document().nodes.iter().map(|node| node.id);
            let nodes = ids.map(|id| FleetNode { id, shards: shards_of(id) }).collect();
            Fleet { placement: Arc::clone(placement), nodes }
        });
        let is_same = match (&fleet, &self.view.fleet) {
            (None, None) => true,
            (Some(new), Some(old)) => {
                Arc::ptr_eq(&new.placement, &old.placement) && new.nodes == old.nodes
            }
            _ => false,
        };
        if !is_same {
            self.view.fleet = fleet.map(Arc::new);
        }
        self.view.history = self.history.since(self.oldest_ms(now), self.config.bounds);
        self.view.reads = reads;
    }

    fn reply(&mut self, number: u64, answer: Result<Reply, CommandFault>) {
        self.actions.push_back(Action::Reply(number, answer));
    }
}

mod founding;
mod learned;
mod own;
mod words;

#[cfg(test)]
mod tests;
