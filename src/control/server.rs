//! DRIVER: the control plane's threads. Requests come from shards over a bounded queue, go through
//! the axum router, and the answers go back piece by piece, no faster than the shard takes them.

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

/// Requests being answered at once; more of them wait in the queue, where the shards see that it is
/// full.
const IN_FLIGHT_MAX: usize = 1024;
/// The parser and its syntax tree recurse, bounded by `query::expression`; only what is touched is
/// memory.
const STACK_BYTES: usize = 16 << 20;
/// How often the control plane looks whether anyone still waits for an answer.
const ABANDONED_CHECK: Duration = Duration::from_millis(500);

/// A request that a shard received whole and that is not ingest.
pub struct ControlRequest {
    /// It.
    pub request: Request<Bytes>,
    /// Where the answer goes: bounded, in order, `Head` first, then any `Body`, then `End` or
    /// `Failed`.
    pub reply: QueueSender<ReplyPart>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPart {
    /// Status and headers. Without `content-length` among them the length is not known: send it
    /// chunked.
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
    /// The rest cannot be made: close the connection, so that the client sees that the answer is
    /// not whole.
    Failed,
}

/// The running control plane.
pub struct ControlPlane {
    runtime: tokio::runtime::Runtime,
}

impl ControlPlane {
    /// Starts `threads` of them, which do nothing yet.
    pub fn threads(threads: usize) -> io::Result<Self> {
        let started = AtomicUsize::new(0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name_fn(move || format!("control-{}", started.fetch_add(1, Ordering::Relaxed)))
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        Ok(Self { runtime })
    }

    /// Answers `requests` until all senders are gone.
    pub fn serve(&self, router: Router, requests: flume::Receiver<ControlRequest>) {
        self.runtime.spawn(serve(router, requests));
    }

    /// For tasks that are no answers to requests.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
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
    // In a task of its own, so that a panic in a handler of a debug build is an answer (a release
    // build aborts).
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

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::routing::get;

    use super::*;
    use crate::base::queue::NoWake;
    use crate::control::api::body::from_pieces;

    const SOON: Duration = Duration::from_secs(10);

    /// Tells when it is dropped.
    struct Told(flume::Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _nobody_listens = self.0.send(());
        }
    }

    struct Plane {
        requests: flume::Sender<ControlRequest>,
        plane: ControlPlane,
    }

    fn start(router: Router) -> Plane {
        let (requests, receiver) = flume::bounded(4);
        let plane = ControlPlane::threads(1).expect("threads");
        plane.serve(router, receiver);
        Plane { requests, plane }
    }

    impl Plane {
        /// Sends a request; its reply queue has room for one part.
        fn ask(&self, method: &str, target: &str) -> flume::Receiver<ReplyPart> {
            let (sender, parts) = flume::bounded(1);
            let reply = QueueSender::new(sender, Arc::new(NoWake));
            let request = Request::builder().method(method).uri(target).body(Bytes::new());
            let request = ControlRequest { request: request.expect("a request"), reply };
            self.requests.send(request).expect("it runs");
            parts
        }
    }

    fn next(parts: &flume::Receiver<ReplyPart>) -> ReplyPart {
        parts.recv_timeout(SOON).expect("a part")
    }

    fn header_of(part: &ReplyPart, wanted: &str) -> Option<String> {
        let ReplyPart::Head { headers, .. } = part else { panic!("{part:?} is no head") };
        let found = headers.iter().find(|(name, _)| name == wanted.as_bytes());
        found.map(|(_, value)| String::from_utf8(value.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn answers_come_in_order_and_say_their_length() {
        let plane = start(Router::new().route("/", get(async || "hello")));
        let parts = plane.ask("GET", "/");
        let head = next(&parts);
        assert!(matches!(head, ReplyPart::Head { status: 200, .. }));
        assert_eq!(header_of(&head, "content-length").as_deref(), Some("5"));
        assert_eq!(next(&parts), ReplyPart::Body("hello".into()));
        assert_eq!(next(&parts), ReplyPart::End);
        let parts = plane.ask("HEAD", "/");
        assert_eq!(header_of(&next(&parts), "content-length").as_deref(), Some("5"));
        assert_eq!(next(&parts), ReplyPart::End);
        let parts = plane.ask("GET", "/none");
        assert!(matches!(next(&parts), ReplyPart::Head { status: 404, .. }));
        plane.plane.stop(SOON);
    }

    #[test]
    fn a_body_is_made_no_faster_than_it_is_taken() {
        let (made_sender, made) = flume::unbounded();
        let (told, ended) = flume::bounded(1);
        let endless = move || {
            let made = made_sender.clone();
            let told = Told(told.clone());
            let pieces = std::iter::repeat_with(move || {
                let _until_dropped = &told;
                let _nobody_listens = made.send(());
                Bytes::from_static(b"piece")
            });
            std::future::ready(from_pieces(pieces))
        };
        let plane = start(Router::new().route("/", get(endless)));
        let parts = plane.ask("GET", "/");
        assert_eq!(header_of(&next(&parts), header::CONTENT_LENGTH.as_str()), None);
        for _ in 0..5 {
            assert_eq!(next(&parts), ReplyPart::Body("piece".into()));
        }
        // One in the queue, one that waits for room, and one that may have been made since.
        assert!(made.len() <= 8, "{}", made.len());
        // The client goes, and the body with it.
        drop(parts);
        ended.recv_timeout(SOON).expect("dropped");
        plane.plane.stop(SOON);
    }

    #[test]
    fn a_panic_is_an_answer_and_a_broken_body_is_told() {
        async fn panic() -> &'static str {
            panic!("as a test")
        }
        let broken = || {
            let (sender, pieces) = tokio::sync::mpsc::channel(2);
            let fault = crate::control::api::error::ApiError::Internal("as a test".into());
            sender.try_send(Err(fault)).expect("room");
            let first = Some(Bytes::from_static(b"first"));
            std::future::ready(crate::control::api::body::from_channel(first, pieces))
        };
        let plane = start(Router::new().route("/panic", get(panic)).route("/broken", get(broken)));
        let parts = plane.ask("GET", "/panic");
        assert!(matches!(next(&parts), ReplyPart::Head { status: 500, .. }));
        let parts = plane.ask("GET", "/broken");
        assert!(matches!(next(&parts), ReplyPart::Head { status: 200, .. }));
        assert_eq!(next(&parts), ReplyPart::Body("first".into()));
        assert_eq!(next(&parts), ReplyPart::Failed);
    }

    #[test]
    fn work_that_nobody_waits_for_ends() {
        let (told, ended) = flume::bounded(1);
        let (begun_sender, begun) = flume::bounded(1);
        let never = move || {
            let told = Told(told.clone());
            let begun = begun_sender.clone();
            async move {
                let _told = told;
                let _nobody_listens = begun.send(());
                std::future::pending::<&'static str>().await
            }
        };
        let plane = start(Router::new().route("/", get(never)));
        let parts = plane.ask("GET", "/");
        begun.recv_timeout(SOON).expect("begun");
        drop(parts);
        ended.recv_timeout(SOON).expect("ended");
    }
}
