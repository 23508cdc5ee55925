//! Response bodies that are made piece by piece, as the client takes them.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;

use crate::control::api::error::ApiError;

/// A piece is sent once it is this long.
pub const PIECE_BYTES: usize = 64 << 10;

/// A body whose pieces an iterator makes on demand.
pub fn from_pieces(pieces: impl Iterator<Item = Bytes> + Send + Unpin + 'static) -> Body {
    Body::new(PiecesBody { pieces })
}

/// A body whose pieces another task sends. An error ends the connection, so that the client sees
/// that the answer is not whole.
pub fn from_channel(
    first: Option<Bytes>,
    pieces: tokio::sync::mpsc::Receiver<Result<Bytes, ApiError>>,
) -> Body {
    Body::new(ChannelBody { first, pieces })
}

struct PiecesBody<I> {
    pieces: I,
}

impl<I: Iterator<Item = Bytes> + Unpin> http_body::Body for PiecesBody<I> {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }
}

struct ChannelBody {
    first: Option<Bytes>,
    pieces: tokio::sync::mpsc::Receiver<Result<Bytes, ApiError>>,
}

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
