//! One entry of `--nodes`: text -> an address, a name to look up, or a service to look up.
//! In: `10.0.0.1:9500`, `[fe80::1]:9500`, `node-1.example:9500`, `srv+_tidegate._tcp.example`.
//! Not here: what a name server answers (`schedule`, `driver`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Entries of one list; more is a mistake, or wants a service name.
pub const ENTRIES_MAX: usize = 1024;
/// A name in a query is at most 253 letters (RFC 1035, 255 bytes with lengths and the root).
const NAME_BYTES_MAX: usize = 253;
/// A label, RFC 1035 section 2.3.4.
const LABEL_BYTES_MAX: usize = 63;
const SERVICE_PREFIX: &str = "srv+";

/// What one entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Asks nobody.
    Address(SocketAddr),
    /// The A and AAAA records of `name`, each with `port`.
    Host { name: Arc<str>, port: u16 },
    /// The SRV records of `name` (RFC 2782): hosts, each with its own port. Priority and weight are
    /// not looked at: an address is only a place to ask, and all of them are asked.
    Service { name: Arc<str> },
}

/// An entry as it was written, and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedEntry {
    pub text: Arc<str>,
    pub target: Target,
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFault {
    Empty,
    Scheme,
    PortMissing,
    PortInvalid,
    PortOnService,
    BracketsMissing,
    AddressInvalid,
    NameTooLong,
    NameInvalid,
    ServiceInvalid,
    TooMany,
}

/// The entry at fault; its text is cut off at 100 letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryError {
    pub entry: String,
    pub fault: EntryFault,
}

/// Parses a list; the same entry twice counts once.
/// # Errors
/// The first entry that cannot be used, and what to write instead.
pub fn parse_entries<T: AsRef<str>>(texts: &[T]) -> Result<Vec<SeedEntry>, EntryError> {
    let fail = |text: &str, fault| EntryError { entry: text.chars().take(100).collect(), fault };
    let mut entries: Vec<SeedEntry> = Vec::new();
    for text in texts {
        let text = text.as_ref().trim();
        let target = parse_target(text).map_err(|fault| fail(text, fault))?;
        if entries.iter().any(|entry| entry.target == target) {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            return Err(fail(text, EntryFault::TooMany));
        }
        entries.push(SeedEntry { text: text.into(), target });
    }
    Ok(entries)
}

fn parse_target(text: &str) -> Result<Target, EntryFault> {
    if text.is_empty() {
        return Err(EntryFault::Empty);
    }
    if text.contains("://") {
        return Err(EntryFault::Scheme);
    }
    if let Some(name) = text.strip_prefix(SERVICE_PREFIX) {
        return parse_service(name);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(EntryFault::PortInvalid)
        } else {
            Ok(Target::Address(address))
        };
    }
    if text.starts_with('[') {
        return Err(EntryFault::AddressInvalid);
    }
    let (name, port) = text.rsplit_once(':').ok_or(EntryFault::PortMissing)?;
    if name.contains(':') {
        return Err(EntryFault::BracketsMissing);
    }
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 =
        port.parse().ok().filter(|port| is_number && *port != 0).ok_or(EntryFault::PortInvalid)?;
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or("");
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        // No top-level domain is a number: 10.0.0.300 is a slip, and no name server knows it.
        return Err(EntryFault::AddressInvalid);
    }
    Ok(Target::Host { name: check_name(name)?, port })
}

fn parse_service(name: &str) -> Result<Target, EntryFault> {
    if name.contains(':') {
        return Err(EntryFault::PortOnService);
    }
    let name = check_name(name)?;
    let mut labels = name.split('.');
    let has_service = labels.next().is_some_and(|label| label.starts_with('_'));
    let has_protocol = labels.next().is_some_and(|label| label == "_tcp");
    if !has_service || !has_protocol || labels.next().is_none_or(str::is_empty) {
        return Err(EntryFault::ServiceInvalid);
    }
    Ok(Target::Service { name })
}

/// The name in small letters: names that differ in case are the same (RFC 4343). A dot at the end
/// stays: it says that the search list of resolv.conf is not for this name.
pub fn check_name(name: &str) -> Result<Arc<str>, EntryFault> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.len() > NAME_BYTES_MAX {
        return Err(EntryFault::NameTooLong);
    }
    for label in bare.split('.') {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if label.is_empty() || !label.bytes().all(is_known) {
            return Err(EntryFault::NameInvalid);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(EntryFault::NameTooLong);
        }
    }
    Ok(name.to_ascii_lowercase().into())
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use {:?} as a node: {}", self.entry, self.fault)
    }
}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty; write for example 10.0.0.1:9500"),
            Self::Scheme => f.write_str("leave out what stands before ://, write HOST:PORT"),
            Self::PortMissing => {
                f.write_str("it has no port; add the node's first link port, such as :9500")
            }
            Self::PortInvalid => f.write_str("its port is not a number from 1 to 65535"),
            Self::PortOnService => {
                f.write_str("a service has no port here, its SRV records say it; leave it out")
            }
            Self::BracketsMissing => {
                f.write_str("an IPv6 address stands in brackets, such as [fe80::1]:9500")
            }
            Self::AddressInvalid => f.write_str(
                "it is not an IP address with a port; write for example 10.0.0.1:9500 or \
                 [fe80::1]:9500 (a zone by number: [fe80::1%2]:9500)",
            ),
            Self::NameTooLong => write!(
                f,
                "a name has at most {NAME_BYTES_MAX} letters, {LABEL_BYTES_MAX} between two dots"
            ),
            Self::NameInvalid => f.write_str(
                "a name has letters, digits, - and _, and single dots between them; separate \
                 nodes with commas",
            ),
            Self::ServiceInvalid => {
                f.write_str("a service is written srv+_NAME._tcp.DOMAIN, with both underscores")
            }
            Self::TooMany => write!(
                f,
                "there are more than {ENTRIES_MAX}; name a few of the nodes, or a service (srv+)"
            ),
        }
    }
}

impl std::error::Error for EntryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        #[track_caller]
        fn check(text: &str, want: &Result<Target, EntryFault>) {
            assert_eq!(parse_target(text), *want, "{text:?}");
        }
        let address = |text: &str| Ok(Target::Address(text.parse().expect("an address")));
        let host = |name: &str, port| Ok(Target::Host { name: name.into(), port });
        check("10.0.0.1:9500", &address("10.0.0.1:9500"));
        check("[fe80::1]:9500", &address("[fe80::1]:9500"));
        check("[fe80::1%2]:9500", &address("[fe80::1%2]:9500"));
        check("Node-1.Example:9500", &host("node-1.example", 9500));
        check("node_1:1", &host("node_1", 1));
        check("node-1.example.:9500", &host("node-1.example.", 9500));
        let service = Target::Service { name: "_tidegate._tcp.example".into() };
        check("srv+_tidegate._tcp.example", &Ok(service));
        check("", &Err(EntryFault::Empty));
        check("http://a:9500", &Err(EntryFault::Scheme));
        check("node-1", &Err(EntryFault::PortMissing));
        check("10.0.0.1", &Err(EntryFault::PortMissing));
        check("fe80::1:9500", &Err(EntryFault::BracketsMissing));
        check("[fe80::1]", &Err(EntryFault::AddressInvalid));
        check("[fe80::1%eth0]:9500", &Err(EntryFault::AddressInvalid));
        check("10.0.0.300:9500", &Err(EntryFault::AddressInvalid));
        for port in ["", "0", "65536", "+9500", "x", "-1"] {
            check(&format!("node:{port}"), &Err(EntryFault::PortInvalid));
        }
        check("10.0.0.1:0", &Err(EntryFault::PortInvalid));
        check(":9500", &Err(EntryFault::NameInvalid));
        check("a..b:9500", &Err(EntryFault::NameInvalid));
        check("a b:9500", &Err(EntryFault::NameInvalid));
        check("ä:9500", &Err(EntryFault::NameInvalid));
        check(&format!("{}:9500", "a".repeat(63)), &host(&"a".repeat(63), 9500));
        check(&format!("{}:9500", "a".repeat(64)), &Err(EntryFault::NameTooLong));
        check(&format!("{}a:9500", "a.".repeat(127)), &Err(EntryFault::NameTooLong));
        check("srv+_tidegate._tcp.example:9500", &Err(EntryFault::PortOnService));
        for name in ["tidegate.example", "_tidegate.example", "_tidegate._tcp", "_a._udp.b"] {
            check(&format!("srv+{name}"), &Err(EntryFault::ServiceInvalid));
        }
    }

    /// Red without the check for the same target, and without the limit.
    #[test]
    fn lists_are_bounded_and_hold_each_target_once() {
        let entries = parse_entries(&["a:1", " A:1", "b:1"]).expect("a good list");
        assert_eq!(entries.iter().map(|entry| &*entry.text).collect::<Vec<_>>(), ["a:1", "b:1"]);
        let many: Vec<String> = (0..=ENTRIES_MAX).map(|n| format!("n{n}:1")).collect();
        assert_eq!(parse_entries(&many).expect_err("too many").fault, EntryFault::TooMany);
        assert!(parse_entries(&many[1..]).is_ok());
        let error = parse_entries(&["a:1", "b"]).expect_err("no port");
        let text = "cannot use \"b\" as a node: it has no port; add the node's first link port, \
                    such as :9500";
        assert_eq!(error.to_string(), text);
    }
}
