//! Valid input, as the seed of damage.

mod frames;

use crate::entry;
use frames::{FRAMES_FROM_MEMBER, FRAMES_FROM_PORT};

/// A VXLAN header of VNI 4097 (RFC 7348 §5).
const VXLAN: [u8; 8] = [0x08, 0, 0, 0, 0x00, 0x10, 0x01, 0];

/// Next header of UDP.
const UDP: u8 = 17;

/// One text for each grammar.
pub(crate) fn specs() -> Vec<Vec<u8>> {
    [
        "8000-8002:80-82/udp",
        "192.0.2.7:8080:80",
        "[2001:db8::7]:8080:80/sctp",
        "published=8080,target=80,protocol=tcp,mode=host,host_ip=::1",
        "10.0.9.0/24",
        "fd00:1::/64",
        "web-1.front_end",
        "02:42:0a:00:00:02",
        "4097",
        "mtu=1400",
        "10.0.9.0/24\n10.0.9.128/25\n10.0.9.1\nrouter=10.0.9.5",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Frames of the endpoint on this node.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    FRAMES_FROM_PORT.iter().map(|hex| bytes(hex)).collect()
}

/// Frames of the endpoint on another node, in VXLAN.
pub(crate) fn vxlan() -> Vec<Vec<u8>> {
    FRAMES_FROM_MEMBER.iter().map(|hex| [&VXLAN, &*bytes(hex)].concat()).collect()
}

/// Texts of ESP with trailer (RFC 4303 §2.4): the shortest padding, none, and the longest.
pub(crate) fn esp_texts() -> Vec<Vec<u8>> {
    let longest: Vec<u8> = (1..=u8::MAX).chain([u8::MAX, UDP]).collect();
    let padded = [b"seven b", &[1, 2, 3, 3, UDP][..]].concat();
    vec![[b"ten bytes.", &[0, UDP][..]].concat(), padded, [b"odd", &longest[..]].concat()]
}

/// Packets of ESP around payloads of several lengths.
pub(crate) fn esp() -> Vec<Vec<u8>> {
    [0, 1, 8, 64, 1400].map(|len| entry::seal(&vec![0x5a; len])).into()
}

/// Messages of every kind that a member sends.
pub(crate) fn gossip_messages() -> Vec<Vec<u8>> {
    entry::conversation()
}

/// The same, sealed.
pub(crate) fn gossip() -> Vec<Vec<u8>> {
    gossip_messages().iter().map(|message| entry::seal_message(message)).collect()
}

/// One name for each kind that has records.
pub(crate) fn dns_names() -> Vec<Vec<u8>> {
    ["web", "tasks.web", "WWW.front.", "web.1", "_8080._tcp.web", "20.1.0.10.in-addr.arpa"]
        .map(|name| name.as_bytes().to_vec())
        .into()
}

/// Queries (RFC 1035 §4.1): one with EDNS (RFC 6891 §6.1.2), one for a name of others.
pub(crate) fn dns_messages() -> Vec<Vec<u8>> {
    const EDNS: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
    let query = |additional: u8, labels: &[&str], kind: u8| {
        let mut message = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, additional];
        for label in labels {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.extend_from_slice(&[0, 0, kind, 0, 1]);
        message
    };
    let srv = query(1, &["_8080", "_tcp", "tasks", "web"], 33);
    let reverse = query(0, &["20", "1", "0", "10", "in-addr", "arpa"], 12);
    vec![
        query(0, &["Web", "front"], 1),
        [&*srv, &EDNS].concat(),
        reverse,
        query(0, &["example", "com"], 28),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hex digit") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
