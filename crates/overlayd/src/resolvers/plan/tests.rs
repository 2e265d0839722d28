use super::*;

const OWN: u8 = 0;

/// `endpoint path network since` of each.
fn seats(rows: &[(u128, &str, u128, u64)]) -> BTreeMap<EndpointId, Seat> {
    let seat = |(endpoint, path, network, since): &(u128, &str, u128, u64)| {
        let network = NetworkId::from_u128(*network);
        let seat = Seat { path: path.into(), network, since: Revision::new(*since) };
        (EndpointId::from_u128(*endpoint), seat)
    };
    rows.iter().map(seat).collect()
}

fn places(rows: &[(u128, u8)]) -> BTreeMap<EndpointId, u8> {
    rows.iter().map(|(endpoint, place)| (EndpointId::from_u128(*endpoint), *place)).collect()
}

fn wish(path: &str, networks: &[u128]) -> Wanted {
    let networks = networks.iter().map(|id| NetworkId::from_u128(*id)).collect();
    Wanted { path: path.into(), networks }
}

#[test]
fn s05_a_namespace_has_the_networks_of_all_that_lead_to_it_oldest_first() {
    let seats = seats(&[
        (1, "/ns/a", 7, 30),
        (2, "/proc/9/ns/net", 5, 10),
        (3, "/ns/a", 5, 20),
        (4, "/ns/b", 7, 40),
        (5, "/proc/1/ns/net", 7, 50),
        (6, "/ns/gone", 7, 60),
    ]);
    let places = places(&[(1, 1), (2, 1), (3, 1), (4, 2), (5, OWN)]);
    assert_eq!(
        wanted(&seats, &places, OWN),
        BTreeMap::from([(1, wish("/proc/9/ns/net", &[5, 7])), (2, wish("/ns/b", &[7]))])
    );
}

#[test]
fn s05_name_servers_follow_what_is_wanted() {
    let (a, b) = (wish("/ns/a", &[1]), wish("/ns/a", &[1, 2]));
    let serves = |wish: &Wanted| State::Serves(wish.clone());
    let failed = |due| State::Failed { due };
    for (wanted, state, step) in [
        (None, None, None),
        (Some(&a), None, Some(Step::Start(1, a.clone()))),
        (Some(&a), Some(serves(&a)), None),
        // Another path to the same namespace changes nothing.
        (Some(&a), Some(serves(&wish("/ns/b", &[1]))), None),
        (Some(&b), Some(serves(&a)), Some(Step::Rescope(1, b.clone()))),
        (None, Some(serves(&a)), Some(Step::Stop(1))),
        (Some(&a), Some(failed(false)), None),
        (Some(&a), Some(failed(true)), Some(Step::Start(1, a.clone()))),
        (None, Some(failed(false)), Some(Step::Stop(1))),
    ] {
        let wanted = wanted.map(|wish| (1, wish.clone())).into_iter().collect();
        let states = state.map(|state| (1, state)).into_iter().collect();
        let steps = plan(&wanted, &states);
        assert_eq!(steps, step.into_iter().collect::<Vec<_>>(), "{wanted:?} {states:?}");
    }
}

#[test]
fn s05_what_stops_gives_its_descriptors_to_what_starts() {
    let wanted = BTreeMap::from([(1, wish("/ns/a", &[1]))]);
    let states = BTreeMap::from([(2, State::Serves(wish("/ns/b", &[1])))]);
    let steps = plan(&wanted, &states);
    assert_eq!(steps, [Step::Stop(2), Step::Start(1, wish("/ns/a", &[1]))]);
}
