//! Reads both grammars; the [parent](super) shows them.

use core::{net::IpAddr, num::NonZeroU16, ops::RangeInclusive};

use super::{PortSpec, Protocol, PublishMode};
use crate::{SpecError, number::from_digits};

/// The ports that `text` publishes.
pub(super) fn parse(text: &str) -> Result<Vec<PortSpec>, SpecError> {
    let parts = if text.contains('=') { parse_long(text)? } else { parse_short(text)? };
    parts.expand(text)
}

/// What either grammar yields before ranges are expanded.
struct Parts {
    protocol: Protocol,
    target: RangeInclusive<u16>,
    published: Option<RangeInclusive<u16>>,
    mode: PublishMode,
    host_ip: Option<IpAddr>,
}

impl Parts {
    fn expand(self, text: &str) -> Result<Vec<PortSpec>, SpecError> {
        let published: Vec<Option<u16>> = match &self.published {
            Some(range) if range.len() != self.target.len() => {
                let reason = format!(
                    "{} published and {} target ports; both ranges must have the same length",
                    range.len(),
                    self.target.len()
                );
                return Err(SpecError::new("publish", text, reason));
            }
            Some(range) => range.clone().map(Some).collect(),
            None => self.target.clone().map(|_| None).collect(),
        };
        Ok(self
            .target
            .zip(published)
            .filter_map(|(target, published)| {
                Some(PortSpec {
                    protocol: self.protocol,
                    target: NonZeroU16::new(target)?,
                    published: published.and_then(NonZeroU16::new),
                    mode: self.mode,
                    host_ip: self.host_ip,
                })
            })
            .collect())
    }
}

fn parse_short(text: &str) -> Result<Parts, SpecError> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => {
            (rest, protocol.parse().map_err(|e: SpecError| e.found_in(text, protocol))?)
        }
        None => (text, Protocol::default()),
    };
    let (rest, target) = match rest.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, rest),
    };
    let (host_ip, published) = match rest {
        None => (None, None),
        Some(rest) => match rest.rsplit_once(':') {
            // Without brackets nothing tells where the address ends.
            Some((address, _)) if address.contains(':') && !address.starts_with('[') => {
                return Err(address_error(text, address));
            }
            Some((address, published)) => (Some(parse_address(text, address)?), Some(published)),
            None => (None, Some(rest)),
        },
    };
    Ok(Parts {
        protocol,
        target: parse_range("target", text, target)?,
        // `192.0.2.7::80` leaves the published port open, as Docker does.
        published: published
            .filter(|p| !(p.is_empty() && host_ip.is_some()))
            .map(|p| parse_range("published", text, p))
            .transpose()?,
        mode: PublishMode::default(),
        host_ip,
    })
}

fn parse_long(text: &str) -> Result<Parts, SpecError> {
    let mut target = None;
    let mut parts = Parts {
        protocol: Protocol::default(),
        target: 0..=0,
        published: None,
        mode: PublishMode::default(),
        host_ip: None,
    };
    let mut seen: Vec<&str> = Vec::new();
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(SpecError::new("publish", pair, "expected KEY=VALUE").found_in(text, pair));
        };
        if seen.contains(&key) {
            return Err(SpecError::new("publish", key, "given twice").found_in(text, pair));
        }
        seen.push(key);
        let here = |error: SpecError| error.found_in(text, value);
        match key {
            "target" => target = Some(parse_range("target", text, value)?),
            "published" => parts.published = Some(parse_range("published", text, value)?),
            "protocol" => parts.protocol = value.parse().map_err(here)?,
            "mode" => parts.mode = value.parse().map_err(here)?,
            "host_ip" => parts.host_ip = Some(parse_address(text, value)?),
            _ => {
                let reason = "keys are target, published, protocol, mode and host_ip";
                return Err(SpecError::new("publish", key, reason).found_in(text, key));
            }
        }
    }
    parts.target = target.ok_or_else(|| SpecError::new("target", text, "target=PORT is needed"))?;
    Ok(parts)
}

fn parse_address(text: &str, part: &str) -> Result<IpAddr, SpecError> {
    let bare = part.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
    let parsed = match bare {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => part.parse().ok(),
    };
    parsed.ok_or_else(|| address_error(text, part))
}

fn address_error(text: &str, part: &str) -> SpecError {
    let reason = "an address is like 192.0.2.7 or [2001:db8::7]";
    SpecError::new("host_ip", part, reason).found_in(text, part)
}

fn parse_range(
    field: &'static str,
    text: &str,
    part: &str,
) -> Result<RangeInclusive<u16>, SpecError> {
    let port = |digits: &str| match from_digits::<NonZeroU16>(digits) {
        Some(port) => Ok(port.get()),
        None => Err(SpecError::new(field, digits, "a port is 1-65535").found_in(text, digits)),
    };
    let Some((first, last)) = part.split_once('-') else {
        return port(part).map(|p| p..=p);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        let reason = "a range counts upwards";
        return Err(SpecError::new(field, part, reason).found_in(text, part));
    }
    Ok(first..=last)
}
