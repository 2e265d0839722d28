//! Two nodes agree on keys, exchange an ESP packet, and rotate to new keys: `overlay-crypto` alone.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "an example is a shell: it reads the clock")]

use std::time::Instant;

use overlay_crypto::{
    esp::{HEADROOM, InboundSa, OutboundSa, SaTable, TAILROOM},
    rotation::{EpochStatus, NodeKeyStatus, Output, Rotation, RotationConfig},
};
use overlay_types::{ClusterId, Epoch, EpochState, NodeId};

struct Node {
    id: NodeId,
    rotation: Rotation,
    receive: SaTable,
    send: Option<OutboundSa>,
}

impl Node {
    /// Does what the rotation says; returns what is to be replicated to all nodes.
    fn pump(&mut self, now: Instant) -> anyhow::Result<Vec<NodeKeyStatus>> {
        let mut keys = Vec::new();
        loop {
            match self.rotation.poll_output(now) {
                Output::Publish { epoch, public } => {
                    keys.push(NodeKeyStatus { node: self.id, epoch, public, ready: false });
                }
                Output::InstallInbound { id, keys } => {
                    self.receive.insert(id, InboundSa::new(&keys))?;
                }
                Output::UseForSending { keys, .. } => self.send = Some(OutboundSa::new(&keys)),
                Output::StopSending { .. } => self.send = None,
                Output::Remove(id) => drop(self.receive.remove(id)),
                Output::Erased(epoch) => println!("  {}: epoch {epoch} is erased", self.id),
                Output::ReportReady { .. } | Output::RequestRotation(_) => {}
                Output::Wait(_) => return Ok(keys),
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let now = Instant::now();
    // From a cryptographic random source, in earnest.
    let mut nodes = [(1, [0x11; 32]), (2, [0x22; 32])].map(|(number, entropy)| {
        let (cluster, id) = (ClusterId::from_u128(7), NodeId::from_u128(number));
        let rotation = Rotation::new(cluster, id, RotationConfig::default(), entropy);
        Node { id, rotation, receive: SaTable::new(), send: None }
    });
    for number in 1..=2 {
        let epoch = Epoch::new(number);
        println!("epoch {epoch}");
        let mut published = Vec::new();
        for node in &mut nodes {
            let status = EpochStatus { epoch, state: EpochState::Active, drained: None };
            node.rotation.handle_epoch(status, now);
            published.extend(node.pump(now)?);
        }
        for node in &mut nodes {
            published.iter().try_for_each(|key| node.rotation.handle_key(*key, now))?;
            node.pump(now)?;
        }
        let frame = b"UDP header, VXLAN header, frame";
        let mut buffer = [&[0; HEADROOM], &frame[..], &[0; TAILROOM]].concat();
        let [one, two] = &mut nodes;
        let sender = one.send.as_mut().ok_or_else(|| anyhow::anyhow!("no key to send with"))?;
        let packet = sender.seal(&mut buffer, HEADROOM..HEADROOM + frame.len())?;
        println!("  on the wire, SPI {}: {:02x?}…", sender.spi(), &buffer[packet.clone()][..24]);
        let opened = two.receive.open(&mut buffer[packet.clone()]).map_err(anyhow::Error::msg)?;
        let text = String::from_utf8_lossy(&buffer[packet][opened.payload]).into_owned();
        println!("  from {} in epoch {}: {text:?}", opened.id.peer, opened.id.epoch);
    }
    for node in &mut nodes {
        node.rotation.handle_epoch_removed(Epoch::new(1));
        node.pump(now)?;
    }
    Ok(())
}
