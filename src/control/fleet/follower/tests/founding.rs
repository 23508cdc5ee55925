//! Which nodes a fleet is founded of: names with several addresses.

use super::*;

/// One owner is enough: only what is waited for keeps the fleet from being founded.
fn lone() -> FollowerConfig {
    FollowerConfig { replication: 1, ..config() }
}

/// Nodes that the fleet has been founded of.
fn founders(world: &World) -> Option<usize> {
    world.newest(0).map(|document| document.nodes.len())
}

/// Red if a list that still changes is believed, or one that is said again counts as another.
#[test]
fn seeds_found_a_fleet_when_they_stay_the_same() {
    let mut world = World::new(3, 1, &config());
    world.seed(&[1, 2]);
    world.run(0.8);
    world.seed(&[1, 2, 3]);
    for _ in 0..3 {
        world.run(0.3);
        world.seed(&[1, 2, 3]);
    }
    assert_eq!(world.epochs(), [0, 0, 0]);
    world.run(0.2);
    assert_eq!(world.epochs(), [1, 1, 1]);
}

/// Red if a node founds a fleet that may belong to one, or if what it lacks is not said.
#[test]
fn a_node_that_may_belong_to_a_fleet_founds_none() {
    let mut world = World::new(0, 1, &lone());
    world.seed(&[1]);
    let told = |world: &mut World| {
        world.run(15.0);
        let faults = world.status_of(0).faults;
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().expect("one")
    };
    let (at, now) = (address(1), world.now);
    world.gateways[0].hangs_at = Some(at);
    world.gateways[0].follower.handle_lost(now, at, "connection refused".into());
    assert!(told(&mut world).contains("10.0.0.1:9010: connection refused. Start"));
    let met = Met { node: NodeId(7), incarnation: 1, shards: vec![at], read: v6(1) };
    world.gateways[0].follower.handle_met(world.now, at, met);
    assert!(told(&mut world).contains(": it has not said yet whether it belongs to a fleet"));
    let (zone, group, documents) = (None, None, Vec::new());
    let answer = Answer::Documents { newest_epoch: 3, documents, zone, group };
    world.gateways[0].follower.handle_answer(world.now, at, answer);
    assert!(told(&mut world).contains(": it belongs to a fleet, whose documents are awaited"));
}

/// Red if every address of a name is waited for, or a node counts for each of its addresses.
#[test]
fn families_of_a_name_are_ways_to_one_node() {
    let mut world = World::new(3, 1, &config());
    // The second one answers at both, and is named twice.
    world.nodes[1].also = Some(v6(2));
    let name = |number: u16| named(&format!("n{number}:1"), &[address(number), v6(number)]);
    world.seed_names(&[name(1), name(2), Seed::at(address(2)), name(3)]);
    world.run(3.0);
    assert_eq!(world.epochs(), [1, 1, 1]);
    assert_eq!(founders(&world), Some(3));
    let status = world.status_of(0);
    // Red if what nobody needs is shown as silent.
    assert_eq!((status.silent.len(), status.faults.len()), (0, 0), "{status:?}");
    world.nodes[0].is_up = false;
    world.run(3.0);
    // Red if a node that is down is left out as well.
    let silent: Vec<String> =
        world.status_of(0).silent.into_iter().map(|silent| silent.address).collect();
    assert_eq!(silent, [address(1).to_string(), v6(1).to_string()]);
}

/// A fleet was founded of the one node of a list by one name that was there for ten seconds: the
/// others, that took longer to start, got no samples. Red if time makes up for an address.
#[test]
fn addresses_of_one_family_are_waited_for_however_long_it_takes() {
    for is_v4 in [true, false] {
        let at = if is_v4 { address } else { v6 };
        let mut world = World::new(3, 1, &lone());
        for (number, node) in (1..).zip(&mut world.nodes) {
            node.address = at(number);
            node.is_up = number == 1;
        }
        world.seed_names(&[named("all:1", &[at(1), at(2), at(3)])]);
        world.run(120.0);
        assert_eq!(founders(&world), None);
        world.nodes[1].is_up = true;
        world.run(120.0);
        assert_eq!(founders(&world), None);
        world.nodes[2].is_up = true;
        world.run(8.0);
        assert_eq!(founders(&world), Some(3));
    }
}

/// Who is up at which addresses, the addresses of the name, and how many nodes found the fleet.
#[test]
fn a_family_is_done_without_only_if_the_other_may_stand_for_it() {
    #[track_caller]
    fn check(up: &[(SocketAddr, Option<SocketAddr>)], name: &[SocketAddr], want: Option<usize>) {
        let mut world = World::new(u16::try_from(up.len()).expect("few"), 1, &lone());
        for (node, (address, also)) in world.nodes.iter_mut().zip(up) {
            (node.address, node.also) = (*address, *also);
        }
        world.seed_names(&[named("n:1", name)]);
        world.run(30.0);
        assert_eq!(founders(&world), want, "up={up:?} name={name:?}");
    }
    let [a, b, a6, b6] = [address(1), address(2), v6(1), v6(2)];
    // `localhost`. Red if both families are needed, or IPv4 counts for more.
    check(&[(a, None)], &[a, a6], Some(1));
    check(&[(a6, None)], &[a, a6], Some(1));
    check(&[(a, None), (b, None)], &[a, b, a6, b6], Some(2));
    // Red if a family that is not complete founds a fleet.
    check(&[(a, None)], &[a, b, a6], None);
    check(&[(a, None)], &[a, b, a6, b6], None);
    // Red if a silent family may have more nodes than those that are there.
    check(&[(a, None)], &[a, a6, b6], None);
    check(&[(a, Some(b))], &[a, b, a6, b6], None);
    check(&[(a, Some(b))], &[a, b, a6], Some(1));
    // Red if a family of which some answer is done without, as the same node or as another.
    check(&[(a, Some(a6))], &[a, a6, b6], None);
    check(&[(a, None), (b, Some(b6))], &[a, b, a6, b6], None);
    check(&[(a, None), (b, None), (a6, None)], &[a, b, a6, b6], None);
    // Red if only one family counts when both are complete.
    check(&[(a, None), (a6, None)], &[a, a6], Some(2));
    check(&[(a, Some(a6)), (b, Some(b6))], &[a, b, a6, b6], Some(2));
}

/// Red if an address that was not tried to the end yet counts as one at which nobody answers.
#[test]
fn a_family_is_not_done_without_before_it_was_tried() {
    let mut world = World::new(2, 1, &lone());
    world.nodes[1].address = v6(1);
    world.gateways[0].hangs_at = Some(v6(1));
    world.seed_names(&[named("n:1", &[address(1), v6(1)])]);
    world.run(30.0);
    assert_eq!(founders(&world), None);
    world.gateways[0].hangs_at = None;
    world.run(8.0);
    assert_eq!(founders(&world), Some(2));
}

/// A node that starts again, while another one of its name comes. Red if who was met is forgotten.
#[test]
fn a_node_that_was_met_is_missed() {
    let mut world = World::new(2, 1, &lone());
    world.nodes[1].address = v6(1);
    world.nodes[0].is_up = false;
    // So that it is met, and nothing founded.
    world.seed_names(&[named("n:1", &[address(1), v6(1)]), named("later:1", &[])]);
    world.run(3.0);
    world.nodes[1].is_up = false;
    world.nodes[0].is_up = true;
    world.seed_names(&[named("n:1", &[address(1), v6(1)])]);
    world.run(30.0);
    assert_eq!(founders(&world), None);
    world.nodes[1].is_up = true;
    world.run(8.0);
    assert_eq!(founders(&world), Some(2));
}

/// One that listened at both addresses, and starts again with one. Red if it counts as another node
/// that is missed.
#[test]
fn a_node_that_left_one_of_its_addresses_is_not_missed() {
    let mut world = World::new(1, 1, &lone());
    world.nodes[0].also = Some(v6(1));
    world.seed_names(&[named("n:1", &[address(1), v6(1)]), named("later:1", &[])]);
    world.run(3.0);
    world.nodes[0].also = None;
    world.seed_names(&[named("n:1", &[address(1), v6(1)])]);
    world.run(8.0);
    assert_eq!(founders(&world), Some(1));
}

/// Red if a silent address is not shown that the placement names, or that a family has which is
/// not complete.
#[test]
fn silent_addresses_that_count_are_shown() {
    let silent = |world: &mut World| -> Vec<String> {
        world.status_of(0).silent.into_iter().map(|silent| silent.address).collect()
    };
    let mut world = World::new(2, 1, &lone());
    world.nodes[1].address = v6(2);
    world.seed_names(&[named("n:1", &[address(1), v6(2)])]);
    world.run(3.0);
    assert_eq!((founders(&world), silent(&mut world)), (Some(2), vec![]));
    world.nodes[1].is_up = false;
    // A gateway that has not met the second.
    world.gateways = World::new(0, 1, &lone()).gateways;
    world.seed_names(&[named("n:1", &[address(1), v6(2)])]);
    world.run(3.0);
    assert_eq!(silent(&mut world), [v6(2).to_string()]);

    let mut world = World::new(1, 1, &lone());
    world.seed_names(&[named("n:1", &[address(1), address(2), v6(1)])]);
    world.run(3.0);
    assert_eq!(silent(&mut world), [address(2).to_string(), v6(1).to_string()]);
}

/// Red if one of those that are waited for is not named, or nothing is said about what to do.
#[test]
fn it_is_said_who_is_waited_for_and_what_to_do() {
    let mut world = World::new(3, 1, &config());
    world.nodes[2].is_up = false;
    let all = named("all:1", &[address(1), address(2), address(3)]);
    world.seed_names(&[all.clone(), named("b:1", &[]), Seed::at(address(4))]);
    // Red if nodes that are only just starting are complained of.
    world.run(9.0);
    assert_eq!(world.status_of(0).faults, [""; 0]);
    world.run(21.0);
    assert_eq!(world.epochs(), [0, 0, 0]);
    let want = "cannot found the fleet before all of its nodes answer; waiting for \
        all:1: 10.0.0.1:9030: nobody answers there, \
        b:1: no address of it is known yet; is the name right?, \
        10.0.0.1:9040: nobody answers there. Start the nodes there; each address of a name counts \
        as a node, so if one is only another way to a node, write in --nodes one IP:PORT of each \
        node instead of the name; what is no node of this fleet, take out of --nodes";
    let status = world.status_of(0);
    assert_eq!(status.faults, [want]);
    assert_eq!(status.silent.len(), 2);
    let many: Vec<Seed> = (4..=30).map(|number| Seed::at(address(number))).collect();
    world.seed_names(&many);
    world.run(30.0);
    // Red without a limit, or if names are explained where there are none.
    let faults = world.status_of(0).faults;
    let end = "10.0.0.1:9190: nobody answers there, and 11 more. Start the nodes there; what is no \
        node of this fleet, take out of --nodes";
    assert!(faults[0].ends_with(end), "{faults:?}");
    world.nodes[2].is_up = true;
    world.seed_names(&[all]);
    world.run(3.0);
    assert_eq!(world.epochs(), [1, 1, 1]);
}

/// Red if an address that the list names itself is not waited for, or not shown as silent, because
/// a name has it too.
#[test]
fn an_address_that_is_listed_itself_is_needed() {
    let mut world = World::new(1, 1, &lone());
    world.seed_names(&[named("n:1", &[address(1), v6(1)]), Seed::at(v6(1))]);
    world.run(30.0);
    assert_eq!(founders(&world), None);
    assert_eq!(world.status_of(0).silent.len(), 1);
}
