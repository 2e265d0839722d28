//! Conversions between messages and the types of [`overlay_types`].
//!
//! `From<&T>` makes a message of a value and cannot fail; `TryFrom<message>` checks what came from
//! elsewhere and names the field that is wrong.

mod change;
mod endpoint;
mod key;
mod network;
mod node;
mod port;
mod service;

use core::str::FromStr;

pub use change::known_changes;
pub use endpoint::readiness;
pub use key::bytes32;
pub use node::availability;

use overlay_types::{Meta, Name, Revision, SpecError};

use crate::v1;

impl From<Meta> for v1::Meta {
    fn from(meta: Meta) -> Self {
        Self { created_at: meta.created_at.get(), changed_at: meta.changed_at.get() }
    }
}

impl From<v1::Meta> for Meta {
    fn from(meta: v1::Meta) -> Self {
        Self {
            created_at: Revision::new(meta.created_at),
            changed_at: Revision::new(meta.changed_at),
        }
    }
}

fn meta(message: Option<v1::Meta>) -> Meta {
    message.unwrap_or_default().into()
}

/// A value whose text form is the whole content of `field`.
///
/// Public for the calls whose messages carry ids and addresses beside objects.
pub fn parse<T: FromStr>(field: &'static str, text: &str) -> Result<T, SpecError>
where
    T::Err: ToString,
{
    text.parse().map_err(|e: T::Err| SpecError::new(field, text, e.to_string()))
}

/// The same, of a field that is empty for none.
fn parse_optional<T: FromStr>(field: &'static str, text: &str) -> Result<Option<T>, SpecError>
where
    T::Err: ToString,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

fn name(field: &'static str, text: &str) -> Result<Name, SpecError> {
    Name::parse(field, text)
}

fn names(field: &'static str, texts: &[String]) -> Result<Vec<Name>, SpecError> {
    texts.iter().map(|text| name(field, text)).collect()
}

/// The text form; empty for none.
fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

/// The message in a field that a sender must fill.
fn required<T>(field: &'static str, message: Option<T>) -> Result<T, SpecError> {
    message.ok_or_else(|| SpecError::new(field, "", "the field is needed"))
}

/// A number of a field that is narrower than protobuf's.
fn small<T: TryFrom<u32>>(field: &'static str, number: u32) -> Result<T, SpecError> {
    T::try_from(number).map_err(|_| SpecError::new(field, number, "the number is too large"))
}

#[cfg(test)]
mod tests;
