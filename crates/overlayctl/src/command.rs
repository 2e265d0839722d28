//! Per noun: flags → request → answer.

pub(crate) mod backup;
pub(crate) mod ca;
pub(crate) mod cluster;
pub(crate) mod endpoint;
pub(crate) mod key;
pub(crate) mod lock;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod update;

use overlay_api::v1;

use crate::{failure::Failure, session::Node, view::Names};

/// What a command prints, and what of it failed.
#[derive(Default, Debug)]
pub(crate) struct Report {
    /// For stdout.
    pub(crate) output: String,
    /// Of a command about several objects: those that it failed for.
    pub(crate) failures: Vec<Failure>,
}

impl From<String> for Report {
    fn from(output: String) -> Self {
        Self { output, failures: Vec::new() }
    }
}

/// Does `act` for each of `references`; one that fails does not keep it from the others.
async fn each<T>(
    references: &[String],
    act: impl AsyncFn(&str) -> Result<T, Failure>,
) -> (Vec<T>, Vec<Failure>) {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for reference in references {
        match act(reference).await {
            Ok(value) => done.push(value),
            Err(failure) => failures.push(failure),
        }
    }
    (done, failures)
}

/// Names of all networks and nodes, which endpoints and services refer to.
async fn names(node: &Node) -> Result<Names, Failure> {
    let (networks, nodes) = tokio::try_join!(
        node.list_networks(v1::NetworkFilter::default()),
        node.list_nodes(v1::NodeFilter::default()),
    )?;
    Ok(Names::default()
        .with_networks(&networks)
        .with_nodes(nodes.iter().filter_map(|status| status.node.as_ref())))
}

/// The same and names of all services.
async fn names_with_services(node: &Node) -> Result<Names, Failure> {
    let services = node.list_services(v1::ServiceFilter::default()).await?;
    Ok(names(node).await?.with_services(&services))
}
