//! Fleets: gateways and nodes as processes, with faults, under load, verified through every
//! gateway. `scripts/cluster` starts them and does the harm, on loopback addresses or in network
//! namespaces.

mod clocks;
mod cluster;
mod discovery;
mod disks;
mod faults;
mod groups;
mod growth;
mod network;
mod partitions;
mod reads;
