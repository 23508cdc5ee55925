//! What travels between the simulated clients and gateways: requests, answers, and news of broken
//! connections.

use super::gateway::{Answer, Request};
use super::{World, delay};

/// An attempt whose answer nobody reads.
const NOBODYS: u64 = 0;

/// On its way.
pub enum Mail {
    Request(u64),
    Answer(Answer),
    /// The client's connection broke.
    Lost(u64),
}

impl World {
    pub fn poll_clients(&mut self) {
        for index in 0..self.clients.len() {
            let is_over = self.is_over || self.now < self.quiet_until;
            let asked = (self.unix_ms, is_over, &self.lives[..]);
            let tools = (&mut self.record, &mut self.random);
            let attempt = self.clients[index].poll(self.now, self.next_attempt, asked, tools);
            let Some(attempt) = attempt else { continue };
            let gateway = attempt.gateway;
            let name = self.next_attempt;
            self.trace(|| {
                format!("client {index} attempt {name} to {gateway}: {:?}", attempt.samples)
            });
            self.next_attempt += 1;
            self.attempts.insert(name, (attempt, gateway));
            let at = self.now + delay(&mut self.random, 10);
            self.mail.push((at, Mail::Request(name)));
        }
    }

    pub fn deliver_mail(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|(at, _)| *at <= self.now);
        self.mail = later;
        for (_, mail) in due {
            match mail {
                Mail::Request(name) => self.deliver_request(name),
                Mail::Answer(answer) => self.deliver_answer(&answer),
                Mail::Lost(name) => {
                    if let Some((attempt, _)) = self.attempts.remove(&name) {
                        self.clients[attempt.client].handle_lost(self.now, name);
                    }
                }
            }
        }
    }

    fn deliver_request(&mut self, name: u64) {
        let Some((attempt, gateway)) = self.attempts.get_mut(&name) else { return };
        let place = &mut self.gateways[*gateway];
        let is_stopped = self.now < place.stopped_until;
        let Some(running) = &mut place.running else {
            return self.mail.push((self.now, Mail::Lost(name)));
        };
        if is_stopped {
            return self.mail.push((place.stopped_until, Mail::Request(name)));
        }
        let shard_count = running.shards.len();
        let shard = *attempt.shard.get_or_insert_with(|| self.random.below(shard_count));
        let is_backfill = attempt.is_backfill;
        let before = std::mem::take(&mut attempt.before);
        if before.is_empty() {
            let samples = &attempt.samples[..];
            let request = Request { attempt: name, samples, is_backfill };
            running.handle_request(&self.pool, shard, &request);
            self.arrived.insert(name, self.now);
        } else {
            let request = Request { attempt: NOBODYS, samples: &before, is_backfill };
            running.handle_request(&self.pool, shard, &request);
            let behind = self.now + delay(&mut self.random, 200);
            self.mail.push((behind, Mail::Request(name)));
        }
    }

    /// A gateway answered; the client hears of it later, or of a broken connection.
    pub fn take_answer(&mut self, gateway: usize, answer: Answer) {
        if answer.attempt == NOBODYS {
            return;
        }
        let arrived = self.arrived.remove(&answer.attempt).expect("it came");
        self.trace(|| format!("gateway {gateway}: {answer:?}"));
        *self.answers.entry(answer.status).or_default() += 1;
        self.check_epochs(gateway, arrived, &answer);
        let at = self.now + delay(&mut self.random, 10);
        let is_lost = !self.is_over && self.random.once_in(40);
        let mail = if is_lost { Mail::Lost(answer.attempt) } else { Mail::Answer(answer) };
        self.mail.push((at, mail));
    }

    fn deliver_answer(&mut self, answer: &Answer) {
        let Some((attempt, gateway)) = self.attempts.remove(&answer.attempt) else { return };
        let shards = answer.shard_count;
        let epoch_of = |series: usize| answer.epochs[&self.pool.shard_of(series, shards)];
        let tools = (&mut self.record, &mut self.random);
        self.clients[attempt.client].handle_answer(self.now, answer, (gateway, epoch_of), tools);
    }
}
