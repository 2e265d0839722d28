//! Settings of the host below `/proc/sys/net`.
//!
//! What is turned on stays on: others may rely on it by the time that the last container goes, and
//! nobody can tell.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::super::{netns::NetNs, nft::gateway::PortMode};
use crate::Error;

const IPV4_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// What is read of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Settings {
    /// The host forwards IPv4, IPv6.
    pub(in crate::kernel) forwards: [bool; 2],
    pub(in crate::kernel) mode: PortMode,
}

/// Reads the settings of a namespace. Where one is missing, the kernel does not do that.
pub(in crate::kernel) fn read(host: &NetNs) -> Result<Settings, Error> {
    let is_on = |path: &str| fs::read(path).is_ok_and(|text| text.first() == Some(&b'1'));
    let filtered = |family| is_on(&format!("/proc/sys/net/bridge/bridge-nf-call-{family}"));
    let read = host.enter(|| {
        Ok(Settings {
            forwards: [is_on(IPV4_FORWARD), is_on(&format!("{IPV6_CONF}/all/forwarding"))],
            mode: PortMode::new(filtered("iptables"), filtered("ip6tables")),
        })
    });
    read.map_err(|source| failed("read", Path::new("/proc/sys/net"), source))
}

/// Has the host forward.
pub(in crate::kernel) fn forward(host: &NetNs, ipv6: bool) -> Result<(), Error> {
    let path = if ipv6 { format!("{IPV6_CONF}/all/forwarding") } else { IPV4_FORWARD.to_owned() };
    let written = host.enter(|| {
        super::super::call()?;
        if ipv6 {
            keep_router_advertisements()?;
        }
        fs::write(&path, "1")
    });
    written.map_err(|source| failed("change", Path::new(&path), source))
}

/// A host that forwards IPv6 ignores routers that tell of themselves, unless it is told not to: it
/// would lose its own default route.
fn keep_router_advertisements() -> io::Result<()> {
    for entry in fs::read_dir(IPV6_CONF)? {
        let path = entry?.path();
        if path.ends_with("all") || path.ends_with("default") {
            continue;
        }
        // A device that goes meanwhile needs nothing.
        let value = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
        if value("accept_ra").trim() == "1" && value("forwarding").trim() == "0" {
            let _ = fs::write(path.join("accept_ra"), "2");
        }
    }
    Ok(())
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Setting { step, path: PathBuf::from(path), source }
}
