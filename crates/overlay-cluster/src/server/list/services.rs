//! The list of services.

use std::collections::BTreeMap;

use overlay_api::v1;
use overlay_types::{EndpointMode, Service, SpecError};

use super::{
    filter::{Ids, Labels, Names, OneOf, References},
    page::{Listed, Page},
};
use crate::state::{Rejection, State};

/// What a caller wants of the services.
#[derive(Debug)]
pub(in crate::server) struct ServiceList {
    page: Page,
    names: Names,
    ids: Ids,
    labels: Labels,
    modes: OneOf<EndpointMode>,
    networks: References,
}

impl ServiceList {
    pub(in crate::server) fn new(request: v1::ListServicesRequest) -> Result<Self, SpecError> {
        let v1::ListServicesRequest { filter, page_size, page_token, .. } = request;
        let page = Page::new("services", filter.as_ref(), page_size, page_token)?;
        let filter = filter.unwrap_or_default();
        let mode = |value| v1::EndpointMode::try_from(value).ok().map(EndpointMode::from);
        Ok(Self {
            page,
            names: Names::new(&filter.names)?,
            ids: Ids::new(&filter.ids)?,
            labels: Labels::new(filter.labels)?,
            modes: OneOf::new("filter.modes", &filter.modes, mode)?,
            networks: References::new("filter.networks", filter.networks)?,
        })
    }

    fn fits(&self, service: &Service) -> bool {
        let spec = &service.spec;
        self.names.start(&spec.name)
            && self.ids.fit(service.id.to_u128())
            && self.labels.fit(&spec.labels)
            && self.modes.fit(spec.mode)
    }

    pub(in crate::server) fn of(&self, state: &State) -> Result<Listed<v1::Service>, Rejection> {
        let networks = self.networks.resolve(|text| state.find_network(text).map(|n| n.id))?;
        let from = self.page.from(state)?;
        let fill = |services: &mut dyn Iterator<Item = &Service>| {
            self.page.fill(state, services, |s| s.id.to_u128(), |s| (*s).into())
        };
        let Some(networks) = networks else {
            let all = self.ids.walk(state.view().services(), from);
            return Ok(fill(&mut all.filter(|service| self.fits(service))));
        };
        // A service may be on several of them.
        let mut found = BTreeMap::new();
        for network in networks {
            let services = state.services_on(network).filter(|s| s.id.to_u128() >= from);
            let services = services.filter(|service| self.fits(service)).take(self.page.wanted());
            found.extend(services.map(|service| (service.id, service)));
        }
        Ok(fill(&mut found.into_values()))
    }
}
