//! How large a statement may be. A chain in the text becomes a tree of the same depth, and planning,
//! evaluating or just freeing a tree takes stack for each level: without a limit one long `1+1+1+…`
//! overflows the stack, which ends the process and cannot be caught.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visitor};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use spiced_engine::{EngineError, ErrorKind};

use crate::error::{invalid, refusal};
use crate::statement::visit;

/// The longest chain of operators and keywords between two commas, in one pair of parentheses.
const MAX_OPERATORS: usize = 500;
/// The most tables, joins, set operations and common table expressions in one pair of parentheses.
const MAX_RELATIONS: usize = 100;
/// The deepest plan, and the deepest expression in it.
const MAX_DEPTH: usize = 520;
/// The most nodes of a plan: views and common table expressions multiply what a text says.
const MAX_NODES: usize = 20_000;

/// How long the chains of one pair of parentheses are so far.
#[derive(Default)]
struct Level {
    operators: usize,
    relations: usize,
    /// True in `FROM` and `WITH`, where commas stand between relations.
    relations_follow: bool,
}

/// Checks the text, before it is parsed.
///
/// # Errors
/// A chain is too long.
pub(crate) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), EngineError> {
    let mut levels = vec![Level::default()];
    for TokenWithSpan { token, .. } in tokens {
        let level = levels.last_mut().expect("the outermost level is never taken off");
        level.count(token);
        if level.operators > MAX_OPERATORS {
            return Err(invalid(format!(
                "the statement chains more than {MAX_OPERATORS} operators; write a list (`IN (…)`, `VALUES`) instead"
            )));
        }
        if level.relations > MAX_RELATIONS {
            return Err(invalid(format!(
                "the statement puts more than {MAX_RELATIONS} tables or queries in a row; split it"
            )));
        }
        match token {
            Token::LParen | Token::LBracket => levels.push(Level::default()),
            Token::RParen | Token::RBracket if levels.len() > 1 => {
                levels.pop();
            }
            _ => {}
        }
    }
    Ok(())
}

impl Level {
    fn count(&mut self, token: &Token) {
        match token {
            Token::Comma => {
                self.operators = 0;
                self.relations += usize::from(self.relations_follow);
            }
            Token::SemiColon => *self = Self::default(),
            Token::Word(word) => match word.keyword {
                Keyword::NoKeyword => {}
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN => {
                    self.relations += 1;
                    self.operators = 0;
                }
                Keyword::FROM | Keyword::WITH => self.relations_follow = true,
                Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER | Keyword::HAVING => {
                    self.relations_follow = false;
                }
                // What stands in a branch is beside the other branches, and not below them.
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE => self.operators = 0,
                _ => self.operators += 1,
            },
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Placeholder(_) | Token::Period => {}
            Token::RParen | Token::RBracket | Token::EOF => {}
            // What is opened extends a chain as well: `a[1][1][1]`.
            _ => self.operators += 1,
        }
    }
}

/// Checks how large the plan of `statement` would be with each common table expression put in where
/// it is named. The planner does so, and a chain of which each names the one before twice doubles
/// the plan at every step; the planner cannot be stopped, so it must not start.
///
/// # Errors
/// It would be too large.
pub(crate) fn check_tables(statement: &Statement) -> Result<(), EngineError> {
    match visit(statement, &mut Weights::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(invalid(format!(
            "the common table expressions of the statement, put in where they are named, are more than {MAX_NODES} tables"
        ))),
    }
}

/// How many tables a query reads, common table expressions put in.
#[derive(Default)]
struct Weights {
    /// One for each query that is being visited.
    open: Vec<usize>,
    /// The bodies of common table expressions, which are visited before what names them.
    bodies: HashMap<*const Query, String>,
    known: HashMap<String, usize>,
}

impl Visitor for Weights {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.open.push(1);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.bodies.insert(&raw const *cte.query, cte.alias.name.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let weight = self.known.get(&relation.to_string().replace('"', "").to_lowercase()).copied().unwrap_or(1);
        self.add(weight)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let weight = self.open.pop().unwrap_or(1);
        match self.bodies.remove(&(&raw const *query)) {
            Some(name) => {
                self.known.insert(name, weight);
                ControlFlow::Continue(())
            }
            None => self.add(weight),
        }
    }
}

impl Weights {
    fn add(&mut self, weight: usize) -> ControlFlow<()> {
        let Some(open) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        *open = open.saturating_add(weight);
        if *open > MAX_NODES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Checks the plan, views and common table expressions put in.
///
/// # Errors
/// It is too deep or too large.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    plan.visit_with_subqueries(&mut PlanSize::default()).map(|_| ())
}

#[derive(Default)]
struct PlanSize {
    depth: usize,
    nodes: usize,
}

impl<'n> TreeNodeVisitor<'n> for PlanSize {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        self.depth += 1;
        self.nodes += 1;
        if self.depth > MAX_DEPTH {
            return Err(too("deep", MAX_DEPTH, "levels"));
        }
        if self.nodes > MAX_NODES {
            return Err(too("large", MAX_NODES, "nodes"));
        }
        node.apply_expressions(|expr| {
            let mut depth = ExprDepth(0);
            expr.visit(&mut depth)
        })?;
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _node: &'n LogicalPlan) -> Result<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

struct ExprDepth(usize);

impl<'n> TreeNodeVisitor<'n> for ExprDepth {
    type Node = Expr;

    fn f_down(&mut self, _node: &'n Expr) -> Result<TreeNodeRecursion> {
        self.0 += 1;
        if self.0 > MAX_DEPTH {
            return Err(too("deep", MAX_DEPTH, "levels"));
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _node: &'n Expr) -> Result<TreeNodeRecursion> {
        self.0 -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

fn too(how: &str, most: usize, of: &str) -> DataFusionError {
    refusal(
        ErrorKind::InvalidStatement,
        format!("the plan of the statement is too {how}: it has more than {most} {of}, its views included"),
    )
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn admitted(sql: &str) -> bool {
        check_tokens(&Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap()).is_ok()
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        let repeat = |part: &str| part.repeat(10_000);
        for sql in [
            format!("SELECT 1{}", repeat("+1")),
            format!("SELECT a{}", repeat(" AND a")),
            format!("SELECT 1{}", repeat(" UNION ALL SELECT 1, 2")),
            format!("SELECT * FROM t{}", repeat(" JOIN t ON a")),
            format!("SELECT * FROM t{}", repeat(", t a")),
            format!("SELECT * FROM (SELECT * FROM t{})", repeat(", t a")),
            format!("WITH a AS (SELECT 1){} SELECT 1", repeat(", a AS (SELECT 1)")),
            format!("SELECT a{}", repeat("[1]")),
            format!("SELECT {} a", repeat("NOT ")),
            format!("SELECT {}1", repeat("- ")),
            format!("SELECT a{}", repeat("::int")),
            format!("SELECT 1{}", repeat(" + (1)")),
        ] {
            assert!(!admitted(&sql), "{}", &sql[..30]);
        }
        for sql in [
            format!("SELECT 1{}", repeat(", -1")),
            format!("SELECT a{} FROM t ORDER BY a{}", repeat(", a"), repeat(", a")),
            format!("INSERT INTO t VALUES (1){}", repeat(", (-1, 'a')")),
            format!("SELECT * FROM t WHERE a IN (1{}) GROUP BY a{}", repeat(", -1"), repeat(", a")),
            format!("SELECT CASE {} ELSE 0 END", repeat("WHEN a = 1 AND b THEN 1 + 1 ")),
        ] {
            assert!(admitted(&sql), "{}", &sql[..30]);
        }
    }
}
