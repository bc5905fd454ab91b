//! `spiced secrets check`: its report as text and as JSON, and its exit code.
#![allow(clippy::unwrap_used)]

use testkit::{PodDirectory, program};

/// What the command prints. `POD` is a placeholder for the directory of the pod.
struct Report {
    code: Option<i32>,
    text: String,
    json: String,
}

/// Returns the report for a pod with these secret stores.
fn report(secrets: &str, rest: &str, files: &[(&str, &str)], more: &[&str]) -> Report {
    let pod = PodDirectory::new(&format!("secrets:\n{secrets}\n{rest}"));
    let pod = files.iter().fold(pod, |pod, (name, text)| pod.with(name, text));
    let path = pod.path().to_str().unwrap();
    let run = |format: &[&str]| {
        let ended = program::run(env!("CARGO_BIN_EXE_spiced"), [&["secrets", "check"], format, more, &[path]].concat());
        (ended.code, ended.stdout.replace(path, "POD"))
    };
    let ((code, text), (as_json, json)) = (run(&[]), run(&["--json"]));
    assert_eq!(code, as_json);
    Report { code, text, json }
}

#[test]
fn all_is_there() {
    let secrets = "  - { name: mine, from: env, params: { file_path: \"${here:PATH}\" } }\n  - { name: here, from: \"file:here\" }";
    let tls = "runtime:\n  tls: { certificate: \"${mine:CERT}\", key: \"${secrets:KEY}\" }";
    let files = [("here/PATH", "mine.env"), ("mine.env", "CERT=secret-certificate"), ("here/KEY", "secret-key")];
    let report = report(secrets, tls, &files, &[]);
    assert_eq!(report.code, Some(0));
    insta::assert_snapshot!(report.text, @r#"
    spicepod.yaml: secrets[0].params.file_path  ${here:PATH}    found in here
    spicepod.yaml: runtime.tls.certificate      ${mine:CERT}    found in mine
    spicepod.yaml: runtime.tls.key              ${secrets:KEY}  found in here
    3 found, 0 missing, 0 unreachable
    "#);
    insta::assert_snapshot!(report.json, @r#"
    {
      "errors": [],
      "found": 3,
      "missing": 0,
      "references": [
        {
          "answered_by": "here",
          "asked": [
            "here"
          ],
          "fix": null,
          "line": 2,
          "outcome": "found",
          "place": "spicepod.yaml: secrets[0].params.file_path",
          "problem": null,
          "reference": "${here:PATH}",
          "store": "here",
          "used": true
        },
        {
          "answered_by": "mine",
          "asked": [
            "mine"
          ],
          "fix": null,
          "line": 5,
          "outcome": "found",
          "place": "spicepod.yaml: runtime.tls.certificate",
          "problem": null,
          "reference": "${mine:CERT}",
          "store": "mine",
          "used": true
        },
        {
          "answered_by": "here",
          "asked": [
            "here"
          ],
          "fix": null,
          "line": 5,
          "outcome": "found",
          "place": "spicepod.yaml: runtime.tls.key",
          "problem": null,
          "reference": "${secrets:KEY}",
          "store": "secrets",
          "used": true
        }
      ],
      "unreachable": 0
    }
    "#);
}

#[test]
fn some_is_missing_and_some_cannot_be_reached() {
    let secrets = "  - { name: here, from: \"file:here\" }\n  - { name: away, from: \"file:away\" }";
    let tls = "runtime:\n  tls: { certificate: \"${here:CERT}\", key: \"${away:KEY}\", session_ticket_secret: \"${secrets:T}${nowhere:X}\" }";
    let report = report(secrets, tls, &[("here/KEY", "secret-key")], &[]);
    assert_eq!(report.code, Some(78));
    insta::assert_snapshot!(report.text, @r#"
    spicepod.yaml: runtime.tls.certificate            ${here:CERT}  missing: there is no `CERT`
        fix: set it in one of: POD/here/CERT
    spicepod.yaml: runtime.tls.key                    ${away:KEY}   unreachable: store `away` cannot answer: cannot read "POD/away": there is no directory "POD/away"
        fix: check the path
    spicepod.yaml: runtime.tls.session_ticket_secret  ${secrets:T}  unreachable: store `away` cannot answer: cannot read "POD/away": there is no directory "POD/away"
        fix: check the path
    spicepod.yaml: runtime.tls.session_ticket_secret  ${nowhere:X}  missing: no secret store is called `nowhere`
        fix: known: `away`, `here`, `env`, `secrets`; or declare it under `secrets`
    0 found, 2 missing, 2 unreachable
    "#);
}

#[test]
fn what_is_beaten_keeps_nothing_from_starting() {
    let tls = "runtime:\n  tls: { certificate: \"${here:NONE}\", key: \"${here:KEY}\" }";
    let secrets = "  - { name: here, from: \"file:here\" }";
    let report = report(secrets, tls, &[("here/KEY", "secret-key")], &["--tls-certificate-file", "x.pem"]);
    assert_eq!(report.code, Some(0));
    insta::assert_snapshot!(report.text, @r#"
    spicepod.yaml: runtime.tls.certificate  ${here:NONE}  missing: there is no `NONE` (not used: another setting overrides this one)
    spicepod.yaml: runtime.tls.key          ${here:KEY}   found in here
    1 found, 1 missing, 0 unreachable
    "#);
}

#[test]
fn a_switch_that_is_missing_hides_nothing() {
    let tls = "runtime:\n  tls: { enabled: \"${here:ON}\", certificate: \"${here:NONE}\", key: \"${here:KEY}\" }";
    let secrets = "  - { name: here, from: \"file:here\" }";
    let report = report(secrets, tls, &[("here/KEY", "secret-key")], &[]);
    insta::assert_snapshot!(report.text, @r#"
    spicepod.yaml: runtime.tls.enabled      ${here:ON}    missing: there is no `ON`
        fix: set it in one of: POD/here/ON
    spicepod.yaml: runtime.tls.certificate  ${here:NONE}  missing: there is no `NONE`
        fix: set it in one of: POD/here/NONE
    spicepod.yaml: runtime.tls.key          ${here:KEY}   found in here
    1 found, 2 missing, 0 unreachable
    "#);
}

#[test]
fn stores_that_are_wrong() {
    let secrets = "  - { name: a, from: env, params: { file_path: \"${b:X}\" } }\n  - { name: b, from: env, params: { file_path: \"${a:X}\" } }\n  - { name: c, from: enw }";
    let report = report(secrets, "name: \"${a:NAME}${c:X}\"", &[], &[]);
    insta::assert_snapshot!(report.text, @r#"
    spicepod.yaml: secrets[2]: secret store `c`: no kind of secret store is called `enw`; did you mean `env`
        fix: change `from` or `params`, or remove the store
    spicepod.yaml: secrets[1]: secret store `b`: the params of stores refer to each other in a cycle: b -> a -> b
        fix: give one of them its value from another store, such as `${env:KEY}`
    spicepod.yaml: secrets[1].params.file_path  ${a:X}     unreachable: store `a` cannot answer: its params form a cycle
    spicepod.yaml: secrets[0].params.file_path  ${b:X}     unreachable: store `b` cannot answer: its params form a cycle
    spicepod.yaml: name                         ${a:NAME}  unreachable: store `a` cannot answer: its params form a cycle
    spicepod.yaml: name                         ${c:X}     unreachable: store `c` cannot answer: its declaration is invalid
        fix: see the error about it
    0 found, 0 missing, 4 unreachable
    "#);
}

#[test]
fn nothing_to_check() {
    let report = report("  - { name: env, from: env }", "", &[], &[]);
    assert_eq!(report.code, Some(0));
    assert_eq!(report.text, "the pod contains no references\n");
}
