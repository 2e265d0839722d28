//! The host's `resolv.conf`, and that of endpoints.

use core::{fmt::Write, net::IpAddr, str::FromStr};
use std::{
    fs::File,
    io::{self, ErrorKind, Read},
};

use resolv_conf::{Config, ScopedIp};
use serde::{Deserialize, Serialize};

use super::inside::RESOLVER;

/// What the host's own programs go by.
pub(super) const HOST: &str = "/etc/resolv.conf";
/// What systemd-resolved has heard of, where that file names only itself.
pub(super) const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// Bytes of such a file that are read: it has a few lines.
const MAX_FILE: u64 = 1 << 16;
/// Octets of the longest domain name.
const MAX_DOMAIN: usize = 253;

/// What matters of a `resolv.conf`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ResolvConf {
    /// Name servers that need no interface to be reached.
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<SearchDomain>,
}

impl ResolvConf {
    /// Reads a file. One that is not there says nothing.
    pub(super) fn read(path: &str) -> io::Result<Self> {
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self::parse(&text))
    }

    /// Lines that make no sense are passed over, as the C library does.
    pub(super) fn parse(text: &[u8]) -> Self {
        let (config, _) = Config::parse_with_errors(text);
        let search = config.get_last_search_or_domain();
        let search = search.filter_map(|domain| domain.parse().ok()).collect();
        let unscoped = |server: &ScopedIp| match server {
            ScopedIp::V4(ip) => Some(IpAddr::V4(*ip)),
            ScopedIp::V6(ip, None) => Some(IpAddr::V6(*ip)),
            ScopedIp::V6(_, Some(_)) => None,
        };
        Self { servers: config.nameservers.iter().filter_map(unscoped).collect(), search }
    }
}

/// A domain that names without dots are tried in, too.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SearchDomain(String);

impl SearchDomain {
    /// The root: what is asked for is searched nowhere else.
    fn is_root(&self) -> bool {
        self.0 == "."
    }
}

impl FromStr for SearchDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if text.is_empty() || text.len() > MAX_DOMAIN || !text.bytes().all(good) {
            return Err(format!(
                "{text:?} is no domain to search, like example.com, or . for none"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SearchDomain {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SearchDomain> for String {
    fn from(domain: SearchDomain) -> Self {
        domain.0
    }
}

/// The `resolv.conf` of endpoints: the domains that are set, or the host's. A name is asked for as it
/// stands first (`ndots:0`), because names of services have no dots.
pub(super) fn for_endpoints(set: &[SearchDomain]) -> String {
    let search = if set.is_empty() {
        // A host whose file cannot be read searches nowhere.
        ResolvConf::read(HOST).unwrap_or_default().search
    } else {
        set.to_vec()
    };
    text(&search)
}

fn text(search: &[SearchDomain]) -> String {
    let mut text = format!("nameserver {RESOLVER}\n");
    if !search.is_empty() && !search.iter().any(SearchDomain::is_root) {
        text.push_str("search");
        for SearchDomain(domain) in search {
            // A string takes all that is written.
            let _ = write!(text, " {domain}");
        }
        text.push('\n');
    }
    text.push_str("options ndots:0\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s05_a_hosts_file_is_read_as_the_c_library_reads_it() {
        let file = b"# \xff\ndomain old.example\nnameserver 192.0.2.1 # first\nnameserver nonsense\n\
                     nameserver 2001:db8::1\nnameserver fe80::1%2\nsearch a.example b.example\nwrong\n";
        let read = ResolvConf::parse(file);
        let servers: Vec<_> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1", "2001:db8::1"]);
        let search: Vec<_> = read.search.iter().map(|domain| &domain.0).collect();
        assert_eq!(search, ["a.example", "b.example"]);
        assert_eq!(ResolvConf::read("/nowhere/resolv.conf").unwrap(), ResolvConf::default());
    }

    #[test]
    fn s05_endpoints_ask_their_name_server() {
        let domains = |list: &[&str]| -> Vec<SearchDomain> {
            list.iter().map(|domain| domain.parse().unwrap()).collect()
        };
        assert_eq!(
            text(&domains(&["a.example", "b.example"])),
            "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0\n"
        );
        for none in [vec![], domains(&["."])] {
            assert_eq!(text(&none), "nameserver 127.0.0.11\noptions ndots:0\n");
        }
        for wrong in ["", "a b", "a\nnameserver", &"a".repeat(254)] {
            assert!(wrong.parse::<SearchDomain>().is_err(), "{wrong}");
        }
    }
}
