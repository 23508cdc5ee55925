//! DRIVER: a query's questions to the owners of what it may match, and their answers put together.
//!
//! All owners are asked at once, also replicas of each other: so a node that is away costs nothing
//! but the time until that is known, at most the health timeout, and what one replica missed
//! another has. Who does not answer is left out; what is lost by that is said ([`Found`]).
//! Memory: the query's limits, times the replication while replicas are not merged yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hashbrown::HashMap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::time::{Instant, monotonic_now};
use crate::control::gather::{
    GatherFault, GatherLimits, Question, Runs, SeriesRun, check_series_count, into_series,
    sort_by_labels,
};
use crate::control::reads::absences::Absences;
use crate::control::reads::client::NodeClient;
use crate::control::reads::fault::ReadFault;
use crate::control::reads::own_hints::OwnHints;
use crate::control::reads::selecting::Piece;
use crate::control::reads::view::{Answered, ReadNode, ReadView};
use crate::control::source::Found;
use crate::model::matcher::Matcher;
use crate::model::placement::NodeId;
use crate::model::sample::Sample;
use crate::query::merge::{Merger, SampleBudget, merge_replicas};
use crate::wire::hints::Lacking;
use crate::wire::link::{Dialler, SilenceLimits};
use crate::wire::proof::LinkSecret;
use crate::wire::select::{SelectAnswer, SelectFault, SelectRequest, SelectWant};

/// Series that are merged before other work of the thread gets its turn.
const SERIES_PER_TURN: usize = 64;

/// Nodes of a placement are met within so many health timeouts, if they are there: 8 s.
const MEET_WITHIN_TIMEOUTS: u32 = 4;

/// The fleet, to be read. Cheap to clone.
#[derive(Clone)]
pub struct FleetReads {
    all: Arc<FleetClients>,
}

struct FleetClients {
    view: watch::Receiver<Arc<ReadView>>,
    gateway: u128,
    hints: Option<OwnHints>,
    silence: SilenceLimits,
    secret: LinkSecret,
    /// When a placement was seen first.
    placed_at: OnceLock<Instant>,
    clients: Mutex<HashMap<NodeId, (ReadNode, NodeClient)>>,
}

/// What answers of one node come to.
trait Collector: Send + 'static {
    fn take(&mut self, piece: Piece) -> Result<(), GatherFault>;
}

/// Why a node's answer is not whole.
enum AskFault {
    /// The node's fault: others may do.
    Node(ReadFault),
    /// The query's.
    Query(GatherFault),
}

/// What the nodes said.
struct Collected<C> {
    /// Ascending by node.
    parts: Vec<C>,
    lacking: Vec<String>,
}

impl FleetReads {
    /// Reads the fleet of `view` as gateway `gateway`, which keeps `hints` for nodes and tells them
    /// so. `silence.unhealthy_after` is the health timeout.
    pub fn new(
        view: watch::Receiver<Arc<ReadView>>,
        (gateway, hints): (u128, Option<OwnHints>),
        silence: SilenceLimits,
        secret: LinkSecret,
    ) -> Self {
        let (clients, placed_at) = Default::default();
        let hints = hints.map(|own| OwnHints { view: Some(view.clone()), ..own });
        let all = FleetClients { view, gateway, hints, silence, secret, placed_at, clients };
        Self { all: Arc::new(all) }
    }

    /// Dials nodes as they become known, and leaves those that are no longer, until nobody changes
    /// the view any more. Without it a node is dialled when it is asked first.
    pub async fn follow(self) {
        let mut view = self.all.view.clone();
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            self.is_settled(&now);
            self.lock().retain(|id, _| now.nodes.iter().any(|node| node.id == *id));
            for node in &now.nodes {
                if let Err(error) = self.client(&now, node.id) {
                    tracing::warn!(%error, "cannot dial a node");
                }
            }
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    /// The node, if it is known where it is.
    ///
    /// # Errors
    /// [`ReadFault::Unreachable`] with what is missing.
    pub fn client(&self, view: &ReadView, id: NodeId) -> Result<NodeClient, ReadFault> {
        let node = view.nodes.iter().find(|node| node.id == id);
        let text = "its address is not known, as no node has told it yet";
        let node = node.ok_or_else(|| ReadFault::Unreachable(text.into()))?;
        let mut clients = self.lock();
        if let Some((known, client)) = clients.get(&id)
            && known == node
        {
            return Ok(client.clone());
        }
        let client = self.start(node).map_err(|fault| ReadFault::Unreachable(fault.to_string()))?;
        clients.insert(id, (*node, client.clone()));
        Ok(client)
    }

    /// Whether a placement has been known for so long that whoever can be met was met.
    pub(super) fn is_settled(&self, view: &ReadView) -> bool {
        view.history.newest().is_some() && {
            let now = monotonic_now();
            let placed_at = *self.all.placed_at.get_or_init(|| now);
            placed_at + MEET_WITHIN_TIMEOUTS * self.all.silence.unhealthy_after <= now
        }
    }

    /// The fleet, as it is now.
    pub fn view(&self) -> Arc<ReadView> {
        Arc::clone(&self.all.view.borrow())
    }

    /// As [`crate::control::gather::gather_samples`].
    pub async fn samples(
        &self,
        question: &Question,
        limits: GatherLimits,
    ) -> Result<Found<(Vec<SeriesRun>, Merger)>, GatherFault> {
        let view = self.view();
        let held_max = limits.samples_max.saturating_mul(view.replication_max(question.window));
        let held = SampleBudget::new(held_max);
        let empty = || Runs::new(question.window, limits, held.clone());
        let asked = (question, SelectWant::Samples, limits);
        let Collected { parts, lacking } = self.collect(&view, asked, empty).await?;
        let mut replicas: HashMap<Box<[u8]>, Vec<Vec<Sample>>> = HashMap::new();
        for SeriesRun { labels, run } in parts.into_iter().flat_map(Runs::into_series) {
            replicas.entry(labels).or_default().push(run);
        }
        check_series_count(replicas.len(), limits)?;
        let budget = SampleBudget::new(limits.samples_max);
        let mut series = Vec::with_capacity(replicas.len());
        for (index, (labels, runs)) in replicas.into_iter().enumerate() {
            let run = merge_replicas(runs);
            budget.take(run.len() as u64)?;
            series.push(SeriesRun { labels, run });
            if index % SERIES_PER_TURN == SERIES_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        sort_by_labels(&mut series);
        Ok(Found { value: (series, Merger::within(budget)), lacking })
    }

    /// As [`crate::control::gather::gather_labels`].
    pub async fn labels(
        &self,
        question: &Question,
        limits: GatherLimits,
    ) -> Result<Found<Vec<Box<[u8]>>>, GatherFault> {
        let asked = (question, SelectWant::Labels, limits);
        let empty = || LabelSets { found: BTreeSet::new(), limits };
        let Collected { parts, lacking } = self.collect(&self.view(), asked, empty).await?;
        let all: BTreeSet<_> = parts.into_iter().flat_map(|part| part.found).collect();
        check_series_count(all.len(), limits)?;
        let mut value: Vec<_> = all.into_iter().collect();
        crate::control::gather::sort_label_sets(&mut value);
        Ok(Found { value, lacking })
    }

    /// As [`crate::control::gather::gather_strings`].
    pub async fn strings(
        &self,
        question: &Question,
        want: &SelectWant,
        limits: GatherLimits,
    ) -> Result<Found<BTreeSet<Box<str>>>, GatherFault> {
        let asked = (question, want.clone(), limits);
        let empty = || Strings { found: BTreeSet::new(), limits };
        let Collected { parts, lacking } = self.collect(&self.view(), asked, empty).await?;
        let value: BTreeSet<_> = parts.into_iter().flat_map(|part| part.found).collect();
        check_series_count(value.len(), limits)?;
        Ok(Found { value, lacking })
    }

    /// Asks every owner for every group of matchers, one group after the other.
    async fn collect<C: Collector>(
        &self,
        view: &ReadView,
        (question, want, limits): (&Question, SelectWant, GatherLimits),
        empty: impl Fn() -> C,
    ) -> Result<Collected<C>, GatherFault> {
        if view.history.newest().is_none() {
            return Err(GatherFault::Nobody("the placement is not known yet; ask again".into()));
        }
        let mut by_node = BTreeMap::new();
        let mut absences = Absences::default();
        for group in &question.groups {
            let plan = view.plan(question.tenant, group, question.window);
            let request = Arc::new(select_request(question, group, &want, limits));
            let mut asked = JoinSet::new();
            for id in plan.nodes.iter().copied() {
                // Before it is asked: what it gets meanwhile may be too late for the answer.
                absences.add_lacking(id, self.own_lacking(id));
                match self.client(view, id) {
                    Ok(client) => {
                        let collector = by_node.remove(&id).unwrap_or_else(&empty);
                        asked.spawn(ask((id, client), Arc::clone(&request), collector));
                    }
                    Err(fault) => _ = absences.away.insert(id, fault),
                }
            }
            let mut answered = Answered::default();
            while let Some(done) = asked.join_next().await {
                let (id, collector, outcome) = done.map_err(|_| GatherFault::ShardGone)?;
                by_node.insert(id, collector);
                match outcome {
                    Ok((lacking, epoch)) => {
                        absences.newest_epoch = absences.newest_epoch.max(epoch);
                        answered.all.insert(id);
                        absences.add_lacking(id, lacking);
                    }
                    Err(AskFault::Node(fault)) => _ = absences.away.insert(id, fault),
                    Err(AskFault::Query(fault)) => return Err(fault),
                }
            }
            if answered.all.is_empty() && !plan.nodes.is_empty() {
                return Err(GatherFault::Nobody(absences.names()));
            }
            let is_damaged =
                |id: &&NodeId| absences.lacking.get(id).is_some_and(|it| it.lost_blocks > 0);
            answered.damaged = answered.all.iter().filter(is_damaged).copied().collect();
            if answered.all.len() < plan.nodes.len() || !answered.damaged.is_empty() {
                let is_whole = |id: &&NodeId| !absences.lacking.contains_key(id);
                answered.whole = answered.all.iter().filter(is_whole).copied().collect();
                absences.add_slots(plan.slots_missing(&answered));
            }
        }
        let parts = by_node.into_values().collect();
        Ok(Collected { parts, lacking: absences.describe(view) })
    }

    /// What this gateway keeps for a node.
    pub(super) fn own_lacking(&self, id: NodeId) -> Lacking {
        self.all.hints.as_ref().map(|own| own.lacking(id)).unwrap_or_default()
    }

    /// The nodes for which this gateway keeps samples, and how many.
    pub(super) fn own_waiting(&self) -> Vec<(NodeId, u64)> {
        self.all.hints.as_ref().map(OwnHints::waiting).unwrap_or_default()
    }

    fn start(&self, node: &ReadNode) -> io::Result<NodeClient> {
        let FleetClients { gateway, hints, silence, secret, .. } = &*self.all;
        let dialler = Dialler {
            gateway: *gateway,
            gateway_shard: 0,
            gateway_shard_count: 1,
            node_expected: node.id.0,
            node_shard: node.shard_count,
        };
        let (silence, secret) = (*silence, secret.clone());
        match hints.clone() {
            Some(hints) => {
                NodeClient::start_telling(hints, (node.address, dialler), silence, secret)
            }
            None => NodeClient::start(node.address, dialler, silence, secret),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, (ReadNode, NodeClient)>> {
        self.all.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn select_request(
    question: &Question,
    group: &[Matcher],
    want: &SelectWant,
    limits: GatherLimits,
) -> SelectRequest {
    SelectRequest {
        tenant: question.tenant,
        matchers: group.to_vec(),
        start_ms: question.window.start_ms,
        end_ms: question.window.end_ms,
        want: want.clone(),
        series_max: limits.series_max,
    }
}

/// Asks one node: what it lacks, and its placement. What came before a fault is the node's all the
/// same, and is kept.
async fn ask<C: Collector>(
    (id, client): (NodeId, NodeClient),
    request: Arc<SelectRequest>,
    mut collector: C,
) -> (NodeId, C, Result<(Lacking, u64), AskFault>) {
    let outcome = ask_into(&client, &request, &mut collector).await;
    (id, collector, outcome)
}

async fn ask_into(
    client: &NodeClient,
    request: &SelectRequest,
    collector: &mut impl Collector,
) -> Result<(Lacking, u64), AskFault> {
    let mut stream = client.select(request).await.map_err(AskFault::of)?;
    while let Some(piece) = stream.next().await.map_err(AskFault::of)? {
        collector.take(piece).map_err(AskFault::Query)?;
    }
    Ok((stream.lacking(), stream.placement_epoch()))
}

impl AskFault {
    fn of(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Select(SelectFault::BadRegex(text)) => {
                Self::Query(GatherFault::BadRegex(text))
            }
            ReadFault::Select(SelectFault::TooManySeries { series_max }) => {
                Self::Query(GatherFault::TooManySeries { series_max })
            }
            fault => Self::Node(fault),
        }
    }
}

impl Collector for Runs {
    fn take(&mut self, piece: Piece) -> Result<(), GatherFault> {
        Runs::take(self, piece.layer, piece.answer)
    }
}

struct LabelSets {
    found: BTreeSet<Box<[u8]>>,
    limits: GatherLimits,
}

impl Collector for LabelSets {
    fn take(&mut self, piece: Piece) -> Result<(), GatherFault> {
        self.found.extend(into_series(piece.answer).into_iter().map(|series| series.labels));
        check_series_count(self.found.len(), self.limits)
    }
}

struct Strings {
    found: BTreeSet<Box<str>>,
    limits: GatherLimits,
}

impl Collector for Strings {
    fn take(&mut self, piece: Piece) -> Result<(), GatherFault> {
        if let SelectAnswer::Strings(strings) = piece.answer {
            self.found.extend(strings);
        }
        check_series_count(self.found.len(), self.limits)
    }
}
