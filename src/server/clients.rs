//! The connections of one shard in a table with generations, so that a late event never reaches a
//! newer client.

use crate::base::time::Instant;
use crate::control::server::ReplyPart;
use crate::http::deadline::ConnectionDeadlines;
use crate::server::connection::Connection;
use std::os::fd::OwnedFd;

/// A connection with its socket and what the ring has in hand for it.
#[expect(clippy::struct_excessive_bools, reason = "a send, a receive and a peer are independent")]
pub struct Client {
    /// Requests and answers.
    pub connection: Connection,
    /// Gone once the ring has been asked to close it.
    pub socket: Option<OwnedFd>,
    /// A send is in flight.
    pub is_sending: bool,
    /// A multishot receive is armed.
    pub is_receiving: bool,
    /// The receive ended for want of buffers, or was stopped, and is to be armed again.
    pub wants_receive: bool,
    /// The client will send no more; what it asked is still answered.
    pub is_half_closed: bool,
    /// The output buffer that is not being sent.
    pub spare_output: Vec<u8>,
    /// The control plane's answer under way.
    pub stream: Option<flume::Receiver<ReplyPart>>,
    /// How long the client may take for what it is doing.
    pub deadlines: ConnectionDeadlines,
    /// Our side is shut, and what still arrives is read away until the peer closes too or this is
    /// over: closing at once would reset the connection, and the reset could overtake the answer.
    pub lingers_until: Option<Instant>,
    /// Request bytes accounted for this connection.
    pub accounted_bytes: u64,
}

/// The connections of one shard.
#[derive(Default)]
pub struct Clients {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Place {
    generation: u32,
    client: Option<Client>,
}

/// Names a connection; travels through the ring and through requests as 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// Its place in the table.
    pub slot: u32,
    /// How often the place was used before: 24 bits are enough to tell late events.
    pub generation: u32,
}

const GENERATION_MASK: u32 = (1 << 24) - 1;

impl ClientKey {
    /// As the low 56 bits of a token.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The inverse of [`ClientKey::to_bits`].
    #[expect(clippy::cast_possible_truncation, reason = "the halves are asked for")]
    pub fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK }
    }
}

impl Clients {
    /// Adds a client.
    pub fn insert(&mut self, client: Client) -> ClientKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("fewer connections than descriptors")
        });
        let place = &mut self.places[slot as usize];
        place.client = Some(client);
        ClientKey { slot, generation: place.generation }
    }

    /// The client of `key`, unless it is gone.
    pub fn get_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        let place = self.places.get_mut(key.slot as usize)?;
        if place.generation == key.generation { place.client.as_mut() } else { None }
    }

    /// As [`Clients::get_mut`], to look only.
    pub fn get(&self, key: ClientKey) -> Option<&Client> {
        let place = self.places.get(key.slot as usize)?;
        if place.generation == key.generation { place.client.as_ref() } else { None }
    }

    /// Forgets the client of `key`.
    pub fn remove(&mut self, key: ClientKey) -> Option<Client> {
        let place = self.places.get_mut(key.slot as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let client = place.client.take()?;
        place.generation = (place.generation + 1) & GENERATION_MASK;
        self.free.push(key.slot);
        Some(client)
    }

    /// The keys of all clients, for the rare walk over them.
    pub fn keys(&self) -> Vec<ClientKey> {
        let places = (0u32..).zip(&self.places);
        places
            .filter(|(_, place)| place.client.is_some())
            .map(|(slot, place)| ClientKey { slot, generation: place.generation })
            .collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_way_through_a_token() {
        let key = ClientKey { slot: 77, generation: GENERATION_MASK };
        assert_eq!(ClientKey::from_bits(key.to_bits()), key);
        assert!(key.to_bits() < 1 << 56);
    }
}
