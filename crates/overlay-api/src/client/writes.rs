//! Many writes over one call.
//!
//! ```text
//!   write ──► number ──► requests ──────────────► Writes.Write
//!     ▲         └► waiting: number → reply            │
//!     └────────────── reply ◄── task ◄── answers ◄────┘
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::v1::{self, write_request::Write, write_response::Answer, writes_client::WritesClient};

/// Requests that wait to be sent; as many as a manager has under way of one call.
const QUEUE: usize = 1024;

/// Writes over one call. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct WriteStream {
    requests: mpsc::Sender<v1::WriteRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Writes that are not answered.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    replies: HashMap<u64, oneshot::Sender<Answer>>,
    /// Why the call ended.
    ended: Option<Status>,
}

macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident: $kind:ident($request:ident) -> $response:ident;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Status> {
            match self.write(Write::$kind(request)).await? {
                Answer::$kind(response) => Ok(response),
                other => Err(Status::internal(format!("the answer is of another call: {other:?}"))),
            }
        }
    )*};
}

impl WriteStream {
    /// Begins the call.
    pub async fn open(channel: Channel) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(QUEUE);
        let answers = WritesClient::new(channel).write(ReceiverStream::new(stream)).await?;
        let waiting = Arc::default();
        tokio::spawn(receive(answers.into_inner(), Arc::clone(&waiting)));
        Ok(Self { requests, waiting })
    }

    writes! {
        /// As `Networks.CreateNetwork`.
        create_network: CreateNetwork(CreateNetworkRequest) -> CreateNetworkResponse;
        /// As `Networks.UpdateNetwork`.
        update_network: UpdateNetwork(UpdateNetworkRequest) -> UpdateNetworkResponse;
        /// As `Networks.RemoveNetwork`.
        remove_network: RemoveNetwork(RemoveNetworkRequest) -> RemoveNetworkResponse;
        /// As `Services.CreateService`.
        create_service: CreateService(CreateServiceRequest) -> CreateServiceResponse;
        /// As `Services.UpdateService`.
        update_service: UpdateService(UpdateServiceRequest) -> UpdateServiceResponse;
        /// As `Services.RemoveService`.
        remove_service: RemoveService(RemoveServiceRequest) -> RemoveServiceResponse;
    }

    /// Any write. Its status is that of a call of its own; UNAVAILABLE without details if the call of
    /// all of them ended first.
    pub async fn write(&self, write: Write) -> Result<Answer, Status> {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            if let Some(ended) = &waiting.ended {
                return Err(ended.clone());
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.replies.insert(number, reply);
            number
        };
        // An error: the call ended, and its end is told below.
        let _ = self.requests.send(v1::WriteRequest { number, write: Some(write) }).await;
        match answer.await {
            Ok(Answer::Refusal(v1::Refusal { code, message, details })) => {
                Err(Status::with_details(Code::from_i32(code), message, details.into()))
            }
            Ok(answer) => Ok(answer),
            Err(_) => Err(lock(&self.waiting).ended.clone().unwrap_or_else(|| over(None))),
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn over(status: Option<Status>) -> Status {
    let message =
        "the call of many writes ended; repeat this one, with its request id, over another";
    match status {
        Some(status) => Status::unavailable(format!("{message}: {}", status.message())),
        None => Status::unavailable(message),
    }
}

/// Hands answers to who waits for them, until the call ends.
async fn receive(mut answers: Streaming<v1::WriteResponse>, waiting: Arc<Mutex<Waiting>>) {
    let ended = loop {
        match answers.message().await {
            Ok(Some(v1::WriteResponse { number, answer })) => {
                let reply = lock(&waiting).replies.remove(&number);
                if let Some((reply, answer)) = reply.zip(answer) {
                    // Whoever asked may be gone.
                    drop(reply.send(answer));
                }
            }
            Ok(None) => break over(None),
            Err(status) => break over(Some(status)),
        }
    };
    let mut waiting = lock(&waiting);
    waiting.ended = Some(ended);
    waiting.replies.clear();
}
