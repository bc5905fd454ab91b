//! The engine: the state that all sessions share, and the tasks that load the data sets.

pub(crate) mod options;
pub(crate) mod plan_cache;
pub(crate) mod planner;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod start_error;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::keywords;
use spiced_engine::{DatasetState, DatasetStatus, Dialect, Engine, EngineError, Principal, Session};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::EngineOptions;
use crate::StartError;
use crate::catalog::external_tables::ExternalTables;
use crate::catalog::host_paths::HostPaths;
use crate::catalog::loader::{Loader, Reloads};
use crate::catalog::name::{CATALOG, DEFAULT_SCHEMA, SYSTEM_SCHEMA, TableName};
use crate::catalog::policy::CatalogPolicy;
use crate::catalog::view::View;
use crate::catalog::{LoadState, PodSchema};
use crate::connectors::{self, Source};
use crate::engine::plan_cache::PlanCache;
use crate::engine::session::DataFusionSession;
use crate::engine::shared::EngineShared;
use crate::engine::start_error::SpecPart;
use crate::execution::deadline_timer::Clock;
use crate::execution::memory::SharedPool;
use crate::execution::memory_watch::MemoryWatch;
use crate::execution::spill::SpillDirectory;
use crate::execution::work::{Overdue, Runtimes};
use crate::functions;
use crate::functions::at_time_zone;
use crate::functions::similar_to;
use crate::planning::cooperative::YieldAfterJoins;
use crate::planning::in_lists::InLists;
use crate::planning::in_subqueries::InSubqueries;
use crate::planning::number_comparisons::NumberComparisons;
use crate::planning::projections;
use crate::planning::time_literals::TimeLiterals;
use crate::proven::Proven;
use crate::tables::ring_table::RingTable;

/// The number of consumers that an out-of-memory error lists in the log.
const TRACKED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(5).expect("five is not zero");

/// The divisor for the part of the memory that one statement's sort reserves for merging.
const SORTS_SET_ASIDE: usize = 8;

/// The embedded engine: DataFusion. Its loaders end when the engine and the last of its sessions are dropped.
pub struct DataFusionEngine {
    shared: Arc<EngineShared>,
    statuses: watch::Receiver<Vec<DatasetStatus>>,
}

impl DataFusionEngine {
    /// Starts the engine. The data sets load in the background; this function does not wait for them.
    ///
    /// # Errors
    /// Fails if the configuration can never work, and reports the errors of all data sets at once.
    pub fn start(options: EngineOptions) -> Result<Self, StartError> {
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        let spill = spill_directory(&options)?;
        let memory_watch =
            MemoryWatch::start(options.process_memory_limit).map_err(|e| StartError::engine(e.into()))?;
        let mut state = base_state(&options, catalogs.clone(), spill.as_ref(), &memory_watch)?;
        let host_paths = HostPaths::new(options.host_paths.clone());
        host_paths.register(state.runtime_env()).map_err(StartError::engine)?;
        for factory in state.table_factories_mut().values_mut() {
            *factory = Arc::new(ExternalTables::new(host_paths.clone()));
        }
        let state = Proven::new(state);
        let datasets = check(&options, &state)?;

        let mut schemas: BTreeMap<String, BTreeMap<String, watch::Receiver<LoadState>>> = BTreeMap::new();
        schemas.entry(DEFAULT_SCHEMA.to_owned()).or_default();
        let sets = options.datasets.iter().map(|spec| (&spec.name, spec.from.clone(), spec.writable));
        let views = options.views.iter().map(|view| (&view.name, "view".to_owned(), false));
        let first: Vec<DatasetStatus> = sets
            .chain(views)
            .map(|(name, from, writable)| DatasetStatus {
                name: name.clone(),
                from,
                writable,
                state: DatasetState::Loading,
            })
            .collect();
        let (statuses, watched) = watch::channel(first.clone());
        let (plans, mut loading) = (Arc::new(PlanCache::default()), Vec::new());
        let reloads = Reloads::new(plans.clone());
        let mut writable = BTreeMap::new();
        for (index, (name, source)) in datasets.into_iter().enumerate() {
            let (slot, seen) = watch::channel(LoadState::Loading);
            schemas.entry(name.schema.clone()).or_default().insert(name.table.clone(), seen);
            writable.insert(name, first[index].writable);
            let (state, statuses, reloads) = (state.clone(), statuses.clone(), reloads.clone());
            loading.push(Loader { index, source, state, slot, statuses, reloads });
        }
        for table in options.system {
            // The table is ready from the start and never changes.
            let (_, seen) = watch::channel(LoadState::Ready(Arc::new(table.clone())));
            let name = TableName { schema: SYSTEM_SCHEMA.to_owned(), table: table.name };
            schemas.entry(name.schema.clone()).or_default().insert(name.table.clone(), seen);
            writable.insert(name, false);
        }
        for spec in options.retained {
            let name = TableName { schema: spec.schema, table: spec.table };
            let memory = &state.runtime_env().memory_pool;
            let table = RingTable::new(&name.to_string(), spec.columns, spec.retention, memory);
            let (_, seen) = watch::channel(LoadState::Ready(Arc::new(table)));
            schemas.entry(name.schema.clone()).or_default().insert(name.table.clone(), seen);
            writable.insert(name, true);
        }
        let names: BTreeSet<String> = schemas.keys().cloned().collect();
        let catalog = MemoryCatalogProvider::new();
        for (name, datasets) in schemas {
            catalog.register_schema(&name, Arc::new(PodSchema::new(datasets))).map_err(StartError::engine)?;
        }
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));

        // Started after all data sets are in the catalog: a view looks up the tables that it references.
        let mut loaders = JoinSet::new();
        for loader in loading {
            loaders.spawn_on(loader.run(), &options.runtime);
        }
        let rules = CatalogPolicy::new(writable, names, host_paths);
        let shared = EngineShared {
            state,
            rules,
            query_timeout: options.query_timeout,
            max_statement: options.max_statement_size,
            runtimes: Runtimes {
                readers: options.readers.unwrap_or_else(|| options.runtime.clone()),
                writers: options.runtime,
            },
            overdue: Overdue::default(),
            memory_watch,
            clock: Clock::start().map_err(|e| StartError::engine(DataFusionError::IoError(e)))?,
            plans,
            _loaders: loaders,
            _spill: spill,
        };
        Ok(Self { shared: Arc::new(shared), statuses: watched })
    }
}

#[async_trait]
impl Engine for DataFusionEngine {
    async fn session(&self, principal: &Principal) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(DataFusionSession::new(self.shared.clone(), principal.clone())))
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        self.statuses.clone()
    }

    fn dialect(&self) -> Option<Dialect> {
        let reserved = [keywords::RESERVED_FOR_TABLE_ALIAS, keywords::RESERVED_FOR_COLUMN_ALIAS];
        let reserved: BTreeSet<String> = reserved.into_iter().flatten().map(|word| word.to_string()).collect();
        let mut dialect =
            Dialect { nulls_are_high: true, keywords: reserved.into_iter().collect(), ..Dialect::default() };
        for (name, function) in self.shared.state.scalar_functions() {
            // The map has a separate entry for each alias.
            let kind = match function.documentation().map(|told| told.doc_section.label) {
                Some("Math Functions") => &mut dialect.numeric_functions,
                Some("String Functions" | "Regular Expression Functions") => &mut dialect.string_functions,
                Some("Time and Date Functions") => &mut dialect.datetime_functions,
                _ => &mut dialect.system_functions,
            };
            kind.push(name.clone());
        }
        let Dialect { numeric_functions, string_functions, datetime_functions, system_functions, .. } = &mut dialect;
        [numeric_functions, string_functions, datetime_functions, system_functions]
            .into_iter()
            .for_each(|all| all.sort());
        Some(dialect)
    }
}

/// The name of a data set, and its source.
type Named = (TableName, Arc<dyn Source>);

/// Opens every data set, then every view, and reports all errors together.
fn check(options: &EngineOptions, state: &SessionState) -> Result<Vec<Named>, StartError> {
    let mut wrong = StartError::default();
    let retained = options.retained.iter().map(|spec| (&spec.schema, &spec.table));
    let mut names: BTreeSet<TableName> =
        retained.map(|(schema, table)| TableName { schema: schema.clone(), table: table.clone() }).collect();
    let mut opened = Vec::new();
    let sets = options.datasets.iter().map(|spec| (&spec.name, connectors::open(spec, state)));
    let views = options.views.iter().map(|view| {
        let opened = View::open(&view.sql, state).map(|view| Arc::new(view) as Arc<dyn Source>);
        (&view.name, opened.map_err(|why| vec![why]))
    });
    for (written, source) in sets.chain(views) {
        let name = match TableName::parse(written) {
            Ok(name) if !names.insert(name.clone()) => {
                wrong.add(written, SpecPart::Name.error("another table has the same"));
                None
            }
            Ok(name) => Some(name),
            Err(why) => {
                wrong.add(written, SpecPart::Name.error(format!("`{written}` {why}")));
                None
            }
        };
        match (source, name) {
            (Ok(source), Some(name)) => opened.push((name, source)),
            (Ok(_), None) => {}
            (Err(causes), _) => causes.into_iter().for_each(|cause| wrong.add(written, cause)),
        }
    }
    wrong.into_result(opened)
}

fn base_state(
    options: &EngineOptions,
    catalogs: Arc<dyn CatalogProviderList>,
    spill: Option<&SpillDirectory>,
    memory_watch: &MemoryWatch,
) -> Result<SessionState, StartError> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    // Many clients (Java, Go, JavaScript) do not support Arrow's view types yet, so text is read as plain text, which
    // needs no conversion at the endpoint.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let execution = &mut config.options_mut().execution;
    // Each partition of a sort reserves this before it has a row: an eighth of the memory for one statement's sort.
    let aside = options.memory_limit / SORTS_SET_ASIDE / execution.target_partitions.max(1);
    execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(aside);
    let runtime = runtime_env(options, spill, memory_watch).map_err(StartError::engine)?;
    let memory = runtime.memory_pool.clone();
    let mut analyzer_rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = connectors::analyzer_rules().collect();
    analyzer_rules.extend([Arc::new(TimeLiterals) as Arc<dyn AnalyzerRule + Send + Sync>, Arc::new(NumberComparisons)]);
    analyzer_rules.extend(Analyzer::new().rules);
    // Arithmetic runs last: until then, a constant in a list is a cast.
    let own: [Arc<dyn AnalyzerRule + Send + Sync>; 3] =
        [Arc::new(InSubqueries), Arc::new(InLists), Arc::new(functions::CheckedArithmetic)];
    analyzer_rules.extend(own);
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime))
        .with_catalog_list(catalogs)
        .with_default_features()
        .with_analyzer_rules(analyzer_rules)
        .with_physical_optimizer_rule(Arc::new(YieldAfterJoins));
    for rule in connectors::optimizer_rules() {
        builder = builder.with_optimizer_rule(rule);
    }
    builder.scalar_functions().get_or_insert_default().extend([at_time_zone::function(), similar_to::function()]);
    projections::keep_apart(builder.optimizer().get_or_insert_default());
    let builder = functions::govern(builder, options.memory_limit, memory)
        .with_physical_optimizer_rule(Arc::new(connectors::NameDamagedFiles));
    let mut state = builder.build();
    for format in connectors::file_formats() {
        state.register_file_format(format, true).map_err(StartError::engine)?;
    }
    Ok(state)
}

/// Returns the directory to spill to, or `None` if the default temporary directory is not writable. A configured
/// directory must be writable.
fn spill_directory(options: &EngineOptions) -> Result<Option<SpillDirectory>, StartError> {
    let base = options.spill_directory.clone().unwrap_or_else(std::env::temp_dir);
    match SpillDirectory::create(&base) {
        Ok(spill) => Ok(Some(spill)),
        Err(error) if options.spill_directory.is_some() => Err(StartError::engine(DataFusionError::Execution(
            format!("nothing can be spilled to {}: {error}; name a directory that this user may write", base.display()),
        ))),
        Err(error) => {
            let directory = base.display();
            tracing::warn!(%directory, %error, "the temporary directory cannot be written: queries that need to spill will fail");
            Ok(None)
        }
    }
}

fn runtime_env(
    options: &EngineOptions,
    spill: Option<&SpillDirectory>,
    memory_watch: &MemoryWatch,
) -> datafusion::error::Result<RuntimeEnv> {
    let watch = memory_watch.clone();
    let pool = SharedPool::new(options.memory_limit).with_relief(move || watch.end_stalled());
    let pool = TrackConsumersPool::new(pool, TRACKED_CONSUMERS);
    let disk = DiskManagerBuilder::default()
        .with_mode(
            spill
                .map_or(DiskManagerMode::Disabled, |spill| DiskManagerMode::Directories(vec![spill.path().to_owned()])),
        )
        .with_max_temp_directory_size(options.spill_limit);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        // Listings would be cached forever: a file added to a directory would never be found.
        .with_object_list_cache_limit(0)
        .build()
}
