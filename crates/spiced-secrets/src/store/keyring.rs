//! `keyring`: the keyring of this machine. On Linux it is the kernel's keyring (`keyctl`), on macOS the login keychain.
//! An entry has the account `spiced` and the service KEY.

use std::sync::Arc;

use async_trait::async_trait;
use keyring_core::{CredentialStore, Error};
use tls_core::Secret;

use super::{OpenArgs, SecretStore, Snapshot, StoreError, each};

/// The account of the entries, as in Spice.
const ACCOUNT: &str = "spiced";

struct Keyring(Arc<CredentialStore>);

/// Opens the store; see [`super::KINDS`].
pub(super) fn open(_: &OpenArgs<'_>) -> Result<Arc<dyn SecretStore>, StoreError> {
    #[cfg(target_os = "linux")]
    let store: Arc<CredentialStore> = linux_keyutils_keyring_store::Store::new().map_err(|e| unusable(&e))?;
    #[cfg(target_os = "macos")]
    let store: Arc<CredentialStore> = apple_native_keyring_store::keychain::Store::new().map_err(|e| unusable(&e))?;
    Ok(Arc::new(Keyring(store)))
}

impl Keyring {
    async fn get(&self, key: String) -> Result<Option<Secret>, StoreError> {
        let store = self.0.clone();
        // A locked keychain prompts its owner, which may take any time.
        let read = tokio::task::spawn_blocking(move || store.build(&key, ACCOUNT, None)?.get_secret()).await;
        match read {
            Ok(Ok(bytes)) => Ok(Some(Secret::new(bytes))),
            Ok(Err(Error::NoEntry)) => Ok(None),
            Ok(Err(error)) => Err(unusable(&error)),
            Err(lost) => Err(StoreError::Keyring { why: lost.to_string(), hint: "try again".to_owned() }),
        }
    }
}

#[async_trait]
impl SecretStore for Keyring {
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        Ok(each(keys, |key| self.get(key)).await)
    }

    fn places(&self, key: &str) -> String {
        if cfg!(target_os = "macos") {
            format!("the keychain entry with the account {ACCOUNT} and the name {key}")
        } else {
            format!("the kernel's key keyring:{ACCOUNT}@{key} (keyctl add user keyring:{ACCOUNT}@{key} VALUE @u)")
        }
    }
}

/// Converts an error of the system, without any content of an entry.
fn unusable(error: &Error) -> StoreError {
    let (why, hint) = match error {
        Error::NoStorageAccess(cause) | Error::PlatformFailure(cause) => (
            cause.to_string(),
            "check that this user has a keyring here and may read it; most containers have none: use another store",
        ),
        Error::Ambiguous(entries) => {
            (format!("{} entries have that name", entries.len()), "remove all but one of them")
        }
        Error::Invalid(what, _) | Error::TooLong(what, _) => {
            (format!("the keyring does not accept such a {what}"), "choose another key")
        }
        Error::BadStoreFormat(_) => ("its format is unknown".to_owned(), "check that it is not damaged"),
        _ => ("it failed".to_owned(), "check that it is not locked"),
    };
    StoreError::Keyring { why, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use keyring_core::mock;

    use super::super::tests::one;
    use super::*;

    fn store() -> (Arc<CredentialStore>, Arc<dyn SecretStore>) {
        let backend: Arc<CredentialStore> = mock::Store::new().unwrap();
        (backend.clone(), Arc::new(Keyring(backend)))
    }

    #[tokio::test]
    async fn an_entry_is_found_by_account_and_name() {
        let (backend, store) = store();
        backend.build("KEY", ACCOUNT, None).unwrap().set_secret(b"value\xff").unwrap();
        backend.build("OTHER", "somebody", None).unwrap().set_password("x").unwrap();
        assert_eq!(one(&store, "KEY").await.unwrap().unwrap().expose(), b"value\xff");
        assert!(one(&store, "OTHER").await.unwrap().is_none());
        assert!(one(&store, "NONE").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_fault_tells_nothing_of_the_entry() {
        for (error, text) in [
            (Error::NoStorageAccess("it is locked".into()), "the keyring cannot be used: it is locked"),
            (Error::BadEncoding(b"hunter2".to_vec()), "the keyring cannot be used: it failed"),
            (Error::BadDataFormat(b"hunter2".to_vec(), "hunter2".into()), "the keyring cannot be used: it failed"),
            (
                Error::Invalid("service".into(), "hunter2".into()),
                "the keyring cannot be used: the keyring does not accept such a service",
            ),
        ] {
            let (backend, store) = store();
            let entry = backend.build("KEY", ACCOUNT, None).unwrap();
            entry.set_password("hunter2").unwrap();
            entry.as_any().downcast_ref::<mock::Cred>().unwrap().set_error(error);
            let error = one(&store, "KEY").await.unwrap_err();
            assert_eq!(error.to_string(), text);
            assert!(!format!("{error:?} {}", error.hint()).contains("hunter2"));
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[allow(clippy::print_stderr)] // A skip says why.
    async fn the_kernels_keyring_answers_for_real() {
        let backend: Arc<CredentialStore> = linux_keyutils_keyring_store::Store::new().unwrap();
        let key = format!("SPICED_TEST_{}", std::process::id());
        let entry = match backend.build(&key, ACCOUNT, None) {
            Ok(entry) => entry,
            // Container runtimes block the system call.
            Err(error) => return eprintln!("skipped: this sandbox has no kernel keyring ({error})"),
        };
        if let Err(error) = entry.set_secret(b"from the kernel") {
            return eprintln!("skipped: this sandbox has no kernel keyring ({error})");
        }
        let store: Arc<dyn SecretStore> = Arc::new(Keyring(backend));
        assert_eq!(one(&store, &key).await.unwrap().unwrap().expose(), b"from the kernel");
        entry.delete_credential().unwrap();
    }
}
