//! Answers of upstreams, kept for as long as they say (RFC 1035 §7.4, RFC 2308). Pure: the time is an
//! argument.

use core::{num::NonZeroUsize, ops::Range, time::Duration};
use std::time::Instant;

use lru::LruCache;

use super::message::{self, HEADER_LEN};

/// Most answers that are kept; the one that was asked for least recently goes. A program asks for a few
/// dozen names.
const MAX_ANSWERS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Most octets of all of them: there is a cache in each namespace of a node.
const MAX_OCTETS: usize = 256 << 10;
/// Longest answer that is kept, so that a few do not drive out all others.
const MAX_ANSWER: usize = 4096;
/// What an answer takes beside its octets and those of its question.
const OVERHEAD: usize = 128;
/// Longest time that an answer is kept: its zone may have changed its mind.
const MAX_AGE_SECS: u32 = 3600;
/// Longest time that it is kept that there is no such name or record.
const MAX_NEGATIVE_AGE_SECS: u32 = 300;

/// Types of records (RFC 1035 §3.2.2, RFC 6891 §6.1.1).
const SOA: u16 = 6;
const OPT: u16 = 41;

/// Kept answers, by the question as it goes to an upstream, but for its id and its spelling.
#[derive(Debug)]
pub(super) struct Cache {
    answers: LruCache<Box<[u8]>, Kept>,
    octets: usize,
}

#[derive(Debug)]
struct Kept {
    reply: Box<[u8]>,
    since: Instant,
    age_limit: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { answers: LruCache::sparse(MAX_ANSWERS), octets: 0 }
    }
}

impl Cache {
    /// The kept reply to `query`, with the time that is left of it.
    pub(super) fn get(&mut self, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let key = key(query)?;
        let kept = self.answers.get(&key)?;
        let age = now.saturating_duration_since(kept.since);
        if age >= kept.age_limit {
            self.forget(&key);
            return None;
        }
        let mut reply = kept.reply.to_vec();
        reply[..2].copy_from_slice(&query[..2]);
        let question = message::question_of(query)?;
        reply[HEADER_LEN..HEADER_LEN + question.len()].copy_from_slice(question);
        for record in records(&reply)? {
            if record.kind != OPT {
                let left = u64::from(ttl(&reply, &record)).saturating_sub(age.as_secs());
                reply[record.ttl].copy_from_slice(&(left as u32).to_be_bytes());
            }
        }
        Some(reply)
    }

    /// Keeps a reply that answers `query`, if it may be kept.
    pub(super) fn put(&mut self, query: &[u8], reply: &[u8], now: Instant) {
        let Some(key) = key(query).filter(|_| message::answers(reply, query)) else { return };
        let Some(age_limit) = age_limit(reply).filter(|_| reply.len() <= MAX_ANSWER) else {
            return;
        };
        let mut reply: Box<[u8]> = reply.into();
        // It does not come from its zone's server the next time.
        reply[2] &= !message::AUTHORITATIVE;
        self.octets += octets(&key, &reply);
        let kept = Kept { reply, since: now, age_limit };
        // What had the place: the former answer, or the one that was asked for least recently.
        if let Some((key, kept)) = self.answers.push(key, kept) {
            self.octets -= octets(&key, &kept.reply);
        }
        while self.octets > MAX_OCTETS
            && let Some((key, kept)) = self.answers.pop_lru()
        {
            self.octets -= octets(&key, &kept.reply);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some((key, kept)) = self.answers.pop_entry(key) {
            self.octets -= octets(&key, &kept.reply);
        }
    }
}

fn octets(key: &[u8], reply: &[u8]) -> usize {
    key.len() + reply.len() + OVERHEAD
}

/// All of a query that its answer depends on.
fn key(query: &[u8]) -> Option<Box<[u8]>> {
    let question = message::question_of(query)?.len();
    let mut key: Box<[u8]> = query[2..].into();
    // Lengths of labels are below 64, and thus no letters.
    key[HEADER_LEN - 2..][..question].make_ascii_lowercase();
    Some(key)
}

/// How long a reply may be kept; `None`: not at all.
fn age_limit(reply: &[u8]) -> Option<Duration> {
    if message::is_truncated(reply) || !message::is_conclusive(reply) {
        return None;
    }
    let records = records(reply)?;
    let negative = message::is_no_such_name(reply) || u16_at(reply, 6)? == 0;
    let mut limit = if negative { MAX_NEGATIVE_AGE_SECS } else { MAX_AGE_SECS };
    for record in &records {
        if record.kind == OPT {
            // There the field has more of the response code (RFC 6891 §6.1.3).
            match reply[record.ttl.start] {
                0 => continue,
                _ => return None,
            }
        }
        limit = limit.min(ttl(reply, record));
        if record.kind == SOA {
            // Its last field says how long it may be kept that there is nothing (RFC 2308 §4).
            let data = reply.get(record.data.clone())?;
            limit = limit.min(u32::from_be_bytes(*data.last_chunk()?));
        }
    }
    // Nothing says how long it holds (RFC 2308 §5).
    let unlimited = negative && !records.iter().any(|record| record.kind == SOA);
    (limit > 0 && !unlimited).then(|| Duration::from_secs(limit.into()))
}

/// Where a record of a message is.
#[derive(Clone, Debug)]
struct Record {
    kind: u16,
    ttl: Range<usize>,
    data: Range<usize>,
}

/// All records of a message with one question; `None` if it is not one whole message.
fn records(message: &[u8]) -> Option<Vec<Record>> {
    let counts = [6, 8, 10].map(|at| u16_at(message, at).map(usize::from));
    let [Some(answers), Some(authorities), Some(additionals)] = counts else { return None };
    let mut at = HEADER_LEN + message::question_of(message)?.len();
    let mut records = Vec::new();
    for _ in 0..answers + authorities + additionals {
        at = behind_name(message, at)?;
        let data_len = usize::from(u16_at(message, at + 8)?);
        let data = at + 10..at + 10 + data_len;
        if data.end > message.len() {
            return None;
        }
        at += 10 + data_len;
        records.push(Record {
            kind: u16_at(message, data.start - 10)?,
            ttl: data.start - 6..data.start - 2,
            data,
        });
    }
    Some(records)
}

/// The place behind the name that begins at `at` (RFC 1035 §4.1.4).
fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..64 => at += 1 + usize::from(len),
            // A pointer, which ends the name.
            0xc0.. => return Some(at + 2),
            64..0xc0 => return None,
        }
    }
}

/// Seconds that a record may be kept; none if it says nonsense (RFC 2181 §8).
fn ttl(message: &[u8], record: &Record) -> u32 {
    let octets = message[record.ttl.clone()].first_chunk().copied().unwrap_or_default();
    let ttl = u32::from_be_bytes(octets);
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests;
