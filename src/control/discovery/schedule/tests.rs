//! Scripts of replies and times: what is asked when, and what is told.

use super::*;
use crate::base::time::monotonic_now;
use crate::control::discovery::entry::parse_entries;

const SECOND: Duration = Duration::from_secs(1);

struct Script {
    start: Instant,
    discovery: Discovery,
}

impl Script {
    fn new(entries: &[&str]) -> Self {
        let start = monotonic_now();
        let entries = parse_entries(entries).expect("good entries");
        Self { start, discovery: Discovery::new(start, Pace::default(), entries) }
    }

    fn at(&self, secs: u32) -> Instant {
        self.start + SECOND * secs
    }

    /// Asks what is due; exactly these.
    #[track_caller]
    fn asks(&mut self, secs: u32, want: &[Question]) {
        let now = self.at(secs);
        let asked: Vec<_> = std::iter::from_fn(|| self.discovery.poll_question(now)).collect();
        assert_eq!(asked, want, "at {secs} s");
    }

    fn replies(&mut self, secs: u32, question: &Question, reply: Reply) {
        self.discovery.handle_reply(self.at(secs), question, reply);
    }

    #[track_caller]
    fn is_due(&self, secs: u32) {
        assert_eq!(self.discovery.poll_timeout(), Some(self.at(secs)));
    }

    fn events(&mut self) -> Vec<SeedEvent> {
        std::iter::from_fn(|| self.discovery.poll_event()).collect()
    }

    #[track_caller]
    fn has(&self, want: &[&str]) {
        let addresses = self.discovery.current().iter().flat_map(|seed| &seed.addresses);
        let addresses: BTreeSet<_> = addresses.collect();
        let have: Vec<String> = addresses.into_iter().map(ToString::to_string).collect();
        assert_eq!(have, want);
    }
}

impl Script {
    fn names(&self) -> Vec<String> {
        self.discovery.current().iter().map(|seed| seed.name.to_string()).collect()
    }
}

fn host(name: &str) -> Question {
    Question::Addresses(name.into())
}

fn service(name: &str) -> Question {
    Question::Service(name.into())
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn found(v4: &[&str], v6: &[&str], ttl_secs: u64) -> Reply {
    let ttl = Duration::from_secs(ttl_secs);
    Reply::Addresses { v4: Ok((ips(v4), ttl)), v6: Ok((ips(v6), ttl * 2)) }
}

fn failed(fault: AskFault) -> Reply {
    Reply::Addresses { v4: Err(fault), v6: Err(fault) }
}

fn hosts(list: &[(&str, u16)], ttl_secs: u64) -> Reply {
    let list = list.iter().map(|(name, port)| ((*name).into(), *port)).collect();
    Reply::Service(Ok((list, Duration::from_secs(ttl_secs))))
}

/// Red if plain addresses wait for a question, are not sorted, or are told twice.
#[test]
fn addresses_are_there_at_once_sorted_and_each_once() {
    let mut script = Script::new(&["[::1]:2", "10.0.0.2:1", "10.0.0.1:9"]);
    script.asks(0, &[]);
    assert_eq!(script.discovery.poll_timeout(), None);
    script.has(&["10.0.0.1:9", "10.0.0.2:1", "[::1]:2"]);
    assert_eq!(script.events(), [SeedEvent::Changed(Arc::clone(script.discovery.current()))]);
    assert_eq!(script.events(), []);
}

/// Red without the lower or the upper bound, or with the larger of two times to live.
#[test]
fn names_are_asked_again_by_their_time_to_live() {
    #[track_caller]
    fn check(ttl_secs: u64, want_secs: u32) {
        let mut script = Script::new(&["a:1"]);
        script.asks(0, &[host("a")]);
        assert_eq!(script.discovery.poll_timeout(), None, "one at a time");
        script.replies(2, &host("a"), found(&["10.0.0.1"], &["::1"], ttl_secs));
        script.is_due(2 + want_secs);
        script.asks(2 + want_secs - 1, &[]);
        script.asks(2 + want_secs, &[host("a")]);
    }
    check(0, 1);
    check(1, 1);
    check(60, 60);
    check(300, 300);
    check(301, 300);
    check(u64::from(u32::MAX), 300);
}

/// Red if a failure empties the set, is told again with each try, or is tried again too soon.
#[test]
fn a_failure_keeps_the_last_good_answer_and_is_told_once() {
    let mut script = Script::new(&["a:1"]);
    script.asks(0, &[host("a")]);
    assert_eq!(script.events().len(), 1, "there is a name");
    script.replies(0, &host("a"), found(&["10.0.0.1"], &[], 5));
    assert_eq!(script.events().len(), 1, "it has an address");
    let (mut now, mut told) = (5, Vec::new());
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        script.asks(now, &[host("a")]);
        script.replies(now, &host("a"), failed(AskFault::Timeout));
        now += wait;
        script.is_due(now);
        told.extend(script.events());
    }
    assert_eq!(told, [SeedEvent::Failing(host("a"), AskFault::Timeout)]);
    script.has(&["10.0.0.1:1"]);
    script.replies(now, &host("a"), failed(AskFault::NoRecords));
    assert_eq!(script.events(), [SeedEvent::Failing(host("a"), AskFault::NoRecords)]);
    script.has(&["10.0.0.1:1"]);
    let counts = script.discovery.counts();
    let want =
        DiscoveryCounts { replies: 9, failures: 8, names_failing: 1, changes: 2, addresses: 1 };
    assert_eq!(counts, want);
    // The same answer as before it failed: told as recovered, not as a change; patience is new.
    script.replies(now, &host("a"), found(&["10.0.0.1"], &[], 5));
    assert_eq!(script.events(), [SeedEvent::Recovered(host("a"))]);
    assert_eq!(script.discovery.counts().names_failing, 0);
    script.asks(now + 5, &[host("a")]);
    script.replies(now + 5, &host("a"), failed(AskFault::Server));
    script.is_due(now + 6);
}

/// Red if a missing answer of one type empties it, or if "there are none" of it leaves it.
#[test]
fn one_type_may_have_none_or_fail() {
    let ttl = SECOND * 5;
    let mut script = Script::new(&["a:1"]);
    script.replies(0, &host("a"), found(&["10.0.0.1"], &["::1"], 5));
    script.has(&["10.0.0.1:1", "[::1]:1"]);
    let v4 = Ok((ips(&["10.0.0.2"]), ttl));
    script.replies(1, &host("a"), Reply::Addresses { v4, v6: Err(AskFault::Timeout) });
    script.has(&["10.0.0.2:1", "[::1]:1"]);
    let v6 = Ok((ips(&["::2"]), ttl));
    script.replies(2, &host("a"), Reply::Addresses { v4: Err(AskFault::NoRecords), v6 });
    script.has(&["[::2]:1"]);
    // Nothing of either type is a failure, whether said or empty.
    let none = Reply::Addresses { v4: Err(AskFault::NoRecords), v6: Ok((vec![], ttl)) };
    script.replies(3, &host("a"), none);
    script.has(&["[::2]:1"]);
    assert_eq!(script.discovery.counts().names_failing, 1);
    let v6 = Err(AskFault::Timeout);
    script.replies(4, &host("a"), Reply::Addresses { v4: Err(AskFault::NoRecords), v6 });
    assert_eq!(script.events().pop(), Some(SeedEvent::Failing(host("a"), AskFault::Timeout)));
}

/// Red if hosts of a service are not asked, keep being asked when it no longer names them, or if a
/// late reply about one of these brings it back.
#[test]
fn a_service_names_hosts() {
    let name = "_tidegate._tcp.example";
    let mut script = Script::new(&["srv+_tidegate._tcp.example", "b:7"]);
    script.asks(0, &[host("b"), service(name)]);
    // Red if what is not resolved yet is not told: a fleet would be founded without it.
    assert_eq!(script.names(), ["b:7", "srv+_tidegate._tcp.example"]);
    script.replies(0, &host("b"), found(&["10.0.0.2"], &[], 300));
    script.replies(0, &service(name), hosts(&[("a", 1), ("b", 2), ("a", 3)], 10));
    script.asks(0, &[host("a")]);
    script.has(&["10.0.0.2:2", "10.0.0.2:7"]);
    script.replies(1, &host("a"), found(&["10.0.0.1"], &[], 300));
    script.has(&["10.0.0.1:1", "10.0.0.1:3", "10.0.0.2:2", "10.0.0.2:7"]);
    assert_eq!(script.names(), ["a:1", "a:3", "b:2", "b:7"]);
    script.asks(10, &[service(name)]);
    script.replies(10, &service(name), hosts(&[("b", 7)], 10));
    script.has(&["10.0.0.2:7"]);
    script.replies(11, &host("a"), found(&["10.0.0.9"], &[], 300));
    script.has(&["10.0.0.2:7"]);
    script.asks(20, &[service(name)]);
    script.replies(20, &service(name), hosts(&[], 10));
    script.has(&["10.0.0.2:7"]);
    assert_eq!(script.discovery.counts().names_failing, 1);
    script.asks(400, &[service(name), host("b")]);
}

/// Red without the limits of questions in flight and of records.
#[test]
fn what_a_name_server_says_is_bounded() {
    let names: Vec<String> = (0..IN_FLIGHT_MAX + 4).map(|n| format!("n{n:02}:1")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut script = Script::new(&names);
    let asked = std::iter::from_fn(|| script.discovery.poll_question(script.start)).count();
    assert_eq!(asked, IN_FLIGHT_MAX);
    let many = (0..100_000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
    let v6 = Err(AskFault::NoRecords);
    script.replies(0, &host("n00"), Reply::Addresses { v4: Ok((many, SECOND)), v6 });
    assert_eq!(script.discovery.current()[0].addresses.len(), RECORDS_MAX);
    script.asks(0, &[host("n16")]);
}
