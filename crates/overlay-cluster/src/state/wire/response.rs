//! Responses, as the table of answered requests keeps them.

use overlay_api::{
    internal::v1::{self as pb, response::Response as Message},
    v1::Unit,
};

use super::{WireError, reading, required};
use crate::state::Response;

const RESPONSE: &str = "response";

impl From<&Response> for pb::Response {
    fn from(response: &Response) -> Self {
        let response = match response {
            Response::Done => Message::Done(Unit {}),
            Response::Cluster(o) => Message::Cluster(o.into()),
            Response::Node(o) => Message::Node(o.into()),
            Response::Network(o) => Message::Network(o.into()),
            Response::Service(o) => Message::Service(o.into()),
            Response::Endpoint(o) => Message::Endpoint(o.into()),
            Response::Epoch(o) => Message::Epoch(o.into()),
            Response::NodeKey(o) => Message::NodeKey(o.into()),
            Response::GossipKeys => Message::GossipKeys(Unit {}),
        };
        Self { response: Some(response) }
    }
}

impl TryFrom<pb::Response> for Response {
    type Error = WireError;

    fn try_from(message: pb::Response) -> Result<Self, WireError> {
        Ok(match required(RESPONSE, "content", message.response)? {
            Message::Done(_) => Self::Done,
            Message::Cluster(m) => Self::Cluster(reading(RESPONSE, m.try_into())?),
            Message::Node(m) => Self::Node(reading(RESPONSE, m.try_into())?),
            Message::Network(m) => Self::Network(reading(RESPONSE, m.try_into())?),
            Message::Service(m) => Self::Service(reading(RESPONSE, m.try_into())?),
            Message::Endpoint(m) => Self::Endpoint(reading(RESPONSE, m.try_into())?),
            Message::Epoch(m) => Self::Epoch(reading(RESPONSE, m.try_into())?),
            Message::NodeKey(m) => Self::NodeKey(reading(RESPONSE, m.try_into())?),
            Message::GossipKeys(_) => Self::GossipKeys,
        })
    }
}
