//! The order in which stores are asked, and the report of what fails.

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::Environment;

fn surroundings(folder: &Path) -> Surroundings {
    Surroundings {
        pod_folder: folder.to_owned(),
        environment: Environment::of([("A", "env-a"), ("B", "env-b"), ("EMPTY", ""), ("BLANK", " \n")]),
    }
}

fn line(line: usize) -> Origin {
    Origin::File { file: "spicepod.yaml".into(), key: "runtime.x".into(), line, column: 1 }
}

fn declared(name: &str, from: &str, at: usize) -> DeclaredStore {
    DeclaredStore { name: name.into(), from: from.into(), params: BTreeMap::new(), origin: line(at) }
}

fn values(texts: &[&str]) -> Vec<Sourced<Template>> {
    let value = |(at, text): (usize, &&str)| Sourced::new(Template::parse(text).unwrap(), line(at + 1));
    texts.iter().enumerate().map(value).collect()
}

/// Two folders of secrets, `one` and `two`, both with A; only `one` has C.
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
    let resolver = Resolver::new(stores, &surroundings(pod.path())).unwrap();
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
    let resolver = Resolver::new(stores, &surroundings(pod.path())).unwrap();
    assert_eq!(resolver.store_names().collect::<Vec<_>>(), ["env", "one"]);
    assert_eq!(text(&resolver, "${secrets:A}").await, "env-a");

    let stores = vec![declared("mine", "env", 1)];
    let resolver = Resolver::new(stores, &surroundings(pod.path())).unwrap();
    assert_eq!(resolver.store_names().collect::<Vec<_>>(), ["mine", "env"]);
}

#[tokio::test]
async fn every_failure_comes_in_one_report() {
    let pod = pod();
    let stores = vec![declared("one", "file:one", 1), declared("gone", "file:gone", 2)];
    let resolver = Resolver::new(stores, &surroundings(pod.path())).unwrap();
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
        lines[4].contains(&format!("${{secrets:A}}: store `gone` cannot answer: cannot read {folder}/gone: ")),
        "{report}"
    );
    assert_eq!(lines[5], format!("spicepod.yaml: runtime.x: {missing}"));
    assert!(!report.to_string().contains("one-A") && !format!("{report:?}").contains("env-a"));
}

#[tokio::test]
async fn check_tells_who_answers() {
    let pod = pod();
    let resolver = Resolver::new(vec![declared("one", "file:one", 1)], &surroundings(pod.path())).unwrap();
    let answers = resolver.check(&values(&["${secrets:A}${secrets:B}", "${env:NONE}"])).await;
    let shown: Vec<_> = answers.iter().map(|a| (a.reference.to_string(), a.outcome.as_deref().ok())).collect();
    assert_eq!(
        shown,
        [
            ("${secrets:A}".to_owned(), Some("one")),
            ("${secrets:B}".to_owned(), Some("env")),
            ("${env:NONE}".to_owned(), None)
        ]
    );
    assert_eq!(answers[2].origin, line(2));
}

#[test]
fn declarations_that_are_wrong_come_in_one_report() {
    let stores = vec![
        declared("a b", "env", 1),
        declared("secrets", "env", 2),
        declared("env", "file:x", 3),
        declared("one", "file:x", 4),
        declared("one", "file:y", 5),
        declared("aws", "aws_secrets_manager:x", 6),
    ];
    let report = Resolver::new(stores, &surroundings(Path::new("/pod"))).unwrap_err();
    let problems: Vec<_> = report.0.iter().map(|e| (e.origin.clone(), e.problem.as_str())).collect();
    assert_eq!(problems.iter().map(|(o, _)| o.clone()).collect::<Vec<_>>(), [1, 2, 3, 5, 6].map(line));
    assert_eq!(problems[3].1, "the name is taken by the store at spicepod.yaml: runtime.x");
    assert!(problems[4].1.contains("not built yet"), "{report}");
}

/// Counts what it is asked.
struct Counting(Mutex<Vec<String>>);

#[async_trait]
impl SecretStore for Arc<Counting> {
    async fn get(&self, key: &str) -> Result<Option<Secret>, StoreError> {
        self.0.lock().unwrap().push(key.to_owned());
        Ok(Some(Secret::from("x")))
    }

    fn places(&self, key: &str) -> String {
        key.to_owned()
    }
}

/// Never answers.
struct Silent;

#[async_trait]
impl SecretStore for Silent {
    async fn get(&self, _: &str) -> Result<Option<Secret>, StoreError> {
        std::future::pending().await
    }

    fn places(&self, key: &str) -> String {
        key.to_owned()
    }
}

#[tokio::test]
async fn each_secret_is_asked_for_once() {
    let counting = Arc::new(Counting(Mutex::default()));
    let resolver = Resolver { stores: vec![("c".into(), Arc::new(counting.clone()))], patience: ANSWER_WITHIN };
    let secrets = resolver.resolve_all(&values(&["${c:A}${c:A}", "${c:A}-${c:B}"])).await.unwrap();
    assert_eq!(secrets.iter().map(|s| s.expose_text().unwrap()).collect::<Vec<_>>(), ["xx", "x-x"]);
    let mut asked = counting.0.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["A", "B"]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_an_error() {
    let resolver = Resolver { stores: vec![("s".into(), Arc::new(Silent))], patience: Duration::from_millis(20) };
    let report = resolver.resolve_all(&values(&["${s:A}"])).await.unwrap_err().to_string();
    assert!(report.contains("store `s` cannot answer: no answer within 20ms"), "{report}");
}
