//! gRPC framing over HTTP/2 for the calls that carry batches. tonic would copy each outgoing body twice more, and each
//! incoming body once more, to an address where arrow-ipc could not use it.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_buffer::{Buffer, MutableBuffer};
use arrow_flight::{FlightData, FlightDescriptor};
use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, BufMut, Bytes};
use futures::stream::{self, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tls_core::server::RequestCharge;
use tls_core::server::buf_list::{BufList, ChunkBuilder, VectoredBody};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::codec::ipc_encoder::{Chunks, DATA_BODY, DATA_HEADER, GRPC_PREFIX, Owned};
use crate::request_context::Answer;
use crate::status;

/// The fields of `arrow.flight.protocol.FlightData` that are only received.
const DESCRIPTOR: u32 = 1;
const APP_METADATA: u32 = 3;

/// The longest key, or length, of a field ("Base 128 Varints" of Protocol Buffers).
const VARINT: usize = 10;

/// Splits a request into its head and a reader of its messages. Each message may have at most `most` bytes.
pub(crate) fn decode_request(request: Request, most: usize) -> Result<tonic::Request<Received>, Status> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !matches!(kind, b"application/grpc" | b"application/grpc+proto") {
        return Err(Status::invalid_argument(
            "this call accepts only gRPC with protobuf: content-type application/grpc",
        ));
    }
    let received = Received { body, ahead: BufList::default(), most };
    Ok(tonic::Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, received))
}

/// Marks the request as a single message, so that its end has a deadline too.
pub(crate) fn expect_one_message(extensions: &http::Extensions) {
    if let Some(charge) = extensions.get::<RequestCharge>() {
        charge.expect_one_message();
    }
}

/// The messages of a request, read as they arrive.
pub(crate) struct Received {
    body: Body,
    /// Bytes received but not yet read.
    ahead: BufList,
    most: usize,
}

impl Received {
    /// Returns the next message undecoded, or `None` at the end.
    pub(crate) async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(length) = self.prefix().await? else { return Ok(None) };
        self.take(length).await.map(Some)
    }

    /// Decodes a stream of `FlightData`. Bodies are aligned as arrow-ipc requires.
    pub(crate) fn flight_data(self) -> Answer<FlightData> {
        stream::try_unfold(self, |mut received| async {
            Ok(received.next_flight_data().await?.map(|message| (message, received)))
        })
        .boxed()
    }

    async fn next_flight_data(&mut self) -> Result<Option<FlightData>, Status> {
        let Some(mut left) = self.prefix().await? else { return Ok(None) };
        let mut message = FlightData::default();
        while left > 0 {
            self.at_least(left.min(2 * VARINT)).await?;
            let mut start = (&mut self.ahead).take(left);
            let (tag, kind) = decode_key(&mut start).map_err(malformed)?;
            let length = match (tag, kind) {
                (DESCRIPTOR | DATA_HEADER | APP_METADATA | DATA_BODY, WireType::LengthDelimited) => {
                    decode_varint(&mut start).map_err(malformed)?
                }
                (DESCRIPTOR | DATA_HEADER | APP_METADATA | DATA_BODY, _) => {
                    return Err(malformed(format!("field {tag} has the wrong type")));
                }
                _ => {
                    // An unknown field, whose length is known only once it has arrived completely.
                    left = start.limit();
                    self.at_least(left).await?;
                    let mut rest = (&mut self.ahead).take(left);
                    skip_field(kind, tag, &mut rest, DecodeContext::default()).map_err(malformed)?;
                    left = rest.limit();
                    continue;
                }
            };
            left = start.limit();
            let length = usize::try_from(length).ok().filter(|length| *length <= left);
            let length = length.ok_or_else(|| malformed("a field is longer than its message"))?;
            left -= length;
            match tag {
                DESCRIPTOR => {
                    let descriptor = FlightDescriptor::decode(self.take(length).await?).map_err(malformed)?;
                    message.flight_descriptor = Some(descriptor);
                }
                DATA_HEADER => message.data_header = self.take(length).await?,
                APP_METADATA => message.app_metadata = self.take(length).await?,
                _ => message.data_body = self.aligned(length).await?,
            }
        }
        Ok(Some(message))
    }

    /// Returns the length of the next message, or `None` at the end.
    async fn prefix(&mut self) -> Result<Option<usize>, Status> {
        if self.ahead.is_empty() && !self.more().await? {
            return Ok(None);
        }
        self.at_least(GRPC_PREFIX).await?;
        if self.ahead.get_u8() != 0 {
            return Err(Status::unimplemented(
                "the message is compressed, which this server does not support; send it uncompressed",
            ));
        }
        let length = self.ahead.get_u32() as usize;
        if length > self.most {
            return Err(Status::out_of_range(format!(
                "the message has {length} bytes, and this server accepts at most {}; send smaller ones",
                self.most
            )));
        }
        Ok(Some(length))
    }

    /// Waits for `count` bytes.
    async fn at_least(&mut self, count: usize) -> Result<(), Status> {
        while self.ahead.len() < count {
            if !self.more().await? {
                return Err(Status::invalid_argument("the request ends within a message"));
            }
        }
        Ok(())
    }

    /// Returns the next `count` bytes.
    async fn take(&mut self, count: usize) -> Result<Bytes, Status> {
        self.at_least(count).await?;
        Ok(self.ahead.copy_to_bytes(count))
    }

    /// Returns the next `count` bytes, copied as they arrive to an address aligned for Arrow's buffers.
    async fn aligned(&mut self, count: usize) -> Result<Bytes, Status> {
        let mut buffer = MutableBuffer::with_capacity(count);
        while buffer.len() < count {
            self.at_least(1).await?;
            let chunk = self.ahead.chunk();
            let chunk = &chunk[..chunk.len().min(count - buffer.len())];
            buffer.extend_from_slice(chunk);
            let length = chunk.len();
            self.ahead.advance(length);
        }
        Ok(Bytes::from_owner(Owned(Buffer::from(buffer))))
    }

    /// Waits for more bytes; returns false at the end.
    async fn more(&mut self) -> Result<bool, Status> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| status::from_body(&error))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.ahead.push(data);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn malformed(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("a message is not valid FlightData: {why}"))
}

/// Encodes the response to a call.
pub(crate) fn encode_response(answer: Result<Answer<Chunks>, Status>) -> Response {
    match answer {
        Ok(messages) => {
            let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))];
            let beside = VectoredBody::default();
            let body = Messages {
                messages,
                beside: beside.clone(),
                gathered: ChunkBuilder::default(),
                ready: BufList::default(),
                end: End::Open,
            };
            (kind, Extension(beside), Body::new(body)).into_response()
        }
        Err(status) => status.into_http(),
    }
}

/// Frames a small message for gRPC.
pub(crate) fn framed(message: &impl Message) -> Chunks {
    let length = message.encoded_len();
    let mut framed = Vec::with_capacity(GRPC_PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut framed);
    vec![framed.into()]
}

/// A response body: messages as they are produced, then the status.
struct Messages {
    messages: Answer<Chunks>,
    beside: VectoredBody,
    gathered: ChunkBuilder,
    /// The rest of a frame, kept as separate buffers.
    ready: BufList,
    end: End,
}

/// The state of a stream of messages.
enum End {
    /// More messages may follow.
    Open,
    /// The messages have ended; the status is still to be sent.
    Ended(Status),
    /// The status has been sent.
    Over,
}

impl Messages {
    /// Takes the buffered bytes as one frame.
    fn take(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.ready = self.gathered.take();
        }
        self.beside.frame(&mut self.ready)
    }
}

/// The gRPC trailers of a response. `None` if the status cannot be encoded, which a client treats as a failure.
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
            let enough = waits || !matches!(self.end, End::Open) || !self.ready.is_empty() || self.gathered.is_full();
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
                Poll::Ready(Some(Ok(pieces))) => {
                    pieces.into_iter().for_each(|piece| self.gathered.push(piece, std::convert::identity));
                }
                Poll::Ready(Some(Err(status))) => self.end = End::Ended(status),
                Poll::Ready(None) => self.end = End::Ended(Status::ok("")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::stream::TryStreamExt;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    /// Decodes `bytes` that arrive in frames of these lengths, repeated cyclically.
    fn read(bytes: &[u8], lengths: &[usize]) -> Result<Vec<FlightData>, Status> {
        let mut rest = bytes;
        let frames: Vec<_> = lengths
            .iter()
            .cycle()
            .map_while(|length| {
                let (frame, after) = rest.split_at(rest.len().min((*length).max(1)));
                rest = after;
                (!frame.is_empty()).then(|| Ok::<_, Status>(Bytes::copy_from_slice(frame)))
            })
            .collect();
        let received =
            Received { body: Body::from_stream(stream::iter(frames)), ahead: BufList::default(), most: 1 << 16 };
        block_on(received.flight_data().try_collect())
    }

    fn message() -> impl Strategy<Value = FlightData> {
        let bytes = || vec(any::<u8>(), 0..300);
        (any::<bool>(), bytes(), bytes(), bytes(), bytes()).prop_map(|(described, command, header, metadata, body)| {
            FlightData {
                flight_descriptor: described.then(|| FlightDescriptor::new_cmd(command)),
                data_header: header.into(),
                app_metadata: metadata.into(),
                data_body: body.into(),
            }
        })
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_messages_are_the_same(messages in vec(message(), 0..4), lengths in vec(1_usize..400, 1..8)) {
            let bytes = messages.iter().flat_map(framed).flatten().collect::<Vec<u8>>();
            let read = read(&bytes, &lengths).unwrap();
            prop_assert!(read.iter().all(|message| message.data_body.is_empty() || message.data_body.as_ptr().addr().is_multiple_of(64)));
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn what_is_no_message_is_refused(bytes in vec(any::<u8>(), 0..200), lengths in vec(1_usize..50, 1..8)) {
            let mut framed = vec![0, 0, 0, 0, bytes.len() as u8];
            framed.extend(&bytes);
            // Compares only the body with what prost decodes: repeated fields may differ.
            if let Ok(read) = read(&framed, &lengths) {
                prop_assert_eq!(read.len(), 1);
                prop_assert_eq!(FlightData::decode(&bytes[..]).ok().map(|wanted| wanted.data_body), read.into_iter().next().map(|message| message.data_body));
            }
        }
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        // One unknown field of each kind: a number, eight bytes, a text, four bytes; then the body.
        let mut bytes =
            vec![0x20, 0x96, 0x01, 0x29, 1, 2, 3, 4, 5, 6, 7, 8, 0x32, 3, b'a', b'b', b'c', 0x3d, 1, 2, 3, 4];
        bytes.extend([0xc2, 0x3e, 2, b'o', b'k']);
        let mut framed = vec![0, 0, 0, 0, bytes.len() as u8];
        framed.extend(bytes);
        assert_eq!(read(&framed, &[1]).unwrap()[0].data_body, "ok");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (bytes, code, why) in [
            (&[1, 0, 0, 0, 0][..], Code::Unimplemented, "compressed"),
            (&[0, 0, 1, 0, 1], Code::OutOfRange, "65537 bytes"),
            (&[0, 0, 0], Code::InvalidArgument, "ends within"),
            (&[0, 0, 0, 0, 9, 0xc2, 0x3e], Code::InvalidArgument, "ends within"),
            (&[0, 0, 0, 0, 3, 0xc2, 0x3e, 9], Code::InvalidArgument, "longer than its message"),
        ] {
            let status = read(bytes, &[2]).unwrap_err();
            assert!(status.code() == code && status.message().contains(why), "{status:?}");
        }
        assert!(read(&[], &[1]).unwrap().is_empty());
    }
}
