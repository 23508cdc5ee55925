//! Against a name server on 127.0.0.1 over UDP and TCP, which says what each test has it say.
//! Nothing sleeps: tests wait for what discovery tells, or for what the server was asked.

use std::collections::BTreeSet;
use std::sync::Mutex;

use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::control::discovery::entry::parse_entries;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Zone {
    /// Name, ttl, data. A name without records is unknown.
    records: Vec<(&'static str, u32, RData)>,
    /// Over UDP: only the bit that says to come back over TCP.
    is_truncated: bool,
    asked_udp: u64,
    asked_tcp: u64,
}

impl Zone {
    fn answer(&mut self, query: &[u8], is_udp: bool) -> Vec<u8> {
        *if is_udp { &mut self.asked_udp } else { &mut self.asked_tcp } += 1;
        let query = Message::from_vec(query).expect("a query");
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        let asked = query.queries[0].clone();
        let name = asked.name().to_ascii().to_lowercase();
        let of_name = self.records.iter().filter(|(owner, ..)| *owner == name);
        if of_name.clone().next().is_none() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.metadata.truncation = is_udp && self.is_truncated;
        for (_, ttl, data) in of_name.filter(|_| !(is_udp && self.is_truncated)) {
            let kind = data.record_type();
            if kind == asked.query_type() || kind == RecordType::CNAME {
                answer.add_answer(Record::from_rdata(asked.name().clone(), *ttl, data.clone()));
            }
        }
        answer.add_query(asked);
        answer.to_vec().expect("an answer")
    }
}

struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    tasks: JoinSet<()>,
}

impl Server {
    async fn start(records: Vec<(&'static str, u32, RData)>) -> Self {
        let zone = Arc::new(Mutex::new(Zone { records, ..Zone::default() }));
        let any = "127.0.0.1:0".parse().expect("an address");
        let mut server = Self { address: any, zone, tasks: JoinSet::new() };
        server.listen().await;
        server
    }

    /// On the same port as before, if there was one.
    async fn listen(&mut self) {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind(self.address).await.expect("a port");
            let port = tcp.local_addr().expect("an address");
            // Another program may have this port for UDP.
            match UdpSocket::bind(port).await {
                Ok(udp) => break (tcp, udp),
                Err(error) => assert_eq!(self.address.port(), 0, "{error}"),
            }
        };
        self.address = udp.local_addr().expect("an address");
        let zone = Arc::clone(&self.zone);
        self.tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, client)) = udp.recv_from(&mut buffer).await {
                let answer = zone.lock().expect("a zone").answer(&buffer[..len], true);
                udp.send_to(&answer, client).await.expect("sent");
            }
        });
        let zone = Arc::clone(&self.zone);
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = tcp.accept().await {
                let zone = Arc::clone(&zone);
                connections.spawn(async move {
                    while let Ok(len) = stream.read_u16().await {
                        let mut query = vec![0; len.into()];
                        stream.read_exact(&mut query).await.expect("a query");
                        let answer = zone.lock().expect("a zone").answer(&query, false);
                        let len = u16::try_from(answer.len()).expect("short");
                        stream.write_u16(len).await.expect("sent");
                        stream.write_all(&answer).await.expect("sent");
                    }
                });
            }
        });
    }

    fn now_says(&self, records: Vec<(&'static str, u32, RData)>) {
        self.zone.lock().expect("a zone").records = records;
    }

    /// Names are asked again at once, unless the test says otherwise.
    fn seeds(&self, entries: &[&str], pace: Pace) -> Seeds {
        let patience = Duration::from_secs(1);
        let options = AskOptions { dns_server: Some(self.address), patience, pace };
        start(parse_entries(entries).expect("good entries"), options, &Handle::current())
    }
}

fn fast() -> Pace {
    let short = Duration::from_millis(10);
    Pace { refresh_min: short, retry_min: short, retry_max: short, ..Pace::default() }
}

fn v4(last: u8) -> RData {
    RData::A(A::new(10, 0, 0, last))
}

fn to(name: &str) -> Name {
    Name::from_ascii(name).expect("a name")
}

/// Waits until the set is this.
async fn become_set(seeds: &Seeds, want: &[&str]) {
    let mut changes = seeds.seeds.clone();
    let reached = tokio::time::timeout(PATIENCE, changes.wait_for(|set| texts(set) == want));
    let is_reached = matches!(reached.await, Ok(Ok(_)));
    assert!(is_reached, "want {want:?}, is {:?}", texts_now(seeds));
}

/// All addresses.
fn texts(set: &[Seed]) -> Vec<String> {
    let addresses = set.iter().flat_map(|seed| &seed.addresses).collect::<BTreeSet<_>>();
    addresses.into_iter().map(ToString::to_string).collect()
}

fn texts_now(seeds: &Seeds) -> Vec<String> {
    texts(&seeds.seeds.borrow())
}

async fn counts_become(seeds: &Seeds, is_so: impl Fn(&DiscoveryCounts) -> bool) {
    let mut counts = seeds.counts.clone();
    let reached = tokio::time::timeout(PATIENCE, counts.wait_for(is_so)).await;
    let is_reached = matches!(reached, Ok(Ok(_)));
    drop(reached);
    assert!(is_reached, "{:?}", *seeds.counts.borrow());
}

/// Red if only one record counts, AAAA is not asked, or the name is not asked again when its time
/// to live is over (with the bounds that people get).
#[tokio::test]
async fn two_addresses_then_others_when_their_time_is_over() {
    let six = || RData::AAAA(AAAA::new(0xfd, 0, 0, 0, 0, 0, 0, 1));
    let host = "node.example.";
    let server = Server::start(vec![(host, 1, v4(1)), (host, 1, v4(2)), (host, 1, six())]).await;
    let seeds = server.seeds(&["node.example:9500", "10.0.0.9:1"], Pace::default());
    assert_eq!(texts_now(&seeds), ["10.0.0.9:1"], "the address is there at once");
    let want = ["10.0.0.1:9500", "10.0.0.2:9500", "10.0.0.9:1", "[fd::1]:9500"];
    become_set(&seeds, &want).await;
    server.now_says(vec![(host, 1, v4(3)), (host, 1, six())]);
    become_set(&seeds, &["10.0.0.3:9500", "10.0.0.9:1", "[fd::1]:9500"]).await;
    assert_eq!(seeds.counts.borrow().changes, 3);
}

/// Red if a cache keeps an answer longer than the schedule wants it: the record lives for a day.
#[tokio::test]
async fn a_long_time_to_live_is_cut_off() {
    let server = Server::start(vec![("node.example.", 86_400, v4(1))]).await;
    let pace = Pace { refresh_max: Duration::from_millis(10), ..fast() };
    let seeds = server.seeds(&["node.example:9500"], pace);
    become_set(&seeds, &["10.0.0.1:9500"]).await;
    server.now_says(vec![("node.example.", 86_400, v4(2))]);
    become_set(&seeds, &["10.0.0.2:9500"]).await;
}

/// Red if the ports of the records are not used, or a service that is not offered (".") is asked.
#[tokio::test]
async fn a_service_has_hosts_with_ports() {
    let name = "_tidegate._tcp.example.";
    let service = |port, host| RData::SRV(SRV::new(0, 0, port, to(host)));
    let hosts = [("a.example.", 0, v4(1)), ("b.example.", 0, v4(2))];
    let records = |service: Vec<RData>| {
        let service = service.into_iter().map(|data| (name, 0, data));
        service.chain(hosts.clone()).collect()
    };
    let both = vec![service(9500, "a.example."), service(9600, "b.example.")];
    let server = Server::start(records(both)).await;
    let seeds = server.seeds(&["srv+_tidegate._tcp.example"], fast());
    become_set(&seeds, &["10.0.0.1:9500", "10.0.0.2:9600"]).await;
    server.now_says(records(vec![service(9700, "b.example.")]));
    become_set(&seeds, &["10.0.0.2:9700"]).await;
    server.now_says(records(vec![service(9700, ".")]));
    counts_become(&seeds, |counts| counts.names_failing == 1).await;
    become_set(&seeds, &["10.0.0.2:9700"]).await;
}

/// Red if NXDOMAIN or silence empties the set, or if the task gives up.
#[tokio::test]
async fn unknown_names_and_a_lost_server_keep_what_was_known() {
    let mut server = Server::start(vec![("node.example.", 0, v4(1))]).await;
    let seeds = server.seeds(&["node.example:9500"], fast());
    become_set(&seeds, &["10.0.0.1:9500"]).await;
    server.now_says(vec![]);
    counts_become(&seeds, |counts| counts.names_failing == 1 && counts.failures >= 3).await;
    assert_eq!(seeds.counts.borrow().changes, 2, "the name, its address");
    server.now_says(vec![("node.example.", 0, v4(2))]);
    become_set(&seeds, &["10.0.0.2:9500"]).await;
    counts_become(&seeds, |counts| counts.names_failing == 0).await;
    server.tasks.shutdown().await;
    counts_become(&seeds, |counts| counts.names_failing == 1).await;
    assert_eq!(seeds.counts.borrow().changes, 3);
    server.now_says(vec![("node.example.", 0, v4(3))]);
    server.listen().await;
    become_set(&seeds, &["10.0.0.3:9500"]).await;
}

/// Red if a truncated answer counts as one.
#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let all: Vec<_> = (1..=200).map(|last| ("node.example.", 300, v4(last))).collect();
    let server = Server::start(all).await;
    server.zone.lock().expect("a zone").is_truncated = true;
    let seeds = server.seeds(&["node.example:9500"], fast());
    let mut changes = seeds.seeds.clone();
    let all = changes.wait_for(|set| set[0].addresses.len() == 200);
    tokio::time::timeout(PATIENCE, all).await.expect("in time").expect("a task");
    let zone = server.zone.lock().expect("a zone");
    assert!(zone.asked_udp > 0 && zone.asked_tcp > 0);
}

/// Red if a CNAME is not followed, or its shorter time to live does not count.
#[tokio::test]
async fn an_alias_is_followed_and_its_time_counts() {
    let alias = |name| ("alias.example.", 0, RData::CNAME(CNAME(to(name))));
    let hosts = [("a.example.", 300, v4(1)), ("b.example.", 300, v4(2))];
    let records = |name| hosts.clone().into_iter().chain([alias(name)]).collect();
    let server = Server::start(records("a.example.")).await;
    let seeds = server.seeds(&["alias.example:9500"], fast());
    become_set(&seeds, &["10.0.0.1:9500"]).await;
    server.now_says(records("b.example."));
    become_set(&seeds, &["10.0.0.2:9500"]).await;
}

/// Red if the task lives on when nobody wants to know.
#[tokio::test]
async fn the_task_ends_with_its_last_receiver() {
    let server = Server::start(vec![]).await;
    let seeds = server.seeds(&["node.example:9500"], fast());
    let mut counts = seeds.counts.clone();
    drop(seeds);
    let ended = async { while counts.changed().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the task ends");
}
