//! Watches: a node goes on with what it knows of what a newer manager tells.

use overlay_api::{convert::known_changes, v1};
use overlay_testkit::objects;
use overlay_types::{Change, Object, ObjectKey};
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use crate::newer;

fn told() -> Vec<Change> {
    vec![
        Change::Put(Object::Cluster(objects::cluster())),
        Change::Put(Object::Node(objects::node(1))),
        Change::Delete(ObjectKey::Node(objects::node(2).id)),
    ]
}

fn message() -> v1::WatchResponse {
    let changes = told().iter().map(Into::into).collect();
    v1::WatchResponse { revision: 7, changes, ..Default::default() }
}

#[test]
fn r08_fields_that_are_new_are_passed_over() {
    let pool = newer::pool();
    let known = newer::read(&pool, "overlay.v1.WatchResponse", &message().encode_to_vec());
    let novelties = newer::novelties(&known);
    assert!(novelties.len() > 10, "{}", novelties.len());
    for newer in novelties {
        let message = v1::WatchResponse::decode(newer.as_slice()).unwrap();
        assert_eq!(known_changes(message.changes), Ok(told()));
    }
}

#[test]
fn r08_kinds_of_objects_and_changes_that_are_new_are_passed_over() {
    let pool = newer::pool();
    let mut known = newer::read(&pool, "overlay.v1.WatchResponse", &message().encode_to_vec());
    let blank = |name: &str| DynamicMessage::new(pool.get_message_by_name(name).unwrap());
    let changes = ["put", "delete"].map(|kind| {
        let inner = if kind == "put" { "overlay.v1.Object" } else { "overlay.v1.ObjectKey" };
        let mut change = blank("overlay.v1.Change");
        let inner = newer::with(&blank(inner), "novelty_0");
        change.set_field_by_name(kind, Value::Message(inner));
        change
    });
    let change = newer::with(&blank("overlay.v1.Change"), "novelty_0");
    let field = known.descriptor().get_field_by_name("changes").unwrap();
    let Value::List(mut all) = known.get_field(&field).into_owned() else { panic!("a list") };
    all.extend(changes.into_iter().chain([change]).map(Value::Message));
    known.set_field(&field, Value::List(all));
    let message = v1::WatchResponse::decode(known.encode_to_vec().as_slice()).unwrap();
    assert_eq!(message.changes.len(), told().len() + 3);
    assert_eq!(known_changes(message.changes), Ok(told()));
}
