//! The protocol of a release that is newer than this one.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ReflectMessage, Value,
    prost::Message,
    prost_types::{DescriptorProto, FieldDescriptorProto, field_descriptor_proto as field},
};

/// Number of what is new, in every message; the kinds that are new have the numbers behind it.
const NOVELTY: i32 = 999;

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/overlay-api/proto");
const FILES: [&str; 3] = [
    "overlay/v1/control.proto",
    "overlay/internal/v1/command.proto",
    "overlay/internal/v1/snapshot.proto",
];

/// The newer protocol.
pub(crate) fn pool() -> DescriptorPool {
    let mut files = protox::compile(FILES, [PROTO]).unwrap();
    files.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(extend);
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

fn extend(message: &mut DescriptorProto) {
    if message.options.as_ref().is_some_and(prost_reflect::prost_types::MessageOptions::map_entry) {
        return;
    }
    message.nested_type.iter_mut().for_each(extend);
    let kinds = 0..i32::try_from(message.oneof_decl.len()).unwrap();
    let kinds = kinds.map(|index| (format!("novelty_{index}"), NOVELTY + 1 + index, Some(index)));
    for (name, number, oneof_index) in
        [("novelty".to_owned(), NOVELTY, None)].into_iter().chain(kinds)
    {
        message.field.push(FieldDescriptorProto {
            name: Some(name),
            number: Some(number),
            label: Some(field::Label::Optional.into()),
            r#type: Some(field::Type::String.into()),
            oneof_index,
            ..Default::default()
        });
    }
}

/// The message as the newer release reads it.
pub(crate) fn read(pool: &DescriptorPool, name: &str, bytes: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(pool.get_message_by_name(name).unwrap(), bytes).unwrap()
}

/// Every message that is this one with one thing that is new, somewhere inside.
pub(crate) fn novelties(message: &DynamicMessage) -> Vec<Vec<u8>> {
    variations(message).into_iter().map(|message| message.encode_to_vec()).collect()
}

fn variations(message: &DynamicMessage) -> Vec<DynamicMessage> {
    let mut found = vec![with(message, "novelty")];
    for field in message.descriptor().fields() {
        if !message.has_field(&field) {
            continue;
        }
        let changed: Vec<Value> = match message.get_field(&field).as_ref() {
            Value::Message(inner) => variations(inner).into_iter().map(Value::Message).collect(),
            Value::List(items) => in_list(items),
            _ => Vec::new(),
        };
        found.extend(changed.into_iter().map(|value| {
            let mut message = message.clone();
            message.set_field(&field, value);
            message
        }));
    }
    found
}

fn in_list(items: &[Value]) -> Vec<Value> {
    let mut lists = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let Value::Message(inner) = item else { continue };
        for changed in variations(inner) {
            let mut items = items.to_vec();
            items[place] = Value::Message(changed);
            lists.push(Value::List(items));
        }
    }
    lists
}

/// The message with a field that is new.
pub(crate) fn with(message: &DynamicMessage, field: &str) -> DynamicMessage {
    let mut message = message.clone();
    message.set_field_by_name(field, Value::String("new".to_owned()));
    message
}
