//! A dataplane that carries nothing and remembers everything, for tests of what drives one.

use crate::{
    Error,
    api::{Dataplane, Observed, Op},
    state::State,
};

/// Applies operations to a value. Operations can be made to fail.
#[derive(Debug, Default)]
pub struct FakeDataplane {
    state: State,
    log: Vec<Op>,
    fail: Option<fn(&Op) -> bool>,
}

impl FakeDataplane {
    /// An empty dataplane.
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations that were applied, in order, failed ones included.
    pub fn log(&self) -> &[Op] {
        &self.log
    }

    /// Lets operations fail from now on that `fail` says so of; `None` ends it.
    pub fn fail_when(&mut self, fail: Option<fn(&Op) -> bool>) {
        self.fail = fail;
    }

    /// The state, to change it behind the back of whoever drives this.
    pub fn state_mut(&mut self) -> &mut Observed {
        &mut self.state.0
    }
}

impl Dataplane for FakeDataplane {
    fn observe(&mut self) -> Result<Observed, Error> {
        Ok(self.state.0.clone())
    }

    fn apply(&mut self, ops: Vec<Op>) -> Vec<Result<(), Error>> {
        let mut apply = |op: Op| {
            self.log.push(op.clone());
            if self.fail.is_some_and(|fail| fail(&op)) {
                return Err(Error::Unsupported("do what a test forbids"));
            }
            self.state.apply(op)
        };
        ops.into_iter().map(&mut apply).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Candidate;

    #[test]
    fn d04_fake_passes_the_conformance_suite() {
        crate::conformance::check(|| Candidate::new(FakeDataplane::new()));
    }
}
