//! `overlay.v1.Watcher`.

use core::time::Duration;
use std::sync::Arc;

use overlay_api::{
    convert,
    status::{Reason, with_reason},
    v1,
};
use overlay_types::{Change, NodeId, Revision};
use prost::Message;
use tokio::{
    sync::{
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        mpsc, watch,
    },
    time::{Instant, sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, gate::Caller, invalid};
use crate::{
    control::Touch,
    raft::replica::Replica,
    state::State,
    watch::{Batch, Event, Feed, Gathered, Interest},
};

/// Messages that a subscriber may have under way. One that is slower lags in the events and gets a
/// snapshot when it has caught up: it never holds more memory than this here.
const UNDER_WAY: usize = 16;
/// Bytes after which a message ends. With the largest object this is less than the 4 MiB that
/// clients accept unless they are told otherwise.
const MESSAGE_BYTES: usize = 1 << 20;
/// Changes that are gathered for one batch of messages, about 300 kB.
const CHANGES_IN_BATCH: usize = 1024;
/// How long a subscriber waits to hear of a revision that changed nothing for it. Most writes
/// concern few nodes; telling each to all would cost as many messages as there are nodes.
const UNCONCERNED: Duration = Duration::from_millis(200);
/// Between two batches of one subscriber. Under load, what is told is the state every so often, not all
/// that it was in between; far less than a node takes to act on it.
const PACE: Duration = Duration::from_millis(10);

type Messages = mpsc::Sender<Result<v1::WatchResponse, Status>>;

#[tonic::async_trait]
impl v1::watcher_server::Watcher for Api {
    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let node: Option<NodeId> = match request.get_ref().node.as_str() {
            "" => None,
            text => Some(convert::parse("node", text).map_err(invalid)?),
        };
        if let Some(node) = node {
            // Its view holds the gossip ring.
            Caller::of(&request)?.speaks_for(node)?;
        }
        let from = Revision::new(request.into_inner().from_revision);
        let interest = |state: &State| match node {
            Some(node) => Interest::of_node(node, state.view()),
            None => Interest::Everything,
        };
        let mut core = self.control.raft().server_metrics();
        if self.control.raft().metrics().borrow().running_state.is_err() {
            return Err(stopped());
        }
        let mut touch = self.control.touch();
        // Refused meanwhile, its own node would leave it for another one.
        tokio::select! {
            status = ended(&mut core) => return Err(status),
            looked = wait_for_look(&mut touch) => looked?,
        }
        let replica = Arc::clone(self.control.replica());
        // One that joined a moment ago has no state yet, one that was away an old one.
        let known = replica.read(|state| state.view().cluster().map(|_| state.revision()));
        if known.is_none_or(|revision| revision < from) {
            let message = "this manager lags behind; ask another";
            return Err(with_reason(Reason::ManagerLags, message));
        }
        let (events, feed, first) = replica.subscribe(interest, from);
        // It may have been removed since the gate looked.
        replica.read(|state| check_there(state, node))?;
        let (messages, stream) = mpsc::channel(UNDER_WAY);
        let over = async move { over(core, touch).await };
        let carried = (events, feed, first);
        tokio::spawn(async move { carry((&replica, node), over, carried, &messages).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn stopped() -> Status {
    with_reason(Reason::ManagerOut, "this manager's raft core has ended; ask another")
}

fn out_of_touch() -> Status {
    with_reason(Reason::ManagerOut, "no leader answers this manager; ask another")
}

/// A node that was removed is told nothing of what came after, however soon that was.
fn check_there(state: &State, node: Option<NodeId>) -> Result<(), Status> {
    if node.is_none_or(|node| state.view().nodes().contains_key(&node)) {
        return Ok(());
    }
    Err(with_reason(Reason::NodeRemoved, "the node was removed from the cluster"))
}

/// Waits until the manager has looked whether a leader answers it. A look ends within seconds, but a
/// manager that stops has none.
async fn wait_for_look(touch: &mut watch::Receiver<Touch>) -> Result<(), Status> {
    let looked = touch.wait_for(|touch| *touch != Touch::Unknown).await;
    if looked.is_ok_and(|touch| *touch == Touch::In) { Ok(()) } else { Err(out_of_touch()) }
}

/// Waits until the raft core has ended, which its sender does not outlive: after that nothing is ever
/// applied, nor is there another look.
async fn ended<M>(core: &mut watch::Receiver<M>) -> Status {
    while core.changed().await.is_ok() {}
    stopped()
}

/// Waits until nothing more is to be told, and says why.
async fn over<M>(mut core: watch::Receiver<M>, mut touch: watch::Receiver<Touch>) -> Status {
    tokio::select! {
        status = ended(&mut core) => status,
        _ = touch.wait_for(|touch| *touch != Touch::In) => out_of_touch(),
    }
}

/// Carries batches until the subscriber is gone, or `over` says why there will be no more.
async fn carry(
    (replica, node): (&Replica, Option<NodeId>),
    over: impl Future<Output = Status>,
    (mut events, mut feed, first): (broadcast::Receiver<Event>, Feed, Batch),
    messages: &Messages,
) {
    tokio::pin!(over);
    let mut batch = Some(first);
    loop {
        if let Some(batch) = batch.take()
            && send(messages, &batch).await.is_err()
        {
            return;
        }
        let not_before = Instant::now() + PACE;
        let gathered = tokio::select! {
            gathered = gather((replica, node), &mut events, &mut feed, not_before) => gathered,
            () = messages.closed() => return,
            status = &mut over => {
                // The subscriber may be gone.
                let _ = messages.send(Err(status)).await;
                return;
            }
        };
        batch = match gathered {
            Ok(Some(gathered)) => Some(gathered.told()),
            Ok(None) => return,
            Err(status) => {
                // The subscriber may be gone.
                let _ = messages.send(Err(status)).await;
                return;
            }
        };
    }
}

/// The next batch, of all that has happened when there is something to tell, which is not before then.
/// `None` at the end; an error when the node that watches is not there any more.
async fn gather(
    (replica, node): (&Replica, Option<NodeId>),
    events: &mut broadcast::Receiver<Event>,
    feed: &mut Feed,
    not_before: Instant,
) -> Result<Option<Gathered>, Status> {
    let mut gathered: Option<(Gathered, Instant)> = None;
    let mut paced = false;
    loop {
        if !paced && gathered.as_ref().is_some_and(|(told, _)| !told.is_empty()) {
            sleep_until(not_before).await;
            paced = true;
        }
        let event = match &gathered {
            None => match events.recv().await {
                Err(RecvError::Closed) => return Ok(None),
                event => event,
            },
            Some((told, due)) if told.is_empty() => match timeout_at(*due, events.recv()).await {
                Ok(event) => event,
                Err(_) => return Ok(gathered.map(|(told, _)| told)),
            },
            Some((told, _)) if told.changes() >= CHANGES_IN_BATCH => {
                return Ok(gathered.map(|(told, _)| told));
            }
            Some(_) => match events.try_recv() {
                Ok(event) => Ok(event),
                Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => {
                    return Ok(gathered.map(|(told, _)| told));
                }
            },
        };
        let next = replica.read(|state| {
            check_there(state, node)?;
            Ok::<_, Status>(match event {
                Ok(event) => feed.next(state.view(), &event),
                Err(RecvError::Lagged(_)) => Some(feed.restart(state.view())),
                Err(RecvError::Closed) => None,
            })
        })?;
        match (&mut gathered, next) {
            (_, None) => {}
            (Some((told, _)), Some(next)) => told.extend(next),
            (None, Some(next)) => gathered = Some((next.into(), Instant::now() + UNCONCERNED)),
        }
    }
}

/// Sends a batch in pieces. One without changes is sent too: it tells the revision.
async fn send(messages: &Messages, batch: &Batch) -> Result<(), ()> {
    let mut left = batch.changes.as_slice();
    let mut snapshot = batch.snapshot;
    loop {
        let (changes, rest) = piece(left);
        let more = !rest.is_empty();
        let message = v1::WatchResponse { revision: batch.revision.get(), snapshot, more, changes };
        messages.send(Ok(message)).await.map_err(drop)?;
        if !more {
            return Ok(());
        }
        left = rest;
        snapshot = false;
    }
}

/// The first of these changes, as many as a message holds, and the others.
fn piece(changes: &[Change]) -> (Vec<v1::Change>, &[Change]) {
    let mut piece = Vec::new();
    let mut bytes = 0;
    for (at, change) in changes.iter().enumerate() {
        if bytes >= MESSAGE_BYTES {
            return (piece, &changes[at..]);
        }
        let change = v1::Change::from(change);
        bytes += change.encoded_len();
        piece.push(change);
    }
    (piece, &[])
}
