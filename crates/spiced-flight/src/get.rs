//! The call `DoGet` over HTTP/2, by hand: tonic would copy each body twice more on its way out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use crate::call::Answer;
use crate::door::Door;
use crate::encode::{GRPC_PREFIX, Pieces};

/// The path of the call.
pub(crate) const PATH: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// Pieces below this size are copied together, which costs less than a flush for each; and clients take many tiny frames
/// for an attack.
const SMALL: usize = 128 << 10;

/// So much of what is small is sent together.
const TOGETHER: usize = 256 << 10;

/// Answers the call.
pub(crate) async fn get(State(door): State<Arc<Door>>, request: Request) -> Response {
    let answer = match ticket(request, door.max_message_bytes).await {
        Ok(request) => door.get(request).await,
        Err(status) => Err(status),
    };
    match answer {
        Ok(messages) => {
            let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))];
            let body = Messages { messages, ready: VecDeque::new(), small: BytesMut::new(), end: End::Open };
            (kind, Body::new(body)).into_response()
        }
        Err(status) => status.into_http(),
    }
}

/// The one message that a call without a stream is sent, of at most so many bytes.
async fn ticket(request: Request, most: usize) -> Result<tonic::Request<Ticket>, Status> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !matches!(kind, b"application/grpc" | b"application/grpc+proto") {
        return Err(Status::invalid_argument("DoGet takes gRPC with protobuf: content-type application/grpc"));
    }
    let body = Limited::new(body, most.saturating_add(GRPC_PREFIX)).collect().await;
    let mut body =
        body.map_err(|error| Status::out_of_range(format!("the ticket cannot be read: {error}")))?.to_bytes();
    if body.len() < GRPC_PREFIX {
        return Err(Status::invalid_argument("DoGet was sent no ticket"));
    }
    if body.get_u8() != 0 {
        return Err(Status::unimplemented(
            "the message is compressed, which this server does not take; send it as it is",
        ));
    }
    if body.get_u32() as usize != body.len() {
        return Err(Status::invalid_argument("DoGet takes one ticket, whole"));
    }
    let ticket = Ticket::decode(body)
        .map_err(|error| Status::invalid_argument(format!("what was sent is no ticket: {error}")))?;
    let extensions: Extensions = parts.extensions;
    Ok(tonic::Request::from_parts(MetadataMap::from_headers(parts.headers), extensions, ticket))
}

/// Messages as they are made, and the status at their end.
struct Messages {
    messages: Answer<Pieces>,
    ready: VecDeque<Bytes>,
    /// What waits for more of its kind, but for nothing that is not there.
    small: BytesMut,
    end: End,
}

/// How far a stream of messages is.
enum End {
    /// More may come.
    Open,
    /// What is left to be said.
    Ended(Status),
    /// All has been said.
    Over,
}

impl Messages {
    fn push(&mut self, piece: Bytes) {
        if piece.len() < SMALL {
            self.small.extend_from_slice(&piece);
        } else {
            self.flush();
            self.ready.push_back(piece);
        }
        if self.small.len() >= TOGETHER {
            self.flush();
            // It is a long answer.
            self.small.reserve(TOGETHER + SMALL);
        }
    }

    fn ended(&mut self, status: Status) {
        self.flush();
        self.end = End::Ended(status);
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.ready.push_back(self.small.split().freeze());
        }
    }
}

/// The end of an answer as gRPC has it; `None` where the status cannot be written, which a client takes for a failure.
fn trailers(status: &Status) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).ok().map(|()| trailers)
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match &self.end {
                End::Open => {}
                End::Ended(status) => {
                    let last = trailers(status);
                    self.end = End::Over;
                    return Poll::Ready(last.map(|all| Ok(Frame::trailers(all))));
                }
                End::Over => return Poll::Ready(None),
            }
            match self.messages.poll_next_unpin(cx) {
                Poll::Pending if self.small.is_empty() => return Poll::Pending,
                Poll::Pending => self.flush(),
                Poll::Ready(Some(Ok(pieces))) => pieces.into_iter().for_each(|piece| self.push(piece)),
                Poll::Ready(Some(Err(status))) => self.ended(status),
                Poll::Ready(None) => self.ended(Status::ok("")),
            }
        }
    }
}
