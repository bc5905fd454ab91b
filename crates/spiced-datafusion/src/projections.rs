//! Projections that DataFusion takes for one another.
//!
//! Of two projections in a row that list the same expressions, DataFusion 55 leaves one out, although the outer one
//! computes from what the inner one has made: `SELECT x + x AS x FROM (SELECT x + x AS x FROM t)` would answer the
//! inner rows. The rule that does so looks whether the lists are equal, also at projections that it has just merged.
//! While it runs, each list has a mark of its own, in the metadata of an alias; it is taken off again when the rule is
//! done.

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
/// What the mark is called.
const MARK: &str = "$projection";

/// Keeps the projections apart that `optimizer` merges.
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
            // What the rule has made again has the mark in its schema, and so have those above it.
            match plain.data.schema().fields().iter().any(|field| field.metadata().contains_key(MARK)) {
                true => plain.map_data(LogicalPlan::recompute_schema),
                false => Ok(plain),
            }
        })?;
        Ok(Transformed::new(plain.data, is_done, recursion))
    }
}

/// Whether there are projections that could be taken for one another.
fn has_many(plan: &LogicalPlan) -> Result<bool> {
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        count += usize::from(matches!(node, LogicalPlan::Projection(projection) if named(&projection.expr).is_some()));
        Ok(if count > 1 { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(count > 1)
}

/// The first alias of a list. Without one, a column that is passed on keeps its name, and lists that are equal make the
/// same of the same.
fn named(list: &[Expr]) -> Option<usize> {
    list.iter().position(|expr| matches!(expr, Expr::Alias(_)))
}

/// `node` with the first alias of its list changed.
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
