//! The list of nodes.

use std::collections::BTreeSet;

use overlay_api::v1;
use overlay_types::{Availability, Node, NodeId, Role, SpecError};

use super::{
    filter::{Ids, Labels, Names, OneOf, References},
    page::{Listed, Page},
};
use crate::state::{Rejection, State};

/// What a caller wants of the nodes.
#[derive(Debug)]
pub(in crate::server) struct NodeList {
    page: Page,
    names: Names,
    ids: Ids,
    labels: Labels,
    roles: OneOf<Role>,
    availabilities: OneOf<Availability>,
    liveness: OneOf<v1::Liveness>,
    networks: References,
}

impl NodeList {
    pub(in crate::server) fn new(request: v1::ListNodesRequest) -> Result<Self, SpecError> {
        let v1::ListNodesRequest { filter, page_size, page_token, .. } = request;
        let page = Page::new("nodes", filter.as_ref(), page_size, page_token)?;
        let filter = filter.unwrap_or_default();
        let role = |value| v1::Role::try_from(value).ok()?.try_into().ok();
        let availability = |value| v1::Availability::try_from(value).ok().map(Into::into);
        let liveness = |value| v1::Liveness::try_from(value).ok();
        let availabilities = &filter.availabilities;
        Ok(Self {
            page,
            names: Names::new(&filter.names)?,
            ids: Ids::new(&filter.ids)?,
            labels: Labels::new(filter.labels)?,
            roles: OneOf::new("filter.roles", &filter.roles, role)?,
            availabilities: OneOf::new("filter.availabilities", availabilities, availability)?,
            liveness: OneOf::new("filter.liveness", &filter.liveness, liveness)?,
            networks: References::new("filter.networks", filter.networks)?,
        })
    }

    fn fits(&self, node: &Node) -> bool {
        self.names.start(&node.name)
            && self.labels.fit(&node.labels)
            && self.roles.fit(node.role)
            && self.availabilities.fit(node.availability)
    }

    /// `status` adds what is not replicated.
    pub(in crate::server) fn of(
        &self,
        state: &State,
        status: impl Fn(&Node) -> v1::NodeStatus,
        liveness: impl Fn(NodeId) -> v1::Liveness,
    ) -> Result<Listed<v1::NodeStatus>, Rejection> {
        let networks = self.networks.resolve(|text| state.find_network(text).map(|n| n.id))?;
        let peers: Option<BTreeSet<NodeId>> = networks
            .map(|ids| ids.into_iter().flat_map(|id| state.peers_on(id)).map(|n| n.id).collect());
        let nodes = self.ids.walk(state.view().nodes(), self.page.from(state)?);
        let nodes = nodes.filter(|node| {
            self.fits(node)
                && self.liveness.fit(liveness(node.id))
                && peers.as_ref().is_none_or(|peers| peers.contains(&node.id))
        });
        Ok(self.page.fill(state, nodes, |node| node.id.to_u128(), |node| status(node)))
    }
}
