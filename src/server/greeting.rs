//! DRIVER: what the process prints once it listens: where it is, how to send to it and how to query
//! it.

use crate::control::config::Config;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;

/// Prints the greeting to standard output; on anything but a terminal only the addresses, a line
/// each.
pub fn greet(addresses: &[SocketAddr], config: &Config) {
    let mut out = std::io::stdout().lock();
    let addresses = addresses.iter().map(|address| format!("http://{address}"));
    let Some(first) = addresses.clone().next() else { return };
    let mut text = String::new();
    for address in addresses {
        text.extend(["listening on ", &address, "\n"]);
    }
    if std::io::stdout().is_terminal() {
        let (data, shard_count) = (config.data.display(), config.shards);
        let help = format!(
            "{shard_count} shard(s), data in {data}\n\n\
             send from Prometheus (prometheus.yml):\n  \
               remote_write:\n    - url: {first}/api/v1/write\n\n\
             send a sample by hand:\n  \
               curl {first}/api/v1/import -d '{{\"metric\":{{\"__name__\":\"up\",\"job\":\"me\"}},\
             \"values\":[1],\"timestamps\":['$(date +%s000)']}}'\n\n\
             query:\n  \
               curl '{first}/api/v1/query?query=up'\n  \
               curl '{first}/api/v1/export?match[]=up'\n\n\
             how it does:   {first}/metrics\n\
             end it:        Ctrl-C (answers what is in flight first)\n"
        );
        text.push_str(&help);
    }
    // Nobody reads it when standard output is closed, and that is no reason not to serve.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
