//! The address of an endpoint, as users write it, and its sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

/// A host and a port to listen on, in the form `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// Returns the host as written, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; 0 selects a free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Binds the address. `localhost` binds 127.0.0.1 and, if the machine has IPv6, ::1 on the same port.
    ///
    /// # Errors
    /// Fails if the name is unknown, or if the port is in use or not permitted.
    pub fn bind(&self) -> io::Result<Vec<TcpListener>> {
        if self.host != "localhost" {
            let address = (self.host.as_str(), self.port)
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
            return Ok(vec![bind(address)?]);
        }
        // A free IPv4 port may be in use for IPv6: then another one is tried.
        let mut attempts = if self.port == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            let v4 = bind((Ipv4Addr::LOCALHOST, self.port).into())?;
            match bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()).into()) {
                Ok(v6) => return Ok(vec![v4, v6]),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(e),
                // This machine has no IPv6.
                Err(_) => return Ok(vec![v4]),
            }
        }
    }
}

impl std::str::FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if bracketed.is_none() && (host.is_empty() || host.contains([':', '[', ']', '/'])) {
            return Err(AddressError::BadHost);
        }
        // Neither a name nor an address. An error message about it would repeat the text.
        if host.len() > 255 || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(AddressError::BadHost);
        }
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Self { host, port: port.parse().map_err(|_| AddressError::BadPort)? })
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not a [`ListenAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no colon.
    #[error("a port is missing: write HOST:PORT, such as localhost:3000 or 0.0.0.0:3000")]
    NoPort,
    /// The port is not a number up to 65535.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// The host is empty, or an IPv6 address without brackets.
    #[error("the host is empty or malformed: write HOST:PORT, an IPv6 address in brackets, such as [::1]:3000")]
    BadHost,
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 1024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for good in ["localhost:3000", "0.0.0.0:0", "[::1]:50051", "db.example.com:1"] {
            assert_eq!(good.parse::<ListenAddress>().unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("localhost", AddressError::NoPort),
            ("localhost:x", AddressError::BadPort),
            ("localhost:70000", AddressError::BadPort),
            ("::1:3000", AddressError::BadHost),
            (":3000", AddressError::BadHost),
            ("https://x:3000", AddressError::BadHost),
        ] {
            assert_eq!(bad.parse::<ListenAddress>(), Err(why), "{bad}");
        }
    }

    #[test]
    fn localhost_is_one_port_on_both_families() {
        let sockets = "localhost:0".parse::<ListenAddress>().unwrap().bind().unwrap();
        let ports: Vec<u16> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|p| *p == ports[0] && *p != 0), "{ports:?}");
    }
}
