//! Published ports on an endpoint's own overlay addresses, in its namespace (S16): `8080:80` answers
//! on port 8080 there too.
//!
//! The port leads to the same address, so what the gateway has translated already, for the endpoint's
//! address on the bridge, is not translated twice.

use core::net::IpAddr;

use overlay_types::{Addresses, Protocol};

use super::{
    publish::{self, HostPort, Ports, Target},
    table::{Family, Table, TableId},
};

/// The table's name.
pub fn table_id() -> TableId {
    TableId::new(Family::Inet, "overlay_endpoint")
}

/// The table for these addresses of an endpoint, and these ports: protocol, published, target.
pub fn table(addresses: impl IntoIterator<Item = IpAddr>, ports: &[(Protocol, u16, u16)]) -> Table {
    let mut published = Ports::new();
    for address in addresses {
        let mut addresses = Addresses::default();
        addresses.set(address);
        for (protocol, port, target) in ports {
            let host = HostPort { protocol: *protocol, address: Some(address), port: *port };
            published.insert(host, Target { addresses, port: *target });
        }
    }
    let comment = Some("overlay networks: published ports".into());
    let mut table = Table { comment, ..Table::default() };
    publish::add_to(&mut table, &published);
    table
}
