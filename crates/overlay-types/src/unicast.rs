//! Which blocks endpoints can have addresses of.

use crate::{SpecError, Subnet};

/// Blocks that no endpoint's address may come from, with the reason (RFC 6890 registries).
const FORBIDDEN: [(&str, &str); 8] = [
    ("0.0.0.0/8", "\"this network\""),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast"),
    ("::/127", "the unspecified and the loopback address"),
    ("::ffff:0:0/96", "IPv4 addresses in IPv6 form"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast"),
];

/// Length of the longest prefix that leaves room for a gateway and an endpoint, in the family of
/// `subnet`.
pub const fn longest_prefix(subnet: Subnet) -> u8 {
    if subnet.is_ipv4() { 30 } else { 126 }
}

/// Refuses a block that is too small, or overlaps one that holds no unicast addresses; the error
/// calls it `field`.
pub fn check(field: &'static str, block: Subnet) -> Result<(), SpecError> {
    let longest = longest_prefix(block);
    if block.prefix_len() > longest {
        let reason =
            format!("it has no room for a gateway and an endpoint; /{longest} is the least");
        return Err(SpecError::new(field, block, reason));
    }
    for (forbidden, what) in FORBIDDEN {
        let forbidden: Subnet = forbidden.parse()?;
        if forbidden.overlaps(block) {
            let reason = format!("it overlaps {forbidden}, {what}");
            return Err(SpecError::new(field, block, reason));
        }
    }
    Ok(())
}
