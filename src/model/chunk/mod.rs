//! Sealed samples of one series, compressed.

use std::sync::Arc;

/// A sealed, immutable run of samples of one series, in time order.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Arc<[u8]>,
}
