//! What the peer is sent, and the bodies that never end well.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use hyper::Response;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, DATE, HeaderValue};
use serde_json::{Map, Value};

use crate::RetryAfter;

const JSON: &str = "application/json";
const HUGE_BODY_LEN: u64 = 1 << 30;
const HUGE_BODY_CHUNK: &[u8] = &[b'A'; 64 * 1024];

/// A status, its headers and a body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Json(Value),
    Bytes(Bytes),
    Cut(Bytes),
    Huge,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self::new(status, JSON, Payload::Json(body))
    }

    pub(crate) fn text(status: u16, body: &'static str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", Payload::Bytes(Bytes::from_static(body.as_bytes())))
    }

    pub(crate) fn html() -> Self {
        const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>IBM Software Hub</title></head>\
                            <body><noscript>You need to enable JavaScript.</noscript></body></html>\n";
        Self::new(200, "text/html", Payload::Bytes(Bytes::from_static(PAGE.as_bytes())))
    }

    pub(crate) fn garbage() -> Self {
        Self::new(200, JSON, Payload::Bytes(Bytes::from_static(b"\xff\xfe{\"token\": \x00\x80")))
    }

    pub(crate) fn huge() -> Self {
        Self::new(200, JSON, Payload::Huge)
    }

    fn new(status: u16, content_type: &'static str, payload: Payload) -> Self {
        Self { status, content_type, headers: Vec::new(), payload }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn with_retry_after(self, retry_after: RetryAfter, now: SystemTime) -> Self {
        match retry_after {
            RetryAfter::Seconds(seconds) => self.with_header("retry-after", seconds.to_string()),
            RetryAfter::Date(ahead) => self.with_header("retry-after", httpdate::fmt_http_date(now + ahead)),
            RetryAfter::Absent => self,
        }
    }

    pub(crate) fn with_content_type(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    pub(crate) fn emptied(self) -> Self {
        Self { payload: Payload::Bytes(Bytes::new()), ..self }
    }

    /// Changes the fields of a JSON body; leaves any other body alone.
    pub(crate) fn edited(mut self, edit: impl FnOnce(&mut Map<String, Value>)) -> Self {
        if let Payload::Json(Value::Object(body)) = &mut self.payload {
            edit(body);
        }
        self
    }

    /// Ends the body half-way.
    pub(crate) fn cut(self) -> Self {
        let whole = self.payload.bytes();
        Self { payload: Payload::Cut(whole), ..self }
    }

    /// Returns the response, dated `now`.
    pub(crate) fn into_response(self, now: SystemTime) -> Response<AnswerBody> {
        let mut response = Response::new(self.payload.into_body());
        // A status that HTTP does not know was scripted by mistake; 500 is the answer to that.
        *response.status_mut() = self.status.try_into().unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let date = (DATE.as_str(), httpdate::fmt_http_date(now));
        for (name, value) in self.headers.into_iter().chain([date]) {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl Payload {
    fn bytes(&self) -> Bytes {
        match self {
            Self::Json(value) => Bytes::from(value.to_string()),
            Self::Bytes(bytes) | Self::Cut(bytes) => bytes.clone(),
            Self::Huge => Bytes::new(),
        }
    }

    fn into_body(self) -> AnswerBody {
        match &self {
            Self::Json(_) | Self::Bytes(_) => AnswerBody::Whole(self.bytes()),
            Self::Cut(whole) => AnswerBody::Cut(Cut::Half(whole.clone())),
            Self::Huge => AnswerBody::Huge { sent: 0 },
        }
    }
}

/// A body as hyper wants it.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Whole(Bytes),
    Cut(Cut),
    Huge { sent: u64 },
}

/// Where a body that ends half-way has got to.
#[derive(Debug)]
pub(crate) enum Cut {
    Half(Bytes),
    Flush,
    End,
}

/// The connection is to be closed here and now, on purpose.
#[derive(Debug)]
pub(crate) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection dropped by a script")
    }
}

impl std::error::Error for Dropped {}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Cut(cut) => cut.poll(cx),
            Self::Huge { sent } => Poll::Ready(next_huge_chunk(sent).map(|chunk| Ok(Frame::data(chunk)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) | Self::Cut(Cut::Half(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Cut(Cut::Flush | Cut::End) | Self::Huge { .. } => SizeHint::default(),
        }
    }
}

impl Cut {
    /// The half is sent, then hyper is given a turn to flush it, then the connection ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match std::mem::replace(self, Self::End) {
            Self::Half(whole) => {
                *self = Self::Flush;
                Poll::Ready(Some(Ok(Frame::data(whole.slice(..whole.len() / 2)))))
            }
            Self::Flush => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::End => Poll::Ready(Some(Err(Dropped))),
        }
    }
}

/// Returns the next piece of what starts like the answer to an exchange and goes on and on.
fn next_huge_chunk(sent: &mut u64) -> Option<Bytes> {
    let chunk = match *sent {
        0 => Bytes::from_static(b"{\"token\":\""),
        1..HUGE_BODY_LEN => Bytes::from_static(HUGE_BODY_CHUNK),
        _ => return None,
    };
    *sent += chunk.len() as u64;
    Some(chunk)
}
