//! `service create|ls|inspect|rm`

use clap::{Args, Subcommand};
use overlay_api::v1;
use overlay_types::{EndpointMode, Name, ServiceDraft, ServiceSpec, SpecError};

use super::{Report, each, names};
use crate::{
    failure::Failure,
    flag::{Labels, List, Publish, References},
    session::Session,
    view::{Service, ServiceDetail},
};

/// What can be done with services.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create a service; `endpoint attach --service` gives it tasks
    Create(Create),
    /// List services
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show services in full
    Inspect(References),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(References),
}

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
    #[command(flatten)]
    labels: Labels,
}

impl Create {
    fn request(&self) -> Result<v1::CreateServiceRequest, SpecError> {
        let networks = self.network.iter().map(|text| parse_network(text));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        // Networks are named by text that only the node can resolve, so the spec is checked
        // without them.
        let spec = ServiceSpec::try_from(ServiceDraft {
            labels: self.labels.parse()?,
            mode: self.endpoint_mode.parse::<EndpointMode>()?,
            ports: self.publish.parse()?,
            ..ServiceDraft::new(Name::parse("name", &self.name)?)
        })?;
        Ok(v1::CreateServiceRequest {
            spec: Some(v1::ServiceSpec { networks, ..(&spec).into() }),
            ..v1::CreateServiceRequest::default()
        })
    }
}

/// `NETWORK[,alias=NAME]...` or Docker's long form, `name=NETWORK[,alias=NAME]...`.
fn parse_network(text: &str) -> Result<v1::ServiceNetwork, SpecError> {
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

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Self::Create(create) => {
                let request = create.request()?;
                let node = session.connect().await?;
                let answer = node.services().create_service(request).await?.into_inner();
                let service = answer.service.ok_or(Failure::Incomplete("service"))?;
                // It is created: a failing look-up of names must not hide that.
                let names = names(&node).await.unwrap_or_default();
                Ok(session.format.created(&Service::new(service, &names)).into())
            }
            Self::Ls(List { filters, listing }) => {
                let filter = filters.services()?;
                let node = session.connect().await?;
                let services = node.list_services(filter).await?;
                let names = names(&node).await?;
                let services = services.into_iter().map(|s| Service::new(s, &names)).collect();
                Ok(session.format.list(services, listing).into())
            }
            Self::Inspect(References { references }) => {
                let node = session.connect().await?;
                let names = names(&node).await?;
                let get = async |reference: &str| {
                    let service = reference.to_owned();
                    let request = v1::GetServiceRequest { service, consistency: None };
                    let answer = node.services().get_service(request).await?.into_inner();
                    let service = answer.service.ok_or(Failure::Incomplete("service"))?;
                    let services = vec![service.id.clone()];
                    let filter = v1::EndpointFilter { services, ..Default::default() };
                    let tasks = node.list_endpoints(filter).await?;
                    Ok(ServiceDetail::new(service, tasks, names.clone()))
                };
                let (services, failures) = each(&references, get).await;
                Ok(Report { output: session.format.inspect(&services), failures })
            }
            Self::Rm(References { references }) => {
                let node = session.connect().await?;
                let remove = async |reference: &str| {
                    let request = v1::RemoveServiceRequest {
                        service: reference.to_owned(),
                        ..v1::RemoveServiceRequest::default()
                    };
                    node.services().remove_service(request).await?;
                    Ok(reference.to_owned())
                };
                let (removed, failures) = each(&references, remove).await;
                Ok(Report { output: session.format.removed(&removed), failures })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn request(line: &str) -> Result<v1::ServiceSpec, SpecError> {
        let arguments = core::iter::once("create").chain(line.split_whitespace());
        let create = Line::try_parse_from(arguments).unwrap().create;
        create.request().map(|request| request.spec.unwrap())
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
