//! Replies that need not be made again.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::message::HEADER_LEN;
use crate::{Directory, Scope};

/// Replies of one socket: most clients ask for the same few names. About 200 KB.
const MAX_REPLIES: usize = 1024;
/// Longest query that is remembered: a name as long as they can be, with what an ordinary client adds.
const MAX_LEN: usize = 320;

/// Replies from one directory, for one scope, to queries that came just so, but for their ids.
///
/// Those with one record at most: the order of more changes from one reply to the next.
#[derive(Debug, Default)]
pub(super) struct Replies {
    directory: Weak<Directory>,
    scope: Weak<Scope>,
    known: HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>,
}

impl Replies {
    /// From now on those from `directory` for `scope`. Others are forgotten.
    pub(super) fn turn_to(&mut self, directory: &Arc<Directory>, scope: &Arc<Scope>) {
        // A weak reference keeps the address from being another's.
        if !core::ptr::eq(self.directory.as_ptr(), Arc::as_ptr(directory))
            || !core::ptr::eq(self.scope.as_ptr(), Arc::as_ptr(scope))
        {
            self.directory = Arc::downgrade(directory);
            self.scope = Arc::downgrade(scope);
            self.known.clear();
        }
    }

    /// The reply to a query that came before.
    pub(super) fn get(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut reply = self.known.get(query.get(2..)?)?.to_vec();
        reply[..2].copy_from_slice(&query[..2]);
        Some(reply)
    }

    /// Keeps a reply, if the next one would be the same.
    pub(super) fn put(&mut self, query: &[u8], reply: &[u8]) {
        let fits = (HEADER_LEN..=MAX_LEN).contains(&query.len()) && reply.len() >= HEADER_LEN;
        if !fits || reply[6..8] > [0, 1][..] {
            return;
        }
        if self.known.len() >= MAX_REPLIES {
            self.known.clear();
        }
        self.known.insert(query[2..].into(), reply.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [u8; HEADER_LEN] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    fn reply(records: u8) -> [u8; HEADER_LEN] {
        [7, 7, 0x85, 0x80, 0, 1, 0, records, 0, 0, 0, 0]
    }

    #[test]
    fn the_same_query_gets_the_same_reply_under_its_own_id() {
        let mut replies = Replies::default();
        replies.put(&QUERY, &reply(1));
        let again = [&[8, 9], &QUERY[2..]].concat();
        assert_eq!(replies.get(&again).unwrap()[..4], [8, 9, 0x85, 0x80]);
        let other = [&again[..2], &[0x21], &QUERY[3..]].concat();
        assert_eq!(replies.get(&other), None);
        assert_eq!(replies.get(&[8]), None);
    }

    #[test]
    fn what_the_next_reply_may_differ_from_is_not_kept() {
        let mut replies = Replies::default();
        replies.put(&QUERY, &reply(2));
        replies.put(&[0; MAX_LEN + 1], &reply(1));
        assert!(replies.known.is_empty());
    }

    #[test]
    fn another_directory_or_scope_has_other_replies() {
        let mut replies = Replies::default();
        let (directory, scope) = (Arc::<Directory>::default(), Arc::new(Scope::new([])));
        replies.turn_to(&directory, &scope);
        replies.put(&QUERY, &reply(1));
        replies.turn_to(&directory, &scope);
        assert!(replies.get(&QUERY).is_some());
        replies.turn_to(&directory, &Arc::new(Scope::new([])));
        assert_eq!(replies.get(&QUERY), None);
        replies.put(&QUERY, &reply(1));
        replies.turn_to(&Arc::default(), &scope);
        assert_eq!(replies.get(&QUERY), None);
    }

    #[test]
    fn r06_they_are_bounded() {
        let mut replies = Replies::default();
        for number in 0..10_000_u16 {
            let query = [&QUERY[..], &number.to_be_bytes()].concat();
            replies.put(&query, &reply(1));
            assert!(replies.get(&query).is_some() && replies.known.len() <= MAX_REPLIES);
        }
    }
}
