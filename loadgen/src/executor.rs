//! DRIVER: starts the glommio executor that `send` and `verify` run on, and says what to do where
//! it cannot start. One executor on the calling thread, few tasks that live as long as the run.

use std::future::Future;
use std::io;

use glommio::{LocalExecutorBuilder, Placement};

/// Buffers that glommio registers with the ring. Sockets do not use them, so the least it takes.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// Pins this thread, and those it starts from now on, to `cpu`.
pub fn pin(cpu: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        return Ok(());
    }
    Err(io::Error::other(format!("cannot pin to CPU {cpu}: it is not among those allowed here")))
}

/// Runs `work` to its end on an executor of its own.
pub fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("loadgen")
        .io_memory(IO_MEMORY_BYTES)
        .make()
        .map_err(|cause| {
            io::Error::other(format!(
                "cannot start the executor: {cause}. It needs io_uring (kernel 5.8 or newer, \
                 sysctl kernel.io_uring_disabled=0, not filtered by seccomp) and at least 512 KiB \
                 of locked memory (ulimit -l)"
            ))
        })?;
    Ok(executor.run(work))
}
