//! `network update`: read the network, change its spec, write it back.

use clap::Args;
use overlay_api::v1;
use overlay_types::{Name, NetworkDraft, SpecError};

use super::{SubnetDetails, get};
use crate::{failure::Failure, flag::LabelChanges, session::Node};

/// `network update`
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// Add a subnet, for endpoints that come; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet_add: Vec<String>,
    #[command(flatten)]
    details: SubnetDetails,
    #[command(flatten)]
    labels: LabelChanges,
    /// Name, id or unique prefix of an id
    #[arg(value_name = "NAME|ID")]
    network: String,
}

impl Update {
    /// Changes the network; its name comes back.
    pub(super) async fn apply(&self, node: &Node) -> Result<String, Failure> {
        let network = get(node, &self.network).await?.network.unwrap_or_default();
        let request = self.request(network)?;
        let answer = node.networks().update_network(request).await?.into_inner();
        let spec = answer.network.and_then(|network| network.spec);
        Ok(spec.ok_or(Failure::Incomplete("network"))?.name)
    }

    /// The request that changes `network` like this, and nothing else of it.
    fn request(&self, network: v1::Network) -> Result<v1::UpdateNetworkRequest, SpecError> {
        let mut spec = network.spec.unwrap_or_default();
        let mut added = NetworkDraft::new(Name::parse("name", &spec.name)?);
        let of_flag = |error: SpecError| match error.field() {
            "subnet" => error.of_field("subnet-add"),
            _ => error,
        };
        self.details.give(&mut added, &self.subnet_add).map_err(of_flag)?;
        spec.subnets.extend(added.subnets.iter().map(v1::SubnetSpec::from));
        self.labels.apply("the network", &mut spec.labels)?;
        Ok(v1::UpdateNetworkRequest {
            network: network.id,
            spec: Some(spec),
            changed_at: network.meta.unwrap_or_default().changed_at,
            ..v1::UpdateNetworkRequest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    fn subnet(subnet: &str, gateway: &str) -> v1::SubnetSpec {
        let (subnet, gateway) = (subnet.into(), gateway.into());
        v1::SubnetSpec { subnet, gateway, ..Default::default() }
    }

    fn spec() -> v1::NetworkSpec {
        v1::NetworkSpec {
            name: "net".into(),
            labels: [("tier".to_owned(), "front".to_owned())].into(),
            subnets: vec![subnet("10.1.0.0/24", "")],
            attachable: true,
            ..Default::default()
        }
    }

    fn request(line: &str) -> Result<v1::UpdateNetworkRequest, SpecError> {
        let network = v1::Network {
            id: "n1".into(),
            meta: Some(v1::Meta { created_at: 3, changed_at: 9 }),
            spec: Some(spec()),
            ..Default::default()
        };
        parsed::<Update>(&format!("{line} net")).unwrap().request(network)
    }

    #[test]
    fn n11_what_no_flag_names_stays_and_the_update_says_what_it_is_based_on() {
        let request = request("").unwrap();
        assert_eq!((request.network.as_str(), request.changed_at), ("n1", 9));
        assert_eq!(request.spec, Some(spec()));
    }

    #[test]
    fn n11_subnets_and_labels_come() {
        let line = "--subnet-add 10.2.0.0/24,fd00:2::/64 --gateway 10.2.0.9 --label-rm tier \
                    --label-add owner=me";
        let mut expected = spec();
        expected.subnets.extend([subnet("10.2.0.0/24", "10.2.0.9"), subnet("fd00:2::/64", "")]);
        expected.labels = [("owner".to_owned(), "me".to_owned())].into();
        assert_eq!(request(line).unwrap().spec, Some(expected));
    }

    #[rstest]
    #[case("--subnet-add 10.2.0.1/24", "subnet-add", "10.2.0.1/24")]
    #[case("--gateway 10.1.0.9", "gateway", "10.1.0.9")]
    #[case("--subnet-add 10.2.0.0/24 --ip-range 10.3.0.0/25", "ip-range", "10.3.0.0/25")]
    #[case("--label-rm owner", "label-rm", "owner")]
    #[case("--label-add =me", "label-add", "=me")]
    fn n11_refusals_name_flag_and_value(
        #[case] line: &str,
        #[case] field: &str,
        #[case] value: &str,
    ) {
        let error = request(line).unwrap_err();
        assert_eq!((error.field(), error.value()), (field, value));
    }
}
