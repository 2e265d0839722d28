//! Merging what another member knows into what foca knows here.
//!
//! ```text
//!   the other says    here: unknown   here: active           here: dead
//!   ───────────────   ─────────────   ────────────────────   ────────────────────
//!   active            take            take if it is newer    take if newer identity
//!   dead              take            DOUBT                  take if newer identity
//!   left              take            take                   take
//!
//!   DOUBT ── refuted, or a newer identity ──► forgotten
//!     └───── nothing for the suspicion time ► dead
//! ```
//!
//! An exchange is not news but memory, and after a partition each side remembers the other as dead.
//! So the dead of an exchange are only suspected (as memberlist does), and have the usual time to
//! object; otherwise healing a partition would declare everybody dead once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use foca::{Member, State};
use overlay_types::NodeId;

use crate::identity::Identity;

/// Members whose death was heard of in an exchange and not confirmed yet; at most one per member.
#[derive(Debug, Default)]
pub(crate) struct Doubts(BTreeMap<NodeId, Doubt>);

#[derive(Debug)]
struct Doubt {
    suspect: Member<Identity>,
    until: Instant,
}

impl Doubts {
    /// When the first doubt runs out.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|doubt| doubt.until).min()
    }

    pub(crate) fn postpone(&mut self, by: Duration) {
        for doubt in self.0.values_mut() {
            doubt.until += by;
        }
    }

    /// Takes the doubts that ran out: the members as they were when doubted.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Member<Identity>> {
        let expired = self.0.extract_if(.., |_, doubt| doubt.until <= now);
        expired.map(|(_, doubt)| doubt.suspect).collect()
    }

    fn raise(&mut self, suspect: Member<Identity>, until: Instant) {
        let same = |doubt: &Doubt| {
            doubt.suspect.id() == suspect.id()
                && doubt.suspect.incarnation() == suspect.incarnation()
        };
        if !self.0.get(&suspect.id().node).is_some_and(same) {
            self.0.insert(suspect.id().node, Doubt { suspect, until });
        }
    }
}

/// What of `heard` is new to someone who knows `known`, in the form in which foca may have it.
/// `doubt_until` is when the doubts run out that this raises.
pub(crate) fn merge<'a>(
    me: &Identity,
    known: impl Iterator<Item = &'a Member<Identity>>,
    heard: Vec<Member<Identity>>,
    doubts: &mut Doubts,
    doubt_until: Instant,
) -> Vec<Member<Identity>> {
    let known: BTreeMap<NodeId, &Member<Identity>> = known.map(|m| (m.id().node, m)).collect();
    let mut news = Vec::new();
    for member in heard {
        if member.id().node == me.node {
            // Only a verdict about what this node is now matters to it.
            if member.id() == me && member.state() != State::Alive {
                news.push(member);
            }
            continue;
        }
        match known.get(&member.id().node) {
            Some(here) if here.id() == member.id() => match (here.state(), member.state()) {
                (State::Alive | State::Suspect, State::Down) if member.id().leaving => {
                    news.push(member);
                }
                (State::Alive | State::Suspect, State::Down) => {
                    let suspect = Member::new(*here.id(), here.incarnation(), State::Suspect);
                    doubts.raise(suspect.clone(), doubt_until);
                    news.push(suspect);
                }
                (State::Alive | State::Suspect, _) if **here != member => news.push(member),
                // Nothing new, or dead here, which only a greater incarnation ends.
                _ => {}
            },
            Some(here) if !foca::Identity::win_addr_conflict(member.id(), here.id()) => {}
            _ => news.push(member),
        }
    }
    news
}

/// The dead among `expired` doubts: those about whom nothing newer is known by now.
pub(crate) fn confirm<'a>(
    known: impl Iterator<Item = &'a Member<Identity>>,
    expired: &[Member<Identity>],
) -> Vec<Member<Identity>> {
    let still_suspect = |here: &&Member<Identity>| {
        here.state() == State::Suspect && expired.iter().any(|doubted| doubted == *here)
    };
    known
        .filter(still_suspect)
        .map(|here| Member::new(*here.id(), here.incarnation(), State::Down))
        .collect()
}

#[cfg(test)]
mod tests {
    use overlay_types::Incarnation;
    use rstest::rstest;

    use super::*;

    fn id(node: u128, incarnation: u64) -> Identity {
        let address = "10.0.0.1:7946".parse().unwrap();
        Identity::new(NodeId::from_u128(node), Incarnation::new(incarnation), address)
    }

    fn member(incarnation: u64, refutations: u16, state: State) -> Member<Identity> {
        Member::new(id(2, incarnation), refutations, state)
    }

    #[derive(Debug, PartialEq)]
    enum Verdict {
        Take,
        Doubt,
        Ignore,
    }

    use State::{Alive, Down, Suspect};
    use Verdict::{Doubt as Doubted, Ignore, Take};

    #[rstest]
    #[case::unknown_alive(None, (5, 0, Alive), Take)]
    #[case::unknown_dead(None, (5, 0, Down), Take)]
    #[case::nothing_new(Some((5, 0, Alive)), (5, 0, Alive), Ignore)]
    #[case::refuted(Some((5, 0, Suspect)), (5, 1, Alive), Take)]
    #[case::suspected(Some((5, 0, Alive)), (5, 0, Suspect), Take)]
    #[case::died(Some((5, 0, Alive)), (5, 0, Down), Doubted)]
    #[case::already_suspect(Some((5, 0, Suspect)), (5, 0, Down), Doubted)]
    #[case::restarted(Some((5, 0, Alive)), (6, 0, Alive), Take)]
    #[case::restarted_and_died(Some((5, 0, Alive)), (6, 0, Down), Take)]
    #[case::old_news(Some((6, 0, Alive)), (5, 0, Down), Ignore)]
    #[case::dead_stays_dead(Some((5, 0, Down)), (5, 9, Alive), Ignore)]
    #[case::back_from_the_dead(Some((5, 0, Down)), (6, 0, Alive), Take)]
    fn merge_table(
        #[case] here: Option<(u64, u16, State)>,
        #[case] heard: (u64, u16, State),
        #[case] verdict: Verdict,
    ) {
        #[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
        let now = Instant::now();
        let here = here.map(|(i, r, s)| member(i, r, s));
        let heard = member(heard.0, heard.1, heard.2);
        let mut doubts = Doubts::default();
        let news = merge(&id(1, 1), here.iter(), vec![heard.clone()], &mut doubts, now);
        let got = match (news.as_slice(), doubts.next()) {
            ([], None) => Ignore,
            ([one], None) if *one == heard => Take,
            ([one], Some(_)) if one.state() == Suspect => Doubted,
            other => panic!("{other:?}"),
        };
        assert_eq!(got, verdict);
        if got == Doubted {
            let expired = doubts.expire(now);
            assert_eq!(doubts.next(), None);
            let unchanged = member(5, 0, Suspect);
            assert_eq!(confirm([&unchanged].into_iter(), &expired), [member(5, 0, Down)]);
            let refuted = member(5, 1, Alive);
            assert_eq!(confirm([&refuted].into_iter(), &expired), []);
        }
    }

    #[test]
    fn a_member_hears_only_verdicts_about_what_it_is_now() {
        #[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
        let now = Instant::now();
        let me = id(1, 7);
        let about_me = |incarnation, state| Member::new(id(1, incarnation), 0, state);
        let heard =
            vec![about_me(6, Down), about_me(7, Alive), about_me(7, Down), about_me(8, Down)];
        let news = merge(&me, [].into_iter(), heard, &mut Doubts::default(), now);
        assert_eq!(news, [about_me(7, Down)]);
    }
}
