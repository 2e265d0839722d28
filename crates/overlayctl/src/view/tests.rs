use overlay_types::PortSpec;

use super::*;
use crate::{flag::Listing, output::Format};

const ONE: &str = "0000000000000000000000one";
const TWO: &str = "0000000000000000000000two";

fn node(id: &str, name: &str, role: v1::Role) -> v1::Node {
    v1::Node {
        id: id.into(),
        name: name.into(),
        role: role.into(),
        data_path: "192.0.2.1".into(),
        ..v1::Node::default()
    }
}

fn network(id: &str, name: &str) -> v1::Network {
    let spec = v1::NetworkSpec { name: name.into(), ..v1::NetworkSpec::default() };
    v1::Network { id: id.into(), spec: Some(spec), ..v1::Network::default() }
}

fn ports(texts: &[&str]) -> Vec<v1::PortSpec> {
    let ports = texts.iter().flat_map(|text| PortSpec::parse(text).unwrap());
    ports.map(|port| (&port).into()).collect()
}

fn service(name: &str) -> v1::Service {
    let attachment = v1::ServiceNetwork { network: "n1".into(), aliases: vec!["www".into()] };
    let vip = v1::VirtualAddresses {
        network: "n1".into(),
        addresses: vec!["10.0.1.2".into(), "fd00::2".into()],
    };
    let spec = v1::ServiceSpec {
        name: name.into(),
        networks: vec![attachment],
        ports: ports(&["published=9000,target=90,protocol=udp,mode=host", "8080:80"]),
        scale: Some(v1::service_spec::Scale::Replicas(3)),
        ..v1::ServiceSpec::default()
    };
    v1::Service { id: "s1".into(), spec: Some(spec), vips: vec![vip], ..v1::Service::default() }
}

fn endpoint(id: &str, name: &str, service: &str) -> v1::Endpoint {
    v1::Endpoint {
        id: id.into(),
        network: "n1".into(),
        node: ONE.into(),
        service: service.into(),
        name: name.into(),
        addresses: vec!["10.0.1.3".into()],
        mac: "02:42:0a:00:01:03".into(),
        ..v1::Endpoint::default()
    }
}

fn names() -> Names {
    Names::default()
        .with_networks(&[network("n1", "back")])
        .with_services(&[service("web")])
        .with_nodes([node(ONE, "one", v1::Role::Manager)].iter())
}

#[test]
fn o02_node_ls() {
    let status = |id, name, role, liveness: v1::Liveness, leader| v1::NodeStatus {
        node: Some(node(id, name, role)),
        liveness: liveness.into(),
        leader,
    };
    let nodes = [
        status("w", "worker", v1::Role::Worker, v1::Liveness::Unknown, false),
        status(TWO, "two", v1::Role::Manager, v1::Liveness::Dead, false),
        status(ONE, "one", v1::Role::Manager, v1::Liveness::Alive, true),
        status("t", "three", v1::Role::Manager, v1::Liveness::Alive, false),
    ];
    let nodes: Vec<_> = nodes.into_iter().map(|status| Node::new(status, ONE)).collect();
    let expected = "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   DATA PATH   DATAPLANE
0000000000000000000000one *   one        Ready     Active         Leader           192.0.2.1   unknown
t                             three      Ready     Active         Reachable        192.0.2.1   unknown
0000000000000000000000two     two        Down      Active         Unreachable      192.0.2.1   unknown
w                             worker     Unknown   Active                          192.0.2.1   unknown
";
    let listing = Listing { quiet: false, no_trunc: true };
    assert_eq!(Format::Table.list(nodes, listing), expected);
}

#[test]
fn o02_service_ls() {
    let services = vec![Service::new(service("web"), &names())];
    let table = Format::Table.list(services, Listing::default());
    let columns: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("   ").map(str::trim).collect()).collect();
    let header = ["ID", "NAME", "ENDPOINT MODE", "SCALE", "NETWORKS", "VIRTUAL IPS", "PORTS"];
    let ports = "*:8080->80/tcp, *:9000->90/udp (host)";
    let row = ["s1", "web", "vip", "3", "back", "back: 10.0.1.2,fd00::2", ports];
    let cells = |line: &Vec<&str>| -> Vec<String> {
        line.iter().filter(|cell| !cell.is_empty()).map(ToString::to_string).collect()
    };
    assert_eq!(columns.iter().map(cells).collect::<Vec<_>>(), [header, row]);
}

#[test]
fn o02_service_inspect() {
    let draining = v1::Readiness::Draining.into();
    let leaving = v1::Endpoint { readiness: draining, ..endpoint("e2", "web.2", "s1") };
    let tasks = vec![leaving, endpoint("e1", "web.1", "s1")];
    let detail = ServiceDetail::new(service("web"), tasks, names());
    let expected = "\
ID:            s1
Name:          web
Endpoint mode: vip
Scale:         3
Networks:      back as www
Virtual IPs:   back: 10.0.1.2,fd00::2
Ports:         *:8080->80/tcp
               *:9000->90/udp (host)
Tasks:         web.1 10.0.1.3 on one
               web.2 10.0.1.3 on one (draining)
";
    assert_eq!(Format::Table.inspect(&[detail]), expected);
}

#[test]
fn o02_an_endpoint_names_what_it_refers_to() {
    let known = Endpoint::new(endpoint("e1", "web.1", "s1"), &names());
    let document: serde_json::Value =
        serde_json::from_str(&Format::Json.one(&known)).expect("one document");
    assert_eq!(document["network"], serde_json::json!({ "id": "n1", "name": "back" }));
    assert_eq!(document["service"]["name"], "web");
    assert_eq!(document["node"]["name"], "one");

    // Its service and node went away in between.
    let strange = Endpoint::new(endpoint("e2", "", ""), &Names::default());
    let document = serde_json::to_value(&strange).unwrap();
    assert_eq!(document["network"], serde_json::json!({ "id": "n1", "name": null }));
    assert_eq!(
        (&document["service"], &document["name"]),
        (&serde_json::Value::Null, &document["service"])
    );
    let table = Format::Table.list(vec![strange], Listing::default());
    assert!(
        table.lines().nth(1).unwrap().contains("000000000000   ready       10.0.1.3"),
        "{table}"
    );
}

#[test]
fn n09_members_that_differ_in_mtu_are_shown_with_what_to_do() {
    let inspect = |sizes: [u32; 2]| {
        let peer = |(name, plain_mtu): (&str, u32)| v1::Node {
            host: Some(v1::HostReport { plain_mtu, ..v1::HostReport::default() }),
            ..node(name, name, v1::Role::Worker)
        };
        let detail =
            v1::GetNetworkResponse { network: Some(network("n1", "back")), ..Default::default() };
        let peers = ["one", "two"].into_iter().zip(sizes).map(peer).collect();
        Format::Table.inspect(&[NetworkDetail::new(detail, Vec::new(), Vec::new(), peers)])
    };
    let text = inspect([1450, 1450]);
    assert!(text.contains("1450, derived\n"), "{text}");
    let text = inspect([1450, 1350]);
    assert!(text.contains("1350 on two, 1450 on one") && text.contains("--opt mtu=1350"), "{text}");
}

#[test]
fn a_label_cannot_move_the_cursor() {
    let mut message = network("n1", "back");
    message.spec.as_mut().unwrap().labels = [("a".into(), "\x1b[2J\r".into())].into();
    let detail = v1::GetNetworkResponse { network: Some(message), ..Default::default() };
    let detail = NetworkDetail::new(detail, Vec::new(), Vec::new(), Vec::new());
    let text = Format::Table.inspect(&[detail]);
    assert!(text.contains("a=\\u{1b}[2J\\r"), "{text}");
}

#[test]
fn a_newcomer_can_paste_the_join_command() {
    let initialized = Initialized {
        cluster: "c".into(),
        node: ONE.into(),
        worker_token: "OVTKN-1-w".into(),
        manager_token: "OVTKN-1-m".into(),
        unlock_key: None,
        remotes: vec!["192.0.2.1:2377".into()],
    };
    let sentence = initialized.sentence();
    assert!(sentence.contains("\n    overlayctl join --token OVTKN-1-w 192.0.2.1:2377\n"));
    assert!(!sentence.contains("OVTKN-1-m"));
}
