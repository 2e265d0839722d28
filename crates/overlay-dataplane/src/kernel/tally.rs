//! What the rules of networks have dropped, by the reasons that the switch in user space counts by.
//!
//! A rule that is written anew counts from zero, so what rules count is added up here. What one counted
//! since the last look, and was written anew before this one, is not in the sum.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    directory::Directory,
    netns::NetNs,
    nft::{Nft, NftError, TableId, admission, dump::Counted, fence},
};
use crate::{Error, user::engine::DropReason};

/// A rule: the namespace that it is in, its number in its table.
type Place = (Option<PathBuf>, u64);

/// A sum of what rules have counted, from look to look.
#[derive(Debug)]
pub struct Tally {
    directory: PathBuf,
    last: BTreeMap<Place, u64>,
    sums: BTreeMap<DropReason, u64>,
}

impl Tally {
    /// A tally of the networks whose namespaces are in `directory`, and of the host's table of members.
    /// What was counted before counts.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), last: BTreeMap::new(), sums: BTreeMap::new() }
    }

    /// Looks at all rules, from the host's namespace. Takes a fraction of a millisecond for each network.
    pub fn look(&mut self) -> Result<&BTreeMap<DropReason, u64>, Error> {
        let mut all = vec![(None, Some(Nft::open()?.counted(&admission::table_id())?))];
        for file in Directory::new(self.directory.clone()).list()? {
            let found = match file.find() {
                // It took its counters with it.
                Ok(None) => continue,
                Ok(Some(netns)) => read(&netns, &fence::table_id()).ok().transpose()?,
                Err(_) => None,
            };
            all.push((Some(file.path), found));
        }
        self.take(all);
        Ok(&self.sums)
    }

    /// Adds what was found in each namespace. Where nothing could be read just now, what was counted
    /// before is what the next look goes on from.
    fn take(&mut self, all: Vec<(Option<PathBuf>, Option<Vec<Counted>>)>) {
        let mut seen = BTreeMap::new();
        for (at, found) in all {
            if let Some(found) = found {
                self.add(at.as_deref(), found, &mut seen);
            } else {
                let known = self.last.iter().filter(|((path, _), _)| *path == at);
                seen.extend(known.map(|(place, packets)| (place.clone(), *packets)));
            }
        }
        self.last = seen;
    }

    fn add(&mut self, at: Option<&Path>, found: Vec<Counted>, seen: &mut BTreeMap<Place, u64>) {
        for Counted { handle, comment, packets } in found {
            let reasons = if at.is_some() { &fence::REASONS[..] } else { &admission::REASONS };
            let reason = reasons.iter().find(|(text, _)| *text == comment);
            let Some((_, reason)) = reason else { continue };
            let place = (at.map(Path::to_owned), handle);
            // A namespace of the same name may be another one, with rules that have counted less.
            let before = self.last.get(&place).copied().filter(|before| *before <= packets);
            *self.sums.entry(*reason).or_default() += packets - before.unwrap_or_default();
            seen.insert(place, packets);
        }
    }
}

fn read(netns: &NetNs, id: &TableId) -> std::io::Result<Result<Vec<Counted>, NftError>> {
    netns.enter(|| Ok(Nft::open().and_then(|mut nft| nft.counted(id))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(handle: u64, comment: &str, packets: u64) -> Counted {
        Counted { handle, comment: comment.to_owned(), packets }
    }

    #[test]
    fn o04_what_rules_counted_before_they_were_written_anew_stays_in_the_sum() {
        let mut tally = Tally::new("/nowhere");
        let mut look = |rules: &[(u64, u64)]| {
            let (text, reason) = fence::REASONS[0];
            let rules = rules.iter().map(|(handle, packets)| counted(*handle, text, *packets));
            tally.take(vec![(Some("a".into()), Some(rules.collect()))]);
            tally.sums.get(&reason).copied().unwrap_or_default()
        };
        assert_eq!(look(&[(1, 5), (2, 1)]), 6);
        assert_eq!(look(&[(1, 7), (2, 1)]), 8);
        // Written anew, under another number; and a namespace made anew, under the same.
        assert_eq!(look(&[(3, 2), (2, 0)]), 10);
        assert_eq!(look(&[(3, 2), (2, 4)]), 14);
        let none = counted(9, "somebody's own rule", 100);
        tally.add(Some(Path::new("a")), vec![none], &mut BTreeMap::new());
        assert_eq!(tally.sums.values().sum::<u64>(), 14);
    }

    #[test]
    fn o04_what_cannot_be_read_once_is_not_counted_twice() {
        let mut tally = Tally::new("/nowhere");
        let (text, reason) = fence::REASONS[0];
        let mut look = |found: Option<Option<u64>>| {
            let rules = |packets: Option<u64>| packets.map(|n| vec![counted(1, text, n)]);
            let found = found.map(|packets| (Some("a".into()), rules(packets)));
            tally.take(found.into_iter().collect());
            tally.sums.get(&reason).copied().unwrap_or_default()
        };
        assert_eq!(look(Some(Some(5))), 5);
        assert_eq!(look(Some(None)), 5);
        assert_eq!(look(Some(Some(7))), 7);
        // One that was gone is another one now.
        assert_eq!(look(None), 7);
        assert_eq!(look(Some(Some(7))), 14);
    }
}
