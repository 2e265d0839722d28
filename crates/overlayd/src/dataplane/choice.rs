//! Which dataplane a node runs, and why: what it was told, what the host has, who else is here.

use overlay_dataplane::{
    kernel::{capability, xfrm::holder::Holder},
    user,
};
use overlay_types::{Capabilities, DataplaneKind, Encapsulation, FeatureLevel, HostReport};

use super::{
    Carriers, has_left,
    seat::{Part, Seat},
};
use crate::{Config, NodeError, config::DataplaneSetting};

/// The choice, which holds for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) carriers: Carriers,
    /// What keeps this host from having all of it in the kernel, and how to get it.
    pub(crate) missing: Vec<String>,
    /// Who has ESP taken in while the process is down.
    pub(crate) holder: Option<Holder>,
    _seat: Option<Seat>,
}

impl Choice {
    /// Tries what the host has, unless it does not matter.
    pub(crate) fn make(config: &Config) -> Result<Self, NodeError> {
        let opens_raw = user::try_raw_socket().is_ok();
        if config.dataplane == DataplaneSetting::User {
            tracing::info!(dataplane = %DataplaneKind::User, reason = "as set", "dataplane chosen");
            let kind = DataplaneKind::User;
            let carriers = Carriers { plain: kind, encrypted: kind, opens_raw };
            return Ok(Self { carriers, missing: Vec::new(), holder: None, _seat: None });
        }
        let mut missing: Vec<String> =
            capability::probe().iter().map(ToString::to_string).collect();
        let seat = match Seat::take(Part::KernelDataplane) {
            Ok(seat) => Some(seat),
            Err(error) => {
                missing.push(format!(
                    "the kernel dataplane of this network namespace: {error}; stop the other \
                     overlayd, or give it a network namespace of its own"
                ));
                // The other one may be this one's last run, and its networks be in use.
                if has_left(&config.netns_dir()) {
                    return Err(NodeError::NoKernelDataplane { missing });
                }
                None
            }
        };
        let seat = seat.filter(|_| missing.is_empty());
        let kind = match (config.dataplane, &seat) {
            (_, Some(_)) => DataplaneKind::Kernel,
            (DataplaneSetting::Auto, None) => DataplaneKind::User,
            _ => return Err(NodeError::NoKernelDataplane { missing }),
        };
        let setting = config.dataplane;
        if missing.is_empty() {
            tracing::info!(dataplane = %kind, %setting, reason = "nothing is missing", "dataplane chosen");
        } else {
            let reason = missing.join("; ");
            tracing::info!(dataplane = %kind, %setting, reason, "dataplane chosen");
        }
        let encrypted = if kind == DataplaneKind::User {
            kind
        } else if let Some(lacking) = capability::probe_esp() {
            tracing::info!(reason = %lacking, "encrypted networks are carried in user space");
            missing.push(lacking.to_string());
            DataplaneKind::User
        } else {
            DataplaneKind::Kernel
        };
        let carriers = Carriers { plain: kind, encrypted, opens_raw };
        shorten(&mut missing);
        Ok(Self { carriers, missing, holder: None, _seat: seat })
    }
}

impl Carriers {
    /// What a node with these can do, on its host as it is now, in a cluster whose ESP travels so.
    pub(crate) fn capabilities(self, esp: Encapsulation) -> Capabilities {
        Capabilities {
            dataplane: self.plain,
            // By the kernel, or by the switch in user space beside it.
            encryption: self.carry(esp),
            ipv6: self.plain == DataplaneKind::User || host_has_ipv6(),
            level: FeatureLevel::OURS,
        }
    }
}

/// To what every node of the cluster is told of this one.
fn shorten(missing: &mut Vec<String>) {
    missing.truncate(HostReport::MAX_MISSING);
    for line in missing {
        line.truncate(HostReport::cut(line).len());
    }
}

/// The switch carries IPv6 without the host's.
fn host_has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n19_what_is_missing_is_short_enough_to_be_announced() {
        let mut missing = vec!["ü".repeat(HostReport::MAX_LEN + 1); HostReport::MAX_MISSING + 1];
        missing[1] = "short".to_owned();
        shorten(&mut missing);
        missing[2].insert(0, 'u');
        shorten(&mut missing);
        let half = "ü".repeat(HostReport::MAX_LEN / 2);
        assert_eq!(missing[..2], [half, "short".to_owned()]);
        // No character is cut in two.
        assert_eq!(missing[2].len(), HostReport::MAX_LEN - 1);
        assert_eq!(missing.len(), HostReport::MAX_MISSING);
    }
}
