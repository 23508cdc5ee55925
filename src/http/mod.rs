//! The server side of HTTP/1.1 (RFC 9112), sans-io: bytes and the time in, events and bytes out.
//!
//! `reader` turns what a connection receives into heads and body pieces; `head` says what a request
//! asks for and refuses what could be read in two ways; `chunked` undoes chunk framing; `fault` is
//! the closed list of refusals, all of which end the connection; `response` writes answers;
//! `deadline` says how long a client may take.
//! Not here: sockets, clocks, routes, content codings.

mod chunked;
pub mod deadline;
pub mod fault;
pub mod head;
pub mod reader;
pub mod response;
mod scan;
