//! A node whose disk is full: it goes on with what it knows, names the file that it cannot write,
//! and catches up when there is room.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;
use overlay_api::v1::{
    self, endpoints_client::EndpointsClient, local_node_client::LocalNodeClient,
    networks_client::NetworksClient, nodes_client::NodesClient,
};
use tonic::transport::Channel;

use crate::{
    Daemon, Way,
    calls::{channel_of, until},
};

/// A small disk, in a mount namespace of its own: no root is needed for it, and it is gone with the
/// process that holds it.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// A disk at `folder`; an error says why there can be none.
    fn mount(folder: &Path) -> Result<Self, String> {
        let script = "mount -t tmpfs -o size=32m none \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let stdout = holder.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let disk = Self { holder, folder: folder.to_owned() };
        if line == "mounted\n" { Ok(disk) } else { Err("a tmpfs cannot be mounted".to_owned()) }
    }

    /// The command that starts another one where the disk is.
    fn through(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &holder];
        enter.map(str::to_owned).to_vec()
    }

    fn filler(&self) -> PathBuf {
        let folder = self.folder.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(folder).join("filler")
    }

    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[0; 1024]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Skips the test where there can be no such disk: says so, or fails when `CI=true`.
#[expect(clippy::print_stderr, reason = "a test that proves nothing must say so")]
fn small_disk(folder: &Path) -> Option<SmallDisk> {
    match SmallDisk::mount(folder) {
        Ok(disk) => Some(disk),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{reason}");
            eprintln!("SKIPPED: {reason}");
            None
        }
    }
}

async fn update(manager: &Channel, node: &str, change: impl Fn(&mut v1::UpdateNodeRequest)) {
    let mut client = NodesClient::new(manager.clone());
    let request = v1::GetNodeRequest { node: node.to_owned(), consistency: None };
    let status = client.get_node(request).await.unwrap().into_inner().node.unwrap();
    let known = status.node.unwrap();
    let mut request = v1::UpdateNodeRequest {
        node: known.id,
        role: known.role,
        availability: known.availability,
        labels: known.labels,
        changed_at: known.meta.unwrap().changed_at,
        request_id: String::new(),
    };
    change(&mut request);
    client.update_node(request).await.unwrap();
}

async fn status(daemon: &Daemon) -> v1::GetStatusResponse {
    until("it says how it is", async || {
        let mut client = LocalNodeClient::new(channel_of(daemon).await?);
        Some(client.get_status(v1::GetStatusRequest {}).await.ok()?.into_inner())
    })
    .await
}

/// Its log names the file and says what is wrong with it.
fn until_complained(daemon: &Daemon, message: &str, file: &str) {
    daemon.until_logged(message);
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains(message)).unwrap();
    assert!(line.contains(file) && line.contains("No space left"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_node_whose_disk_is_full_goes_on_and_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let Some(disk) = small_disk(&data) else { return };
    let first = Daemon::start(Ipv4Addr::new(127, 51, 5, 1), "info");
    let address = Ipv4Addr::new(127, 51, 5, 2);
    let mut second = Daemon::start_in(folder, address, "info", Way::through(disk.through()));
    let manager = until("its socket answers", || channel_of(&first)).await;
    let mut local = LocalNodeClient::new(manager.clone());
    let tokens = local.init_cluster(v1::InitClusterRequest::default()).await.unwrap().into_inner();
    let channel = until("its socket answers", || channel_of(&second)).await;
    let request = v1::JoinClusterRequest {
        token: tokens.worker_token,
        remotes: vec![first.address.to_string()],
    };
    let joined = LocalNodeClient::new(channel.clone()).join_cluster(request).await;
    let node = joined.unwrap().into_inner().node;

    disk.fill();
    let before = status(&second).await.revision;
    update(&manager, &tokens.node, |node| drop(node.labels.insert("a".into(), "b".into()))).await;
    until_complained(&second, "the view is not kept", "/view");
    until("the dataplane follows all the same", async || {
        (status(&second).await.revision > before).then_some(())
    })
    .await;

    let spec = v1::NetworkSpec { name: "net".into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    NetworksClient::new(manager.clone()).create_network(request).await.unwrap();
    let mut endpoints = EndpointsClient::new(channel);
    let spec = v1::EndpointSpec { network: "net".into(), ..Default::default() };
    let port = v1::EndpointPort { interface: "tap0".into(), namespace: None };
    let mut request =
        v1::AttachEndpointRequest { spec: Some(spec), port: Some(port), ..Default::default() };
    let refused = endpoints.attach_endpoint(request.clone()).await.unwrap_err();
    let text = refused.message();
    assert!(text.contains("/ports") && text.contains("No space left"), "{text}");
    // A port in memory needs no disk.
    request.port = None;
    endpoints.attach_endpoint(request).await.unwrap();
    let list = v1::ListEndpointsRequest::default();
    let attached = endpoints.list_endpoints(list).await.unwrap().into_inner().endpoints;
    assert_eq!(attached.len(), 1, "what was refused is attached nowhere");

    update(&manager, &node, |node| node.set_role(v1::Role::Manager)).await;
    until_complained(&second, "has not taken up its new role yet", "/state");
    disk.make_room();
    second.until_logged("the view is kept again");
    second.until_logged("this node is a manager now");

    assert_eq!(second.notified(), "READY=1");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.notified(), "STOPPING=1");
    assert!(second.exit().success(), "{}", second.log());
    disk.fill();
    second.restart();
    assert!(!second.exit().success());
    until_complained(&second, "cannot be written", "/incarnation");
    disk.make_room();
    second.restart();
    assert_eq!(second.notified(), "READY=1");
    assert_eq!(status(&second).await.role(), v1::Role::Manager);
}
