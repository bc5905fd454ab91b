//! DoGet, read by a client that counts bytes and does nothing with them, so that it is the server
//! that is measured. Its windows and frames are those that pyarrow's client offers.

use arrow_flight::{FlightDescriptor, FlightInfo, Ticket};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::load::Target;
use crate::load::connect::connect;
use crate::meter::{Meter, Sample};

/// What pyarrow 26 says in its SETTINGS: window of a stream, of a connection, and the largest frame.
const OFFERED: u32 = 4 << 20;

/// The most by which an answer is larger than its columns: messages, schema, frames of gRPC.
const MOST_OVERHEAD: f64 = 1.02;

/// Asks for `target.command` and reads the answer, which has `columns` bytes of column data.
pub(crate) async fn run(target: Target<'_>, columns: u64) -> Outcome<Sample> {
    let config = target.tls.map(|certificate| certificate.client("h2", false)).transpose()?;
    let (io, _) = connect(target.address, config.as_ref()).await?;
    let failed = |e: hyper::Error| format!("{}: {e}", target.address);
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(OFFERED)
        .initial_connection_window_size(OFFERED)
        .max_frame_size(OFFERED)
        .handshake(TokioIo::new(io))
        .await
        .map_err(failed)?;
    let mut connections = JoinSet::new();
    connections.spawn(async move { drop(connection.await) });

    let descriptor = FlightDescriptor::new_cmd(target.command.to_owned());
    let mut answer = call(&mut sender, "GetFlightInfo", &descriptor).await?;
    let mut info = BytesMut::new();
    read(&mut answer, |data| info.put(data)).await?;
    let info = FlightInfo::decode(info.get(5..).unwrap_or_default()).map_err(|e| format!("FlightInfo: {e}"))?;
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or("no ticket")?;

    let meter = Meter::start(target.process)?;
    let mut bytes = 0;
    let mut answer = call::<Ticket>(&mut sender, "DoGet", &ticket).await?;
    read(&mut answer, |data| bytes += data.len() as u64).await?;
    let sample = meter.stop(bytes as f64 / 1e9).await?;
    if (columns as f64..columns as f64 * MOST_OVERHEAD).contains(&(bytes as f64)) {
        return Ok(sample);
    }
    Err(format!("{}: DoGet gave {bytes} bytes for {columns} bytes of columns", target.address))
}

async fn call<M: Message>(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &str,
    message: &M,
) -> Outcome<Response<Incoming>> {
    let mut body = BytesMut::new();
    // Not compressed, and the length: a message of gRPC.
    body.put_u8(0);
    body.put_u32(message.encoded_len() as u32);
    message.encode(&mut body).map_err(|e| e.to_string())?;
    let request = Request::post(format!("https://localhost/arrow.flight.protocol.FlightService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.freeze()))
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| format!("{method}: {e}"))?;
    // An answer without messages has its status here.
    status(answer.headers())?;
    Ok(answer)
}

/// Reads an answer to its end, which must say that all went well.
async fn read(answer: &mut Response<Incoming>, mut each: impl FnMut(Bytes)) -> Outcome {
    let mut ended = false;
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
