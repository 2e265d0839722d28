//! Connections of the host to ports that are published no more: they end, so that a client in UDP does not
//! stick to what is gone.

use overlay_types::{Protocol, Subnet};

use super::super::{
    conntrack::{self, Flow},
    netlink::RouteSocket,
    netns::NetNs,
    nft::{
        packet,
        publish::{HostPort, Ports},
    },
};
use crate::Error;

/// Ends connections to virtual addresses that none of these ports leads to.
pub(super) fn end(host: &NetNs, virtuals: &[Subnet], ports: &Ports) -> Result<(), Error> {
    let failed = |source| Error::Kernel {
        step: "end",
        subject: "connections to ports that are published no more".into(),
        source,
    };
    let socket = host.enter(RouteSocket::open_netfilter).map_err(|e| failed(e.into()))?;
    let is_over = |flow: &Flow| {
        let is_virtual = virtuals.iter().any(|subnet| subnet.contains(flow.from.0));
        is_virtual && !is_published(flow, ports)
    };
    let ended = conntrack::end(&socket, None, is_over).map_err(failed)?;
    if ended > 0 {
        tracing::debug!(ended, "connections to ports that are published no more end");
    }
    Ok(())
}

fn is_published(flow: &Flow, ports: &Ports) -> bool {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let Some(protocol) = all.into_iter().find(|p| packet::protocol(*p) == flow.protocol) else {
        return false;
    };
    let (address, port) = flow.to;
    let any = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    [Some(address), Some(any), None].into_iter().any(|address| {
        let target = ports.get(&HostPort { protocol, address, port });
        target.is_some_and(|target| {
            target.addresses.contains(flow.from.0) && target.port == flow.from.1
        })
    })
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use overlay_types::Addresses;

    use super::*;
    use crate::kernel::nft::publish::Target;

    #[test]
    fn s10_a_flow_is_over_when_no_port_leads_to_where_it_goes() {
        let addresses = Addresses { v4: Some([198, 19, 0, 9].into()), v6: None };
        let target = Target { addresses, port: 80 };
        let host = HostPort { protocol: Protocol::Tcp, address: None, port: 8080 };
        let bound = HostPort { address: Some([192, 0, 2, 7].into()), port: 8081, ..host };
        let ports = Ports::from([(host, target), (bound, target)]);
        let check = |protocol, to: (u8, u16), by: (u8, u16)| {
            let to = (IpAddr::from([192, 0, 2, to.0]), to.1);
            let from = (IpAddr::from([198, 19, 0, by.0]), by.1);
            is_published(&Flow { protocol, to, from }, &ports)
        };
        assert!(check(6, (1, 8080), (9, 80)) && check(6, (7, 8081), (9, 80)));
        assert!(!check(17, (1, 8080), (9, 80)), "another protocol");
        assert!(!check(6, (1, 8081), (9, 80)), "another address of the host");
        assert!(!check(6, (1, 8080), (8, 80)), "the service that had the port before");
        assert!(!check(6, (1, 8080), (9, 81)), "the target before");
    }
}
