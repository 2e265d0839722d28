//! `grpc.health.v1.Health`, the standard service that probes and load balancers ask.
//!
//! Every service of a node has the health of the node: on a manager [`of_manager`], on a worker
//! "serving" as long as it answers at all.

use core::{pin::Pin, time::Duration};

use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::{
    ServingStatus,
    pb::{
        self, HealthCheckRequest, HealthCheckResponse,
        health_check_response::ServingStatus as Wire, health_server::HealthServer,
    },
};

use crate::control::{Control, Touch};

/// Between two looks for a watcher. Changes of health last for seconds: an election, a full disk.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A manager serves unless it takes no part in its cluster for now
/// ([`failure`](Control::failure)), knows no leader, or is answered by none: then it can neither write
/// nor read.
pub async fn of_manager(control: &Control) -> ServingStatus {
    let in_touch = *control.touch().borrow() != Touch::Out;
    if in_touch && control.failure().is_none() && control.leader().await.is_some() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// The health service. `F` looks at the health of the node.
#[derive(Clone, Debug)]
pub struct Health<F> {
    services: &'static [&'static str],
    look: F,
}

impl<F, L> Health<F>
where
    F: Fn() -> L + Clone + Send + Sync + 'static,
    L: Future<Output = ServingStatus> + Send + 'static,
{
    /// Tells the health of these services, full names, and of the node as a whole, the empty name.
    pub fn server(services: &'static [&'static str], look: F) -> HealthServer<Self> {
        HealthServer::new(Self { services, look })
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

fn answer(status: Wire) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl<F, L> pb::health_server::Health for Health<F>
where
    F: Fn() -> L + Clone + Send + Sync + 'static,
    L: Future<Output = ServingStatus> + Send + 'static,
{
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !self.knows(&service) {
            let message = format!("service {service:?}: this node serves none of that name");
            return Err(Status::not_found(message));
        }
        Ok(Response::new(answer((self.look)().await.into())))
    }

    /// The health now and whenever it changed. A service that is not here is `SERVICE_UNKNOWN`,
    /// and the stream stays open, as the protocol has it.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.into_inner().service);
        let look = self.look.clone();
        let begin = (None, tokio::time::interval(LOOK_EVERY));
        let changes = stream::unfold(begin, move |(told, mut looks)| {
            let look = look.clone();
            async move {
                loop {
                    looks.tick().await;
                    let now = if known { look().await.into() } else { Wire::ServiceUnknown };
                    if told != Some(now) {
                        return Some((Ok(answer(now)), (Some(now), looks)));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
