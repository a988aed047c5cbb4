//! The programs as schedulers and people at a terminal use them: exit codes, `status`, `check`, `run --every`.

use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::procs::{tail, until};
use firn_shared::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::ticks::{TABLE, Ticks, check_numbers, seeded};

#[test]
fn run_every_takes_what_comes_and_ends_at_sigterm() {
    let mut rng = seeded("run_every");
    let (mut ticks, workspace) = Ticks::local("every", Kafka::shared(), 2).unwrap();
    let mut compactor = workspace.start("compactor", &["run", "--every", "1s"]).unwrap();
    for _ in 0..3 {
        ticks.produce(300, &mut rng).unwrap();
        workspace.land().unwrap();
        let all = || check_numbers(workspace.access(), ticks.produced).ok();
        until(&format!("{} rows are in the table", ticks.produced), all).unwrap();
        assert!(compactor.ended().unwrap().is_none(), "{}", tail(compactor.log()));
    }
    compactor.signal(libc::SIGTERM);
    assert_eq!(compactor.wait().unwrap().code(), Some(0), "{}", tail(compactor.log()));
    ticks.settle(&workspace).unwrap();
}

#[test]
fn exit_codes_tell_a_scheduler_what_to_do() {
    let mut rng = seeded("exit_codes");
    let (mut ticks, workspace) = Ticks::local("codes", Kafka::shared(), 1).unwrap();
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let good = std::fs::read_to_string(&pipeline).unwrap();
    let write = |text: &str| std::fs::write(&pipeline, text).unwrap();

    // 2: a person must correct the place that is named.
    write(&good.replace("database: t", "databse: t"));
    for program in [workspace.landing(&["run", "--until-caught-up"]), workspace.compactor(&["run"])] {
        let refused = program.unwrap().expect(&[2]).unwrap();
        assert!(refused.stderr.contains("ticks.yaml:10:7: ") && refused.stderr.contains("databse"), "{refused:?}");
    }
    write(&good.replace("tableName: ticks", "tableName: ticks\n      quarantineThreshold: 0.05"));

    // 99: nothing to do, before anything landed and after everything was taken.
    workspace.compactor(&["run"]).unwrap().expect(&[99]).unwrap();
    ticks.produce(95, &mut rng).unwrap();
    ticks.kafka.produce(&ticks.topic, [misfit(), misfit(), misfit(), misfit(), misfit()]).unwrap();
    workspace.land().unwrap();
    workspace.compactor(&["plan"]).unwrap().expect(&[0]).unwrap();
    // 0: five of a hundred are not more than the threshold.
    workspace.compactor(&["run"]).unwrap().expect(&[0]).unwrap();
    workspace.compactor(&["run"]).unwrap().expect(&[99]).unwrap();

    // 5: more are, and everything is committed all the same.
    ticks.produce(90, &mut rng).unwrap();
    ticks.kafka.produce(&ticks.topic, (0..10).map(|_| misfit())).unwrap();
    workspace.land().unwrap();
    let over = workspace.compactor(&["run", "--output", "json"]).unwrap().expect(&[5]).unwrap();
    let report = &over.json().unwrap()[0];
    assert_eq!((&report["fate"]["quarantined"], &report["overThreshold"]), (&json!(10), &json!(0.1)), "{report}");
    check_numbers(workspace.access(), ticks.produced).unwrap();
    workspace.reconcile().unwrap();

    // 1: today is not over yet; later it may be.
    let today = SystemClock.now().date_naive().to_string();
    let open = workspace.compactor(&["run", "--event-date", &today]).unwrap().expect(&[1]).unwrap();
    assert!(open.stderr.contains(&format!("{today} is open in 1 of 1 partitions")), "{}", open.stderr);

    // 4: the ledger and the table tell two stories. 3: the ledger tells none.
    let manifest = workspace.dir().join(format!("raw/events/{}/_batches/1/0/{:020}.json", ticks.topic, 0));
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut story: Value = serde_json::from_str(&text).unwrap();
    story["objects"][0]["tombstones"] = json!(1);
    std::fs::write(&manifest, story.to_string()).unwrap();
    let told = workspace.compactor(&["reconcile"]).unwrap().expect(&[4]).unwrap();
    assert!(told.stdout.contains("tombstones"), "{}", told.stdout);
    std::fs::remove_file(&manifest).unwrap();
    let hole = workspace.compactor(&["reconcile"]).unwrap().expect(&[3]).unwrap();
    assert!(hole.stderr.contains("has a hole"), "{}", hole.stderr);
}

fn misfit() -> Record {
    Record::of(r#"{"n":"seven","at":"2024-05-01T00:00:00Z"}"#).on(0)
}

#[test]
fn status_shows_the_chain_beside_kafka() {
    let mut rng = seeded("status_shows");
    let (mut ticks, workspace) = Ticks::local("status", Kafka::shared(), 2).unwrap();
    ticks.produce(100, &mut rng).unwrap();
    let status = || workspace.landing(&["status", "--output", "json"]).unwrap().expect(&[0]).unwrap().json().unwrap();
    let fields = |of: &Value| {
        let partitions = of["ticks"].as_array().unwrap().iter();
        partitions.map(|p| json!([p["partition"], p["kafkaEnd"], p["chainEnd"], p["lag"]])).collect::<Vec<_>>()
    };
    assert_eq!(fields(&status()), [json!([0, 50, null, 50]), json!([1, 50, null, 50])]);
    workspace.land().unwrap();
    let landed = status();
    assert_eq!(fields(&landed), [json!([0, 50, 50, 0]), json!([1, 50, 50, 0])]);
    assert!(landed["ticks"][0]["watermark"].as_str().unwrap().starts_with("2024-05-01T"), "{landed}");
    assert!(landed["ticks"][0]["caughtUpAt"].is_string(), "{landed}");
    ticks.produce(10, &mut rng).unwrap();
    assert_eq!(fields(&status()), [json!([0, 55, 50, 5]), json!([1, 55, 50, 5])]);

    let table = workspace.landing(&["status", "--pipeline", "ticks"]).unwrap().expect(&[0]).unwrap().stdout;
    let row = format!("events/{}/1[1]", ticks.topic);
    let line = table.lines().find(|line| line.contains(&row)).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[1..4], ["50", "55", "5"], "{table}");
    let unknown = workspace.landing(&["status", "--pipeline", "other"]).unwrap().expect(&[2]).unwrap();
    assert!(unknown.stderr.contains("there is no pipeline other"), "{}", unknown.stderr);
}

#[test]
fn check_asks_the_servers_what_a_run_would_ask() {
    let (ticks, workspace) = Ticks::local("checked", Kafka::shared(), 1).unwrap();
    workspace.landing(&["check"]).unwrap().expect(&[0]).unwrap();
    let checked = workspace.compactor(&["check"]).unwrap().expect(&[0]).unwrap();
    assert!(checked.stdout.contains(&format!("{TABLE}: good; the first run creates it")), "{}", checked.stdout);

    ticks.kafka.delete_topic(&ticks.topic).unwrap();
    let missing = workspace.landing(&["check"]).unwrap().expect(&[2]).unwrap();
    assert!(missing.stderr.contains(&format!("cluster events has no topic {}", ticks.topic)), "{}", missing.stderr);
    workspace.landing(&["check", "--offline"]).unwrap().expect(&[0]).unwrap();
    workspace.reconfigure(ticks.kafka.brokers(), "127.0.0.1:9").unwrap();
    let away = workspace.landing(&["check"]).unwrap().expect(&[1]).unwrap();
    assert!(away.stderr.contains("cannot list the cluster's topics"), "{}", away.stderr);
}

#[test]
fn ddl_makes_the_table_that_a_run_fills_and_inspect_shows_it() {
    let mut rng = seeded("ddl_makes");
    let (mut ticks, workspace) = Ticks::local("ddl", Kafka::shared(), 1).unwrap();
    let run = |command: &[&str]| workspace.compactor(command).unwrap();
    let ddl = |command: &[&str], outcome: &str| {
        let text = run(command).expect(&[0]).unwrap().stdout;
        let first = format!("-- {TABLE}: {outcome}\nCREATE TABLE {TABLE} (\n  n bigint NOT NULL,\n");
        assert!(text.starts_with(&first) && text.contains("\nPARTITIONED BY (hours(at))\n"), "{text}");
    };
    ddl(&["ddl", "--dry-run"], "would be created unless it exists");
    assert!(workspace.access().metadata(TABLE).unwrap().is_none(), "a dry run makes nothing");
    ddl(&["ddl"], "created");
    let made = workspace.access().duckdb(TABLE, "SELECT column_name, column_type FROM (DESCRIBE t)").unwrap();
    let types: Vec<String> = made.iter().take(3).map(|row| format!("{} {}", row[0], row[1])).collect();
    let expected = [r#""n" "BIGINT""#, r#""at" "TIMESTAMP WITH TIME ZONE""#, r#""pad" "VARCHAR""#];
    assert_eq!(types, expected);
    ddl(&["ddl"], "exists, with these columns");

    ticks.produce(120, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
    let show = |what: &str| {
        let found = run(&["inspect", what, "--output", "json"]).expect(&[0]).unwrap().json().unwrap();
        assert_eq!(found[0]["table"], json!(TABLE));
        found[0]["found"].as_array().unwrap().clone()
    };
    let snapshots = show("snapshots");
    assert_eq!((snapshots.len(), &snapshots[0]["totalRecords"]), (1, &json!("120")), "{snapshots:?}");
    let rows: u64 = show("files").iter().map(|file| file["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, 120);
    let offsets = show("offsets");
    assert_eq!((offsets.len(), &offsets[0]["next"], &offsets[0]["account"]["rows"]), (1, &json!(120), &json!(120)));

    // Columns that the table does not have are refused before anything is written.
    let pipeline = workspace.dir().join("pipelines/ticks.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text.replace("{name: pad, type: string}", "{name: pad, type: long}")).unwrap();
    ticks.produce(10, &mut rng).unwrap();
    workspace.land().unwrap();
    for command in ["ddl", "check", "run"] {
        let refused = run(&[command]).expect(&[3]).unwrap();
        assert!(refused.stderr.contains("pad"), "{command}: {}", refused.stderr);
    }
    std::fs::write(&pipeline, text).unwrap();
    ticks.settle(&workspace).unwrap();
}

#[test]
fn every_shell_gets_a_completion_script() {
    let (_, workspace) = Ticks::local("completions", Kafka::shared(), 1).unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        for program in [workspace.landing(&["completions", shell]), workspace.compactor(&["completions", shell])] {
            let script = program.unwrap().expect(&[0]).unwrap().stdout;
            assert!(script.contains("status") || script.contains("reprocess"), "{shell}: {script}");
        }
    }
}
