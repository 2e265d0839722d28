//! What was on the wire while guests said something that can be recognised.

use anyhow::{Result, ensure};

use crate::{demo::Demo, story::Story};

const PLAIN_MARKER: &str = "said-in-the-open-";
const SEALED_MARKER: &str = "said-in-secret-";
/// Octets that each pair of guests exchanges, there and back.
const TALK: usize = 100_000;

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    story.step("On the wire: what was encrypted is nowhere in clear");
    demo.wire.search(&[PLAIN_MARKER, SEALED_MARKER]);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (plain, sealed) = (&demo.plain, &demo.sealed);
        plain[from].transfer(plain[to].address(), TALK, PLAIN_MARKER).await?;
        sealed[from].transfer(sealed[to].address(), TALK, SEALED_MARKER).await?;
    }
    let (ports, markers) = demo.wire.counts();
    demo.wire.search(&[]);
    for (port, count) in &ports {
        let what = match port {
            4789 => "VXLAN, UDP port 4789",
            4500 => "ESP, UDP port 4500",
            _ => "another port",
        };
        let value = format!("{} datagrams, {} octets", count.datagrams, count.octets);
        story.measured(what, value);
    }
    ensure!(ports.keys().eq(&[4500, 4789]), "datagrams to other ports: {ports:?}");
    for (marker, what) in [(PLAIN_MARKER, "plain"), (SEALED_MARKER, "encrypted")] {
        let count = format!("{} datagrams", markers[marker]);
        story.measured(format!("\"{marker}\", said on the {what} network, seen in"), count);
    }
    ensure!(markers[PLAIN_MARKER] > 0, "the search finds nothing even where it must");
    ensure!(markers[SEALED_MARKER] == 0, "the encrypted network's payload was seen in clear");
    Ok(())
}
