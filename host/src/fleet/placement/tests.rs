use proptest::prelude::*;

use super::*;

fn member(name: &str) -> Member {
    Member {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        gateway: false,
        capacity: None,
        app: None,
    }
}

/// A service on its own.
fn place(demand: &Demand<'_>, members: &[Member]) -> Placed {
    let placement = super::place([demand.clone()], members);
    placement.of(demand.app, demand.service).unwrap().clone()
}

fn members(count: usize) -> Vec<Member> {
    (0..count).map(|i| member(&format!("host-{i}"))).collect()
}

static NONE: BTreeMap<String, String> = BTreeMap::new();

fn demand(service: &str, replicas: Replicas) -> Demand<'_> {
    Demand {
        app: "shop",
        service,
        replicas,
        require: &NONE,
        spread: None,
        reserve: 128 << 20,
        http: false,
    }
}

#[test]
fn a_service_runs_on_as_many_hosts_as_it_asks_for() {
    let hosts = members(5);
    for count in 1..=5 {
        let placed = place(&demand("orders", Replicas::Count(count)), &hosts);
        assert_eq!((placed.hosts.len(), placed.lack), (count as usize, None));
    }
    let all = place(&demand("orders", Replicas::All), &hosts);
    assert_eq!(all.hosts.len(), 5);
}

#[test]
fn what_is_missing_is_said() {
    let lack = |replicas, hosts: &[Member]| place(&demand("orders", replicas), hosts).lack;
    assert_eq!(lack(Replicas::Count(2), &members(1)), None);
    assert_eq!(lack(Replicas::Count(2), &[]), Some(Lack::NoHost));
    let few = lack(Replicas::Count(3), &members(2)).unwrap();
    assert!(!few.is_total());
    assert_eq!(
        few.to_string(),
        "3 replicas are asked for, and 2 hosts can run it"
    );
    let require = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let demand = Demand {
        require: &require,
        ..demand("orders", Replicas::Count(1))
    };
    let placed = place(&demand, &members(2));
    assert_eq!(placed.hosts.len(), 0);
    assert_eq!(
        placed.lack.unwrap().to_string(),
        "no host has zone=a; start one with `--label`, or change `require`"
    );
    let mut labelled = members(2);
    labelled[1].labels = require.clone();
    let placed = place(&demand, &labelled);
    assert!(placed.hosts.contains("host-1") && placed.lack.is_none());
}

#[test]
fn what_answers_http_runs_where_gateways_are() {
    let demand = Demand {
        http: true,
        ..demand("site", Replicas::Count(1))
    };
    let mut hosts = members(3);
    assert_eq!(
        place(&demand, &hosts).lack,
        Some(Lack::NoGateway(BTreeMap::new()))
    );
    hosts[0].gateway = true;
    hosts[2].gateway = true;
    let placed = place(&demand, &hosts);
    assert_eq!(Vec::from_iter(placed.hosts), ["host-0", "host-2"]);
}

#[test]
fn services_are_spread_evenly() {
    let hosts = members(4);
    let mut counts = BTreeMap::new();
    for i in 0..4_000 {
        let service = format!("service-{i}");
        for host in place(&demand(&service, Replicas::Count(1)), &hosts).hosts {
            *counts.entry(host).or_insert(0) += 1;
        }
    }
    for (host, count) in counts {
        assert!((850..1_150).contains(&count), "{host} has {count}");
    }
}

/// Hosts with this capacity in MiB, in zones one after the other.
fn zoned(zones: &[&str], capacity: Option<u64>) -> Vec<Member> {
    let mut members = members(zones.len());
    for (member, zone) in members.iter_mut().zip(zones) {
        let zone = ("zone".to_owned(), (*zone).to_owned());
        member.labels = BTreeMap::from([zone]);
        member.capacity = capacity.map(|mebibytes| mebibytes << 20);
    }
    members
}

fn zones_of(placed: &Placed, members: &[Member]) -> BTreeMap<String, usize> {
    let mut zones = BTreeMap::new();
    let on = members
        .iter()
        .filter(|member| placed.hosts.contains(&member.name));
    for member in on {
        *zones.entry(member.labels["zone"].clone()).or_default() += 1;
    }
    zones
}

#[test]
fn what_has_no_room_is_said() {
    let hosts = zoned(&["a", "a", "a"], Some(200));
    let demands = [
        demand("one", Replicas::All),
        demand("two", Replicas::Count(1)),
    ];
    let placement = super::place(demands, &hosts);
    let lack = placement.of("shop", "two").unwrap().lack.clone().unwrap();
    assert!(lack.is_total());
    assert_eq!(
        lack.to_string(),
        "no host has room for the 128MiB that it reserves, the most that one has left is 72MiB; \
         start another host, raise `--capacity`, or lower `reserve`"
    );
    assert_eq!(placement.reserved("host-0"), 128 << 20);
    let unplaced: Vec<_> = placement
        .unplaced()
        .map(|(_, service, _)| service)
        .collect();
    assert_eq!(unplaced, ["two"]);
    let mut hosts = hosts;
    hosts[1].capacity = None;
    let demands = [
        demand("one", Replicas::All),
        demand("two", Replicas::Count(2)),
    ];
    let placement = super::place(demands, &hosts);
    let placed = placement.of("shop", "two").unwrap();
    assert_eq!(Vec::from_iter(placed.hosts.clone()), ["host-1"]);
    assert_eq!(
        placed.lack.as_ref().unwrap().to_string(),
        "2 replicas are asked for, and 1 hosts can run it; 2 more have no room for the 128MiB that it reserves"
    );
}

#[test]
fn a_service_is_spread_over_zones() {
    let hosts = zoned(&["a", "a", "a", "a", "a", "b", "c"], None);
    for at in 0..100 {
        let service = format!("service-{at}");
        let demand = Demand {
            spread: Some("zone"),
            ..demand(&service, Replicas::Count(3))
        };
        let zones = zones_of(&place(&demand, &hosts), &hosts);
        assert!(zones.len() == 3, "{zones:?}");
    }
    // What requires one zone is spread over that one.
    let require = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let demand = Demand {
        require: &require,
        spread: Some("zone"),
        ..demand("orders", Replicas::Count(3))
    };
    assert_eq!(place(&demand, &hosts).hosts.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Adding a host to N moves at most 1/(N+1) of the placements (up to chance), all of them to it.
    #[test]
    fn a_host_that_comes_moves_only_what_it_gets(count in 1usize..12, replicas in 1u32..4, new in "[a-z]{4,12}") {
        const SERVICES: usize = 2_000;
        let before = members(count);
        let mut after = before.clone();
        after.push(member(&new));
        let (mut moved, mut placements) = (0usize, 0usize);
        for i in 0..SERVICES {
            let service = format!("service-{i}");
            let demand = demand(&service, Replicas::Count(replicas));
            let (old, now) = (place(&demand, &before).hosts, place(&demand, &after).hosts);
            let gone = old.difference(&now).count();
            let came: Vec<_> = now.difference(&old).collect();
            prop_assert!(came.iter().all(|host| **host == new), "{came:?}");
            prop_assert!(gone <= came.len());
            moved += gone;
            placements += old.len();
        }
        // Expected is 1/(N+1); a standard deviation is at most half of the root of all, and six of them are added.
        let most = placements / (count + 1) + placements.isqrt() * 3;
        prop_assert!(moved <= most, "{moved} of {placements} moved for {count} hosts");
    }

    #[test]
    fn a_host_that_goes_moves_only_what_it_had(count in 2usize..10, gone in 0usize..10, service in "[a-z]{1,10}") {
        let before = members(count);
        let mut after = before.clone();
        let left = after.remove(gone % count).name;
        let demand = demand(&service, Replicas::Count(2));
        let (old, now) = (place(&demand, &before).hosts, place(&demand, &after).hosts);
        prop_assert!(old.difference(&now).all(|host| *host == left));
        prop_assert!(now.len() == 2.min(count - 1));
    }

    #[test]
    fn the_order_of_hosts_means_nothing(mut names in prop::collection::btree_set("[a-z]{1,8}", 1..8), service in "[a-z]{1,8}") {
        names.insert("x".to_owned());
        let forth: Vec<_> = names.iter().map(|name| member(name)).collect();
        let back: Vec<_> = names.iter().rev().map(|name| member(name)).collect();
        let demand = demand(&service, Replicas::Count(2));
        prop_assert_eq!(place(&demand, &forth), place(&demand, &back));
    }

    /// Whatever is asked for, and where nothing fits because all is full.
    #[test]
    fn no_host_takes_more_than_its_capacity(
        capacities in prop::collection::vec(prop::option::of(0u64..64), 1..8),
        asked in prop::collection::vec((0u64..40, 1u32..5, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let zones: Vec<_> = (0..capacities.len()).map(|at| ["a", "b", "c"][at % 3]).collect();
        let mut hosts = zoned(&zones, None);
        for (host, capacity) in hosts.iter_mut().zip(&capacities) {
            host.capacity = *capacity;
        }
        let names: Vec<_> = (0..asked.len()).map(|at| format!("service-{at}")).collect();
        let demands = || names.iter().zip(&asked).map(|(name, (reserve, replicas, all, spread))| Demand {
            reserve: *reserve,
            spread: spread.then_some("zone"),
            ..demand(name, if *all { Replicas::All } else { Replicas::Count(*replicas) })
        });
        let placement = super::place(demands(), &hosts);
        for host in &hosts {
            let on_it = demands().filter(|demand| {
                placement.of("shop", demand.service).unwrap().hosts.contains(&host.name)
            });
            let reserved: u64 = on_it.map(|demand| demand.reserve).sum();
            prop_assert_eq!(reserved, placement.reserved(&host.name));
            prop_assert!(host.capacity.is_none_or(|capacity| reserved <= capacity));
        }
        for demand in demands() {
            let placed = placement.of("shop", demand.service).unwrap();
            // What runs nowhere would not have fitted anywhere.
            let left = |host: &Member| host.capacity.map(|all| all - placement.reserved(&host.name));
            let has_room = hosts.iter().any(|host| left(host).is_none_or(|left| left >= demand.reserve));
            prop_assert!(!placed.hosts.is_empty() || !has_room);
            prop_assert_eq!(placed.hosts.is_empty(), placed.lack.as_ref().is_some_and(Lack::is_total));
        }
        let mut back: Vec<_> = demands().collect();
        back.reverse();
        hosts.reverse();
        prop_assert_eq!(super::place(back, &hosts), placement);
    }

    /// As evenly as there are hosts: no zone has two more than one that has another host.
    #[test]
    fn a_spread_is_as_even_as_it_can_be(
        zones in prop::collection::vec(0usize..4, 1..12), replicas in 1u32..8, service in "[a-z]{1,8}",
    ) {
        let names: Vec<_> = zones.iter().map(|zone| ["a", "b", "c", "d"][*zone]).collect();
        let hosts = zoned(&names, None);
        let demand = Demand { spread: Some("zone"), ..demand(&service, Replicas::Count(replicas)) };
        let placed = place(&demand, &hosts);
        prop_assert_eq!(placed.hosts.len(), hosts.len().min(replicas as usize));
        let counts = zones_of(&placed, &hosts);
        for zone in &names {
            let own = counts.get(*zone).copied().unwrap_or_default();
            let all = names.iter().filter(|name| *name == zone).count();
            prop_assert!(own == all || counts.values().all(|other| *other <= own + 1));
        }
    }

    /// A host that comes moves at most one replica of a spread service, to itself.
    #[test]
    fn a_host_that_comes_moves_little_of_what_is_spread(
        zones in prop::collection::vec(0usize..4, 1..12), zone in 0usize..5, replicas in 1u32..8, service in "[a-z]{1,8}",
    ) {
        let names: Vec<_> = zones.iter().chain([&zone]).map(|zone| ["a", "b", "c", "d", "e"][*zone]).collect();
        let after = zoned(&names, None);
        let (new, before) = after.split_last().unwrap();
        let demand = Demand { spread: Some("zone"), ..demand(&service, Replicas::Count(replicas)) };
        let (old, now) = (place(&demand, before).hosts, place(&demand, &after).hosts);
        prop_assert!(now.difference(&old).all(|host| *host == new.name));
        prop_assert!(old.difference(&now).count() <= 1);
    }

    /// Hosts that have room for all are chosen as if they had any.
    #[test]
    fn a_capacity_that_suffices_changes_nothing(count in 1usize..6, services in 1usize..30) {
        let names: Vec<_> = (0..services).map(|at| format!("service-{at}")).collect();
        let demands = || names.iter().map(|name| demand(name, Replicas::Count(2)));
        let mut hosts = members(count);
        let free = super::place(demands(), &hosts);
        for host in &mut hosts {
            host.capacity = Some((services as u64) << 27);
        }
        prop_assert_eq!(super::place(demands(), &hosts), free);
    }
}

#[test]
fn a_host_of_one_app_runs_all_of_it_and_nothing_else() {
    let alone = Member {
        app: Some("shop".to_owned()),
        ..member("up")
    };
    let require = BTreeMap::from([("zone".to_owned(), "west".to_owned())]);
    let demand = Demand {
        require: &require,
        http: true,
        ..demand("a", Replicas::Count(3))
    };
    let placed = place(&demand, std::slice::from_ref(&alone));
    assert_eq!(placed.hosts, BTreeSet::from(["up".to_owned()]));
    assert_eq!(placed.lack, None);
    let other = Demand {
        app: "other",
        require: &NONE,
        http: false,
        ..demand
    };
    let lack = place(&other, std::slice::from_ref(&alone)).lack.unwrap();
    assert!(lack.is_total());
    assert_eq!(
        lack.to_string(),
        "`wasmbay up` runs app \"shop\" alone; `wasmbay host` starts a host for any app"
    );
    let placed = place(&other, &[alone, member("any")]);
    assert_eq!(placed.hosts, BTreeSet::from(["any".to_owned()]));
}
