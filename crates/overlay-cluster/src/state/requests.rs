//! Which requests were applied already.

use std::collections::{BTreeMap, VecDeque};

use overlay_types::RequestId;

use super::Response;

/// Requests that are remembered. A caller that lost an answer asks again within seconds; at 1 000
/// writes a second this is 16 of them. At about 300 bytes each it is 5 MB of a snapshot.
pub(super) const MAX_REQUESTS: usize = 16_384;

/// The answers to the last [`MAX_REQUESTS`] writes that changed something.
///
/// Rejected requests are not in it: they changed nothing, so repeating them is harmless.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Requests {
    oldest_first: VecDeque<RequestId>,
    /// Boxed: an insertion moves the neighbours, and an answer is hundreds of bytes.
    answers: BTreeMap<RequestId, Box<Response>>,
}

impl Requests {
    pub(super) fn get(&self, request: RequestId) -> Option<&Response> {
        self.answers.get(&request).map(|answer| &**answer)
    }

    /// Remembers the answer to a request that is not in the table, and forgets the oldest.
    pub(super) fn insert(&mut self, request: RequestId, response: Response) {
        if self.answers.insert(request, Box::new(response)).is_none() {
            self.oldest_first.push_back(request);
        }
        while self.oldest_first.len() > MAX_REQUESTS {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }

    /// Requests and their answers, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Response)> {
        self.oldest_first.iter().filter_map(|id| Some((*id, self.get(*id)?)))
    }
}
