//! `tidegate cluster ...` on the command line: its commands, and a help that teaches.

use crate::control::fleet::change::Change;

/// Shown behind `tidegate cluster --help`.
pub const CLUSTER_AFTER_HELP: &str = "\
Examples:
  tidegate cluster status
      nodes, what each owns, whether it answers; asks the gateway at http://127.0.0.1:8428
  tidegate cluster plan --add 10.0.0.4:9500
      what adding that node would change, and how even it would be; nothing is done
  tidegate cluster add 10.0.0.4:9500
      adds the node whose first link port this is
  tidegate cluster weights 3f2a=50 10.0.0.4:9500=200
      half as much as usual for one node, twice as much for another
  tidegate cluster remove 3f2a --url http://10.0.0.9:8428
      takes a node out, asking another gateway

Any gateway will do: the nodes agree by majority, and all gateways follow.
Adding or removing a node moves no data. New samples go to the new owners 3 s later; queries ask the
old owners too, until retention has let their samples go. So keep a node that was removed running
until then: with replication 1 nobody else has its samples.
A node is named by its id, by the first digits of it (4 at least), or by the address of its first
link port. Weights are 1 to 1000, 100 is usual.";

const STATUS_AFTER_HELP: &str = "\
Examples:
  tidegate cluster status
  tidegate cluster status --url http://10.0.0.9:8428 --json | jq '.nodes[] | {address, slots}'

`share` is what a node owns of what it should own, by its weight and as far as zones allow.
Exit: 0 every node answers, 1 something needs a look, 2 the gateway could not be asked.";

const PLAN_AFTER_HELP: &str = "\
Examples:
  tidegate cluster plan --add 10.0.0.4:9500 --add 10.0.0.5:9500
  tidegate cluster plan --remove 3f2a --add 10.0.0.4:9500
      replaces a node
  tidegate cluster plan --replication 2
  tidegate cluster plan --even
      places everything anew; moves more than the others
  tidegate cluster plan --even --apply
      and does it

Moving is about new samples: nothing is copied.
Exit: 0 planned (or done), 2 not.";

const CHANGE_AFTER_HELP: &str = "\
Exit: 0 done, 2 not done; when too few nodes answered, `tidegate cluster status` says what is.";

/// `tidegate cluster ...`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Shows the nodes of the fleet, what each owns, and whether it answers.
    #[command(after_help = STATUS_AFTER_HELP)]
    Status {
        /// Whom to ask.
        #[command(flatten)]
        to: GatewayArguments,
    },
    /// Shows what a change would move and how even it would be; does nothing.
    #[command(after_help = PLAN_AFTER_HELP)]
    Plan(PlanArguments),
    /// Adds nodes.
    #[command(after_help = CHANGE_AFTER_HELP)]
    Add {
        /// The first link port of each: HOST:PORT.
        #[arg(required = true, value_name = "HOST:PORT")]
        nodes: Vec<String>,
        /// Whom to ask.
        #[command(flatten)]
        to: GatewayArguments,
    },
    /// Takes nodes out; their samples stay readable while they run.
    #[command(after_help = CHANGE_AFTER_HELP)]
    Remove {
        /// Ids, the first digits of ids, or addresses.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// Whom to ask.
        #[command(flatten)]
        to: GatewayArguments,
    },
    /// Changes how much nodes own beside each other.
    #[command(after_help = CHANGE_AFTER_HELP)]
    Weights {
        /// Node and weight, 1 to 1000; 100 is usual.
        #[arg(required = true, value_name = "NODE=WEIGHT", value_parser = parse_weight)]
        weights: Vec<(String, u32)>,
        /// Whom to ask.
        #[command(flatten)]
        to: GatewayArguments,
    },
}

/// Whom to ask, and how to answer.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewayArguments {
    /// Any gateway of the fleet: http://ADDRESS:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8428")]
    pub url: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `tidegate cluster plan ...`
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArguments {
    /// A node that comes, by its first link port.
    #[arg(long, value_name = "HOST:PORT")]
    pub add: Vec<String>,
    /// A node that goes.
    #[arg(long, value_name = "NODE")]
    pub remove: Vec<String>,
    /// A node's new weight.
    #[arg(long, value_name = "NODE=WEIGHT", value_parser = parse_weight)]
    pub weight: Vec<(String, u32)>,
    /// Owners of each slot, 1 to 3.
    #[arg(long, value_name = "N")]
    pub replication: Option<u8>,
    /// Everything placed anew, as even as can be.
    #[arg(long)]
    pub even: bool,
    /// Do it, too.
    #[arg(long)]
    pub apply: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub to: GatewayArguments,
}

/// A command as a request to a gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterRequest {
    /// `GET status`.
    Status,
    /// `POST plan`.
    Plan(Change),
    /// `POST apply`.
    Apply(Change),
}

impl ClusterCommand {
    /// Whom to ask what.
    pub fn request(&self) -> (&GatewayArguments, ClusterRequest) {
        match self {
            Self::Status { to } => (to, ClusterRequest::Status),
            Self::Plan(plan) => (&plan.to, plan.request()),
            Self::Add { nodes, to } => {
                let change = Change { add: nodes.clone(), ..Change::default() };
                (to, ClusterRequest::Apply(change))
            }
            Self::Remove { nodes, to } => {
                let change = Change { remove: nodes.clone(), ..Change::default() };
                (to, ClusterRequest::Apply(change))
            }
            Self::Weights { weights, to } => {
                let weights = weights.iter().cloned().collect();
                (to, ClusterRequest::Apply(Change { weights, ..Change::default() }))
            }
        }
    }
}

impl PlanArguments {
    fn request(&self) -> ClusterRequest {
        let change = Change {
            add: self.add.clone(),
            remove: self.remove.clone(),
            weights: self.weight.iter().cloned().collect(),
            replication: self.replication,
            even: self.even,
        };
        if self.apply { ClusterRequest::Apply(change) } else { ClusterRequest::Plan(change) }
    }
}

/// `NODE=WEIGHT`; the node may be `[::1]:9500`.
fn parse_weight(text: &str) -> Result<(String, u32), String> {
    let fault = || format!("`{text}` is no NODE=WEIGHT, as in 3f2a=50");
    let (node, weight) = text.rsplit_once('=').ok_or_else(fault)?;
    let weight = weight.parse().map_err(|_| fault())?;
    if node.is_empty() { Err(fault()) } else { Ok((node.into(), weight)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        what: ClusterCommand,
    }

    #[track_caller]
    fn read(line: &str) -> (String, ClusterRequest) {
        let words = ["cluster"].into_iter().chain(line.split(' '));
        let line = Line::try_parse_from(words).expect("a good line");
        let (to, request) = line.what.request();
        (to.url.clone(), request)
    }

    #[test]
    fn lines_are_requests() {
        let home = "http://127.0.0.1:8428".to_owned();
        assert_eq!(read("status"), (home.clone(), ClusterRequest::Status));
        let two = || vec!["a:1".to_owned(), "b:2".to_owned()];
        let add = Change { add: two(), ..Change::default() };
        assert_eq!(read("add a:1 b:2"), (home.clone(), ClusterRequest::Apply(add.clone())));
        // Red if `plan` does anything by itself.
        assert_eq!(read("plan --add a:1 --add b:2").1, ClusterRequest::Plan(add.clone()));
        assert_eq!(read("plan --add a:1 --add b:2 --apply").1, ClusterRequest::Apply(add));
        let remove = Change { remove: vec!["3f2a".into()], ..Change::default() };
        let (url, request) = read("remove 3f2a --url http://g:1");
        assert_eq!((url.as_str(), request), ("http://g:1", ClusterRequest::Apply(remove)));
        let weights = [("[::1]:9500".to_owned(), 50), ("3f2a".to_owned(), 200)].into();
        let change = Change { weights, ..Change::default() };
        let want = ClusterRequest::Apply(change.clone());
        assert_eq!(read("weights [::1]:9500=50 3f2a=200"), (home, want));
        let all = Change { replication: Some(2), even: true, ..change };
        let line = "plan --weight [::1]:9500=50 --weight 3f2a=200 --replication 2 --even";
        assert_eq!(read(line).1, ClusterRequest::Plan(all));
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        #[track_caller]
        fn refused(line: &str) {
            let words = ["cluster"].into_iter().chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        refused("add");
        refused("weights 3f2a");
        refused("weights 3f2a=heavy");
        refused("weights =5");
        refused("status all");
    }
}
