//! Series and samples -> request bodies. Pure; the second implementation beside the server's
//! decoders.

pub mod remote_write;
pub mod vm_json;

/// A series written out: its labels (name, value) and its samples (Unix milliseconds, value).
pub type PlainSeries = (Vec<(String, String)>, Vec<(i64, f64)>);
