//! Limits how often a log line is written, so that no peer can fill the disk: each call site has a budget. Suppressed
//! lines are counted in a metric and reported in a separate line.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, warn};
use tracing_subscriber::layer::{Context, Filter};

/// How often suppressed lines are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The audit log's target. Its lines at `INFO` record changes by authorized callers, and are never suppressed.
const AUDIT: &str = "spiced::audit";

/// The number of lines that a call site may log in a burst, and per second after that.
#[derive(Debug, Clone, Copy)]
struct Quota {
    burst: f64,
    per_second: f64,
}

impl Quota {
    /// Returns the quota of a line; `None` means unlimited.
    fn of(line: &Metadata<'_>) -> Option<Self> {
        let (burst, per_second) = match *line.level() {
            Level::ERROR | Level::WARN => (200.0, 20.0),
            Level::INFO if line.target() == AUDIT => return None,
            Level::INFO => (1_000.0, 100.0),
            // Enabled only on request.
            _ => (10_000.0, 2_000.0),
        };
        Some(Self { burst, per_second })
    }
}

/// The state of one call site.
#[derive(Debug)]
struct Place {
    line: &'static Metadata<'static>,
    left: f64,
    at: Instant,
    suppressed: u64,
}

impl Place {
    fn allows(&mut self, quota: Quota, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * quota.per_second;
        (self.left, self.at) = ((self.left + earned).min(quota.burst), now);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        } else {
            self.suppressed += 1;
        }
        allowed
    }
}

/// One entry for each call site, so the size is bounded by the code.
static PLACES: LazyLock<Mutex<HashMap<Identifier, Place>>> = LazyLock::new(Mutex::default);

/// Returns whether a line may be written now.
fn allows(line: &'static Metadata<'static>, now: Instant) -> bool {
    let Some(quota) = Quota::of(line) else { return true };
    // No code that holds the lock can panic.
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = || Place { line, left: quota.burst, at: now, suppressed: 0 };
    places.entry(line.callsite()).or_insert_with(fresh).allows(quota, now)
}

/// A filter that passes lines within their budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineLimit;

impl<S> Filter<S> for LineLimit {
    // Not `event_enabled`, because tracing-subscriber keeps the state of a filter that rejects an event there.
    fn enabled(&self, line: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        if line.is_span() {
            return true;
        }
        let allowed = allows(line.callsite().0.metadata(), Instant::now());
        if !allowed {
            let target = line.callsite().0.metadata().target();
            counter!("spiced_log_lines_suppressed_total", "target" => target).increment(1);
        }
        allowed
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        // The decision is made for each line.
        Interest::sometimes()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Without the hint, every line of every library would be built, regardless of its level.
        Some(LevelFilter::TRACE)
    }
}

/// Reports every ten seconds which lines were suppressed, and how many; ends with the runtime.
pub async fn report_suppressed() {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        for (line, lines) in take_suppressed() {
            let place = format!("{}:{}", line.file().unwrap_or("?"), line.line().unwrap_or(0));
            warn!(lines, of = line.target(), place, "log lines suppressed: they occurred too often");
        }
    }
}

fn take_suppressed() -> Vec<(&'static Metadata<'static>, u64)> {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let suppressed = places.values_mut().filter(|place| place.suppressed > 0);
    suppressed.map(|place| (place.line, std::mem::take(&mut place.suppressed))).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing::{Event, error, info};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_place_has_a_budget() {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_filter(LineLimit);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            for _ in 0..5_000 {
                warn!("a flood of warnings");
                error!(target: "spiced::audit", "a flood of denials");
                info!(target: "spiced::audit", "a change");
            }
            warn!("another warning");
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        for flood in ["a flood of warnings", "a flood of denials"] {
            assert!((200..400).contains(&count(flood)), "{flood}: {}", count(flood));
        }
        assert_eq!((count("a change"), count("another warning")), (5_000, 1));
        let suppressed = take_suppressed();
        assert!(suppressed.iter().any(|(line, lines)| line.target() == "spiced::audit" && *lines > 4_000));
        assert!(take_suppressed().is_empty());
    }

    #[test]
    fn time_earns_lines() {
        let quota = Quota { burst: 2.0, per_second: 1.0 };
        let start = Instant::now();
        let mut place = Place { line: METADATA.get(), left: 2.0, at: start, suppressed: 0 };
        let mut allowed = |seconds| place.allows(quota, start + Duration::from_secs_f64(seconds));
        assert_eq!(
            [0.0, 0.1, 0.2, 1.5, 1.6, 60.0, 60.0, 60.0].map(&mut allowed),
            [true, true, false, true, false, true, true, false]
        );
        assert_eq!(place.suppressed, 3);
    }

    /// Provides the metadata of a log line.
    struct AnyLine;
    static METADATA: AnyLine = AnyLine;

    impl AnyLine {
        fn get(&self) -> &'static Metadata<'static> {
            static FOUND: std::sync::OnceLock<&'static Metadata<'static>> = std::sync::OnceLock::new();
            struct Find;
            impl<S: tracing::Subscriber> Layer<S> for Find {
                fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                    let _ = FOUND.set(event.metadata());
                }
            }
            tracing::subscriber::with_default(tracing_subscriber::registry().with(Find), || info!("some line"));
            FOUND.get().unwrap()
        }
    }
}
