use hickory_proto::op::Query as WireQuery;
use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn ask(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.queries = vec![WireQuery::query(Name::from_ascii(name).unwrap(), kind)];
    message.edns = edns.map(|payload| {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        edns
    });
    message.to_vec().unwrap()
}

fn read(bytes: &[u8]) -> Query {
    Query::read(bytes, Transport::Udp).unwrap_or_else(|r| panic!("{r:?}"))
}

fn addresses(count: u16) -> Vec<Record> {
    (0..count).map(|n| Record::A(core::net::Ipv4Addr::from(0x0a00_0000 + u32::from(n)))).collect()
}

#[rstest]
#[case(None, Transport::Udp, 512)]
#[case(Some(100), Transport::Udp, 512)]
#[case(Some(1000), Transport::Udp, 1000)]
#[case(Some(u16::MAX), Transport::Udp, MAX_UDP_PAYLOAD.into())]
#[case(None, Transport::Tcp, u16::MAX.into())]
fn s05_replies_are_as_long_as_the_client_takes(
    #[case] edns: Option<u16>,
    #[case] transport: Transport,
    #[case] limit: usize,
) {
    let query = Query::read(&ask("Web.", RecordType::A, edns), transport).ok().unwrap();
    for count in [0, 1, 29, 30, 61, 62, 74, 75, 1000] {
        let bytes = query.reply(ResponseCode::NoError, addresses(count));
        assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
        let reply = Message::from_vec(&bytes).unwrap();
        let cut = reply.answers.len() < count.into();
        assert_eq!(reply.metadata.truncation, cut);
        // What is cut is filled as far as it goes: one more record is 16 octets.
        assert!(!cut || bytes.len() + 32 > limit, "{} of {limit}", bytes.len());
        assert_eq!(reply.edns.is_some(), edns.is_some());
        assert_eq!(reply.metadata.id, 0x1234);
        assert!(reply.metadata.recursion_desired && reply.metadata.authoritative);
        assert_eq!(reply.queries[0].name.to_ascii(), "Web.", "the case is echoed");
    }
}

#[test]
fn a_dot_inside_a_label_is_none_between_labels() {
    let bytes = ask(r"web\.front.", RecordType::A, None);
    assert_eq!(read(&bytes).question().name, "");
    assert_eq!(read(&ask("web.front.", RecordType::A, None)).question().name, "web.front");
}

#[test]
fn what_is_never_answered() {
    let unsupported = |bytes: &[u8], code| match Query::read(bytes, Transport::Udp) {
        Err(Rejected::Unsupported(reply)) => {
            let reply = Message::from_vec(&reply).unwrap();
            // By number: 16 is BADVERS and BADSIG.
            let code_of = |code: ResponseCode| u16::from(code);
            assert_eq!(reply.metadata.id, 0x1234);
            assert_eq!(code_of(reply.metadata.response_code), code_of(code));
        }
        _ => panic!("{bytes:?} was read"),
    };
    unsupported(&ask("web.", RecordType::AXFR, None), ResponseCode::Refused);
    let mut update = ask("web.", RecordType::A, None);
    update[2] |= 5 << 3;
    unsupported(&update, ResponseCode::NotImp);
    let mut chaos = ask("version.bind.", RecordType::TXT, None);
    let len = chaos.len();
    chaos[len - 1] = 3;
    unsupported(&chaos, ResponseCode::Refused);
    let mut version_1 = ask("web.", RecordType::A, Some(1232));
    let len = version_1.len();
    version_1[len - 5] = 1;
    unsupported(&version_1, ResponseCode::BADVERS);
}

#[rstest]
#[case::empty(b"", None)]
#[case::short(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00", None)]
#[case::reply(b"\x12\x34\x81\x80\x00\x00\x00\x00\x00\x00\x00\x00", None)]
#[case::no_question(b"\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", Some(0x81))]
#[case::no_room_for_it(b"\x12\x34\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00", Some(0x80))]
#[case::label_too_long(
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x7fweb\x00\x00\x01\x00\x01",
    Some(0x81)
)]
// The name points at itself (hickory-dns issue 2210).
#[case::loops(
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",
    Some(0x81)
)]
#[case::cut(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00", Some(0x81))]
fn malformed(#[case] bytes: &[u8], #[case] flags: Option<u8>) {
    let rejected = Query::read(bytes, Transport::Udp).err().unwrap();
    let expected = flags.map_or(Rejected::Silently, |flags| {
        Rejected::Malformed(vec![0x12, 0x34, flags, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    });
    assert_eq!(rejected, expected);
}

#[test]
fn s05_questions_to_upstreams_hide_the_id_and_limit_the_reply() {
    let query = read(&ask("Example.COM.", RecordType::MX, Some(60_000)));
    let asked = query.to_upstream(0x4711).unwrap();
    let message = Message::from_vec(&asked).unwrap();
    assert_eq!(message.metadata.id, 0x4711);
    assert!(message.metadata.recursion_desired);
    assert_eq!(message.queries[0].name.to_ascii(), "Example.COM.");
    assert_eq!(message.edns.unwrap().max_payload(), MAX_UDP_PAYLOAD);

    let mut reply = asked.clone();
    assert!(!answers(&reply, &asked), "a query is no reply");
    reply[2] |= 0x80;
    assert!(answers(&reply, &asked));
    assert_eq!(query.relay(reply.clone())[..2], [0x12, 0x34]);
    for (place, change) in [(0, 1), (1, 1), (5, 1), (13, 1), (25, 1), (27, 1)] {
        let mut other = reply.clone();
        other[place] ^= change;
        assert!(!answers(&other, &asked), "octet {place}");
    }
    assert!((0..25).all(|len| !answers(&reply[..len], &asked)));
}

#[test]
fn s05_a_reply_that_is_too_long_for_the_client_says_so() {
    let query = read(&ask("example.com.", RecordType::A, None));
    let asked = query.to_upstream(7).unwrap();
    let mut reply = asked;
    reply[2] |= 0x80;
    reply.resize(513, 0);
    let relayed = Message::from_vec(&query.relay(reply)).unwrap();
    assert!(relayed.metadata.truncation);
    assert_eq!((relayed.metadata.id, relayed.answers.len()), (0x1234, 0));
}

proptest! {
    /// Any bytes are read or rejected, and what is said to them can be read.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(Rejected::Malformed(reply) | Rejected::Unsupported(reply)) =
            Query::read(&bytes, Transport::Udp)
        {
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
    }

    /// So are queries of which some octets were changed, and replies to them keep the limit.
    #[test]
    fn damaged_queries(
        changes in prop::collection::vec((0_usize..60, any::<u8>()), 0..6),
        edns in prop::option::of(any::<u16>()),
        records in 0_u16..200,
    ) {
        let mut bytes = ask("tasks.Web.front.", RecordType::SRV, edns);
        for (place, value) in changes {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        if let Ok(query) = Query::read(&bytes, Transport::Udp) {
            let reply = query.reply(ResponseCode::NoError, addresses(records));
            prop_assert!(reply.len() <= usize::from(MAX_UDP_PAYLOAD));
            prop_assert!(Message::from_vec(&reply).is_ok());
            prop_assert!(query.to_upstream(1).is_some());
        }
    }

    #[test]
    fn any_reply_of_an_upstream(reply in prop::collection::vec(any::<u8>(), 0..100)) {
        let query = read(&ask("a.", RecordType::A, None)).to_upstream(1).unwrap();
        answers(&reply, &query);
        is_truncated(&reply);
        is_failure(&reply);
    }
}
