//! The daemon: configuration, logs, signals; the rest is the library.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use overlayd::{Config, Node};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The overlay network daemon.
///
/// Settings come from the file, then from OVERLAYD_… in the environment, then from flags.
#[derive(Debug, Parser, Serialize)]
#[command(version)]
struct Flags {
    /// TOML file with settings
    #[arg(long, env = "OVERLAYD_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where certificate, view and state are kept
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Unix socket for local callers
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
    /// Name of the node; the host's name if not given
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Address to listen on
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_addr: Option<std::net::IpAddr>,
    /// Address that other nodes reach this one at
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise_addr: Option<std::net::IpAddr>,
    /// Address for data traffic
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_path_addr: Option<std::net::IpAddr>,
    /// What is logged, like info,overlay_gossip=debug
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let config = Config::load(flags.config.as_deref(), &flags)?;
    let filter = EnvFilter::try_new(&config.log).with_context(|| {
        format!("log {:?} is no filter like info,overlay_gossip=debug", config.log)
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let node = Node::builder(config).build()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    // Without a service manager there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    node.run(shutdown).await?;
    Ok(())
}
