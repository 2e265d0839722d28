//! Who is asked about names of others.
//!
//! | set | `/etc/resolv.conf` of the host | asked |
//! |---|---|---|
//! | `dns-upstream` | whatever it says | those that are set |
//! | nothing | some that endpoints can reach | these |
//! | nothing | none, as where systemd-resolved answers at 127.0.0.53 | those of `/run/systemd/resolve/resolv.conf` |
//! | nothing | none, and no such file | nobody: SERVFAIL |
//!
//! What the host reaches on its loopback is not there in the namespace that the question is asked from.

use core::{fmt, net::IpAddr, net::SocketAddr, str::FromStr};
use std::io;

use serde::{Deserialize, Serialize};

use super::resolv_conf::{HOST, RESOLVED, ResolvConf};

/// Port of name servers.
const PORT: u16 = 53;

/// A name server of others that endpoints can reach: an address, and a port if it is not 53.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upstream(SocketAddr);

impl Upstream {
    /// The one at this address, if another network namespace can reach it there.
    pub fn new(address: SocketAddr) -> Option<Self> {
        let reachable = match address.ip() {
            IpAddr::V4(ip) => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_link_local()
                    || ip.is_multicast()
                    || ip.is_broadcast())
            }
            IpAddr::V6(ip) => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_unicast_link_local()
                    || ip.is_multicast())
            }
        };
        (reachable && address.port() != 0).then_some(Self(address))
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT));
        let address = address.or_else(|_| text.parse()).map_err(|_| {
            format!("{text:?} is no name server's address, like 192.0.2.53 or [2001:db8::53]:5353")
        })?;
        Self::new(address).ok_or_else(|| {
            format!("{text:?} leads nowhere from an endpoint's namespace, where it is asked from")
        })
    }
}

impl TryFrom<String> for Upstream {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> Self {
        upstream.to_string()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == PORT { self.0.ip().fmt(f) } else { self.0.fmt(f) }
    }
}

/// Who is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Upstreams {
    asked: Vec<Upstream>,
    /// Where that is said.
    source: &'static str,
}

impl Upstreams {
    /// Those that are set, or those of the host's files.
    pub(super) fn find(set: &[Upstream]) -> io::Result<Self> {
        if !set.is_empty() {
            return Ok(Self { asked: set.to_vec(), source: "dns-upstream" });
        }
        Self::of_files(ResolvConf::read)
    }

    fn of_files(read: impl Fn(&str) -> io::Result<ResolvConf>) -> io::Result<Self> {
        for source in [HOST, RESOLVED] {
            let servers = read(source)?.servers;
            let addresses = servers.into_iter().map(|ip| SocketAddr::new(ip, PORT));
            let asked: Vec<_> = addresses.filter_map(Upstream::new).collect();
            if !asked.is_empty() {
                return Ok(Self { asked, source });
            }
        }
        Ok(Self::default())
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.asked.iter().map(|upstream| upstream.0)
    }

    /// Has the operator know.
    pub(super) fn tell(&self) {
        if self.asked.is_empty() {
            tracing::warn!(
                "endpoints can ask nobody about names of others: {HOST} names no server that they \
                 reach; set dns-upstream"
            );
        } else {
            let asked: Vec<_> = self.asked.iter().map(ToString::to_string).collect();
            tracing::info!(asked = asked.join(", "), source = self.source, "names of others");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s05_an_upstream_is_an_address_that_endpoints_reach() {
        for (text, address) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.0, address.parse().unwrap());
            assert_eq!(upstream.to_string(), text);
        }
        for text in ["", "dns.example", "127.0.0.53", "::1", "0.0.0.0", "fe80::1", "192.0.2.1:0"] {
            let error = text.parse::<Upstream>().unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn s05_the_hosts_servers_are_asked_unless_only_the_host_reaches_them() {
        let asked = |host: &'static str, resolved: &'static str| {
            let read = |path: &str| {
                let text = if path == HOST { host } else { resolved };
                Ok(ResolvConf::parse(text.as_bytes()))
            };
            let found = Upstreams::of_files(read).unwrap();
            let asked: Vec<_> = found.asked.iter().map(ToString::to_string).collect();
            (asked.join(" "), found.source)
        };
        let real = "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(asked(real, ""), ("192.0.2.1 2001:db8::1".to_owned(), HOST));
        assert_eq!(asked(stub, real), ("192.0.2.1 2001:db8::1".to_owned(), RESOLVED));
        assert_eq!(asked("nameserver ::1\nnameserver 192.0.2.9\n", real).0, "192.0.2.9");
        assert_eq!(asked(stub, stub), (String::new(), ""));
        assert_eq!(asked("", ""), (String::new(), ""));
    }

    #[test]
    fn r07_a_file_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let read = |_: &str| Err(io::ErrorKind::PermissionDenied.into());
        assert!(Upstreams::of_files(read).is_err());
    }
}
