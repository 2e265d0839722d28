//! `network create|ls|inspect|update|rm`

mod update;

use std::io::{self, BufRead, Write};

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use overlay_api::v1;
use overlay_types::{Name, NetworkDraft, NetworkSpec, SpecError};

use self::update::Update;
use super::{Report, each};
use crate::{
    failure::Failure,
    flag::{Labels, List, References},
    session::{Node, Session},
    view::{Network, NetworkDetail},
};

const INGRESS_WARNING: &str = "\
WARNING! This is the network of the routing mesh. Until another one is created with
'overlayctl network create --ingress', nodes do not forward published ports to tasks on other
nodes.
Are you sure you want to continue? [y/N] ";

/// What can be done with networks.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create a network
    Create(Box<Create>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show networks in full
    Inspect(References),
    /// Change labels of a network, or add subnets; nothing else of it can change
    Update(Update),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Remove),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Driver {
    Overlay,
}

/// What is said of subnets that a network gets.
#[derive(Args, Debug)]
struct SubnetDetails {
    /// Part of a subnet that endpoints get addresses from; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Gateway of a subnet; may be repeated [default: the first address]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Address that something else uses; may be repeated
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
}

impl SubnetDetails {
    /// Gives `draft` the subnets, each with what is said of it.
    fn give(&self, draft: &mut NetworkDraft, subnets: &[String]) -> Result<(), SpecError> {
        draft.set_subnets(subnets, &self.ip_range, &self.gateway, &self.aux_address)
    }
}

/// `network create`
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Create {
    /// Name of the network
    name: String,
    /// Kind of network; there is one kind
    #[arg(short, long, value_enum, default_value = "overlay")]
    driver: Driver,
    /// Subnet; may be repeated [default: one from the cluster's pools]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet: Vec<String>,
    #[command(flatten)]
    details: SubnetDetails,
    /// Take no IPv4 addresses with --ipv4=false
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          value_name = "BOOL", default_value_t = true, default_missing_value = "true")]
    ipv4: bool,
    /// Give endpoints IPv6 addresses too
    #[arg(long)]
    ipv6: bool,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Let standalone endpoints attach, not only tasks of services
    #[arg(long)]
    attachable: bool,
    /// Make it the network of the routing mesh
    #[arg(long)]
    ingress: bool,
    /// Option: encrypted, multicast, mtu=BYTES or vni=NUMBER; may be repeated
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    opt: Vec<String>,
    #[command(flatten)]
    labels: Labels,
}

impl Create {
    fn request(&self) -> Result<v1::CreateNetworkRequest, SpecError> {
        let Driver::Overlay = self.driver;
        let mut draft = NetworkDraft {
            labels: self.labels.parse()?,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            ..NetworkDraft::new(Name::parse("name", &self.name)?)
        };
        self.details.give(&mut draft, &self.subnet)?;
        for option in &self.opt {
            draft.set_option(option)?;
        }
        let spec = NetworkSpec::try_from(draft)?;
        Ok(v1::CreateNetworkRequest {
            spec: Some((&spec).into()),
            ..v1::CreateNetworkRequest::default()
        })
    }
}

/// `network rm`
#[derive(Args, Debug)]
pub(crate) struct Remove {
    #[command(flatten)]
    what: References,
    /// Do not ask before the ingress network goes, and take a network that does not exist for
    /// removed
    #[arg(short, long)]
    force: bool,
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Self::Create(create) => {
                let request = create.request()?;
                let node = session.connect().await?;
                let answer = node.networks().create_network(request).await?.into_inner();
                let network = answer.network.ok_or(Failure::Incomplete("network"))?;
                Ok(session.format.created(&Network::from(network)).into())
            }
            Self::Ls(List { filters, listing }) => {
                let filter = filters.networks()?;
                let node = session.connect().await?;
                let networks = node.list_networks(filter).await?;
                let networks = networks.into_iter().map(Network::from).collect();
                Ok(session.format.list(networks, listing).into())
            }
            Self::Inspect(References { references }) => {
                let node = session.connect().await?;
                let inspect = async |reference: &str| inspect(&node, reference).await;
                let (networks, failures) = each(&references, inspect).await;
                Ok(Report { output: session.format.inspect(&networks), failures })
            }
            Self::Update(update) => {
                let node = session.connect().await?;
                let name = update.apply(&node).await?;
                Ok(session.format.changed(&[name]).into())
            }
            Self::Rm(remove) => {
                let node = session.connect().await?;
                let act = async |reference: &str| remove_one(&node, reference, remove.force).await;
                let (removed, failures) = each(&remove.what.references, act).await;
                Ok(Report { output: session.format.removed(&removed), failures })
            }
        }
    }
}

async fn get(node: &Node, reference: &str) -> Result<v1::GetNetworkResponse, Failure> {
    let request = v1::GetNetworkRequest { network: reference.to_owned(), consistency: None };
    let answer = node.networks().get_network(request).await?.into_inner();
    if answer.network.is_none() { Err(Failure::Incomplete("network")) } else { Ok(answer) }
}

/// A network with what is on it.
async fn inspect(node: &Node, reference: &str) -> Result<NetworkDetail, Failure> {
    let network = get(node, reference).await?;
    let on = vec![network.network.as_ref().map(|n| n.id.clone()).unwrap_or_default()];
    let endpoints = v1::EndpointFilter { networks: on.clone(), ..Default::default() };
    let services = v1::ServiceFilter { networks: on.clone(), ..Default::default() };
    let peers = v1::NodeFilter { networks: on, ..Default::default() };
    let (endpoints, services, peers) = tokio::try_join!(
        node.list_endpoints(endpoints),
        node.list_services(services),
        node.list_nodes(peers),
    )?;
    let peers = peers.into_iter().filter_map(|status| status.node).collect();
    Ok(NetworkDetail::new(network, endpoints, services, peers))
}

async fn remove_one(node: &Node, reference: &str, force: bool) -> Result<String, Failure> {
    if !force {
        let network = get(node, reference).await?.network.unwrap_or_default();
        let ingress = Network::from(network).is_ingress();
        if ingress && !confirmed(&mut io::stdin().lock(), &mut io::stderr())? {
            return Err(Failure::Declined(reference.to_owned()));
        }
    }
    let request = v1::RemoveNetworkRequest {
        network: reference.to_owned(),
        ..v1::RemoveNetworkRequest::default()
    };
    match node.networks().remove_network(request).await.map_err(Failure::from) {
        Err(failure) if !(force && failure.is_not_found()) => Err(failure),
        _ => Ok(reference.to_owned()),
    }
}

/// Asks on `terminal`; only a clear yes is one, the end of input is not.
fn confirmed(input: &mut impl BufRead, terminal: &mut impl Write) -> io::Result<bool> {
    terminal.write_all(INGRESS_WARNING.as_bytes())?;
    terminal.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

#[cfg(test)]
mod tests;
