//! DRIVER: the only place that draws by chance: from the kernel, a few bytes at a time. Pure code
//! is handed what was drawn.

use std::fs::File;
use std::io::{self, Read};

/// Bytes that nobody can guess.
#[derive(Debug)]
pub struct Chance {
    source: File,
}

impl Chance {
    /// Opens the kernel's source.
    pub fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(|source| Self { source })
    }

    /// Draws `N` bytes, at a system call's cost. The source of a running process does not fail.
    pub fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).expect("the kernel's source of chance never ends");
        bytes
    }
}
