//! The PROXY protocol, version 2, as HAProxy's `proxy-protocol.txt` has it (§2.2): who is at the other
//! end of the proxy that connects to an endpoint.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;

/// Addresses and TLVs; those of real proxies have some hundred bytes.
const MAX_HEADER: usize = 4096;

/// Reads the header off a connection, and nothing more. `None` where the proxy speaks for itself (a
/// health check of its own) or for an address that is none of IP.
pub(crate) async fn read(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    // Byte by byte until it differs: what is no header may be shorter than one.
    for expected in PROTOCOL_PREFIX {
        if tcp.read_u8().await? != *expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it begins otherwise"));
        }
    }
    let mut header = PROTOCOL_PREFIX.to_vec();
    header.resize(FIXED, 0);
    tcp.read_exact(&mut header[PROTOCOL_PREFIX.len()..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
    if rest > MAX_HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {MAX_HEADER} bytes")));
    }
    header.resize(FIXED + rest, 0);
    tcp.read_exact(&mut header[FIXED..]).await?;
    let header = Header::try_from(header.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
        (Command::Proxy, Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
        _ => None,
    })
}
