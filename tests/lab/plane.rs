//! Which dataplane a node has.

use overlay_dataplane::kernel::capability;

use Plane::{Kernel, User};

/// The dataplane of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Kernel,
    User,
}

/// Clusters that suites run with.
pub(crate) const KERNELS: [Plane; 3] = [Kernel; 3];
pub(crate) const USERS: [Plane; 3] = [User; 3];
pub(crate) const MIXED: [Plane; 3] = [Kernel, Kernel, User];

/// Clusters for the virtual machine, where each daemon takes its time: one manager.
pub(crate) const KERNEL_PAIR: [Plane; 2] = [Kernel; 2];
pub(crate) const USER_PAIR: [Plane; 2] = [User; 2];
pub(crate) const MIXED_PAIR: [Plane; 2] = [Kernel, User];

impl Plane {
    /// Whether this host cannot have it, which is said, or fails when `CI=true`.
    pub(crate) fn skip(self) -> bool {
        let missing = if self == Kernel { capability::probe() } else { Vec::new() };
        let Some(missing) = missing.first() else { return false };
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        #[expect(clippy::print_stderr, reason = "a test that proves nothing must say so")]
        {
            eprintln!("SKIPPED: {missing}");
        }
        true
    }

    /// Flags of its daemon.
    pub(crate) fn flags(self) -> Vec<String> {
        let name = match self {
            Kernel => "kernel",
            User => "user",
        };
        vec!["--dataplane".to_owned(), name.to_owned()]
    }
}
