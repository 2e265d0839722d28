//! What this host routes: networks must not overlap it.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_api::v1;
use overlay_types::Subnet;
use prost::Message;

/// How long routes that were read are good for: reading them costs more than a write does.
const KEPT: Duration = Duration::from_secs(1);

static LAST: Mutex<Option<Routes>> = Mutex::new(None);

/// What was read last.
struct Routes {
    read: Instant,
    subnets: Vec<Subnet>,
    /// The same as a `CreateNetworkRequest`, and as an `UpdateNetworkRequest`.
    in_create: Bytes,
    in_update: Bytes,
}

/// The host's routes of both families, without default routes, multicast and link-local ones, as
/// they were within the last second.
pub(crate) fn of_this_host() -> Vec<Subnet> {
    last(|routes| routes.subnets.clone())
}

/// The same as bytes of a `CreateNetworkRequest`, which may follow those of another one.
pub(crate) fn in_create_network() -> Bytes {
    last(|routes| routes.in_create.clone())
}

/// The same for an `UpdateNetworkRequest`.
pub(crate) fn in_update_network() -> Bytes {
    last(|routes| routes.in_update.clone())
}

#[expect(clippy::disallowed_methods, reason = "the shell that reads the host's routes")]
fn last<T>(look: impl FnOnce(&Routes) -> T) -> T {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = last.take().filter(|routes| routes.read.elapsed() < KEPT);
    look(last.insert(kept.unwrap_or_else(|| Routes::of(read(), Instant::now()))))
}

impl Routes {
    fn of(subnets: Vec<Subnet>, read: Instant) -> Self {
        let host_routes: Vec<_> = subnets.iter().map(ToString::to_string).collect();
        let create =
            v1::CreateNetworkRequest { host_routes: host_routes.clone(), ..Default::default() };
        let update = v1::UpdateNetworkRequest { host_routes, ..Default::default() };
        let (in_create, in_update) = (create.encode_to_vec().into(), update.encode_to_vec().into());
        Self { read, subnets, in_create, in_update }
    }
}

fn read() -> Vec<Subnet> {
    // A file that is not there has no routes: the family is switched off.
    let v4 = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let mut routes: Vec<Subnet> = parse_v4(&v4).chain(parse_v6(&v6)).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

/// Columns 2 and 8 of `/proc/net/route`: destination and mask in the host's byte order.
fn parse_v4(text: &str) -> impl Iterator<Item = Subnet> {
    text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let destination = u32::from_str_radix(columns.nth(1)?, 16).ok()?;
        let mask = u32::from_str_radix(columns.nth(5)?, 16).ok()?;
        let net = Ipv4Net::with_netmask(swap(destination), swap(mask)).ok()?;
        let useful = net.prefix_len() > 0 && !net.addr().is_link_local();
        useful.then(|| Subnet::containing(IpNet::V4(net)))
    })
}

fn swap(word: u32) -> Ipv4Addr {
    Ipv4Addr::from(word.to_ne_bytes())
}

/// Columns 1 and 2 of `/proc/net/ipv6_route`: destination and length of its prefix.
fn parse_v6(text: &str) -> impl Iterator<Item = Subnet> {
    text.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        let destination = u128::from_str_radix(columns.next()?, 16).ok()?;
        let length = u8::from_str_radix(columns.next()?, 16).ok()?;
        let net = Ipv6Net::new(Ipv6Addr::from_bits(destination), length).ok()?;
        let address = net.addr();
        let useful = length > 0
            && !address.is_unicast_link_local()
            && !address.is_multicast()
            && !address.is_loopback();
        useful.then(|| Subnet::containing(IpNet::V6(net)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn n02_routes_are_read_as_the_kernel_shows_them() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let shown: Vec<String> = parse_v4(v4).map(|s| s.to_string()).collect();
        assert_eq!(shown, ["192.168.0.0/16"]);
        let v6 = "fd000009000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n\
                  fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n";
        let shown: Vec<String> = parse_v6(v6).map(|s| s.to_string()).collect();
        assert_eq!(shown, ["fd00:9::/64"]);
    }
}
