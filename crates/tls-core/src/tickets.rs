//! Stateless session tickets (RFC 5077 §4, RFC 8446 §4.6.1): sealed with AES-256-GCM under a key of the current time
//! window, opened with the key of this window or the previous one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use crate::KeyDeriver;

/// How long one key seals tickets. A ticket is valid for at least this long and at most twice as long.
pub(crate) const WINDOW: Duration = Duration::from_secs(6 * 3600);

/// Maximum size of a ticket: at most a session state with a chain. Anything longer is not our ticket.
const MAX_TICKET: usize = 64 * 1024;

/// The keys of a server's tickets.
#[derive(Debug)]
pub(crate) struct TicketKeys {
    derivation: KeyDeriver,
    /// The last two keys in use, normally of two windows: creating a key costs more than sealing a ticket.
    made: Mutex<[Option<Made>; 2]>,
}

#[derive(Debug)]
struct Made {
    trust: Vec<u8>,
    window: u64,
    key: Arc<RandomizedNonceKey>,
}

impl TicketKeys {
    pub(crate) fn new(derivation: KeyDeriver) -> Arc<Self> {
        Arc::new(Self { derivation, made: Mutex::default() })
    }

    fn get(&self, trust: &[u8], window: u64) -> Option<Arc<RandomizedNonceKey>> {
        // Entries are replaced as a whole, so a panic elsewhere leaves them intact.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.iter().flatten().find(|made| made.window == window && made.trust == trust) {
            return Some(made.key.clone());
        }
        let key = self.derivation.key(&[b"session tickets", trust, &window.to_be_bytes()]);
        let key = Arc::new(RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).ok()?);
        made.rotate_right(1);
        made[0] = Some(Made { trust: trust.to_vec(), window, key: key.clone() });
        Some(key)
    }
}

/// Seals and opens tickets with keys bound to `trust`: a change of the client authentication policy changes `trust`,
/// and older tickets no longer open.
#[derive(Debug)]
pub(crate) struct Ticketer {
    keys: Arc<TicketKeys>,
    trust: Vec<u8>,
}

impl Ticketer {
    pub(crate) fn new(keys: Arc<TicketKeys>, trust: Vec<u8>) -> Self {
        Self { keys, trust }
    }

    fn key(&self, window: u64) -> Option<Arc<RandomizedNonceKey>> {
        self.keys.get(&self.trust, window)
    }

    fn seal(&self, window: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.key(window)?.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        let mut ticket = nonce.as_ref().to_vec();
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn open(&self, window: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        if ticket.len() > MAX_TICKET {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let length = self.key(window)?.open_in_place(nonce, Aad::empty(), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        WINDOW.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(window_now(), plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let now = window_now();
        self.open(now, cipher).or_else(|| self.open(now.checked_sub(1)?, cipher))
    }
}

fn window_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / WINDOW.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(secret: &str, trust: &[u8]) -> Ticketer {
        Ticketer::new(TicketKeys::new(KeyDeriver::new(&secret.into())), trust.to_vec())
    }

    #[test]
    fn replicas_with_one_secret_open_each_others_tickets() {
        let ticket = ticketer("s", b"").encrypt(b"state").unwrap();
        assert_eq!(ticketer("s", b"").decrypt(&ticket).unwrap(), b"state");
        assert!(ticketer("other", b"").decrypt(&ticket).is_none());
        assert!(ticketer("s", b"another CA").decrypt(&ticket).is_none(), "a change of trust ends a ticket");
    }

    #[test]
    fn what_shares_keys_shares_no_trust() {
        let keys = TicketKeys::new(KeyDeriver::new(&"s".into()));
        let [ours, same, other] = ["ours", "ours", "other"].map(|trust| Ticketer::new(keys.clone(), trust.into()));
        let ticket = ours.encrypt(b"state").unwrap();
        assert!(other.decrypt(&ticket).is_none());
        assert_eq!(same.decrypt(&ticket).unwrap(), b"state");
    }

    #[test]
    fn the_last_two_windows_open() {
        let t = ticketer("s", b"");
        let now = window_now();
        assert!(t.decrypt(&t.seal(now - 1, b"x").unwrap()).is_some());
        assert!(t.decrypt(&t.seal(now - 2, b"x").unwrap()).is_none());
    }

    #[test]
    fn a_changed_or_short_ticket_does_not_open() {
        let t = ticketer("s", b"");
        let mut ticket = t.encrypt(b"state").unwrap();
        *ticket.last_mut().unwrap() ^= 1;
        assert!(t.decrypt(&ticket).is_none());
        assert!(t.decrypt(b"").is_none());
        assert!(t.decrypt(&[0; NONCE_LEN]).is_none());
    }
}
