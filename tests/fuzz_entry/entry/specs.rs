//! Text of people: ports, subnets, names, numbers, networks.

use std::{fmt::Display, str::FromStr};

use overlay_types::{
    MacAddr, Name, NetworkDraft, NetworkSpec, NodeId, PortSpec, PublishMode, SpecError, Subnet, Vni,
};

/// Text in every grammar of `overlay-types`. What is printed must be read as the same value.
pub fn specs(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let accepted = [
        ports(text),
        round_trips::<Subnet>(text),
        round_trips::<Name>(text),
        round_trips::<MacAddr>(text),
        round_trips::<Vni>(text),
        round_trips::<NodeId>(text),
        network(text),
    ];
    accepted.contains(&true)
}

fn round_trips<T>(text: &str) -> bool
where
    T: FromStr<Err: Display> + Display + PartialEq,
{
    let Some(value) = value(text.parse::<T>()) else { return false };
    let again = value.to_string().parse::<T>();
    assert!(again.is_ok_and(|again| again == value), "{value} is printed as something else");
    true
}

/// The value of a result whose error can be printed.
fn value<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

fn ports(text: &str) -> bool {
    let Some(ports) = value(PortSpec::parse(text)) else { return false };
    // The ends of a range, which may have 65535 ports.
    for port in [ports.first(), ports.last()].into_iter().flatten() {
        // The mode has no place in the short grammar.
        let ingress = PortSpec { mode: PublishMode::Ingress, ..*port };
        assert_eq!(PortSpec::parse(&ingress.to_string()), Ok(vec![ingress]));
    }
    assert!(!ports.is_empty());
    true
}

/// Lines of text as the option or the addresses of a network.
fn network(text: &str) -> bool {
    let Some(name) = value(Name::parse("name", "net")) else { return false };
    let mut option = NetworkDraft::new(name.clone());
    let has_option = value(option.set_option(text)).is_some();

    let mut draft = NetworkDraft::new(name);
    let mut lines = text.lines().map(|line| vec![line.to_owned()]);
    let mut next = || lines.next().unwrap_or_default();
    let has_subnets = value(draft.set_subnets(&next(), &next(), &next(), &next())).is_some();

    (has_option && is_sound(option)) || (has_subnets && is_sound(draft))
}

/// Whether a draft is a network; one that is stays one.
fn is_sound(draft: NetworkDraft) -> bool {
    let checked: Result<NetworkSpec, SpecError> = NetworkSpec::try_from(draft);
    let Some(spec) = value(checked) else { return false };
    assert_eq!(NetworkSpec::try_from(spec.clone().into_draft()), Ok(spec));
    true
}
