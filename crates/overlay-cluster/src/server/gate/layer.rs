//! The gate around services.

use core::task::{Context, Poll};

use futures::future::BoxFuture;
use overlay_types::Role;
use tonic::{Request, Status, codegen::http};
use tower::{Layer, Service};

use super::{Access, Caller, Footing, Freshness, Known, Refusal, Standing, Tie, access, check};
use crate::{
    ca::{ConnectionInfo, Peer},
    control::Control,
    server::ending::{End, Ending},
    state::State,
};

/// Puts the gate of a manager around services.
#[derive(Clone, Debug)]
pub(in crate::server) struct Gate(pub(in crate::server) Control);

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { control: self.0.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub(in crate::server) struct Gated<S> {
    control: Control,
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Gated<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = http::Response<Ending<R, Guard>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // The one that is ready goes with the call.
        let next = self.inner.clone();
        let mut inner = core::mem::replace(&mut self.inner, next);
        let control = self.control.clone();
        Box::pin(async move {
            let connection = request.extensions().get::<ConnectionInfo>().copied();
            match admit(&control, request.uri().path(), connection).await {
                Ok(admitted) => {
                    let guard = admitted.map(|(caller, guard)| {
                        request.extensions_mut().insert(caller);
                        if guard.access == Access::Raft {
                            request.extensions_mut().insert(guard.clone());
                        }
                        guard
                    });
                    let response = inner.call(request).await?;
                    Ok(response.map(|body| Ending::lazily(body, guard)))
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Lets a call in, or says why not. One whose caller this manager does not know is decided on when
/// it has caught up.
async fn admit(
    control: &Control,
    path: &str,
    connection: Option<ConnectionInfo>,
) -> Result<Option<(Caller, Guard)>, Status> {
    let access = access(path)?;
    let peer = connection.and_then(|connection| connection.peer);
    let caller = match look(control, access, peer, Freshness::MayLag) {
        Err(Refusal::InDoubt(_)) => {
            control.linearize().await?;
            look(control, access, peer, Freshness::Current)?
        }
        decided => decided?,
    };
    let guard = |peer| Guard { control: control.clone(), access, peer };
    Ok(caller.zip(peer.map(guard)))
}

fn look(
    control: &Control,
    access: Access,
    peer: Option<Peer>,
    freshness: Freshness,
) -> Result<Option<Caller>, Refusal> {
    let nobody =
        Known { standing: Standing::Absent, footing: Footing::Unknown, freshness, tie: Tie::None };
    let known = peer.map_or(nobody, |peer| {
        let newer = |state: &State| peer.as_of > state.revision();
        let known = control.replica().read(|state| Known {
            standing: Standing::of(peer.identity.node, state),
            footing: Footing::of(peer, state),
            freshness,
            tie: if newer(state) { Tie::Newer } else { Tie::None },
        });
        // Most callers of raft are known managers; the look at the group is for the others.
        let asks = access == Access::Raft && known.standing != Standing::Member(Role::Manager);
        if asks && known.tie == Tie::None && control.is_member(peer.identity.node) {
            return Known { tie: Tie::InGroup, ..known };
        }
        known
    });
    check(access, peer, known, control.now())
}

/// Whom an answer goes to, and what for.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    control: Control,
    access: Access,
    peer: Peer,
}

impl End for Guard {
    fn wait(self) -> BoxFuture<'static, Status> {
        Box::pin(self.refused())
    }
}

impl Guard {
    /// Of a call of raft, as the gate let it in.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let guard = request.extensions().get().cloned();
        guard.ok_or_else(|| Status::internal("the call did not come through the gate"))
    }

    /// Whether the caller would be let in now.
    pub(crate) fn look(&self) -> Result<(), Status> {
        look(&self.control, self.access, Some(self.peer), Freshness::Current)?;
        Ok(())
    }

    /// Waits until the caller would be refused.
    async fn refused(self) -> Status {
        let Self { control, access, peer } = self;
        let mut departures = control.replica().departures();
        loop {
            // Who was let in was known, with its root: if it is not any more, it was removed, or the
            // root replaced.
            if let Err(refusal) = look(&control, access, Some(peer), Freshness::Current) {
                return refusal.into();
            }
            let left = peer
                .not_after
                .since(control.now())
                .clamp(super::SHORTEST_LOOK, super::LONGEST_LOOK);
            // Whatever comes first, the next look decides.
            let _ = tokio::time::timeout(left, departures.changed()).await;
        }
    }
}
