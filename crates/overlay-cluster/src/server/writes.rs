//! `overlay.v1.Writes`.

use core::future::ready;
use std::sync::Arc;

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use overlay_api::v1::{
    self, networks_server::Networks, services_server::Services, write_request::Write,
    write_response::Answer,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, needed};

/// Writes of one call that are under way. What more there is stays in HTTP/2's window.
const UNDER_WAY: usize = 1024;

#[tonic::async_trait]
impl v1::writes_server::Writes for Api {
    type WriteStream = BoxStream<'static, Result<v1::WriteResponse, Status>>;

    async fn write(
        &self,
        request: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let api = Arc::new(self.clone());
        let (tell, told) = oneshot::channel();
        // A message that is none ends the requests. What was asked before it is answered first: it is done.
        let requests = request.into_inner().scan(Some(tell), |tell, message| {
            let message = message.map_err(|status| tell.take().map(|tell| tell.send(status)));
            ready(message.ok())
        });
        let answers = requests.map(move |v1::WriteRequest { number, write }| {
            let api = Arc::clone(&api);
            async move {
                let answer = api.write_one(write).await.unwrap_or_else(|status| refusal(&status));
                Ok(v1::WriteResponse { number, answer: Some(answer) })
            }
        });
        let error = stream::once(told).filter_map(|told| ready(told.ok().map(Err)));
        Ok(Response::new(answers.buffer_unordered(UNDER_WAY).chain(error).boxed()))
    }
}

impl Api {
    /// A write as if by a call of its own. The table of the gate has the same access for all of them.
    async fn write_one(&self, write: Option<Write>) -> Result<Answer, Status> {
        Ok(match needed("write", write)? {
            Write::CreateNetwork(request) => Answer::CreateNetwork(
                self.create_network(Request::new(request)).await?.into_inner(),
            ),
            Write::UpdateNetwork(request) => Answer::UpdateNetwork(
                self.update_network(Request::new(request)).await?.into_inner(),
            ),
            Write::RemoveNetwork(request) => Answer::RemoveNetwork(
                self.remove_network(Request::new(request)).await?.into_inner(),
            ),
            Write::CreateService(request) => Answer::CreateService(
                self.create_service(Request::new(request)).await?.into_inner(),
            ),
            Write::UpdateService(request) => Answer::UpdateService(
                self.update_service(Request::new(request)).await?.into_inner(),
            ),
            Write::RemoveService(request) => Answer::RemoveService(
                self.remove_service(Request::new(request)).await?.into_inner(),
            ),
        })
    }
}

fn refusal(status: &Status) -> Answer {
    Answer::Refusal(v1::Refusal {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: status.details().to_vec(),
    })
}
