//! The order in which stores are opened: a store is opened after the stores that its parameters refer to.

/// Returns the order, and the cycles. `needs[n]` are the stores that store `n` refers to. A store that is in a cycle,
/// or depends on one, is left out of the order.
pub(crate) fn dependency_order(needs: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut walk =
        Walk { needs, state: vec![State::New; needs.len()], path: Vec::new(), done: Vec::new(), cycles: Vec::new() };
    for start in 0..needs.len() {
        walk.visit(start);
    }
    (walk.done, walk.cycles)
}

struct Walk<'a> {
    needs: &'a [Vec<usize>],
    state: Vec<State>,
    path: Vec<usize>,
    done: Vec<usize>,
    cycles: Vec<Vec<usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Good,
    Bad,
}

impl Walk<'_> {
    /// Returns true if the store at index `at` can be opened.
    fn visit(&mut self, at: usize) -> bool {
        match self.state[at] {
            State::Good => return true,
            State::Bad => return false,
            State::Open => {
                let start = self.path.iter().position(|step| *step == at).unwrap_or(0);
                self.cycles.push(self.path[start..].to_vec());
                return false;
            }
            State::New => {}
        }
        self.state[at] = State::Open;
        self.path.push(at);
        // Visit every dependency, so that every cycle is found.
        let needs = self.needs;
        let good = needs[at].iter().filter(|need| !self.visit(**need)).count() == 0;
        self.path.pop();
        self.state[at] = if good { State::Good } else { State::Bad };
        if good {
            self.done.push(at);
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::dependency_order;

    #[test]
    fn who_comes_first() {
        assert_eq!(dependency_order(&[vec![], vec![0], vec![1, 0]]), (vec![0, 1, 2], vec![]));
        assert_eq!(dependency_order(&[vec![2], vec![], vec![1]]), (vec![1, 2, 0], vec![]));
    }

    #[test]
    fn cycles_are_named_and_who_is_behind_one_is_left_out() {
        assert_eq!(dependency_order(&[vec![0]]), (vec![], vec![vec![0]]));
        assert_eq!(dependency_order(&[vec![1], vec![2], vec![0], vec![1], vec![]]), (vec![4], vec![vec![0, 1, 2]]));
        assert_eq!(dependency_order(&[vec![1], vec![0], vec![3], vec![2]]).1, [vec![0, 1], vec![2, 3]]);
    }
}
