//! The depth of the parsed statement, whatever grammar produced it.

use std::fmt::{self, Debug, Write};

/// The maximum number of open brackets in the `Debug` form of a parsed statement. The longest chain that
/// [`tokens`](super::tokens) admits has less than half as many.
const MAX_DEPTH: usize = 4_000;

/// Statements with fewer tokens cannot be deep enough to matter, so they skip these checks.
const SMALL: usize = 400;

/// Address space for each token of a statement, for stacks as deep as the statement is long: freeing a tree also
/// recurses, without a limit.
const STACK_PER_TOKEN: usize = 1024;

/// The stack that every statement gets in addition.
const STACK: usize = 16 << 20;

/// Runs `work`, which parses a statement of `tokens` tokens and checks its depth, on a stack large enough for any tree
/// that this many tokens can produce.
pub(crate) fn with_stack<T>(tokens: usize, work: impl FnOnce() -> T) -> T {
    if tokens < SMALL { work() } else { stacker::grow(STACK + tokens * STACK_PER_TOKEN, work) }
}

/// Returns whether a tree parsed from `tokens` tokens is too deep to be visited on an ordinary stack.
///
/// The derived `Debug` opens a bracket for each struct, variant and list, including node types that no visitor reaches:
/// data types, options, new clauses. Formatting stops when the limit is reached.
pub(crate) fn is_too_deep(tree: &impl Debug, tokens: usize) -> bool {
    tokens >= SMALL && write!(DepthMeter::default(), "{tree:?}").is_err()
}

/// Counts brackets outside quotes, and fails at the limit.
#[derive(Default)]
struct DepthMeter {
    depth: usize,
    quote: Option<char>,
    escaped: bool,
}

impl Write for DepthMeter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match self.quote {
                Some(_) if self.escaped => self.escaped = false,
                Some(_) if letter == '\\' => self.escaped = true,
                Some(quote) if letter == quote => self.quote = None,
                Some(_) => {}
                None => match letter {
                    '"' | '\'' => self.quote = Some(letter),
                    '(' | '[' | '{' => self.depth += 1,
                    ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                },
            }
        }
        if self.depth > MAX_DEPTH { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[allow(dead_code)] // Read by `Debug` alone.
    enum Tree {
        Leaf(String, char),
        Node { below: Box<Tree> },
    }

    fn tree(depth: usize, leaf: (&str, char)) -> Tree {
        let leaf = Tree::Leaf(leaf.0.to_owned(), leaf.1);
        (0..depth).fold(leaf, |below, _| Tree::Node { below: Box::new(below) })
    }

    #[test]
    fn depth_counts_and_quoted_brackets_do_not() {
        with_stack(100_000, || {
            for (depth, leaf, deep) in [
                (10, ("x", 'x'), false),
                (MAX_DEPTH - 1, ("x", 'x'), false),
                (MAX_DEPTH + 1, ("x", 'x'), true),
                (50_000, ("x", 'x'), true),
            ] {
                assert_eq!(is_too_deep(&tree(depth, leaf), SMALL), deep, "{depth}");
            }
            for text in ["\"", "\\", "'", "\\\"((", "((((", "}}\"{{"] {
                for letter in ['"', '\'', '\\', '('] {
                    let many: Vec<Tree> = (0..5_000).map(|_| tree(3, (text, letter))).collect();
                    assert!(!is_too_deep(&many, SMALL), "{text} {letter}");
                }
            }
        });
        assert!(!is_too_deep(&tree(MAX_DEPTH + 1, ("x", 'x')), SMALL - 1), "a small statement is not measured");
    }
}
