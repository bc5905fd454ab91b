//! The order in which stores are queried, and the report of failures.

use std::path::Path;
use std::sync::{Arc, Mutex as Locked};

use async_trait::async_trait;

use super::*;
use crate::Environment;
use crate::store::{SecretStore, Snapshot, StoreError};

fn surroundings(folder: &Path) -> StoreEnv {
    StoreEnv {
        environment: Environment::of([("A", "env-a"), ("B", "env-b"), ("EMPTY", ""), ("BLANK", " \n"), ("DIR", "one")]),
        ..StoreEnv::of_process(folder.to_owned())
    }
}

fn line(line: usize) -> Origin {
    Origin::File { file: "spicepod.yaml".into(), key: "runtime.x".into(), line, column: 1 }
}

fn declared(name: &str, from: &str, at: usize) -> DeclaredStore {
    DeclaredStore {
        name: name.into(),
        from: from.into(),
        params: BTreeMap::new(),
        refresh_interval: None,
        origin: line(at),
    }
}

/// Returns a store whose only parameter is `file_path`.
fn with_file(name: &str, file_path: &str, at: usize) -> DeclaredStore {
    let value = Sourced::new(Template::parse(file_path).unwrap(), line(100 + at));
    DeclaredStore { params: [("file_path".to_owned(), value)].into(), ..declared(name, "env", at) }
}

fn values(texts: &[&str]) -> Vec<Sourced<Template>> {
    let value = |(at, text): (usize, &&str)| Sourced::new(Template::parse(text).unwrap(), line(at + 1));
    texts.iter().enumerate().map(value).collect()
}

/// Creates two directories of secrets, `one` and `two`: both contain A, only `one` contains C.
fn pod() -> tempfile::TempDir {
    let pod = tempfile::tempdir().unwrap();
    for (folder, key) in [("one", "A"), ("one", "C"), ("two", "A")] {
        std::fs::create_dir_all(pod.path().join(folder)).unwrap();
        std::fs::write(pod.path().join(folder).join(key), format!("{folder}-{key}\n")).unwrap();
    }
    pod
}

async fn text(resolver: &Resolver, template: &str) -> String {
    let secrets = resolver.resolve_all(&values(&[template])).await.unwrap();
    secrets[0].expose_text().unwrap().to_owned()
}

#[tokio::test]
async fn the_last_declared_is_asked_first_and_env_last() {
    let pod = pod();
    let stores = vec![declared("one", "file:one", 1), declared("two", "file:two", 2)];
    let resolver = Resolver::open(stores, &surroundings(pod.path())).await;
    assert_eq!(resolver.store_names().collect::<Vec<_>>(), ["two", "one", "env"]);
    for (template, value) in [
        ("${secrets:A}", "two-A"),
        ("${secrets:C}", "one-C"),
        ("${secrets:B}", "env-b"),
        ("${one:A}", "one-A"),
        ("${env:A}", "env-a"),
        ("${one:A}/${two:A}/$${env:A}", "one-A/two-A/${env:A}"),
        ("no reference", "no reference"),
        ("", ""),
    ] {
        assert_eq!(text(&resolver, template).await, value, "{template}");
    }
}

#[tokio::test]
async fn a_declared_env_has_the_place_it_is_declared_at() {
    let pod = pod();
    let stores = vec![declared("one", "file:one", 1), declared("env", "env", 2)];
    let resolver = Resolver::open(stores, &surroundings(pod.path())).await;
    assert_eq!(resolver.store_names().collect::<Vec<_>>(), ["env", "one"]);
    assert_eq!(text(&resolver, "${secrets:A}").await, "env-a");

    let stores = vec![declared("mine", "env", 1)];
    let resolver = Resolver::open(stores, &surroundings(pod.path())).await;
    assert_eq!(resolver.store_names().collect::<Vec<_>>(), ["mine", "env"]);
}

#[tokio::test]
async fn every_failure_comes_in_one_report() {
    let pod = pod();
    let stores = vec![declared("one", "file:one", 1), declared("gone", "file:gone", 2)];
    let resolver = Resolver::open(stores, &surroundings(pod.path())).await;
    let values = values(&[
        "${env:MISSING}",
        "${one:A}",
        "x${env:EMPTY}${onne:A}",
        "${env:BLANK}",
        "${secrets:A}",
        "${env:MISSING}",
    ]);
    let report = resolver.resolve_all(&values).await.unwrap_err();
    let folder = pod.path().display();
    let lines: Vec<String> = report.to_string().lines().map(str::to_owned).collect();
    let missing = format!(
        "${{env:MISSING}}: there is no `MISSING`; set it in one of: the variables MISSING, SPICE_MISSING of the process, and of {folder}/.env.local and {folder}/.env"
    );
    assert_eq!(lines.len(), 6, "{report}");
    assert_eq!(lines[0], format!("spicepod.yaml: runtime.x: {missing}"));
    assert!(
        lines[1].starts_with("spicepod.yaml: runtime.x: ${env:EMPTY}: its value in store `env` is empty; "),
        "{report}"
    );
    assert_eq!(
        lines[2],
        "spicepod.yaml: runtime.x: ${onne:A}: no secret store is called `onne`; did you mean `one`; or declare it under `secrets`"
    );
    assert!(lines[3].contains("${env:BLANK}: its value in store `env` is empty"), "{report}");
    assert!(
        lines[4].contains(&format!("${{secrets:A}}: store `gone` cannot answer: cannot read \"{folder}/gone\": ")),
        "{report}"
    );
    assert_eq!(lines[5], format!("spicepod.yaml: runtime.x: {missing}"));
    assert!(!report.to_string().contains("one-A") && !format!("{report:?}").contains("env-a"));
}

#[tokio::test]
async fn check_tells_who_answers() {
    let pod = pod();
    std::fs::write(pod.path().join("x.env"), "C=file-c").unwrap();
    let stores = vec![declared("one", "file:one", 1), with_file("mine", "${env:X}.env", 2)];
    let mut around = surroundings(pod.path());
    around.environment = Environment::of([("X", "x")]);
    let resolver = Resolver::open(stores, &around).await;
    let answers = resolver.check(&values(&["${secrets:A}${secrets:C}", "${env:NONE}"])).await;
    let shown: Vec<_> = answers
        .iter()
        .map(|a| {
            (a.origin.clone(), a.reference.to_string(), a.asked.join(" "), a.outcome.as_deref().map_err(|u| u.kind))
        })
        .collect();
    assert_eq!(
        shown,
        [
            (line(102), "${env:X}".to_owned(), "env".to_owned(), Ok("env")),
            (line(1), "${secrets:A}".to_owned(), "mine one".to_owned(), Ok("one")),
            (line(1), "${secrets:C}".to_owned(), "mine".to_owned(), Ok("mine")),
            (line(2), "${env:NONE}".to_owned(), "env".to_owned(), Err(FailureKind::Missing)),
        ]
    );
}

#[tokio::test]
async fn declarations_that_are_wrong_come_in_one_report() {
    let stores = vec![
        declared("a b", "env", 1),
        declared("secrets", "env", 2),
        declared("env", "file:x", 3),
        declared("one", "file:x", 4),
        declared("one", "file:y", 5),
        declared("aws", "aws_secrets:x", 6),
    ];
    let resolver = Resolver::open(stores, &surroundings(Path::new("/pod"))).await;
    // A reference to an invalid store is not reported separately.
    let report = resolver.resolve_all(&values(&["${aws:A}", "${env:NONE}"])).await.unwrap_err();
    let problems: Vec<_> = report.0.iter().map(|e| (e.origin.clone(), e.problem.as_str())).collect();
    assert_eq!(problems.iter().map(|(o, _)| o.clone()).collect::<Vec<_>>(), [1, 2, 3, 5, 6].map(line));
    assert_eq!(problems[3].1, "the name is taken by the store at spicepod.yaml: runtime.x");
    assert!(problems[4].1.contains("did you mean `aws_secrets_manager`"), "{report}");
}

#[tokio::test]
async fn parameters_may_refer_to_other_stores() {
    let pod = pod();
    std::fs::write(pod.path().join("one/WHERE"), "deep").unwrap();
    std::fs::write(pod.path().join("deep.env"), "WHERE=deeper").unwrap();
    std::fs::write(pod.path().join("deeper.env"), "K=found").unwrap();
    // Declared in another order than the one in which they must be opened.
    let stores = vec![
        with_file("last", "${middle:WHERE}.env", 1),
        with_file("middle", "${first:WHERE}.env", 2),
        declared("first", "file:one", 3),
    ];
    let resolver = Resolver::open(stores, &surroundings(pod.path())).await;
    assert_eq!(text(&resolver, "${last:K}").await, "found");

    let stores = vec![declared("one", "file:one", 1), with_file("all", "${secrets:WHERE}.env", 2)];
    let resolver = Resolver::open(stores, &surroundings(pod.path())).await;
    assert_eq!(text(&resolver, "${all:WHERE}").await, "deeper");
}

#[tokio::test]
async fn a_circle_is_named_and_a_parameter_that_is_missing_is_reported_once() {
    let stores = vec![
        with_file("a", "${b:X}", 1),
        with_file("b", "x${c:X}", 2),
        with_file("c", "${a:X}", 3),
        with_file("self", "${self:X}", 4),
        with_file("lost", "${env:NONE}", 5),
        with_file("behind", "${lost:X}", 6),
    ];
    let resolver = Resolver::open(stores, &surroundings(Path::new("/pod"))).await;
    let report = resolver.resolve_all(&values(&["${a:K}", "${lost:K}", "${behind:K}", "${env:OTHER}"])).await;
    let report = report.unwrap_err().to_string();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines.len(), 4, "{report}");
    assert!(lines[0].contains("in a cycle: self -> self"), "{report}");
    assert!(lines[1].contains("in a cycle: c -> a -> b -> c"), "{report}");
    assert!(lines[2].contains("${env:NONE}: there is no `NONE`"), "{report}");
    assert!(lines[3].contains("${env:OTHER}: there is no `OTHER`"), "{report}");
}

/// Counts queries; returns either every key or all but some.
struct Counting {
    asked: Locked<Vec<String>>,
    whole: bool,
}

#[async_trait]
impl SecretStore for Arc<Counting> {
    async fn read(&self, keys: &[String]) -> Result<Snapshot, StoreError> {
        self.asked.lock().unwrap().push(keys.join(" "));
        let answer = |key: &String| (key.clone(), Secret::from("x"));
        Ok(match self.whole {
            true => Snapshot::Whole([("A", "x"), ("B", "x")].map(|(k, v)| (k.to_owned(), Secret::from(v))).into()),
            false => Snapshot::Each(keys.iter().map(answer).map(|(k, v)| (k, Ok(Some(v)))).collect()),
        })
    }

    fn places(&self, key: &str) -> String {
        key.to_owned()
    }
}

/// Never answers.
struct Silent;

#[async_trait]
impl SecretStore for Silent {
    async fn read(&self, _: &[String]) -> Result<Snapshot, StoreError> {
        std::future::pending().await
    }

    fn places(&self, key: &str) -> String {
        key.to_owned()
    }

    fn endpoint(&self) -> Option<String> {
        Some("https://silent:1".to_owned())
    }
}

fn resolver(shelves: Vec<CachedStore>) -> Resolver {
    Resolver {
        names: shelves.iter().map(|shelf| shelf.name.clone()).collect(),
        shelves: Mutex::new(StoreChain(shelves)),
        surroundings: surroundings(Path::new("/pod")),
        errors: Vec::new(),
        subscribed: Vec::new(),
    }
}

const SOON: Duration = Duration::from_millis(20);

#[tokio::test]
async fn each_secret_is_asked_for_once() {
    for whole in [false, true] {
        let counting = Arc::new(Counting { asked: Locked::default(), whole });
        let resolver = resolver(vec![CachedStore::with("c", Arc::new(counting.clone()), None, SOON)]);
        let secrets = resolver.resolve_all(&values(&["${c:A}${c:A}", "${c:A}-${secrets:B}"])).await.unwrap();
        assert_eq!(secrets.iter().map(|s| s.expose_text().unwrap()).collect::<Vec<_>>(), ["xx", "x-x"]);
        resolver.resolve_all(&values(&["${c:B}"])).await.unwrap();
        resolver.check(&values(&["${c:B}"])).await;
        assert_eq!(*counting.asked.lock().unwrap(), ["A B"]);
        if whole {
            let missing = resolver.resolve_all(&values(&["${c:NONE}"])).await.unwrap_err();
            assert!(missing.to_string().contains("there is no `NONE`"), "{missing}");
            assert_eq!(counting.asked.lock().unwrap().len(), 1, "what it has it has said");
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_one_error() {
    let resolver = resolver(vec![CachedStore::with("s", Arc::new(Silent), None, SOON)]);
    let report = resolver.resolve_all(&values(&["${s:A}", "${s:B}", "${s:C}${s:D}"])).await.unwrap_err();
    assert_eq!(
        report.to_string(),
        "the default: secret store `s`: no answer within 20ms from https://silent:1 (needed by spicepod.yaml: \
         runtime.x and 2 more); check that the server is healthy and that nothing on the network path drops packets"
    );
}
