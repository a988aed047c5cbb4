//! Which rows there are.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use arrow_array::builder::BooleanBuilder;
use arrow_array::{Array, BooleanArray};
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, rows as spec};
use twox_hash::XxHash64;

use super::hashes::rows;
use crate::decode::{RejectKind, Rejected};
use crate::transform::expr::Predicate;
use crate::transform::kernel::{Batch, Build, Call, Judged, Keep, Made, Misfit, Work, broken};
use crate::transform::values::batch;

/// This family.
pub const TABLE: &[(&Function, Build)] =
    &[(&spec::FILTER, filter), (&spec::REQUIRE, require), (&spec::SAMPLE, sample), (&spec::DEDUP, dedup)];

fn keep(keep: impl Keep + 'static, call: &Call<'_>) -> Result<Work, Misfit> {
    Ok(Work::Keep(Box::new(keep), call.args.text("name").map_err(broken)?.to_owned()))
}

fn filter(call: &Call<'_>) -> Result<Work, Misfit> {
    let text = call.args.text("where").map_err(broken)?;
    keep(Predicate::new(text, call.schema).map_err(|e| ("where", e.to_string()))?, call)
}

fn require(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let missing = |row: usize| batch.columns.iter().find(|column| column.array.is_null(row));
        let why = |path: &str| Rejected {
            path: path.to_owned(),
            reason: RejectKind::Missing,
            detail: "a value is required here".to_owned(),
        };
        let rejects = (0..batch.rows).filter_map(|row| Some((row, why(missing(row)?.name)))).collect();
        Ok(Made { columns: Vec::new(), rejects })
    }))
}

/// Keeps rows whose hash is below a bound.
#[derive(Debug)]
struct Sample {
    seed: u64,
    share: f64,
}

fn sample(call: &Call<'_>) -> Result<Work, Misfit> {
    let share = call.args.number("share").map_err(broken)?;
    if share <= 0.0 || share > 1.0 {
        return Err(("share", "must be above 0, up to 1".to_owned()));
    }
    keep(Sample { seed: call.args.int("seed").map_err(broken)? as u64, share }, call)
}

impl Keep for Sample {
    fn keep(&self, batch: &Batch<'_>) -> Result<Judged> {
        // 53 bits are what a double holds exactly.
        let bound = (self.share * (1_u64 << 53) as f64) as u64;
        let mut out = BooleanBuilder::with_capacity(batch.rows);
        rows(batch, |_, text| out.append_value(XxHash64::oneshot(self.seed, text.as_bytes()) >> 11 < bound))?;
        Ok(out.finish().into())
    }
}

/// Keeps the first of equal rows that comes by. All slices of a run share it.
#[derive(Debug)]
struct Dedup {
    seen: Mutex<HashSet<u128>>,
    limit: usize,
}

/// What a row that was seen takes at most, bytes: 16 in a table that is never emptier than 7/16.
const SEEN_BYTES: u64 = 40;

fn dedup(call: &Call<'_>) -> Result<Work, Misfit> {
    let limit = call.args.int("limit").map_err(broken)? as usize;
    keep(Dedup { seen: Mutex::default(), limit }, call)
}

impl Keep for Dedup {
    fn held_bytes(&self) -> u64 {
        self.limit as u64 * SEEN_BYTES
    }

    fn keep(&self, batch: &Batch<'_>) -> Result<Judged> {
        // Two halves of 64 bits under different seeds: among 50 million rows a false pair is less likely than 1 in 10^22.
        let mut hashes = Vec::with_capacity(batch.rows);
        rows(batch, |_, text| {
            let half = |seed| u128::from(XxHash64::oneshot(seed, text.as_bytes()));
            hashes.push(half(0) << 64 | half(1));
        })?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: BooleanArray = hashes.into_iter().map(|hash| Some(seen.insert(hash))).collect();
        if seen.len() > self.limit {
            let limit = self.limit;
            return Err(Error::config(format!(
                "dedup: a commit has more than {limit} different rows; raise `limit`, lower `commitSize`, or use mode `upsert`"
            )));
        }
        Ok(kept.into())
    }
}
