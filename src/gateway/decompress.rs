//! gzip and friends, to be written.
