//! The context of a request: its caller and its deadline.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::BoxStream;
use spiced_engine::{Principal, passed, until};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::handles::running_queries::CancelGuard;

/// A stream of messages to the client.
pub(crate) type Answer<T> = BoxStream<'static, Result<T, Status>>;

/// Returns the caller from the request's extensions. A request without a caller is refused.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Principal, Status> {
    let principal = request.extensions().get::<Principal>().cloned();
    principal.ok_or_else(|| Status::unauthenticated("the caller is not authenticated"))
}

/// The time at which a request must end, or the cancellation that ends it earlier.
pub(crate) struct RequestDeadline {
    deadline: Option<Instant>,
    cancel: Option<CancelGuard>,
}

impl RequestDeadline {
    /// Reads the deadline from the request's `grpc-timeout`. No layer below this crate enforces it.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let deadline = timeout(request.metadata()).and_then(|after| Instant::now().checked_add(after));
        Self { deadline, cancel: None }
    }

    /// Also ends the request when `CancelFlightInfo` cancels it.
    pub(crate) fn or_cancelled(self, entry: CancelGuard) -> Self {
        Self { cancel: Some(entry), ..self }
    }

    /// Runs `work`, and drops it if the deadline passes or the request is cancelled first.
    pub(crate) async fn within<T>(&mut self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            // The deadline is polled first, so that work that is always ready cannot overrun it.
            biased;
            status = self.comes() => Err(status),
            result = work => result,
        }
    }

    /// Ends and drops `stream` at the deadline or the cancellation, which also cancels the query behind it.
    pub(crate) fn limit<T: Send + 'static>(mut self, stream: Answer<T>) -> Answer<T> {
        if self.deadline.is_none() && self.cancel.is_none() {
            return stream;
        }
        until(stream, async move { self.comes().await })
    }

    /// Waits for the deadline or the cancellation and returns its status.
    async fn comes(&mut self) -> Status {
        let deadline = async {
            match self.deadline {
                Some(at) => passed(at).await,
                None => std::future::pending().await,
            }
        };
        let cancel = async {
            match &mut self.cancel {
                Some(entry) => entry.cancelled().await,
                None => std::future::pending().await,
            }
        };
        // `tokio::select!` would not poll its branches once the task has used up its cooperative budget.
        match select(pin!(deadline), pin!(cancel)).await {
            Either::Left(_) => late(),
            Either::Right(_) => Status::cancelled("the query was cancelled by its caller"),
        }
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the client's time limit (grpc-timeout) has passed")
}

/// Returns the `grpc-timeout` of the request ("Requests" in gRPC's PROTOCOL-HTTP2): up to eight digits and a unit. A
/// malformed value is ignored, as in other implementations.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 60 * 60),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use spiced_engine::Role;

    use super::*;

    #[test]
    fn grpc_timeouts() {
        let table = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("100000000S", None),
        ];
        for (text, expected) in table {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout(&metadata), expected, "{text}");
        }
    }

    #[test]
    fn without_a_principal_there_is_no_caller() {
        let mut request = Request::new(());
        assert_eq!(caller(&request).unwrap_err().code(), tonic::Code::Unauthenticated);
        request.extensions_mut().insert(Principal::anonymous(Role::ReadOnly));
        assert_eq!(caller(&request).unwrap().name(), "anonymous");
    }

    #[tokio::test]
    async fn a_deadline_outruns_work_that_is_always_ready() {
        let mut request = Request::new(());
        request.set_timeout(Duration::ZERO);
        let forever = futures::stream::repeat(()).map(Ok).boxed();
        let told: Vec<_> = RequestDeadline::of(&request).limit(forever).collect().await;
        assert_eq!(told.last().unwrap().as_ref().unwrap_err().code(), tonic::Code::DeadlineExceeded);
    }
}
