#![expect(clippy::disallowed_methods, reason = "some instant to count from")]

use core::net::Ipv4Addr;

use hickory_proto::{
    op::{Edns, Message, MessageType, Query, ResponseCode},
    rr::{
        Name, RData, Record as WireRecord, RecordType,
        rdata::{A, SOA},
    },
};
use proptest::prelude::*;

use super::*;

fn name(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

fn query(owner: &str, id: u16) -> Message {
    let mut message = Message::query();
    message.metadata.id = id;
    message.queries = vec![Query::query(name(owner), RecordType::A)];
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// The reply to `query` with addresses that may be kept for so many seconds.
fn reply(query: &Message, ttls: &[u32]) -> Message {
    let mut message = query.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.authoritative = true;
    let owner = &query.queries[0].name;
    let address = |n| RData::A(A(Ipv4Addr::from(0xc000_0200 + n)));
    let records = (1_u32..).zip(ttls);
    message.answers =
        records.map(|(n, ttl)| WireRecord::from_rdata(owner.clone(), *ttl, address(n))).collect();
    message
}

/// That there is nothing, which may be kept for so long.
fn nothing(query: &Message, code: ResponseCode, ttl: u32, minimum: u32) -> Message {
    let mut message = reply(query, &[]);
    message.metadata.response_code = code;
    let zone = name("example.");
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 900, 900, 900, minimum);
    message.authorities = vec![WireRecord::from_rdata(zone, ttl, RData::SOA(soa))];
    message
}

/// For how many seconds the reply is kept.
fn kept_for(query: &Message, reply: &Message) -> Option<u64> {
    let (mut cache, start) = (Cache::default(), Instant::now());
    cache.put(&bytes(query), &bytes(reply), start);
    let hit = |secs| {
        let mut cache = Cache::default();
        cache.put(&bytes(query), &bytes(reply), start);
        cache.get(&bytes(query), start + Duration::from_secs(secs)).is_some()
    };
    cache.get(&bytes(query), start)?;
    let end = (0..=4000).find(|secs| !hit(*secs))?;
    Some(end)
}

#[test]
fn s05_an_answer_is_kept_as_long_as_its_records_say() {
    let asked = query("example.com.", 1);
    for (ttls, secs) in [
        (&[300][..], Some(300)),
        (&[300, 20, 60], Some(20)),
        (&[86_400], Some(u64::from(MAX_AGE_SECS))),
        (&[0], None),
        (&[300, 0], None),
        // The highest bit stands for no number (RFC 2181 §8).
        (&[1 << 31], None),
    ] {
        assert_eq!(kept_for(&asked, &reply(&asked, ttls)), secs, "{ttls:?}");
    }
}

#[test]
fn s05_that_there_is_nothing_is_kept_as_rfc_2308_says() {
    let asked = query("gone.example.", 1);
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        for (ttl, minimum, secs) in
            [(60, 900, Some(60)), (900, 60, Some(60)), (9000, 9000, Some(300)), (60, 0, None)]
        {
            let reply = nothing(&asked, code, ttl, minimum);
            assert_eq!(kept_for(&asked, &reply), secs, "{code:?} {ttl} {minimum}");
        }
        let mut unlimited = nothing(&asked, code, 60, 60);
        unlimited.authorities.clear();
        assert_eq!(kept_for(&asked, &unlimited), None, "{code:?}");
    }
}

#[test]
fn s05_what_is_no_answer_is_not_kept() {
    let asked = query("example.com.", 1);
    let mut cut = reply(&asked, &[300]);
    cut.metadata.truncation = true;
    assert_eq!(kept_for(&asked, &cut), None);
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let mut failure = reply(&asked, &[300]);
        failure.metadata.response_code = code;
        assert_eq!(kept_for(&asked, &failure), None, "{code:?}");
    }
    let mut versions = reply(&asked, &[300]);
    versions.edns = Some(Edns::new());
    assert_eq!(kept_for(&asked, &versions), Some(300));
    versions.metadata.response_code = ResponseCode::BADVERS;
    assert_eq!(kept_for(&asked, &versions), None);
    assert_eq!(kept_for(&asked, &reply(&query("other.com.", 1), &[300])), None);
    assert_eq!(kept_for(&asked, &reply(&asked, &[300; 400])), None, "longer than any that is kept");
}

#[test]
fn s05_whoever_asks_again_gets_its_own_spelling_and_the_time_that_is_left() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let first = query("example.com.", 1);
    let mut answer = reply(&first, &[300, 200]);
    answer.edns = Some(Edns::new());
    cache.put(&bytes(&first), &bytes(&answer), start);

    let again = query("eXample.COM.", 7);
    let later = start + Duration::from_millis(30_999);
    let kept = Message::from_vec(&cache.get(&bytes(&again), later).unwrap()).unwrap();
    assert_eq!(kept.metadata.id, 7);
    assert_eq!(kept.queries[0].name.to_string(), "eXample.COM.");
    assert!(!kept.metadata.authoritative);
    let ttls: Vec<_> = kept.answers.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [270, 170]);
    assert_eq!(kept.edns, answer.edns);

    // What the answer depends on is part of the question.
    let mut other = again.clone();
    other.edns = Some(Edns::new());
    assert_eq!(cache.get(&bytes(&other), later), None);
    other = again.clone();
    other.metadata.checking_disabled = true;
    assert_eq!(cache.get(&bytes(&other), later), None);
    cache.clear();
    assert_eq!(cache.get(&bytes(&again), later), None);
}

#[test]
fn r06_a_cache_is_bounded_in_number_and_octets() {
    let start = Instant::now();
    for (count, records) in [(3000_u16, 1), (500, 100)] {
        let mut cache = Cache::default();
        let mut most = 0;
        for n in 0..count {
            let asked = query(&format!("host{n}.example.com."), n);
            cache.put(&bytes(&asked), &bytes(&reply(&asked, &vec![300; records])), start);
            let sum = cache.answers.iter().map(|(key, kept)| octets(key, &kept.reply));
            assert_eq!(cache.octets, sum.sum::<usize>());
            assert!(cache.octets <= MAX_OCTETS && cache.answers.len() <= MAX_ANSWERS.get());
            most = most.max(cache.answers.len());
        }
        assert!(most < usize::from(count) && most > 50, "{most}");
        // The last one is there, the first is gone.
        let asked = |n: u16| bytes(&query(&format!("host{n}.example.com."), n));
        assert!(cache.get(&asked(count - 1), start).is_some());
        assert!(cache.get(&asked(0), start).is_none());
        // What is put again takes the place of what was there.
        let again = query(&format!("host{}.example.com.", count - 1), 1);
        let before = cache.answers.len();
        cache.put(&bytes(&again), &bytes(&reply(&again, &[300])), start);
        assert_eq!(cache.answers.len(), before);
        let end = start + Duration::from_mins(5);
        assert!(cache.get(&bytes(&again), end).is_none());
        assert_eq!(cache.answers.len(), before - 1);
        let sum = cache.answers.iter().map(|(key, kept)| octets(key, &kept.reply));
        assert_eq!(cache.octets, sum.sum::<usize>());
    }
}

proptest! {
    #[test]
    fn r06_no_reply_breaks_a_cache(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let asked = bytes(&query("example.com.", 1));
        let mut answer = reply(&query("example.com.", 1), &[300, 20]);
        answer.edns = Some(Edns::new());
        let mut answer = bytes(&answer);
        for (place, octet) in flips {
            let place = place.index(answer.len());
            answer[place] = octet;
        }
        answer.truncate(cut.index(answer.len() + 1));
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(&asked, &answer, start);
        if let Some(kept) = cache.get(&asked, start) {
            prop_assert_eq!(kept.len(), answer.len());
        }
    }
}
