//! What is shown: the documented JSON, and the cells and fields of the tables.
//!
//! Messages of the API say what is on the wire; these structs say what programs may rely on: keys
//! are never renamed or removed, absent values are `null`, ids are whole.

mod ca;
mod cluster;
mod endpoint;
mod key;
pub(crate) mod lock;
mod network;
mod node;
mod port;
mod service;
pub(crate) mod update;

use std::{collections::BTreeMap, fmt};

use overlay_api::v1;
use serde::Serialize;

pub(crate) use self::{
    ca::{Ca, Waiting},
    cluster::{Initialized, Joined, Left, Restored, Status, Tokens, join_command},
    endpoint::Endpoint,
    key::Keys,
    network::{Network, NetworkDetail},
    node::{Node, role},
    service::{Service, ServiceDetail, Task},
};
use crate::output::short;

/// An object that another one refers to.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reference {
    id: String,
    /// `None` if it has none, or went away in between.
    name: Option<String>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name.as_deref().unwrap_or_else(|| short(&self.id)))
    }
}

/// Names by id, because objects refer to each other by id.
#[derive(Clone, Default, Debug)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Adds networks.
    pub(crate) fn with_networks(mut self, networks: &[v1::Network]) -> Self {
        self.0.extend(networks.iter().map(|network| {
            let name = network.spec.as_ref().map(|spec| spec.name.clone());
            (network.id.clone(), name.unwrap_or_default())
        }));
        self
    }

    /// Adds services.
    pub(crate) fn with_services(mut self, services: &[v1::Service]) -> Self {
        self.0.extend(services.iter().map(|service| {
            let name = service.spec.as_ref().map(|spec| spec.name.clone());
            (service.id.clone(), name.unwrap_or_default())
        }));
        self
    }

    /// Adds nodes.
    pub(crate) fn with_nodes<'a>(mut self, nodes: impl Iterator<Item = &'a v1::Node>) -> Self {
        self.0.extend(nodes.map(|node| (node.id.clone(), node.name.clone())));
        self
    }

    fn of(&self, id: &str) -> Reference {
        let name = self.0.get(id).filter(|name| !name.is_empty()).cloned();
        Reference { id: id.to_owned(), name }
    }

    fn of_optional(&self, id: &str) -> Option<Reference> {
        optional(id).map(|id| self.of(&id))
    }
}

/// An unset text field of a message is empty.
fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `KEY=VALUE` of each, one below the other.
fn pairs(map: &BTreeMap<String, String>) -> String {
    joined(map.iter().map(|(key, value)| format!("{key}={value}")), "\n")
}

/// One below the other.
fn lines(items: impl IntoIterator<Item: fmt::Display>) -> String {
    joined(items, "\n")
}

fn joined(items: impl IntoIterator<Item: fmt::Display>, separator: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests;
