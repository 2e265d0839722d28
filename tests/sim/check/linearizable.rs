//! **linearizable**: registers behave as if each call took effect at one moment between its
//! beginning and its end.
//!
//! Every value that a register has had has a revision, and clients are told both. So the order that
//! a checker such as Porcupine would search for is known: by revision, a write before the reads of
//! its value. What is left is to compare it with the order of time, which is sound and complete:
//!
//! - a revision has one value, which its write set after it had begun;
//! - who begins after another has ended sees no older revision, and a write a newer one;
//! - a write that was refused as outdated has seen a revision newer than the one it was based on.

use std::collections::BTreeMap;

use overlay_types::Revision;
use tonic::Code;

use super::Violation;
use crate::history::{Ask, Call, Told};

fn violation(text: String) -> Violation {
    Violation::new("linearizable", text)
}

/// Checks the calls of each register for itself.
pub(crate) fn check(calls: &[Call]) -> Vec<Violation> {
    let mut registers: BTreeMap<usize, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Ask::Write { register, .. } | Ask::Read { register } = call.ask {
            registers.entry(register).or_default().push(call);
        }
    }
    registers.into_iter().flat_map(|(register, on)| check_register(register, &on, calls)).collect()
}

fn check_register(register: usize, on: &[&Call], calls: &[Call]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut values: BTreeMap<Revision, u64> = BTreeMap::new();
    let mut told: Vec<(&Call, Revision)> = Vec::new();
    for call in on {
        let Told::Value(value, revision) = call.told else { continue };
        told.push((call, revision));
        let known = *values.entry(revision).or_insert(value);
        if known != value {
            let text = format!("register {register} was {known} and {value} at {revision}");
            violations.push(violation(text));
        }
        let writer = usize::try_from(value).ok().and_then(|number| calls.get(number));
        if writer.is_none_or(|writer| writer.begin > call.end) {
            let text = format!("call {} saw {value}, which nobody had written", call.number);
            violations.push(violation(text));
        }
    }
    violations.extend(check_order(&mut told));
    violations.extend(on.iter().filter_map(|call| check_refused(call, on)));
    violations
}

/// In the order of beginnings: nobody sees less than who had ended before.
fn check_order(told: &mut [(&Call, Revision)]) -> Vec<Violation> {
    told.sort_by_key(|(call, _)| call.begin);
    let mut ended: Vec<_> = told.to_vec();
    ended.sort_by_key(|(call, _)| call.end);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<(&Call, Revision)> = None;
    let mut violations = Vec::new();
    for (call, revision) in told {
        while let Some(before) = ended.next_if(|(before, _)| before.end < call.begin) {
            newest = newest.filter(|newest| newest.1 >= before.1).or(Some(before));
        }
        let Some((before, seen)) = newest else { continue };
        let write = matches!(call.ask, Ask::Write { .. });
        if *revision < seen || (write && *revision == seen) {
            let (later, earlier) = (call.number, before.number);
            let text = format!(
                "call {later} was told revision {revision} after call {earlier} was told {seen}"
            );
            violations.push(violation(text));
        }
    }
    violations
}

/// An outdated write needs a write that could have come in between.
fn check_refused(call: &Call, on: &[&Call]) -> Option<Violation> {
    let (Ask::Write { based_on, .. }, Told::Refused(Code::Aborted)) = (&call.ask, &call.told)
    else {
        return None;
    };
    let newer = |other: &&Call| match (&other.ask, &other.told) {
        (Ask::Write { .. }, Told::Value(_, revision)) => revision > based_on,
        (Ask::Write { .. }, Told::Unknown) => true,
        _ => false,
    };
    let outdated = on
        .iter()
        .any(|other| other.number != call.number && other.begin < call.end && newer(other));
    let text = format!("call {} was outdated, but nobody wrote after {based_on}", call.number);
    (!outdated).then(|| violation(text))
}
