//! `service create`

use clap::{Args, ValueEnum};
use overlay_api::v1;
use overlay_types::{EndpointMode, Name, Scale, ServiceDraft, ServiceSpec, SpecError};

use crate::flag::{self, Labels, Publish};

/// `service create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Name of the service
    #[arg(long)]
    name: String,
    /// Network that it is on, with further names there; may be repeated
    #[arg(long, value_name = "NETWORK[,alias=NAME]...")]
    network: Vec<String>,
    /// What its name resolves to: one virtual address (vip) or those of all tasks (dnsrr)
    #[arg(long, value_name = "MODE", default_value = "vip")]
    endpoint_mode: String,
    #[command(flatten)]
    publish: Publish,
    /// Have a node's published ports lead to its own tasks while one of them takes connections
    #[arg(long)]
    prefer_local: bool,
    /// How many tasks it shall have: `replicated` has --replicas, `global` one on each node. For whoever
    /// starts tasks: the cluster starts none
    #[arg(long, value_enum, default_value = "replicated")]
    mode: Mode,
    /// Tasks that it shall have [default: not said]
    #[arg(long, value_name = "NUMBER", value_parser = flag::number::<u32>)]
    replicas: Option<u32>,
    #[command(flatten)]
    labels: Labels,
}

/// How many tasks a service shall have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Mode {
    Replicated,
    Global,
}

impl Create {
    pub(super) fn request(&self) -> Result<v1::CreateServiceRequest, SpecError> {
        let networks = self.network.iter().map(|text| parse_network(text));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        // Networks are named by text that only the node can resolve, so the spec is checked
        // without them.
        let spec = ServiceSpec::try_from(ServiceDraft {
            labels: self.labels.parse()?,
            mode: self.endpoint_mode.parse::<EndpointMode>()?,
            ports: self.publish.parse()?,
            prefer_local: self.prefer_local,
            scale: self.scale()?,
            ..ServiceDraft::new(Name::parse("name", &self.name)?)
        })?;
        Ok(v1::CreateServiceRequest {
            spec: Some(v1::ServiceSpec { networks, ..(&spec).into() }),
            ..v1::CreateServiceRequest::default()
        })
    }

    fn scale(&self) -> Result<Scale, SpecError> {
        match (self.mode, self.replicas) {
            (Mode::Global, None) => Ok(Scale::Global),
            (Mode::Global, Some(count)) => {
                let reason = "a global service has one task on each node";
                Err(SpecError::new("replicas", count, reason))
            }
            (Mode::Replicated, None) => Ok(Scale::Open),
            (Mode::Replicated, Some(count)) => Ok(Scale::Replicas(count)),
        }
    }
}

/// `NETWORK[,alias=NAME]...` or Docker's long form, `name=NETWORK[,alias=NAME]...`.
pub(super) fn parse_network(text: &str) -> Result<v1::ServiceNetwork, SpecError> {
    let refuse = |part: &str, reason: &str| {
        Err(SpecError::new("network", part, reason.to_owned()).found_in(text, part))
    };
    let mut attachment = v1::ServiceNetwork::default();
    for (index, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            Some(("alias", alias)) => {
                let alias = Name::parse("alias", alias).map_err(|e| e.found_in(text, alias))?;
                attachment.aliases.push(alias.to_string());
            }
            Some(("name", _)) if !attachment.network.is_empty() => {
                return refuse(part, "the network is named twice");
            }
            Some(("name", name)) => name.clone_into(&mut attachment.network),
            Some((key, _)) => return refuse(key, "expected NETWORK, then alias=NAME"),
            None if index == 0 => part.clone_into(&mut attachment.network),
            None => return refuse(part, "expected alias=NAME"),
        }
    }
    if attachment.network.is_empty() {
        return refuse(text, "a network is needed, by name or id");
    }
    Ok(attachment)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    fn request(line: &str) -> Result<v1::ServiceSpec, SpecError> {
        parsed::<Create>(line).unwrap().request().map(|request| request.spec.unwrap())
    }

    fn port(published: u32, target: u32, protocol: v1::Protocol) -> v1::PortSpec {
        v1::PortSpec { published, target, protocol: protocol.into(), ..v1::PortSpec::default() }
    }

    #[test]
    fn s07_both_grammars_and_ranges() {
        let spec = request(
            "--name web -p 8080:80 -p 8080:80/udp --publish 8000-8001:90-91 \
             -p published=9000,target=80,protocol=sctp,mode=host",
        )
        .unwrap();
        let host = v1::PublishMode::Host.into();
        let expected = vec![
            port(8080, 80, v1::Protocol::Tcp),
            port(8080, 80, v1::Protocol::Udp),
            port(8000, 90, v1::Protocol::Tcp),
            port(8001, 91, v1::Protocol::Tcp),
            v1::PortSpec { mode: host, ..port(9000, 80, v1::Protocol::Sctp) },
        ];
        assert_eq!(spec.ports, expected);
    }

    #[test]
    fn s04_networks_and_aliases() {
        let spec = request(
            "--name web --network front,alias=www,alias=shop --network name=back --label a=b",
        )
        .unwrap();
        let network = |network: &str, aliases: &[&str]| v1::ServiceNetwork {
            network: network.into(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
        };
        let expected = [network("front", &["www", "shop"]), network("back", &[])];
        assert_eq!(spec.networks, expected);
        assert_eq!(spec.labels, [("a".to_owned(), "b".to_owned())].into());
        assert_eq!(spec.mode(), v1::EndpointMode::Vip);
    }

    #[test]
    fn s02_mode() {
        assert_eq!(
            request("--name web --endpoint-mode dnsrr").unwrap().mode(),
            v1::EndpointMode::Dnsrr
        );
    }

    #[test]
    fn s14_how_many_tasks_it_shall_have() {
        use v1::service_spec::Scale::{Global, Replicas};
        let scale = |flags: &str| request(&format!("--name web {flags}")).map(|spec| spec.scale);
        assert_eq!(scale(""), Ok(None));
        assert_eq!(scale("--replicas 3"), Ok(Some(Replicas(3))));
        assert_eq!(scale("--mode global"), Ok(Some(Global(v1::Unit {}))));
        for refused in ["--mode global --replicas 3", "--replicas 100001"] {
            assert_eq!(scale(refused).unwrap_err().field(), "replicas");
        }
    }

    #[rstest]
    #[case("--name web -p 8080:80/icmp", "protocol", "icmp", "8080:80/icmp\n        ^^^^")]
    #[case("--name web -p 0:80", "published", "0", "0:80\n^")]
    #[case("--name web --network a,b", "network", "b", "a,b\n  ^")]
    #[case("--name web --network a,name=b", "network", "name=b", "a,name=b\n  ^^^^^^")]
    #[case("--name web --network a,ip=b", "network", "ip", "a,ip=b\n  ^^")]
    #[case("--name web --network a,alias=-", "alias", "-", "a,alias=-\n        ^")]
    #[case("--name web --network alias=b", "network", "alias=b", "alias=b\n^^^^^^^")]
    #[case("--name w@b", "name", "@", "w@b\n ^")]
    fn s07_errors_point_at_the_part(
        #[case] line: &str,
        #[case] field: &'static str,
        #[case] value: &str,
        #[case] pointer: &str,
    ) {
        let error = request(line).unwrap_err();
        assert_eq!((error.field(), error.value()), (field, value));
        assert_eq!(error.pointer().as_deref(), Some(pointer));
    }

    #[rstest]
    #[case("--name web -p 80:80 -p 80:81")]
    #[case("--name web -p 80:80 --endpoint-mode dnsrr")]
    fn s09_ports_that_exclude_each_other_are_not_sent(#[case] line: &str) {
        assert_eq!(request(line).unwrap_err().field(), "publish");
    }
}
