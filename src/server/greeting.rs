//! DRIVER: what the process prints once it listens: where it is, how to send to it and how to query
//! it.

use crate::control::config::Config;
use crate::control::config::role::Role;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;

/// Prints the greeting to standard output; on anything but a terminal only the addresses, a line
/// each.
pub fn greet(role: Role, addresses: &[SocketAddr], config: &Config) {
    let mut out = std::io::stdout().lock();
    let addresses = addresses.iter().map(|address| format!("http://{address}"));
    let Some(first) = addresses.clone().next() else { return };
    let mut text = String::new();
    for address in addresses {
        text.extend(["listening on ", &address, "\n"]);
    }
    if std::io::stdout().is_terminal() {
        text.push_str(&help(role, &first, config));
    }
    // Nobody reads it when standard output is closed, and that is no reason not to serve.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What to do with it, at `first`, one of its addresses.
fn help(role: Role, first: &str, config: &Config) -> String {
    let (data, shard_count) = (config.data.display(), config.shards);
    let mut text = format!("{shard_count} shard(s), data in {data}\n\n");
    match role {
        Role::Standalone => text.push_str(&sending(first)),
        Role::Gateway => {
            let nodes = config.nodes.0.join(", ");
            text.extend(["forwards to the fleet of ", &nodes, "\n\n", &sending(first)]);
            let status = format!("how the fleet is:\n  tidegate cluster status --url {first}\n\n");
            text.push_str(&status);
        }
        Role::Node => {
            let link = config.link;
            let last = link.port().saturating_add(ports_behind(config));
            let found = format!(
                "it takes no samples from clients: gateways bring them to ports {} to {last}\n\n\
                 a gateway that founds a fleet with it:\n  tidegate gateway --nodes {link}{}\n\n\
                 into a fleet that is there, by any of its gateways:\n  \
                 tidegate cluster add {link} --url http://GATEWAY:8428\n\n\
                 query what this node alone has:\n  curl '{first}/api/v1/query?query=up'\n\n",
                link.port(),
                secret(config)
            );
            text.push_str(&found);
        }
    }
    text.extend(["how it does:   ", first, "/metrics\n"]);
    text.push_str("end it:        Ctrl-C (answers what is in flight first)\n");
    text
}

fn sending(first: &str) -> String {
    format!(
        "send from Prometheus (prometheus.yml):\n  \
           remote_write:\n    - url: {first}/api/v1/write\n\n\
         send a sample by hand:\n  \
           curl {first}/api/v1/import -d '{{\"metric\":{{\"__name__\":\"up\",\"job\":\"me\"}},\
         \"values\":[1],\"timestamps\":['$(date +%s000)']}}'\n\n\
         query:\n  \
           curl '{first}/api/v1/query?query=up'\n  \
           curl '{first}/api/v1/export?match[]=up'\n\n"
    )
}

/// The ports behind the first one: one a shard, and one for reads.
fn ports_behind(config: &Config) -> u16 {
    u16::try_from(config.shards).unwrap_or(u16::MAX)
}

fn secret(config: &Config) -> String {
    if config.link_secret_file.as_os_str().is_empty() {
        return String::new();
    }
    format!(" --link-secret-file {}", config.link_secret_file.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::Settings;
    use crate::control::host::HostFacts;

    /// Red if a node is said to take remote write, or a gateway not.
    #[test]
    fn each_role_says_what_it_is_for() {
        let host = HostFacts { memory_bytes: 8 << 30, cpu_count: 2 };
        let link = Some(([10, 0, 0, 1], 9500).into());
        let nodes = Some("10.0.0.1:9500,10.0.0.2:9500".parse().expect("names"));
        let secret = Some("link.secret".into());
        let settings = Settings { link, nodes, link_secret_file: secret, ..Settings::default() };
        let config = settings.into_config(&host);
        let of = |role| help(role, "http://h:1", &config);
        let node = of(Role::Node);
        assert!(!node.contains("remote_write") && !node.contains("import"), "{node}");
        assert!(node.contains("to ports 9500 to 9502"), "{node}");
        assert!(
            node.contains("--nodes 10.0.0.1:9500 --link-secret-file link.secret\n")
                && node.contains("cluster add 10.0.0.1:9500"),
            "{node}"
        );
        let gateway = of(Role::Gateway);
        for part in ["http://h:1/api/v1/write", "10.0.0.1:9500, 10.0.0.2:9500", "cluster status"] {
            assert!(gateway.contains(part), "{part} is not in:\n{gateway}");
        }
        assert!(of(Role::Standalone).contains("http://h:1/api/v1/write"));
    }
}
