//! Governs the functions that the planner and the optimizer introduce, and checks plan parts that are not functions.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFrame, WindowFrameBound};
use datafusion::optimizer::{Analyzer, AnalyzerRule, OptimizerConfig, OptimizerRule};

use spiced_engine::ErrorKind;

use super::contain::contained;
use super::governor::Governor;
use super::scalar::{expression, needs};
use super::{constant, types};
use crate::error::refusal;
use crate::planning::plan_expressions;

/// Finds ungoverned functions in a plan.
#[derive(Debug)]
pub(super) struct Govern(pub(super) Arc<Governor>);

impl AnalyzerRule for Govern {
    fn name(&self) -> &str {
        "govern_functions"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        govern(plan, &self.0).map(|governed| governed.data)
    }
}

impl OptimizerRule for Govern {
    fn name(&self) -> &str {
        "govern_functions"
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let governed = govern(plan, &self.0)?;
        governed.transform_data(|plan| constants(plan, &self.0))
    }
}

/// Replaces large constants with functions where they would be written out for every row.
fn constants(plan: LogicalPlan, governor: &Arc<Governor>) -> Result<Transformed<LogicalPlan>> {
    let mut needed = false;
    plan.apply_with_subqueries(|node| match constant::spreads(node) {
        true => node.apply_expressions(|whole| {
            needed |= whole.exists(|part| Ok(constant::is_large(part)))?;
            Ok(TreeNodeRecursion::Continue)
        }),
        false => Ok(TreeNodeRecursion::Continue),
    })?;
    if !needed {
        return Ok(Transformed::no(plan));
    }
    plan.transform_down_with_subqueries(|node| {
        if !constant::spreads(&node) {
            return Ok(Transformed::no(node));
        }
        node.map_expressions(|whole| {
            whole.transform_up(|part| {
                Ok(match constant::is_large(&part) {
                    true => Transformed::yes(constant::govern(part, governor)),
                    false => Transformed::no(part),
                })
            })
        })
    })
}

/// A DataFusion rule whose panics and internal errors are reported as errors of the statement.
#[derive(Debug)]
struct Contained(Arc<dyn AnalyzerRule + Send + Sync>);

/// Contains the rules of `analyzer`.
pub(super) fn contain(analyzer: &mut Analyzer) {
    for rule in &mut analyzer.rules {
        *rule = Arc::new(Contained(rule.clone()));
    }
}

impl AnalyzerRule for Contained {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        contained(|| self.0.analyze(plan, config), || "the statement cannot be planned".to_owned())
    }
}

fn govern(plan: LogicalPlan, governor: &Arc<Governor>) -> Result<Transformed<LogicalPlan>> {
    if !is_needed(&plan)? {
        return Ok(Transformed::no(plan));
    }
    plan.transform_down_with_subqueries(|node| match plan_expressions::any(&node, needs)? {
        true => plan_expressions::rewrite(node, |whole| expression(whole, governor)),
        false => Ok(Transformed::no(node)),
    })
}

/// Returns whether a plan has something to govern. Fails if the plan has something that is not allowed.
fn is_needed(plan: &LogicalPlan) -> Result<bool> {
    let mut needed = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|whole| {
            whole.apply(|part| {
                if let Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) = part {
                    types::check(field.data_type())?;
                }
                if let Expr::WindowFunction(call) = part {
                    check_frame(&call.params.window_frame)?;
                }
                needed |= needs(part);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(needed)
}

/// The maximum distance of a frame bound: DataFusion adds it to a row number.
const FURTHEST: u64 = i64::MAX as u64;

/// # Errors
/// Fails if the frame reaches too far.
fn check_frame(frame: &WindowFrame) -> Result<()> {
    for bound in [&frame.start_bound, &frame.end_bound] {
        if let WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows)))
        | WindowFrameBound::Following(ScalarValue::UInt64(Some(rows))) = bound
            && *rows > FURTHEST
        {
            let why = format!("the frame of a window reaches {rows} rows far; the most is {FURTHEST}");
            return Err(refusal(ErrorKind::InvalidStatement, why));
        }
    }
    Ok(())
}
