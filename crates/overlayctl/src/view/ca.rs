//! The CA: its root, and the one that replaces it.

use overlay_api::v1;
use serde::Serialize;

use super::Reference;
use crate::{failure::Failure, output::Inspected};

/// Answer to `ca show` and `ca rotate`.
#[derive(Serialize, Debug)]
pub(crate) struct Ca {
    root: Root,
    /// `null`: no rotation runs.
    rotation: Option<Rotation>,
}

#[derive(Serialize, Debug)]
struct Root {
    id: String,
    /// As in join tokens.
    digest: String,
    /// PEM.
    certificate: String,
}

#[derive(Serialize, Debug)]
struct Rotation {
    /// It signs now.
    root: Root,
    waiting: Waiting,
}

/// Nodes that a rotation waits for.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Waiting {
    count: u64,
    /// Some of them.
    nodes: Vec<WaitingNode>,
}

#[derive(Serialize, Clone, Debug)]
struct WaitingNode {
    #[serde(flatten)]
    node: Reference,
    /// Verdict of gossip: `alive`, `dead`, `left` or `unknown`.
    liveness: &'static str,
}

impl From<v1::CaRoot> for Root {
    fn from(root: v1::CaRoot) -> Self {
        Self { id: root.id, digest: root.digest, certificate: root.certificate }
    }
}

impl From<v1::NodeStatus> for WaitingNode {
    fn from(status: v1::NodeStatus) -> Self {
        let liveness = super::node::liveness(status.liveness());
        let node = status.node.unwrap_or_default();
        Self { node: Reference { id: node.id, name: Some(node.name) }, liveness }
    }
}

impl TryFrom<v1::GetCaResponse> for Ca {
    type Error = Failure;

    fn try_from(answer: v1::GetCaResponse) -> Result<Self, Failure> {
        let root = answer.root.ok_or(Failure::Incomplete("root"))?.into();
        let rotation = answer.rotation.map(|rotation| {
            Ok::<_, Failure>(Rotation {
                root: rotation.root.ok_or(Failure::Incomplete("root of the rotation"))?.into(),
                waiting: Waiting {
                    count: rotation.waiting_count,
                    nodes: rotation.waiting.into_iter().map(Into::into).collect(),
                },
            })
        });
        Ok(Self { root, rotation: rotation.transpose()? })
    }
}

impl Waiting {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.nodes.iter().map(|node| format!("{} ({})", node.node, node.liveness)).collect();
        match self.count.saturating_sub(names.len() as u64) {
            0 => {}
            more => names.push(format!("{more} more")),
        }
        names
    }

    /// For people.
    pub(crate) fn sentence(&self) -> String {
        match self.names().as_slice() {
            [] => "The rotation is about to end.".to_owned(),
            names => format!(
                "The rotation waits for {}: {}. A node that does not come back is removed with \
                 overlayctl node rm.",
                if self.count == 1 { "1 node".to_owned() } else { format!("{} nodes", self.count) },
                names.join(", ")
            ),
        }
    }
}

impl Ca {
    /// The root certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.root.certificate
    }

    /// Whom a rotation waits for, if one runs.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        self.rotation.as_ref().map(|rotation| rotation.waiting.clone())
    }

    /// For people.
    pub(crate) fn sentence(&self) -> String {
        match &self.rotation {
            None => format!(
                "The root was replaced; the new one has the digest {}. Join tokens are new, too: \
                 overlayctl join-token prints them.\n",
                self.root.digest
            ),
            Some(rotation) => format!(
                "Rotation to the root with the digest {} started. {}\n",
                rotation.root.digest,
                rotation.waiting.sentence()
            ),
        }
    }
}

impl Inspected for Ca {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let rotation = self.rotation.as_ref();
        vec![
            ("Root", self.root.id.clone()),
            ("Digest", self.root.digest.clone()),
            ("Replaced by", rotation.map_or_else(String::new, |r| r.root.id.clone())),
            ("New digest", rotation.map_or_else(String::new, |r| r.root.digest.clone())),
            ("Waiting for", rotation.map_or_else(String::new, |r| r.waiting.names().join("\n"))),
            ("Certificate", self.root.certificate.trim_end().to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(digest: &str) -> v1::CaRoot {
        v1::CaRoot { digest: digest.into(), ..Default::default() }
    }

    fn node(name: &str, liveness: v1::Liveness) -> v1::NodeStatus {
        let node = v1::Node { name: name.into(), ..Default::default() };
        v1::NodeStatus { node: Some(node), liveness: liveness.into(), leader: false }
    }

    #[test]
    fn c04_a_rotation_says_whom_it_waits_for() {
        let waiting = vec![node("a", v1::Liveness::Alive), node("b", v1::Liveness::Dead)];
        let rotation = v1::RootRotation { root: Some(root("new")), waiting_count: 7, waiting };
        let answer = v1::GetCaResponse { root: Some(root("old")), rotation: Some(rotation) };
        let ca = Ca::try_from(answer).unwrap();
        let sentence = ca.sentence();
        assert!(sentence.contains("digest new"), "{sentence}");
        assert!(sentence.contains("7 nodes: a (alive), b (dead), 5 more. "), "{sentence}");
        let ended =
            Ca::try_from(v1::GetCaResponse { root: Some(root("new")), rotation: None }).unwrap();
        assert!(ended.waiting().is_none() && ended.sentence().contains("was replaced"));
        assert!(Ca::try_from(v1::GetCaResponse::default()).is_err());
    }
}
