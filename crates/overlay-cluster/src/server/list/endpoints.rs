//! The list of endpoints.

use std::{collections::BTreeSet, sync::Arc};

use overlay_api::{convert, v1};
use overlay_types::{Endpoint, EndpointRole, NetworkId, NodeId, Readiness, ServiceId, SpecError};

use super::{
    filter::{Ids, Names, OneOf, References},
    page::{Listed, Page},
};
use crate::state::{Rejection, State};

/// What a caller wants of the endpoints.
#[derive(Debug)]
pub(in crate::server) struct EndpointList {
    page: Page,
    names: Names,
    ids: Ids,
    networks: References,
    services: References,
    nodes: References,
    roles: OneOf<EndpointRole>,
    readiness: OneOf<Readiness>,
}

/// What the references of a list mean.
struct Wanted {
    networks: Option<BTreeSet<NetworkId>>,
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<NodeId>>,
}

fn holds<I: Ord>(wanted: Option<&BTreeSet<I>>, id: Option<I>) -> bool {
    wanted.is_none_or(|wanted| id.is_some_and(|id| wanted.contains(&id)))
}

impl EndpointList {
    pub(in crate::server) fn new(request: v1::ListEndpointsRequest) -> Result<Self, SpecError> {
        let v1::ListEndpointsRequest { filter, page_size, page_token, .. } = request;
        let page = Page::new("endpoints", filter.as_ref(), page_size, page_token)?;
        let mut filter = filter.unwrap_or_default();
        if filter.roles.is_empty() {
            filter.roles.push(v1::EndpointRole::Workload.into());
        }
        let role = |number| v1::EndpointRole::try_from(number).ok().map(EndpointRole::from);
        let readiness = |number| convert::readiness("readiness", number).ok();
        Ok(Self {
            page,
            names: Names::new(&filter.names)?,
            ids: Ids::new(&filter.ids)?,
            networks: References::new("filter.networks", filter.networks)?,
            services: References::new("filter.services", filter.services)?,
            nodes: References::new("filter.nodes", filter.nodes)?,
            roles: OneOf::new("filter.roles", &filter.roles, role)?,
            readiness: OneOf::new("filter.readiness", &filter.readiness, readiness)?,
        })
    }

    fn fits(&self, endpoint: &Endpoint, wanted: &Wanted) -> bool {
        self.roles.fit(endpoint.role)
            && self.readiness.fit(endpoint.readiness)
            && self.names.are_in(endpoint.name.as_ref())
            && self.ids.fit(endpoint.id.to_u128())
            && holds(wanted.networks.as_ref(), Some(endpoint.network))
            && holds(wanted.services.as_ref(), endpoint.service)
            && holds(wanted.nodes.as_ref(), Some(endpoint.node))
    }

    pub(in crate::server) fn of(&self, state: &State) -> Result<Listed<v1::Endpoint>, Rejection> {
        let view = state.view();
        let wanted = Wanted {
            networks: self.networks.resolve(|text| state.find_network(text).map(|n| n.id))?,
            services: self.services.resolve(|text| state.find_service(text).map(|s| s.id))?,
            nodes: self.nodes.resolve(|text| state.find_node(text).map(|n| n.id))?,
        };
        let from = self.page.from(state)?;
        let fill = |endpoints: &mut dyn Iterator<Item = &Endpoint>| {
            self.page.fill(state, endpoints, |e| e.id.to_u128(), |e| (*e).into())
        };
        // Networks and services know their endpoints, which are far fewer than all.
        let mut few: Vec<&Endpoint> = Vec::new();
        if let Some(services) = &wanted.services {
            for service in services {
                few.extend(self.some_of(view.tasks_of(*service), from, &wanted));
            }
        } else if let Some(networks) = &wanted.networks {
            for network in networks {
                few.extend(self.some_of(view.endpoints_on(*network), from, &wanted));
            }
        } else {
            let all = self.ids.walk(view.endpoints(), from).map(Arc::as_ref);
            return Ok(fill(&mut all.filter(|endpoint| self.fits(endpoint, &wanted))));
        }
        few.sort_by_key(|endpoint| endpoint.id);
        Ok(fill(&mut few.into_iter()))
    }

    /// What a page may need of endpoints that come in the order of their ids.
    fn some_of<'a>(
        &self,
        endpoints: impl Iterator<Item = &'a Endpoint>,
        from: u128,
        wanted: &Wanted,
    ) -> impl Iterator<Item = &'a Endpoint> {
        let rest = endpoints.filter(move |endpoint| endpoint.id.to_u128() >= from);
        rest.filter(|endpoint| self.fits(endpoint, wanted)).take(self.page.wanted())
    }
}
