//! The parameters of a request, from the query string and a form body, and their readings.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};

use crate::control::api::error::ApiError;
use crate::control::source::PartialAnswers;
use crate::model::matcher::Matcher;
use crate::query::expression::parse_match;
use crate::query::instant::{
    TIME_MS_MAX, TIME_MS_MIN, parse_prometheus_duration_ms, parse_prometheus_time_ms,
};
use crate::query::merge::Window;

/// All parameters in order; those of the body come first, as in Go's `ParseForm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let uri = request.uri().clone();
        let mut all = Vec::new();
        if request.method() == Method::POST && is_form(&request) {
            let body = Bytes::from_request(request, state).await;
            let body = body.map_err(|fault| ApiError::BadData(fault.to_string()))?;
            all.extend(parse_pairs(&body));
        }
        all.extend(parse_pairs(uri.query().unwrap_or_default().as_bytes()));
        Ok(Self(all))
    }
}

fn is_form(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type
        .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"))
}

/// Never fails: what is not well encoded is taken as it is, what is not UTF-8 gets replacement
/// characters.
fn parse_pairs(encoded: &[u8]) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(encoded).into_owned()
}

impl Parameters {
    /// The first of this name that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// All of this name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A time; `default` if there is none.
    pub fn time_ms(&self, name: &str, default: Option<i64>) -> Result<i64, ApiError> {
        let text = match (self.get(name), default) {
            (Some(text), _) => text,
            (None, Some(default)) => return Ok(default),
            (None, None) => "",
        };
        parse_prometheus_time_ms(text).ok_or_else(|| {
            ApiError::parameter(name, format_args!("cannot parse {text:?} to a valid timestamp"))
        })
    }

    /// A length of time, if there is one.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let parsed = parse_prometheus_duration_ms(text).ok_or_else(|| {
            ApiError::parameter(name, format_args!("cannot parse {text:?} to a valid duration"))
        });
        parsed.map(Some)
    }

    /// `limit`: how many results at most. 0 is none.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get("limit") else {
            return Ok(None);
        };
        let limit: usize = text.parse().map_err(|_| {
            ApiError::parameter("limit", format_args!("cannot parse {text:?} to a valid limit"))
        })?;
        Ok((limit > 0).then_some(limit))
    }

    /// `start` and `end`; all of time where they are missing.
    pub fn window(&self) -> Result<Window, ApiError> {
        let start_ms = self.time_ms("start", Some(TIME_MS_MIN))?;
        let end_ms = self.time_ms("end", Some(TIME_MS_MAX))?;
        if end_ms < start_ms {
            let cause = "end timestamp must not be before start timestamp";
            return Err(ApiError::parameter("end", cause));
        }
        Ok(Window { start_ms, end_ms })
    }

    /// Whether an answer may lack what nodes that are away hold; `default` if it is not said, by
    /// `partial_response` (Thanos' word for it) or `deny_partial_response` (VictoriaMetrics').
    pub fn partial_answers(&self, default: PartialAnswers) -> Result<PartialAnswers, ApiError> {
        for (name, is_allowed) in [("partial_response", true), ("deny_partial_response", false)] {
            let Some(text) = self.get(name) else { continue };
            let is_true = match text {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => {
                    let cause = format_args!("{text:?} is neither true nor false");
                    return Err(ApiError::parameter(name, cause));
                }
            };
            let is_allowed = is_true == is_allowed;
            return Ok(if is_allowed { PartialAnswers::Allowed } else { PartialAnswers::Denied });
        }
        Ok(default)
    }

    /// The groups of matchers of all `match[]`; empty if there is none.
    pub fn groups(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let mut groups = Vec::new();
        for text in self.get_all("match[]") {
            groups
                .extend(parse_match(text).map_err(|fault| ApiError::expression("match[]", fault))?);
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_answers() {
        #[track_caller]
        fn check(encoded: &str, want: Option<PartialAnswers>) {
            let parameters = Parameters(parse_pairs(encoded.as_bytes()).collect());
            let read = parameters.partial_answers(PartialAnswers::Allowed);
            assert_eq!(read.ok(), want, "{encoded}");
        }
        check("", Some(PartialAnswers::Allowed));
        check("partial_response=true", Some(PartialAnswers::Allowed));
        check("partial_response=false", Some(PartialAnswers::Denied));
        check("partial_response=0", Some(PartialAnswers::Denied));
        check("deny_partial_response=1", Some(PartialAnswers::Denied));
        check("deny_partial_response=false", Some(PartialAnswers::Allowed));
        check("partial_response=perhaps", None);
    }

    #[test]
    fn pairs() {
        #[track_caller]
        fn check(encoded: &str, want: &[(&str, &str)]) {
            let pairs: Vec<_> = parse_pairs(encoded.as_bytes()).collect();
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(pairs, want);
        }
        check("", &[]);
        check("query=up%7Ba%3D%22b%22%7D&time=1", &[("query", "up{a=\"b\"}"), ("time", "1")]);
        check("match[]=up&match[]=down", &[("match[]", "up"), ("match[]", "down")]);
        check("query=a+b", &[("query", "a b")]);
        // What curl sends when nobody encoded it.
        check("query=up{a=\"b c\"}#é", &[("query", "up{a=\"b c\"}#é")]);
        check("a", &[("a", "")]);
    }
}
