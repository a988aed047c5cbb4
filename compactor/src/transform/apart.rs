//! Rows that are too much for what works on them, told apart from the others: what fails on many rows is tried on fewer.

use std::ops::Range;

use firn_shared::error::Result;

/// Rows that failed alone, after which the rows of a part go one by one: halves of parts that fail all the same cost twice
/// as much.
const SINGLES_MAX: usize = 16;

/// Takes rows apart.
#[derive(Debug, Default)]
pub struct Apart {
    singles: usize,
}

impl Apart {
    /// Tries `work` on all of `rows`, and on parts of them where it fails. `done` hears of parts that cover the rows, in
    /// order: what was made of each, or why its one row failed.
    ///
    /// # Errors
    /// The first that `work` or `done` ends with.
    pub fn work<T, W>(
        &mut self,
        rows: Range<usize>,
        work: &mut impl FnMut(Range<usize>) -> Result<std::result::Result<T, W>>,
        done: &mut impl FnMut(Range<usize>, std::result::Result<T, W>) -> Result<()>,
    ) -> Result<()> {
        match work(rows.clone())? {
            Err(_) if rows.len() > 1 => {
                let step = if self.singles < SINGLES_MAX { rows.len().div_ceil(2) } else { 1 };
                rows.clone().step_by(step).try_for_each(|from| self.work(from..rows.end.min(from + step), work, done))
            }
            outcome => {
                self.singles += usize::from(outcome.is_err());
                done(rows, outcome)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts that come to something, the rows that fail, and how often was worked.
    fn apart(rows: usize, fails: impl Fn(usize) -> bool) -> (Vec<Range<usize>>, Vec<usize>, usize) {
        let (mut parts, mut failed, mut calls, mut at) = (Vec::new(), Vec::new(), 0, 0);
        let mut work = |rows: Range<usize>| {
            calls += 1;
            Ok(if rows.clone().any(&fails) { Err(()) } else { Ok(()) })
        };
        let mut done = |rows: Range<usize>, outcome: std::result::Result<(), ()>| {
            assert_eq!(rows.start, at);
            at = rows.end;
            match outcome {
                Ok(()) => parts.push(rows),
                Err(()) => failed.extend(rows),
            }
            Ok(())
        };
        Apart::default().work(0..rows, &mut work, &mut done).unwrap();
        assert_eq!(at, rows);
        (parts, failed, calls)
    }

    #[test]
    fn rows_that_fail_are_found_and_the_others_stay_together() {
        assert_eq!(apart(0, |_| true), (vec![0..0], vec![], 1));
        assert_eq!(apart(8, |_| false), (vec![0..8], vec![], 1));
        assert_eq!(apart(8, |row| row == 5), (vec![0..4, 4..5, 6..8], vec![5], 7));
        assert_eq!(apart(5, |row| row == 4), (vec![0..3, 3..4], vec![4], 5));
        assert_eq!(apart(1, |_| true), (vec![], vec![0], 1));
    }

    #[test]
    fn where_every_row_fails_each_is_tried_once_and_little_else() {
        let (parts, failed, calls) = apart(8192, |_| true);
        assert_eq!((parts.len(), failed.len()), (0, 8192));
        assert!(calls < 8192 + 100, "{calls}");
    }
}
