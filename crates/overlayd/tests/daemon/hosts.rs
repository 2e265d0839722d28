//! Hosts as network namespaces on one wire, each with its daemon, and containers as namespaces.
//!
//! ```text
//!  container ══ host 1 (daemon) ──┐
//!  container ══ host 2 (daemon) ──┴── wire (a bridge)
//! ```

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use overlay_api::v1::{
    self, endpoint_port::Namespace as PortNamespace, endpoints_client::EndpointsClient,
    networks_client::NetworksClient,
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::PortSpec;
use tonic::{Status, transport::Channel};

use crate::{
    Daemon, Way,
    calls::{channel_of, join, local, until},
};

/// Runs a test that needs namespaces, with a mount namespace of its own.
pub(crate) fn with_hosts(test: impl AsyncFnOnce() + Send) {
    if lab::skip() {
        return;
    }
    lab::isolated(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test());
    });
}

/// A host with its daemon.
pub(crate) struct Host {
    pub(crate) netns: Arc<Namespace>,
    pub(crate) daemon: Daemon,
    /// What there was before its daemon: see [`listing`](Self::listing).
    pub(crate) bare: String,
}

/// Hosts of one cluster. The first is the manager.
pub(crate) struct Hosts {
    pub(crate) hosts: Vec<Host>,
    wire: Namespace,
}

impl Hosts {
    /// One host for each dataplane that is named.
    pub(crate) async fn start(dataplanes: &[&str]) -> Self {
        let wire = Namespace::new().unwrap();
        wire.ip("link add wire type bridge mcast_snooping 0").unwrap();
        wire.ip("link set wire up").unwrap();
        let mut hosts = Self { hosts: Vec::new(), wire };
        for dataplane in dataplanes {
            hosts.add(dataplane);
        }
        let [first, others @ ..] = &hosts.hosts[..] else { panic!("there is a first host") };
        let mut manager = local(&first.daemon).await;
        let tokens = manager.init_cluster(v1::InitClusterRequest::default()).await;
        let tokens = tokens.unwrap().into_inner();
        for host in others {
            join(&host.daemon, &tokens.worker_token, &first.daemon).await;
        }
        hosts
    }

    fn add(&mut self, dataplane: &str) {
        let number = self.hosts.len() as u8 + 1;
        let netns = Arc::new(Namespace::new().unwrap());
        netns.connect("cable", &self.wire, &format!("to{number}")).unwrap();
        self.wire.ip(&format!("link set to{number} master wire")).unwrap();
        let address = Ipv4Addr::new(192, 0, 2, number);
        netns.ip(&format!("address add {address}/24 dev cable")).unwrap();
        self.add_in(netns, dataplane);
    }

    /// Starts a daemon on a host that is there.
    pub(crate) fn add_in(&mut self, netns: Arc<Namespace>, dataplane: &str) {
        let number = self.hosts.len() as u8 + 1;
        let address = Ipv4Addr::new(192, 0, 2, number);
        let flags = ["--dataplane", dataplane, "--name", &format!("host{number}")];
        let flags = flags.map(str::to_owned).to_vec();
        let way = Way { through: Vec::new(), flags, host: Some(Arc::clone(&netns)) };
        let bare = listing(&netns, &[]);
        let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), address, "info", way);
        self.hosts.push(Host { netns, daemon, bare });
    }

    /// Attaches an endpoint through a node that may not have found a manager yet.
    pub(crate) async fn attach_again(
        &self,
        place: usize,
        network: &str,
        interface: &str,
        namespace: PortNamespace,
    ) -> v1::Endpoint {
        until("an endpoint is attached", async || {
            self.hosts[place].attach(network, interface, namespace.clone()).await.ok()
        })
        .await
    }

    /// Makes an attachable network.
    pub(crate) async fn create(&self, spec: v1::NetworkSpec) -> v1::Network {
        let spec = v1::NetworkSpec { attachable: true, ..spec };
        let mut networks = NetworksClient::new(self.hosts[0].channel().await);
        let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
        networks.create_network(request).await.unwrap().into_inner().network.unwrap()
    }
}

/// A network with both families.
pub(crate) fn dual(name: &str) -> v1::NetworkSpec {
    let subnet = v1::SubnetSpec { subnet: "fd00:7::/64".to_owned(), ..Default::default() };
    v1::NetworkSpec {
        name: name.to_owned(),
        ipv6: true,
        subnets: vec![subnet],
        ..Default::default()
    }
}

impl Host {
    pub(crate) async fn channel(&self) -> Channel {
        until("its socket answers", || channel_of(&self.daemon)).await
    }

    pub(crate) async fn endpoints(&self) -> EndpointsClient<Channel> {
        EndpointsClient::new(self.channel().await)
    }

    /// Attaches an endpoint with an interface in a namespace.
    pub(crate) async fn attach(
        &self,
        network: &str,
        interface: &str,
        namespace: impl Into<Option<PortNamespace>>,
    ) -> Result<v1::Endpoint, Status> {
        self.publish(network, interface, namespace, &[]).await
    }

    /// Attaches an endpoint that publishes ports.
    pub(crate) async fn publish(
        &self,
        network: &str,
        interface: &str,
        namespace: impl Into<Option<PortNamespace>>,
        ports: &[&str],
    ) -> Result<v1::Endpoint, Status> {
        let ports = ports.iter().flat_map(|text| PortSpec::parse(text).unwrap());
        let ports = ports.map(|port| (&port).into()).collect();
        let spec = v1::EndpointSpec { network: network.to_owned(), ports, ..Default::default() };
        let port =
            v1::EndpointPort { interface: interface.to_owned(), namespace: namespace.into() };
        let request =
            v1::AttachEndpointRequest { spec: Some(spec), port: Some(port), ..Default::default() };
        let answer = self.endpoints().await.attach_endpoint(request).await?;
        Ok(answer.into_inner().endpoint.unwrap())
    }

    pub(crate) async fn detach(&self, endpoint: &v1::Endpoint) {
        let request =
            v1::DetachEndpointRequest { endpoint: endpoint.id.clone(), ..Default::default() };
        self.endpoints().await.detach_endpoint(request).await.unwrap();
    }

    pub(crate) async fn leave(&self, force: bool) -> String {
        let left = local(&self.daemon).await.leave_cluster(v1::LeaveClusterRequest { force }).await;
        left.unwrap().into_inner().remains
    }

    /// Endpoints of this node.
    pub(crate) async fn list(&self) -> Vec<v1::Endpoint> {
        let status = local(&self.daemon).await.get_status(v1::GetStatusRequest {}).await;
        let filter = v1::EndpointFilter {
            nodes: vec![status.unwrap().into_inner().node],
            ..Default::default()
        };
        let request = v1::ListEndpointsRequest { filter: Some(filter), ..Default::default() };
        self.endpoints().await.list_endpoints(request).await.unwrap().into_inner().endpoints
    }

    /// Files of the namespaces of networks, and of the gate of the routing mesh.
    pub(crate) fn namespaces(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.daemon.folder.path().join("netns"));
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// What there is on the host: links, rules, and namespaces of networks.
    pub(crate) fn listing(&self) -> String {
        listing(&self.netns, &self.namespaces())
    }
}

fn listing(netns: &Namespace, namespaces: &[PathBuf]) -> String {
    let links = netns.ip("-br link show").unwrap();
    let rules = netns.run(&["nft", "list", "ruleset"]).unwrap();
    format!("{links}\n{rules}\n{namespaces:?}")
}

/// The file that stands for a container's namespace.
pub(crate) fn of(container: &Namespace) -> PortNamespace {
    PortNamespace::Netns(container.path().to_str().unwrap().to_owned())
}

/// Pings each address of an endpoint until it answers.
pub(crate) async fn reaches(from: &Namespace, endpoint: &v1::Endpoint) {
    for address in &endpoint.addresses {
        until(&format!("{address} answers"), async || {
            from.run(&["ping", "-c", "1", "-W", "1", address]).ok()
        })
        .await;
    }
}
