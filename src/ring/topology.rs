//! DRIVER: which CPUs there are, which we may use, and in which order shards take them. Asked once,
//! at start.
//!
//! In: the thread's affinity, and `hwloc` (feature) or sysfs. Out: CPU numbers in shard order: NUMA
//! node by node, within it L3 by L3, and the second threads of all cores only after every first
//! one. Not here: how many shards there are (`control/host`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Where a CPU sits. Ids only tell places apart; they need not be dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuPlace {
    /// The NUMA node's number.
    pub node: u32,
    /// CPUs with the same number share the last-level cache.
    pub l3: u32,
    /// CPUs with the same number share a core.
    pub core: u32,
    /// The CPU's number for the system.
    pub cpu: usize,
}

/// The CPUs that this thread may run on, ascending. Empty only if the system does not say.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// The allowed CPUs in shard order.
pub fn ordered_cpus() -> Vec<usize> {
    order_cpus(&read_places(&allowed_cpus()))
}

/// Orders CPUs for shards: first threads of cores before their siblings; then by node, L3, core and
/// number, so that shards with neighbouring numbers share what they can.
pub fn order_cpus(places: &[CpuPlace]) -> Vec<usize> {
    let mut sorted = places.to_vec();
    sorted.sort_unstable();
    let mut cores = HashSet::new();
    let (first, siblings): (Vec<CpuPlace>, Vec<CpuPlace>) =
        sorted.into_iter().partition(|place| cores.insert((place.node, place.core)));
    first.into_iter().chain(siblings).map(|place| place.cpu).collect()
}

/// Pins the calling thread to one CPU; false if the system refuses.
pub fn pin_current_thread(cpu: usize) -> bool {
    // The crate indexes a set of this size without asking.
    cpu < CpuSet::count() && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

#[cfg(feature = "hwloc")]
fn read_places(cpus: &[usize]) -> Vec<CpuPlace> {
    places_from_hwloc(cpus).unwrap_or_else(|| places_from_sysfs(Path::new("/"), cpus))
}

#[cfg(not(feature = "hwloc"))]
fn read_places(cpus: &[usize]) -> Vec<CpuPlace> {
    places_from_sysfs(Path::new("/"), cpus)
}

/// `None` if hwloc cannot look at this host.
#[cfg(feature = "hwloc")]
fn places_from_hwloc(cpus: &[usize]) -> Option<Vec<CpuPlace>> {
    use hwloc2::{ObjectType, Topology, TopologyObject};

    let topology = Topology::new()?;
    let cpu_count = cpus.iter().max()? + 1;
    // Index of the object of a type that holds each CPU; zero where there is none.
    let holders = |kind: ObjectType, index: fn(&TopologyObject) -> u32| {
        let mut holders = vec![0; cpu_count];
        for object in topology.objects_with_type(&kind).unwrap_or_default() {
            let Some(set) = object.cpuset() else { continue };
            for cpu in cpus.iter().filter_map(|cpu| u32::try_from(*cpu).ok()) {
                if set.is_set(cpu) {
                    holders[cpu as usize] = index(object);
                }
            }
        }
        holders
    };
    // Not by ObjectType::NUMANode: its depth is virtual since hwloc 2, which hwloc2 2.2 takes for a
    // bridge's and panics.
    let node_of = |thread: &TopologyObject| {
        thread.nodeset().and_then(|nodes| u32::try_from(nodes.first()).ok()).unwrap_or(0)
    };
    let nodes = holders(ObjectType::PU, node_of);
    let caches = holders(ObjectType::L3Cache, TopologyObject::logical_index);
    let cores = holders(ObjectType::Core, TopologyObject::logical_index);
    let place = |cpu: &usize| CpuPlace {
        node: nodes[*cpu],
        l3: caches[*cpu],
        core: cores[*cpu],
        cpu: *cpu,
    };
    Some(cpus.iter().map(place).collect())
}

/// What sysfs does not say counts as: node 0, L3 0, a core of its own.
fn places_from_sysfs(root: &Path, cpus: &[usize]) -> Vec<CpuPlace> {
    let system = root.join("sys/devices/system");
    let nodes = nodes_of_cpus(&system);
    let first_of = |path: PathBuf| read_cpu_list(&path).first().copied();
    let place = |cpu: &usize| {
        let folder = system.join(format!("cpu/cpu{cpu}"));
        let siblings = first_of(folder.join("topology/thread_siblings_list"));
        let node = nodes.iter().find(|(_, cpus)| cpus.contains(cpu)).map_or(0, |(node, _)| *node);
        // A core and a cache are named by the first CPU in them: such numbers are unique on the
        // host, unlike core_id.
        CpuPlace {
            node,
            l3: first_of(last_level_cache(&folder)).map_or(0, as_id),
            core: as_id(siblings.unwrap_or(*cpu)),
            cpu: *cpu,
        }
    };
    cpus.iter().map(place).collect()
}

fn as_id(cpu: usize) -> u32 {
    u32::try_from(cpu).unwrap_or(u32::MAX)
}

fn nodes_of_cpus(system: &Path) -> Vec<(u32, Vec<usize>)> {
    let Ok(folders) = std::fs::read_dir(system.join("node")) else {
        return Vec::new();
    };
    let node_of = |folder: std::fs::DirEntry| {
        let node = folder.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((node, read_cpu_list(&folder.path().join("cpulist"))))
    };
    folders.flatten().filter_map(node_of).collect()
}

/// The file that lists who shares the CPU's level-3 cache; a path that does not exist if it has
/// none.
fn last_level_cache(cpu_folder: &Path) -> PathBuf {
    let mut caches = (0..8).map(|index| cpu_folder.join(format!("cache/index{index}")));
    let is_l3 = |cache: &PathBuf| read_trimmed(&cache.join("level")).as_deref() == Some("3");
    caches.find(is_l3).unwrap_or_default().join("shared_cpu_list")
}

fn read_trimmed(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn read_cpu_list(path: &Path) -> Vec<usize> {
    parse_cpu_list(&read_trimmed(path).unwrap_or_default())
}

/// `0-3,8,10-11` as the kernel writes it. What does not parse is left out; a range is cut at the
/// most CPUs there can be.
fn parse_cpu_list(text: &str) -> Vec<usize> {
    let range_of = |range: &str| {
        let (first, end) = range.split_once('-').unwrap_or((range, range));
        let end: usize = end.trim().parse().ok()?;
        Some(first.trim().parse().ok()?..=end.min(CpuSet::count()))
    };
    text.split(',').filter_map(range_of).flatten().collect()
}

#[cfg(test)]
mod tests;
