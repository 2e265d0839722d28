//! The keys of the encrypted network, as tshark takes them to decrypt a capture.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr, path::Path};

use anyhow::{Context, Result};

use crate::lab::LabNode;

/// Every key that was in use, a line each: the format of Wireshark's table `esp_sa`.
#[derive(Debug, Default)]
pub(crate) struct KeyLog(BTreeSet<String>);

impl KeyLog {
    /// Adds what a node has now.
    pub(crate) async fn add(&mut self, node: &LabNode) -> Result<()> {
        let sas = node.handle.security_associations().await?;
        for sa in sas.inbound.values() {
            let octets = sa.keys.key.as_bytes().iter().chain(&sa.keys.salt.0);
            let line = line(sa.address, node.address, sa.keys.spi.get(), octets)?;
            self.0.insert(line);
        }
        Ok(())
    }

    /// Writes them down.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text: String = self.0.iter().map(String::as_str).collect();
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }
}

fn line<'a>(
    from: IpAddr,
    to: IpAddr,
    spi: u32,
    octets: impl Iterator<Item = &'a u8>,
) -> Result<String> {
    let mut key = String::new();
    for octet in octets {
        write!(key, "{octet:02x}")?;
    }
    let cipher = "AES-GCM with 16 octet ICV [RFC4106]";
    Ok(format!(
        "\"IPv4\",\"{from}\",\"{to}\",\"{spi:#010x}\",\"{cipher}\",\"0x{key}\",\"NULL\",\"\",\
         \"64-bit\",\"0\"\n"
    ))
}
