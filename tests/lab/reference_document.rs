//! "Use overlay networks", Docker's page about them, from its first section to its last: each command in
//! our spelling, with the result that the page promises.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use overlay_testkit::{
    hosts::{CABLE, address_v4},
    lab::Namespace,
    traffic::{self, associate},
    until::until,
};
use rstest::rstest;
use serde_json::Value;

use crate::{
    ear::Ear,
    load::{self, Server},
    plane::{KERNELS, Plane},
    probe::ping,
    setup::{Cluster, Container, Lab, PATIENCE},
    stranger::Stranger,
};

/// The default of `--gateway-bridge`: the page's name has one character more than devices may have.
const GATEWAY_BRIDGE: &str = "overlay_gwbr";
/// Where the third node has its data traffic.
const DATA_PATH: Ipv4Addr = address_v4(33);

/// A container that is a task of a service.
fn task(lab: &Lab, node: u8, network: &str, service: &str) -> Result<Container> {
    let container = Container::on_no_network()?;
    container.joined(lab, node, network, &["--service", service])
}

/// Detaches containers, each from its node. Their namespaces are there until then: the next one's path may be
/// the same.
fn detach<const N: usize>(lab: &Lab, containers: [(u8, Container); N]) -> Result<()> {
    for (node, container) in containers {
        lab.ctl(node, &format!("endpoint detach {}", container.endpoint))?;
    }
    Ok(())
}

/// What a node says to a container that is no task.
fn standalone_is_refused(lab: &Lab, network: &str) -> Result<String> {
    let container = Container::on_no_network()?;
    let path = container.netns.path();
    let attach = format!("endpoint attach --network {network} --interface eth0 --netns");
    lab.refused(1, &format!("{attach} {}", path.display()))
}

/// A service that answers with TCP and UDP at port 80 of its task.
struct Answering {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Answering {
    fn on(container: &Container) -> Result<Self> {
        container.until_plugged()?;
        let address = IpAddr::from([0, 0, 0, 0]);
        let tcp = traffic::listen(&container.netns, address, 80)?;
        let udp = container.netns.enter(|| UdpSocket::bind((address, 80)))?;
        Ok(Self { tcp, udp })
    }

    /// Whether a client is answered at `target`, and seen as `client`.
    fn answers(&self, from: &Namespace, target: SocketAddr, client: IpAddr) -> Result<()> {
        let seen = traffic::connect(from, target, &self.tcp)?;
        ensure!(seen == client, "{target}: TCP from {client} is seen as {seen}");
        Ok(())
    }

    fn answers_datagrams(
        &self,
        from: &Namespace,
        target: SocketAddr,
        client: IpAddr,
    ) -> Result<()> {
        let seen = traffic::ask(from, target, &self.udp)?;
        ensure!(seen == client, "{target}: UDP from {client} is seen as {seen}");
        Ok(())
    }
}

fn at(node: u8, port: u16) -> SocketAddr {
    (address_v4(node), port).into()
}

/// "When you initialize a swarm or join a Docker host to an existing swarm, two new networks are created",
/// and the ports that have to be open.
fn prerequisites(lab: &Lab) -> Result<()> {
    for node in 1..=3 {
        let ingress = lab.json(node, "network inspect ingress")?;
        ensure!(ingress[0]["ingress"] == true && ingress[0]["attachable"] == false, "{ingress}");
        let open = lab.host(node).netns.run(&["ss", "--no-header", "-tuln"])?;
        let is_open = |kind: &str, port: &str| {
            open.lines().any(|line| line.starts_with(kind) && line.contains(port))
        };
        ensure!(is_open("udp", ":7946 ") && is_open("tcp", ":7946 "), "{open}");
        ensure!(node == 3 || is_open("tcp", ":2377 "), "a manager:\n{open}");
    }
    Ok(())
}

/// "Create an overlay network", "Encrypt traffic on an overlay network".
fn networks(lab: &Lab) -> Result<()> {
    lab.ctl(1, "network create -d overlay my-overlay")?;
    let said = standalone_is_refused(lab, "my-overlay")?;
    ensure!(said.contains("--attachable"), "{said}");

    lab.ctl(1, "network create -d overlay --attachable my-attachable-overlay")?;
    let one = lab.container(1, "my-attachable-overlay")?;
    let two = lab.container(2, "my-attachable-overlay")?;
    ping(&one.netns, two.address())?;
    until("the port of VXLAN is open", PATIENCE, || {
        let open = lab.host(1).netns.run(&["ss", "--no-header", "-uln"])?;
        ensure!(open.contains(":4789 "), "{open}");
        Ok(())
    })?;

    let encrypted = "my-attachable-multi-host-network";
    let create = "network create --opt encrypted --driver overlay --attachable";
    lab.ctl(1, &format!("{create} {encrypted}"))?;
    let mut wire = Ear::in_namespace(&lab.wire)?;
    let (near, far) = (lab.container(2, encrypted)?, lab.container(3, encrypted)?);
    ping(&near.netns, far.address())?;
    // Pings carry octets of this value, 48 in a row.
    ensure!(wire.udp_ports()?.contains(&4500), "it is not sealed");
    ensure!(!wire.has_heard(&[0x55; 48])?, "it is on the wire in clear");

    // "Services or containers can only communicate across networks they are each connected to."
    let alone = near.netns.run(&["ping", "-c", "1", "-W", "1", &one.address().to_string()]);
    ensure!(alone.is_err(), "a container is reached on a network that it is not on");
    let attach = format!("endpoint attach --network {encrypted} --interface eth1 --netns");
    let second = lab.ctl(1, &format!("{attach} {}", one.netns.path().display()))?;
    ping(&one.netns, far.address())?;
    lab.ctl(1, &format!("endpoint detach {second}"))?;
    detach(lab, [(1, one), (2, two), (2, near), (3, far)])
}

/// "Manager nodes in the swarm rotate the key used to encrypt gossip data every 12 hours", and that of
/// application data, too.
fn keys(lab: &Lab) -> Result<()> {
    let now: u64 = lab.wire.run(&["date", "+%s%3N"])?.trim().parse()?;
    let shown = lab.json(1, "key status")?;
    let shown = if shown.is_array() { &shown[0] } else { &shown };
    let epochs = shown["epochs"].as_array().context("epochs")?;
    let active =
        epochs.iter().find(|epoch| epoch["state"] == "active").context("an active epoch")?;
    for keys in [active, &shown["gossip"]] {
        let deadline = keys["deadline_unix_ms"].as_u64().context("a deadline")?;
        let minutes = deadline.saturating_sub(now) / 60_000;
        ensure!(
            (11 * 60..=12 * 60).contains(&minutes),
            "the next rotation is in {minutes} minutes"
        );
    }
    Ok(())
}

/// "Customize the default ingress network".
fn ingress(lab: &Lab) -> Result<()> {
    lab.ctl(1, "service create --name quiet --network my-overlay")?;
    lab.ctl(1, "service create --name wordpress --publish 80:80")?;
    let (quiet, other) =
        (task(lab, 2, "my-overlay", "quiet")?, task(lab, 1, "my-overlay", "quiet")?);
    let said = lab.refused(1, "network rm --force ingress")?;
    ensure!(said.contains("wordpress"), "{said}");
    lab.ctl(1, "service rm wordpress")?;

    let said = lab.refused(1, "network rm ingress")?;
    ensure!(said.contains("routing mesh"), "{said}");
    lab.ctl(1, "network rm --force ingress")?;
    // "existing services which do not publish ports continue to function"
    ping(&other.netns, quiet.address())?;
    let said = lab.refused(1, "service create --name wordpress --publish 80:80")?;
    ensure!(said.contains("--ingress"), "{said}");

    lab.ctl(
        1,
        "network create --driver overlay --ingress --subnet=10.11.0.0/16 --gateway=10.11.0.2 \
         --opt mtu=1200 my-ingress",
    )?;
    let said = lab.refused(1, "network create --ingress second")?;
    ensure!(said.contains("my-ingress"), "{said}");
    let made = lab.json(1, "network inspect my-ingress")?;
    ensure!(made[0]["subnets"][0]["gateway"] == "10.11.0.2", "{made}");

    lab.ctl(1, "service create --name wordpress --publish 80:80")?;
    let wordpress = task(lab, 2, "my-ingress", "wordpress")?;
    let (page, client) = (Answering::on(&wordpress)?, Stranger::on_wire(lab)?);
    let shown = wordpress.netns.ip("link show dev eth0")?;
    ensure!(shown.contains("mtu 1200 "), "{shown}");
    for node in 1..=3 {
        page.answers(&client.netns, at(node, 80), client.address.into())?;
    }
    detach(lab, [(2, wordpress), (2, quiet), (1, other)])?;
    lab.ctl(1, "service rm wordpress quiet").map(drop)
}

/// "Customize the docker_gwbridge interface": made by hand before the node joins, it is used as it is.
fn gateway_bridge(lab: &mut Lab) -> Result<()> {
    lab.ctl(3, "leave --force")?;
    lab.stop(3, Signal::SIGTERM)?;
    let host = lab.host(3);
    let shown = host.netns.ip("-brief link show")?;
    ensure!(!shown.contains(GATEWAY_BRIDGE), "{shown}");
    host.netns.ip(&format!("link add {GATEWAY_BRIDGE} type bridge"))?;
    host.netns.ip(&format!("address add 10.12.0.1/16 dev {GATEWAY_BRIDGE}"))?;
    host.netns.ip(&format!("link set {GATEWAY_BRIDGE} up"))?;
    separate_traffic(lab)?;
    let container = lab.container(3, "my-attachable-overlay")?;
    until("the way out leads over the bridge", PATIENCE, || {
        let routes = container.netns.ip("route show default")?;
        ensure!(routes.contains("via 10.12.0.1 "), "{routes}");
        Ok(())
    })?;
    let there = lab.container(1, "my-attachable-overlay")?;
    let mut wire = Ear::in_namespace(&lab.wire)?;
    ping(&container.netns, there.address())?;
    let sources = wire.sources_to(4789)?;
    ensure!(sources.contains(&DATA_PATH) && !sources.contains(&address_v4(3)), "{sources:?}");
    detach(lab, [(3, container), (1, there)])
}

/// "Separate control and data traffic": the third node joins again, with an address for each.
fn separate_traffic(lab: &mut Lab) -> Result<()> {
    let host = &mut lab.hosts[2];
    host.netns.ip(&format!("address add {DATA_PATH}/24 dev {CABLE}"))?;
    host.flags.extend(["--data-path-addr".to_owned(), DATA_PATH.to_string()]);
    lab.start(3)?;
    let said = lab.refused(3, "network create too-early")?;
    ensure!(said.contains("init") && said.contains("join"), "{said}");
    let token = lab.ctl(1, "join-token --quiet worker")?;
    lab.ctl(3, &format!("join --token {token} {}", address_v4(1))).map(drop)
}

/// "Publish ports on an overlay network": each row of the table.
fn publish(lab: &Lab) -> Result<()> {
    let client = &Stranger::on_wire(lab)?;
    let seen = client.address.into();
    for (flags, tcp, udp) in [
        ("-p 8080:80", true, false),
        ("-p published=8080,target=80", true, false),
        ("-p 8080:80/udp", false, true),
        ("-p published=8080,target=80,protocol=udp", false, true),
        ("-p 8080:80/tcp -p 8080:80/udp", true, true),
        (
            "-p published=8080,target=80,protocol=tcp -p published=8080,target=80,protocol=udp",
            true,
            true,
        ),
    ] {
        lab.ctl(1, &format!("service create --name web {flags}"))?;
        let container = task(lab, 2, "my-ingress", "web")?;
        let server = Answering::on(&container)?;
        // "whether it is running a given service or not"
        for node in 1..=3 {
            if tcp {
                server.answers(&client.netns, at(node, 8080), seen).context(flags)?;
            } else {
                ensure!(traffic::is_refused(&client.netns, at(node, 8080)), "{flags}: TCP");
            }
            if udp {
                server.answers_datagrams(&client.netns, at(node, 8080), seen).context(flags)?;
            }
        }
        detach(lab, [(2, container)])?;
        lab.ctl(1, "service rm web")?;
    }
    global(lab, client)
}

/// "Even a service running on each node (by means of the --mode global flag) uses the routing mesh."
fn global(lab: &Lab, client: &Stranger) -> Result<()> {
    lab.ctl(1, "service create --name web --mode global -p 8080:80")?;
    let tasks = (1..=3).map(|node| task(lab, node, "my-ingress", "web"));
    let tasks: Vec<_> = tasks.collect::<Result<_>>()?;
    let names = ["task1", "task2", "task3"];
    let servers = tasks.iter().zip(names).map(|(task, name)| Server::start(&task.netns, 80, name));
    let _servers: Vec<_> = servers.collect::<Result<_>>()?;
    for node in 1..=3 {
        let mut answered = BTreeSet::new();
        until("each task answers through each node", PATIENCE, || {
            answered.insert(client.netns.enter(|| load::ask(at(node, 8080), PATIENCE))?.0);
            ensure!(names.iter().all(|name| answered.contains(*name)), "{answered:?}");
            Ok(())
        })?;
    }
    for task in (1..).zip(tasks) {
        detach(lab, [task])?;
    }
    lab.ctl(1, "service rm web").map(drop)
}

/// "Bypass the routing mesh for a swarm service", and "Container discovery".
fn discovery(lab: &Lab) -> Result<()> {
    let said = lab.refused(1, "service create --name dns --endpoint-mode dnsrr -p 8080:80")?;
    ensure!(said.contains("dnsrr") && said.contains("mode=host"), "{said}");
    lab.ctl(1, "service create --name dns --endpoint-mode dnsrr --network my-attachable-overlay")?;
    lab.ctl(1, "service create --name vip --network my-attachable-overlay")?;
    let client = lab.container(1, "my-attachable-overlay")?;
    client.until_plugged()?;
    for service in ["dns", "vip"] {
        let tasks: Vec<_> = (1..=3)
            .map(|node| task(lab, node, "my-attachable-overlay", service))
            .collect::<Result<_>>()?;
        let all: BTreeSet<IpAddr> = tasks.iter().map(Container::address).collect();
        let shown = lab.json(1, &format!("service inspect {service}"))?;
        let vip: Option<IpAddr> = match service {
            "vip" => Some(first_vip(&shown).with_context(|| shown.to_string())?),
            _ => None,
        };
        for (name, expected) in [
            (service.to_owned(), vip.map_or_else(|| all.clone(), |vip| BTreeSet::from([vip]))),
            (format!("tasks.{service}"), all.clone()),
        ] {
            until("names are answered", PATIENCE, || {
                let told = client.netns.run(&["dig", "+short", "@127.0.0.11", &name])?;
                let told: BTreeSet<IpAddr> = told.lines().filter_map(|a| a.parse().ok()).collect();
                ensure!(told == expected, "{name}: {told:?} and not {expected:?}");
                Ok(())
            })?;
        }
        if let Some(vip) = vip {
            ping(&client.netns, vip)?;
        }
        for task in (1..).zip(tasks) {
            detach(lab, [task])?;
        }
    }
    lab.ctl(1, "service rm dns vip")?;
    detach(lab, [(1, client)])
}

fn first_vip(shown: &Value) -> Option<IpAddr> {
    let vips = shown[0]["vips"].as_array()?;
    let text = vips.first()?["addresses"].as_array()?.first()?.as_str()?;
    text.parse().ok()
}

/// "Attach a standalone container to an overlay network", and its "Publish ports".
fn standalone(lab: &Lab) -> Result<()> {
    let said = standalone_is_refused(lab, "my-ingress")?;
    ensure!(said.contains("ingress"), "{said}");
    let client = &Stranger::on_wire(lab)?;
    let peer = lab.container(2, "my-attachable-overlay")?;
    for (flags, tcp, udp, sctp) in [
        (&["-p", "8080:80"][..], true, false, false),
        (&["-p", "8080:80/udp"], false, true, false),
        (&["-p", "8080:80/sctp"], false, false, true),
        (&["-p", "8080:80/tcp", "-p", "8080:80/udp"], true, true, false),
    ] {
        let container = Container::on_no_network()?;
        let container = container.joined(lab, 1, "my-attachable-overlay", flags)?;
        let server = Answering::on(&container)?;
        // "to port 8080 on the overlay network", and on its host's, as Docker does.
        for (from, target, seen) in [
            (&peer.netns, (container.address(), 8080).into(), peer.address()),
            (&client.netns, at(1, 8080), client.address.into()),
        ] {
            if tcp {
                server.answers(from, target, seen)?;
            }
            if udp {
                server.answers_datagrams(from, target, seen)?;
            }
            if let (true, IpAddr::V4(to)) = (sctp, target.ip()) {
                let found = associate(from, to, 8080, &container.netns, 80)?;
                ensure!(found == seen, "{target}: SCTP from {seen} is seen as {found}");
            }
        }
        ensure!(traffic::is_refused(&client.netns, at(2, 8080)), "another node answers");
        detach(lab, [(1, container)])?;
    }
    detach(lab, [(2, peer)])
}

#[rstest]
#[case::kernel(KERNELS)]
fn reference_document_holds_from_its_first_command_to_its_last(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        prerequisites(lab).context("prerequisites")?;
        networks(lab).context("networks")?;
        keys(lab).context("keys")?;
        ingress(lab).context("the ingress network")?;
        gateway_bridge(lab).context("the gateway bridge")?;
        publish(lab).context("published ports of services")?;
        discovery(lab).context("names")?;
        standalone(lab).context("standalone containers")
    })
}
