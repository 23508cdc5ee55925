//! Commands on files that nobody serves: `check`, `inspect`, `backup` and `restore`; and `cluster`,
//! which asks a gateway.
//!
//! `check` and `inspect` read and never write; `backup` and `restore` copy blocks so that what is
//! there is whole at every moment. `source` and `segment` and `head` read the three kinds of file,
//! `copy` writes, `http` asks a server, `progress` speaks to whoever waits, `quantity` writes
//! numbers for people. Not here: what the files say (`node/block`, `node/log`, `node/head`), where
//! they lie (`background/folder`).

pub mod backup;
pub mod check;
pub mod cluster;
pub mod fault;
pub mod inspect;
pub mod restore;

mod copy;
mod head;
mod http;
mod progress;
mod quantity;
mod segment;
mod source;

#[cfg(test)]
mod tests;
