//! Folders made by hand of every kind of file, then damaged, copied and interrupted.

mod checking;
mod copying;
mod failing;
mod folder;
