//! `cluster`: asks a gateway over HTTP how the fleet is, or to change it, and prints what
//! it says, for people (`render`) or as JSON.

use std::io::Write;

use serde_json::Value;

use super::fault::OfflineFault;
use super::http::{self, AnswerLimits, HttpAnswer, HttpRequest};
use crate::base::time::Duration;
use crate::control::config::cluster_command::{ClusterCommand, ClusterRequest};
use crate::control::fleet::report::{PlanReport, StatusReport};

mod render;

const LIMITS: AnswerLimits = AnswerLimits {
    // A gateway gives a change up before.
    timeout: Duration::from_secs(60),
    // A document is at most 1 MiB, and what is said of its nodes about as long.
    body_bytes_max: 16 << 20,
};

/// Runs the command; false: it was answered, and something needs a look.
///
/// # Errors
/// The gateway cannot be asked, or says why it does not do it.
pub fn run(command: &ClusterCommand, out: &mut impl Write) -> Result<bool, OfflineFault> {
    let (to, request) = command.request();
    let (path, body) = match &request {
        ClusterRequest::Status => ("status", None),
        ClusterRequest::Plan(change) => ("plan", Some(change)),
        ClusterRequest::Apply(change) => ("apply", Some(change)),
    };
    let url = format!("{}/api/v1/cluster/{path}", to.url.trim_end_matches('/'));
    let body = body.map(|change| serde_json::to_string(change).expect("texts and numbers"));
    let data = ask(&url, body.as_deref())?;
    let unknown = |fault: serde_json::Error| OfflineFault::Gateway {
        url: url.clone(),
        cause: format!("its answer is of another release: {fault}"),
    };
    let (text, is_well) = match request {
        ClusterRequest::Status => {
            let report: StatusReport = serde_json::from_value(data.clone()).map_err(unknown)?;
            (render::status(&report), render::is_well(&report))
        }
        ClusterRequest::Plan(_) | ClusterRequest::Apply(_) => {
            let report: PlanReport = serde_json::from_value(data.clone()).map_err(unknown)?;
            (render::plan(&report), true)
        }
    };
    if to.json {
        writeln!(out, "{data}")?;
    } else {
        write!(out, "{text}")?;
    }
    out.flush()?;
    Ok(is_well)
}

/// The `data` of the answer; with a body it is a POST.
fn ask(url: &str, body: Option<&str>) -> Result<Value, OfflineFault> {
    let fault = |cause: String| OfflineFault::Gateway { url: url.into(), cause };
    let request = body.map_or(HttpRequest::Get, HttpRequest::PostJson);
    let HttpAnswer { status, body } = http::ask(url, request, LIMITS).map_err(fault)?;
    let mut read: Value = serde_json::from_str(&body).unwrap_or_default();
    if !status.is_success() {
        let cause = match read["error"].as_str() {
            Some(cause) => cause.to_owned(),
            None => format!("it answered {status}: {}", body.trim()),
        };
        return Err(fault(cause));
    }
    match read["data"].take() {
        Value::Null => {
            Err(fault("it is no gateway of a fleet: ask one of `tidegate gateway`".into()))
        }
        data => Ok(data),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::control::config::cluster_command::GatewayArguments;

    /// Answers one request with this; gives the request back.
    fn serve(answer: &str) -> (String, std::thread::JoinHandle<String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let answer = answer.to_owned();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            let mut bytes = [0; 4096];
            while !request.ends_with(b"}") && !request.starts_with(b"GET ") {
                let count = stream.read(&mut bytes).expect("a request");
                request.extend_from_slice(&bytes[..count]);
            }
            stream.write_all(answer.as_bytes()).expect("written");
            String::from_utf8(request).expect("text")
        });
        (url, thread)
    }

    fn http(status: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    fn adding(url: String, json: bool) -> ClusterCommand {
        let to = GatewayArguments { url, json };
        ClusterCommand::Add { nodes: vec!["a:1".into()], group: None, to }
    }

    const DONE: &str = "{\"epoch_after\":2,\"epoch_before\":2,\"groups\":[],\"is_done\":true,\
                        \"is_resharded\":false,\"start_ms\":0}";

    #[test]
    fn a_change_is_asked_for_and_its_answer_printed() {
        let body = format!("{{\"status\":\"success\",\"data\":{DONE}}}");
        for (json, want) in [
            (false, "Nothing to change: epoch 2 is like that already.\n".to_owned()),
            (true, format!("{DONE}\n")),
        ] {
            let (url, server) = serve(&http("200 OK", &body));
            let mut out = Vec::new();
            let outcome = run(&adding(url, json), &mut out);
            assert!(matches!(outcome, Ok(true)), "{outcome:?}");
            assert_eq!(String::from_utf8(out).expect("text"), want);
            let request = server.join().expect("served");
            // Red if another path is asked, or another body sent.
            assert!(request.starts_with("POST /api/v1/cluster/apply HTTP/1.1\r\n"), "{request}");
            assert!(request.ends_with("\r\n\r\n{\"add\":[\"a:1\"]}"), "{request}");
        }
    }

    #[test]
    fn a_fault_says_what_the_gateway_said() {
        #[track_caller]
        fn check(answer: &str, want: &str) {
            let (url, server) = serve(answer);
            let fault = run(&adding(url, false), &mut Vec::new()).expect_err("a fault").to_string();
            server.join().expect("served");
            assert!(fault.starts_with("cannot ask http://127.0.0.1:"), "{fault}");
            assert!(fault.ends_with(want), "{fault}");
        }
        let said = "{\"status\":\"error\",\"error\":\"there is no fleet yet\"}";
        check(&http("503 Service Unavailable", said), ": there is no fleet yet");
        check(&http("404 Not Found", "nothing"), ": it answered 404 Not Found: nothing");
        check(&http("200 OK", "hello"), "ask one of `tidegate gateway`");
        check(&http("200 OK", "{\"data\":{}}"), "missing field `epoch_before`");
        let fault = run(&adding("https://a".into(), false), &mut Vec::new()).expect_err("no TLS");
        assert!(fault.to_string().contains("TLS is not spoken"), "{fault}");
    }
}
