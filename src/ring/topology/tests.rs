//! Made-up hosts in temporary folders: orders, and what is missing.

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("folder");
    std::fs::write(path, text).expect("file");
}

fn made_up_host() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

#[test]
fn cpu_lists() {
    #[track_caller]
    fn check(list: &str, want: &[usize]) {
        assert_eq!(parse_cpu_list(list), want, "list={list:?}");
    }
    check("0", &[0]);
    check("0-3,8,10-11", &[0, 1, 2, 3, 8, 10, 11]);
    check("", &[]);
    check("nonsense,2", &[2]);
    check("3-1", &[]);
    assert!(parse_cpu_list("0-99999999999").len() <= CpuSet::count() + 1);
}

#[test]
fn siblings_come_last_and_neighbours_share() {
    #[track_caller]
    fn check(places: &[(u32, u32, u32, usize)], want: &[usize]) {
        let place = |&(node, l3, core, cpu)| CpuPlace { node, l3, core, cpu };
        let places: Vec<CpuPlace> = places.iter().map(place).collect();
        assert_eq!(order_cpus(&places), want);
    }
    check(&[], &[]);
    // One core with two threads, listed backwards.
    check(&[(0, 0, 0, 1), (0, 0, 0, 0)], &[0, 1]);
    // CPUs dealt out to two nodes by turns: node by node.
    check(&[(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 2, 2), (1, 1, 3, 3)], &[0, 2, 1, 3]);
    // Two L3 in a node.
    check(&[(0, 0, 0, 0), (0, 1, 1, 1), (0, 0, 2, 2), (0, 1, 3, 3)], &[0, 2, 1, 3]);
    // Two nodes of two cores of two threads, numbered as on most servers: all second threads behind
    // all first ones.
    let server: Vec<(u32, u32, u32, usize)> = (0..8u32)
        .map(|cpu| (cpu % 4 / 2, cpu % 4 / 2, cpu % 4, usize::try_from(cpu).expect("small")))
        .collect();
    check(&server, &[0, 1, 2, 3, 4, 5, 6, 7]);
    // The same core number in two nodes is two cores.
    check(&[(0, 0, 0, 0), (1, 0, 0, 1)], &[0, 1]);
}

#[test]
fn sysfs_of_two_nodes_with_threads() {
    let host = made_up_host();
    let root = host.path();
    for cpu in 0..8 {
        let first = cpu % 4;
        let folder = format!("sys/devices/system/cpu/cpu{cpu}");
        let siblings = format!("{first},{}\n", first + 4);
        write(root, &format!("{folder}/topology/thread_siblings_list"), &siblings);
        write(root, &format!("{folder}/cache/index2/level"), "2\n");
        write(root, &format!("{folder}/cache/index3/level"), "3\n");
        let shared = if first % 2 == 0 { "0,2,4,6\n" } else { "1,3,5,7\n" };
        write(root, &format!("{folder}/cache/index3/shared_cpu_list"), shared);
    }
    write(root, "sys/devices/system/node/node0/cpulist", "0,2,4,6\n");
    write(root, "sys/devices/system/node/node1/cpulist", "1,3,5,7\n");
    write(root, "sys/devices/system/node/possible", "0-1\n");
    let all: Vec<usize> = (0..8).collect();
    let places = places_from_sysfs(root, &all);
    assert_eq!(places[7], CpuPlace { node: 1, l3: 1, core: 3, cpu: 7 });
    assert_eq!(order_cpus(&places), [0, 2, 1, 3, 4, 6, 5, 7]);
    // Only second threads allowed: they are the first of their cores.
    assert_eq!(order_cpus(&places_from_sysfs(root, &[6, 7])), [6, 7]);
}

#[test]
fn without_sysfs_each_cpu_is_a_core() {
    let host = made_up_host();
    assert_eq!(order_cpus(&places_from_sysfs(host.path(), &[3, 1, 2])), [1, 2, 3]);
}

#[test]
fn this_host() {
    let allowed = allowed_cpus();
    assert!(!allowed.is_empty());
    let mut ordered = ordered_cpus();
    ordered.sort_unstable();
    assert_eq!(ordered, allowed);
    assert!(!pin_current_thread(usize::MAX));
    // On a thread of its own: the pin would outlive the test.
    let last = allowed[allowed.len() - 1];
    let pinned = std::thread::spawn(move || (pin_current_thread(last), allowed_cpus())).join();
    assert_eq!(pinned.expect("no panic"), (true, vec![last]));
}

#[cfg(feature = "hwloc")]
#[test]
fn hwloc_and_sysfs_agree_on_this_host() {
    let allowed = allowed_cpus();
    let by_hwloc = places_from_hwloc(&allowed).expect("hwloc reads this host");
    let by_sysfs = places_from_sysfs(Path::new("/"), &allowed);
    assert_eq!(order_cpus(&by_hwloc), order_cpus(&by_sysfs));
    let nodes = |places: &[CpuPlace]| places.iter().map(|place| place.node).collect::<Vec<_>>();
    assert_eq!(nodes(&by_hwloc), nodes(&by_sysfs));
}
