//! Which requests were applied already.

use std::collections::{HashMap, VecDeque};

use overlay_types::RequestId;

use super::Response;

/// Requests that are remembered. A caller that lost an answer asks again within seconds; at 1 000
/// writes a second this is 16 of them. At about 300 bytes each it is 5 MB of a snapshot.
pub(super) const MAX_REQUESTS: usize = 16_384;

/// The answers to the last [`MAX_REQUESTS`] writes that changed something.
///
/// Rejected requests are not in it: they changed nothing, so repeating them is harmless.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Oldest first, in one piece of memory: an answer is hundreds of bytes.
    answers: VecDeque<(RequestId, Response)>,
    /// How many answers there were before that of a request. Looked up only, so that replicas need no order.
    places: HashMap<RequestId, u64>,
    /// How many answers are forgotten.
    forgotten: u64,
}

/// Replicas remember the same, but do not count from the same one on.
impl PartialEq for Requests {
    fn eq(&self, other: &Self) -> bool {
        self.answers == other.answers
    }
}

impl Eq for Requests {}

impl Requests {
    pub(super) fn get(&self, request: RequestId) -> Option<&Response> {
        let place = *self.places.get(&request)? - self.forgotten;
        self.answers.get(usize::try_from(place).ok()?).map(|(_, answer)| answer)
    }

    /// Remembers the answer to a request that is not in the table, and forgets the oldest.
    pub(super) fn insert(&mut self, request: RequestId, response: Response) {
        if self.places.contains_key(&request) {
            return;
        }
        // Before there is one more: the ring would double.
        while self.answers.len() >= MAX_REQUESTS
            && let Some((oldest, _)) = self.answers.pop_front()
        {
            self.places.remove(&oldest);
            self.forgotten += 1;
        }
        self.places.insert(request, self.forgotten + self.answers.len() as u64);
        self.answers.push_back((request, response));
    }

    /// Requests and their answers, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Response)> {
        self.answers.iter().map(|(request, answer)| (*request, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_of_answers_does_not_grow_beyond_what_is_remembered() {
        let mut requests = Requests::default();
        for number in 0..MAX_REQUESTS as u128 + 10 {
            requests.insert(RequestId::from_u128(number), Response::Done);
            // It is there already.
            requests.insert(RequestId::from_u128(number), Response::Done);
        }
        assert_eq!(requests.answers.capacity(), MAX_REQUESTS);
        assert_eq!(requests.iter().count(), MAX_REQUESTS);
        assert!(requests.get(RequestId::from_u128(9)).is_none());
        assert!(requests.get(RequestId::from_u128(10)).is_some());
    }
}
