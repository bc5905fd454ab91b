//! Socket options of connections, above all the size of the kernel's send buffer.
//!
//! The kernel lets the buffer grow to megabytes, which a path with a long round trip needs. On a short path, bytes are
//! then copied after they have left the cache: with the buffer sized for the path, a gigabyte costs
//! about a third less.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The longest round trip at which a buffer of [`SEND_BUFFER`] bytes does not limit throughput: 8 Gbit/s.
const SHORT: Duration = Duration::from_micros(250);

/// Maximum size of the send buffer on a short path.
const SEND_BUFFER: usize = 256 << 10;

/// HTTP/1 has no ping, so the kernel probes a peer that has been silent for this long.
const SILENCE: Duration = Duration::from_secs(60);

/// Sets options on a listening socket; on Linux its connections inherit them.
pub(crate) fn before_accept(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE))
}

/// Sizes the send buffer for the path, if the round trip is known.
pub(crate) fn after_accept(tcp: &TcpStream) -> io::Result<()> {
    if cfg!(not(target_os = "linux")) {
        before_accept(&SockRef::from(tcp))?;
    }
    if round_trip(tcp).is_some_and(|round_trip| round_trip <= SHORT) {
        // If this fails, the kernel's own size still works.
        let _ = SockRef::from(tcp).set_send_buffer_size(SEND_BUFFER);
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod info {
    use nix::sys::socket::sockopt::GetStruct;

    /// Size in words of the part of `struct tcp_info` (`linux/tcp.h`) that every kernel has.
    const WORDS: usize = 26;

    /// Index of `tcpi_rtt`, which is in microseconds.
    pub(super) const RTT: usize = 17;

    /// The kernel's information on a connection: `tcp(7)`.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct TcpInfo;

    nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, [u32; WORDS], GetStruct<[u32; WORDS]>);
}

/// Returns the smoothed round-trip time.
#[cfg(target_os = "linux")]
fn round_trip(tcp: &TcpStream) -> Option<Duration> {
    let info = nix::sys::socket::getsockopt(tcp, info::TcpInfo).ok()?;
    Some(Duration::from_micros(info[info::RTT].into())).filter(|round_trip| !round_trip.is_zero())
}

/// Returns `None`: this system does not report the round-trip time.
#[cfg(not(target_os = "linux"))]
fn round_trip(_: &TcpStream) -> Option<Duration> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn on_this_machine_the_path_is_short() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        before_accept(&SockRef::from(&listener)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let round_trip = round_trip(&tcp).unwrap();
        assert!(round_trip < Duration::from_secs(1), "{round_trip:?}");
        let _ = SockRef::from(&tcp).set_send_buffer_size(4 << 20);
        after_accept(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENCE);
        // The kernel doubles the requested size, and limits it by net.core.wmem_max.
        let fitted = SockRef::from(&tcp).send_buffer_size().unwrap();
        assert!(round_trip > SHORT || fitted <= 2 * SEND_BUFFER, "{fitted}");
    }
}
