//! Which requests are ingest, and whether their headers promise a body that can be decoded. Stage 1
//! (see `gateway/mod.rs`).
//!
//! In: method, path, headers. Out: a route, then the body's coding, both before any of the body is
//! read. Pure. Not here: the query API; its routes are the control plane's, and so is every path
//! that is none of ours.

/// The methods of every ingest path, for `Allow`.
pub const INGEST_ALLOW: &str = "POST, OPTIONS";

/// What an ingest body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Prometheus remote write 1.0: a snappy block of protobuf.
    RemoteWriteV1,
    /// VictoriaMetrics JSON lines.
    VmJson,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Read the body and write its samples.
    Ingest(Endpoint),
    /// Answer 405 with this `Allow`.
    MethodNotAllowed { allow: &'static str },
    /// Answer 204 with this `Allow`.
    Options { allow: &'static str },
    /// Hand it to the control plane.
    Control,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// Snappy's block format (not the framed one).
    Snappy,
    /// gzip, RFC 1952.
    Gzip,
    /// zlib, RFC 1950: what HTTP calls deflate.
    Zlib,
}

/// Why a request's headers rule its body out. All of them are a 415.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Not the media type of the endpoint.
    UnsupportedContentType,
    /// The media type is right, but its `proto` names a message other than that of remote write
    /// 1.0.
    UnsupportedProtobufMessage,
    /// A content coding that the endpoint does not take, or several.
    UnsupportedContentEncoding,
    /// `Content-Type` is there twice.
    DuplicateContentType,
}

impl HeaderFault {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        415
    }

    /// What is wrong, and what would be right, at `endpoint`.
    pub fn text(self, endpoint: Endpoint) -> &'static str {
        match (self, endpoint) {
            (Self::UnsupportedContentType, _) => {
                "cannot take the body: Content-Type must be application/x-protobuf\n"
            }
            (Self::UnsupportedProtobufMessage, _) => {
                "cannot take the body: only proto=prometheus.WriteRequest (remote write 1.0) is \
                 supported\n"
            }
            (Self::UnsupportedContentEncoding, Endpoint::RemoteWriteV1) => {
                "cannot take the body: Content-Encoding must be snappy\n"
            }
            (Self::UnsupportedContentEncoding, Endpoint::VmJson) => {
                "cannot take the body: Content-Encoding must be gzip, deflate or identity\n"
            }
            (Self::DuplicateContentType, _) => "cannot take the body: more than one Content-Type\n",
        }
    }
}

/// Where a request for `path` goes. Paths are compared as sent: `//` and a slash at the end make
/// another path.
pub fn route(method: &str, path: &str) -> Route {
    let endpoint = match path {
        "/api/v1/write" | "/api/v1/push" | "/api/v1/receive" | "/api/v1/prom/remote/write" => {
            Endpoint::RemoteWriteV1
        }
        "/api/v1/import" => Endpoint::VmJson,
        _ => return Route::Control,
    };
    match method {
        "POST" => Route::Ingest(endpoint),
        "OPTIONS" => Route::Options { allow: INGEST_ALLOW },
        _ => Route::MethodNotAllowed { allow: INGEST_ALLOW },
    }
}

/// Checks what `headers` say of the body of a request to `endpoint`; returns how it is compressed.
///
/// Remote write 1.0 makes both headers a must for senders. A missing or empty one is taken as the
/// right one all the same, as Prometheus' own receiver does (`storage/remote/write_handler.go`); a
/// wrong one is refused.
pub fn check_headers<'a>(
    endpoint: Endpoint,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Encoding, HeaderFault> {
    let mut content_type = None;
    let mut content_encoding = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            if content_type.replace(value).is_some() {
                return Err(HeaderFault::DuplicateContentType);
            }
        } else if name.eq_ignore_ascii_case("content-encoding")
            && content_encoding.replace(value).is_some()
        {
            // Two fields are a list of two codings, one over the other.
            return Err(HeaderFault::UnsupportedContentEncoding);
        }
    }
    let content_encoding = content_encoding.unwrap_or_default();
    match endpoint {
        Endpoint::RemoteWriteV1 => {
            check_remote_write_type(content_type.unwrap_or_default())?;
            check_remote_write_encoding(content_encoding)
        }
        Endpoint::VmJson => check_vm_json_encoding(content_encoding),
    }
}

fn check_remote_write_type(value: &[u8]) -> Result<(), HeaderFault> {
    let mut parts = value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let media_type = parts.next().unwrap_or_default();
    if media_type.is_empty() && value.trim_ascii().is_empty() {
        return Ok(());
    }
    if !media_type.eq_ignore_ascii_case(b"application/x-protobuf") {
        return Err(HeaderFault::UnsupportedContentType);
    }
    for parameter in parts {
        let Some(equals) = parameter.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = (&parameter[..equals], unquoted(&parameter[equals + 1..]));
        if name.eq_ignore_ascii_case(b"proto") && value != b"prometheus.WriteRequest" {
            return Err(HeaderFault::UnsupportedProtobufMessage);
        }
    }
    Ok(())
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

fn check_remote_write_encoding(value: &[u8]) -> Result<Encoding, HeaderFault> {
    if value.is_empty() || value.eq_ignore_ascii_case(b"snappy") {
        return Ok(Encoding::Snappy);
    }
    Err(HeaderFault::UnsupportedContentEncoding)
}

fn check_vm_json_encoding(value: &[u8]) -> Result<Encoding, HeaderFault> {
    const ENCODINGS: [(&[u8], Encoding); 5] = [
        (b"", Encoding::Identity),
        (b"identity", Encoding::Identity),
        (b"gzip", Encoding::Gzip),
        (b"x-gzip", Encoding::Gzip),
        (b"deflate", Encoding::Zlib),
    ];
    ENCODINGS
        .iter()
        .find(|(name, _)| value.eq_ignore_ascii_case(name))
        .map(|(_, encoding)| *encoding)
        .ok_or(HeaderFault::UnsupportedContentEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        #[track_caller]
        fn check(method: &str, path: &str, want: Route) {
            assert_eq!(route(method, path), want, "{method} {path}");
        }
        let remote_write = Route::Ingest(Endpoint::RemoteWriteV1);
        check("POST", "/api/v1/write", remote_write);
        check("POST", "/api/v1/push", remote_write);
        check("POST", "/api/v1/receive", remote_write);
        check("POST", "/api/v1/prom/remote/write", remote_write);
        check("POST", "/api/v1/import", Route::Ingest(Endpoint::VmJson));
        for path in ["/api/v1/write", "/api/v1/import"] {
            let not_allowed = Route::MethodNotAllowed { allow: "POST, OPTIONS" };
            check("GET", path, not_allowed);
            check("HEAD", path, not_allowed);
            check("PUT", path, not_allowed);
            check("post", path, not_allowed);
            check("OPTIONS", path, Route::Options { allow: "POST, OPTIONS" });
        }
        check("POST", "/api/v1/write/", Route::Control);
        check("POST", "//api/v1/write", Route::Control);
        check("POST", "/API/v1/write", Route::Control);
        check("POST", "/api/v1/query", Route::Control);
        check("OPTIONS", "*", Route::Control);
        check("GET", "/", Route::Control);
    }

    #[track_caller]
    fn check(endpoint: Endpoint, headers: &[(&str, &str)], want: Result<Encoding, HeaderFault>) {
        let bytes = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        assert_eq!(check_headers(endpoint, bytes), want, "headers={headers:?}");
    }

    #[test]
    fn remote_write_headers() {
        #[track_caller]
        fn check_type(value: &str, want: Result<Encoding, HeaderFault>) {
            check(Endpoint::RemoteWriteV1, &[("Content-Type", value)], want);
        }
        #[track_caller]
        fn check_encoding(value: &str, want: Result<Encoding, HeaderFault>) {
            check(Endpoint::RemoteWriteV1, &[("content-encoding", value)], want);
        }
        let snappy = Ok(Encoding::Snappy);
        let both = [("content-type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        check(Endpoint::RemoteWriteV1, &both, snappy);
        check(Endpoint::RemoteWriteV1, &[], snappy);
        check_type("", snappy);
        check_type("Application/X-Protobuf", snappy);
        check_type("application/x-protobuf;proto=prometheus.WriteRequest", snappy);
        check_type("application/x-protobuf; proto=\"prometheus.WriteRequest\" ; a", snappy);
        let message = Err(HeaderFault::UnsupportedProtobufMessage);
        check_type("application/x-protobuf;proto=io.prometheus.write.v2.Request", message);
        check_type("application/x-protobuf;a=b;PROTO=x", message);
        let media_type = Err(HeaderFault::UnsupportedContentType);
        check_type("application/json", media_type);
        check_type("application/x-protobuf2", media_type);
        check_type(";proto=prometheus.WriteRequest", media_type);
        check_encoding("Snappy", snappy);
        check_encoding("", snappy);
        let encoding = Err(HeaderFault::UnsupportedContentEncoding);
        for value in ["gzip", "zstd", "identity", "snappy, snappy", "x-snappy-framed"] {
            check_encoding(value, encoding);
        }
        let twice = [("content-encoding", "snappy"), ("Content-Encoding", "snappy")];
        check(Endpoint::RemoteWriteV1, &twice, encoding);
        let twice = [("content-type", ""), ("content-type", "")];
        check(Endpoint::RemoteWriteV1, &twice, Err(HeaderFault::DuplicateContentType));
    }

    #[test]
    fn vm_json_headers() {
        #[track_caller]
        fn check_encoding(value: &str, want: Result<Encoding, HeaderFault>) {
            let headers = [("content-type", "what/ever"), ("content-encoding", value)];
            check(Endpoint::VmJson, &headers, want);
        }
        check(Endpoint::VmJson, &[], Ok(Encoding::Identity));
        check_encoding("", Ok(Encoding::Identity));
        check_encoding("Identity", Ok(Encoding::Identity));
        check_encoding("GZIP", Ok(Encoding::Gzip));
        check_encoding("x-gzip", Ok(Encoding::Gzip));
        check_encoding("deflate", Ok(Encoding::Zlib));
        for value in ["snappy", "zstd", "br", "gzip, gzip"] {
            check_encoding(value, Err(HeaderFault::UnsupportedContentEncoding));
        }
    }
}
