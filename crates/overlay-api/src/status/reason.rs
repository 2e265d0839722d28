//! Every reason code there is, with its gRPC code.

use tonic::Code;

macro_rules! reasons {
    ($($name:ident = $text:literal, $code:ident, $meaning:literal;)*) => {
        /// Why a call was refused, for programs. Texts are stable; new ones may come.
        ///
        /// `control.proto` has the same table, for whoever reads the protocol only.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason {
            $(
                #[doc = concat!("`", $text, "`: ", $meaning, ".")]
                $name,
            )*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code in `ErrorInfo.reason`.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The gRPC code that it comes with.
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }

            /// The one with this code.
            pub fn of_text(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.text() == text)
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

reasons! {
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, "a field has a value that it cannot have";
    Ambiguous = "AMBIGUOUS", InvalidArgument, "several objects answer to the prefix or name";
    RequestReused = "REQUEST_REUSED", InvalidArgument, "the request id was used for another write";
    NotFound = "NOT_FOUND", NotFound, "no object answers to the name, id or prefix";
    ClusterExists = "CLUSTER_EXISTS", AlreadyExists, "the cluster was made before";
    NameTaken = "NAME_TAKEN", AlreadyExists, "another object has the name";
    IdTaken = "ID_TAKEN", AlreadyExists, "another object has the id";
    IngressExists = "INGRESS_EXISTS", AlreadyExists, "there is an ingress network";
    RequestUndone = "REQUEST_UNDONE", Aborted, "what the request wrote was removed since";
    Stale = "STALE", Aborted, "the object changed since changed_at: read it again";
    EpochStep = "EPOCH_STEP", Aborted, "a key epoch is past that step";
    EpochNumber = "EPOCH_NUMBER", Aborted, "another key epoch came first";
    RootChanged = "ROOT_CHANGED", Aborted, "the roots of the CA changed meanwhile";
    TooMany = "TOO_MANY", ResourceExhausted, "a limit of the cluster is reached";
    AddressesExhausted = "ADDRESSES_EXHAUSTED", ResourceExhausted, "no free subnet or address";
    PortsExhausted = "PORTS_EXHAUSTED", ResourceExhausted, "no free port to publish";
    JoinRate = "JOIN_RATE", ResourceExhausted, "too many joins in too short a time";
    TooManyCallers = "TOO_MANY_CALLERS", ResourceExhausted, "too many connections to the node's socket";
    NoCluster = "NO_CLUSTER", FailedPrecondition, "there is no cluster yet";
    Locked = "LOCKED", FailedPrecondition, "the manager needs the unlock key to start";
    NotLocked = "NOT_LOCKED", FailedPrecondition, "managers are not locked";
    AddressInUse = "ADDRESS_IN_USE", FailedPrecondition, "subnet or address are in use";
    NetworkInUse = "NETWORK_IN_USE", FailedPrecondition, "endpoints or services are on the network";
    NoIngress = "NO_INGRESS", FailedPrecondition, "ports of mode ingress need an ingress network";
    NotAttachable = "NOT_ATTACHABLE", FailedPrecondition, "the network takes tasks of services only";
    ServiceNotOnNetwork = "SERVICE_NOT_ON_NETWORK", FailedPrecondition, "the service is not on the endpoint's network";
    ServiceInUse = "SERVICE_IN_USE", FailedPrecondition, "the service has tasks";
    MissingCapability = "MISSING_CAPABILITY", FailedPrecondition, "the node cannot do that";
    FeatureLevel = "FEATURE_LEVEL", FailedPrecondition, "a node's release does not know of it";
    VniInUse = "VNI_IN_USE", FailedPrecondition, "another network has the VNI";
    MacInUse = "MAC_IN_USE", FailedPrecondition, "another endpoint has the MAC address";
    PortInUse = "PORT_IN_USE", FailedPrecondition, "the port is published already";
    LastManager = "LAST_MANAGER", FailedPrecondition, "no manager would be left";
    Quorum = "QUORUM", FailedPrecondition, "too few managers that are alive would be left";
    NodeIsManager = "NODE_IS_MANAGER", FailedPrecondition, "the node has to be demoted first";
    NodeNotActive = "NODE_NOT_ACTIVE", FailedPrecondition, "the node is paused or drained";
    MeshEndpoint = "MESH_ENDPOINT", FailedPrecondition, "the endpoint is a node's place in the routing mesh";
    NodeAlive = "NODE_ALIVE", FailedPrecondition, "the node is not known to be dead";
    RotationRunning = "ROTATION_RUNNING", FailedPrecondition, "keys are being rotated";
    NodeInCluster = "NODE_IN_CLUSTER", FailedPrecondition, "the node is in a cluster already";
    NodeOccupied = "NODE_OCCUPIED", FailedPrecondition, "the node's data directory holds something else";
    NodeIsWorker = "NODE_IS_WORKER", FailedPrecondition, "only a manager can do it";
    NotPluggedIn = "NOT_PLUGGED_IN", FailedPrecondition, "the node cannot give the endpoint its port";
    NotReady = "NOT_READY", FailedPrecondition, "the node lacks a key for the epoch";
    RootInUse = "ROOT_IN_USE", FailedPrecondition, "nodes have certificates of another root";
    Deadline = "DEADLINE", DeadlineExceeded, "the caller's deadline passed; a write may be applied yet";
    NoSuchCall = "NO_SUCH_CALL", Unimplemented, "there is no such call here";
    NoCertificate = "NO_CERTIFICATE", Unauthenticated, "the call needs a node certificate";
    CertificateExpired = "CERTIFICATE_EXPIRED", Unauthenticated, "the certificate has ended";
    FormerRoot = "FORMER_ROOT", Unauthenticated, "the root of the certificate was replaced";
    JoinRefused = "JOIN_REFUSED", PermissionDenied, "the token is not one of the cluster's";
    NodeRemoved = "NODE_REMOVED", PermissionDenied, "the node was removed from the cluster";
    NotManager = "NOT_MANAGER", PermissionDenied, "the call is for managers";
    OtherNode = "OTHER_NODE", PermissionDenied, "a worker speaks for itself only";
    NodeUnknown = "NODE_UNKNOWN", Unavailable, "this manager may be behind: ask again";
    NoLeader = "NO_LEADER", Unavailable, "no manager leads now; a write may be applied yet";
    ManagerLags = "MANAGER_LAGS", Unavailable, "this manager is behind: ask again, or another";
    ManagerOut = "MANAGER_OUT", Unavailable, "this manager takes no part for now: ask another";
    NoManager = "NO_MANAGER", Unavailable, "this node reaches no manager";
    NotYet = "NOT_YET", Unavailable, "something that is under way comes first: ask again";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Code` as the protocol's documents write it.
    fn protocol_name(code: Code) -> String {
        let mut name = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }

    /// What `google.rpc.ErrorInfo` says about reasons.
    #[test]
    fn o03_reasons_are_in_upper_snake_case() {
        for reason in Reason::ALL.iter().map(|reason| reason.text()) {
            let fits = |c: char| c.is_ascii_uppercase() || c == '_';
            assert!(reason.len() <= 63 && reason.chars().all(fits), "{reason}");
            assert!(!reason.starts_with('_') && !reason.ends_with('_'), "{reason}");
        }
    }

    #[test]
    fn the_protocol_documents_every_reason_and_no_other() {
        let proto = include_str!("../../proto/overlay/v1/control.proto");
        let rows = proto.lines().filter_map(|line| line.strip_prefix("// | "));
        let rows = rows.filter(|row| !row.starts_with("reason ") && !row.starts_with("--"));
        let documented: Vec<Vec<&str>> =
            rows.map(|row| row.trim_end_matches('|').split('|').map(str::trim).collect()).collect();
        let known: Vec<Vec<String>> = Reason::ALL
            .iter()
            .map(|r| vec![r.text().to_owned(), protocol_name(r.code()), r.meaning().to_owned()])
            .collect();
        assert_eq!(documented, known);
    }
}
