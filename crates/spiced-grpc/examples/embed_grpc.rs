//! gRPC health and reflection over TLS, which need no engine:
//! `cargo run -p spiced-grpc --example embed_grpc -- localhost:50052 cert.pem key.pem`
// An example may print.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::TcpListener;

use spiced_certs::{Pair, load};
use spiced_engine::Role;
use spiced_grpc::{GrpcState, serve};
use spiced_middleware::Access;
use tls_core::server::{Limits, Workers, drain};
use tls_core::{Acceptor, TlsOptions, rotation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key] = words.as_slice() else { return Err("usage: ADDRESS CERTIFICATE KEY".into()) };
    let identity = load(&mut Pair::files(certificate, key))?.identity;
    let (_rotate, identities) = rotation::channel(identity);
    let acceptor = Acceptor::tls("grpc", TlsOptions::random()?.server(identities)?);

    // Health reports `ready`: send `false` before a shutdown, so that clients move to another server.
    let (_ready, readiness) = tokio::sync::watch::channel(true);
    let access = Access::anonymous(Some(Role::ReadOnly));
    let state = GrpcState { readiness, services: Vec::new(), access, engine: None };
    let socket = TcpListener::bind(address)?;
    println!("https://{}", socket.local_addr()?);
    let (_stop, drain) = drain::channel();
    Ok(serve(socket, acceptor, state, Limits::default(), Workers::start(1)?, drain).await?)
}
