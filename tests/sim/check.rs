//! One checker for each invariant. `one-history` is looked at while a run goes on, see
//! [`Ledger`](crate::ledger::Ledger).

pub(crate) mod barred;
pub(crate) mod converged;
pub(crate) mod durable;
pub(crate) mod exactly_once;
pub(crate) mod headless;
pub(crate) mod linearizable;
pub(crate) mod membership;
pub(crate) mod rotation_ends;
pub(crate) mod unique_address;

/// What did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    /// The invariant.
    pub(crate) invariant: String,
    /// Where, and how.
    pub(crate) text: String,
}

impl Violation {
    pub(crate) fn new(invariant: impl Into<String>, text: impl Into<String>) -> Self {
        Self { invariant: invariant.into(), text: text.into() }
    }
}
