use http::Request;
use tls_core::{Origin, Sourced};

use super::*;
use crate::auth::keys::ApiKey;

fn parts(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::post("/v1/sql");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn now(access: &Access, headers: &[(&str, &str)]) -> Result<Principal, Refusal> {
    match access.admit(&parts(headers), Dialect::Http) {
        Decision::Ready(decision) => decision,
        Decision::Pending(_) => panic!("there is no slow hash"),
    }
}

fn keys() -> Policy {
    let key = |text: &str, role| ApiKey { key: Sourced::new(text.into(), Origin::Default), role };
    let keys = ApiKeys::new(&[key("reader", Role::ReadOnly), key("writer", Role::ReadWrite)]).unwrap();
    Policy { keys: Some(Arc::new(keys)), ..Policy::default() }
}

#[test]
fn pages_and_hosts() {
    let open = Access::anonymous(Some(Role::ReadWrite)).loopback();
    let public = Access::anonymous(Some(Role::ReadOnly));
    let allowed = AllowedOrigins::read(["https://app.example.com"]).unwrap();
    let cors = Access::anonymous(Some(Role::ReadOnly)).from_pages_of(allowed);
    type Case<'a> = (&'a Access, &'a [(&'a str, &'a str)], Option<Refusal>);
    let cases: &[Case<'_>] = &[
        (&open, &[("host", "localhost:3000")], None),
        (&open, &[("host", "127.0.0.1:3000")], None),
        (&open, &[("host", "[::1]:3000")], None),
        (&open, &[("host", "app.localhost")], None),
        (&open, &[], Some(Refusal::ForeignHost)),
        (&open, &[("host", "")], Some(Refusal::ForeignHost)),
        (&open, &[("host", "no host")], Some(Refusal::ForeignHost)),
        (&public, &[], None),
        (&open, &[("host", "evil.example")], Some(Refusal::ForeignHost)),
        (&open, &[("host", "localhost.evil.example")], Some(Refusal::ForeignHost)),
        (&public, &[("host", "db.example.com")], None),
        (&open, &[("host", "localhost:3000"), ("origin", "http://localhost:3000")], None),
        (&open, &[("host", "localhost:3000"), ("origin", "http://localhost:8080")], Some(Refusal::CrossSite)),
        (&open, &[("host", "localhost:3000"), ("origin", "https://evil.example")], Some(Refusal::CrossSite)),
        (&open, &[("host", "localhost:3000"), ("origin", "null")], Some(Refusal::CrossSite)),
        (&public, &[("host", "db.example.com"), ("origin", "https://evil.example")], Some(Refusal::CrossSite)),
        (&public, &[("host", "db.example.com"), ("sec-fetch-site", "cross-site")], Some(Refusal::CrossSite)),
        (&public, &[("host", "db.example.com"), ("sec-fetch-site", "same-origin")], None),
        (&public, &[("host", "db.example.com"), ("sec-fetch-site", "none")], None),
        (&cors, &[("origin", "https://app.example.com"), ("sec-fetch-site", "cross-site")], None),
        (&cors, &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], Some(Refusal::CrossSite)),
    ];
    for (access, headers, expected) in cases {
        assert_eq!(now(access, headers).err(), *expected, "{headers:?}");
    }
    let nobody = Access::anonymous(None);
    assert_eq!(now(&nobody, &[]).err(), Some(Refusal::Anonymous { has_credentials: false }));
}

#[test]
fn keys_and_nothing() {
    let strict = Access::of(keys());
    let lenient = Access::of(Policy { anonymous: Anonymous::Said(Some(Role::ReadOnly)), ..keys() });
    let role = |access: &Access, headers: &[(&str, &str)]| now(access, headers).map(|p| p.role());
    assert_eq!(role(&strict, &[("x-api-key", "reader")]), Ok(Role::ReadOnly));
    assert_eq!(role(&strict, &[("authorization", "Bearer writer")]), Ok(Role::ReadWrite));
    // A page can only send a key that it was given.
    assert_eq!(role(&strict, &[("x-api-key", "writer"), ("sec-fetch-site", "cross-site")]), Ok(Role::ReadWrite));
    assert_eq!(role(&strict, &[]), Err(Refusal::Anonymous { has_credentials: true }));
    assert_eq!(role(&lenient, &[]), Ok(Role::ReadOnly));
    assert_eq!(role(&lenient, &[("authorization", "Bearer ")]), Ok(Role::ReadOnly));
    assert_eq!(role(&lenient, &[("x-api-key", "wrong")]), Err(Refusal::WrongKey { waits: false }));
    assert_eq!(role(&lenient, &[("authorization", "Basic eA==")]), Err(Refusal::Malformed));
    // If no keys are configured, a key is meant for another server.
    assert_eq!(role(&Access::anonymous(Some(Role::ReadOnly)), &[("x-api-key", "any")]), Ok(Role::ReadOnly));
}

#[test]
fn the_default_depends_on_who_reaches_the_endpoint() {
    let role = |access: &Access| now(access, &[]).map(|p| p.role()).ok();
    assert_eq!(role(&Access::of(Policy::default())), None);
    assert_eq!(role(&Access::of(Policy::default()).local()), Some(Role::ReadWrite));
    assert_eq!(role(&Access::of(keys()).local()), None);
}
