//! `service update|scale|rollback`: read the service, change its spec, write it back.

use clap::Args;
use overlay_api::v1::{self, service_spec};
use overlay_types::{EndpointMode, PortSpec, SpecError, number::from_digits};

use super::create::parse_network;
use crate::{
    failure::Failure,
    flag::{self, LabelChanges, PUBLISH_HELP},
    session::Node,
};

/// `service update`
#[derive(Args, Debug, Default)]
pub(crate) struct Update {
    /// Publish a further port, in the grammar of `service create --publish`; may be repeated
    #[arg(long, value_name = "PORT", long_help = PUBLISH_HELP)]
    publish_add: Vec<String>,
    /// Publish a port no more: all that lead to TARGET, or one as PUBLISHED:TARGET; may be repeated
    #[arg(long, value_name = "[PUBLISHED:]TARGET[/PROTOCOL]")]
    publish_rm: Vec<String>,
    /// Get on a further network, with further names there; may be repeated
    #[arg(long, value_name = "NETWORK[,alias=NAME]...")]
    network_add: Vec<String>,
    /// Leave a network; its tasks there are detached first; may be repeated
    #[arg(long, value_name = "NAME|ID")]
    network_rm: Vec<String>,
    /// What its name resolves to: one virtual address (vip) or those of all tasks (dnsrr)
    #[arg(long, value_name = "MODE")]
    endpoint_mode: Option<String>,
    /// Have a node's published ports lead to its own tasks while one of them takes connections
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    prefer_local: Option<bool>,
    /// Tasks that it shall have
    #[arg(long, value_name = "NUMBER", value_parser = flag::number::<u32>)]
    replicas: Option<u32>,
    #[command(flatten)]
    labels: LabelChanges,
    /// Go back to the spec before the last update
    #[arg(long, exclusive = true)]
    rollback: bool,
}

impl Update {
    /// Of another number of tasks.
    pub(super) fn of_replicas(count: u32) -> Self {
        Self { replicas: Some(count), ..Self::default() }
    }

    /// Back to the spec before.
    pub(super) fn of_rollback() -> Self {
        Self { rollback: true, ..Self::default() }
    }

    /// Changes the service; its name comes back.
    pub(super) async fn apply(&self, node: &Node, reference: &str) -> Result<String, Failure> {
        let service = reference.to_owned();
        let request = v1::GetServiceRequest { service, consistency: None };
        let answer = node.services().get_service(request).await?.into_inner();
        let service = answer.service.ok_or(Failure::Incomplete("service"))?;
        let networks = if self.network_rm.is_empty() && self.network_add.is_empty() {
            Vec::new()
        } else {
            node.list_networks(v1::NetworkFilter::default()).await?
        };
        let request = self.request(service, &networks)?;
        let answer = node.services().update_service(request).await?.into_inner();
        let spec = answer.service.and_then(|service| service.spec);
        Ok(spec.ok_or(Failure::Incomplete("service"))?.name)
    }

    /// The request that changes `service` like this, and nothing else of it.
    fn request(
        &self,
        service: v1::Service,
        networks: &[v1::Network],
    ) -> Result<v1::UpdateServiceRequest, SpecError> {
        let mut spec = service.spec.unwrap_or_default();
        if self.rollback {
            spec = service.previous.ok_or_else(|| {
                let reason = "it was never updated: there is nothing to go back to";
                SpecError::new("rollback", &spec.name, reason)
            })?;
        }
        self.change_networks(&mut spec, networks)?;
        self.change_ports(&mut spec)?;
        if let Some(mode) = &self.endpoint_mode {
            spec.mode = v1::EndpointMode::from(mode.parse::<EndpointMode>()?).into();
        }
        spec.prefer_local = self.prefer_local.unwrap_or(spec.prefer_local);
        if let Some(count) = self.replicas {
            if matches!(spec.scale, Some(service_spec::Scale::Global(_))) {
                let reason = "a global service has one task on each node";
                return Err(SpecError::new("replicas", count, reason));
            }
            spec.scale = Some(service_spec::Scale::Replicas(count));
        }
        self.labels.apply("the service", &mut spec.labels)?;
        Ok(v1::UpdateServiceRequest {
            service: service.id,
            spec: Some(spec),
            changed_at: service.meta.unwrap_or_default().changed_at,
            request_id: String::new(),
        })
    }

    /// The spec has ids of networks, flags name them as people do.
    fn change_networks(
        &self,
        spec: &mut v1::ServiceSpec,
        networks: &[v1::Network],
    ) -> Result<(), SpecError> {
        let is_named = |id: &str, wanted: &str| {
            let known = networks.iter().find(|network| network.id == id);
            let name = known.and_then(|network| network.spec.as_ref()).map(|spec| &spec.name);
            id == wanted
                || name.is_some_and(|name| name.eq_ignore_ascii_case(wanted))
                || (id.starts_with(wanted)
                    && networks.iter().filter(|n| n.id.starts_with(wanted)).count() == 1)
        };
        for wanted in &self.network_rm {
            let before = spec.networks.len();
            spec.networks.retain(|attachment| !is_named(&attachment.network, wanted));
            if spec.networks.len() == before {
                let reason = "the service does not name this network";
                return Err(SpecError::new("network-rm", wanted, reason));
            }
        }
        for text in &self.network_add {
            let added = parse_network(text).map_err(|error| error.of_field("network-add"))?;
            if spec.networks.iter().any(|there| is_named(&there.network, &added.network)) {
                let reason = "the service is on this network; to change its aliases, remove it with \
                              --network-rm in the same command";
                return Err(SpecError::new("network-add", &added.network, reason));
            }
            spec.networks.push(added);
        }
        Ok(())
    }

    fn change_ports(&self, spec: &mut v1::ServiceSpec) -> Result<(), SpecError> {
        for text in &self.publish_rm {
            for wanted in PortSpec::parse(text)? {
                let message = v1::PortSpec::from(&wanted);
                let before = spec.ports.len();
                spec.ports.retain(|port| {
                    let same = port.target == message.target && port.protocol == message.protocol;
                    !(same && (message.published == 0 || message.published == port.published))
                });
                if spec.ports.len() == before {
                    let reason = "the service publishes no such port";
                    return Err(SpecError::new("publish-rm", wanted, reason));
                }
            }
        }
        for text in &self.publish_add {
            spec.ports.extend(PortSpec::parse(text)?.iter().map(v1::PortSpec::from));
        }
        Ok(())
    }
}

/// `SERVICE=NUMBER` of `service scale`.
pub(super) fn parse_scale(text: &str) -> Result<(&str, u32), SpecError> {
    let refuse = |part: &str, reason| SpecError::new("replicas", part, reason).found_in(text, part);
    match text.rsplit_once('=') {
        None | Some(("", _)) => Err(refuse(text, "expected SERVICE=NUMBER")),
        Some((service, count)) => {
            let number = from_digits(count);
            Ok((service, number.ok_or_else(|| refuse(count, "expected a number in digits"))?))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    fn spec() -> v1::ServiceSpec {
        let port = |published, target| v1::PortSpec { published, target, ..Default::default() };
        v1::ServiceSpec {
            name: "web".into(),
            labels: [("tier".to_owned(), "front".to_owned())].into(),
            networks: vec![v1::ServiceNetwork { network: "n1".into(), aliases: vec![] }],
            ports: vec![port(8080, 80), port(8081, 80), port(8443, 443)],
            ..Default::default()
        }
    }

    fn request(line: &str) -> Result<v1::UpdateServiceRequest, SpecError> {
        let network = |id: &str, name: &str| v1::Network {
            id: id.into(),
            spec: Some(v1::NetworkSpec { name: name.into(), ..Default::default() }),
            ..Default::default()
        };
        let service = v1::Service {
            id: "s1".into(),
            meta: Some(v1::Meta { created_at: 3, changed_at: 9 }),
            spec: Some(spec()),
            previous: Some(v1::ServiceSpec { ports: vec![], ..spec() }),
            vips: vec![],
        };
        let update: Update = parsed(line).unwrap();
        update.request(service, &[network("n1", "front"), network("n2", "back")])
    }

    fn changed(line: &str) -> v1::ServiceSpec {
        request(line).unwrap().spec.unwrap()
    }

    #[test]
    fn s01_what_no_flag_names_stays_and_the_update_says_what_it_is_based_on() {
        let request = request("").unwrap();
        assert_eq!((request.service.as_str(), request.changed_at), ("s1", 9));
        assert_eq!(request.spec, Some(spec()));
    }

    #[test]
    fn s07_ports_go_by_target_or_one_by_one_and_come() {
        let ports = |line: &str| -> Vec<(u32, u32)> {
            changed(line).ports.iter().map(|p| (p.published, p.target)).collect()
        };
        assert_eq!(ports("--publish-rm 80"), [(8443, 443)]);
        assert_eq!(ports("--publish-rm 8081:80"), [(8080, 80), (8443, 443)]);
        assert_eq!(
            ports("--publish-rm 80 --publish-add 80:8000 --publish-add 53/udp"),
            [(8443, 443), (80, 8000), (0, 53)]
        );
    }

    #[test]
    fn s04_networks_come_and_go_by_name() {
        let networks = |line: &str| -> Vec<String> {
            changed(line).networks.into_iter().map(|n| n.network).collect()
        };
        assert_eq!(networks("--network-add back,alias=w"), ["n1", "back"]);
        assert_eq!(networks("--network-rm Front --network-add front"), ["front"]);
    }

    #[test]
    fn s03_mode_labels_replicas_and_preference() {
        let spec = changed(
            "--endpoint-mode dnsrr --label-rm tier --label-add disk=ssd --replicas 5 --prefer-local",
        );
        assert_eq!(spec.mode(), v1::EndpointMode::Dnsrr);
        assert_eq!(spec.labels, [("disk".to_owned(), "ssd".to_owned())].into());
        assert_eq!(spec.scale, Some(service_spec::Scale::Replicas(5)));
        assert!(spec.prefer_local);
    }

    #[test]
    fn s01_a_rollback_is_the_spec_before() {
        assert_eq!(changed("--rollback").ports, []);
        let never = v1::Service { spec: Some(spec()), ..Default::default() };
        let refused = Update::of_rollback().request(never, &[]).unwrap_err();
        assert_eq!((refused.field(), refused.value()), ("rollback", "web"));
    }

    #[rstest]
    #[case("--publish-rm 81", "publish-rm")]
    #[case("--publish-rm 80/udp", "publish-rm")]
    #[case("--network-rm back", "network-rm")]
    #[case("--network-add front", "network-add")]
    #[case("--network-add ,", "network-add")]
    #[case("--label-rm disk", "label-rm")]
    #[case("--endpoint-mode x", "endpoint-mode")]
    fn s01_what_is_not_there_is_told(#[case] line: &str, #[case] field: &str) {
        assert_eq!(request(line).unwrap_err().field(), field);
    }

    #[rstest]
    #[case("web=5", Some(("web", 5)))]
    #[case("web", None)]
    #[case("=5", None)]
    #[case("web=-1", None)]
    #[case("web=x", None)]
    fn s01_scale_is_service_and_number(#[case] text: &str, #[case] read: Option<(&str, u32)>) {
        assert_eq!(parse_scale(text).ok(), read);
    }
}
