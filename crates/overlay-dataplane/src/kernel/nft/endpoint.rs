//! Published ports on an endpoint's own overlay addresses, in its namespace (S16): `8080:80` answers
//! on port 8080 there too.
//!
//! The port leads to the same address, so what the gateway has translated already, for the endpoint's
//! address on the bridge, is not translated twice.

use overlay_types::{Addresses, Protocol};

use super::{
    publish::{self, HostPort, Ports, Target},
    table::{Family, Table, TableId},
};

/// The table's name.
pub fn table_id() -> TableId {
    TableId::new(Family::Inet, "overlay_endpoint")
}

/// The table for what the endpoints of a namespace publish: their addresses, protocol, published port
/// and target. `None` when no port is another one than its target.
pub fn table(
    published: impl IntoIterator<Item = (Addresses, Protocol, u16, u16)>,
) -> Option<Table> {
    let mut ports = Ports::new();
    for (addresses, protocol, port, target) in published {
        for address in addresses.iter().filter(|_| port != target) {
            let host = HostPort { protocol, address: Some(address), port };
            let addresses = [address].into_iter().collect();
            // Of a port that leads elsewhere on each address of the host, the first one counts.
            ports.entry(host).or_insert(Target { addresses, port: target });
        }
    }
    if ports.is_empty() {
        return None;
    }
    let comment = Some("overlay networks: published ports".into());
    let mut table = Table { comment, ..Table::default() };
    publish::add_to(&mut table, &ports);
    Some(table)
}
