//! DRIVER: asks name servers for what `schedule` wants to know, and publishes the addresses.
//! One tokio task, which ends when nobody holds a receiver. `hickory-resolver` speaks DNS (UDP, TCP
//! where an answer is truncated, CNAME, search list, /etc/hosts); its cache is not used, because
//! `schedule` keeps to the time to live already.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::base::time::{Duration, Instant, monotonic_now};
use crate::control::discovery::entry::{SeedEntry, check_name};
use crate::control::discovery::schedule::{
    AskFault, Discovery, DiscoveryCounts, IN_FLIGHT_MAX, Pace, Question, Records, Reply, Seed,
    SeedEvent,
};
use crate::control::timer::sleep_until;

/// /etc/resolv.conf and /etc/hosts are read again after this time, as hosts change networks.
const RESOLVER_AGE_MAX: Duration = Duration::from_secs(60);

/// Whom to ask, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct AskOptions {
    /// Instead of the name servers of /etc/resolv.conf; /etc/hosts is then not read either.
    pub dns_server: Option<SocketAddr>,
    /// For one question with all retries and all servers.
    pub patience: Duration,
    pub pace: Pace,
}

impl Default for AskOptions {
    fn default() -> Self {
        Self { dns_server: None, patience: Duration::from_secs(20), pace: Pace::default() }
    }
}

/// What discovery tells.
#[derive(Clone, Debug)]
pub struct Seeds {
    /// Sorted by name, each once. It changes only when they do; all that was written is there from
    /// the start, names as yet without addresses.
    pub seeds: watch::Receiver<Arc<Vec<Seed>>>,
    pub counts: watch::Receiver<DiscoveryCounts>,
}

/// Starts the task on `runtime`. A name server that cannot be reached, or an unreadable
/// /etc/resolv.conf, is a failure of the names, told and tried again.
pub fn start(entries: Vec<SeedEntry>, options: AskOptions, runtime: &Handle) -> Seeds {
    let discovery = Discovery::new(monotonic_now(), options.pace, entries);
    let (seeds, seeds_receiver) = watch::channel(Arc::clone(discovery.current()));
    let (counts, counts_receiver) = watch::channel(discovery.counts());
    let task = Task { discovery, options, resolver: None, seeds, counts };
    runtime.spawn(task.run());
    Seeds { seeds: seeds_receiver, counts: counts_receiver }
}

struct Task {
    discovery: Discovery,
    options: AskOptions,
    resolver: Option<(Instant, TokioResolver)>,
    seeds: watch::Sender<Arc<Vec<Seed>>>,
    counts: watch::Sender<DiscoveryCounts>,
}

impl Task {
    async fn run(mut self) {
        let mut asking = JoinSet::new();
        loop {
            let now = monotonic_now();
            while let Some(question) = self.discovery.poll_question(now) {
                let (resolver, patience) = (self.resolver(now), self.options.patience);
                asking.spawn(async move {
                    let reply = ask(resolver, &question, patience).await;
                    (question, reply)
                });
            }
            self.publish();
            let timer = sleep_until(self.discovery.poll_timeout());
            tokio::select! {
                () = self.seeds.closed() => return,
                // At the limit of questions in flight only a reply makes room for what is due.
                () = timer, if asking.len() < IN_FLIGHT_MAX => {}
                Some(done) = asking.join_next() => match done {
                    Ok((question, reply)) => {
                        self.discovery.handle_reply(monotonic_now(), &question, reply);
                    }
                    // Cancelled is said only while the runtime ends.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return,
                    },
                },
            }
        }
    }

    fn publish(&mut self) {
        while let Some(event) = self.discovery.poll_event() {
            match event {
                SeedEvent::Changed(set) => {
                    let addresses: usize = set.iter().map(|seed| seed.addresses.len()).sum();
                    info!(names = set.len(), addresses, "addresses of nodes changed");
                    self.seeds.send_if_modified(|current| {
                        let is_other = *current != set;
                        *current = set;
                        is_other
                    });
                }
                SeedEvent::Failing(question, fault) => {
                    warn!("cannot resolve {question}: {fault}; what was known stays");
                }
                SeedEvent::Recovered(question) => info!("{question} is resolved again"),
            }
        }
        let counts = self.discovery.counts();
        self.counts.send_if_modified(|current| {
            let is_other = *current != counts;
            *current = counts;
            is_other
        });
    }

    /// `None` if the system's configuration cannot be read and never could.
    fn resolver(&mut self, now: Instant) -> Option<TokioResolver> {
        let is_fresh = |made: Instant| now.duration_since(made) < RESOLVER_AGE_MAX;
        if !self.resolver.as_ref().is_some_and(|(made, _)| is_fresh(*made)) {
            match build(self.options.dns_server) {
                Ok(resolver) => self.resolver = Some((now, resolver)),
                Err(error) => {
                    // Told once per change: the questions that it fails tell it from now on.
                    tracing::debug!("cannot read /etc/resolv.conf: {error}");
                }
            }
        }
        self.resolver.as_ref().map(|(_, resolver)| resolver.clone())
    }
}

fn build(dns_server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match dns_server {
        None => TokioResolver::builder_tokio()?,
        Some(address) => builder_for(address),
    };
    // The shortest time to live on the way to an address counts, that of a CNAME too.
    builder.options_mut().preserve_intermediates = true;
    builder.build()
}

fn builder_for(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    builder
}

async fn ask(resolver: Option<TokioResolver>, question: &Question, patience: Duration) -> Reply {
    let look_up = async |name: &str, kind: RecordType| match &resolver {
        None => Err(AskFault::Server),
        Some(resolver) => tokio::time::timeout(patience, look_up(resolver, name, kind))
            .await
            .unwrap_or(Err(AskFault::Timeout)),
    };
    match question {
        Question::Addresses(name) => {
            let (v4, v6) =
                tokio::join!(look_up(name, RecordType::A), look_up(name, RecordType::AAAA));
            Reply::Addresses { v4: pick(v4, address), v6: pick(v6, address) }
        }
        Question::Service(name) => {
            let records = look_up(name, RecordType::SRV).await;
            Reply::Service(pick(records, host_and_port))
        }
    }
}

/// All records of the answer, and the shortest time to live among them.
async fn look_up(resolver: &TokioResolver, name: &str, kind: RecordType) -> Records<RData> {
    // Asked when its time is over: an older answer is not wanted, whoever kept it.
    resolver.clear_cache();
    let answer = resolver.lookup(name, kind).await.map_err(|error| fault_of(&error))?;
    let records = answer.answers();
    let ttl_secs = records.iter().map(|record| record.ttl).min().unwrap_or(0);
    let data = records.iter().map(|record| record.data.clone()).collect();
    Ok((data, Duration::from_secs(u64::from(ttl_secs))))
}

fn pick<T>(records: Records<RData>, part: fn(&RData) -> Option<T>) -> Records<T> {
    records.map(|(data, ttl)| (data.iter().filter_map(part).collect(), ttl))
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// A host "." says that the service is not offered (RFC 2782); other bad names are left out too.
fn host_and_port(data: &RData) -> Option<(Arc<str>, u16)> {
    let RData::SRV(service) = data else { return None };
    let name = check_name(&service.target.to_ascii()).ok()?;
    (service.port != 0).then_some((name, service.port))
}

fn fault_of(error: &NetError) -> AskFault {
    match error {
        NetError::Timeout => AskFault::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(answer)) => match answer.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => AskFault::NoRecords,
            _ => AskFault::Server,
        },
        _ => AskFault::Server,
    }
}

#[cfg(test)]
mod tests;
