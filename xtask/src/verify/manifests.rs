//! What `Cargo.toml` files may say: which crate knows which, and that all share the lints.

use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::DependencyKind;

use crate::{report::Verdict, workspace::Workspace};

/// Who may depend on whom: the allowed edges of `ARCHITECTURE.md`. What is not here is not allowed.
const EDGES: [(&str, &[&str]); 13] = [
    ("overlay-types", &[]),
    ("overlay-testkit", &["overlay-types"]),
    ("overlay-ipam", &["overlay-types"]),
    ("overlay-crypto", &["overlay-types"]),
    ("overlay-service", &["overlay-types"]),
    ("overlay-api", &["overlay-types"]),
    ("overlay-gossip", &["overlay-types", "overlay-crypto"]),
    ("overlay-dataplane", &["overlay-types", "overlay-crypto"]),
    ("overlay-cluster", &["overlay-types", "overlay-ipam", "overlay-crypto", "overlay-api"]),
    ("overlayd", LAYERS),
    ("overlayctl", &["overlay-types", "overlay-api"]),
    ("overlay", EVERYTHING),
    ("xtask", &["overlay-testkit"]), // the hosts of `lab up`
];

const LAYERS: &[&str] = &[
    "overlay-types",
    "overlay-ipam",
    "overlay-crypto",
    "overlay-service",
    "overlay-api",
    "overlay-gossip",
    "overlay-dataplane",
    "overlay-cluster",
];

/// For the root package, whose tests and examples use what an embedder can use.
const EVERYTHING: &[&str] = &[
    "overlay-types",
    "overlay-testkit",
    "overlay-ipam",
    "overlay-crypto",
    "overlay-service",
    "overlay-api",
    "overlay-gossip",
    "overlay-dataplane",
    "overlay-cluster",
    "overlayd",
    "overlayctl",
];

/// Tests of every crate may use it, and no crate that ships may.
const TESTKIT: &str = "overlay-testkit";

/// Checks the dependencies of members on members.
pub(crate) fn edges(workspace: &Workspace) -> Verdict {
    let members = workspace.members();
    let mut complaints = Vec::new();
    for from in &members {
        let to_members = from
            .dependencies
            .iter()
            .filter(|dependency| members.iter().any(|m| m.name.as_str() == dependency.name));
        for to in to_members {
            let dev = to.kind == DependencyKind::Development;
            complaints.extend(refusal(&from.name, &to.name, dev));
        }
    }
    Verdict::of_complaints(complaints)
}

/// Why `from` may not depend on `to`. `dev`: only its tests do.
fn refusal(from: &str, to: &str, dev: bool) -> Option<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
        return Some(format!("{from} is new: say in xtask what it may depend on"));
    };
    let for_tests = dev && to == TESTKIT;
    if allowed.contains(&to) || for_tests {
        return None;
    }
    let allowed = if allowed.is_empty() { "no member".to_owned() } else { allowed.join(", ") };
    Some(format!("{from} must not depend on {to}; it may on: {allowed}"))
}

/// Checks that no member opts out of `[workspace.lints]`, which cargo metadata does not tell.
pub(crate) fn lints(workspace: &Workspace) -> Result<Verdict> {
    let mut complaints = Vec::new();
    for member in workspace.members() {
        let path = &member.manifest_path;
        let manifest = fs::read_to_string(path).with_context(|| path.to_string())?;
        if !inherits_lints(&manifest) {
            complaints.push(format!("{}: add `[lints]` with `workspace = true`", member.name));
        }
    }
    Ok(Verdict::of_complaints(complaints))
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().skip_while(|line| line.trim() != "[lints]").skip(1);
    lines.next().is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, dev: bool, allowed: bool) {
        assert_eq!(refusal(from, to, dev).is_none(), allowed, "{from} -> {to}, dev: {dev}");
    }

    #[test]
    fn edges_of_the_design_are_allowed() {
        check("overlay-cluster", "overlay-ipam", false, true);
        check("overlay-gossip", "overlay-crypto", false, true);
        check("overlayctl", "overlay-api", false, true);
        check("overlay", "overlayd", true, true);
        check("overlay-service", "overlay-testkit", true, true);
    }

    #[test]
    fn all_others_are_refused() {
        check("overlay-service", "overlay-crypto", false, false);
        check("overlay-dataplane", "overlay-service", true, false);
        check("overlay-gossip", "overlay-testkit", false, false);
        check("overlay-types", "overlay-ipam", false, false);
        check("overlayd", "overlayctl", false, false);
        check("xtask", "overlay-types", false, false);
        check("overlay-new", "overlay-types", false, false);
    }

    #[test]
    fn every_crate_may_use_types() {
        for (from, allowed) in EDGES {
            let stands_alone = ["overlay-types", "xtask"].contains(&from);
            assert_eq!(allowed.contains(&"overlay-types"), !stands_alone, "{from}");
        }
    }

    #[test]
    fn lints_are_inherited_by_two_lines() {
        assert!(inherits_lints("[package]\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nworkspace = true\n[lints]\n[lints.rust]"));
        assert!(!inherits_lints(""));
    }
}
