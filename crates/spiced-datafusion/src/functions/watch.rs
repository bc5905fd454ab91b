//! Gives a running function, and the planner between its steps, access to the deadline of a statement.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::Result;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// The deadline of a statement, passed to its functions with the configuration options.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl ConfigExtension for Deadline {
    const PREFIX: &'static str = "spiced_statement";
}

impl ExtensionOptions for Deadline {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(*self)
    }

    fn set(&mut self, _: &str, _: &str) -> Result<()> {
        datafusion::common::config_err!("it is not for a session to set")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Sets the deadline for the functions of a statement that runs with `options`.
pub(crate) fn watch(options: &mut ConfigOptions, deadline: Instant) {
    options.extensions.insert(Deadline(deadline));
}

/// Ends the planning of a statement whose time is up before the next step of `optimizer`.
pub(super) fn between_steps(optimizer: &mut PhysicalOptimizer) {
    for rule in &mut optimizer.rules {
        *rule = Arc::new(InTime(rule.clone()));
    }
}

/// A step of the physical optimizer that only begins while its statement has time.
#[derive(Debug)]
struct InTime(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for InTime {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        check(config)?;
        self.0.optimize(plan, config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check(context.config_options())?;
        self.0.optimize_with_context(plan, context)
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// # Errors
/// Fails if the deadline of the statement has passed.
pub(super) fn check(options: &ConfigOptions) -> Result<()> {
    match options.extensions.get::<Deadline>() {
        Some(Deadline(deadline)) if *deadline <= Instant::now() => {
            Err(refusal(ErrorKind::Timeout, "the query was not done within its limit"))
        }
        _ => Ok(()),
    }
}
