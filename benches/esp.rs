//! Claim: ESP around the AEAD (header, padding, replay window, look-up of the association) costs at
//! most a quarter of the AEAD itself at 1400 bytes.
//!
//! One sample seals and opens a batch of packets in place; raw and ESP alternate, so that what else
//! the machine does hits both. The fastest sample of each counts.
#![expect(clippy::print_stdout, reason = "a bench reports")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::{hint::black_box, time::Instant};

use overlay_crypto::{
    aead::{AeadKey, KEY_LEN, PacketAead, PortableAead, RingAead},
    agreement::{KeyPair, Pair},
    esp::{HEADROOM, InboundSa, OutboundSa, SaId, SaKeys, SaTable, TAILROOM},
};
use overlay_types::{ClusterId, Epoch, NodeId};

/// Packets per sample: some 300 µs, less than a time slice.
const BATCH: u32 = 256;
/// Samples of each kind.
const SAMPLES: u32 = 400;
/// Associations in the table that a packet is looked up in.
const PEERS: u128 = 500;

fn main() -> anyhow::Result<()> {
    for size in [64, 1400] {
        let (mut raw, mut portable, mut esp) = (f64::MAX, f64::MAX, f64::MAX);
        let (mut ring_pair, mut portable_pair) = (Raw::<RingAead>::new(), Raw::new());
        let mut sealed = Sealed::new()?;
        for _ in 0..SAMPLES {
            raw = raw.min(sample(size, |buffer| ring_pair.there_and_back(buffer)));
            esp = esp.min(sample(size, |buffer| sealed.there_and_back(buffer)));
        }
        for _ in 0..SAMPLES / 10 {
            let pair: &mut Raw<PortableAead> = &mut portable_pair;
            portable = portable.min(sample(size, |buffer| pair.there_and_back(buffer)));
        }
        let target = if size == 1400 { "<= 1.25" } else { "" };
        println!("esp seal + open, {size} B\t{esp:.0}\tns\t");
        println!("raw ring seal + open, {size} B\t{raw:.0}\tns\t");
        println!("raw aes-gcm seal + open, {size} B\t{portable:.0}\tns\t");
        println!("esp : raw ring, {size} B\t{:.2}\tratio\t{target}", esp / raw);
    }
    Ok(())
}

/// Nanoseconds per packet.
fn sample(size: usize, mut there_and_back: impl FnMut(&mut [u8])) -> f64 {
    let mut buffer = vec![0x5A; HEADROOM + size + TAILROOM];
    let start = Instant::now();
    for _ in 0..BATCH {
        there_and_back(black_box(&mut buffer));
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
}

/// The AEAD alone.
struct Raw<A> {
    aead: A,
    counter: u64,
}

impl<A: PacketAead> Raw<A> {
    fn new() -> Self {
        Self { aead: A::new(&AeadKey::from_bytes([7; KEY_LEN])), counter: 0 }
    }

    fn there_and_back(&mut self, buffer: &mut [u8]) {
        self.counter += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        let end = buffer.len() - TAILROOM;
        let text = &mut buffer[HEADROOM..end];
        let tag = self.aead.seal(nonce, &nonce, text);
        assert!(self.aead.open(nonce, &nonce, text, &tag).is_ok());
    }
}

/// A sender and the table of its receiver.
struct Sealed {
    outbound: OutboundSa,
    table: SaTable,
}

impl Sealed {
    fn new() -> anyhow::Result<Self> {
        let own = KeyPair::from_entropy(&[1; 32]);
        let mut table = SaTable::new();
        let mut last: Option<SaKeys> = None;
        for number in 0..PEERS {
            let (cluster, epoch) = (ClusterId::from_u128(1), Epoch::new(1));
            let (me, peer) = (NodeId::from_u128(PEERS), NodeId::from_u128(number));
            let mut entropy = [2; 32];
            entropy[..16].copy_from_slice(&number.to_be_bytes());
            let public = KeyPair::from_entropy(&entropy).public();
            let keys = own.derive(&Pair { cluster, epoch, own: me, peer }, public)?.inbound;
            table.insert(SaId { peer, epoch, spi: keys.spi }, InboundSa::new(&keys))?;
            last = Some(keys);
        }
        let keys = last.ok_or_else(|| anyhow::anyhow!("there is at least one peer"))?;
        Ok(Self { outbound: OutboundSa::new(&keys), table })
    }

    fn there_and_back(&mut self, buffer: &mut [u8]) {
        let end = buffer.len() - TAILROOM;
        let packet = self.outbound.seal(buffer, HEADROOM..end).expect("there is room");
        assert!(self.table.open(&mut buffer[packet]).is_ok());
    }
}
