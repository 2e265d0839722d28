//! Which networks a question is asked from.

use overlay_types::NetworkId;

/// The networks of whoever asks. Names on other networks do not exist for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scope(Box<[NetworkId]>);

impl Scope {
    /// A scope of these networks, in order of preference: the first that knows a name answers.
    /// The ingress network comes last, wherever it stands here.
    pub fn new(networks: impl IntoIterator<Item = NetworkId>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Its networks.
    pub fn networks(&self) -> &[NetworkId] {
        &self.0
    }
}
