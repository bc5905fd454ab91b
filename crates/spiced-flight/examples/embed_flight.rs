//! Arrow Flight SQL over TLS, with an engine that the program supplies:
//! `cargo run -p spiced-flight --example embed_flight -- localhost:50051 cert.pem key.pem`
// An example may print.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch};
use spiced_certs::{Pair, load};
use spiced_engine::{Execution, Role, engine_fn};
use spiced_flight::{FlightOptions, FlightState, serve};
use spiced_middleware::Access;
use tls_core::server::{Limits, Workers, drain};
use tls_core::{Acceptor, TlsOptions, rotation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key] = words.as_slice() else { return Err("usage: ADDRESS CERTIFICATE KEY".into()) };
    let identity = load(&mut Pair::files(certificate, key))?.identity;
    let (_rotate, identities) = rotation::channel(identity);
    let acceptor = Acceptor::tls("flight", TlsOptions::random()?.server(identities)?);

    let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter(0..10)) as _)])?;
    let engine = engine_fn(move |_sql, _parameters| Ok(Execution::of(vec![batch.clone()])));
    let access = Access::anonymous(Some(Role::ReadOnly));
    let state = FlightState { engine: Arc::new(engine), access, options: FlightOptions::default() };
    let socket = TcpListener::bind(address)?;
    println!("grpc+tls://{}", socket.local_addr()?);
    let (_stop, drain) = drain::channel();
    Ok(serve(socket, acceptor, state, Limits::default(), Workers::start(1)?, drain).await?)
}
