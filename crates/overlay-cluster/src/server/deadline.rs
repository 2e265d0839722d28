//! Deadlines of callers: a call that comes with `grpc-timeout` ends in time, and so does what is
//! done for it.
//!
//! tonic's server has the answer's first byte in view only, and says CANCELLED.
//!
//! ```text
//!   call ──► no answer yet ──deadline──► DEADLINE_EXCEEDED, the work is dropped
//!              └ answer goes on ──deadline──► its trailers say so, the stream is dropped
//! ```

use core::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use overlay_api::status::{Reason, with_reason};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{
    Status,
    codegen::http::{self, HeaderMap},
};
use tower::{Layer, Service};

use super::ending::{End, Ending};

const HEADER: &str = "grpc-timeout";

/// How long before the deadline an answer that there is none leaves: tonic's would leave then.
const LEAD: Duration = Duration::from_millis(5);

/// Calls among managers: raft has its own limits, and its own idea of what a late answer means.
const AMONG_MANAGERS: &str = "/overlay.internal.";

/// Keeps to the deadlines of callers.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed(inner)
    }
}

/// Services whose calls end in time.
#[derive(Clone, Debug)]
pub struct Timed<S>(S);

impl<S, B, R> Service<http::Request<B>> for Timed<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = http::Response<Ending<R, Deadline>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let limit = limit(request.headers());
        let limit = limit.filter(|_| !request.uri().path().starts_with(AMONG_MANAGERS));
        let deadline = limit.and_then(|limit| {
            Instant::now().checked_add(limit.saturating_sub(LEAD.min(limit / 10)))
        });
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = match deadline {
                None => answer.await,
                Some(deadline) => match timeout_at(deadline, answer).await {
                    Ok(answer) => answer,
                    Err(_) => return Ok(expired().into_http()),
                },
            };
            Ok(answer?.map(|body| Ending::at_once(body, deadline.map(Deadline))))
        })
    }
}

/// When a caller does not wait any more.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl End for Deadline {
    fn wait(self) -> BoxFuture<'static, Status> {
        Box::pin(sleep_until(self.0).map(|()| expired()))
    }
}

fn expired() -> Status {
    with_reason(Reason::Deadline, "the call's deadline passed; a write may be applied yet")
}

/// What a caller gave a call: up to eight digits and a unit ("Timeout" in gRPC over HTTP/2). What
/// is none does not count.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use core::pin::Pin;
    use std::{convert::Infallible, sync::Arc};

    use http_body::{Body, Frame};
    use rstest::rstest;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn request(path: &str, timeout: &str) -> http::Request<()> {
        http::Request::builder().uri(path).header(HEADER, timeout).body(()).unwrap()
    }

    #[rstest]
    #[case("1H", Some(3_600_000))]
    #[case("2M", Some(120_000))]
    #[case("3S", Some(3_000))]
    #[case("99999999m", Some(99_999_999))]
    #[case("5000u", Some(5))]
    #[case("6000000n", Some(6))]
    #[case("", None)]
    #[case("S", None)]
    #[case("-1S", None)]
    #[case("123456789S", None)]
    #[case("1x", None)]
    #[case("é", None)]
    fn o03_deadlines_are_read_as_grpc_writes_them(#[case] text: &str, #[case] millis: Option<u64>) {
        let limit = limit(request("/", text).headers());
        assert_eq!(limit, millis.map(Duration::from_millis));
    }

    /// A body that goes on for ever without a word.
    #[derive(Default)]
    struct Silent;

    impl Body for Silent {
        type Data = bytes::Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
            Poll::Pending
        }
    }

    async fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn o03_a_call_ends_at_its_deadline_and_the_work_for_it_with_it() {
        let work = Arc::new(());
        let worker = Arc::downgrade(&work);
        let service = DeadlineLayer.layer(service_fn(move |_: http::Request<()>| {
            let work = Arc::clone(&work);
            async move {
                let () = std::future::pending().await;
                drop(work);
                Ok::<_, Infallible>(http::Response::new(Silent))
            }
        }));
        let begin = Instant::now();
        let answer = service.oneshot(request("/a/B", "2S")).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(begin.elapsed() <= Duration::from_secs(2));
        assert_eq!(worker.strong_count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn o03_an_answer_that_goes_on_ends_at_the_deadline() {
        let answer = |_| async { Ok::<_, Infallible>(http::Response::new(Silent)) };
        let service = DeadlineLayer.layer(service_fn(answer));
        let begin = Instant::now();
        let mut body = service.clone().oneshot(request("/a/B", "3S")).await.unwrap().into_body();
        let trailers = next(&mut body).await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
        assert!(begin.elapsed() <= Duration::from_secs(3));
        assert!(next(&mut body).await.is_none());

        // Among managers it is the caller who looks at the clock.
        let path = "/overlay.internal.v1.Raft/Append";
        let mut body = service.oneshot(request(path, "3S")).await.unwrap().into_body();
        assert!(tokio::time::timeout(Duration::from_secs(9), next(&mut body)).await.is_err());
    }
}
