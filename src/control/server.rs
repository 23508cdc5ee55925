//! DRIVER: the control plane's threads. Requests come from shards over a bounded queue, go through the axum router, and the
//! answers go back piece by piece, no faster than the shard takes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::base::queue::QueueSender;

/// Requests being answered at once; more of them wait in the queue, where the shards see that it is full.
const IN_FLIGHT_MAX: usize = 1024;
/// The parser and its syntax tree recurse, bounded by `query::expression`; only what is touched is memory.
const STACK_BYTES: usize = 16 << 20;
/// How often the control plane looks whether anyone still waits for an answer.
const ABANDONED_CHECK: Duration = Duration::from_millis(500);

/// A request that a shard received whole and that is not ingest.
pub struct ControlRequest {
    /// It.
    pub request: Request<Bytes>,
    /// Where the answer goes: bounded, in order, `Head` first, then any `Body`, then `End` or `Failed`.
    pub reply: QueueSender<ReplyPart>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPart {
    /// Status and headers. Without `content-length` among them the length is not known: send it chunked.
    Head {
        /// The status.
        status: u16,
        /// Names (lower case) and values.
        headers: Vec<(Bytes, Bytes)>,
    },
    /// Some of the body. None follows for a HEAD request.
    Body(Bytes),
    /// That was all.
    End,
    /// The rest cannot be made: close the connection, so that the client sees that the answer is not whole.
    Failed,
}

/// The running control plane.
pub struct ControlPlane {
    runtime: tokio::runtime::Runtime,
}

impl ControlPlane {
    /// Starts `threads` of them, which answer `requests` until all senders are gone.
    pub fn start(
        threads: usize,
        router: Router,
        requests: flume::Receiver<ControlRequest>,
    ) -> io::Result<Self> {
        let started = AtomicUsize::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name_fn(move || format!("control-{}", started.fetch_add(1, Ordering::Relaxed)))
            .thread_stack_size(STACK_BYTES)
            .enable_time()
            .build()?;
        runtime.spawn(serve(router, requests));
        Ok(Self { runtime })
    }

    /// Ends the threads; what is not answered after `grace` is given up.
    pub fn stop(self, grace: Duration) {
        self.runtime.shutdown_timeout(grace);
    }
}

async fn serve(router: Router, requests: flume::Receiver<ControlRequest>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    while let Ok(request) = requests.recv_async().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let router = router.clone();
        tokio::spawn(async move {
            answer(router, request).await;
            drop(place);
        });
    }
}

async fn answer(router: Router, ControlRequest { request, reply }: ControlRequest) {
    // In a task of its own, so that a panic in a handler of a debug build is an answer (a release build aborts).
    let mut work = tokio::spawn(router.oneshot(request.map(Body::from)));
    let response = loop {
        tokio::select! {
            result = &mut work => break match result {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_panicked) => internal_error(),
            },
            () = tokio::time::sleep(ABANDONED_CHECK) => if reply.is_disconnected() {
                work.abort();
                return;
            },
        }
    };
    // An error says that the receiver is gone, and dropping the body ends the work behind it.
    let _is_taken = send(response, &reply).await;
}

fn internal_error() -> Response<Body> {
    let body = "{\"status\":\"error\",\"errorType\":\"internal\",\"error\":\"a handler panicked\"}";
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

async fn send(response: Response<Body>, reply: &QueueSender<ReplyPart>) -> Result<(), ReplyPart> {
    let (head, mut body) = response.into_parts();
    let headers = head.headers.iter().map(|(name, value)| {
        (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    });
    let headers = headers.collect();
    reply.push(ReplyPart::Head { status: head.status.as_u16(), headers }).await?;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return reply.push(ReplyPart::Failed).await;
        };
        // Trailers are not spoken.
        let Ok(data) = frame.into_data() else { continue };
        if !data.is_empty() {
            reply.push(ReplyPart::Body(data)).await?;
        }
    }
    reply.push(ReplyPart::End).await
}
