//! What Prometheus reads.

use overlay_api::v1::{self, networks_client::NetworksClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::lab::{Lab, LabNode, METRICS_PORT, until};

pub(crate) async fn scrape(node: &LabNode) -> String {
    let mut stream = TcpStream::connect((node.address, METRICS_PORT)).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The whole part of the value of the sample that is written like this.
pub(crate) fn value(text: &str, sample: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).map(|value: f64| value as i64)
}

#[tokio::test(flavor = "multi_thread")]
async fn o04_prometheus_reads_what_the_node_does() {
    let mut lab = Lab::managers(2).await;
    let alone = lab.start().await;
    let text = scrape(&lab.nodes[alone]).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");

    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let spec = v1::NetworkSpec { name: "backend".into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    client.create_network(request).await.unwrap();
    let endpoint = v1::EndpointSpec { network: "backend".into(), ..Default::default() };
    let request = v1::AttachEndpointRequest { spec: Some(endpoint), ..Default::default() };
    lab.nodes[0].handle.attach(request).await.unwrap();

    until("both nodes are counted as alive", || async {
        let text = scrape(&lab.nodes[0]).await;
        (value(&text, "overlay_nodes{liveness=\"alive\"}") == Some(2)).then_some(())
    })
    .await;
    let texts = [scrape(&lab.nodes[0]).await, scrape(&lab.nodes[1]).await];
    let sum = |sample: &str| texts.iter().map(|text| value(text, sample).unwrap()).sum::<i64>();
    assert_eq!(sum("overlay_raft_leader"), 1);
    assert_eq!(sum("overlay_raft_voters"), 4);
    assert_eq!(sum("overlay_endpoints"), 1);
    let used = "overlay_ipam_addresses{network=\"backend\",use=\"used\"}";
    assert_eq!(value(&texts[0], used), Some(1));
    let expiry = value(&texts[1], "overlay_certificate_expiry_timestamp_seconds").unwrap();
    let age = value(&texts[1], "overlay_certificate_age_seconds").unwrap();
    assert!(age >= 0 && expiry > age, "{expiry} {age}");
    assert!(value(&texts[0], "overlay_gossip_datagrams_total{direction=\"in\"}").unwrap() > 0);
}
