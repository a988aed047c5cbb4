//! `compactor erase`: the personal data of one data subject goes, from everywhere.
//!
//! ```text
//! raw         objects with the subject's records ─→ new objects without the values ─→ manifests name these
//! marks       every table: a run that read raw objects before commits nothing after
//! raw         what no manifest names goes: the old objects
//! quarantine  files with the subject's rows, deleted ones too ─→ rewritten, values null ─→ commit, a hundred at a time; of
//!             all tables of the same topics, because each holds whole records
//! tables      the same ─→ manifests without removed files ─→ only the current snapshot ─→ delete what nothing names
//! keys        the subject's keys are destroyed: what copies and backups hold cannot be opened
//! certificate what was done, signed
//! ```
//! [`whole`] says what is looked through: tables that pipelines name, and those that none names any more. What could not be
//! erased in the end is named before anything is changed: branches, delete files that keep values, columns without nulls.
//!
//! Where a bucket keeps [`versions`], it does not begin before the operator has said what becomes of them.
//! Protected values of columns with a `subject` go, tokens included; rows, records and their counts stay, so that the
//! ledger, the tables and `reconcile` go on agreeing; manifests say of how many records values were `erased`. What others
//! do meanwhile is not lost: landing appends behind what is looked through, runs and maintenance meet at each commit, and
//! another erasure waits for its [`turn`]. Every step looks for what is left, and what a crash would make unfindable is in
//! the [`journal`] before, so the same command goes on after a crash anywhere; only a whole erasure has a certificate.

mod certificate;
mod deletes;
mod forgotten;
mod held;
mod journal;
mod leave;
mod lines;
mod raw;
mod report;
mod rows;
mod snapshots;
mod tables;
mod turn;
mod versions;
mod whole;

use std::sync::Arc;

use firn_shared::crypto::KeyBytes;
use firn_shared::error::Result;

use crate::execute::Progress;
use crate::run::Env;
use crate::spill;
pub use certificate::{Certificate, public_key, verify};
use journal::Journal;
pub use report::{RawErased, Report, TableErased};
use turn::Turn;
pub use versions::Versions;
use whole::Whole;

/// Looks for a subject and changes nothing.
///
/// # Errors
/// As [`erase`].
pub async fn look(env: &Env, subject: &str, leave: &[String]) -> Result<Report> {
    let whole = Whole::of(env, subject, leave).await?;
    let mut journal = Journal::of_dry_run(Report { dry_run: true, ..whole.report() });
    let mut looked = raw::Looked::default();
    whole.say(journal.report());
    journal.report().versioned = versions::kept(env, &whole).await?;
    for pass in whole.passes()? {
        raw::Work::new(env, pass, whole.run).await?.erase(None, &mut journal, &mut looked).await?;
    }
    journal.report().unread = whole.unread(&looked).await?;
    for (work, _) in whole.tables()? {
        work.look(&mut journal).await?;
    }
    for (name, short) in whole.subject.names() {
        if env.keys.key(name).await?.has_subject(short).await? {
            journal.report().keys.insert(format!("{name}/s/{short}"));
        }
    }
    journal.report().ended = env.clock.now();
    journal.close(None).await
}

/// Erases a subject where no store keeps versions, and certifies it with a key that is made of `seed`.
///
/// # Errors
/// As [`erase_with`].
pub async fn erase(env: &Env, subject: &str, leave: &[String], seed: &KeyBytes) -> Result<(Report, Certificate)> {
    erase_with(env, subject, leave, seed, &Versions::Unsaid).await
}

/// Erases a subject, with older versions as it was said; `env` is that of [`Versions::env`]. `leave` names columns that stay
/// as they are, `database.table.column`.
///
/// # Errors
/// `Config` when no table has a subject, a key cannot be used, a branch or tag keeps old snapshots, a column must not become
/// null and is not left, a database of a pipeline does not list its tables, or nothing was said of versions that a bucket
/// keeps; `Conflict` while another erasure is at work or when others kept changing a table; `Unavailable` when files stay that
/// cannot be deleted; else those of catalog and stores. Doing it again goes on.
pub async fn erase_with(
    env: &Env,
    subject: &str,
    leave: &[String],
    seed: &KeyBytes,
    versions: &Versions,
) -> Result<(Report, Certificate)> {
    let whole = Whole::of(env, subject, leave).await?;
    let kept = versions::kept(env, &whole).await?;
    versions.allow(&kept)?;
    let store = env.raw().await?;
    let mut journal = Journal::open(Arc::clone(&store), &whole.subject, whole.report()).await?;
    let mut turn = Turn::take(store, Arc::clone(&env.clock), whole.run, journal.who()).await?;
    let mut looked = raw::Looked::default();
    whole.say(journal.report());
    versions.tell(&kept, journal.report());
    for pass in whole.passes()? {
        let work = raw::Work::new(env, pass, whole.run).await?;
        work.erase(Some(&mut turn), &mut journal, &mut looked).await?;
    }
    journal.report().unread = whole.unread(&looked).await?;
    for (ident, definition) in whole.definitions()? {
        tables::mark(env, &ident, definition.as_ref(), whole.run).await?;
    }
    journal.report().raw_removed += raw::sweep(env, &mut turn, &looked).await?;
    journal.report().spilled += spill::sweep(&env.config.deployment.compactor.temp_dir);
    versions.tell(&kept, journal.report());
    journal.save().await?;
    turn.give_back().await?;
    for (work, maintained) in whole.tables()? {
        Box::pin(work.erase(&maintained, &mut journal)).await?;
        versions.tell(&kept, journal.report());
    }
    for (name, short) in whole.subject.names() {
        let key = env.keys.key(name).await?;
        if key.has_subject(short).await? {
            let object = key.destroy_subject(short).await?;
            journal.report().keys.insert(object);
        }
    }
    versions.tell(&kept, journal.report());
    journal.report().ended = env.clock.now();
    journal.save().await?;
    let certificate = Certificate::new(journal.report(), seed)?;
    Ok((journal.close(Some(&certificate)).await?, certificate))
}

/// What a terminal sees of looking through something, byte by byte.
fn progress(env: &Env, what: &str) -> Progress {
    if env.bars { Progress::of(what, 0) } else { Progress::quiet() }
}
