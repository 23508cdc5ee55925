//! Scripts of events for both halves of a link.
