use std::convert::Infallible;
use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::layers::at_once;
use crate::providers::Flag;

const POD: &str = "
name: my-app
secrets:
  - { name: aws, from: aws_secrets_manager, params: { aws_region: eu-west-1, aws_secret_access_key: hush } }
runtime:
  tls:
    enabled: ${env:ON}
    certificate: |
      -----BEGIN CERTIFICATE-----
      hush
    certificate_file: tls.crt
    key: ${aws:tls/key}
    key_file: tls.key
    session_ticket_secret: hush-hush-hush-hush
  limits: { connections: 5 }
  sql: { host_paths: [a, b] }
datasets:
  - { from: file:t.csv, name: t, params: { file_format: csv, token: hush, pg_host: db, pg_connection_string: hush, url: \"x${env:U}y\" } }
";

/// Returns the explanation of the settings that are not defaults.
fn explain(pod: &str, variables: &[(&str, &str)], flags: &[(&str, &'static str, &str)]) -> String {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let flags: Vec<Flag> = flags
        .iter()
        .map(|(name, setting, value)| Flag { name: (*name).to_owned(), setting, value: (*value).to_owned() })
        .collect();
    let layers = Layers::from_text(Path::new("pod.yaml"), pod, "/pod".into(), variables, &flags, &[]).unwrap();
    let resolve = async |values: &[Sourced<Template>]| -> Result<Vec<Secret>, Infallible> {
        Ok(values
            .iter()
            .map(|v| v.value.render(|r| Secret::from(if r.key() == "ON" { "true" } else { "false" })))
            .collect())
    };
    let explanation = match at_once(layers.explain(resolve)) {
        Ok(explanation) => explanation,
        Err(SettingsError::Config(e)) => return e.to_string(),
        Err(SettingsError::Secrets(_) | SettingsError::Both(..)) => panic!("nothing is lost"),
    };
    let mut out = String::new();
    for s in explanation.settings.iter().filter(|s| s.origin != "the default") {
        let _ = writeln!(out, "{} = {} | {}", s.key, s.value, s.origin);
        if let Some(why) = &s.why {
            let _ = writeln!(out, "  {why}");
        }
        for b in &s.beat {
            let _ = writeln!(out, "  beats {} | {} | {}", b.value, b.origin, b.why);
        }
    }
    for warning in explanation.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    assert!(!out.contains("hush"), "a secret is shown:\n{out}");
    out
}

#[test]
fn everybody_who_lost_is_named() {
    let env = [
        ("SPICED_RUNTIME__TLS__CERTIFICATE", "-----BEGIN CERTIFICATE-----hush"),
        ("SPICED_RUNTIME__LIMITS__CONNECTIONS", "7"),
    ];
    let flags = [("--tls-certificate-file", "runtime.tls.certificate_file", "flag.crt")];
    insta::assert_snapshot!(explain(POD, &env, &flags));
}

#[test]
fn switched_off_by_a_flag() {
    insta::assert_snapshot!(explain(POD, &[], &[("--tls-enabled", "runtime.tls.enabled", "false")]));
}

#[test]
fn on_because_material_is_given() {
    insta::assert_snapshot!(explain("runtime: { tls: { certificate_file: c, key_file: k } }", &[], &[]), @r"
    runtime.tls.certificate_file = c | pod.yaml: runtime.tls.certificate_file
    runtime.tls.enabled = true | pod.yaml: runtime.tls.certificate_file
      certificate material turns TLS on where nobody says `enabled`
    runtime.tls.key_file = k | pod.yaml: runtime.tls.key_file
    ");
}

#[test]
fn what_the_schema_calls_a_default_is_what_is_decided() {
    let mut keys = Vec::new();
    let schema = schema();
    defaults(&schema["properties"]["runtime"], "runtime", &mut keys);
    let mut said = serde_json::json!({});
    for (key, default) in &keys {
        let parts: Vec<&str> = key.split('.').collect();
        let at = parts.iter().fold(&schema["properties"]["runtime"], |at, part| match *part {
            "runtime" => at,
            name => &at["properties"][name],
        });
        // Another test covers TLS; CORS and the like are refused for any value.
        let (Some(_), Some(value)) = (default, at.get("default")) else { continue };
        if value.is_array() || value.is_object() || key.starts_with("runtime.tls.") || key.starts_with("runtime.cors.")
        {
            continue;
        }
        let mut place = &mut said;
        for part in &parts {
            place = &mut place[*part];
        }
        *place = value.clone();
    }
    let settle = |pod: &str| {
        let layers = Layers::from_text(Path::new("pod.yaml"), pod, "/pod".into(), [], &[], &[]).unwrap();
        let resolve = async |values: &[Sourced<Template>]| -> Result<Vec<Secret>, Infallible> {
            Ok(values.iter().map(|v| v.value.render(|_| Secret::default())).collect())
        };
        at_once(layers.settle(resolve)).unwrap()
    };
    let (one, other) =
        (settle("name: x"), settle(&format!("{{ name: x, {} }}", &said.to_string()[1..said.to_string().len() - 1])));
    assert!(said["runtime"]["listen"]["http"] == "localhost:3000", "{said}");
    assert_eq!(
        (one.runtime.shutdown_delay, one.runtime.shutdown_timeout),
        (other.runtime.shutdown_delay, other.runtime.shutdown_timeout)
    );
    assert_eq!(
        (one.runtime.sql.timeout, one.runtime.sql.memory_limit),
        (other.runtime.sql.timeout, other.runtime.sql.memory_limit)
    );
    assert_eq!(one.runtime.http.body_limit, other.runtime.http.body_limit);
    assert_eq!(
        (one.runtime.limits.connections, one.runtime.limits.handshakes),
        (other.runtime.limits.connections, other.runtime.limits.handshakes)
    );
    for (one, other) in [
        (&one.runtime.listen.http, &other.runtime.listen.http),
        (&one.runtime.listen.flight, &other.runtime.listen.flight),
        (&one.runtime.listen.grpc, &other.runtime.listen.grpc),
    ] {
        assert_eq!(one.value, other.value);
    }
}
