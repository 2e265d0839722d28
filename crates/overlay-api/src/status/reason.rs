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

            /// The code in `overlay-reason`.
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
    InvalidArgument = "invalid-argument", InvalidArgument, "a field has a value that it cannot have";
    Ambiguous = "ambiguous", InvalidArgument, "several objects answer to the prefix or name";
    RequestReused = "request-reused", InvalidArgument, "the request id was used for another write";
    NotFound = "not-found", NotFound, "no object answers to the name, id or prefix";
    ClusterExists = "cluster-exists", AlreadyExists, "the cluster was made before";
    NameTaken = "name-taken", AlreadyExists, "another object has the name";
    IdTaken = "id-taken", AlreadyExists, "another object has the id";
    IngressExists = "ingress-exists", AlreadyExists, "there is an ingress network";
    RequestUndone = "request-undone", Aborted, "what the request wrote was removed since";
    Stale = "stale", Aborted, "the object changed since changed_at: read it again";
    EpochStep = "epoch-step", Aborted, "a key epoch is past that step";
    EpochNumber = "epoch-number", Aborted, "another key epoch came first";
    TooMany = "too-many", ResourceExhausted, "a limit of the cluster is reached";
    AddressesExhausted = "addresses-exhausted", ResourceExhausted, "no free subnet or address";
    PortsExhausted = "ports-exhausted", ResourceExhausted, "no free port to publish";
    JoinRate = "join-rate", ResourceExhausted, "too many joins in too short a time";
    NoCluster = "no-cluster", FailedPrecondition, "there is no cluster yet";
    Locked = "locked", FailedPrecondition, "the manager needs the unlock key to start";
    NotLocked = "not-locked", FailedPrecondition, "managers are not locked";
    AddressInUse = "address-in-use", FailedPrecondition, "subnet or address are in use";
    NetworkInUse = "network-in-use", FailedPrecondition, "endpoints or services are on the network";
    NoIngress = "no-ingress", FailedPrecondition, "ports of mode ingress need an ingress network";
    NotAttachable = "not-attachable", FailedPrecondition, "the network takes tasks of services only";
    ServiceNotOnNetwork = "service-not-on-network", FailedPrecondition, "the service is not on the endpoint's network";
    ServiceInUse = "service-in-use", FailedPrecondition, "the service has tasks";
    MissingCapability = "missing-capability", FailedPrecondition, "the node cannot do that";
    FeatureLevel = "feature-level", FailedPrecondition, "a node's release does not know of it";
    VniInUse = "vni-in-use", FailedPrecondition, "another network has the VNI";
    MacInUse = "mac-in-use", FailedPrecondition, "another endpoint has the MAC address";
    PortInUse = "port-in-use", FailedPrecondition, "the port is published already";
    LastManager = "last-manager", FailedPrecondition, "no manager would be left";
    Quorum = "quorum", FailedPrecondition, "too few managers that are alive would be left";
    NodeIsManager = "node-is-manager", FailedPrecondition, "the node has to be demoted first";
    NodeNotActive = "node-not-active", FailedPrecondition, "the node is paused or drained";
    NodeAlive = "node-alive", FailedPrecondition, "the node is not known to be dead";
    RotationRunning = "rotation-running", FailedPrecondition, "keys are being rotated";
    NotReady = "not-ready", FailedPrecondition, "the node lacks a key for the epoch";
    NoSuchCall = "no-such-call", Unimplemented, "managers do not serve the call to nodes";
    NoCertificate = "no-certificate", Unauthenticated, "the call needs a node certificate";
    CertificateExpired = "certificate-expired", Unauthenticated, "the certificate has ended";
    NodeRemoved = "node-removed", PermissionDenied, "the node was removed from the cluster";
    NotManager = "not-manager", PermissionDenied, "the call is for managers";
    OtherNode = "other-node", PermissionDenied, "a worker speaks for itself only";
    NodeUnknown = "node-unknown", Unavailable, "this manager may be behind: ask again";
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
