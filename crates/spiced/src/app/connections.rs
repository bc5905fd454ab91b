//! How many connections the endpoints may have, and how much memory their requests may use.

use spiced_config::Settings;
use tls_core::server::RequestMemory;
use tokio::sync::Semaphore;
use tracing::info;

/// File descriptors kept free for data files, secrets and logs when the number of connections is limited.
const SPARE_DESCRIPTORS: u64 = 256;

/// Limits how much memory request bodies may use: enough for several bodies of the maximum size.
pub(super) fn request_memory(body_limit: usize) -> RequestMemory {
    const PROCESS: usize = 512 << 20;
    const CONNECTION: usize = 64 << 20;
    RequestMemory::new(PROCESS.max(body_limit.saturating_mul(8)), CONNECTION.max(body_limit.saturating_mul(2)))
}

/// Returns how many connections the endpoints may have: the configured limit, capped by the file descriptors that the
/// system allows this process.
pub(super) fn connections(settings: &Settings, endpoints: usize) -> Shares {
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let all = open_files.saturating_sub(SPARE_DESCRIPTORS.min(open_files / 2));
    let most = settings.runtime.limits.connections.min(Semaphore::MAX_PERMITS);
    let shares = Shares::of(most, usize::try_from(all).unwrap_or(usize::MAX), endpoints);
    if shares.own < most {
        let Shares { own, spare } = shares;
        info!(each = own, shared = spare, open_files, "the limit of open files restricts the number of connections");
    }
    shares
}

/// How connections are divided: those reserved for each endpoint, and those shared by all. A flooded endpoint cannot
/// use up the connections of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) own: usize,
    pub(super) spare: usize,
}

impl Shares {
    /// Divides `all` connections: no endpoint gets more than `most`. All endpoints together get no more than `all`,
    /// except that each gets at least one.
    fn of(most: usize, all: usize, endpoints: usize) -> Self {
        let endpoints = endpoints.max(1);
        if all / endpoints >= most {
            return Self { own: most, spare: 0 };
        }
        // Reserves half of an even share for each endpoint; more if the other endpoints can still reach their maximum.
        let own = (all / (2 * endpoints)).max(all.saturating_sub(most) / (endpoints - 1).max(1)).max(1);
        Self { own, spare: all.saturating_sub(own * endpoints).min(most - own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_leaves_the_others_theirs() {
        for (most, all, own, spare) in [
            (10_000, 1 << 20, 10_000, 0),
            (10_000, 30_000, 10_000, 0),
            (10_000, 29_999, 9_999, 1),
            (10_000, 19_744, 4_872, 5_128),
            (10_000, 768, 128, 384),
            (10, 20, 5, 5),
            (10, 0, 1, 0),
            (1, 0, 1, 0),
        ] {
            assert_eq!(Shares::of(most, all, 3), Shares { own, spare }, "{most} of {all}");
        }
    }
}
