//! Published ports.

use core::num::NonZeroU16;

use overlay_types::{PortSpec, Protocol, PublishMode, SpecError};

use super::{parse_optional, text};
use crate::v1;

impl From<&PortSpec> for v1::PortSpec {
    fn from(port: &PortSpec) -> Self {
        let protocol = match port.protocol {
            Protocol::Tcp => v1::Protocol::Tcp,
            Protocol::Udp => v1::Protocol::Udp,
            Protocol::Sctp => v1::Protocol::Sctp,
        };
        let mode = match port.mode {
            PublishMode::Ingress => v1::PublishMode::Ingress,
            PublishMode::Host => v1::PublishMode::Host,
        };
        Self {
            protocol: protocol.into(),
            target: port.target.get().into(),
            published: port.published.map_or(0, |p| p.get().into()),
            mode: mode.into(),
            host_ip: text(port.host_ip),
        }
    }
}

impl TryFrom<v1::PortSpec> for PortSpec {
    type Error = SpecError;

    fn try_from(message: v1::PortSpec) -> Result<Self, SpecError> {
        let protocol = match v1::Protocol::try_from(message.protocol) {
            Ok(v1::Protocol::Tcp) => Protocol::Tcp,
            Ok(v1::Protocol::Udp) => Protocol::Udp,
            Ok(v1::Protocol::Sctp) => Protocol::Sctp,
            Err(_) => {
                let reason = "a protocol is tcp, udp or sctp";
                return Err(SpecError::new("ports.protocol", message.protocol, reason));
            }
        };
        let mode = match v1::PublishMode::try_from(message.mode) {
            Ok(v1::PublishMode::Ingress) => PublishMode::Ingress,
            Ok(v1::PublishMode::Host) => PublishMode::Host,
            Err(_) => {
                let reason = "a publish mode is ingress or host";
                return Err(SpecError::new("ports.mode", message.mode, reason));
            }
        };
        Ok(Self {
            protocol,
            target: port("ports.target", message.target)?,
            published: match message.published {
                0 => None,
                number => Some(port("ports.published", number)?),
            },
            mode,
            host_ip: parse_optional("ports.host_ip", &message.host_ip)?,
        })
    }
}

pub(super) fn ports(messages: Vec<v1::PortSpec>) -> Result<Vec<PortSpec>, SpecError> {
    messages.into_iter().map(TryInto::try_into).collect()
}

fn port(field: &'static str, number: u32) -> Result<NonZeroU16, SpecError> {
    u16::try_from(number)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or_else(|| SpecError::new(field, number, "a port is 1-65535"))
}
