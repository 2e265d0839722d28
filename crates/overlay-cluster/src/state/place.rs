//! Where nodes are, and what happens to who was there before.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use overlay_types::{Change, Node, Object};

use super::{
    Applied, MoveNode, Rejection, Response, State,
    apply::{Context, Outcome},
    rejection::Class,
};

impl State {
    /// Two nodes never have one address: frames, and calls to managers, would go to the wrong one.
    pub(super) fn move_node(&self, context: Context, to: &MoveNode) -> Outcome {
        let old = self.node(to.node)?;
        let MoveNode { control, gossip, data_path, .. } = *to;
        let node = Node { control, gossip, data_path, ..old.clone() };
        check(&node)?;
        if node == *old {
            return Ok(Applied::unchanged(Response::Node(node)));
        }
        let node = Node { meta: context.changed(old.meta), ..node };
        let mut changes = vec![Change::Put(Object::Node(node.clone()))];
        for other in self.view.nodes().values().filter(|other| other.id != node.id) {
            let Some((field, value)) = conflict(&node, other) else { continue };
            if !to.vacated.contains(&other.id) {
                return Err(taken(field, &value, other));
            }
            let meta = context.changed(other.meta);
            changes.push(Change::Put(Object::Node(Node { meta, ..displaced(other, &node) })));
        }
        Ok(Applied { response: Response::Node(node), changes })
    }
}

/// Refuses addresses that nothing can be sent to.
pub(super) fn check(node: &Node) -> Result<(), Rejection> {
    for (field, address) in [("control", node.control), ("gossip", node.gossip)] {
        if is_nowhere(address.ip()) || address.port() == 0 {
            let reason = "other nodes need an address and a port that they can send to";
            return Err(Rejection::invalid(field, address, reason));
        }
    }
    if is_nowhere(node.data_path) {
        let reason = "other nodes need an address that they can send to";
        return Err(Rejection::invalid("data_path", node.data_path, reason));
    }
    Ok(())
}

fn is_nowhere(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_multicast()
}

/// The first field in which two nodes would have one address.
fn conflict(node: &Node, other: &Node) -> Option<(&'static str, String)> {
    if node.control == other.control {
        Some(("control", node.control.to_string()))
    } else if node.gossip == other.gossip {
        Some(("gossip", node.gossip.to_string()))
    } else if node.data_path == other.data_path {
        Some(("data_path", node.data_path.to_string()))
    } else {
        None
    }
}

/// `other` without the addresses that are `node`'s now.
fn displaced(other: &Node, node: &Node) -> Node {
    let socket = |theirs: SocketAddr, ours: SocketAddr| {
        if theirs == ours { SocketAddr::new(nowhere(theirs.ip()), theirs.port()) } else { theirs }
    };
    let data_path = other.data_path;
    Node {
        control: socket(other.control, node.control),
        gossip: socket(other.gossip, node.gossip),
        data_path: if data_path == node.data_path { nowhere(data_path) } else { data_path },
        ..other.clone()
    }
}

/// The unspecified address, which stands for "not known".
fn nowhere(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn taken(field: &'static str, value: &str, other: &Node) -> Rejection {
    Rejection::Addresses {
        class: Class::FailedPrecondition,
        field: field.into(),
        value: value.to_owned(),
        message: format!(
            "{field} {value:?} is the address of node {} ({}), which is not known to have left it",
            other.name, other.id
        ),
    }
}
