//! A node made of canned answers.

mod on_front;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use overlay_api::v1::{
    self,
    endpoints_server::EndpointsServer,
    networks_server::{Networks, NetworksServer},
    nodes_server::NodesServer,
    services_server::ServicesServer,
};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use self::on_front::OnFront;

pub(crate) const ID_FRONT: &str = "3kq0f1cyn8vtr5w2zxplh4m7a";
pub(crate) const ID_INGRESS: &str = "1ab2c3d4e5f6g7h8i9j0k1l2m";

/// A node that listens on a socket of its own until it is dropped.
pub(crate) struct CannedNode {
    socket: PathBuf,
    removed: Arc<Mutex<Vec<String>>>,
    #[expect(dead_code, reason = "removes the folder when it is dropped")]
    folder: TempDir,
    runtime: Runtime,
}

impl CannedNode {
    /// Answers about two networks, `front` and `ingress`.
    pub(crate) fn start() -> Self {
        let node = Self::nobody();
        let canned = Canned { removed: node.removed.clone() };
        let listener = UnixListenerStream::new(node.listen());
        let server = Server::builder()
            .add_service(NetworksServer::new(canned))
            .add_service(NodesServer::new(OnFront))
            .add_service(ServicesServer::new(OnFront))
            .add_service(EndpointsServer::new(OnFront));
        node.runtime.spawn(server.serve_with_incoming(listener));
        node
    }

    /// Takes connections and closes them.
    pub(crate) fn hangs_up() -> Self {
        let node = Self::nobody();
        let listener = node.listen();
        node.runtime.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection);
            }
        });
        node
    }

    /// A path that nobody listens on.
    pub(crate) fn nobody() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            socket: folder.path().join("overlayd.sock"),
            removed: Arc::default(),
            folder,
            runtime: Runtime::new().unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Networks that were removed, as they were called.
    pub(crate) fn removed(&self) -> Vec<String> {
        self.removed.lock().unwrap().clone()
    }

    fn listen(&self) -> UnixListener {
        let _context = self.runtime.enter();
        UnixListener::bind(&self.socket).unwrap()
    }
}

struct Canned {
    removed: Arc<Mutex<Vec<String>>>,
}

fn network(id: &str, vni: u32, subnets: &[(&str, &str)], spec: v1::NetworkSpec) -> v1::Network {
    let subnet = |(subnet, gateway): &(&str, &str)| v1::NetworkSubnet {
        subnet: (*subnet).into(),
        gateway: (*gateway).into(),
    };
    v1::Network {
        id: id.into(),
        meta: Some(v1::Meta { created_at: 12, changed_at: 14 }),
        spec: Some(spec),
        vni,
        subnets: subnets.iter().map(subnet).collect(),
    }
}

fn front() -> v1::Network {
    let requested = v1::SubnetSpec {
        subnet: "10.0.1.0/24".into(),
        ip_range: "10.0.1.128/25".into(),
        gateway: String::new(),
        aux_addresses: [("router".into(), "10.0.1.5".into())].into(),
    };
    let spec = v1::NetworkSpec {
        name: "front".into(),
        labels: [("tier".into(), "web".into())].into(),
        subnets: vec![requested],
        ipv6: true,
        attachable: true,
        encrypted: true,
        ..v1::NetworkSpec::default()
    };
    let subnets = [("10.0.1.0/24", "10.0.1.1"), ("fd00:0:0:1::/64", "fd00:0:0:1::1")];
    network(ID_FRONT, 4097, &subnets, spec)
}

fn ingress() -> v1::Network {
    let spec =
        v1::NetworkSpec { name: "ingress".into(), ingress: true, ..v1::NetworkSpec::default() };
    network(ID_INGRESS, 4096, &[("10.0.0.0/24", "10.0.0.1")], spec)
}

fn find(name: &str) -> Result<v1::Network, Status> {
    match name {
        "front" => Ok(front()),
        "ingress" => Ok(ingress()),
        _ => Err(Status::not_found(format!("no network {name:?}"))),
    }
}

#[tonic::async_trait]
impl Networks for Canned {
    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::CreateNetworkResponse>, Status> {
        let spec = request.into_inner().spec.unwrap();
        if spec.name == "front" {
            let message = "network \"front\" exists already (id 3k); choose another name";
            return Err(Status::already_exists(message));
        }
        let network = Some(v1::Network { spec: Some(spec), ..front() });
        Ok(Response::new(v1::CreateNetworkResponse { network }))
    }

    async fn update_network(
        &self,
        _: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::UpdateNetworkResponse>, Status> {
        Err(Status::unimplemented("overlayctl has no verb for it"))
    }

    async fn list_networks(
        &self,
        request: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        let request = request.into_inner();
        let mut networks = vec![ingress(), front()];
        let filter = request.filter.unwrap_or_default();
        networks.retain(|network| {
            let wanted = |name: &String| network.spec.as_ref().unwrap().name.contains(name);
            filter.names.is_empty() || filter.names.iter().any(wanted)
        });
        // One a page.
        let (first, second) = ("", "second");
        let (place, next) = match request.page_token.as_str() {
            token if token == first => (0, if networks.len() > 1 { second } else { "" }),
            _ => (1, ""),
        };
        let networks = networks.into_iter().skip(place).take(1).collect();
        Ok(Response::new(v1::ListNetworksResponse { networks, next_page_token: next.into() }))
    }

    async fn get_network(
        &self,
        request: Request<v1::GetNetworkRequest>,
    ) -> Result<Response<v1::GetNetworkResponse>, Status> {
        let network = find(&request.into_inner().network)?;
        let usage = v1::SubnetUsage {
            subnet: "10.0.1.0/24".into(),
            used: "1".into(),
            free: "250".into(),
            reserved: "4".into(),
            quarantined: "1".into(),
        };
        Ok(Response::new(v1::GetNetworkResponse { network: Some(network), usage: vec![usage] }))
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveNetworkRequest>,
    ) -> Result<Response<v1::RemoveNetworkResponse>, Status> {
        let name = request.into_inner().network;
        find(&name)?;
        self.removed.lock().unwrap().push(name);
        Ok(Response::new(v1::RemoveNetworkResponse {}))
    }
}
