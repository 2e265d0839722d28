//! Objects of any kind, their keys, and changes.

use overlay_types::{Change, Epoch, Object, ObjectKey, SpecError};

use super::{parse, required};
use crate::v1::{self, change, object, object_key};

/// The changes of a message, but for those of kinds of objects that this version does not know: a
/// newer manager tells of them, and nothing here depends on them.
pub fn known_changes(messages: Vec<v1::Change>) -> Result<Vec<Change>, SpecError> {
    messages.into_iter().filter(is_of_known_kind).map(Change::try_from).collect()
}

fn is_of_known_kind(message: &v1::Change) -> bool {
    match &message.change {
        Some(change::Change::Put(object)) => object.object.is_some(),
        Some(change::Change::Delete(key)) => key.key.is_some(),
        None => false,
    }
}

impl From<&Object> for v1::Object {
    fn from(object: &Object) -> Self {
        let object = match object {
            Object::Cluster(o) => object::Object::Cluster(o.into()),
            Object::Node(o) => object::Object::Node(o.into()),
            Object::Network(o) => object::Object::Network(o.into()),
            Object::Service(o) => object::Object::Service(o.into()),
            Object::Endpoint(o) => object::Object::Endpoint(o.into()),
            Object::KeyEpoch(o) => object::Object::KeyEpoch(o.into()),
            Object::NodeKey(o) => object::Object::NodeKey(o.into()),
            Object::GossipKeys(o) => object::Object::GossipKeys(o.into()),
        };
        Self { object: Some(object) }
    }
}

impl TryFrom<v1::Object> for Object {
    type Error = SpecError;

    fn try_from(message: v1::Object) -> Result<Self, SpecError> {
        Ok(match required("object", message.object)? {
            object::Object::Cluster(o) => Self::Cluster(o.try_into()?),
            object::Object::Node(o) => Self::Node(o.try_into()?),
            object::Object::Network(o) => Self::Network(o.try_into()?),
            object::Object::Service(o) => Self::Service(o.try_into()?),
            object::Object::Endpoint(o) => Self::Endpoint(o.try_into()?),
            object::Object::KeyEpoch(o) => Self::KeyEpoch(o.try_into()?),
            object::Object::NodeKey(o) => Self::NodeKey(o.try_into()?),
            object::Object::GossipKeys(o) => Self::GossipKeys(o.try_into()?),
        })
    }
}

impl From<ObjectKey> for v1::ObjectKey {
    fn from(key: ObjectKey) -> Self {
        let key = match key {
            ObjectKey::Cluster => object_key::Key::Cluster(v1::Unit {}),
            ObjectKey::Node(id) => object_key::Key::Node(id.to_string()),
            ObjectKey::Network(id) => object_key::Key::Network(id.to_string()),
            ObjectKey::Service(id) => object_key::Key::Service(id.to_string()),
            ObjectKey::Endpoint(id) => object_key::Key::Endpoint(id.to_string()),
            ObjectKey::KeyEpoch(epoch) => object_key::Key::KeyEpoch(epoch.get()),
            ObjectKey::NodeKey(epoch, node) => object_key::Key::NodeKey(v1::NodeKeyId {
                epoch: epoch.get(),
                node: node.to_string(),
            }),
            ObjectKey::GossipKeys => object_key::Key::GossipKeys(v1::Unit {}),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<v1::ObjectKey> for ObjectKey {
    type Error = SpecError;

    fn try_from(message: v1::ObjectKey) -> Result<Self, SpecError> {
        Ok(match required("key", message.key)? {
            object_key::Key::Cluster(_) => Self::Cluster,
            object_key::Key::Node(id) => Self::Node(parse("key.node", &id)?),
            object_key::Key::Network(id) => Self::Network(parse("key.network", &id)?),
            object_key::Key::Service(id) => Self::Service(parse("key.service", &id)?),
            object_key::Key::Endpoint(id) => Self::Endpoint(parse("key.endpoint", &id)?),
            object_key::Key::KeyEpoch(epoch) => Self::KeyEpoch(Epoch::new(epoch)),
            object_key::Key::NodeKey(id) => {
                Self::NodeKey(Epoch::new(id.epoch), parse("key.node_key", &id.node)?)
            }
            object_key::Key::GossipKeys(_) => Self::GossipKeys,
        })
    }
}

impl From<&Change> for v1::Change {
    fn from(change: &Change) -> Self {
        let change = match change {
            Change::Put(object) => change::Change::Put(object.into()),
            Change::Delete(key) => change::Change::Delete((*key).into()),
        };
        Self { change: Some(change) }
    }
}

impl TryFrom<v1::Change> for Change {
    type Error = SpecError;

    fn try_from(message: v1::Change) -> Result<Self, SpecError> {
        Ok(match required("change", message.change)? {
            change::Change::Put(object) => Self::Put(object.try_into()?),
            change::Change::Delete(key) => Self::Delete(key.try_into()?),
        })
    }
}
