//! DoGet with a client that only counts bytes, and DoPut of the same batch repeatedly, so that the server dominates the
//! measurement. The client's windows and frames are those of pyarrow.

use std::convert::Infallible;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, Ticket};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::figures::ROW;
use crate::load::Target;
use crate::load::connect::connect;
use crate::meter::{Meter, Sample};

/// The SETTINGS of pyarrow 26: the window of a stream and of a connection, and the maximum frame size.
const OFFERED: u32 = 4 << 20;

/// Rows of a batch that is sent.
const BATCH: u64 = 65_536;

/// The maximum ratio between the size of a result and its columns: messages, schema and gRPC framing add to it.
const MOST_OVERHEAD: f64 = 1.02;

type Sender = SendRequest<BoxBody<Bytes, Infallible>>;

/// Connects to `target`, with the windows and frames of a pyarrow client.
async fn open(target: Target<'_>, connections: &mut JoinSet<()>) -> Outcome<Sender> {
    let config = target.tls.map(|certificate| certificate.client("h2", false)).transpose()?;
    let (io, _) = connect(target.address, config.as_ref()).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(OFFERED)
        .initial_connection_window_size(OFFERED)
        .max_frame_size(OFFERED)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| format!("{}: {e}", target.address))?;
    connections.spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Requests `target.command` on `streams` concurrent streams, each of which returns `columns` bytes of column data, and
/// reads the results.
pub(crate) async fn get(target: Target<'_>, streams: u64, columns: u64) -> Outcome<Sample> {
    let mut connections = JoinSet::new();
    let mut sender = open(target, &mut connections).await?;
    let descriptor = FlightDescriptor::new_cmd(target.command.to_owned());
    let mut answer = call(&mut sender, "GetFlightInfo", &descriptor).await?;
    let mut info = BytesMut::new();
    read(&mut answer, |data| info.put(data)).await?;
    let info = FlightInfo::decode(info.get(5..).unwrap_or_default()).map_err(|e| format!("FlightInfo: {e}"))?;
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or("no ticket")?;

    let meter = Meter::start(target.process)?;
    let mut answers = JoinSet::new();
    for _ in 0..streams {
        let (mut sender, ticket) = (sender.clone(), ticket.clone());
        answers.spawn(async move {
            let mut bytes = 0;
            let mut answer = call::<Ticket>(&mut sender, "DoGet", &ticket).await?;
            read(&mut answer, |data| bytes += data.len() as u64).await.map(|()| bytes)
        });
    }
    let mut bytes = 0;
    while let Some(read) = answers.join_next().await {
        bytes += read.map_err(|e| e.to_string())??;
    }
    let sample = meter.stop(bytes as f64 / 1e9).await?;
    let columns = (columns * streams) as f64;
    if (columns..columns * MOST_OVERHEAD).contains(&(bytes as f64)) {
        return Ok(sample);
    }
    Err(format!("{}: DoGet gave {bytes} bytes for {columns} bytes of columns", target.address))
}

/// The table that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// Appends to an existing table.
    Loaded,
    /// Replaces the table.
    Measured,
}

/// Sends at least `columns` bytes of column data to the table `target.command`, and waits for the response.
pub(crate) async fn put(target: Target<'_>, put: Put, columns: u64) -> Outcome<Sample> {
    let mut connections = JoinSet::new();
    let mut sender = open(target, &mut connections).await?;
    let (if_not_exist, if_exists) = match put {
        Put::Loaded => (TableNotExistOption::Fail, TableExistsOption::Append),
        Put::Measured => (TableNotExistOption::Create, TableExistsOption::Replace),
    };
    let ingest = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: if_not_exist.into(),
            if_exists: if_exists.into(),
        }),
        table: target.command.to_owned(),
        ..CommandStatementIngest::default()
    };
    let (first, each) = messages(&FlightDescriptor::new_cmd(ingest.as_any().encode_to_vec()))?;
    let count = columns.div_ceil(BATCH * ROW);
    let bytes = first.len() as u64 + each.len() as u64 * count;

    let meter = Meter::start(target.process)?;
    let frames = std::iter::once(first).chain((0..count).map(move |_| each.clone()));
    let body = StreamBody::new(stream::iter(frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame)))));
    let request = request("DoPut").body(body.boxed()).map_err(|e| e.to_string())?;
    let mut answer = answered("DoPut", sender.send_request(request).await)?;
    read(&mut answer, drop).await?;
    meter.stop(bytes as f64 / 1e9).await
}

/// Returns the schema message, and the message of a batch of eight columns.
fn messages(descriptor: &FlightDescriptor) -> Outcome<(Bytes, Bytes)> {
    let whole = |turn: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((0..BATCH as i64).map(|n| n * turn))) };
    let broken = |part: i64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..BATCH as i64).map(|n| (n * part) as f64 / 8.0)))
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let columns = names.into_iter().zip(1..).map(|(name, n)| (name, if n <= 4 { whole(n) } else { broken(n) }, false));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| e.to_string())?;
    let messages = batches_to_flight_data(&batch.schema(), vec![batch]).map_err(|e| e.to_string())?;
    let [mut schema, data] =
        <[FlightData; 2]>::try_from(messages).map_err(|_| "a schema and a batch are two messages")?;
    schema.flight_descriptor = Some(descriptor.clone());
    Ok((framed(&schema), framed(&data)))
}

/// Frames a gRPC message: the flag for no compression, and the length.
fn framed<M: Message>(message: &M) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(message.encoded_len() as u32);
    message.encode(&mut body).expect("a BytesMut grows");
    body.freeze()
}

fn request(method: &str) -> http::request::Builder {
    Request::post(format!("https://localhost/arrow.flight.protocol.FlightService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

fn answered(method: &str, answer: hyper::Result<Response<Incoming>>) -> Outcome<Response<Incoming>> {
    let answer = answer.map_err(|e| format!("{method}: {e}"))?;
    // A response without messages has its status here.
    status(answer.headers())?;
    Ok(answer)
}

async fn call<M: Message>(sender: &mut Sender, method: &str, message: &M) -> Outcome<Response<Incoming>> {
    let body = Full::new(framed(message)).boxed();
    let request = request(method).body(body).map_err(|e| e.to_string())?;
    answered(method, sender.send_request(request).await)
}

/// Reads a response to its end and checks its status.
async fn read(answer: &mut Response<Incoming>, mut each: impl FnMut(Bytes)) -> Outcome {
    // Without messages, the status may be in the headers.
    let mut ended = answer.headers().contains_key("grpc-status");
    while let Some(frame) = answer.body_mut().frame().await {
        match frame.map_err(|e| e.to_string())?.into_data() {
            Ok(data) => each(data),
            Err(frame) => {
                status(frame.trailers_ref().ok_or("a frame of no known kind")?)?;
                ended = true;
            }
        }
    }
    if ended { Ok(()) } else { Err("an answer ended without a status".to_owned()) }
}

fn status(headers: &HeaderMap) -> Outcome {
    match headers.get("grpc-status") {
        Some(code) if code != "0" => Err(format!("gRPC status {code:?}: {:?}", headers.get("grpc-message"))),
        _ => Ok(()),
    }
}
