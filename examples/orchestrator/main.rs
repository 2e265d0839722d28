//! An orchestrator in a few lines: it starts processes in network namespaces as tasks of a service, on
//! three hosts, and replaces all of them while clients outside ask for the service without a pause.
//!
//! `cargo run --example orchestrator`, no root needed. Exits with 1 if one request fails.
//!
//! ```text
//!  clients ── wire ──┬── node1 ── task            any node's port 8080 leads to any task,
//!                    ├── node2 ── task, task      which sees the client's own address
//!                    └── node3 ── task
//! ```
//!
//! - `cluster`: the hosts and their daemons, which an operator has already
//! - `load`: the clients
//! - `server`: what a task runs
//!
//! This file is what an orchestrator adds: seven commands of `overlayctl`.

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

mod cluster;
mod load;
mod server;

use std::{collections::VecDeque, env, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    cluster::Cluster,
    lab::{self, Namespace, Running},
    until::until,
};
use serde_json::Value;

use self::load::Load;

/// Where every node answers for the service, and where its tasks listen.
const PUBLISHED: u16 = 8080;
const PORT: u16 = 80;
/// Has this program run in the namespaces that it is in.
const INSIDE: &str = "inside";
/// Longest wait for a task to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is a task: it has a network namespace, and an endpoint in there.
struct Task {
    node: usize,
    endpoint: String,
    _process: Running,
    _netns: Namespace,
}

/// The service `web` and its tasks, oldest first.
struct Orchestrator {
    cluster: Cluster,
    tasks: VecDeque<Task>,
    started: usize,
}

impl Orchestrator {
    fn new(cluster: Cluster) -> Result<Self> {
        let publish = format!("{PUBLISHED}:{PORT}");
        cluster.hosts[0].ctl(&["service", "create", "--name", "web", "--publish", &publish])?;
        Ok(Self { cluster, tasks: VecDeque::new(), started: 0 })
    }

    /// Starts a task on the next node, and returns when it takes requests: its probe has succeeded.
    fn start(&mut self, version: &str) -> Result<()> {
        let node = self.started % self.cluster.hosts.len();
        self.started += 1;
        let netns = Namespace::new()?;
        let program = env::current_exe()?;
        let program = program.to_str().context("a path in UTF-8")?;
        let process = netns.spawn(&[program, server::SERVE, version])?;
        let (host, name) = (&self.cluster.hosts[node], format!("web{}", self.started));
        let flags = ["--service", "web", "--health", "http:80/", "--health-interval", "100ms"];
        let endpoint = host.attach("ingress", &name, &netns.path(), &flags)?;
        until("the task is ready", PATIENCE, || {
            let shown = host.ctl(&["--format", "json", "endpoint", "inspect", &endpoint])?;
            let shown: Value = serde_json::from_str(&shown)?;
            ensure!(shown[0]["readiness"] == "ready", "{shown}");
            Ok(())
        })?;
        self.tasks.push_back(Task { node, endpoint, _process: process, _netns: netns });
        Ok(())
    }

    /// Ends the oldest task: first it gets no new connections, then it has none, then it is no more.
    fn stop(&mut self) -> Result<()> {
        let task = self.tasks.pop_front().context("a task")?;
        let host = &self.cluster.hosts[task.node];
        host.ctl(&["endpoint", "drain", "--wait=5s", &task.endpoint])?;
        host.ctl(&["endpoint", "detach", &task.endpoint]).map(drop)
    }

    /// As many tasks as that: new ones are of this version.
    fn scale(&mut self, tasks: usize, version: &str) -> Result<()> {
        self.cluster.hosts[0].ctl(&["service", "scale", &format!("web={tasks}")])?;
        while self.tasks.len() < tasks {
            self.start(version)?;
        }
        while self.tasks.len() > tasks {
            self.stop()?;
        }
        Ok(())
    }

    /// Replaces all tasks, one after the other: the new one serves before the old one goes.
    fn update(&mut self, version: &str) -> Result<()> {
        for _ in 0..self.tasks.len() {
            self.start(version)?;
            self.stop()?;
        }
        Ok(())
    }
}

fn run() -> Result<()> {
    println!("Three hosts, a cluster, a service `web` that publishes port {PUBLISHED}.");
    let mut web = Orchestrator::new(cluster::start()?)?;
    web.scale(3, "v1")?;
    let load = Load::start(&web.cluster)?;
    println!("3 tasks serve; clients ask all nodes by turns.");
    for tasks in [10, 2, 3] {
        web.scale(tasks, "v1")?;
        println!("Scaled to {tasks} tasks: {}", load.so_far());
    }
    web.update("v2")?;
    println!("Rolled out v2: {}", load.so_far());
    let told = load.end()?;
    println!("In all: {told}");
    ensure!(told.failed.is_empty(), "requests failed, the first one: {}", told.failed[0]);
    ensure!(told.versions.contains("v2"), "v2 was never seen");
    println!("Every task saw {}, the clients' own address.", load::CLIENT);
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, server::SERVE, version] => server::serve(version),
        [_, INSIDE] => lab::isolated(run),
        _ => {
            cluster::build()?;
            run_inside()
        }
    }
}

/// Runs this program again, as root of namespaces that end with it, whatever ends it.
fn run_inside() -> Result<()> {
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--"]);
    let status = unshare.arg(env::current_exe()?).arg(INSIDE).status();
    let status = status.context("could not start `unshare` (package util-linux)")?;
    ensure!(status.success(), "the orchestrator: {status}");
    Ok(())
}
