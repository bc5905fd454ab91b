//! What one statement may take from the others: a turn, and an answer of a bounded size.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Array, RecordBatch};
use futures::future::{FutureExt, pending};
use futures::stream::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::ends::{passed, until};
use crate::engine::Execution;
use crate::{EngineError, ErrorKind, Role};

/// How many statements run at a time, and how many may wait for that, for each role: readers never keep writers from
/// their turn, nor the other way round. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct Turns {
    readers: Lane,
    writers: Lane,
    patience: Duration,
}

/// The statements of one role.
#[derive(Debug, Clone)]
pub struct Lane {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    bounds: (usize, usize),
}

impl Lane {
    /// At most `running` at a time, and `waiting` more that wait.
    pub fn new(running: usize, waiting: usize) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { running: semaphore(running), waiting: semaphore(waiting), bounds: (running, waiting) }
    }
}

impl Default for Lane {
    /// 64 that run, 256 that wait.
    fn default() -> Self {
        Self::new(64, 256)
    }
}

impl Default for Turns {
    /// The default for each role, and 10 s of patience.
    fn default() -> Self {
        Self::new(Lane::default(), Lane::default(), Duration::from_secs(10))
    }
}

impl Turns {
    /// Turns for those who read and those who also write; who waits for longer than `patience` is sent away.
    pub fn new(readers: Lane, writers: Lane, patience: Duration) -> Self {
        Self { readers, writers, patience }
    }

    /// Waits for a turn. It ends when what is returned is dropped.
    pub(crate) async fn take(&self, role: Role) -> Result<OwnedSemaphorePermit, EngineError> {
        let lane = match role {
            Role::ReadOnly => &self.readers,
            Role::ReadWrite => &self.writers,
        };
        if let Ok(turn) = lane.running.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let (running, waiting) = lane.bounds;
        let busy = |more: String| {
            let what = format!("{running} statements of callers with the role {role} run already, {more}; try again");
            EngineError::new(ErrorKind::Exhausted, what)
        };
        let Ok(_place) = lane.waiting.clone().try_acquire_owned() else {
            return Err(busy(format!("and {waiting} wait")));
        };
        match timeout(self.patience, lane.running.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(busy(format!("and none ended within {:?}", self.patience))),
        }
    }
}

/// How large an answer may be; what is `None` has no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerBounds {
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes, as Arrow holds the rows.
    pub bytes: Option<u64>,
}

impl AnswerBounds {
    /// Takes a batch off what is left.
    fn spend(&mut self, batch: &RecordBatch, whole: Self) -> Result<(), EngineError> {
        let over = |what: &str, bound: Option<u64>| {
            let bound = bound.unwrap_or_default();
            EngineError::new(
                ErrorKind::Exhausted,
                format!("the answer has more than {bound} {what}; ask for less (LIMIT)"),
            )
        };
        if let Some(rows) = &mut self.rows {
            *rows = rows.checked_sub(batch.num_rows() as u64).ok_or_else(|| over("rows", whole.rows))?;
        }
        if let Some(bytes) = &mut self.bytes {
            *bytes = bytes.checked_sub(size(batch)).ok_or_else(|| over("bytes", whole.bytes))?;
        }
        Ok(())
    }
}

/// The bytes of a batch's own rows, whatever they share with other batches.
fn size(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default() as u64).sum()
}

impl Execution {
    /// The same answer, which fails where it grows beyond `bounds`: nothing of it is left out in silence.
    #[must_use]
    pub fn within(self, bounds: AnswerBounds) -> Self {
        if bounds == AnswerBounds::default() {
            return self;
        }
        let mut left = bounds;
        let batches = self.batches.map(move |batch| {
            let batch = batch?;
            left.spend(&batch, bounds).map(|()| batch)
        });
        Self { batches: until(batches.boxed(), pending()), ..self }
    }

    /// The same answer, which fails with `error` where it is not at its end at `deadline`.
    #[must_use]
    pub fn until(self, deadline: Instant, error: EngineError) -> Self {
        Self { batches: until(self.batches, passed(deadline).map(|()| error)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let column: Int64Array = (0..rows).collect::<Vec<_>>().into();
        RecordBatch::try_from_iter([("x", Arc::new(column) as _)]).unwrap()
    }

    #[tokio::test]
    async fn who_finds_no_place_is_sent_away_and_the_other_role_is_not() {
        let turns = Turns::new(Lane::new(1, 1), Lane::new(1, 0), Duration::from_secs(60));
        let first = turns.take(Role::ReadOnly).await.unwrap();
        let second = turns.take(Role::ReadOnly);
        futures::pin_mut!(second);
        assert!(futures::poll!(&mut second).is_pending());
        let third = turns.take(Role::ReadOnly).await.unwrap_err();
        assert_eq!(third.kind(), ErrorKind::Exhausted);
        assert!(turns.take(Role::ReadWrite).await.is_ok());
        drop(first);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_so() {
        let turns = Turns::new(Lane::new(0, 1), Lane::default(), Duration::from_millis(1));
        assert_eq!(turns.take(Role::ReadOnly).await.unwrap_err().kind(), ErrorKind::Exhausted);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_fails_and_ends() {
        let answer = |bounds| async move {
            let answer = Execution::of(vec![batch(3), batch(3), batch(3)]).within(bounds);
            answer.batches.map(|batch| batch.is_ok()).collect::<Vec<_>>().await
        };
        let rows = |rows| AnswerBounds { rows: Some(rows), bytes: None };
        assert_eq!(answer(rows(9)).await, [true; 3]);
        assert_eq!(answer(rows(5)).await, [true, false]);
        assert_eq!(answer(AnswerBounds { rows: None, bytes: Some(24) }).await, [true, false]);
        // Of two bounds the narrower counts, in each.
        let both = |one, other| async move {
            let answer = Execution::of(vec![batch(3), batch(3), batch(3)]).within(one).within(other);
            answer.batches.map(|batch| batch.is_ok()).collect::<Vec<_>>().await
        };
        let narrow = AnswerBounds { rows: Some(3), bytes: Some(24) };
        assert_eq!((both(rows(5), narrow).await, both(narrow, rows(5)).await), (vec![true, false], vec![true, false]));
        assert_eq!(both(rows(9), AnswerBounds { rows: Some(9), bytes: Some(1) }).await, [false]);
    }
}
