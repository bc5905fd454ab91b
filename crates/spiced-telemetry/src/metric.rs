//! The metrics of the program: names, labels and descriptions.

/// A metric's name and description.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name; stable, since dashboards depend on it.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The description.
    pub help: &'static str,
}

pub(crate) const NOT_AFTER: &str = "spiced_tls_certificate_not_after_timestamp_seconds";
pub(crate) const NOT_BEFORE: &str = "spiced_tls_certificate_not_before_timestamp_seconds";
pub(crate) const CLIENT_CA_NOT_AFTER: &str = "spiced_tls_client_ca_not_after_timestamp_seconds";

/// All metrics; the documentation is generated from this list.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "spiced_tls_handshakes_total",
        kind: "counter",
        labels: &["endpoint", "result", "version", "resumed"],
        help: "TLS handshakes by result: ok; closed (the client sent nothing); timeout, plaintext, no_proxy_header, \
               unknown_name (strict_sni), no_shared_version, no_shared_cipher, no_client_certificate, \
               client_certificate_expired, client_certificate_revoked, bad_client_certificate, refused_by_client, \
               reset; or failed",
    },
    Metric {
        name: "spiced_tls_handshake_seconds",
        kind: "histogram",
        labels: &["endpoint"],
        help: "Time from the accept to the end of a successful handshake",
    },
    Metric { name: "spiced_tls_connections", kind: "gauge", labels: &["endpoint"], help: "Open TLS connections" },
    Metric {
        name: "spiced_connections_shed_total",
        kind: "counter",
        labels: &["endpoint", "state"],
        help: "Connections that were closed to make room for others, because runtime.limits.connections or handshakes \
               was reached: handshake (in progress), never_admitted (no request was ever admitted) or idle",
    },
    Metric {
        name: "spiced_http2_floods_total",
        kind: "counter",
        labels: &[],
        help: "HTTP/2 connections that were ended with ENHANCE_YOUR_CALM for too many frames without data",
    },
    Metric {
        name: "spiced_request_bodies_refused_total",
        kind: "counter",
        labels: &["reason"],
        help: "Request bodies that were refused: late (past their deadline), exhausted (callers hold the maximum \
               amount of memory), stopping (nothing arrived after a shutdown began), unread (over HTTP/2: the requests \
               of a connection did not read the data that it sent, while all connections together had too much of it)",
    },
    Metric {
        name: "spiced_http2_stalls_total",
        kind: "counter",
        labels: &["direction"],
        help: "Times that an HTTP/2 connection had to wait because too much was buffered: received (data that no \
               request had read), sent (frames of responses that its client had not read)",
    },
    Metric {
        name: "spiced_log_lines_suppressed_total",
        kind: "counter",
        labels: &["target"],
        help: "Log lines that were suppressed because the same line occurred too often, by the module that logs it",
    },
    Metric {
        name: NOT_AFTER,
        kind: "gauge",
        labels: &["endpoint", "subject", "fingerprint", "origin"],
        help: "End of validity of each certificate in use",
    },
    Metric {
        name: NOT_BEFORE,
        kind: "gauge",
        labels: &["endpoint", "subject", "fingerprint", "origin"],
        help: "Start of validity of each certificate in use",
    },
    Metric {
        name: CLIENT_CA_NOT_AFTER,
        kind: "gauge",
        labels: &["subject", "fingerprint"],
        help: "End of validity of each CA whose client certificates are accepted",
    },
    Metric {
        name: "spiced_tls_reload_total",
        kind: "counter",
        labels: &["result"],
        help: "Reloads of TLS material by result: swapped, unchanged or rejected",
    },
    Metric {
        name: "spiced_requests_total",
        kind: "counter",
        labels: &["endpoint", "method", "code"],
        help: "Requests by HTTP status or gRPC code; aborted if the response broke off, cancelled if the caller \
               disconnected before it",
    },
    Metric {
        name: "spiced_request_seconds",
        kind: "histogram",
        labels: &["endpoint", "method"],
        help: "Time from the head of a request to the end of its response",
    },
    Metric {
        name: "spiced_statements_total",
        kind: "counter",
        labels: &["role", "outcome"],
        help: "Statements by the caller's role and outcome: done, cancelled, denied, refused (wrong, or not \
               supported), exhausted (a limit, or no free slot), timeout, unavailable or failed",
    },
    Metric {
        name: "spiced_statements_overdue",
        kind: "gauge",
        labels: &[],
        help: "Statements that were answered at their time limit and whose work has not ended yet; each keeps its slot",
    },
    Metric {
        name: "spiced_statements_ended_for_memory_total",
        kind: "counter",
        labels: &["reason"],
        help: "Statements that were ended because the process used more memory than runtime.sql.process_memory_limit \
               (process), or because their results were left unread while others found no memory (unread)",
    },
    Metric {
        name: "spiced_statements_stalled_seconds",
        kind: "gauge",
        labels: &["role"],
        help: "How long no statement of callers with the role could run: from 10 s the server is not ready, from 60 s \
               /health fails",
    },
    Metric {
        name: "spiced_statement_seconds",
        kind: "histogram",
        labels: &["role"],
        help: "Time from receiving a statement to fetching its last batch",
    },
    Metric {
        name: "spiced_statement_queue_seconds",
        kind: "histogram",
        labels: &["role"],
        help: "How long a statement waited for a slot",
    },
    Metric {
        name: "spiced_telemetry_rows_total",
        kind: "counter",
        labels: &["table", "result"],
        help: "Rows of otel.logs, otel.metrics and otel.traces by outcome: kept on arrival; expired after \
               runtime.otel.retention, evicted earlier for lack of memory (runtime.otel.memory_limit, or queries hold \
               runtime.sql.memory_limit)",
    },
    Metric {
        name: "spiced_telemetry_bytes",
        kind: "gauge",
        labels: &["table"],
        help: "Size of each of these tables, limited by runtime.otel.memory_limit",
    },
    Metric {
        name: "spiced_auth_failures_total",
        kind: "counter",
        labels: &["endpoint", "reason"],
        help: "Requests that were refused: anonymous, wrong_key, malformed, several_keys, key_missing, \
               certificate_missing, certificate_ended, certificate_distrusted, unmapped_certificate, throttled, \
               cross_site or foreign_host",
    },
    Metric {
        name: "spiced_secret_refresh_total",
        kind: "counter",
        labels: &["store", "result"],
        help: "Reads of secret stores after startup by result: changed, unchanged or failed",
    },
];
