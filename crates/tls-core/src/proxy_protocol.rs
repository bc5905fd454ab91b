//! The PROXY protocol, version 2 (HAProxy's `proxy-protocol.txt` §2.2): the address of the client behind a proxy.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Length of the fixed part: the signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;

/// Maximum length of the addresses and TLVs; real proxies send some hundred bytes.
const MAX_HEADER: usize = 4096;

/// Reads the header from a connection, and nothing beyond it. Returns `None` if the proxy connects on its own behalf (a
/// health check) or for an address that is not an IP address.
pub(crate) async fn read(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    // Byte by byte until one differs: data without a header may be shorter than a header.
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
