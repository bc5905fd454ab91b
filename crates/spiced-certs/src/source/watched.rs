//! Material in a secret store that can change. A read returns the newest value, and a change triggers another read of
//! the pair. The store itself is outside this crate.

use futures::future::select_all;
use tls_core::Secret;
use tokio::sync::watch;

use super::{Input, Pair};

/// Returns the newest value and marks it as seen.
pub(crate) fn newest(receiver: &mut watch::Receiver<Secret>) -> Secret {
    receiver.borrow_and_update().clone()
}

impl Pair {
    /// Returns true if a change of a secret can change the pair.
    pub fn is_watched(&self) -> bool {
        let inputs = [&self.certificate, &self.key].into_iter().chain(&self.passphrase);
        inputs.into_iter().any(|input| matches!(input.value, Input::Watched(_)))
    }

    /// Returns the certificate, the key and the passphrase.
    pub(crate) fn inputs(&mut self) -> impl Iterator<Item = &mut Input> {
        [&mut self.certificate, &mut self.key].into_iter().chain(&mut self.passphrase).map(|input| &mut input.value)
    }
}

/// Marks the current values as seen, so that [`changed`] waits for the next change.
pub(crate) fn mark_seen<'i>(inputs: impl IntoIterator<Item = &'i mut Input>) {
    for input in inputs {
        if let Input::Watched(receiver) = input {
            receiver.mark_unchanged();
        }
    }
}

/// Waits until a secret of `inputs` differs from the value that was last read; waits forever if none can change.
pub(crate) async fn changed(inputs: impl IntoIterator<Item = &mut Input>) {
    let mut watched: Vec<_> = inputs
        .into_iter()
        .filter_map(|input| match input {
            Input::Watched(receiver) => Some(receiver),
            _ => None,
        })
        .collect();
    while !watched.is_empty() {
        let waits = watched.iter_mut().map(|receiver| Box::pin(receiver.changed()));
        let (changed, at, _) = select_all(waits).await;
        match changed {
            Ok(()) => return,
            // The sender is gone, so this value cannot change any more.
            Err(_) => drop(watched.remove(at)),
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use tls_core::{Origin, Sourced};

    use super::*;

    fn pair(certificate: Input, key: Input) -> Pair {
        let sourced = |input| Sourced::new(input, Origin::Default);
        Pair::new(sourced(certificate), sourced(key))
    }

    #[tokio::test]
    async fn a_change_is_told_until_it_is_read() {
        let (certificate, key) = (watch::Sender::new(Secret::from("c")), watch::Sender::new(Secret::from("k")));
        let mut pair = pair(Input::Watched(certificate.subscribe()), Input::Watched(key.subscribe()));
        assert!(pair.is_watched());
        key.send_replace(Secret::from("k2"));
        changed(pair.inputs()).await;
        // Changes of both inputs before a read count as one.
        certificate.send_replace(Secret::from("c2"));
        for (input, expected) in [(&mut pair.certificate.value, "c2"), (&mut pair.key.value, "k2")] {
            let Input::Watched(receiver) = input else { panic!("not watched") };
            assert_eq!(newest(receiver).expose_text(), Ok(expected));
        }
        assert!(futures::FutureExt::now_or_never(changed(pair.inputs())).is_none());
        drop(certificate);
        key.send_replace(Secret::from("k3"));
        changed(pair.inputs()).await;
        mark_seen(pair.inputs());
        assert!(futures::FutureExt::now_or_never(changed(pair.inputs())).is_none());
    }

    #[tokio::test]
    async fn what_cannot_change_is_waited_for_without_an_end() {
        let gone = watch::Sender::new(Secret::from("c")).subscribe();
        let mut pair = pair(Input::Watched(gone), Input::Text(Secret::from("k")));
        assert!(futures::FutureExt::now_or_never(changed(pair.inputs())).is_none());
    }
}
