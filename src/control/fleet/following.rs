//! DRIVER: runs a gateway's [`Follower`]: its clock, its talks with nodes, its commands.
//!
//! In: seeds from discovery, commands. Out: a [`FleetView`] for each change, answers to commands.
//! One task; it waits on nothing but its own events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::dialogue::{Dialling, Dialogue, Heard};
use super::follower::{Action, Command, CommandFault, FleetView, Follower, FollowerConfig, Reply};
use crate::base::time::{Duration, Now};
use crate::control::discovery::schedule::Seed;
use crate::wire::link::SilenceLimits;
use crate::wire::proof::LinkSecret;

/// How often the follower is told that time went by.
const TICK: Duration = Duration::from_millis(100);
/// What was heard and not handled yet.
const HEARD_MAX: usize = 256;
/// Commands that were not handled yet.
const COMMANDS_MAX: usize = 16;

/// A gateway's settings for following.
#[derive(Clone)]
pub struct FollowingConfig {
    /// What it decides by.
    pub follower: FollowerConfig,
    /// The gateway's id, as on its other links.
    pub gateway: u128,
    /// When a node counts as silent.
    pub silence: SilenceLimits,
    /// The secret of the fleet.
    pub secret: LinkSecret,
    /// Drawn for this process: proposals are told apart by it.
    pub chance: u128,
}

/// What others in the gateway have of it. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    commands: mpsc::Sender<Asked>,
    view: watch::Receiver<Arc<FleetView>>,
}

struct Asked {
    command: Command,
    reply: oneshot::Sender<Result<Reply, CommandFault>>,
}

/// What the task has.
struct Following {
    follower: Follower,
    dialling: Dialling,
    dialogues: BTreeMap<SocketAddr, Dialogue>,
    heard_sender: mpsc::Sender<(SocketAddr, Heard)>,
    replies: BTreeMap<u64, oneshot::Sender<Result<Reply, CommandFault>>>,
    next_command: u64,
    view: watch::Sender<Arc<FleetView>>,
}

/// A handle, and the work behind it: a future to be spawned on a tokio runtime with I/O and time.
/// It ends when `seeds` has no sender and no handle is left.
///
/// `seeds` are the first link ports of nodes, as discovery has them. `publish` is called with
/// each new view before handles see it.
pub fn follow(
    config: FollowingConfig,
    seeds: watch::Receiver<Arc<Vec<Seed>>>,
    publish: impl FnMut(&FleetView) + Send + 'static,
) -> (FleetHandle, impl Future<Output = ()> + Send + 'static) {
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let (view, views) = watch::channel(Arc::default());
    let handle = FleetHandle { commands, view: views };
    (handle, run(config, (seeds, asked), view, publish))
}

impl FleetHandle {
    /// Asks; changes of the fleet take up to 20 s.
    ///
    /// # Errors
    /// Why nothing comes of it.
    pub async fn command(&self, command: Command) -> Result<Reply, CommandFault> {
        let (reply, answer) = oneshot::channel();
        let gone = || CommandFault::NotFounded(vec!["the gateway is shutting down".into()]);
        self.commands.send(Asked { command, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// How the fleet is now, and from now on.
    pub fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.clone()
    }
}

async fn run(
    config: FollowingConfig,
    (mut seeds, mut asked): (watch::Receiver<Arc<Vec<Seed>>>, mpsc::Receiver<Asked>),
    view: watch::Sender<Arc<FleetView>>,
    mut publish: impl FnMut(&FleetView),
) {
    let FollowingConfig { follower, gateway, silence, secret, chance } = config;
    let (heard_sender, mut heard) = mpsc::channel(HEARD_MAX);
    let mut this = Following {
        follower: Follower::new(Now::read(), follower, chance),
        dialling: Dialling { gateway, silence, secret },
        dialogues: BTreeMap::new(),
        heard_sender,
        replies: BTreeMap::new(),
        next_command: 1,
        view,
    };
    let first = seeds.borrow_and_update().clone();
    this.follower.handle_seeds(Now::read(), &first);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut has_seeds, mut has_handles) = (true, true);
    while has_seeds || has_handles {
        this.act(&mut publish);
        tokio::select! {
            _ = tick.tick() => this.follower.handle_timer(Now::read()),
            // The sender is in `this` too, so it never ends.
            Some((address, what)) = heard.recv() => this.handle_heard(address, what),
            command = asked.recv(), if has_handles => match command {
                Some(asked) => this.handle_asked(asked),
                None => has_handles = false,
            },
            changed = seeds.changed(), if has_seeds => match changed {
                Ok(()) => {
                    let known = seeds.borrow_and_update().clone();
                    this.follower.handle_seeds(Now::read(), &known);
                }
                Err(_) => has_seeds = false,
            },
        }
    }
}

impl Following {
    fn handle_heard(&mut self, address: SocketAddr, heard: Heard) {
        let now = Now::read();
        match heard {
            Heard::Met(met) => self.follower.handle_met(now, address, met),
            Heard::Lost(fault) => self.follower.handle_lost(now, address, fault),
            Heard::Answer(answer) => self.follower.handle_answer(now, address, answer),
        }
    }

    fn handle_asked(&mut self, Asked { command, reply }: Asked) {
        let number = self.next_command;
        self.next_command += 1;
        self.replies.insert(number, reply);
        self.follower.handle_command(Now::read(), number, command);
    }

    fn act(&mut self, publish: &mut impl FnMut(&FleetView)) {
        while let Some(action) = self.follower.poll_action() {
            match action {
                Action::Dial(address) => {
                    let heard = self.heard_sender.clone();
                    let dialogue = Dialogue::start(address, self.dialling.clone(), heard);
                    self.dialogues.insert(address, dialogue);
                }
                Action::Leave(address) => drop(self.dialogues.remove(&address)),
                Action::Ask(address, request) => {
                    if let Some(dialogue) = self.dialogues.get(&address) {
                        dialogue.ask(request);
                    }
                }
                Action::Reply(number, answer) => {
                    // Whoever asked may have gone.
                    let _ = self.replies.remove(&number).map(|reply| reply.send(answer));
                }
            }
        }
        let view = self.follower.view();
        if !view.is_same(&self.view.borrow()) {
            publish(view);
            self.view.send_replace(Arc::new(view.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
