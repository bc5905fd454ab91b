//! The session of one request: its caller, and the options that the caller has set. It ends with the request.

use std::ops::Deref;

use spiced_engine::{Prepared, Principal, Session, Statement};
use tonic::{Request, Status};

use crate::handles::session_cookie::{self, SessionOptions};
use crate::request_context;
use crate::state::FlightServiceState;
use crate::status;

/// The caller and the session options it has set.
pub(crate) struct Caller {
    principal: Principal,
    options: SessionOptions,
}

impl Caller {
    /// Returns the options that the caller has set.
    pub(crate) fn options(&self) -> &SessionOptions {
        &self.options
    }
}

impl Deref for Caller {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

/// Returns the caller with the session options from its cookie.
pub(crate) fn caller<T>(state: &FlightServiceState, request: &Request<T>) -> Result<Caller, Status> {
    let principal = request_context::caller(request)?;
    let options = session_cookie::read(&state.signer, request.metadata(), &principal)?;
    Ok(Caller { principal, options })
}

/// Opens a session for this request only, with the caller's options set.
pub(crate) async fn open(state: &FlightServiceState, caller: &Caller) -> Result<Box<dyn Session>, Status> {
    let session = state.engine.session(caller).await.map_err(status::from_engine)?;
    for (name, value) in &caller.options.options {
        session.set(name, value.text().as_deref()).await.map_err(status::from_engine)?;
    }
    Ok(session)
}

/// Plans a statement. The engine checks here whether this caller may run it.
pub(crate) async fn plan(
    state: &FlightServiceState,
    caller: &Caller,
    sql: String,
) -> Result<Box<dyn Prepared>, Status> {
    open(state, caller).await?.prepare(Statement::Sql(sql)).await.map_err(status::from_engine)
}
