//! How a node's kernel dataplane is set up.

use core::net::IpAddr;
use std::path::PathBuf;

use super::xfrm::{Esp, holder::Holder};

/// What a node's kernel dataplane is started with.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// Directory of the namespaces' files. What a restart takes over is what it finds there, so it
    /// has to be on a file system that is empty after a boot, like `/run/overlayd/netns`.
    pub directory: PathBuf,
    /// Source address of VXLAN datagrams.
    pub data_path: IpAddr,
    /// UDP port of VXLAN.
    pub port: u16,
    /// How encrypted networks are sealed; `None` when the kernel cannot: then they are refused.
    pub esp: Option<Esp>,
    /// Who has ESP in UDP taken in while this process is down; `None`: nobody, so that encrypted networks
    /// receive nothing then.
    pub holder: Option<Holder>,
    /// A file that is there while there may be associations or policies of this process, for whoever is to
    /// remove what it left: another process's look the same.
    pub trace: Option<PathBuf>,
}

impl KernelConfig {
    /// Namespaces in `directory`, VXLAN from `data_path` on port 4789, no encrypted networks.
    pub fn new(directory: impl Into<PathBuf>, data_path: IpAddr) -> Self {
        let directory = directory.into();
        Self { directory, data_path, port: 4789, esp: None, holder: None, trace: None }
    }
}
