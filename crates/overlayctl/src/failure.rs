//! What goes wrong, what a person reads about it, and the exit code.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use overlay_api::{
    client::ConnectError,
    status::{Reason, reason},
};
use overlay_types::SpecError;
use tonic::{Code, Status};

use crate::output::printable;

/// A command that did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong; the node was not asked.
    #[error(transparent)]
    Usage(#[from] SpecError),
    /// The node's socket cannot be opened.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The node refused, or the connection broke.
    #[error("{}", .0.message())]
    Status(#[from] Status),
    /// The node's answer lacks something.
    #[error("the node's answer has no {0}; overlayctl and overlayd are of different versions")]
    Incomplete(&'static str),
    /// The person at the terminal said no.
    #[error("not confirmed; network {0:?} was not removed")]
    Declined(String),
    /// Connections outlasted the wait for their end.
    #[error("endpoint {endpoint} is draining and still has connections: {count}")]
    Undrained {
        /// As it was named.
        endpoint: String,
        /// How many.
        count: u32,
    },
    /// A secret was typed twice, and not the same.
    #[error("that was not the same; nothing was done")]
    NotTheSame,
    /// A file that the command line names.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Terminal or pipe.
    #[error("cannot talk to the terminal: {0}")]
    Io(#[from] io::Error),
}

impl Failure {
    /// Adds to an error of the system the file that it is about.
    pub(crate) fn of_file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }

    /// The documented exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Status(status) if is_broken(status) => 3,
            Self::Status(status) if status.code() == Code::NotFound => 4,
            Self::Status(_)
            | Self::Incomplete(_)
            | Self::Declined(_)
            | Self::NotTheSame
            | Self::Undrained { .. }
            | Self::File { .. }
            | Self::Io(_) => 1,
        }
    }

    /// Whether the node says that what was named does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == 4
    }

    /// What broke the connection, or kept it from being made.
    fn cause(&self) -> Option<String> {
        match self {
            Self::Unreachable(error) => innermost(error),
            Self::Status(status) => innermost(status),
            _ => None,
        }
    }

    /// The message for a terminal: `error:`, the offending part underlined, and a hint.
    pub(crate) fn describe(&self) -> String {
        let mut text = match self {
            Self::Status(status) if is_broken(status) => {
                "error: the connection to the node broke before it answered".to_owned()
            }
            _ => format!("error: {}", printable(&self.to_string())),
        };
        if let Some(cause) = self.cause() {
            text.push_str("\ncause: ");
            text.push_str(&printable(&cause));
        }
        if let Self::Usage(error) = self
            && let Some(pointer) = error.pointer()
        {
            for line in pointer.lines() {
                text.push_str("\n    ");
                text.push_str(line);
            }
        }
        if let Self::Status(status) = self
            && let Some(hint) = hint(status)
        {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }
}

/// The innermost source: what the kernel said, below the words of every layer.
fn innermost(error: &dyn Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(cause.to_string())
}

/// Whether the transport made this status up, because no answer came. A status that was received
/// has no source.
fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}

/// What to do, where the node's message cannot know or does not say.
fn hint(status: &Status) -> Option<&'static str> {
    match reason(status) {
        Some(reason) => hint_of(reason),
        None if is_broken(status) => Some(IN_DOUBT),
        None => hint_of_code(status.code()),
    }
}

const IN_DOUBT: &str = "a write may have been made or not; look before you repeat it";
const VERSIONS: &str = "overlayctl and overlayd are of different versions";

/// The next step, where there is one that the message does not name.
const fn hint_of(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoLeader => {
            "writes and consistent reads need a majority of the managers; `overlayctl node ls` and \
             the daemon's log say who is missing"
        }
        Reason::NoManager => {
            "see that overlayd runs on the managers, and that TCP 2377 is open from here to them"
        }
        Reason::ManagerOut => {
            "this manager's log says more; what needs no other node goes on, and other managers may \
             answer on their hosts"
        }
        Reason::ManagerLags | Reason::NodeUnknown | Reason::NotYet => {
            "repeat the command in a moment"
        }
        Reason::TooManyCallers => {
            "some program keeps connections to the socket open; `ss -xp` says which"
        }
        Reason::Stale | Reason::EpochStep | Reason::EpochNumber | Reason::RootChanged => {
            "somebody else changed it at the same time; repeat the command"
        }
        Reason::Deadline => IN_DOUBT,
        Reason::NoSuchCall => VERSIONS,
        _ => return None,
    })
}

/// For what gRPC libraries make up, and for faults.
const fn hint_of_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Some(IN_DOUBT),
        Code::Unimplemented => Some(VERSIONS),
        Code::Internal | Code::DataLoss | Code::Unknown => {
            Some("this is a fault of the daemon; its log says more")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use overlay_api::status::with_reason;
    use overlay_types::PortSpec;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Code::NotFound, 4)]
    #[case(Code::InvalidArgument, 1)]
    #[case(Code::FailedPrecondition, 1)]
    #[case(Code::Unavailable, 1)]
    fn o02_a_refusal_has_its_exit_code(#[case] code: Code, #[case] expected: u8) {
        assert_eq!(Failure::from(Status::new(code, "no")).code(), expected);
    }

    #[test]
    fn o02_a_lost_connection_is_no_refusal() {
        let lost = Status::from_error(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert_eq!(Failure::from(lost).code(), 3);
    }

    /// The hint that is printed, in short.
    fn hinted(status: Status) -> &'static str {
        let text = Failure::from(status).describe();
        let words = [
            ("majority", "quorum"),
            ("TCP 2377", "reach"),
            ("log says more; what", "elsewhere"),
            ("in a moment", "wait"),
            ("ss -xp", "sockets"),
            ("somebody else", "again"),
            ("look before", "look"),
            ("versions", "versions"),
            ("fault of the daemon", "fault"),
        ];
        let Some((_, hint)) = text.split_once("\nhint: ") else { return "" };
        words.iter().find(|(word, _)| hint.contains(word)).expect("a hint of the table").1
    }

    /// The message says what to do, or the command line is to be changed.
    const SAY_ENOUGH: &[Reason] = &[
        Reason::InvalidArgument,
        Reason::Ambiguous,
        Reason::RequestReused,
        Reason::NotFound,
        Reason::ClusterExists,
        Reason::NameTaken,
        Reason::IdTaken,
        Reason::IngressExists,
        Reason::RequestUndone,
        Reason::TooMany,
        Reason::AddressesExhausted,
        Reason::PortsExhausted,
        Reason::JoinRate,
        Reason::NoCluster,
        Reason::Locked,
        Reason::NotLocked,
        Reason::AddressInUse,
        Reason::NetworkInUse,
        Reason::NoIngress,
        Reason::NotAttachable,
        Reason::ServiceNotOnNetwork,
        Reason::ServiceInUse,
        Reason::MissingCapability,
        Reason::FeatureLevel,
        Reason::VniInUse,
        Reason::MacInUse,
        Reason::PortInUse,
        Reason::LastManager,
        Reason::Quorum,
        Reason::NodeIsManager,
        Reason::MeshEndpoint,
        Reason::NodeNotActive,
        Reason::NodeAlive,
        Reason::RotationRunning,
        Reason::NodeInCluster,
        Reason::NodeOccupied,
        Reason::NodeIsWorker,
        Reason::NotPluggedIn,
        Reason::NotReady,
        Reason::RootInUse,
        Reason::NoCertificate,
        Reason::CertificateExpired,
        Reason::FormerRoot,
        Reason::JoinRefused,
        Reason::NodeRemoved,
        Reason::NotManager,
        Reason::OtherNode,
    ];

    #[test]
    fn o02_a_reason_has_the_next_step_that_fits() {
        let steps = [
            (Reason::NoLeader, "quorum"),
            (Reason::NoManager, "reach"),
            (Reason::ManagerOut, "elsewhere"),
            (Reason::ManagerLags, "wait"),
            (Reason::NodeUnknown, "wait"),
            (Reason::NotYet, "wait"),
            (Reason::TooManyCallers, "sockets"),
            (Reason::Stale, "again"),
            (Reason::EpochStep, "again"),
            (Reason::EpochNumber, "again"),
            (Reason::RootChanged, "again"),
            (Reason::Deadline, "look"),
            (Reason::NoSuchCall, "versions"),
        ];
        let known = steps.into_iter().chain(SAY_ENOUGH.iter().map(|reason| (*reason, "")));
        let known: HashMap<Reason, &str> = known.collect();
        for reason in Reason::ALL {
            // A new one is to be thought about.
            let step = known.get(reason).copied();
            assert_eq!(Some(hinted(with_reason(*reason, "no"))), step, "{}", reason.text());
        }
    }

    #[rstest]
    #[case(Code::Unavailable, "look")]
    #[case(Code::Cancelled, "look")]
    #[case(Code::Unimplemented, "versions")]
    #[case(Code::Internal, "fault")]
    #[case(Code::FailedPrecondition, "")]
    fn o02_what_has_no_reason_is_explained_by_its_code(#[case] code: Code, #[case] step: &str) {
        assert_eq!(hinted(Status::new(code, "no")), step);
    }

    #[test]
    fn s07_the_offending_part_is_underlined() {
        let failure = Failure::from(PortSpec::parse("8080:80/icmp").unwrap_err());
        assert_eq!(failure.code(), 2);
        assert_eq!(
            failure.describe(),
            "error: protocol \"icmp\" in \"8080:80/icmp\": a protocol is tcp, udp or sctp\n\
             \x20   8080:80/icmp\n\
             \x20           ^^^^"
        );
    }

    #[test]
    fn a_message_cannot_move_the_cursor() {
        let failure = Failure::from(Status::not_found("no network \"\x1b[2J\""));
        assert_eq!(failure.describe(), "error: no network \"\\u{1b}[2J\"");
    }
}
