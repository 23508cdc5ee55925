//! DRIVER: the answer of one node to one select, as it comes.

use crate::control::reads::client::NodeClient;
use crate::control::reads::conversation::Conversation;
use crate::control::reads::fault::ReadFault;
use crate::wire::frame::{
    FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameKind, Memory, number_frame,
};
use crate::wire::hints::Lacking;
use crate::wire::link::LinkFault;
use crate::wire::select::{
    SelectAnswer, SelectEnding, SelectLayer, SeriesJoiner, SeriesView, StringsView,
};

/// The number of the only question that a connection has under way.
const NUMBER: u64 = 1;
/// Most bytes of one series: beyond it the node, or its disk, is out of its mind.
const SERIES_BYTES_MAX: usize = 256 << 20;

/// A select that is under way. Dropping it ends the work on it.
pub struct SelectStream {
    client: NodeClient,
    /// `None` once the answer is whole, or never will be.
    conversation: Option<Conversation>,
    joiner: SeriesJoiner,
    /// Bytes of frames since a series was whole.
    open_bytes: usize,
    lacking: Lacking,
    placement_epoch: u64,
    /// To be asked anew if the connection, which an earlier select left, turns out to be gone.
    again: Option<Memory>,
}

/// A piece of an answer, and where it comes from.
#[derive(Debug)]
pub struct Piece {
    /// Heads first, then blocks.
    pub layer: SelectLayer,
    /// `Series` or `Strings`.
    pub answer: SelectAnswer,
}

/// What a frame says.
enum Told {
    Piece(Piece),
    End(Lacking),
}

impl SelectStream {
    /// Asks over `conversation`, which was used before or not.
    pub(super) fn begin(
        client: NodeClient,
        conversation: Conversation,
        (mut frame, is_used): (Memory, bool),
    ) -> Result<Self, ReadFault> {
        number_frame(&mut frame, NUMBER);
        let again = is_used.then(|| frame.clone());
        let mut this = Self {
            client,
            conversation: None,
            joiner: SeriesJoiner::default(),
            open_bytes: 0,
            lacking: Lacking::default(),
            placement_epoch: 0,
            again,
        };
        this.ask(conversation, frame)?;
        Ok(this)
    }

    /// The next piece; `None` when all has been said.
    ///
    /// # Errors
    /// There is no whole answer, and nothing more will come.
    pub async fn next(&mut self) -> Result<Option<Piece>, ReadFault> {
        loop {
            let Some(conversation) = &mut self.conversation else { return Ok(None) };
            let (joiner, open_bytes) = (&mut self.joiner, &mut self.open_bytes);
            let told = conversation.next(|header, frame| read((joiner, open_bytes), header, frame));
            let told = match told.await {
                Ok(told) => told,
                Err(fault) => {
                    self.conversation = None;
                    // Closed by the node while nobody looked, restarted perhaps.
                    let (true, Some(frame)) = (is_gone(&fault), self.again.take()) else {
                        return Err(fault);
                    };
                    let fresh = self.client.open().await?;
                    self.ask(fresh, frame)?;
                    continue;
                }
            };
            self.again = None;
            match told {
                Ok(Told::Piece(piece)) => return Ok(Some(piece)),
                Ok(Told::End(lacking)) => {
                    self.lacking = lacking;
                    if let Some(conversation) = self.conversation.take() {
                        self.client.give_back(conversation);
                    }
                    return Ok(None);
                }
                Err(fault) => {
                    let whole = self.conversation.take();
                    if let (ReadFault::Select(_), Some(conversation)) = (&fault, whole) {
                        self.client.give_back(conversation);
                    }
                    return Err(fault);
                }
            }
        }
    }

    /// What the node knows to lack; known when all has been said.
    pub fn lacking(&self) -> Lacking {
        self.lacking
    }

    /// The placement that the node followed when the connection was made: that one or a later one
    /// is in force.
    pub fn placement_epoch(&self) -> u64 {
        self.placement_epoch
    }

    fn ask(&mut self, mut conversation: Conversation, frame: Memory) -> Result<(), ReadFault> {
        conversation.ask(frame).map_err(|_| ReadFault::TooMany { questions_max: 1 })?;
        self.placement_epoch = conversation.welcome().placement_epoch;
        self.conversation = Some(conversation);
        Ok(())
    }
}

fn is_gone(fault: &ReadFault) -> bool {
    matches!(fault, ReadFault::Broken(_) | ReadFault::Refused(_) | ReadFault::Link(_))
}

fn read(
    (joiner, open_bytes): (&mut SeriesJoiner, &mut usize),
    header: &FrameHeader,
    frame: &[u8],
) -> Result<Told, ReadFault> {
    let payload = &frame[FRAME_HEADER_BYTES..];
    if header.sequence != NUMBER {
        return Err(ReadFault::Link(LinkFault::Unexpected { kind: header.kind }));
    }
    match header.kind {
        FrameKind::Series => {
            let view = SeriesView::check(header, payload).map_err(ReadFault::Frame)?;
            let layer = view.layer();
            let mut series = Vec::new();
            joiner.join(view, &mut series).map_err(ReadFault::Frame)?;
            *open_bytes = if joiner.is_open() { *open_bytes + frame.len() } else { 0 };
            if *open_bytes > SERIES_BYTES_MAX {
                return Err(ReadFault::Frame(FrameFault::TooLong {
                    len_bytes: *open_bytes as u64,
                }));
            }
            Ok(Told::Piece(Piece { layer, answer: SelectAnswer::Series(series) }))
        }
        FrameKind::Strings => {
            let view = StringsView::check(header, payload).map_err(ReadFault::Frame)?;
            let answer = SelectAnswer::Strings(view.strings().map(Box::from).collect());
            Ok(Told::Piece(Piece { layer: SelectLayer::Heads, answer }))
        }
        FrameKind::SelectEnd | FrameKind::SelectFault => {
            match SelectEnding::decode(header, payload).map_err(ReadFault::Frame)? {
                SelectEnding::End { .. } if joiner.is_open() => {
                    Err(ReadFault::Frame(FrameFault::BadPayload))
                }
                SelectEnding::End { lacking, .. } => Ok(Told::End(lacking)),
                SelectEnding::Fault(fault) => Err(ReadFault::Select(fault)),
            }
        }
        kind => Err(ReadFault::Link(LinkFault::Unexpected { kind })),
    }
}
