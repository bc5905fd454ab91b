//! Which values are refreshed, and which are not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tls_core::Origin;
use tokio::sync::Notify;

use super::*;
use crate::SecretValue;
use crate::resolver::{DeclaredStore, Resolver};
use crate::status::Refresh;
use crate::store::SecretStore;
use crate::store::cached_store::CachedStore;

/// A store controlled by a test.
#[derive(Default)]
struct Toy {
    values: Mutex<BTreeMap<String, String>>,
    down: Mutex<bool>,
    readings: Mutex<usize>,
    word: Notify,
}

impl Toy {
    fn with(values: &[(&str, &str)]) -> Arc<Self> {
        let toy = Arc::new(Self::default());
        values.iter().for_each(|(key, value)| toy.set(key, value));
        toy
    }

    fn set(&self, key: &str, value: &str) {
        self.values.lock().unwrap().insert(key.to_owned(), value.to_owned());
    }

    fn take_away(&self, key: &str) {
        self.values.lock().unwrap().remove(key);
    }

    fn down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }
}

#[async_trait]
impl SecretStore for Arc<Toy> {
    async fn read(&self, _: &[String]) -> Result<Snapshot, StoreError> {
        *self.readings.lock().unwrap() += 1;
        if *self.down.lock().unwrap() {
            return Err(StoreError::declaration("it is down"));
        }
        let values = self.values.lock().unwrap();
        Ok(Snapshot::Whole(values.iter().map(|(k, v)| (k.clone(), Secret::from(v.as_str()))).collect()))
    }

    fn places(&self, key: &str) -> String {
        format!("toy {key}")
    }

    fn watches(&self) -> bool {
        true
    }

    async fn changed(&self) {
        self.word.notified().await;
    }
}

fn shelf(name: &str, toy: &Arc<Toy>, every: Option<Duration>) -> CachedStore {
    CachedStore::with(name, Arc::new(toy.clone()), every, Duration::from_secs(5))
}

fn value(text: &str) -> Sourced<Template> {
    Sourced::new(Template::parse(text).unwrap(), Origin::Default)
}

struct Watched {
    values: Vec<watch::Receiver<Secret>>,
    status: watch::Receiver<Vec<StoreStatus>>,
    refresher: Refresher,
    _running: JoinSet<()>,
}

impl Watched {
    async fn start(mut shelves: StoreChain, texts: &[&str]) -> Self {
        let values: Vec<_> = texts.iter().map(|text| value(text)).collect();
        let references: Vec<&Reference> = values.iter().flat_map(|v| v.value.references()).collect();
        shelves.ask(&references, None).await;
        let (subscribed, receivers) = values
            .into_iter()
            .map(|value| {
                let (sender, receiver) = watch::channel(shelves.render(&value.value, None).unwrap_or_default());
                ((value, sender), receiver)
            })
            .unzip();
        let surroundings = StoreEnv::of_process("/pod".into());
        Self::of(receivers, SecretsRefresh::start(shelves, subscribed, surroundings))
    }

    fn of(values: Vec<watch::Receiver<Secret>>, followed: WatchedSecrets) -> Self {
        let WatchedSecrets { status, refresher, following } = followed;
        let mut running = JoinSet::new();
        running.spawn(following.run());
        Self { values, status, refresher, _running: running }
    }

    fn value(&self, at: usize) -> String {
        self.values[at].borrow().expose_text().unwrap().to_owned()
    }

    async fn changed(&mut self, at: usize) -> String {
        self.values[at].changed().await.unwrap();
        self.value(at)
    }

    fn trouble(&self, at: usize) -> Option<String> {
        self.status.borrow()[at].trouble.as_ref().map(|trouble| trouble.problem.clone())
    }
}

#[tokio::test]
async fn values_follow_by_word_and_text_around_a_reference_is_rendered_again() {
    let toy = Toy::with(&[("A", "1"), ("B", "2")]);
    let mut watched =
        Watched::start(StoreChain(vec![shelf("t", &toy, None)]), &["<${t:A}|${secrets:B}>", "${t:B}"]).await;
    assert_eq!((watched.value(0).as_str(), watched.value(1).as_str()), ("<1|2>", "2"));
    toy.set("A", "one");
    toy.word.notify_one();
    assert_eq!(watched.changed(0).await, "<one|2>");
    assert!(!watched.values[1].has_changed().unwrap(), "what is the same is not told");
    assert_eq!(watched.status.borrow()[0].refresh, Refresh::Watch);
}

#[tokio::test]
async fn values_follow_by_interval() {
    let toy = Toy::with(&[("A", "1")]);
    let every = Duration::from_millis(50);
    let mut watched = Watched::start(StoreChain(vec![shelf("t", &toy, Some(every))]), &["${t:A}"]).await;
    assert_eq!(watched.status.borrow()[0].refresh, Refresh::Watch);
    toy.set("A", "2");
    let began = Instant::now();
    assert_eq!(watched.changed(0).await, "2");
    assert!(began.elapsed() > every / 2, "{:?}", began.elapsed());
}

#[test]
fn after_a_failure_it_is_asked_sooner_than_at_the_next_interval() {
    let seconds = |failures, every: Option<u64>, watches| {
        pause(failures, every.map(Duration::from_secs), watches).map(|pause| pause.as_secs())
    };
    assert_eq!([0, 1, 2, 3, 9, 99].map(|n| seconds(n, Some(300), false)), [300, 2, 4, 8, 300, 300].map(Some));
    assert_eq!([0, 1, 6, 99].map(|n| seconds(n, None, true)), [None, Some(2), Some(60), Some(60)]);
    assert_eq!([0, 1].map(|n| seconds(n, None, false)), [None, None]);
    assert_eq!(seconds(3, Some(1), false), Some(1));
}

#[tokio::test]
async fn a_store_that_goes_down_keeps_the_last_good_values_and_comes_back() {
    let toy = Toy::with(&[("A", "1")]);
    let every = Some(Duration::from_millis(200));
    let mut watched = Watched::start(StoreChain(vec![shelf("t", &toy, every)]), &["${t:A}"]).await;
    toy.set("A", "2");
    toy.down(true);
    watched.refresher.refresh().await;
    assert_eq!(watched.value(0), "1");
    assert_eq!(watched.trouble(0).as_deref(), Some("it is down"));
    let since = watched.status.borrow()[0].trouble.clone().unwrap().since;
    watched.refresher.refresh().await;
    assert_eq!(watched.status.borrow()[0].trouble.clone().unwrap().since, since);

    toy.down(false);
    assert_eq!(watched.changed(0).await, "2");
    watched.status.wait_for(|status| status[0].trouble.is_none()).await.unwrap();
}

#[tokio::test]
async fn what_is_gone_or_empty_keeps_the_last_good_value() {
    let toy = Toy::with(&[("A", "1"), ("B", "2")]);
    let watched = Watched::start(StoreChain(vec![shelf("t", &toy, None)]), &["${t:A}", "${t:B}"]).await;
    toy.take_away("A");
    toy.set("B", " ");
    watched.refresher.refresh().await;
    assert_eq!((watched.value(0).as_str(), watched.value(1).as_str()), ("1", "2"));
    assert_eq!(watched.trouble(0).as_deref(), Some("`A` no longer exists"));
    watched.refresher.refresh().await;
    assert!(watched.trouble(0).is_some(), "it stays so until it is mended");
    toy.set("A", "3");
    toy.set("B", "4");
    watched.refresher.refresh().await;
    assert_eq!((watched.value(0).as_str(), watched.value(1).as_str()), ("3", "4"));
    assert_eq!(watched.trouble(0), None);
}

#[tokio::test]
async fn a_store_that_ranks_higher_takes_over_and_others_are_left_alone() {
    let (upper, lower, other) = (Toy::with(&[]), Toy::with(&[("A", "low")]), Toy::with(&[("Z", "z")]));
    let shelves =
        StoreChain(vec![shelf("upper", &upper, None), shelf("lower", &lower, None), shelf("other", &other, None)]);
    let watched = Watched::start(shelves, &["${secrets:A}"]).await;
    assert_eq!(watched.value(0), "low");
    upper.set("A", "high");
    watched.refresher.refresh().await;
    assert_eq!(watched.value(0), "high");
    assert_eq!(*other.readings.lock().unwrap(), 0, "nobody needs it");
}

#[tokio::test]
async fn a_store_is_opened_anew_when_its_parameters_change() {
    let pod = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(pod.path().join(name), text).unwrap();
    write("a.env", "K=from a");
    write("b.env", "K=from b");
    write(".env", "WHERE=a");
    let params = [("file_path".to_owned(), value("${env:WHERE}.env"))].into();
    let mine = DeclaredStore {
        name: "mine".into(),
        from: "env".into(),
        params,
        refresh_interval: None,
        origin: Origin::Default,
    };
    let surroundings =
        StoreEnv { environment: crate::Environment::of([("X", "y")]), ..StoreEnv::of_process(pod.path().to_owned()) };
    let mut resolver = Resolver::open(vec![mine], &surroundings).await;
    let watched = subscribed(&mut resolver, &["${mine:K}"]).await;
    let watched = Watched::of(watched, resolver.follow());
    assert_eq!(watched.value(0), "from a");
    write(".env", "WHERE=b");
    watched.refresher.refresh().await;
    assert_eq!(watched.value(0), "from b");
}

/// Resolves values and subscribes to them, the last one first.
async fn subscribed(resolver: &mut Resolver, texts: &[&str]) -> Vec<watch::Receiver<Secret>> {
    let values: Vec<Sourced<Template>> = texts.iter().map(|text| value(text)).collect();
    let secrets = resolver.resolve_all(&values).await.unwrap();
    let resolved = values.into_iter().zip(secrets);
    let resolved: Vec<_> =
        resolved.map(|(v, secret)| v.map(|template| SecretValue::resolved(template, secret))).collect();
    let mut receivers: Vec<_> = resolved.iter().rev().filter_map(|value| resolver.subscribe(value)).collect();
    receivers.reverse();
    receivers
}

/// The order of the subscriptions is not that of the references, and each value stays that of its own setting.
#[tokio::test]
async fn no_value_becomes_that_of_another_setting() {
    let pod = tempfile::tempdir().unwrap();
    let write = |ca: &str, passphrase: &str| {
        std::fs::write(pod.path().join(".env"), format!("CA={ca}\nPASSPHRASE={passphrase}\nKEY=k\n")).unwrap();
    };
    write("ca-1", "passphrase-1");
    let surroundings =
        StoreEnv { environment: crate::Environment::of([("X", "y")]), ..StoreEnv::of_process(pod.path().to_owned()) };
    let mut resolver = Resolver::open(Vec::new(), &surroundings).await;
    assert!(resolver.subscribe(&Sourced::new(SecretValue::literal("x".into()), Origin::Default)).is_none());
    let values = subscribed(&mut resolver, &["${env:PASSPHRASE}", "${env:KEY}", "${env:CA}"]).await;
    let watched = Watched::of(values, resolver.follow());
    assert_eq!([0, 1, 2].map(|at| watched.value(at)), ["passphrase-1", "k", "ca-1"]);
    write("ca-2", "passphrase-2");
    watched.refresher.refresh().await;
    assert_eq!([0, 1, 2].map(|at| watched.value(at)), ["passphrase-2", "k", "ca-2"]);
}

#[tokio::test]
async fn with_nothing_to_follow_it_ends_when_nobody_can_tell_it_anything() {
    let followed =
        SecretsRefresh::start(StoreChain(Vec::new()), Vec::new(), StoreEnv::of_process(Path::new("/").into()));
    followed.refresher.refresh_when_running(followed.following).await;
}

impl Refresher {
    async fn refresh_when_running(self, following: SecretsRefresh) {
        let running = tokio::spawn(following.run());
        self.refresh().await;
        drop(self);
        running.await.unwrap();
    }
}
