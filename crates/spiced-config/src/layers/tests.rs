use std::collections::HashMap;
use std::convert::Infallible;

use figment::providers::Serialized;

use super::*;
use crate::settings::{Material, MaterialInput, Pair, Role, Tls};

/// The output of a future that is ready at once.
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the stand-in never waits"),
    }
}

/// Replaces the stores: `${env:X}` is `<X>`, except for the names in `VALUES`.
async fn stand_in(values: &[Sourced<Template>]) -> Result<Vec<Secret>, Infallible> {
    let known = HashMap::from([("OFF", "false"), ("ON", "true")]);
    Ok(values
        .iter()
        .map(|v| {
            v.value.render(|r| match known.get(r.key()) {
                Some(value) => Secret::from(*value),
                None => Secret::from(format!("<{}>", r.key())),
            })
        })
        .collect())
}

fn settle(pod: &str, variables: &[(&str, &str)], flags: &[(&str, &'static str, &str)]) -> Result<Settings, String> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let flags: Vec<Flag> = flags
        .iter()
        .map(|(name, setting, value)| Flag { name: (*name).to_owned(), setting, value: (*value).to_owned() })
        .collect();
    let layers = Layers::from_text(Path::new("spicepod.yaml"), pod, "/pod".into(), variables, &flags, &[])
        .map_err(|e| e.to_string())?;
    match at_once(layers.settle(stand_in)) {
        Ok(settings) => Ok(settings),
        Err(SettingsError::Config(e)) => Err(e
            .0
            .iter()
            .map(|p| format!("{p} / {}", p.hint.as_deref().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join("\n")),
        Err(SettingsError::Secrets(never) | SettingsError::Both(_, never)) => panic!("{never:?}"),
    }
}

fn pair(settings: &Settings) -> (String, String) {
    let Some(crate::Tls { material: Material::Pair(pair), .. }) = &settings.runtime.tls else {
        panic!("no pair: {:?}", settings.runtime.tls)
    };
    let Pair { certificate, key, .. } = &**pair;
    let text = |input: &Sourced<MaterialInput>| match &input.value {
        MaterialInput::File(path) => path.display().to_string(),
        MaterialInput::Text(value) => format!("text {}", value.current().expose_text().unwrap()),
    };
    (text(certificate), text(key))
}

const FILES: &str = "runtime: { tls: { certificate_file: c.pem, key_file: k.pem } }";

#[test]
fn who_wins_layer_by_layer() {
    let all = "runtime:\n  tls:\n    certificate_file: plain.pem\n    certificate: ${env:C}\n    key_file: k.pem\n";
    let env = [("SPICED_RUNTIME__TLS__CERTIFICATE", "E")];
    let flag = [("--tls-certificate", "runtime.tls.certificate", "F")];
    assert_eq!(pair(&settle(FILES, &[], &[]).unwrap()), ("/pod/c.pem".into(), "/pod/k.pem".into()));
    // A reference overrides a plain value, even if it is inline text and the plain value a file.
    assert_eq!(pair(&settle(all, &[], &[]).unwrap()).0, "text <C>");
    assert_eq!(pair(&settle(all, &env, &[]).unwrap()).0, "text E");
    assert_eq!(pair(&settle(all, &env, &flag).unwrap()).0, "text F");
    // Within one layer a file overrides text; its path is relative to the current directory.
    let both = [env[0], ("SPICED_RUNTIME__TLS__CERTIFICATE_FILE", "e.pem")];
    assert_eq!(pair(&settle(all, &both, &[]).unwrap()).0, "e.pem");
}

#[test]
fn whether_it_is_on() {
    let on = |pod: &str, v: &[(&str, &str)], f: &[(&str, &'static str, &str)]| {
        settle(pod, v, f).map(|s| s.runtime.tls.is_some())
    };
    let off = "runtime: { tls: { enabled: false, certificate_file: c.pem, key_file: k.pem } }";
    assert_eq!(on("", &[], &[]), Ok(false));
    assert_eq!(on(FILES, &[], &[]), Ok(true), "material turns it on");
    assert_eq!(on(off, &[], &[]), Ok(false));
    assert_eq!(settle(off, &[], &[]).unwrap().warnings.len(), 1);
    assert_eq!(on(off, &[], &[("--tls-enabled", "runtime.tls.enabled", "true")]), Ok(true));
    assert_eq!(on("runtime: { tls: { enabled: \"${env:OFF}\", certificate: \"${env:X}\" } }", &[], &[]), Ok(false));

    let above = on(off, &[("SPICED_RUNTIME__TLS__KEY_FILE", "k.pem")], &[]).unwrap_err();
    assert!(
        above.contains("SPICED_RUNTIME__TLS__KEY_FILE") && above.contains("spicepod.yaml: runtime.tls.enabled"),
        "{above}"
    );
    let bare = on("runtime:\n  tls:\n    enabled: true\n", &[], &[]).unwrap_err();
    assert!(bare.contains("line 3") && bare.contains("--tls-self-signed"), "{bare}");
    let half = on("runtime: { tls: { certificate_file: c.pem } }", &[], &[]).unwrap_err();
    assert!(half.contains("nothing gives its key"), "{half}");
    let beside = on(FILES, &[], &[("--tls-self-signed", "runtime.tls.self_signed", "true")]).unwrap_err();
    assert!(beside.contains("--tls-self-signed") && beside.contains("runtime.tls.certificate_file"), "{beside}");
}

#[test]
fn unknown_keys_name_the_place_and_the_nearest() {
    let text = settle("runtime:\n  tls:\n    certificate_fil: c.pem\n", &[], &[]).unwrap_err();
    assert!(
        text.contains("line 3")
            && text.contains("`certificate_fil`")
            && text.contains("did you mean `certificate_file`"),
        "{text}"
    );
    let text =
        settle("runtime:\n  tls:\n    enabled: true\n    certificat_file: c.pem\n    key_file: k.pem\n", &[], &[])
            .unwrap_err();
    assert!(text.contains("line 4") && text.contains("did you mean `certificate_file`"), "{text}");
    let text = settle("", &[("SPICED_RUNTIME__TSL__ENABLED", "true")], &[]).unwrap_err();
    assert!(text.contains("SPICED_RUNTIME__TSL__ENABLED") && text.contains("SPICED_RUNTIME__TLS__ENABLED"), "{text}");
    let warned = settle(
        "models: []\nruntime: { task_history: {} }\ndatasets: [{ from: \"file:x\", name: x, description: y }]",
        &[],
        &[],
    );
    assert_eq!(warned.unwrap().warnings.len(), 3);
}

/// Unknown keys, values of the wrong kind, variables and contradictions are in one report, without their consequences.
#[test]
fn everything_at_once() {
    let pod = "version: v9\nruntime:\n  tsl: { enabled: true }\n  limits: { connections: many }\n  listen: { http: nowhere }\n\
               \u{20} shutdown_delay: soon\ndataset: []\ndatasets:\n  - { frm: a, name: b }\n  - { from: x, name: y, access: maybe }\n";
    let text = settle(pod, &[("SPICED_RUNTIME_TLS__KEY_FILE", "k"), ("SPICED_RUNTIME__SQL__TIMEOUT", "never")], &[]);
    let text = text.unwrap_err();
    let lines: Vec<&str> = text.lines().collect();
    for (at, part) in [
        "SPICED_RUNTIME_TLS__KEY_FILE",
        "SPICED_RUNTIME__SQL__TIMEOUT",
        "`v9`",
        "`tsl`",
        "connections",
        "listen.http",
        "shutdown_delay",
        "`dataset`",
        "`frm`",
        "`maybe`",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(lines.get(at).is_some_and(|line| line.contains(part)), "{part}: {text}");
    }
    assert_eq!(lines.len(), 10, "{text}");
    assert!(!text.contains("never"), "{text}");

    // The certificate and its key, and the client CA.
    let pod = "runtime:\n  tls:\n    certificate_file: ''\n    key_file: ''\n    client_auth_mode: request\n    client_auth_ca_file: ''\n";
    assert_eq!(settle(pod, &[], &[]).unwrap_err().lines().count(), 3);
    // A key that appears twice, a malformed reference, and an unknown key.
    let pod =
        "runtime:\n  tls: { key: \"${env\", certificate: c }\n  limits: { handshakes: 1, handshakes: 2 }\n  tsl: {}\n";
    let text = settle(pod, &[], &[]).unwrap_err();
    assert_eq!(text.matches(" / ").count(), 3, "{text}");
    assert!(text.contains("`tsl`") && text.contains("twice") && text.contains("runtime.tls.key"), "{text}");
    // Other problems hide no contradiction; the consequence of a wrong key is not a contradiction.
    let pod = "runtime: { tls: { certificate_file: c }, limits: { handshakes: x } }";
    assert_eq!(settle(pod, &[], &[]).unwrap_err().lines().count(), 2);
    let pod = "runtime: { tls: { certificate_file: c, key_fil: k, client_auth_mode: x } }";
    assert_eq!(settle(pod, &[], &[]).unwrap_err().lines().count(), 2);
}

/// Missing secrets are in the same report.
#[test]
fn missing_secrets_beside_what_else_is_wrong() {
    let pod = "runtime:\n  tls: { enabled: \"${env:ON}\", certificate: \"${env:C}\", key: \"${env:K}\" }\n  tsl: {}\n\
               datasets: [{ from: \"${env:F}\", name: a, acess: read }]\n";
    let layers = Layers::from_text(Path::new("spicepod.yaml"), pod, "/pod".into(), [], &[], &[]).unwrap();
    let lost = async |values: &[Sourced<Template>]| -> Result<Vec<Secret>, usize> { Err(values.len()) };
    match at_once(layers.clone().settle(lost)) {
        Err(SettingsError::Both(error, lost)) => {
            let text = error.to_string();
            assert!(text.contains("`tsl`") && text.contains("`acess`") && error.0.len() == 2, "{text}");
            assert_eq!(lost[0], 1, "the switch");
            assert!(lost.len() == 2 && lost[1] >= 3, "{lost:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(at_once(layers.problems()).len(), 2);
}

#[test]
fn what_other_products_write() {
    for (tls, wanted) in [
        ("cert_file: a, private_key_file: b", &["`certificate_file`", "`key_file`"][..]),
        ("ssl_cert: a, ssl_key: b, ca_file: c", &["`certificate_file`", "`key_file`", "`client_auth_ca_file`"]),
        (
            "certificate_file: [tls.crt, 'my chain.pem'], key_file: k",
            &["`cat /pod/tls.crt '/pod/my chain.pem' > /pod/fullchain.pem`", "takes the path of one file"],
        ),
        ("certificate_file: [tls.crt, fullchain.pem], key_file: k", &["fullchain.pem > /pod/tls-chain.pem`"]),
        ("certificate_file: c, key_file: [a, b]", &["takes the path of one file"]),
        ("certificate: [a], key: k", &["takes one value, not a list"]),
        ("certificate_file: '\"tls.crt\"', key_file: \"'tls.key'\"", &["double quote", "single quote", "--env-file"]),
    ] {
        let text = settle(&format!("runtime: {{ tls: {{ {tls} }} }}"), &[], &[]).unwrap_err();
        for part in wanted {
            assert!(text.contains(part), "{tls}: {part}: {text}");
        }
    }
}

/// No value of an option or a variable is repeated, for any setting.
#[test]
fn what_an_option_gives_is_not_shown() {
    for value in ["hush", "-----BEGIN PRIVATE KEY-----\nhush", "\nhush", "hush\\nhush"] {
        for (setting, flag) in [
            ("SPICED_RUNTIME__LISTEN__HTTP", "runtime.listen.http"),
            ("SPICED_RUNTIME__TLS__ENABLED", "runtime.tls.enabled"),
            ("SPICED_RUNTIME__TLS__CLIENT_AUTH_MODE", "runtime.tls.client_auth_mode"),
            ("SPICED_RUNTIME__TLS__MIN_VERSION", "runtime.tls.min_version"),
            ("SPICED_RUNTIME__SQL__TIMEOUT", "runtime.sql.timeout"),
            ("SPICED_RUNTIME__SQL__MEMORY_LIMIT", "runtime.sql.memory_limit"),
            ("SPICED_RUNTIME__LIMITS__CONNECTIONS", "runtime.limits.connections"),
            ("SPICED_RUNTIME__TLS__CERTIFICATES", "runtime.tls.certificates"),
            ("SPICED_RUNTIME__HTTP", "runtime.http"),
            ("SPICED_RUNTIME__TLS__SELF_SIGNED", "runtime.tls.self_signed"),
        ] {
            for text in [settle("", &[(setting, value)], &[]), settle("", &[], &[("--flag", flag, value)])] {
                let text = text.unwrap_err();
                assert!(!text.contains("hush"), "{setting}: {text}");
            }
        }
    }
}

/// A secret in place of a path or a source is not shown, and the quotes that Docker keeps are reported.
#[test]
fn secrets_in_the_place_of_paths() {
    let pem = "-----BEGIN PRIVATE KEY-----hush";
    for pod in [
        format!("runtime: {{ sql: {{ host_paths: ['{pem}'] }} }}"),
        format!(
            "runtime: {{ tls: {{ certificate: c, key: k, client_auth_mode: request, client_auth_ca: a, client_crl_files: ['{pem}'] }} }}"
        ),
        format!("datasets: [{{ from: '{pem}', name: a }}]"),
        format!("datasets: [{{ from: 'file:a', name: '{pem}' }}]"),
        format!("runtime: {{ '{pem}': 1 }}"),
        format!("runtime: {{ listen: {{ http: '{pem}:1' }}, tls: {{ profile: '{pem}' }} }}"),
    ] {
        let text = settle(&pod, &[], &[]).unwrap_err();
        assert!(!text.contains("hush"), "{pod}: {text}");
    }
    let text = settle("", &[("SPICED_RUNTIME__TLS__ENABLED", "\"true\"")], &[]).unwrap_err();
    assert!(text.contains("take the quotes away"), "{text}");
}

#[test]
fn more_pairs_and_their_default() {
    let pair = |n: usize| format!("{{ certificate_file: {n}.crt, key_file: {n}.key, key_passphrase: p{n} }}");
    let tls = |said: String| settle(&format!("runtime: {{ tls: {{ {said} }} }}"), &[], &[]).map(|s| s.runtime.tls);
    let files = |pair: &Pair| match &pair.certificate.value {
        MaterialInput::File(path) => path.display().to_string(),
        other => panic!("{other:?}"),
    };
    let Ok(Some(both)) = tls(format!("certificate_file: a.crt, key_file: a.key, certificates: [{}]", pair(1))) else {
        panic!("no TLS")
    };
    let Material::Pair(main) = &both.material else { panic!("{both:?}") };
    assert!(files(main).ends_with("a.crt") && files(&both.more[0]).ends_with("1.crt"));
    assert!(main.passphrase.is_none() && both.more[0].passphrase.is_some());
    let Ok(Some(alone)) = tls(format!("certificates: [{}, {}], strict_sni: true", pair(1), pair(2))) else {
        panic!("no TLS")
    };
    let Material::Pair(first) = &alone.material else { panic!("{alone:?}") };
    assert!(files(first).ends_with("1.crt") && alone.more.len() == 1 && alone.strict_sni);
    assert!(tls("certificates: []".to_owned()).unwrap().is_none());
    for (said, wanted) in [
        ("certificates: [{ certificate_file: a }]", "nothing gives its key"),
        ("certificates: [{}]", "neither"),
        ("certificates: [{ certificat_file: a }]", "certificate_file"),
        ("self_signed: true, certificates: [{ certificate_file: a, key_file: b }]", "only one of them"),
        ("self_signed: true, key_passphrase: x", "no key beside it"),
    ] {
        let error = tls(said.to_owned()).unwrap_err();
        assert!(error.contains(wanted), "{said}: {error}");
    }
    let beaten = settle(
        "runtime: { tls: { certificate_file: a, key_file: b, key_passphrase: \"${env:NOPE}\" } }",
        &[],
        &[
            ("--tls-key-file", "runtime.tls.key_file", "c"),
            ("--tls-certificate-file", "runtime.tls.certificate_file", "d"),
        ],
    );
    let Some(Tls { material: Material::Pair(beaten), .. }) = beaten.unwrap().runtime.tls else { panic!("no TLS") };
    assert!(beaten.passphrase.is_none());
    let item = settle(
        &format!("runtime: {{ tls: {{ certificates: [{}] }} }}", pair(1)),
        &[("SPICED_RUNTIME__TLS__CERTIFICATES__0__KEY_PASSPHRASE", "x")],
        &[],
    );
    assert!(item.unwrap_err().contains("an item of a list"));
    let off = tls(format!("enabled: false, certificates: [{}], key_passphrase: x", pair(1)));
    assert!(off.unwrap().is_none());
}

#[test]
fn a_role_is_what_was_written() {
    let pod = "runtime: { auth: { api-key: { keys: [\"plain:rw\", \"${env:K}:ro\", \"${env:K}\", \"a:b\"] } } }";
    let keys = settle(pod, &[], &[]).unwrap().runtime.auth.keys.unwrap();
    let said: Vec<_> =
        keys.iter().map(|key| (key.key.value.current().expose_text().unwrap().to_owned(), key.role)).collect();
    let text = |text: &str| text.to_owned();
    let referred = said[1].0.clone();
    assert_eq!(
        said,
        [
            (text("plain"), Some(Role::ReadWrite)),
            (referred.clone(), Some(Role::ReadOnly)),
            (referred, None),
            (text("a:b"), None)
        ]
    );
    assert!(keys[1].key.value.template().is_some() && keys[0].key.value.template().is_none());
    assert!(keys[3].key.origin.to_string().contains("runtime.auth.api"), "{}", keys[3].key.origin);
    let environment = [("SPICED_RUNTIME__AUTH__API_KEY__KEYS", "one:rw, two")];
    let keys = settle("", &environment, &[]).unwrap().runtime.auth.keys.unwrap();
    assert_eq!((keys.len(), keys[0].role, keys[1].role), (2, Some(Role::ReadWrite), None));
}

#[test]
fn what_cannot_stand_together() {
    let asked = "tls: { certificate: c, key: k, client_auth_ca_file: ca.pem, client_auth_mode: request }";
    for (pod, said) in [
        ("auth: { api_key: { enabled: true } }", "there is none"),
        ("auth: { require: all }", "not both are set up"),
        ("auth: { metrics: true }", "none are set up"),
        ("auth: { mtls: { identities: [ { subject_cn: a, role: ro } ] } }", "clients are not asked"),
        ("tls: { client_auth_mode: required }", "TLS is off"),
        ("tls: { certificate: c, key: k, client_auth_mode: required }", "nothing says whose are taken"),
        ("tls: { client_auth_mode: sometimes }", "is none of none, request, required"),
        (&format!("{asked}, auth: {{ mtls: {{ identities: [ {{ role: ro }} ] }} }}"), "exactly one of"),
        (
            &format!("{asked}, auth: {{ mtls: {{ identities: [ {{ subject_cn: a, san_dns: b, role: ro }} ] }} }}"),
            "exactly one of",
        ),
        ("http: { trusted_proxies: [proxy.example.com] }", "addresses and networks"),
    ] {
        let text = settle(&format!("runtime: {{ {pod} }}"), &[], &[]).unwrap_err();
        assert!(text.contains(said), "{pod}: {text}");
    }
    let good = settle(&format!("runtime: {{ {asked} }}"), &[], &[]).unwrap();
    assert!(!good.runtime.tls.unwrap().clients.unwrap().required);
}

#[test]
fn values_are_text_until_the_schema_speaks() {
    let s = settle("runtime: { tls: { min_version: 1.3, certificate: x, key: 00123 } }", &[], &[]).unwrap();
    assert_eq!(s.runtime.tls.as_ref().unwrap().min_version, crate::TlsVersion::Tls13);
    assert_eq!(pair(&s).1, "text 00123");
    let s =
        settle("", &[("SPICED_RUNTIME__SQL__HOST_PATHS", "/a, /b"), ("SPICED_RUNTIME__SHUTDOWN_TIMEOUT", "1m")], &[])
            .unwrap();
    assert_eq!(s.runtime.sql.host_paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(s.runtime.shutdown_timeout.as_secs(), 60);
    let s = settle("runtime: { auth: { allow_anonymous: false } }", &[], &[]).unwrap();
    assert_eq!(s.runtime.auth.allow_anonymous, Some(None));
    let bad = settle("runtime: { tls: { enabled: maybe } }", &[], &[]).unwrap_err();
    assert!(bad.contains("takes true or false, not `maybe`"), "{bad}");
    let bad = settle("runtime: { shutdown_delay: soon }", &[], &[]).unwrap_err();
    assert!(bad.contains("takes a duration") && bad.contains("runtime.shutdown_delay"), "{bad}");
    let hidden =
        settle("runtime: { listen: { http: \"${env:PORT}\" }, limits: { connections: \"${env:SECRET}\" } }", &[], &[])
            .unwrap_err();
    assert!(!hidden.contains("<SECRET>"), "{hidden}");
}

#[test]
fn what_a_reference_gives_is_not_shown() {
    for pod in [
        "runtime: { tls: { certificate_file: c.pem, key_file: \"${env:PASSWORD}\" } }",
        "runtime: { listen: { http: \"${env:PASSWORD}\" } }",
        "version: \"${env:PASSWORD}\"",
        "runtime: { shutdown_delay: \"${env:PASSWORD}\" }",
        "runtime: { tls: { profile: \"${env:PASSWORD}\", certificate: c, key: k } }",
    ] {
        let text = settle(pod, &[], &[]).unwrap_err();
        assert!(!text.contains("<PASSWORD>"), "{pod}: {text}");
    }
    // Base64 of PEM in place of a path is not repeated either.
    let flag = [("--tls-key-file", "runtime.tls.key_file", "LS0tLS1CRUdJTiBQUklWQVRF")];
    let text = settle(FILES, &[], &flag).unwrap_err();
    assert!(text.contains("this is PEM text") && !text.contains("LS0t"), "{text}");
}

#[test]
fn a_beaten_switch_is_not_read() {
    let pod = "runtime: { tls: { enabled: \"${env:NO_BOOLEAN}\", certificate_file: c.pem, key_file: k.pem } }";
    assert!(settle(pod, &[], &[]).is_err());
    let flag = [("--tls-enabled", "runtime.tls.enabled", "true")];
    assert!(settle(pod, &[], &flag).unwrap().runtime.tls.is_some());
}

#[test]
fn stores_with_references_and_intervals() {
    let read = |secrets: &str| {
        let pod = format!("secrets:\n{secrets}");
        let layers = Layers::from_text(Path::new("spicepod.yaml"), &pod, "/pod".into(), [], &[], &[]).unwrap();
        layers.stores().map_err(|e| e.to_string())
    };
    let stores = read(
        "  - { name: env, from: env }\n  - { name: v, from: \"hashicorp_vault:secret/spice\", refresh_interval: 90s, params: { hashicorp_vault_token: \"${env:T}\", hashicorp_vault_address: https://v } }",
    )
    .unwrap();
    assert_eq!((stores[0].refresh_interval, stores[0].params.len()), (None, 0));
    assert_eq!(stores[1].refresh_interval.map(|i| i.as_secs()), Some(90));
    let params: Vec<_> = stores[1].params.iter().map(|(k, v)| (k.as_str(), v.value.as_literal())).collect();
    assert_eq!(params, [("hashicorp_vault_address", Some("https://v")), ("hashicorp_vault_token", None)]);
    assert_eq!(
        stores[1].params["hashicorp_vault_token"].origin.to_string(),
        "spicepod.yaml: secrets[1].params.hashicorp_vault_token"
    );
    for (secrets, part) in [
        ("  - { name: \"${env:X}\", from: env }", "only the params of a store may hold references"),
        ("  - { name: a, from: env, refresh_interval: 100ms }", "a second or more"),
        ("  - { name: a, from: env, refresh_intervall: 1m }", "unknown key `refresh_intervall`"),
        ("  - { name: a, from: env, params: [x] }", "keys and values"),
    ] {
        let error = read(secrets).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn keys_that_are_switched_off_are_a_warning() {
    let pod = |enabled| {
        format!(
            "runtime: {{ auth: {{ api_key: {{ enabled: {enabled}, keys: ['a-long-enough-key-of-a-test:rw'] }} }} }}"
        )
    };
    let warned = |enabled| {
        let warnings = settle(&pod(enabled), &[], &[]).unwrap().warnings;
        warnings.iter().any(|warning| warning.message.contains("switched off"))
    };
    assert!(warned("false"));
    assert!(!warned("true"));
}

/// Providers that an embedding program adds above and below the layers.
#[test]
fn providers_of_an_embedding_program() {
    let read = |pod: &str| {
        Layers::from_text(Path::new("spicepod.yaml"), pod, "/pod".into(), [], &[], &[])
            .map_err(|e| e.to_string())
            .unwrap()
    };
    let file = || Serialized::default("runtime.tls.certificate_file", "p.pem");
    let text = "runtime: { tls: { certificate: \"${env:C}\", key_file: k.pem } }";
    let settled = |layers: Layers| at_once(layers.settle(stand_in)).map_err(|e| e.to_string());
    // The source of the certificate follows the order of the layers, even between a file and text.
    let over = settled(read(text).merge(file()).unwrap()).unwrap();
    assert_eq!(pair(&over).0, "p.pem");
    let Some(Tls { material: Material::Pair(over), .. }) = over.runtime.tls else { panic!("no TLS") };
    assert_eq!(over.certificate.origin, Origin::Program);
    assert_eq!(pair(&settled(read(text).join(file()).unwrap()).unwrap()).0, "text <C>");
    let off = settled(read("runtime: { tls: { enabled: false } }").merge(file()).unwrap()).unwrap_err();
    assert!(off.starts_with("the program: gives TLS material, and TLS is switched off"), "{off}");

    // Values are literal, text or numbers.
    let layers = read("").join(Serialized::default("name", "${env:X}")).unwrap();
    let layers = layers.merge(Serialized::default("runtime.limits.handshakes", 7)).unwrap();
    let layers = layers.merge(Serialized::default("runtime.tls.enabled", false)).unwrap();
    let settings = settled(layers).unwrap();
    assert_eq!((settings.name.as_str(), settings.runtime.limits.handshakes), ("${env:X}", 7));
    let wrong = settled(read("").merge(Serialized::default("runtime.limits.handshakes", "hush")).unwrap());
    assert_eq!(wrong.unwrap_err(), "the program: takes a whole number, not the value that is given");
    assert!(read("").merge(Serialized::defaults("a provider of text alone")).is_err());
}

#[test]
fn figment_says_who_supplied_a_value() {
    let pod = "runtime: { tls: { key: hush, key_file: k }, limits: { connections: 5 } }";
    let variables = [("SPICED_RUNTIME__TLS__KEY".to_owned(), "hush".to_owned())];
    let flag = Flag { name: "--tls-key".to_owned(), setting: "runtime.tls.key", value: "hush".to_owned() };
    assert!(!format!("{flag:?}").contains("hush"));
    let read = |flags: &[Flag]| {
        Layers::from_text(Path::new("p.yaml"), pod, "/pod".into(), variables.clone(), flags, &[]).unwrap()
    };
    let supplied = |layers: &Layers, setting: &str| {
        let figment = layers.figment();
        let metadata = figment.find_metadata(setting).unwrap();
        let keys: Vec<&str> = setting.split('.').collect();
        (metadata.name.to_string(), metadata.interpolate(figment.profile(), &keys))
    };
    let said = |who: &str, what: &str| (who.to_owned(), what.to_owned());
    let layers = read(&[flag]);
    assert_eq!(supplied(&layers, "runtime.tls.key"), said("the command line", "--tls-key"));
    assert_eq!(supplied(&layers, "runtime.tls.key_file"), said("spicepod.yaml", "runtime.tls.key_file"));
    assert_eq!(supplied(&read(&[]), "runtime.tls.key"), said("the environment", "SPICED_RUNTIME__TLS__KEY"));
    assert!(!format!("{layers:?}").contains("hush"));
}

/// A value that is not a map stays if a higher layer sets keys below it: it must not be ignored.
#[test]
fn keys_over_text_and_lists() {
    let variable = [("SPICED_RUNTIME__TLS__ENABLED", "false")];
    let flag = [("--http", "runtime.listen.http", "localhost:1"), ("--tls-enabled", "runtime.tls.enabled", "false")];
    for pod in
        ["runtime: [tls]", "runtime: text", "runtime: { tls: [x], listen: [x] }", "runtime: { tls: x, listen: x }"]
    {
        for (variables, flags) in [(&[][..], &flag[..]), (&variable, &[]), (&variable, &flag)] {
            let text = settle(pod, variables, flags).unwrap_err();
            assert!(text.contains("takes keys and values, not a single value or a list"), "{pod}: {text}");
        }
    }
    for pod in ["runtime:", "runtime: ~"] {
        assert!(settle(pod, &variable, &flag).is_ok(), "{pod}");
    }
    let read = |pod: &str| Layers::from_text(Path::new("p.yaml"), pod, "/pod".into(), [], &[], &[]).unwrap();
    let over = read("views: [{ name: a, sql: b }]").merge(Serialized::default("views.a", "x")).unwrap();
    let under = read("runtime: { http: { hsts: 1d } }").join(Serialized::default("runtime.http", "x")).unwrap();
    for layers in [over, under] {
        let text = at_once(layers.settle(stand_in)).unwrap_err().to_string();
        assert!(text.contains("the program: `") && text.contains("is a map of keys in one place"), "{text}");
    }
}

/// The error behind a problem is kept.
#[test]
fn causes_are_sources() {
    let missing = Layers::read(Path::new("/nowhere/spicepod.yaml"), [], &[], &[]).unwrap_err();
    let source =
        std::error::Error::source(&missing).and_then(|source| source.downcast_ref::<spiced_files::Unreadable>());
    assert!(source.is_some_and(|source| source.is_missing));
}
