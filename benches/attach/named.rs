//! A service that is made, and found by its name.

use core::time::Duration;
use std::{net::UdpSocket, time::Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use overlay_api::v1::{self, networks_client::NetworksClient, services_client::ServicesClient};
use overlay_testkit::{lab::Namespace, until::until};
use tonic::transport::Channel;

use crate::{attach, detach, endpoint, millis, network, tell};

/// Services that are made one after another.
const SERVICES: u32 = 50;
/// Between two questions: an answer that is not there yet comes at once, too.
const PACE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// The name server of a container.
const SERVER: &str = "127.0.0.11:53";

/// From the call that makes a service in round robin, then one for its task, until its name has an address
/// in a container of another node.
pub(crate) async fn services(near: &Channel, far: &Channel) -> Result<()> {
    let mut networks = NetworksClient::new(near.clone());
    networks.create_network(network("named", Some("10.202.0.0/16"))).await?;
    let asker = Namespace::new()?;
    let asking = attach(far, endpoint("named", Some(&asker))).await?;
    let socket = asker.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(SERVER)?;
    until("the name server answers", PATIENCE, || addresses(&socket, "nobody."))?;
    let mut client = ServicesClient::new(near.clone());
    let (mut times, mut kept) = (Vec::new(), Vec::new());
    for number in 0..SERVICES {
        let (name, container) = (format!("service{number}"), Namespace::new()?);
        let begin = Instant::now();
        client.create_service(service(&name)).await?;
        let mut task = endpoint("named", Some(&container));
        task.spec.get_or_insert_default().service.clone_from(&name);
        let task = attach(near, task).await?;
        let question = format!("{name}.");
        while addresses(&socket, &question)? == 0 {
            ensure!(begin.elapsed() < PATIENCE, "{name} has no address");
            tokio::time::sleep(PACE).await;
        }
        times.push(millis(begin));
        kept.push((container, task.id));
    }
    detach(near, kept.iter().map(|(_, id)| id)).await?;
    detach(far, [&asking.id]).await?;
    tell("a service made, with a task, to the first answer in round robin", times, "<= 50");
    Ok(())
}

fn service(name: &str) -> v1::CreateServiceRequest {
    let network = v1::ServiceNetwork { network: "named".to_owned(), ..Default::default() };
    let mut spec =
        v1::ServiceSpec { name: name.to_owned(), networks: vec![network], ..Default::default() };
    spec.set_mode(v1::EndpointMode::Dnsrr);
    v1::CreateServiceRequest { spec: Some(spec), ..Default::default() }
}

/// How many a name has.
fn addresses(socket: &UdpSocket, name: &str) -> Result<usize> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    socket.send(&message.to_vec()?)?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).context("no answer")?;
    Ok(Message::from_vec(&buffer[..length])?.answers.len())
}
