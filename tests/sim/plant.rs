//! Bugs that are planted on purpose, to show that a checker can fail.

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plant {
    /// Disks say that they have synced, and have not; all managers lose power at once.
    LyingDisks,
    /// Clients read the state of any manager and call it the current one.
    StaleReads,
    /// Clients repeat a write under another request id.
    FreshRequestIds,
    /// Workers lose one batch of changes in seven.
    LostBatches,
    /// Workers throw their view away when no manager answers.
    ForgetfulWorkers,
    /// Nodes do not take up the role that the cluster gives them.
    DeafNodes,
    /// Every node has the certificate of the first manager.
    StolenCertificates,
    /// Nodes publish no keys, and the leader waits for them without end.
    MuteWorkers,
}

impl Plant {
    const ALL: [Self; 8] = [
        Self::LyingDisks,
        Self::StaleReads,
        Self::FreshRequestIds,
        Self::LostBatches,
        Self::ForgetfulWorkers,
        Self::DeafNodes,
        Self::StolenCertificates,
        Self::MuteWorkers,
    ];

    /// The plant whose name this is.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| format!("{plant:?}") == name)
    }
}
