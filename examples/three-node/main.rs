//! Three complete nodes in one process, with the real ports on 127.0.0.1, .2 and .3: they form a
//! cluster, guests with TCP/IP stacks of their own talk across it, keys rotate, nodes die.
//!
//! `cargo run --example three-node`, no root needed. Exits with 1 if a step fails.
//!
//! ```text
//!   steps ──gRPC on unix sockets──► node1, node2, node3 ◄──UDP 4789, 4500──► each other
//!     │                               ▲ memory ports        │ every datagram
//!     └──ping, TCP, numbered UDP──► guests                  └──► wire: counts, markers, pcap
//! ```
//!
//! - `steps`: what happens, in order; read these first
//! - `demo`: the nodes, the guests on them, calls that several steps make
//! - `lab`: a node that starts, dies and starts again
//! - `guest`: a smoltcp stack behind a memory port
//! - `names`, `wire`, `keys`: DNS questions, what is on the wire, keys for tshark
//! - `story`: what is printed

mod demo;
mod guest;
mod keys;
mod lab;
mod names;
mod steps;
mod story;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Parser;

use crate::{demo::Demo, lab::LabNode, story::Story};

#[derive(Parser)]
struct Args {
    /// Write what crosses between the nodes to FILE, for Wireshark or tshark; and the keys of the
    /// encrypted network to FILE.keys
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Leave it running after the last step, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut story = Story::begin("Three nodes on one overlay: 127.0.0.1, 127.0.0.2, 127.0.0.3.");
    let outcome = run(&mut story, &args).await;
    if let Err(error) = &outcome {
        story.end(Err(error));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(story: &mut Story, args: &Args) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("three-node-").tempdir()?;
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let node = LabNode::start(folder.path(), number).await;
        nodes.push(node.with_context(|| format!("node{number} does not start"))?);
    }
    let mut demo = Demo::new(nodes);
    if let Some(path) = &args.pcap {
        demo.wire.record(path)?;
    }
    // Whoever interrupts a run gets its folder removed all the same.
    let outcome = tokio::select! {
        outcome = steps::run(story, &mut demo) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    if outcome.is_ok() {
        story.end(Ok(()));
        if args.keep {
            keep(story, &mut demo).await?;
        }
    }
    if let Some(path) = &args.pcap {
        save(story, &mut demo, path).await?;
    }
    outcome?;
    demo.stop().await
}

/// Leaves all three nodes running until Ctrl-C.
async fn keep(story: &Story, demo: &mut Demo) -> Result<()> {
    for place in 0..demo.nodes.len() {
        if !demo.nodes[place].runs() {
            demo.revive(place).await?;
        }
    }
    story.tell("");
    story.tell("All three nodes run until Ctrl-C. From another terminal:");
    for node in &demo.nodes {
        let socket = node.socket().display();
        story.tell(format!("  cargo run -p overlayctl -- --socket {socket} node ls"));
    }
    story.tell("Also: network ls, service inspect web, endpoint ls, key status, key rotate.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Completes the capture, and puts the keys beside it.
async fn save(story: &Story, demo: &mut Demo, path: &Path) -> Result<()> {
    demo.keep_keys().await?;
    demo.wire.finish()?;
    let keys = path.with_added_extension("keys");
    demo.keys.save(&keys)?;
    let (path, keys) = (path.display(), keys.display());
    story.tell("");
    story.tell(format!("{path} has what crossed. To read the encrypted network too:"));
    story.tell(format!("  cp {keys} ~/.config/wireshark/esp_sa"));
    story.tell(format!(
        "  tshark -r {path} -o esp.enable_encryption_decode:TRUE -d udp.port==4788,vxlan"
    ));
    Ok(())
}
