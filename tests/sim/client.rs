//! Who uses the cluster: makes, changes, reads and removes, and repeats what got no answer.

use core::{future::Future, time::Duration};
use std::collections::BTreeMap;

use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, endpoints_client::EndpointsClient, keys_client::KeysClient,
        networks_client::NetworksClient, services_client::ServicesClient,
    },
};
use overlay_cluster::raft::transport::Channel;
use overlay_types::{EndpointId, NodeId, RequestId, Revision, ServiceId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time;
use tonic::{Code, Status};

use crate::{
    history::{Ask, History, Told},
    net::Net,
    plant::Plant,
};

/// The network that registers, and most endpoints, are on.
pub(crate) const NETWORK: &str = "shared";
/// The label of a register's value.
const VALUE: &str = "value";
/// How often a call is tried.
pub(crate) const ATTEMPTS: usize = 6;
/// How long one attempt may take: longer than a manager looks for a leader.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

pub(crate) fn register(number: usize) -> String {
    format!("register-{number}")
}

/// One user, at one node.
#[derive(Debug)]
pub(crate) struct Client {
    net: Net,
    history: History,
    home: NodeId,
    registers: usize,
    plant: Option<Plant>,
    random: StdRng,
    endpoints: Vec<EndpointId>,
    services: Vec<ServiceId>,
    /// The registers as this client read them last.
    read: BTreeMap<usize, v1::Service>,
}

impl Client {
    pub(crate) fn new(
        (net, history): (Net, History),
        home: NodeId,
        registers: usize,
        plant: Option<Plant>,
        seed: u64,
    ) -> Self {
        Self {
            net,
            history,
            home,
            registers,
            plant,
            random: StdRng::seed_from_u64(seed),
            endpoints: Vec::new(),
            services: Vec::new(),
            read: BTreeMap::new(),
        }
    }

    /// Makes the network and the registers that all clients use.
    pub(crate) async fn set_up(&mut self) {
        let spec = v1::NetworkSpec {
            name: NETWORK.to_owned(),
            attachable: true,
            // Small, so that addresses are used again.
            subnets: vec![v1::SubnetSpec { subnet: "10.9.0.0/26".to_owned(), ..<_>::default() }],
            ..<_>::default()
        };
        self.create_network(spec).await;
        for number in 0..self.registers {
            self.create_service(register(number)).await;
        }
        self.services.clear();
    }

    /// Uses the cluster until it is told to stop.
    pub(crate) async fn run(mut self) {
        loop {
            match self.random.random_range(0..100) {
                0..2 => {
                    let name = format!("network-{}", self.random.random::<u32>());
                    let spec = v1::NetworkSpec { name, ..<_>::default() };
                    self.create_network(spec).await;
                }
                2..6 => {
                    let name = format!("service-{}", self.random.random::<u32>());
                    self.create_service(name).await;
                }
                6..9 => self.remove_service().await,
                9..11 => self.rotate().await,
                11..38 => self.attach().await,
                38..56 => self.detach().await,
                56..78 => self.read().await,
                _ => self.write().await,
            }
            let pause = self.random.random_range(0..150);
            time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Makes a call, at one manager after another until there is an answer.
    async fn call<T, F>(
        &mut self,
        ask: Ask,
        told: impl FnOnce(T) -> Told,
        attempt: impl Fn(Channel, String, u64) -> F,
    ) -> Told
    where
        F: Future<Output = Result<T, Status>>,
    {
        let number = self.history.begin(ask);
        let mut request = RequestId::from_u128(self.random.random());
        let mut doubtful = false;
        let mut told = Some(told);
        for _ in 0..ATTEMPTS {
            if self.plant == Some(Plant::FreshRequestIds) {
                request = RequestId::from_u128(self.random.random());
            }
            let managers = self.net.managers();
            let manager = managers[self.random.random_range(0..managers.len())];
            let channel = self.net.links(self.home).to(manager);
            let answer = time::timeout(PATIENCE, attempt(channel, request.to_string(), number));
            let outcome = match answer.await {
                Ok(Ok(answer)) => told.take().expect("once")(answer),
                Ok(Err(status)) if is_refusal(status.code()) => refused(&status, doubtful),
                _ => {
                    doubtful = true;
                    let pause = self.random.random_range(20..400);
                    time::sleep(Duration::from_millis(pause)).await;
                    continue;
                }
            };
            self.history.end(number, outcome.clone());
            return outcome;
        }
        self.history.end(number, Told::Unknown);
        Told::Unknown
    }

    async fn create_network(&mut self, spec: v1::NetworkSpec) {
        let told = |answer: v1::CreateNetworkResponse| {
            let network = answer.network.expect("a network");
            let id = network.id.parse().expect("an id");
            Told::Network(id, changed_at(network.meta.as_ref()))
        };
        self.call(Ask::CreateNetwork, told, |channel, request_id, _| {
            let spec = Some(spec.clone());
            let request = v1::CreateNetworkRequest { spec, request_id, host_routes: Vec::new() };
            async move { answer(NetworksClient::new(channel).create_network(request).await) }
        })
        .await;
    }

    async fn create_service(&mut self, name: String) {
        let told = |answer: v1::CreateServiceResponse| {
            let service = answer.service.expect("a service");
            let id = service.id.parse().expect("an id");
            Told::Service(id, changed_at(service.meta.as_ref()))
        };
        let create = |channel, request_id, number: u64| {
            let network = v1::ServiceNetwork { network: NETWORK.to_owned(), aliases: Vec::new() };
            let spec = Some(v1::ServiceSpec {
                name: name.clone(),
                labels: [(VALUE.to_owned(), number.to_string())].into(),
                networks: vec![network],
                ..<_>::default()
            });
            let request = v1::CreateServiceRequest { spec, request_id };
            async move { answer(ServicesClient::new(channel).create_service(request).await) }
        };
        if let Told::Service(id, _) = self.call(Ask::CreateService, told, create).await {
            self.services.push(id);
        }
    }

    async fn remove_service(&mut self) {
        let Some(id) = self.services.pop() else { return };
        let told = |_: v1::RemoveServiceResponse| Told::Done;
        self.call(Ask::RemoveService(id), told, |channel, request_id, _| {
            let request = v1::RemoveServiceRequest { service: id.to_string(), request_id };
            async move { answer(ServicesClient::new(channel).remove_service(request).await) }
        })
        .await;
    }

    async fn attach(&mut self) {
        let node = self.home.to_string();
        let told = |answer: v1::AttachEndpointResponse| {
            let endpoint = answer.endpoint.expect("an endpoint");
            let addresses = endpoint.addresses.iter().map(|a| a.parse().expect("an address"));
            Told::Endpoint(
                endpoint.id.parse().expect("an id"),
                endpoint.network.parse().expect("an id"),
                addresses.collect(),
                changed_at(endpoint.meta.as_ref()),
            )
        };
        let attach = |channel, request_id, number: u64| {
            let spec = Some(v1::EndpointSpec {
                network: NETWORK.to_owned(),
                node: node.clone(),
                name: endpoint_name(number),
                ..<_>::default()
            });
            let request = v1::AttachEndpointRequest { spec, request_id, port: None };
            async move { answer(EndpointsClient::new(channel).attach_endpoint(request).await) }
        };
        let ask = Ask::Attach { node: self.home };
        if let Told::Endpoint(id, ..) = self.call(ask, told, attach).await {
            self.endpoints.push(id);
        }
    }

    async fn detach(&mut self) {
        if self.endpoints.is_empty() {
            return;
        }
        let chosen = self.random.random_range(0..self.endpoints.len());
        let id = self.endpoints.swap_remove(chosen);
        let told = |_: v1::DetachEndpointResponse| Told::Done;
        self.call(Ask::Detach(id), told, |channel, request_id, _| {
            let request = v1::DetachEndpointRequest { endpoint: id.to_string(), request_id };
            async move { answer(EndpointsClient::new(channel).detach_endpoint(request).await) }
        })
        .await;
    }

    async fn rotate(&mut self) {
        let told = |_: v1::RotateKeysResponse| Told::Done;
        self.call(Ask::Rotate, told, |channel, request_id, _| async move {
            let request = v1::RotateKeysRequest { request_id };
            answer(KeysClient::new(channel).rotate_keys(request).await)
        })
        .await;
    }

    async fn read(&mut self) {
        let number = self.random.random_range(0..self.registers);
        let stale = self.plant == Some(Plant::StaleReads);
        let mut read = None;
        let told = |answer: v1::GetServiceResponse| {
            let service = answer.service.expect("a service");
            let told = value(&service);
            read = Some(service);
            told
        };
        self.call(Ask::Read { register: number }, told, |channel, _, _| async move {
            let consistency = Some(v1::Consistency { stale });
            let request = v1::GetServiceRequest { service: register(number), consistency };
            answer(ServicesClient::new(channel).get_service(request).await)
        })
        .await;
        self.read.extend(read.map(|service| (number, service)));
    }

    async fn write(&mut self) {
        let Some((number, service)) = self.read.pop_first() else { return self.read().await };
        let based_on = changed_at(service.meta.as_ref());
        let mut written = None;
        let told = |answer: v1::UpdateServiceResponse| {
            let service = answer.service.expect("a service");
            let told = value(&service);
            written = Some(service);
            told
        };
        let ask = Ask::Write { register: number, based_on };
        self.call(ask, told, |channel, request_id, call| {
            let mut spec = service.spec.clone().expect("a spec");
            spec.labels.insert(VALUE.to_owned(), call.to_string());
            let request = v1::UpdateServiceRequest {
                service: service.id.clone(),
                spec: Some(spec),
                changed_at: based_on.get(),
                request_id,
            };
            async move { answer(ServicesClient::new(channel).update_service(request).await) }
        })
        .await;
        // Half of the writes follow a write at once, the others a read.
        if self.random.random_bool(0.5) {
            self.read.extend(written.map(|service| (number, service)));
        }
    }
}

/// Name of the endpoint that a call attached.
pub(crate) fn endpoint_name(call: u64) -> String {
    format!("endpoint-{call}")
}

fn answer<T>(answer: Result<tonic::Response<T>, Status>) -> Result<T, Status> {
    answer.map(tonic::Response::into_inner)
}

fn changed_at(meta: Option<&v1::Meta>) -> Revision {
    Revision::new(meta.expect("every object has it").changed_at)
}

fn value(service: &v1::Service) -> Told {
    let labels = &service.spec.as_ref().expect("a spec").labels;
    Told::Value(labels[VALUE].parse().expect("a number"), changed_at(service.meta.as_ref()))
}

/// Whether this code says that nothing was done, and that it would be the same again.
pub(crate) fn is_refusal(code: Code) -> bool {
    !matches!(code, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown)
}

/// What a refusal says of the call. An attempt before the refused one, if that is doubtful, may have been
/// carried out, or be on its way still.
pub(crate) fn refused(status: &Status, doubtful: bool) -> Told {
    if reason(status) == Some(Reason::RequestUndone) {
        // The manager asked the leader again, after an answer that was lost.
        Told::Undone
    } else if doubtful {
        Told::Unknown
    } else {
        Told::Refused(status.code())
    }
}

/// The number of the call that wrote a service last.
pub(crate) fn value_of(service: &overlay_types::Service) -> Option<u64> {
    service.spec.labels.get(VALUE)?.parse().ok()
}
