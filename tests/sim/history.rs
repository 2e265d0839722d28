//! What clients asked for and were told, in the order of the run.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use overlay_types::{EndpointId, NetworkId, NodeId, Revision, Role, ServiceId};
use tonic::Code;

use crate::trace::Trace;

/// What a client asked for. Names and values are the number of the call that asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    CreateNetwork,
    CreateService,
    Attach {
        node: NodeId,
    },
    Detach(EndpointId),
    RemoveService(ServiceId),
    /// Sets a register that had its value since `based_on`.
    Write {
        register: usize,
        based_on: Revision,
    },
    Read {
        register: usize,
    },
    Rotate,
    Join(NodeId),
    SetRole {
        node: NodeId,
        role: Role,
    },
    RemoveNode(NodeId),
}

/// What it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Nothing that says whether it was done.
    Unknown,
    /// It was not done, and never will be.
    Refused(Code),
    /// It was done, and what it wrote was removed since.
    Undone,
    /// The new node.
    Node(NodeId, Revision),
    /// The new network.
    Network(NetworkId, Revision),
    /// The new service.
    Service(ServiceId, Revision),
    /// The new endpoint.
    Endpoint(EndpointId, NetworkId, BTreeSet<IpAddr>, Revision),
    /// The register's value, since this revision.
    Value(u64, Revision),
    /// It was done.
    Done,
}

/// One call, with all its repetitions.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) ask: Ask,
    pub(crate) begin: u64,
    /// `u64::MAX` while the client does not know.
    pub(crate) end: u64,
    pub(crate) told: Told,
}

/// All calls. Clones are the same history.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Mutex<Vec<Call>>>, Trace);

impl History {
    pub(crate) fn new(trace: Trace) -> Self {
        Self(Arc::default(), trace)
    }

    /// A call begins; answers with its number.
    pub(crate) fn begin(&self, ask: Ask) -> u64 {
        let mut calls = self.0.lock().unwrap();
        let number = calls.len() as u64;
        self.1.note(|| format!("call {number}: {ask:?}"));
        let (begin, end, told) = (self.1.tick(), u64::MAX, Told::Unknown);
        calls.push(Call { number, ask, begin, end, told });
        number
    }

    /// The call's client was told this.
    pub(crate) fn end(&self, number: u64, told: Told) {
        self.1.note(|| format!("call {number} was told {told:?}"));
        let mut calls = self.0.lock().unwrap();
        let call = &mut calls[usize::try_from(number).expect("few")];
        if told != Told::Unknown {
            call.end = self.1.tick();
        }
        call.told = told;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }
}
