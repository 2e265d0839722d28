//! Three hosts, each a network namespace with `overlayd` in it; all of it ends with this value.

use std::{
    env,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    hosts::{self, CABLE, Host, Programs, WIRE},
    lab::Namespace,
};

/// Where hosts have their folders, in the empty `/run` of this program.
const FOLDER: &str = "/run/orchestrator";

/// The hosts and their daemons.
pub(crate) struct Cluster {
    wire: Namespace,
    pub(crate) hosts: Vec<Host>,
    daemons: Vec<Child>,
}

impl Cluster {
    pub(crate) fn start() -> Result<Self> {
        let programs = Programs::in_folder(&folder()?);
        let wire = Namespace::new()?;
        hosts::lay_wire(&wire)?;
        let mut cluster = Self { wire, hosts: Vec::new(), daemons: Vec::new() };
        for number in 1..=3 {
            let (netns, folder) = (Namespace::new()?, Path::new(FOLDER));
            let host = Host::new(number, netns, &cluster.wire, folder, programs.clone())?;
            cluster.daemons.push(host.start()?);
            cluster.hosts.push(host);
        }
        for (host, daemon) in cluster.hosts.iter().zip(&mut cluster.daemons) {
            host.until_answers(daemon)?;
        }
        hosts::form(&cluster.hosts.iter().collect::<Vec<_>>(), &[])?;
        Ok(cluster)
    }

    /// A host on the wire that is in no cluster.
    pub(crate) fn outside(&self, address: Ipv4Addr) -> Result<Namespace> {
        let netns = Namespace::new()?;
        netns.connect(CABLE, &self.wire, "outside")?;
        self.wire.ip(&format!("link set outside master {WIRE}"))?;
        netns.ip(&format!("address add {address}/24 dev {CABLE}"))?;
        Ok(netns)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Builds the daemon and its command line where they are not there: to where this example is.
pub(crate) fn build() -> Result<()> {
    let folder = folder()?;
    let Programs { overlayd, overlayctl } = Programs::in_folder(&folder);
    if overlayd.exists() && overlayctl.exists() {
        return Ok(());
    }
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--locked", "--package", "overlayd", "--package", "overlayctl"]);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let folder = own.ancestors().nth(2).context("the example is in target/PROFILE/examples")?;
    Ok(folder.to_owned())
}
