//! The binary against a node made of canned answers, on a unix socket.

mod node;

use std::process::{Command, Output, Stdio};

use rstest::rstest;
use serde_json::{Value, json};

use crate::node::{CannedNode, ID_FRONT, ID_INGRESS};

fn overlayctl(node: &CannedNode, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overlayctl"));
    command.arg("--socket").arg(node.socket()).args(arguments);
    command.env_remove("OVERLAYD_SOCKET").stdin(Stdio::null());
    command
}

fn run(node: &CannedNode, arguments: &[&str]) -> Output {
    overlayctl(node, arguments).output().unwrap()
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(output.status.code(), Some(code));
}

fn json_of(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn o02_network_ls_is_a_sorted_table() {
    let node = CannedNode::start();
    let table = "\
NETWORK ID     NAME      DRIVER    VNI    SUBNETS                       OPTIONS
3kq0f1cyn8vt   front     overlay   4097   10.0.1.0/24,fd00:0:0:1::/64   attachable,encrypted
1ab2c3d4e5f6   ingress   overlay   4096   10.0.0.0/24                   ingress
";
    check(&run(&node, &["network", "ls"]), 0, table, "");
    let ids = format!("{ID_FRONT}\n{ID_INGRESS}\n");
    check(&run(&node, &["network", "ls", "-q"]), 0, &ids, "");
}

#[test]
fn o02_network_ls_filters() {
    let node = CannedNode::start();
    let only = format!("{ID_INGRESS}\n");
    check(&run(&node, &["network", "ls", "-q", "--filter", "name=ingr"]), 0, &only, "");
    check(&run(&node, &["network", "ls", "-qf", "name=nothing"]), 0, "", "");
    let both = ["network", "ls", "-q", "-f", "name=ingr", "-f", "name=front"];
    check(&run(&node, &both), 0, &format!("{ID_FRONT}\n{ID_INGRESS}\n"), "");
}

#[test]
fn o02_network_ls_is_one_json_document() {
    let node = CannedNode::start();
    let document = json_of(&run(&node, &["--format", "json", "network", "ls"]));
    let expected = json!({
        "id": ID_FRONT,
        "name": "front",
        "driver": "overlay",
        "vni": 4097,
        "subnets": [
            {
                "subnet": "10.0.1.0/24",
                "gateway": "10.0.1.1",
                "ip_range": "10.0.1.128/25",
                "aux_addresses": { "router": "10.0.1.5" },
            },
            {
                "subnet": "fd00:0:0:1::/64",
                "gateway": "fd00:0:0:1::1",
                "ip_range": null,
                "aux_addresses": {},
            },
        ],
        "ipv4": true,
        "ipv6": true,
        "internal": false,
        "attachable": true,
        "ingress": false,
        "encrypted": true,
        "multicast": false,
        "mtu": null,
        "labels": { "tier": "web" },
        "created_at": 12,
        "changed_at": 14,
    });
    assert_eq!(document[0], expected);
    assert_eq!(document[1]["name"], "ingress");
    assert_eq!(document.as_array().unwrap().len(), 2);
    let ids = json_of(&run(&node, &["network", "ls", "-q", "--format=json"]));
    assert_eq!(ids, json!([ID_FRONT, ID_INGRESS]));
}

#[test]
fn n01_network_create_prints_the_id() {
    let node = CannedNode::start();
    let output = run(&node, &["network", "create", "--subnet=10.7.0.0/16", "-o", "vni=5000", "n"]);
    check(&output, 0, &format!("{ID_FRONT}\n"), "");
    let document = json_of(&run(&node, &["network", "create", "--format", "json", "n"]));
    assert_eq!((&document["id"], &document["name"]), (&json!(ID_FRONT), &json!("n")));
}

#[test]
fn o02_a_refusal_is_exit_code_1() {
    let node = CannedNode::start();
    let message = "error: network \"front\" exists already (id 3k); choose another name\n";
    check(&run(&node, &["network", "create", "front"]), 1, "", message);
}

#[rstest]
#[case(
    &["network", "create", "--subnet", "10.7.0.1/16", "n"],
    "error: subnet \"10.7.0.1/16\": it has host bits set; the subnet is 10.7.0.0/16\n"
)]
#[case(
    &["node", "ls", "-f", "membership=accepted"],
    "error: filter \"membership\" in \"membership=accepted\": the filters here are availability, \
     id, label, liveness, name, network, node.label, role\n\
     \x20   membership=accepted\n\
     \x20   ^^^^^^^^^^\n"
)]
#[case(
    &["service", "create", "--name", "web", "-p", "8080:80/icmp"],
    "error: protocol \"icmp\" in \"8080:80/icmp\": a protocol is tcp, udp or sctp\n\
     \x20   8080:80/icmp\n\
     \x20           ^^^^\n"
)]
fn o02_a_wrong_command_line_is_exit_code_2_and_asks_nobody(
    #[case] arguments: &[&str],
    #[case] stderr: &str,
) {
    // A socket that is not there would be exit code 3.
    let nobody = CannedNode::nobody();
    check(&run(&nobody, arguments), 2, "", stderr);
    assert_eq!(run(&nobody, &["network", "create"]).status.code(), Some(2));
}

#[test]
fn o02_no_node_is_exit_code_3() {
    let nobody = CannedNode::nobody();
    let output = run(&nobody, &["network", "ls"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let socket = nobody.socket().display().to_string();
    assert!(stderr.starts_with("error: cannot reach the overlay daemon at "), "{stderr}");
    assert!(stderr.contains(&socket), "{stderr}");
    assert!(stderr.contains("\ncause: No such file or directory"), "{stderr}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0));
}

#[test]
fn o02_a_node_that_hangs_up_is_exit_code_3() {
    let output = run(&CannedNode::hangs_up(), &["network", "ls"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0));
}

#[test]
fn o02_the_socket_comes_from_the_environment_too() {
    let node = CannedNode::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_overlayctl"));
    command.env("OVERLAYD_SOCKET", node.socket()).args(["network", "ls", "-q"]);
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn o02_what_does_not_exist_is_exit_code_4() {
    let node = CannedNode::start();
    let message = "error: no network \"nine\"\n";
    check(&run(&node, &["network", "inspect", "nine"]), 4, "", message);
}

#[test]
fn o02_one_failure_does_not_keep_the_others() {
    let node = CannedNode::start();
    let output = run(&node, &["network", "rm", "front", "nine", "front"]);
    check(&output, 4, "front\nfront\n", "error: no network \"nine\"\n");
    let output = run(&node, &["network", "rm", "--format=json", "front", "nine"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), document), (Some(4), json!({ "removed": ["front"] })));
    assert_eq!(node.removed(), ["front", "front", "front"]);
}

#[test]
fn o02_network_inspect() {
    let node = CannedNode::start();
    let fields = "\
ID:        3kq0f1cyn8vtr5w2zxplh4m7a
Name:      front
Driver:    overlay
VNI:       4097
Options:   attachable,encrypted
MTU:       derived
Subnets:   10.0.1.0/24 gateway 10.0.1.1, range 10.0.1.128/25, router 10.0.1.5
           fd00:0:0:1::/64 gateway fd00:0:0:1::1
Addresses: 10.0.1.0/24: 1 used, 250 free, 4 reserved, 1 quarantined
Labels:    tier=web
Endpoints: db 10.0.1.129 on one
Peers:     one 192.0.2.1
";
    check(&run(&node, &["network", "inspect", "front"]), 0, fields, "");
    let document = json_of(&run(&node, &["network", "inspect", "front", "--format", "json"]));
    assert_eq!(document[0]["name"], "front");
    assert_eq!(document[0]["usage"][0]["free"], "250");
    assert_eq!(document[0]["endpoints"][0]["network"]["name"], "front");
    assert_eq!(document[0]["peers"][0]["data_path"], "192.0.2.1");
}

#[test]
fn n07_the_ingress_network_is_removed_only_when_confirmed() {
    let node = CannedNode::start();
    let output = run(&node, &["network", "rm", "ingress"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("WARNING!") && stderr.contains("[y/N]"), "{stderr}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert_eq!(node.removed(), [""; 0]);

    check(&run(&node, &["network", "rm", "--force", "ingress"]), 0, "ingress\n", "");
    assert_eq!(node.removed(), ["ingress"]);
    check(&run(&node, &["network", "rm", "--force", "nine"]), 0, "nine\n", "");
}
