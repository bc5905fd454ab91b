//! Random jitter, so that replicas do not query their stores all at the same time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Returns `span`, varied by up to a tenth in either direction.
pub(crate) fn jittered(span: Duration) -> Duration {
    // The keys of a RandomState are random, which is random enough to spread requests.
    let random = RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64;
    span.mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_tenth() {
        let spans: Vec<_> = (0..100).map(|_| jittered(Duration::from_secs(10))).collect();
        assert!(spans.iter().all(|s| (9.0..=11.0).contains(&s.as_secs_f64())), "{spans:?}");
        assert!(spans.iter().any(|s| *s != spans[0]));
    }
}
