//! The call `DoGet` over HTTP/2, by hand: tonic would copy each body twice more on its way out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::Ticket;
use axum::Extension;
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
use tls_core::pieces::{Beside, Pieces};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use crate::call::Answer;
use crate::door::Door;
use crate::encode::{GRPC_PREFIX, Parts};

/// The path of the call.
pub(crate) const PATH: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// Pieces below this size are copied together, which costs less than a place in a frame for each.
const SMALL: usize = 4 << 10;

/// A frame goes out once it has so many bytes, or as many as there are.
const FRAME: usize = 1 << 20;

/// Answers the call.
pub(crate) async fn get(State(door): State<Arc<Door>>, request: Request) -> Response {
    let answer = match ticket(request, door.max_message_bytes).await {
        Ok(request) => door.get(request).await,
        Err(status) => Err(status),
    };
    match answer {
        Ok(messages) => {
            let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))];
            let beside = Beside::default();
            let body = Messages {
                messages,
                beside: beside.clone(),
                ready: Pieces::default(),
                small: BytesMut::new(),
                end: End::Open,
            };
            (kind, Extension(beside), Body::new(body)).into_response()
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
    messages: Answer<Parts>,
    beside: Beside,
    /// What can be sent.
    ready: Pieces,
    /// What comes after it, copied together.
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
            self.ready.push(piece);
        }
    }

    fn flush(&mut self) {
        self.ready.push(self.small.split().freeze());
    }

    /// What there is, as one frame.
    fn take(&mut self) -> Option<Bytes> {
        self.flush();
        self.beside.frame(&mut self.ready)
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
        let mut waits = false;
        loop {
            let enough = waits || !matches!(self.end, End::Open) || self.ready.len() + self.small.len() >= FRAME;
            if enough && let Some(data) = self.take() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match &self.end {
                End::Open if waits => return Poll::Pending,
                End::Open => {}
                End::Ended(status) => {
                    let last = trailers(status);
                    self.end = End::Over;
                    return Poll::Ready(last.map(|all| Ok(Frame::trailers(all))));
                }
                End::Over => return Poll::Ready(None),
            }
            match self.messages.poll_next_unpin(cx) {
                Poll::Pending => waits = true,
                Poll::Ready(Some(Ok(pieces))) => pieces.into_iter().for_each(|piece| self.push(piece)),
                Poll::Ready(Some(Err(status))) => self.end = End::Ended(status),
                Poll::Ready(None) => self.end = End::Ended(Status::ok("")),
            }
        }
    }
}
