//! One page of a list, and the token that the next one starts from.
//!
//! A token is the id after which a list goes on, and a digest of what the list is of: list, filter
//! and cluster. So objects may come and go between two pages, and a token serves its list only.

use overlay_types::{NodeId, RequestId, SpecError, id::ID_TEXT_LEN};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::state::{Rejection, State};

/// Objects of a page whose caller does not say how many.
const DEFAULT_SIZE: u32 = 500;
/// Objects of a page at most: more are no fewer calls to speak of, and a longer look at the state.
const MAX_SIZE: u32 = 1000;
/// Bytes after which a page ends. With the largest object, a network of 64 subnets with 256 names
/// each, this is less than the 4 MiB that clients accept unless they are told otherwise.
const MAX_BYTES: usize = 1 << 20;

/// What a caller wants of a list.
#[derive(Debug)]
pub(in crate::server) struct Page {
    size: usize,
    token: String,
    list: Sha256,
}

/// A page, and the token of the next one: empty if there is none.
#[derive(Debug)]
pub(in crate::server) struct Listed<M> {
    pub(in crate::server) objects: Vec<M>,
    pub(in crate::server) next: String,
}

impl Page {
    /// A page of the list `name` with this filter.
    pub(in crate::server) fn new(
        name: &str,
        filter: Option<&impl Message>,
        size: u32,
        token: String,
    ) -> Result<Self, SpecError> {
        let size = match size {
            0 => DEFAULT_SIZE,
            1..=MAX_SIZE => size,
            _ => {
                let reason = format!("a page has at most {MAX_SIZE} objects");
                return Err(SpecError::new("page_size", size, reason));
            }
        };
        let mut list = Sha256::new();
        list.update(name);
        list.update(filter.map(Message::encode_to_vec).unwrap_or_default());
        Ok(Self { size: size as usize, token, list })
    }

    /// How many objects of each source a page needs at most: its own, and one to know that there
    /// is a next page.
    pub(in crate::server) const fn wanted(&self) -> usize {
        self.size + 1
    }

    /// The first id that the page may have.
    pub(in crate::server) fn from(&self, state: &State) -> Result<u128, Rejection> {
        if self.token.is_empty() {
            return Ok(0);
        }
        let last = self.token.get(..ID_TEXT_LEN).and_then(|text| text.parse::<NodeId>().ok());
        let last = last.map(NodeId::to_u128);
        if let Some(last) = last.filter(|last| self.token_after(*last, state) == self.token) {
            return Ok(last.saturating_add(1));
        }
        let shown: String = self.token.chars().take(2 * ID_TEXT_LEN).collect();
        let reason = "not a page token of this list with this filter; start without one";
        Err(SpecError::new("page_token", shown, reason).into())
    }

    /// The page from `objects`, which come in the order of their ids.
    pub(in crate::server) fn fill<T, M: Message>(
        &self,
        state: &State,
        objects: impl Iterator<Item = T>,
        id: impl Fn(&T) -> u128,
        message: impl Fn(&T) -> M,
    ) -> Listed<M> {
        let mut listed = Listed { objects: Vec::new(), next: String::new() };
        let (mut bytes, mut last) = (0, 0);
        for object in objects {
            if listed.objects.len() == self.size || bytes >= MAX_BYTES {
                listed.next = self.token_after(last, state);
                return listed;
            }
            last = id(&object);
            let message = message(&object);
            bytes += message.encoded_len();
            listed.objects.push(message);
        }
        listed
    }

    /// Two texts of 128 bits: the last id, and the digest.
    fn token_after(&self, last: u128, state: &State) -> String {
        let cluster = state.view().cluster().map(|cluster| cluster.id.to_bytes());
        let mut digest = self.list.clone();
        digest.update(cluster.unwrap_or_default());
        digest.update(last.to_be_bytes());
        let mut check = [0; 16];
        check.copy_from_slice(&digest.finalize()[..16]);
        format!("{}{}", NodeId::from_u128(last), RequestId::from_bytes(check))
    }
}

#[cfg(test)]
mod tests {
    use overlay_api::v1;

    use super::*;

    fn page(name: &str, filter: &str, size: u32, token: &str) -> Page {
        let filter = v1::NodeFilter { names: vec![filter.to_owned()], ..Default::default() };
        Page::new(name, Some(&filter), size, token.to_owned()).unwrap()
    }

    /// Numbers of the page, and the next token.
    fn fill(page: &Page, numbers: &[u128]) -> (Vec<u64>, String) {
        let state = State::default();
        let from = page.from(&state).unwrap();
        let objects = numbers.iter().copied().filter(|number| *number >= from);
        let meta = |number: &u128| v1::Meta { created_at: *number as u64, changed_at: 0 };
        let listed = page.fill(&state, objects, |number| *number, meta);
        (listed.objects.iter().map(|meta| meta.created_at).collect(), listed.next)
    }

    #[test]
    fn o03_a_list_goes_on_after_the_last_id_whatever_came_and_went() {
        let (first, token) = fill(&page("n", "", 2, ""), &[1, 3, 5, 7]);
        assert_eq!(first, [1, 3]);
        // 3 and 5 went, 2 and 6 came.
        let (second, token) = fill(&page("n", "", 2, &token), &[1, 2, 6, 7, 9]);
        assert_eq!(second, [6, 7]);
        let (third, token) = fill(&page("n", "", 1, &token), &[9]);
        assert_eq!((third, token.as_str()), (vec![9], ""));
    }

    #[test]
    fn o03_a_page_that_is_just_full_is_the_last() {
        assert_eq!(fill(&page("n", "", 2, ""), &[1, 2]), (vec![1, 2], String::new()));
        assert_eq!(fill(&page("n", "", 0, ""), &[]), (vec![], String::new()));
    }

    #[test]
    fn o03_a_page_ends_before_it_is_larger_than_a_message() {
        let state = State::default();
        let page = page("n", "", 1000, "");
        let large = |number: &u128| v1::Node {
            id: "x".repeat(MAX_BYTES / 3),
            name: number.to_string(),
            ..Default::default()
        };
        let listed = page.fill(&state, 0..9, |number| *number, large);
        assert_eq!(listed.objects.len(), 3);
        assert_ne!(listed.next, "");
    }

    #[test]
    fn r06_a_token_serves_its_own_list_only() {
        let state = State::default();
        let (_, token) = fill(&page("n", "a", 1, ""), &[1, 2]);
        assert_eq!(page("n", "a", 9, &token).from(&state), Ok(2));
        let flipped = token.replace(&token[49..], if token.ends_with('0') { "1" } else { "0" });
        for (list, filter, token) in [
            ("m", "a", token.as_str()),
            ("n", "b", token.as_str()),
            ("n", "a", &token[..49]),
            ("n", "a", &format!("{token}0")),
            ("n", "a", &flipped),
            ("n", "a", &"é".repeat(25)),
            ("n", "a", "x"),
        ] {
            let refused = page(list, filter, 1, token).from(&state).unwrap_err();
            assert_eq!(refused.field(), Some("page_token"), "{list} {filter} {token}");
        }
    }

    #[test]
    fn r06_the_size_of_a_page_has_a_bound() {
        let size = |size| Page::new("n", None::<&v1::NodeFilter>, size, String::new());
        assert_eq!(size(0).unwrap().size, 500);
        assert_eq!(size(1000).unwrap().size, 1000);
        let refused = size(1001).unwrap_err();
        assert_eq!((refused.field(), refused.value()), ("page_size", "1001"));
    }
}
