//! The list of networks.

use overlay_api::v1;
use overlay_types::{Network, SpecError};

use super::{
    filter::{Ids, Labels, Names, switch},
    page::{Listed, Page},
};
use crate::state::{Rejection, State};

/// What a caller wants of the networks.
#[derive(Debug)]
pub(in crate::server) struct NetworkList {
    page: Page,
    names: Names,
    ids: Ids,
    labels: Labels,
    /// For its switches.
    filter: v1::NetworkFilter,
}

impl NetworkList {
    pub(in crate::server) fn new(request: v1::ListNetworksRequest) -> Result<Self, SpecError> {
        let v1::ListNetworksRequest { filter, page_size, page_token, .. } = request;
        let page = Page::new("networks", filter.as_ref(), page_size, page_token)?;
        let mut filter = filter.unwrap_or_default();
        Ok(Self {
            page,
            names: Names::new(&filter.names)?,
            ids: Ids::new(&filter.ids)?,
            labels: Labels::new(std::mem::take(&mut filter.labels))?,
            filter,
        })
    }

    fn fits(&self, network: &Network) -> bool {
        let (spec, wanted) = (&network.spec, &self.filter);
        self.names.are_in(Some(&spec.name))
            && self.labels.fit(&spec.labels)
            && switch(wanted.ingress, spec.ingress)
            && switch(wanted.internal, spec.internal)
            && switch(wanted.attachable, spec.attachable)
            && switch(wanted.encrypted, spec.encrypted)
    }

    pub(in crate::server) fn of(&self, state: &State) -> Result<Listed<v1::Network>, Rejection> {
        let networks = self.ids.walk(state.view().networks(), self.page.from(state)?);
        let networks = networks.filter(|network| self.fits(network));
        Ok(self.page.fill(state, networks, |network| network.id.to_u128(), |n| (*n).into()))
    }
}
