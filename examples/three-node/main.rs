//! Three complete nodes in one process, with the real ports on 127.0.0.1, .2 and .3: they form a
//! cluster, guests with TCP/IP stacks of their own talk across it, keys rotate, nodes die.
//!
//! `cargo run --example three-node`, no root needed. Ends with an error if a step fails.

mod demo;
mod guest;
mod lab;
mod names;
mod steps;
mod story;
mod wire;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use crate::{demo::Demo, lab::LabNode, story::Story};

#[derive(Parser)]
struct Args {
    /// Write what crosses between the nodes to FILE, for Wireshark or tshark; and the keys of the
    /// encrypted network to FILE.keys.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Leave it running after the last step, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::Builder::new().prefix("three-node-").tempdir()?;
    let mut story = Story::begin("Three nodes on one overlay: 127.0.0.1, 127.0.0.2, 127.0.0.3.");
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let node = LabNode::start(folder.path(), number).await;
        nodes.push(node.with_context(|| format!("node{number} does not start"))?);
    }
    let mut demo = Demo::new(nodes);
    if let Some(path) = &args.pcap {
        demo.wire.record(path)?;
    }
    steps::cluster::run(&mut story, &mut demo).await.context("step 1 failed")?;
    steps::networks::run(&mut story, &mut demo).await.context("step 2 failed")?;
    steps::wire::run(&mut story, &mut demo).await.context("step 3 failed")?;
    story.end();
    demo.wire.finish()?;
    for node in &mut demo.nodes {
        node.stop().await?;
    }
    Ok(())
}
