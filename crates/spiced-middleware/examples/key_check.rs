//! Checks whether a key is valid: `key_check KNOWN GIVEN`. The tests count the instructions that the check takes.
// Examples may print.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use http::Request;
use spiced_engine::Role;
use spiced_middleware::{Access, ApiKey, ApiKeys, Dialect, Policy};
use tls_core::{Origin, Secret, Sourced};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [known, given] = words.as_slice() else { return Err("usage: KNOWN GIVEN".into()) };
    let known = ApiKey { key: Sourced::new(Secret::from(known.as_str()), Origin::Program), role: Role::ReadOnly };
    let keys = ApiKeys::new(&[known]).map_err(|_| "KNOWN is no key")?;
    let access = Access::of(Policy { keys: Some(Arc::new(keys)), ..Policy::default() });
    let request = Request::builder().header("x-api-key", given).body(())?.into_parts().0;
    match access.admit(&request, Dialect::Http).decision().await {
        Ok(principal) => println!("{}", principal.name()),
        Err(refusal) => println!("{}", refusal.message()),
    }
    Ok(())
}
