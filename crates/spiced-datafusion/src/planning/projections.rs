//! Keeps distinct projections apart that DataFusion confuses.
//!
//! If two consecutive projections list the same expressions, DataFusion 55 drops one, although the outer one computes
//! from the output of the inner one: `SELECT x + x AS x FROM (SELECT x + x AS x FROM t)` would return the inner rows.
//! The rule compares the lists for equality, including those of projections that it has just merged. While the rule
//! runs, each list therefore carries a unique mark in the metadata of an alias; the mark is removed afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

/// The rule that merges projections.
const MERGES: &str = "optimize_projections";
/// The metadata key of the mark.
const MARK: &str = "$projection";

/// Keeps apart the projections that `optimizer` would merge.
pub(crate) fn keep_apart(optimizer: &mut Optimizer) {
    for rule in optimizer.rules.iter_mut().filter(|rule| rule.name() == MERGES) {
        *rule = Arc::new(Apart(rule.clone()));
    }
}

#[derive(Debug)]
struct Apart(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for Apart {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !has_many(&plan)? {
            return self.0.rewrite(plan, config);
        }
        let mut next = 0_usize;
        let marked = plan.transform_up_with_subqueries(|node| {
            next += 1;
            change(node, |alias| match alias {
                Expr::Alias(mut alias) => {
                    let metadata = alias.metadata.take().map(|metadata| metadata.inner().clone()).unwrap_or_default();
                    alias.metadata = Some(with_mark(metadata, next));
                    Expr::Alias(alias)
                }
                other => other,
            })
        })?;
        let done = self.0.rewrite(marked.data, config)?;
        let (is_done, recursion) = (done.transformed, done.tnr);
        let plain = done.data.transform_up_with_subqueries(|node| {
            let plain = node.map_expressions(|expr| {
                expr.transform_up(|part| match part {
                    Expr::Alias(mut alias) if is_marked(&alias.metadata) => {
                        alias.metadata = alias.metadata.and_then(|metadata| without_mark(metadata.inner().clone()));
                        Ok(Transformed::yes(Expr::Alias(alias)))
                    }
                    part => Ok(Transformed::no(part)),
                })
            })?;
            // Nodes that the rule rebuilt, and the nodes above them, carry the mark in their schemas.
            match plain.data.schema().fields().iter().any(|field| field.metadata().contains_key(MARK)) {
                true => plain.map_data(LogicalPlan::recompute_schema),
                false => Ok(plain),
            }
        })?;
        Ok(Transformed::new(plain.data, is_done, recursion))
    }
}

/// Returns whether the plan has projections that could be confused.
fn has_many(plan: &LogicalPlan) -> Result<bool> {
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        count += usize::from(matches!(node, LogicalPlan::Projection(projection) if named(&projection.expr).is_some()));
        Ok(if count > 1 { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(count > 1)
}

/// Returns the index of the first alias in a list. Without an alias, a column that is passed on keeps its name, and
/// equal lists produce equal output.
fn named(list: &[Expr]) -> Option<usize> {
    list.iter().position(|expr| matches!(expr, Expr::Alias(_)))
}

/// Applies `of` to the first alias in the list of `node`.
fn change(node: LogicalPlan, of: impl FnOnce(Expr) -> Expr) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Projection(mut projection) = node else { return Ok(Transformed::no(node)) };
    let Some(at) = named(&projection.expr) else { return Ok(Transformed::no(LogicalPlan::Projection(projection))) };
    projection.expr[at] = of(projection.expr[at].clone());
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

fn is_marked(metadata: &Option<FieldMetadata>) -> bool {
    metadata.as_ref().is_some_and(|metadata| metadata.inner().contains_key(MARK))
}

fn with_mark(mut metadata: BTreeMap<String, String>, number: usize) -> FieldMetadata {
    metadata.insert(MARK.to_owned(), number.to_string());
    FieldMetadata::from(metadata)
}

fn without_mark(mut metadata: BTreeMap<String, String>) -> Option<FieldMetadata> {
    metadata.remove(MARK);
    (!metadata.is_empty()).then(|| FieldMetadata::from(metadata))
}
