//! The control plane: what a process decides and answers besides taking in samples. Runs on tokio threads, never on a shard.
