//! Which name is asked when, and what the answers say together. Pure: replies go in with the time,
//! questions and events come out. O(questions) a call, and there are few.
//! A name that fails keeps its last good answer; how it fails is told once, not with every try.
//! Not here: asking (`driver`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::time::{Duration, Instant};
use crate::control::discovery::entry::{SeedEntry, Target};

/// Records of one answer that count; a fleet is smaller, and memory is bounded by it.
pub const RECORDS_MAX: usize = 1024;
/// Questions without a reply at any time.
pub const IN_FLIGHT_MAX: usize = 16;

/// When names are asked again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bounds of the records' own time to live.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// After a failure; doubled with each further one, up to the maximum.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refresh_min: Duration::from_secs(1),
            refresh_max: Duration::from_secs(300),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
        }
    }
}

/// What a name server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// A and AAAA.
    Addresses(Arc<str>),
    /// SRV.
    Service(Arc<str>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskFault {
    /// NXDOMAIN, or no record of the types asked for, or an SRV record that says "not here".
    NoRecords,
    /// Nobody answered in time.
    Timeout,
    /// The name server could not be reached, refused, failed, or said what makes no sense.
    Server,
}

/// One type's part of a reply: records and their time to live.
pub type Records<T> = Result<(Vec<T>, Duration), AskFault>;

/// What came of a question.
#[derive(Clone, Debug)]
pub enum Reply {
    Addresses {
        v4: Records<IpAddr>,
        v6: Records<IpAddr>,
    },
    /// Hosts and ports.
    Service(Records<(Arc<str>, u16)>),
}

/// Where a node may be asked: one host and port of the list, or of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// As people write it: `HOST:PORT`; `srv+NAME` while the service's hosts are not known.
    pub name: Arc<str>,
    /// Ascending, each once; none while they are not known. Of one node usually, such as its IPv4
    /// and its IPv6 address.
    pub addresses: Vec<SocketAddr>,
}

impl Seed {
    /// An address that needs no name server.
    #[cfg(test)]
    pub fn at(address: SocketAddr) -> Self {
        Self { name: address.to_string().into(), addresses: vec![address] }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedEvent {
    /// The seeds, or their addresses, are others: sorted by name, each name once.
    Changed(Arc<Vec<Seed>>),
    /// A question began to fail, or fails in another way.
    Failing(Question, AskFault),
    /// A question that failed is answered.
    Recovered(Question),
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryCounts {
    /// Replies, good and bad.
    pub replies: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Names that fail now.
    pub names_failing: u64,
    /// Times that the set changed.
    pub changes: u64,
    /// Addresses that are known now.
    pub addresses: u64,
}

#[derive(Debug)]
struct Asked {
    /// `None` while a reply is waited for.
    due: Option<Instant>,
    failures_in_row: u32,
    fault: Option<AskFault>,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    hosts: Vec<(Arc<str>, u16)>,
}

/// The addresses of each name.
type Found = BTreeMap<Arc<str>, BTreeSet<SocketAddr>>;

/// All entries of a list, over time.
#[derive(Debug)]
pub struct Discovery {
    entries: Vec<SeedEntry>,
    pace: Pace,
    questions: BTreeMap<Question, Asked>,
    current: Arc<Vec<Seed>>,
    events: VecDeque<SeedEvent>,
    counts: DiscoveryCounts,
}

impl Discovery {
    /// Plain addresses, and which names there are, are told at once, by the first
    /// [`SeedEvent::Changed`].
    pub fn new(now: Instant, pace: Pace, entries: Vec<SeedEntry>) -> Self {
        let mut discovery = Self {
            entries,
            pace,
            questions: BTreeMap::new(),
            current: Arc::default(),
            events: VecDeque::new(),
            counts: DiscoveryCounts::default(),
        };
        discovery.settle(now);
        discovery
    }

    /// The next question that is due; its reply goes to [`Self::handle_reply`].
    pub fn poll_question(&mut self, now: Instant) -> Option<Question> {
        if self.questions.values().filter(|asked| asked.due.is_none()).count() >= IN_FLIGHT_MAX {
            return None;
        }
        // The longest overdue first, so that nobody starves behind names with short lives.
        let due =
            self.questions.iter_mut().filter(|(_, asked)| asked.due.is_some_and(|d| d <= now));
        let (question, asked) = due.min_by_key(|(_, asked)| asked.due)?;
        asked.due = None;
        Some(question.clone())
    }

    /// When to call [`Self::poll_question`] again, if no reply comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.questions.values().filter_map(|asked| asked.due).min()
    }

    pub fn poll_event(&mut self) -> Option<SeedEvent> {
        self.events.pop_front()
    }

    /// The set as it is now.
    pub fn current(&self) -> &Arc<Vec<Seed>> {
        &self.current
    }

    pub fn counts(&self) -> DiscoveryCounts {
        let names_failing = self.questions.values().filter(|asked| asked.fault.is_some()).count();
        let addresses: usize = self.current.iter().map(|seed| seed.addresses.len()).sum();
        let (names_failing, addresses) = (names_failing as u64, addresses as u64);
        DiscoveryCounts { names_failing, addresses, ..self.counts }
    }

    /// A reply to a question that nobody asks any more changes nothing.
    pub fn handle_reply(&mut self, now: Instant, question: &Question, reply: Reply) {
        let Some(asked) = self.questions.get_mut(question) else { return };
        self.counts.replies += 1;
        match asked.apply(reply) {
            Ok(ttl) => {
                asked.failures_in_row = 0;
                let wait = ttl.clamp(self.pace.refresh_min, self.pace.refresh_max);
                asked.due = Some(now + wait);
                if asked.fault.take().is_some() {
                    self.events.push_back(SeedEvent::Recovered(question.clone()));
                }
            }
            Err(fault) => {
                self.counts.failures += 1;
                let doublings = asked.failures_in_row.min(16);
                asked.failures_in_row = asked.failures_in_row.saturating_add(1);
                let wait = self.pace.retry_min.saturating_mul(1 << doublings);
                asked.due = Some(now + wait.min(self.pace.retry_max));
                if asked.fault.replace(fault) != Some(fault) {
                    self.events.push_back(SeedEvent::Failing(question.clone(), fault));
                }
            }
        }
        self.settle(now);
    }

    /// Asks what the entries and the services' answers name and nothing else; tells a new set.
    fn settle(&mut self, now: Instant) {
        let mut wanted = BTreeSet::new();
        let mut found = Found::new();
        for entry in &self.entries {
            match &entry.target {
                Target::Address(address) => {
                    found.entry(address.to_string().into()).or_default().insert(*address);
                }
                Target::Host { name, port } => {
                    self.add_host((name, *port), &mut wanted, &mut found);
                }
                Target::Service { name } => {
                    let question = Question::Service(Arc::clone(name));
                    let hosts = self.questions.get(&question).map_or(&[][..], |a| &a.hosts);
                    for (host, port) in hosts {
                        self.add_host((host, *port), &mut wanted, &mut found);
                    }
                    if hosts.is_empty() {
                        found.entry(Arc::clone(&entry.text)).or_default();
                    }
                    wanted.insert(question);
                }
            }
        }
        self.questions.retain(|question, _| wanted.contains(question));
        for question in wanted {
            self.questions.entry(question).or_insert_with(|| Asked::new(now));
        }
        let seed = |(name, addresses): (Arc<str>, BTreeSet<SocketAddr>)| {
            let addresses = addresses.into_iter().collect();
            Seed { name, addresses }
        };
        let set: Vec<Seed> = found.into_iter().map(seed).collect();
        if set != *self.current {
            self.current = Arc::new(set);
            self.counts.changes += 1;
            self.events.push_back(SeedEvent::Changed(Arc::clone(&self.current)));
        }
    }

    fn add_host(
        &self,
        (name, port): (&Arc<str>, u16),
        wanted: &mut BTreeSet<Question>,
        found: &mut Found,
    ) {
        let question = Question::Addresses(Arc::clone(name));
        let addresses = found.entry(format!("{name}:{port}").into()).or_default();
        if let Some(asked) = self.questions.get(&question) {
            let ips = asked.v4.iter().chain(&asked.v6);
            addresses.extend(ips.map(|ip| SocketAddr::new(*ip, port)));
        }
        wanted.insert(question);
    }
}

impl Asked {
    fn new(now: Instant) -> Self {
        Self {
            due: Some(now),
            failures_in_row: 0,
            fault: None,
            v4: Vec::new(),
            v6: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Takes over what is good; how long it is.
    fn apply(&mut self, reply: Reply) -> Result<Duration, AskFault> {
        match reply {
            Reply::Service(records) => {
                let (hosts, ttl) = records.and_then(check_some)?;
                self.hosts = hosts;
                Ok(ttl)
            }
            Reply::Addresses { v4, v6 } => {
                let (v4, v6) = (v4.and_then(check_some), v6.and_then(check_some));
                let ttl = match (&v4, &v6) {
                    (Ok((_, one)), Ok((_, other))) => *one.min(other),
                    (Ok((_, ttl)), Err(_)) | (Err(_), Ok((_, ttl))) => *ttl,
                    // "There are none" of one type and no answer for the other decides nothing.
                    (Err(AskFault::NoRecords), Err(fault)) | (Err(fault), Err(_)) => {
                        return Err(*fault);
                    }
                };
                keep_good(&mut self.v4, v4);
                keep_good(&mut self.v6, v6);
                Ok(ttl)
            }
        }
    }
}

/// "There are none" empties a type only if the other has some; no answer leaves what was.
fn keep_good(addresses: &mut Vec<IpAddr>, records: Records<IpAddr>) {
    match records {
        Ok((found, _)) => *addresses = found,
        Err(AskFault::NoRecords) => addresses.clear(),
        Err(AskFault::Timeout | AskFault::Server) => {}
    }
}

fn check_some<T>((mut found, ttl): (Vec<T>, Duration)) -> Records<T> {
    found.truncate(RECORDS_MAX);
    if found.is_empty() { Err(AskFault::NoRecords) } else { Ok((found, ttl)) }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(name) => write!(f, "{name} (A, AAAA)"),
            Self::Service(name) => write!(f, "{name} (SRV)"),
        }
    }
}

impl fmt::Display for AskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRecords => "no such record; correct the name in --nodes, or add the record",
            Self::Timeout => "no answer in time; check that the name server can be reached",
            Self::Server => "the name server refuses or fails; look at its log",
        })
    }
}

#[cfg(test)]
mod tests;
