//! The cases, and the fields that need none. Data only.

use std::collections::BTreeMap;

use tonic::Code;

/// A wrong value of one field.
pub(super) struct Case {
    pub(super) rpc: &'static str,
    /// Path of the field in the request.
    pub(super) field: &'static str,
    pub(super) request: &'static str,
    pub(super) code: Code,
    /// The field as the answer calls it.
    pub(super) named: Option<&'static str>,
    /// What the message must contain.
    pub(super) value: &'static str,
}

/// What there is before the first case: calls and their requests.
pub(super) const STAGE: &[(&str, &str)] = &[
    (
        "Networks.CreateNetwork",
        "spec { name: 'net' attachable: true subnets { subnet: '10.70.0.0/24' } }",
    ),
    ("Services.CreateService", "spec { name: 'svc' networks { network: 'net' } }"),
    ("Endpoints.AttachEndpoint", "spec { network: 'net' name: 'box' }"),
];

/// Fields of which no value is wrong, by their full name or as `RPC PATH`, and why.
pub(super) const FREE: &[(&str, &str)] = &[
    ("overlay.v1.Meta.created_at", "a request's is ignored"),
    ("overlay.v1.Meta.changed_at", "a request's is ignored"),
    ("overlay.v1.WriteRequest.number", "the caller's"),
    ("Membership.Join node.id", "the manager decides"),
    ("Membership.Join node.role", "the secret decides"),
    ("Membership.Join node.root", "the manager decides"),
    ("Membership.Join node.role_since", "the managers decide"),
    ("Membership.Join node.host.kernel", "passed over: it is announced later; so the next"),
    ("Membership.Join node.host.missing", "as before"),
    ("Membership.Join node.host.data_path_mtu", "as before"),
    ("Membership.Join node.host.plain_mtu", "as before"),
    ("Membership.Join node.host.encrypted_mtu", "as before"),
    ("Reports.AnnounceCapabilities capabilities.level", "passed over: another call tells it"),
];

/// The cases of `cases.txt`, which says what its columns are.
pub(super) fn cases() -> Vec<Case> {
    let codes: BTreeMap<&str, Code> = [
        ("INVALID_ARGUMENT", Code::InvalidArgument),
        ("NOT_FOUND", Code::NotFound),
        ("FAILED_PRECONDITION", Code::FailedPrecondition),
        ("ABORTED", Code::Aborted),
        ("UNAVAILABLE", Code::Unavailable),
        ("PERMISSION_DENIED", Code::PermissionDenied),
        ("UNAUTHENTICATED", Code::Unauthenticated),
    ]
    .into();
    let mut rpc = "";
    let mut cases = Vec::new();
    for line in include_str!("cases.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if !line.starts_with(' ') {
            rpc = line;
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [field, request, code, named, value] = columns[..] else { panic!("columns: {line}") };
        let named = (named != "-").then_some(named);
        cases.push(Case { rpc, field, request, code: codes[code], named, value });
    }
    cases
}
