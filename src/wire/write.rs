//! The payload of a `Write` frame.
