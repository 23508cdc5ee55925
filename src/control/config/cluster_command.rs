//! `tidegate cluster ...` on the command line: its commands, and a help that teaches.

use crate::control::config::group_rules::parse_group_rule;
use crate::control::fleet::change::Change;
use crate::model::placement::{Strategy, TagRule};

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
  tidegate cluster strategy --group-rule '{team=\"payments\"} -> payments' --group 3f2a=payments
      the series of that team are stored by the nodes of that group alone
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

const STRATEGY_AFTER_HELP: &str = "\
Examples:
  tidegate cluster plan --shard-by __name__,instance
      what it would move; nothing is done
  tidegate cluster strategy --shard-by __name__,instance
      a query that pins these labels asks the owners of one slot alone
  tidegate cluster strategy --group-rule '{team=\"payments\"} -> payments' \\
      --group-rule '{job=~\"edge-.*\"} -> edge' --group 3f2a=payments --group a0b1=edge
      series of these rules go to the nodes of these groups, others to nodes without a group
  tidegate cluster strategy --hash
      by all labels, and no groups

It replaces the strategy as a whole: give all rules. The first rule that matches a series counts.
Nodes take the group that they were started with (`tidegate node --group`), unless --group says
another one; `--group 3f2a=` takes a node out of its group. Each group, and what no rule matches,
needs as many nodes as a series has owners. New samples follow it 3 s later; nothing is copied, and
queries ask the old owners too until retention has let their samples go.
Exit: 0 done, 2 not done.";

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
        /// Group of all of them, instead of the one that each was started with.
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
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
    /// Changes how series find their owners: by all labels, by some, by rules and groups of nodes.
    #[command(after_help = STRATEGY_AFTER_HELP)]
    Strategy {
        /// How.
        #[command(flatten)]
        strategy: StrategyArguments,
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

/// How series find their owners.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StrategyArguments {
    /// By all labels, no groups.
    #[arg(long, conflicts_with_all = ["shard_by", "group_rule"])]
    pub hash: bool,
    /// By these labels only, with commas.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub shard_by: Vec<String>,
    /// Series that match go to the nodes of a group: SELECTOR -> GROUP. Asked in this order.
    #[arg(long, value_name = "RULE", value_parser = parse_group_rule)]
    pub group_rule: Vec<TagRule>,
    /// A node's group; empty for none.
    #[arg(long, value_name = "NODE=GROUP", value_parser = parse_group)]
    pub group: Vec<(String, String)>,
}

impl StrategyArguments {
    /// `None`: it stays what it is.
    fn strategy(&self) -> Option<Strategy> {
        let is_given = self.hash || !self.shard_by.is_empty() || !self.group_rule.is_empty();
        is_given.then(|| Strategy::of(self.group_rule.clone(), self.shard_by.clone()))
    }

    fn change(&self) -> Change {
        let groups = self.group.iter().cloned().collect();
        Change { strategy: self.strategy(), groups, ..Change::default() }
    }
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
    /// How series find their owners.
    #[command(flatten)]
    pub strategy: StrategyArguments,
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
            Self::Add { nodes, group, to } => {
                let of = |group: &String| {
                    nodes.iter().map(|node| (node.clone(), group.clone())).collect()
                };
                let groups = group.as_ref().map(of).unwrap_or_default();
                let change = Change { add: nodes.clone(), groups, ..Change::default() };
                (to, ClusterRequest::Apply(change))
            }
            Self::Strategy { strategy, to } => (to, ClusterRequest::Apply(strategy.change())),
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
            ..self.strategy.change()
        };
        if self.apply { ClusterRequest::Apply(change) } else { ClusterRequest::Plan(change) }
    }
}

/// `NODE=GROUP`; the group may be empty.
fn parse_group(text: &str) -> Result<(String, String), String> {
    let fault = || format!("`{text}` is no NODE=GROUP, as in 3f2a=payments");
    let (node, group) = text.rsplit_once('=').ok_or_else(fault)?;
    if node.is_empty() { Err(fault()) } else { Ok((node.into(), group.into())) }
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
    fn strategies_are_read() {
        let rule = parse_group_rule("{a=\"b\"}->g").expect("a rule");
        let tags = |labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Some(Strategy::of(vec![rule.clone()], labels))
        };
        let groups = [("3f2a".to_owned(), "g".to_owned()), ("[::1]:9".to_owned(), String::new())];
        let change =
            Change { strategy: tags(&["x", "y"]), groups: groups.into(), ..Change::default() };
        let line = "--group-rule {a=\"b\"}->g --shard-by x,y --group 3f2a=g --group [::1]:9=";
        // Red if `plan` does it, or reads something else.
        assert_eq!(read(&format!("strategy {line}")).1, ClusterRequest::Apply(change.clone()));
        assert_eq!(read(&format!("plan {line}")).1, ClusterRequest::Plan(change));
        let hash = Change { strategy: Some(Strategy::Hash {}), ..Change::default() };
        assert_eq!(read("strategy --hash").1, ClusterRequest::Apply(hash));
        let group = [("a:1".to_owned(), "g".to_owned())].into();
        let add = Change { add: vec!["a:1".into()], groups: group, ..Change::default() };
        assert_eq!(read("add a:1 --group g").1, ClusterRequest::Apply(add));
        assert_eq!(read("plan --replication 2").1, {
            ClusterRequest::Plan(Change { replication: Some(2), ..Change::default() })
        });
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
        refused("strategy --hash --shard-by a");
        refused("strategy --group-rule {a=\"b\"}");
        refused("strategy --group payments");
    }
}
