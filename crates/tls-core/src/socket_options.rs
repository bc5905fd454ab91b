//! What the kernel is told of a connection, above all how much of what is sent may lie there.
//!
//! The kernel lets its buffer grow to megabytes, which a long path needs. On a short one that only means that bytes are
//! copied after they have left the cache: fitted to the path, a gigabyte costs about a third less.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The longest round trip on which [`SEND_BUFFER`] bytes at a time are no brake: they are 8 Gbit/s.
const SHORT: Duration = Duration::from_micros(250);

/// What lies in the kernel at most, where the path is short.
const SEND_BUFFER: usize = 256 << 10;

/// HTTP/1 has no ping of its own: the kernel asks a peer that has been silent for so long whether it lives.
const SILENCE: Duration = Duration::from_secs(60);

/// Tells a socket that listens what its connections are to have: Linux hands it down to them.
pub(crate) fn before_accept(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE))
}

/// Fits the send buffer to the path, where that is known.
pub(crate) fn after_accept(tcp: &TcpStream) -> io::Result<()> {
    if cfg!(not(target_os = "linux")) {
        before_accept(&SockRef::from(tcp))?;
    }
    if round_trip(tcp).is_some_and(|round_trip| round_trip <= SHORT) {
        // Where it cannot be, the kernel's own is as good as it was.
        let _ = SockRef::from(tcp).set_send_buffer_size(SEND_BUFFER);
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod info {
    use nix::sys::socket::sockopt::GetStruct;

    /// `struct tcp_info` of `linux/tcp.h`, as far as every kernel has had it; in words.
    const WORDS: usize = 26;

    /// The place of `tcpi_rtt` in it, which is in microseconds.
    pub(super) const RTT: usize = 17;

    /// What the kernel knows of a connection: `tcp(7)`.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct TcpInfo;

    nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, [u32; WORDS], GetStruct<[u32; WORDS]>);
}

/// How long the last bytes took to a client and back, smoothed.
#[cfg(target_os = "linux")]
fn round_trip(tcp: &TcpStream) -> Option<Duration> {
    let info = nix::sys::socket::getsockopt(tcp, info::TcpInfo).ok()?;
    Some(Duration::from_micros(info[info::RTT].into())).filter(|round_trip| !round_trip.is_zero())
}

/// Not every system tells.
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
        // The kernel doubles what is asked for, and bounds it by net.core.wmem_max.
        let fitted = SockRef::from(&tcp).send_buffer_size().unwrap();
        assert!(round_trip > SHORT || fitted <= 2 * SEND_BUFFER, "{fitted}");
    }
}
