//! Erasure: nothing of the subject is left in any file, everybody else's records are as they were, and neither crashes nor
//! runs at the same time bring anything back.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use firn_compactor::erase::{self, Report};
use firn_compactor::maintain::Subject;
use firn_compactor::run::{Options, Target, run};
use firn_compactor::table::read::{self, Rows};
use firn_shared::config::protected::protected;
use firn_shared::crypto::KeyBytes;
use firn_shared::error::{ErrorKind, Result};
use firn_shared::store::{Fault, Faults};
use futures::TryStreamExt;
use tokio::sync::Notify;

use crate::bed::Bed;
use crate::protect::{batches, of_subject, sweep, text, token, with_subjects};

pub async fn erase(bed: &Bed, faults: &Arc<Faults>, subject: &str) -> Result<Report> {
    let seed = KeyBytes::new([9; 32]);
    let (report, certificate) = erase::erase(&bed.env(faults).await, subject, &[], &seed).await?;
    assert_eq!(erase::verify(&certificate, &erase::public_key(&seed).unwrap()).unwrap(), report);
    Ok(report)
}

/// How many rows have an e-mail, by subject.
pub async fn mails(bed: &Bed) -> [usize; 3] {
    let mut found = [0; 3];
    for batch in batches(bed, &["who", "email"]).await {
        let who = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
        for row in (0..batch.num_rows()).filter(|row| batch.column(1).is_valid(*row)) {
            found[who.value(row) as usize] += 1;
        }
    }
    found
}

/// Ciphertexts of a subject's e-mail, and the keys that sealed them.
async fn sealed(bed: &Bed, subject: i64) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for batch in batches(bed, &["who", "email", "_key_people"]).await {
        let who = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
        for row in (0..batch.num_rows()).filter(|row| who.value(*row) == subject) {
            found
                .push((text(&batch, "_key_people").value(row).to_owned(), text(&batch, "email").value(row).to_owned()));
        }
    }
    found
}

/// Everything of subject 1 that may be left nowhere.
fn secrets() -> [String; 4] {
    let mail = "user-1@secret.example".to_owned();
    [token(&mail), mail, "555-111".to_owned(), "4111 1111 1111 1234".to_owned()]
}

/// No file of the deployment, however it is packed, says anything of subject 1.
pub fn is_nowhere(bed: &Bed, more: &[&str]) {
    let secrets = secrets();
    let all: Vec<&str> = secrets.iter().map(String::as_str).chain(more.iter().copied()).collect();
    assert!(sweep(bed.dir.path(), &all) > 10);
}

pub fn events(ids: std::ops::Range<u64>) -> Vec<(u32, Option<String>)> {
    ids.map(|id| of_subject(id, "1")).collect()
}

/// Removes what runs that lost have left behind, as maintenance does when it is old enough.
async fn without_orphans(bed: &Bed) {
    for mut subject in Subject::of(&bed.target()).unwrap() {
        (subject.settings.orphans_after, subject.settings.delete_orphans) = (Duration::ZERO, true);
        let options = firn_compactor::maintain::Options {
            only: [firn_compactor::maintain::Part::Orphans].into(),
            ..Default::default()
        };
        firn_compactor::maintain::maintain(&bed.env(&Faults::none()).await, &subject, &options).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_subject_is_nowhere_and_everybody_else_stays() {
    let bed = Bed::protected(&with_subjects(false));
    let mut first = events(0..30);
    first.push(of_subject(31, "\"many\""));
    first.push(of_subject(32, "\"many\""));
    bed.land(0, &first).await;
    bed.run(&Faults::none()).await.unwrap();
    bed.land(1, &events(33..39)).await;
    bed.run(&Faults::none()).await.unwrap();
    // A second snapshot of the same rows, and what it keeps of the first.
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    assert_eq!(mails(&bed).await, [12, 12, 12]);
    let sealed = sealed(&bed, 1).await;
    let env = bed.env(&Faults::none()).await;
    let people = env.keys.key(&"people".parse().unwrap()).await.unwrap();
    let open = async || people.open(&sealed[0].0).await.unwrap();
    assert_eq!(open().await.unwrap().open(sealed[0].1.as_bytes(), b"").unwrap().expose(), b"user-1@secret.example");

    let planned = erase::look(&env, "1", &[]).await.unwrap();
    let counts = |report: &Report| {
        let (raw, table) = (&report.raw[&"p".parse().unwrap()], &report.tables["d.t"]);
        (raw.records, table.rows, report.tables["d.t_quarantine"].rows, report.keys.len())
    };
    assert_eq!(counts(&planned), (13, 12, 1, 1), "{planned}");
    assert_eq!(mails(&bed).await, [12, 12, 12], "only looked");

    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(counts(&done), (13, 12, 1, 1), "{done}");
    assert!(done.tables["d.t"].snapshots >= 3 && done.tables["d.t"].deleted > 0 && done.raw_removed == 2, "{done:?}");
    assert_eq!(mails(&bed).await, [12, 0, 12]);
    let keys = bed.env(&Faults::none()).await.keys;
    let key = keys.key(&"people".parse().unwrap()).await.unwrap().open(&sealed[0].0).await.unwrap();
    assert!(key.is_none(), "the key is gone, and with it every copy of the ciphertext");
    is_nowhere(&bed, &[&sealed[0].1]);

    // Everybody else's records are as they were, and the ledger still adds up and says why values are missing.
    bed.prove().await;
    let proof = firn_compactor::run::prove::reconcile(&env, bed.target(), false).await.unwrap().to_string();
    assert!(proof.contains("erased, records among these without the values of a subject: 13"), "{proof}");
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    assert_eq!(mails(&bed).await, [12, 0, 12], "nothing comes back");
    bed.prove().await;
    let again = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(counts(&again), (0, 0, 0, 0), "{again}");
    is_nowhere(&bed, &[]);
}

/// `0042` erased nothing and was certified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_is_a_number_is_found_however_it_is_written() {
    for written in ["1", "1.0", "0001", "10e-1"] {
        let bed = Bed::protected(&with_subjects(false));
        bed.land(0, &[events(0..6), vec![of_subject(7, "\"many\"")]].concat()).await;
        bed.run(&Faults::none()).await.unwrap();
        let done = erase(&bed, &Faults::none(), written).await.unwrap();
        assert!(done.found() && done.keys.len() == 1, "{written}: {done}");
        assert_eq!(mails(&bed).await, [2, 0, 2], "{written}");
        is_nowhere(&bed, &[]);
        let again = erase(&bed, &Faults::none(), written).await.unwrap();
        assert!(!again.found() && again.to_string().contains("nothing of this subject was found"), "{again}");
    }
}

/// A file of each subject: those of others are left out, and the new one is read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_hold_the_subject_are_not_read() {
    let bed = Bed::protected(&with_subjects(false));
    for who in 0..3 {
        bed.land(0, &(0..9).map(|n| of_subject(3 * n + who, "1")).collect::<Vec<_>>()).await;
        bed.run(&Faults::none()).await.unwrap();
    }
    let counts = |report: &Report| {
        let table = &report.tables["d.t"];
        (table.files, table.rows, table.looked, table.excluded)
    };
    let planned = erase::look(&bed.env(&Faults::none()).await, "1", &[]).await.unwrap();
    assert_eq!(counts(&planned), (1, 9, 1, 2), "{planned}");
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(counts(&done), (1, 9, 2, 2), "{done}");
    assert!(
        done.to_string().contains("2 data files were read; bounds, filters or dictionaries exclude 2 more"),
        "{done}"
    );
    assert_eq!(mails(&bed).await, [9, 0, 9]);
    is_nowhere(&bed, &[]);
}

/// A column that the pipeline has lost, and a topic that it does not name any more, were left alone and certified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_pipeline_has_forgotten_is_erased_too() {
    let mut bed = Bed::protected(&with_subjects(false));
    bed.land(0, &[events(0..6), vec![of_subject(7, "\"many\"")]].concat()).await;
    bed.run(&Faults::none()).await.unwrap();
    let mut forgetful = with_subjects(false).replace("topic: t}", "topic: u}");
    for line in [
        "        - {name: 'phones[]', protect: encrypt, subject: who, encoding: binary}\n",
        "        - {name: phones, type: 'list<string>'}\n",
        "        - {name: n, type: int}\n",
    ] {
        assert!(forgetful.contains(line), "{line}");
        forgetful = forgetful.replace(line, "");
    }
    bed.reconfigure(&forgetful);
    bed.land_in("c/u/1", 0, &events(8..14)).await;
    bed.land_in("c/nobodys/1", 0, &[(6, Some("{}".to_owned()))]).await;
    bed.run(&Faults::none()).await.unwrap();
    assert_eq!(mails(&bed).await, [4, 4, 4]);
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!((done.raw[&"p".parse().unwrap()].records, done.tables["d.t"].rows), (5, 4), "{done}");
    assert_eq!(done.unread.iter().collect::<Vec<_>>(), ["c/nobodys"]);
    assert_eq!(done.tables["d.t"].foreign, ["n"]);
    assert_eq!(mails(&bed).await, [4, 0, 4]);
    is_nowhere(&bed, &[]);

    // Nothing of it is protected any more.
    let table = forgetful.find("      piiColumns:").unwrap();
    let columns = forgetful.find("      columns:").unwrap();
    bed.reconfigure(&format!("{}{}", &forgetful[..table], &forgetful[columns..]));
    let planned = erase::look(&bed.env(&Faults::none()).await, "2", &[]).await.unwrap();
    assert_eq!((planned.raw[&"p".parse().unwrap()].records, planned.tables["d.t"].rows), (4, 4), "{planned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_crashed_is_made_good_by_the_next() {
    for fault in [Fault::CrashAfter, Fault::CrashBefore] {
        for number in 1.. {
            let bed = Bed::protected(&with_subjects(false));
            bed.land(0, &[events(0..12), vec![of_subject(13, "\"x\"")]].concat()).await;
            bed.run(&Faults::none()).await.unwrap();
            bed.land(0, &events(14..17)).await;
            bed.run(&Faults::none()).await.unwrap();
            let faults = Faults::at_write(number, fault);
            let crashed = erase(&bed, &faults, "1").await;
            if !faults.fired() {
                crashed.unwrap();
                assert!(number > 25, "an erasure writes more than {number} times");
                break;
            }
            erase(&bed, &Faults::none(), "1").await.unwrap();
            assert_eq!(mails(&bed).await, [5, 0, 5], "{fault:?} {number}");
            is_nowhere(&bed, &[]);
            bed.prove().await;
        }
    }
}

/// A run that is held up at each of its writes in turn meets an erasure there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_at_the_same_time_loses_nothing_and_brings_nothing_back() {
    for number in 1.. {
        let bed = Bed::protected(&with_subjects(false));
        bed.land(0, &events(0..6)).await;
        bed.run(&Faults::none()).await.unwrap();
        bed.land(0, &[events(6..12), vec![of_subject(13, "\"x\"")]].concat()).await;
        let (faults, over) = (Faults::at_write(number, Fault::Hold), Notify::new());
        let running = async {
            let outcome = bed.run(&faults).await;
            over.notify_one();
            outcome
        };
        let erasing = async {
            let held = tokio::select! {
                () = faults.held() => true,
                () = over.notified() => false,
            };
            let erased = erase(&bed, &Faults::none(), "1").await;
            faults.open();
            (held, erased)
        };
        let (ran, (held, erased)) = tokio::join!(running, erasing);
        erased.unwrap();
        if let Err(e) = ran {
            assert_eq!(e.kind(), ErrorKind::Conflict, "write {number}: {e}");
        }
        bed.run_to_the_end().await;
        assert_eq!(mails(&bed).await, [4, 0, 4], "write {number}");
        bed.prove().await;
        without_orphans(&bed).await;
        is_nowhere(&bed, &[]);
        if !held {
            assert!(number > 8, "a run writes more than {number} times");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_erasures_at_once_each_is_whole_in_the_end() {
    let bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..12)).await;
    bed.run(&Faults::none()).await.unwrap();
    let faults = (Faults::none(), Faults::none());
    let (one, two) = tokio::join!(erase(&bed, &faults.0, "1"), erase(&bed, &faults.1, "2"));
    for (outcome, subject) in [(one, "1"), (two, "2")] {
        if let Err(e) = outcome {
            assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
            erase(&bed, &Faults::none(), subject).await.unwrap();
        }
    }
    assert_eq!(mails(&bed).await, [4, 0, 0]);
    is_nowhere(&bed, &["user-2@secret.example", "555-222"]);
    bed.prove().await;
}

/// Newer versions, deletes that are remembered, and files that only delete files take rows out of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn superseded_and_deleted_rows_of_an_upsert_are_erased_too() {
    for strategy in ["copyOnWrite", "mergeOnRead", "mergeOnRead\n      deleteFiles: equality"] {
        let mode = format!(
            "tableName: t\n      mode: upsert\n      idColumns: [id]\n      timestampColumns: [at]\n      writeStrategy: {strategy}"
        );
        let bed = Bed::protected(&with_subjects(false).replace("tableName: t", &mode));
        let at = |records: Vec<(u32, Option<String>)>, minute: u32| {
            let later = |(hour, payload): (u32, Option<String>)| {
                (hour, payload.map(|p| p.replace("T06:00", &format!("T06:{minute:02}"))))
            };
            records.into_iter().map(later).collect::<Vec<_>>()
        };
        bed.land(0, &events(0..12)).await;
        bed.run(&Faults::none()).await.unwrap();
        bed.land(0, &at(events(0..6), 5)).await;
        bed.run(&Faults::none()).await.unwrap();
        erase(&bed, &Faults::none(), "1").await.unwrap();
        assert_eq!(mails(&bed).await, [4, 0, 4], "{strategy}");
        is_nowhere(&bed, &[]);
        bed.prove().await;
        // A newer version of an erased row meets its key, and an older one does not come back.
        bed.land(0, &at(events(1..2), 9)).await;
        bed.land(0, &at(events(4..5), 1)).await;
        bed.run(&Faults::none()).await.unwrap();
        assert_eq!(mails(&bed).await, [4, 1, 4], "{strategy}");
        bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
        assert_eq!(mails(&bed).await, [4, 1, 4], "{strategy}");
        bed.prove().await;
    }
}

/// Whole loads are reprocessed from where the last one began, which only snapshots say that are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_load_can_be_reprocessed_after_an_erasure() {
    let bed = Bed::protected(&with_subjects(false).replace("tableName: t", "tableName: t\n      mode: truncateLoad"));
    bed.land(0, &events(0..9)).await;
    bed.run(&Faults::none()).await.unwrap();
    bed.land(0, &events(9..15)).await;
    bed.run(&Faults::none()).await.unwrap();
    erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(mails(&bed).await, [2, 0, 2]);
    is_nowhere(&bed, &[]);
    bed.maintain(&Faults::none(), &bed.subject()).await.unwrap();
    bed.reprocess(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    assert_eq!(mails(&bed).await, [2, 0, 2]);
    bed.prove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_keeps_old_rows_is_named_before_anything_changes() {
    let bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..6)).await;
    bed.run(&Faults::none()).await.unwrap();
    bed.diff(&Faults::none(), "2021-07-21T06", "2021-07-21T07").await.unwrap();
    let error = erase(&bed, &Faults::none(), "1").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("firn_reprocess"), "{error}");
    assert_eq!(mails(&bed).await, [2, 2, 2]);
    bed.discard(&Faults::none()).await.unwrap();
    erase(&bed, &Faults::none(), "1").await.unwrap();
    is_nowhere(&bed, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_keeps_its_old_files_is_named_before_anything_changes() {
    let bed = Bed::protected(&with_subjects(false));
    bed.land(0, &events(0..6)).await;
    bed.run(&Faults::none()).await.unwrap();
    let updates = [("gc.enabled".to_owned(), "false".to_owned())].into();
    let env = bed.env(&Faults::none()).await;
    let set = vec![iceberg::TableUpdate::SetProperties { updates }];
    env.catalog.commit(&bed.table().await.unwrap(), set, Vec::new()).await.unwrap();
    let error = erase(&bed, &Faults::none(), "1").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("gc.enabled is false"), "{error}");
    assert_eq!(mails(&bed).await, [2, 2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_landing_sealed_is_erased_by_its_key() {
    let bed = Bed::protected(&with_subjects(true));
    let env = bed.env(&Faults::none()).await;
    let protected = protected(bed.target().output);
    let guard = firn_shared::crypto::Guard::new(&protected, &env.keys).await.unwrap().unwrap();
    let land = |(hour, payload): (u32, Option<String>)| {
        let sealed = |payload: String| {
            let mut scratch = firn_shared::crypto::Scratch::default();
            let out =
                tokio::task::block_in_place(|| guard.protect(payload.as_bytes(), &mut scratch).unwrap().into_owned());
            String::from_utf8(out).unwrap()
        };
        (hour, payload.map(sealed))
    };
    bed.land(0, &events(0..6).into_iter().map(land).collect::<Vec<_>>()).await;
    bed.land(0, &events(6..9)).await;
    bed.run(&Faults::none()).await.unwrap();
    assert_eq!(mails(&bed).await, [3, 3, 3]);
    let sealed = sealed(&bed, 1).await;
    erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!(mails(&bed).await, [3, 0, 3]);
    let ciphertexts: Vec<&str> = sealed.iter().map(|(_, text)| text.as_str()).collect();
    is_nowhere(&bed, &ciphertexts);
    bed.prove().await;
}

/// The payloads in the quarantine of a table of the pipeline.
async fn quarantined(bed: &Bed, output: usize) -> Vec<String> {
    let target = Target::select(&bed.config, None, None).unwrap()[output];
    let env = bed.env(&Faults::none()).await;
    let table = env.catalog.load(&target.quarantine().unwrap().ident).await.unwrap().unwrap();
    let batches: Vec<RecordBatch> =
        read::rows(&table, &["payload"], &Rows::All).await.unwrap().try_collect().await.unwrap();
    let payloads = batches.iter().flat_map(|batch| batch.column(0).as_binary::<i64>().iter().flatten());
    payloads.map(|payload| String::from_utf8(payload.to_vec()).unwrap()).collect()
}

/// Runs every table of the pipeline.
async fn run_all(bed: &Bed) {
    for target in Target::select(&bed.config, None, None).unwrap() {
        run(&bed.env(&Faults::none()).await, target, &Options::default()).await.unwrap();
    }
}

/// A second table takes the same records, says nothing of personal data, and refuses them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_table_refuses_is_protected_and_erased_too() {
    let other = "  - table:
      database: d
      tableName: u
      columns:
        - {name: id, type: long, required: true}
        - {name: n, type: boolean}
";
    let bed = Bed::protected(&format!("{}{other}", with_subjects(false)));
    bed.land(0, &events(0..6)).await;
    run_all(&bed).await;
    let lake = bed.dir.path().join("lake");
    assert!(sweep(&lake, &secrets().each_ref().map(String::as_str)[1..]) > 4);
    let mails = async || quarantined(&bed, 1).await.iter().filter(|payload| payload.contains("firn:1:e:")).count();
    assert_eq!(mails().await, 6);

    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!((done.tables["d.t"].rows, done.tables["d.u_quarantine"].rows), (2, 2), "{done}");
    assert!(!done.tables.contains_key("d.u"), "it holds none of the subject's values");
    assert_eq!(mails().await, 4);
    is_nowhere(&bed, &[]);
    bed.prove().await;
}

/// The subject's column says a hash, so no key stands in the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_hashed_subject_are_found() {
    let pipeline = with_subjects(false)
        .replace("protect: encrypt, token: true, subject: who", "protect: token, subject: who")
        .replace(
            "{name: 'phones[]', protect: encrypt, subject: who, encoding: binary}",
            "{name: who, protect: hash}\n        - {name: 'phones[]', protect: mask, subject: who}",
        );
    let bed = Bed::protected(&pipeline);
    bed.land(0, &[events(0..6), vec![of_subject(7, "\"many\"")]].concat()).await;
    bed.run(&Faults::none()).await.unwrap();
    let emails = async || -> usize {
        batches(&bed, &["email"]).await.iter().map(|batch| batch.num_rows() - batch.column(0).null_count()).sum()
    };
    assert_eq!(emails().await, 6);
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!((done.tables["d.t"].rows, done.tables["d.t_quarantine"].rows), (2, 1), "{done}");
    assert_eq!(emails().await, 4);
    is_nowhere(&bed, &[]);
}

/// A column that is made of several values cannot be traced, so refused records are sealed as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_in_escapes_is_found_in_what_was_sealed_whole() {
    let more = "        - {name: both, protect: mask}
        - {name: x, protect: keep}
        - {name: y, protect: keep}
      columns:
        - {name: x, type: string}
        - {name: y, type: string}";
    let pipeline = format!(
        "{}    transformations:\n      - concat: {{columns: [x, y], as: both}}\n",
        with_subjects(false)
            .replace("{name: who, type: long}", "{name: who, type: string}")
            .replace("      columns:", more)
    );
    let bed = Bed::protected(&pipeline);
    let named = |who: &str| {
        let (hour, payload) = of_subject(4, "\"many\"");
        (hour, payload.map(|payload| payload.replace("\"who\":1", &format!("\"who\":\"{who}\""))))
    };
    // The last cannot be told apart, nor can what a producer makes look sealed.
    let fake = (6, Some(r#"{"_firn_sealed":"firn:1:e:nokey/1:QUJD:"}"#.to_owned()));
    bed.land(0, &[named("m\\u00fcller@x"), named("m\\u00fcller@xy"), named("x"), fake]).await;
    bed.run(&Faults::none()).await.unwrap();
    let sealed = async || quarantined(&bed, 0).await.iter().filter(|p| p.starts_with("{\"_firn_sealed\"")).count();
    assert_eq!(sealed().await, 4);
    let done = erase(&bed, &Faults::none(), "müller@x").await.unwrap();
    let raw = &done.raw[&"p".parse().unwrap()];
    assert_eq!((raw.records, raw.unopened, done.tables["d.t_quarantine"].rows), (1, 1, 1), "{done}");
    assert!(done.to_string().contains("1 records hold something sealed that no key opens"), "{done}");
    assert_eq!(sealed().await, 3);
}

/// What landing sealed is quarantined as it landed, and erased from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_landed_record_is_quarantined_as_it_is_and_erased() {
    let bed = Bed::protected(&with_subjects(true));
    let env = bed.env(&Faults::none()).await;
    let guard = firn_shared::crypto::Guard::new(&protected(bed.target().output), &env.keys).await.unwrap().unwrap();
    let land = |payload: String| {
        let mut scratch = firn_shared::crypto::Scratch::default();
        let out = tokio::task::block_in_place(|| guard.protect(payload.as_bytes(), &mut scratch).unwrap().into_owned());
        String::from_utf8(out).unwrap()
    };
    let odd = |id: u64| {
        let payload = of_subject(id, "1").1.unwrap();
        let from = payload.find("[\"555").unwrap();
        let to = payload.find(']').unwrap() + 1;
        format!("{}\"555-111\"{}", &payload[..from], &payload[to..])
    };
    let payloads: Vec<String> =
        [of_subject(1, "\"many\"").1.unwrap(), of_subject(2, "\"many\"").1.unwrap(), odd(4), odd(5)].map(land).to_vec();
    bed.land(0, &payloads.iter().map(|payload| (6, Some(payload.clone()))).collect::<Vec<_>>()).await;
    bed.run(&Faults::none()).await.unwrap();
    let mut kept = quarantined(&bed, 0).await;
    kept.sort();
    let mut expected = payloads.clone();
    expected.sort();
    assert_eq!(kept, expected);
    let done = erase(&bed, &Faults::none(), "1").await.unwrap();
    assert_eq!((done.raw[&"p".parse().unwrap()].records, done.tables["d.t_quarantine"].rows), (2, 2), "{done}");
    let left = quarantined(&bed, 0).await;
    assert_eq!(left.iter().filter(|payload| payload.contains("\"email\":null")).count(), 2);
    assert_eq!(left.iter().filter(|payload| payload.contains("\"phones\":null")).count(), 1, "{left:?}");
}
