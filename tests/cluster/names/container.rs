//! A network namespace as a container is given one.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use overlay_api::v1;
use overlay_testkit::lab::Namespace;
use tokio::task::block_in_place;

use crate::lab::Lab;

pub(super) struct Container {
    pub(super) netns: Arc<Namespace>,
    /// A path that leads to it.
    path: PathBuf,
}

impl Container {
    pub(super) fn new() -> Self {
        let netns = Arc::new(Namespace::new().unwrap());
        Self { path: netns.path(), netns }
    }

    /// The same one, as the namespace of a process.
    pub(super) fn through(&self, pid: u32) -> Self {
        Self { path: overlay_dataplane::kernel::of_process(pid), netns: Arc::clone(&self.netns) }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Attaches it to a network. Its interface is named after that.
    pub(super) async fn attach(
        &self,
        lab: &Lab,
        place: usize,
        network: &str,
        spec: v1::EndpointSpec,
    ) -> v1::AttachEndpointResponse {
        let netns = self.path.to_str().unwrap().to_owned();
        let namespace = Some(v1::endpoint_port::Namespace::Netns(netns));
        let port = Some(v1::EndpointPort { interface: network.to_owned(), namespace });
        let spec = Some(v1::EndpointSpec { network: network.to_owned(), ..spec });
        let request = v1::AttachEndpointRequest { spec, port, ..Default::default() };
        lab.nodes[place].handle.attach(request).await.unwrap()
    }

    /// What `dig` prints inside; `None` when nobody answers.
    pub(super) fn ask(&self, arguments: &str) -> Option<String> {
        let command = ["dig", "@127.0.0.11", "+tries=1", "+time=5"].into_iter();
        let command: Vec<_> = command.chain(arguments.split_whitespace()).collect();
        block_in_place(|| self.netns.run(&command)).ok()
    }

    /// The data of the answer, in order.
    pub(super) fn dig(&self, question: &str) -> Option<String> {
        let answer = self.ask(&format!("+short {question}"))?;
        let mut lines: Vec<_> = answer.lines().collect();
        lines.sort_unstable();
        Some(lines.join("\n"))
    }

    /// Nobody has the name server's port.
    pub(super) fn is_silent(&self) -> bool {
        self.netns.enter(|| std::net::UdpSocket::bind("127.0.0.11:53").is_ok())
    }

    /// What the node counts.
    pub(super) async fn status(&self, lab: &Lab, place: usize) -> HashMap<String, u64> {
        lab.nodes[place].counters().await
    }
}
