//! `node ls|inspect|update|promote|demote|rm`

use clap::{Args, Subcommand, ValueEnum};
use overlay_api::v1;

use super::{Report, each};
use crate::{
    failure::Failure,
    flag::{LabelChanges, List, References, Role},
    session::{self, Session},
    view::Node,
};

/// What can be done with nodes.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// List nodes; * marks the one that is asked
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show nodes in full
    Inspect(References),
    /// Change role, availability or labels of a node
    Update(Update),
    /// Make managers of workers
    Promote(References),
    /// Make workers of managers
    Demote(References),
    /// Remove nodes with all that is on them; managers are demoted first
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

/// `node update`
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// Whether the node takes endpoints (active), only keeps those it has (pause), or gets no new
    /// flows either (drain)
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    /// What the node may do
    #[arg(long, value_enum)]
    role: Option<Role>,
    #[command(flatten)]
    labels: LabelChanges,
    /// Name, id or unique prefix of the id
    node: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Availability {
    Active,
    Pause,
    Drain,
}

/// `node rm`
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// Also nodes that are not known to be dead
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    references: References,
}

impl Update {
    /// Only the role.
    fn of_role(node: String, role: Role) -> Self {
        Self { availability: None, role: Some(role), labels: LabelChanges::default(), node }
    }

    /// The request that changes `node` like this, and nothing else of it.
    fn request(&self, node: v1::Node) -> Result<v1::UpdateNodeRequest, Failure> {
        let mut labels = node.labels;
        self.labels.apply("the node", &mut labels)?;
        Ok(v1::UpdateNodeRequest {
            role: self.role.map_or(node.role, |role| v1::Role::from(role).into()),
            availability: match self.availability {
                None => node.availability,
                Some(Availability::Active) => v1::Availability::Active.into(),
                Some(Availability::Pause) => v1::Availability::Pause.into(),
                Some(Availability::Drain) => v1::Availability::Drain.into(),
            },
            labels,
            changed_at: node.meta.unwrap_or_default().changed_at,
            node: node.id,
            request_id: String::new(),
        })
    }

    /// Changes the node; its name comes back.
    async fn apply(&self, session: &session::Node) -> Result<String, Failure> {
        let request = v1::GetNodeRequest { node: self.node.clone(), consistency: None };
        let status = session.nodes().get_node(request).await?.into_inner().node;
        let node = status.and_then(|status| status.node).ok_or(Failure::Incomplete("node"))?;
        let answer = session.nodes().update_node(self.request(node)?).await?.into_inner();
        Ok(answer.node.ok_or(Failure::Incomplete("node"))?.name)
    }
}

/// Gives each node the role.
async fn give(
    role: Role,
    references: Vec<String>,
    node: &session::Node,
    session: &Session,
) -> Result<Report, Failure> {
    let give =
        async |reference: &str| Update::of_role(reference.to_owned(), role).apply(node).await;
    let (names, failures) = each(&references, give).await;
    Ok(Report { output: session.format.changed(&names), failures })
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let filter = match &self {
            Self::Ls(list) => list.filters.nodes()?,
            _ => v1::NodeFilter::default(),
        };
        let node = session.connect().await?;
        let current = current(&node).await?;
        match self {
            Self::Ls(List { listing, .. }) => {
                let nodes = node.list_nodes(filter).await?.into_iter();
                let nodes = nodes.map(|status| Node::new(status, &current)).collect();
                Ok(session.format.list(nodes, listing).into())
            }
            Self::Inspect(References { references }) => {
                let get = async |reference: &str| {
                    let request =
                        v1::GetNodeRequest { node: reference.to_owned(), consistency: None };
                    let answer = node.nodes().get_node(request).await?.into_inner();
                    let status = answer.node.ok_or(Failure::Incomplete("node"))?;
                    Ok(Node::new(status, &current))
                };
                let (nodes, failures) = each(&references, get).await;
                Ok(Report { output: session.format.inspect(&nodes), failures })
            }
            Self::Update(update) => {
                let name = update.apply(&node).await?;
                Ok(session.format.changed(&[name]).into())
            }
            Self::Promote(References { references }) => {
                give(Role::Manager, references, &node, session).await
            }
            Self::Demote(References { references }) => {
                give(Role::Worker, references, &node, session).await
            }
            Self::Rm(Remove { force, references: References { references } }) => {
                let remove = async |reference: &str| {
                    let request = v1::RemoveNodeRequest {
                        node: reference.to_owned(),
                        force,
                        request_id: String::new(),
                    };
                    node.nodes().remove_node(request).await?;
                    Ok(reference.to_owned())
                };
                let (names, failures) = each(&references, remove).await;
                Ok(Report { output: session.format.removed(&names), failures })
            }
        }
    }
}

/// Id of the node that is asked. Lists come from managers, which do not know who asks.
async fn current(node: &session::Node) -> Result<String, Failure> {
    Ok(node.local().get_status(v1::GetStatusRequest {}).await?.into_inner().node)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    fn request(line: &str) -> Result<v1::UpdateNodeRequest, Failure> {
        let known = v1::Node {
            id: "n1".into(),
            role: v1::Role::Worker.into(),
            availability: v1::Availability::Pause.into(),
            labels: [("rack".to_owned(), "7".to_owned())].into(),
            meta: Some(v1::Meta { created_at: 3, changed_at: 5 }),
            ..Default::default()
        };
        parsed::<Update>(&format!("{line} n1")).unwrap().request(known)
    }

    #[rstest]
    #[case("", "Worker Pause rack=7")]
    #[case("--role manager", "Manager Pause rack=7")]
    #[case("--availability drain", "Worker Drain rack=7")]
    #[case("--label-add disk=ssd --label-add plain", "Worker Pause disk=ssd plain= rack=7")]
    #[case("--label-add rack=8", "Worker Pause rack=8")]
    #[case("--label-rm rack --availability active", "Worker Active")]
    fn c06_what_is_not_said_stays(#[case] line: &str, #[case] expected: &str) {
        let request = request(line).unwrap();
        let mut words =
            vec![format!("{:?}", request.role()), format!("{:?}", request.availability())];
        words.extend(request.labels.iter().map(|(key, value)| format!("{key}={value}")));
        assert_eq!(words.join(" "), expected);
        assert_eq!((request.node.as_str(), request.changed_at), ("n1", 5));
    }

    #[test]
    fn c06_a_label_that_is_not_there_cannot_be_removed() {
        let error = request("--label-rm disk").unwrap_err().to_string();
        assert!(error.contains("label-rm") && error.contains("disk"), "{error}");
    }

    #[test]
    fn c06_a_label_without_a_key_is_not_sent() {
        let error = request("--label-add =ssd").unwrap_err().to_string();
        assert!(error.contains("label-add") && error.contains("=ssd"), "{error}");
    }
}
