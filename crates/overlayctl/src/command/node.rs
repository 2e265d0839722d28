//! `node ls|inspect`

use clap::Subcommand;
use overlay_api::v1;

use super::{Report, each};
use crate::{
    failure::Failure,
    flag::{Listing, References},
    session::{self, Session},
    view::Node,
};

/// What can be done with nodes.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// List nodes; * marks the one that is asked
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show nodes in full
    Inspect(References),
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        let current = current(&node).await?;
        match self {
            Self::Ls(listing) => {
                let answer = node.nodes().list_nodes(v1::ListNodesRequest::default()).await?;
                let nodes = answer.into_inner().nodes.into_iter();
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
        }
    }
}

/// Id of the node that is asked. Lists come from managers, which do not know who asks.
async fn current(node: &session::Node) -> Result<String, Failure> {
    Ok(node.local().get_status(v1::GetStatusRequest {}).await?.into_inner().node)
}
