//! Whether the nodes of a network agree on how large its packets may be.

use std::collections::BTreeMap;

/// Nodes that are named of each size; the others are counted.
const NAMED: usize = 3;

/// What is wrong with the MTU of a network, and what to do about it: `option` is what the network asks
/// for, `members` are its nodes with the largest packets that fit on their data paths, in bytes.
pub fn disagreement<'a>(
    option: Option<u16>,
    members: impl IntoIterator<Item = (&'a str, u16)>,
) -> Option<String> {
    let mut sizes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for (name, mtu) in members {
        sizes.entry(mtu).or_default().push(name);
    }
    let (smallest, largest) = (*sizes.keys().next()?, *sizes.keys().next_back()?);
    let who: Vec<String> = sizes.iter().map(|(mtu, names)| on(*mtu, names)).collect();
    let who = who.join(", ");
    match option {
        None if smallest < largest => Some(format!(
            "the MTU follows from the nodes' data paths, which differ: {who}; larger packets get lost \
             between them: give the interfaces one MTU, or make the network anew with \
             --opt mtu={smallest}"
        )),
        Some(mtu) if smallest < mtu => Some(format!(
            "--opt mtu={mtu} is more than what fits on the data paths: {who}; larger packets get lost: \
             raise the MTU of the interfaces, or make the network anew with --opt mtu={smallest}"
        )),
        _ => None,
    }
}

fn on(mtu: u16, names: &[&str]) -> String {
    let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(" and ");
    match names.len().saturating_sub(NAMED) {
        0 => format!("{mtu} on {named}"),
        more => format!("{mtu} on {named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n09_nodes_that_differ_are_named_with_what_fits_all() {
        assert_eq!(disagreement(None, []), None);
        assert_eq!(disagreement(None, [("a", 1450), ("b", 1450)]), None);
        let text = disagreement(None, [("a", 1450), ("b", 8950)]).unwrap();
        assert!(text.contains("differ: 1450 on a, 8950 on b;"), "{text}");
        assert!(text.ends_with("--opt mtu=1450"), "{text}");
        let many = ["a", "b", "c", "d", "e"].map(|name| (name, 1450));
        let text = disagreement(None, many.into_iter().chain([("f", 1400)])).unwrap();
        assert!(text.contains("1400 on f, 1450 on a and b and c and 2 more;"), "{text}");
    }

    #[test]
    fn n09_an_option_that_fits_everywhere_is_no_mismatch() {
        assert_eq!(disagreement(Some(1400), [("a", 1450), ("b", 8950)]), None);
        let text = disagreement(Some(8950), [("a", 1450), ("b", 8950)]).unwrap();
        assert!(text.starts_with("--opt mtu=8950 is more"), "{text}");
        assert!(text.ends_with("--opt mtu=1450"), "{text}");
    }
}
