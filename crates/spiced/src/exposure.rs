//! What whoever starts the server should know of what it lets through: plain text, and pages of any origin.

use spiced_config::Settings;
use spiced_engine::Role;
use tracing::{error, info, warn};

use crate::doors::{Doors, Opened};
use crate::routes::Callers;

/// Logs it, once at a start.
pub(crate) fn report(settings: &Settings, doors: &Doors, callers: &Callers) {
    let may_write = |door: &&Opened| {
        let anonymous = callers.policy.borrow().anonymous(callers.is_local(door));
        ["http", "flight", "grpc"].contains(&door.endpoint) && anonymous == Some(Role::ReadWrite)
    };
    plain_text(doors, may_write);
    let any_origin = settings.allowed_origins.iter().flatten().any(|origin| origin.value.trim() == "*");
    if any_origin && may_write(&&doors.http) {
        warn!(
            endpoint = doors.http.endpoint,
            "pages of any origin may change data here: runtime.cors allows `*`, and callers without credentials may write; \
             name the origins, set up runtime.auth, or set runtime.auth.allow_anonymous to ro"
        );
    }
}

/// One line where endpoints speak plain text that could speak TLS.
fn plain_text(doors: &Doors, may_write: impl Fn(&&Opened) -> bool) {
    let plain = || doors.iter().filter(|door| !door.is_tls() && door.endpoint != "probe");
    let names = |doors: Vec<&Opened>| doors.iter().map(|door| door.endpoint).collect::<Vec<_>>().join(", ");
    let far: Vec<&Opened> = plain().filter(|door| !door.is_loopback()).collect();
    let open: Vec<&Opened> = far.iter().copied().filter(|door| may_write(door)).collect();
    if !open.is_empty() {
        error!(
            endpoints = names(open),
            "TLS is off, and callers without credentials may write: whoever reaches this machine can change the data; set up \
             runtime.tls and runtime.auth, or set runtime.auth.allow_anonymous to ro"
        );
    } else if !far.is_empty() {
        warn!(
            endpoints = names(far),
            "TLS is off: what is sent here can be read and changed on the way; set up runtime.tls, or listen on localhost \
             behind a proxy that speaks TLS"
        );
    } else if plain().next().is_some() {
        info!(endpoints = names(plain().collect()), "TLS is off: plain text, for this machine alone");
    }
}
