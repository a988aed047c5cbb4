//! Rows with keys, for upserts: a table's first load, and newer versions of some of its keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use firn_shared::ids::{ClusterName, Generation, Partition, PartitionRef, Topic, TopicRef};
use firn_shared::raw::envelope::LineWriter;

use super::generate::Batch;

/// Rows of one batch: its lines are held in memory.
const BATCH_ROWS: u64 = 200_000;
/// When the first key was made, seconds since the epoch.
const FIRST: i64 = 1_767_225_600;

/// `compactor bench rows`
#[derive(Debug, Args)]
pub struct Rows {
    /// Keys of the table; they grow with the time at which they were made.
    #[arg(long, default_value_t = 20_000_000)]
    pub keys: u64,
    /// Days over which the keys were made.
    #[arg(long, default_value_t = 100)]
    pub days: u64,
    /// Which keys to write.
    #[arg(long, value_enum, default_value_t = Which::All)]
    pub which: Which,
    /// Directory of the raw zone; what is there stays, and newer versions come behind all keys.
    #[arg(long)]
    pub to: PathBuf,
    /// Also write the rows as plain newline-delimited JSON, for others to take.
    #[arg(long)]
    pub plain: Option<PathBuf>,
}

/// Keys of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// All of them, in their first version.
    All,
    /// The newest hundredth, in a newer version.
    Newest,
    /// Every hundredth, in a newer version.
    Spread,
}

/// Writes the rows and answers how many.
///
/// # Errors
/// Fewer keys than days, and directories that cannot be written.
pub fn rows(options: &Rows) -> Result<u64> {
    ensure!(options.days > 0 && options.keys >= 100 * options.days, "a hundred keys a day at least");
    let hundredth = options.keys / 100;
    let (keys, start) = match options.which {
        Which::All => ((0..options.keys).step_by(1), 0),
        Which::Newest => ((options.keys - hundredth..options.keys).step_by(1), options.keys),
        Which::Spread => ((0..options.keys).step_by(100), options.keys),
    };
    let topic =
        TopicRef { cluster: ClusterName::new("c")?, topic: Topic::new("rows")?, generation: Generation::default() };
    let partition = PartitionRef { topic, partition: Partition(0) };
    let lines = LineWriter::new(&partition.topic.topic, partition.partition);
    let mut plain = options.plain.as_ref().map(File::create).transpose()?.map(BufWriter::new);
    let new = |start| Batch { partition: partition.clone(), start, hours: BTreeMap::new() };
    let (mut offset, mut batch, mut row) = (start, new(start), Vec::new());
    for key in keys {
        row.clear();
        let made = write(&mut row, key, options)?;
        if let Some(plain) = &mut plain {
            plain.write_all(&row)?;
            plain.write_all(b"\n")?;
        }
        batch.add(&lines, &row, made, offset);
        offset += 1;
        if offset - batch.start == BATCH_ROWS {
            std::mem::replace(&mut batch, new(offset)).write(&options.to, offset)?;
        }
    }
    if offset > batch.start {
        batch.write(&options.to, offset)?;
    }
    plain.map_or(Ok(()), |mut plain| plain.flush())?;
    Ok(offset - start)
}

/// Writes the row of a key; answers when the key was made.
fn write(row: &mut Vec<u8>, key: u64, options: &Rows) -> Result<DateTime<Utc>> {
    let newer = options.which != Which::All;
    let seconds = key as i64 * (options.days as i64 * 86_400) / options.keys as i64;
    let made = DateTime::from_timestamp(FIRST + seconds, 0).context("a time beyond the calendar")?;
    let updated = made + TimeDelta::seconds(i64::from(newer));
    // Values look drawn, and are the same each time.
    let drawn = (key * 2 + u64::from(newer) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let status = ["new", "paid", "packed", "sent", "returned"][drawn as usize % 5];
    let (cents, note) = (drawn >> 44, drawn.rotate_left(23));
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    write!(
        row,
        "{{\"id\":{key},\"created_at\":\"{}\",\"updated_at\":\"{}\",\"status\":\"{status}\",\"amount\":{}.{:02},\"note\":\"{note:016x}\"}}",
        time(made),
        time(updated),
        cents / 100,
        cents % 100
    )?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_come_behind_all_keys_and_are_a_hundredth_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |which, plain: &str| {
            let plain = dir.path().join(plain);
            let options = Rows { keys: 2_000, days: 4, which, to: dir.path().join("raw"), plain: Some(plain.clone()) };
            let count = rows(&options).unwrap();
            let text = std::fs::read_to_string(plain).unwrap();
            let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(rows.len() as u64, count);
            rows
        };
        let all = write(Which::All, "all");
        assert_eq!(
            all.iter()
                .map(|row| row["created_at"].as_str().unwrap()[..10].to_owned())
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            4
        );
        for (which, first) in [(Which::Newest, 1_980), (Which::Spread, 0)] {
            let newer = write(which, "newer");
            assert_eq!((newer.len(), newer[0]["id"].as_u64()), (20, Some(first)));
            for row in newer {
                let old = &all[row["id"].as_u64().unwrap() as usize];
                assert_eq!(row["created_at"], old["created_at"]);
                assert!(row["updated_at"].as_str() > old["updated_at"].as_str() && row["note"] != old["note"]);
            }
        }
    }
}
