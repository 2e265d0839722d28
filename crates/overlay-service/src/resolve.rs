//! Names to answers.
//!
//! | asked for | answered with |
//! |---|---|
//! | `SERVICE`, its aliases | the virtual address on the network; all live tasks in dnsrr mode |
//! | `tasks.SERVICE`, `tasks.ALIAS` | all live tasks |
//! | `ENDPOINT`, its aliases | the endpoint's address |
//! | any of these and `.NETWORK` | the same, on that network |
//! | `4.3.2.10.in-addr.arpa`, `….ip6.arpa` | `NAME.NETWORK.` of the endpoint or service |
//! | `_PORT._PROTOCOL.` and any of these | SRV: target port and a name that resolves |
//!
//! Holders of one name on one network are answered together. The first network of the scope that
//! knows the name answers alone. A name that is known but has no record of the type, or only of
//! endpoints that are not ready, or on nodes that are dead (or, for tasks, drained), is an empty answer
//! and never asked elsewhere. Addresses have names as long as they are in use. `PORT` is a published
//! port or, if none has that number, a target port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_types::{Addresses, Endpoint, EndpointMode, PortSpec, Protocol, Service};

use crate::{
    directory::{Directory, Holder, ServiceEntry, Zone, is_dns_name},
    question::{LowerName, Question, RecordKind, parse_reverse, parse_srv},
    scope::Scope,
    shuffle::Shuffle,
};

/// How long an answer may be kept, in seconds: short, so that clients follow changes.
pub const TTL_SECS: u32 = 5;

/// Most records of an answer: as many AAAA records, at 28 octets, as fit a message of 64 KiB. Of
/// more tasks each answer shows a random part.
pub const MAX_RECORDS: usize = 2048;

/// The answer to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The name is known; it may have no records of the type (NOERROR).
    Records(Vec<Record>),
    /// The name would be ours, and is not there (NXDOMAIN): an unused address of a network of the
    /// scope, or a port that a known name does not publish.
    NoSuchName,
    /// The name is none of ours: ask elsewhere.
    Forward,
    /// The name is none of ours, and no network of the scope has a way out. REFUSED, not NXDOMAIN:
    /// the name may well exist (RFC 1035 §4.1.1, code 5: "for policy reasons").
    Refuse,
}

/// Data of a resource record; its owner is the name in the question, its TTL [`TTL_SECS`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Record {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name of an address, with a dot at the end.
    Ptr(String),
    /// Where a service listens. Priority and weight are 0: all are equal.
    Srv {
        /// The port.
        port: u16,
        /// A name that resolves in the scope of the question, with a dot at the end.
        target: String,
    },
}

/// Answers `question` as it is seen from `scope`.
///
/// `seed` orders the records; draw a new one for each question, so that clients that take the
/// first spread over all.
pub fn resolve(directory: &Directory, scope: &Scope, question: Question<'_>, seed: u64) -> Answer {
    let lookup = Lookup { directory, scope, kind: question.kind };
    let found = LowerName::new(question.name).and_then(|name| lookup.answer(name.as_str()));
    match found {
        Some(Answer::Records(mut records)) => {
            Shuffle::new(seed).choose(&mut records, MAX_RECORDS);
            Answer::Records(records)
        }
        Some(answer) => answer,
        None if directory.has_way_out(scope) => Answer::Forward,
        None => Answer::Refuse,
    }
}

/// Whether a service is named itself or through `tasks.`
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Itself,
    Tasks,
}

struct Lookup<'a> {
    directory: &'a Directory,
    scope: &'a Scope,
    kind: RecordKind,
}

impl<'a> Lookup<'a> {
    /// `None` if the name is none of ours.
    fn answer(&self, name: &str) -> Option<Answer> {
        if let Some(address) = parse_reverse(name) {
            self.reverse(address)
        } else if let Some((port, protocol, rest)) = parse_srv(name) {
            self.ports(port, protocol, rest)
        } else {
            let (zone, holders, form) = self.find(name)?;
            let mut records = Vec::new();
            for holder in holders {
                self.addresses(zone, *holder, form, &mut records);
            }
            if holders.len() > 1 {
                records.sort_unstable();
                records.dedup();
            }
            Some(Answer::Records(records))
        }
    }

    /// The zones of the scope, ingress last: its names are those of services that other networks
    /// carry as well.
    fn zones(&self) -> impl Iterator<Item = &'a Zone> {
        let (directory, networks) = (self.directory, self.scope.networks());
        let known = move || networks.iter().filter_map(|id| directory.zone(*id));
        known().filter(|z| !z.is_ingress()).chain(known().filter(|z| z.is_ingress()))
    }

    /// Who has the name, as it stands or before the name of a network.
    fn find(&self, name: &str) -> Option<(&'a Zone, &'a [Holder], Form)> {
        let on = |zone: &'a Zone, name| find_on(zone, name).map(|(h, form)| (zone, h, form));
        self.zones().find_map(|zone| on(zone, name)).or_else(|| {
            self.zones().find_map(|zone| {
                let name = name.strip_suffix(zone.suffix()?)?.strip_suffix('.')?;
                on(zone, name)
            })
        })
    }

    fn addresses(&self, zone: &Zone, holder: Holder, form: Form, records: &mut Vec<Record>) {
        match holder {
            Holder::Endpoint(id) => {
                if let Some(endpoint) = self.directory.endpoint(id)
                    && endpoint.is_ready()
                    && self.directory.is_reachable(endpoint)
                {
                    self.add(endpoint.addresses, records);
                }
            }
            Holder::Service(id) => {
                let Some(entry) = zone.service(id) else { return };
                if form == Form::Itself && entry.mode == EndpointMode::Vip {
                    self.add(entry.vip, records);
                } else {
                    let live = entry.tasks.iter().filter(|t| self.directory.takes_flows(t));
                    records.reserve(entry.tasks.len());
                    live.for_each(|t| self.add(t.addresses, records));
                }
            }
        }
    }

    /// Adds the addresses that are asked for.
    fn add(&self, addresses: Addresses, records: &mut Vec<Record>) {
        if matches!(self.kind, RecordKind::A | RecordKind::Any) {
            records.extend(addresses.v4.map(Record::A));
        }
        if matches!(self.kind, RecordKind::Aaaa | RecordKind::Any) {
            records.extend(addresses.v6.map(Record::Aaaa));
        }
    }

    fn reverse(&self, address: IpAddr) -> Option<Answer> {
        let found = self.zones().find_map(|zone| match zone.holders_of(address) {
            [] => None,
            holders => Some((zone, holders)),
        });
        let Some((zone, holders)) = found else {
            return self.zones().any(|z| z.contains(address)).then_some(Answer::NoSuchName);
        };
        let mut records = Vec::new();
        if matches!(self.kind, RecordKind::Ptr | RecordKind::Any) {
            let names = holders.iter().filter_map(|holder| self.name_of(zone, *holder));
            records.extend(names.map(Record::Ptr));
        }
        Some(Answer::Records(records))
    }

    /// A name that leads to the holder, from any network.
    fn name_of(&self, zone: &Zone, holder: Holder) -> Option<String> {
        match holder {
            Holder::Service(id) => service_name(zone, zone.service(id)?.service.as_ref()?),
            Holder::Endpoint(id) => {
                let live =
                    self.directory.endpoint(id).filter(|e| self.directory.is_reachable(e))?;
                endpoint_name(zone, live)
            }
        }
    }

    fn ports(&self, port: u16, protocol: Protocol, rest: &str) -> Option<Answer> {
        let (zone, holders, form) = self.find(rest)?;
        let mut records = Vec::new();
        let mut published = false;
        for holder in holders {
            published |= self.srv(zone, *holder, form, (port, protocol), &mut records);
        }
        if !published {
            return Some(Answer::NoSuchName);
        }
        if !matches!(self.kind, RecordKind::Srv | RecordKind::Any) {
            records.clear();
        }
        records.sort_unstable();
        records.dedup();
        Some(Answer::Records(records))
    }

    /// Adds the SRV records of `holder` and says whether it publishes the port at all.
    fn srv(
        &self,
        zone: &Zone,
        holder: Holder,
        form: Form,
        port: (u16, Protocol),
        records: &mut Vec<Record>,
    ) -> bool {
        let (ports, targets): (&[PortSpec], Vec<String>) = match holder {
            Holder::Endpoint(id) => match self.directory.endpoint(id) {
                Some(e) => (e.ports(), self.name_of(zone, holder).into_iter().collect()),
                None => return false,
            },
            Holder::Service(id) => match zone.service(id) {
                Some(ServiceEntry { service: Some(service), tasks, .. }) => {
                    let asked = tasks.iter().filter(|_| form == Form::Tasks);
                    let live = asked.filter(|t| self.directory.takes_flows(t));
                    let live = live.filter_map(|t| self.directory.endpoint(t.endpoint));
                    let mut targets: Vec<_> = live.filter_map(|e| endpoint_name(zone, e)).collect();
                    if form == Form::Itself {
                        targets.extend(service_name(zone, service));
                    }
                    (&service.spec.ports, targets)
                }
                _ => return false,
            },
        };
        let Some(port) = target_port(ports, port) else { return false };
        records.extend(targets.into_iter().map(|target| Record::Srv { port, target }));
        true
    }
}

/// Who has the name on the network. `tasks.` leads to services only.
fn find_on<'a>(zone: &'a Zone, name: &str) -> Option<(&'a [Holder], Form)> {
    let holders = zone.holders(name);
    if !holders.is_empty() {
        return Some((holders, Form::Itself));
    }
    let holders = zone.holders(name.strip_prefix("tasks.")?);
    // Services sort before endpoints.
    let services = holders.partition_point(|holder| matches!(holder, Holder::Service(_)));
    (services > 0).then(|| (&holders[..services], Form::Tasks))
}

fn service_name(zone: &Zone, service: &Service) -> Option<String> {
    let name = Some(&service.spec.name).filter(|name| is_dns_name(name))?;
    Some(zone.qualify(name))
}

/// Its name, or an alias, or `tasks.SERVICE` for a task that has neither.
fn endpoint_name(zone: &Zone, endpoint: &Endpoint) -> Option<String> {
    let names = endpoint.name.iter().chain(endpoint.aliases());
    if let Some(name) = names.into_iter().find(|name| is_dns_name(name)) {
        return Some(zone.qualify(name));
    }
    let service = zone.service(endpoint.service?)?.service.as_ref()?;
    let name = Some(&service.spec.name).filter(|name| is_dns_name(name))?;
    Some(zone.qualify(&format!("tasks.{name}")))
}

fn target_port(ports: &[PortSpec], (number, protocol): (u16, Protocol)) -> Option<u16> {
    let mut ports = ports.iter().filter(|p| p.protocol == protocol);
    ports
        .clone()
        .find(|p| p.published.is_some_and(|published| published.get() == number))
        .or_else(|| ports.find(|p| p.target.get() == number))
        .map(|p| p.target.get())
}

#[cfg(test)]
mod tests;
