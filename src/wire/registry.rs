//! How a gateway learns the ids that other gateways asked for: pages of (hash, id), from a position
//! on. Checked once on arrival, read in place.

use rkyv::{Archive, Deserialize, Serialize};

use crate::model::series::{SeriesHash, SeriesId};
use crate::wire::frame::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameKind, Memory,
    decode_control, encode_control,
};

/// The version of the payloads in this file.
pub const REGISTRY_SCHEMA: u16 = 1;
/// Most series in a page: 1.5 MiB.
pub const REGISTRY_PAGE_MAX: usize = 1 << 16;

const _: () = assert!(
    REGISTRY_PAGE_MAX * size_of::<ArchivedRegistryEntry>() + 1024
        < FRAME_BYTES_MAX - FRAME_HEADER_BYTES
);

/// Which ids did a node shard give from `position` on?
///
/// A position is an id: pages go up the ids that are in use, and ids only rise, so that who has
/// come to the end asks on from there for what is new.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryRequest {
    /// The node shard whose ids are meant.
    pub shard: u32,
    /// 0, or where the page before said that the next one begins.
    pub position: u64,
    /// Not more than so many series.
    pub entries_max: u32,
}

/// The id of a series.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
struct RegistryEntry {
    hash_high: u64,
    hash_low: u64,
    id: u32,
    /// Fills the room that alignment leaves.
    reserved: u32,
}

/// Some ids that a node shard gave; as it is gathered.
#[derive(Archive, Serialize, Debug, Default)]
pub struct RegistryPage {
    id_space: u64,
    position: u64,
    next_position: u64,
    entries: Vec<RegistryEntry>,
    is_end: bool,
}

impl RegistryRequest {
    /// Its frame.
    pub fn encode_frame(&self) -> Memory {
        encode_control(FrameKind::RegistryRequest, REGISTRY_SCHEMA, self)
    }

    /// Reads a payload, which is 16-aligned.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, FrameFault> {
        decode_control(header, REGISTRY_SCHEMA, payload)
    }
}

impl RegistryPage {
    /// An empty page that answers a request for `position`; the ids are those of `id_space`
    /// ([`crate::wire::hello::id_space`]).
    pub fn new(id_space: u64, position: u64) -> Self {
        Self { id_space, position, next_position: position, entries: Vec::new(), is_end: false }
    }

    /// Adds a series. At most [`REGISTRY_PAGE_MAX`] of them.
    #[expect(clippy::cast_possible_truncation, reason = "a hash in two halves")]
    pub fn push(&mut self, hash: SeriesHash, id: SeriesId) {
        assert!(self.entries.len() < REGISTRY_PAGE_MAX);
        self.entries.push(RegistryEntry {
            hash_high: (hash.0 >> 64) as u64,
            hash_low: hash.0 as u64,
            id: id.0,
            reserved: 0,
        });
    }

    /// The frame. The next page begins at `next_position`; `is_end`: there is nothing there yet.
    pub fn encode_frame(&mut self, next_position: u64, is_end: bool) -> Memory {
        self.next_position = next_position;
        self.is_end = is_end;
        encode_control(FrameKind::RegistryPage, REGISTRY_SCHEMA, self)
    }
}

/// A page, read in place.
#[derive(Clone, Copy)]
pub struct RegistryView<'a> {
    archived: &'a ArchivedRegistryPage,
}

impl<'a> RegistryView<'a> {
    /// Reads `payload`, which is 16-aligned. Afterwards the next position is not before this one,
    /// and a page that is not the last goes on.
    pub fn check(header: &FrameHeader, payload: &'a [u8]) -> Result<Self, FrameFault> {
        header.check_schema(REGISTRY_SCHEMA)?;
        let archived = rkyv::access::<ArchivedRegistryPage, rkyv::rancor::Failure>(payload)
            .map_err(|_| FrameFault::BadPayload)?;
        let (position, next) = (archived.position.to_native(), archived.next_position.to_native());
        let goes_on = position < next || (position == next && archived.is_end);
        goes_on.then_some(Self { archived }).ok_or(FrameFault::BadPayload)
    }

    /// Whose ids.
    pub fn id_space(&self) -> u64 {
        self.archived.id_space.to_native()
    }

    /// Of the request.
    pub fn position(&self) -> u64 {
        self.archived.position.to_native()
    }

    /// Where the next page begins; greater than [`RegistryView::position`] unless this is the end.
    pub fn next_position(&self) -> u64 {
        self.archived.next_position.to_native()
    }

    /// Whether that was all, for now.
    pub fn is_end(&self) -> bool {
        self.archived.is_end
    }

    /// The series.
    pub fn entries(self) -> impl ExactSizeIterator<Item = (SeriesHash, SeriesId)> + 'a {
        self.archived.entries.as_slice().iter().map(|entry| {
            let high = u128::from(entry.hash_high.to_native());
            let hash = SeriesHash(high << 64 | u128::from(entry.hash_low.to_native()));
            (hash, SeriesId(entry.id.to_native()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::check_frame;
    use crate::wire::golden::check_control_frame;

    type Read = (u64, u64, u64, bool, Vec<(SeriesHash, SeriesId)>);

    fn read(header: &FrameHeader, payload: &[u8]) -> Result<Read, FrameFault> {
        let view = RegistryView::check(header, payload)?;
        let numbers = (view.id_space(), view.position(), view.next_position(), view.is_end());
        Ok((numbers.0, numbers.1, numbers.2, numbers.3, view.entries().collect()))
    }

    #[test]
    fn round_trips_and_frozen_bytes() {
        let request = RegistryRequest { shard: 3, position: 1 << 40, entries_max: 1000 };
        let frame = request.encode_frame();
        check_control_frame("registry_request", &frame, &request, RegistryRequest::decode);
        let entries = vec![
            (SeriesHash(1 << 100 | 5), SeriesId(3)),
            (SeriesHash(u128::MAX), SeriesId((1 << 31) - 1)),
        ];
        let mut page = RegistryPage::new(77, 10);
        for (hash, id) in &entries {
            page.push(*hash, *id);
        }
        let frame = page.encode_frame(12, true);
        check_control_frame("registry_page", &frame, &(77, 10, 12, true, entries), read);
    }

    #[test]
    fn a_page_that_does_not_go_on_is_refused() {
        // Red if `check` does not compare positions: a gateway would ask for the same for ever.
        for (next, is_end, want) in [(10, true, true), (10, false, false), (9, true, false)] {
            let frame = RegistryPage::new(1, 10).encode_frame(next, is_end);
            let header = check_frame(&frame).expect("sealed");
            let read = read(&header, &frame[FRAME_HEADER_BYTES..]);
            assert_eq!(read.is_ok(), want, "next={next} is_end={is_end}");
        }
    }
}
