//! A running landing daemon as its operators see it: metrics, health, readiness, alarms, several clusters at once.

use firn_e2e::rig::daemon::Daemon;
use firn_e2e::rig::kafka::{Kafka, Record};
use firn_e2e::rig::procs::{free_port, run_dir, tail, until};
use firn_e2e::rig::workspace::{Workspace, tick_pipeline};
use firn_shared::clock::{Clock, SystemClock};
use rand::Rng;

use crate::ticks::{Ticks, seeded};

#[test]
fn a_daemon_tells_its_scraper_and_its_orchestrator_how_it_is() {
    let mut rng = seeded("a_daemon_tells");
    let (mut ticks, workspace) = Ticks::local("daemon", Kafka::shared(), 2).unwrap();
    ticks.produce(500, &mut rng).unwrap();
    ticks.kafka.produce(&ticks.topic, [Record::of("no json").on(1)]).unwrap();
    let mut daemon = Daemon::start(&workspace).unwrap();
    assert_eq!(daemon.get("/healthz").unwrap(), (200, "alive\n".to_owned()));
    assert_eq!(daemon.await_status("/readyz", 200).unwrap(), "ready\n");
    assert_eq!(daemon.get("/other").unwrap().0, 404);

    let landed = || (daemon.sum("landing_records_total").ok()? >= 500).then_some(());
    until("500 records have landed", landed).unwrap();
    let caught_up = || {
        let lag = daemon.metric("landing_lag_offsets").ok()?;
        (lag.len() == 2 && lag.iter().all(|(_, offsets)| *offsets == 0)).then_some(())
    };
    until("the lag of both partitions is 0", caught_up).unwrap();
    let of = |partition: u32| {
        format!(r#"cluster="events",partition="{partition}",pipeline="ticks",topic="{}""#, ticks.topic)
    };
    assert_eq!(daemon.metric("landing_records_total").unwrap(), [(of(0), 250), (of(1), 250)]);
    assert_eq!(daemon.metric("landing_kafka_end_offset").unwrap(), [(of(0), 250), (of(1), 251)]);
    assert_eq!(daemon.metric("landing_chain_end_offset").unwrap(), [(of(0), 250), (of(1), 251)]);
    let rejects = daemon.metric("landing_rejects_total").unwrap();
    assert!(matches!(&rejects[..], [(labels, 1)] if labels.contains(r#"reason="notJson""#)), "{rejects:?}");
    for (name, expected) in [
        ("landing_absent_offsets_total", 0),
        ("landing_gap_offsets_total", 0),
        ("landing_failures_total", 0),
        ("landing_stopped_partitions", 0),
        ("landing_expiring_partitions", 0),
    ] {
        assert_eq!(daemon.sum(name).unwrap(), expected, "{name}");
    }
    for name in ["landing_batches_total", "landing_objects_total", "landing_object_bytes_total"] {
        assert!(daemon.sum(name).unwrap() >= 2, "{name}");
    }
    assert!(daemon.sum("landing_watermark_seconds").unwrap() > 2 * 1_714_521_600);
    // Everything is written: what is buffered was given back, and the peak stays to be seen.
    assert!(daemon.sum("landing_buffer_bytes").unwrap() < daemon.sum("landing_buffer_peak_bytes").unwrap());

    daemon.process.signal(libc::SIGTERM);
    assert_eq!(daemon.process.wait().unwrap().code(), Some(0), "{}", tail(daemon.process.log()));
    assert!(daemon.get("/healthz").is_err(), "the port is free again");
    ticks.settle(&workspace).unwrap();
}

/// Whether a daemon fears for unread data, and for which.
fn alarm_of(daemon: &Daemon) -> impl FnMut() -> Option<Vec<(String, i64)>> {
    move || {
        let expiring = daemon.metric("landing_expiring_partitions").ok()?;
        expiring.iter().any(|(_, alarm)| *alarm == 1).then_some(expiring)
    }
}

#[test]
fn unread_data_that_is_about_to_expire_raises_an_alarm() {
    let mut rng = seeded("unread_data");
    let (kafka, topic) = (Kafka::shared(), "ticks.expiring");
    let workspace = Workspace::local("expiring", kafka).unwrap();
    kafka.create_topic(topic, 2, &[("retention.ms", "3600000")]).unwrap();
    // Nothing rotates by itself, and the operator believes in a week.
    let pipeline = tick_pipeline("ticks", topic, "ticks").replace("size: 256KiB, age: 1s", "size: 1GB, age: 1h");
    let topic_key = format!("topic: {topic}");
    workspace.pipeline("ticks", &pipeline.replace(&topic_key, &format!("{topic_key}, retention: 7d"))).unwrap();
    let now = SystemClock.now().timestamp_millis();
    // Partition 0 is 50 of its 60 minutes old, partition 1 is new.
    let ticks = (0..100).map(|n| {
        let tick = firn_e2e::rig::samples::tick(n, rng.random_range(0..3600));
        let minutes = if n % 2 == 0 { 50 } else { 1 };
        Record { timestamp: Some(now - minutes * 60_000), ..Record::of(tick).on((n % 2) as i32) }
    });
    kafka.produce(topic, ticks).unwrap();

    let daemon = Daemon::start(&workspace).unwrap();
    let expiring = until("the alarm is raised", alarm_of(&daemon)).unwrap();
    for (labels, alarm) in expiring {
        assert_eq!(alarm, i64::from(labels.contains(r#"partition="0""#)), "{labels}");
    }
    // The gauge is set before the log is written.
    let told = || {
        let log = std::fs::read_to_string(daemon.process.log()).ok()?;
        let alarm = |line: &str| line.contains("ERROR") && line.contains("unread data is about to expire");
        let doubt = "keeps records for 3600 s, the pipeline's retention says 604800 s";
        (log.lines().any(alarm) && log.contains(doubt)).then_some(())
    };
    until("the log tells of the alarm, and that the pipeline's retention is not the topic's", told).unwrap();
    drop(daemon);

    // No partition is ever taken up while the raw zone is out of reach; the data is as old all the same.
    let raw = format!("raw: file://{}/raw\n", workspace.dir().display());
    let nowhere = format!("127.0.0.1:{}", free_port());
    let s3 = format!("s3: {{endpoint: 'http://{nowhere}', region: a, accessKeyId: b, secretAccessKey: c}}\n");
    workspace.reconfigure(&raw, &format!("{s3}raw: s3://nowhere/raw\n")).unwrap();
    let daemon = Daemon::start(&workspace).unwrap();
    let expiring = until("the alarm is raised", alarm_of(&daemon)).unwrap();
    assert!(expiring.iter().any(|(labels, alarm)| labels.contains(r#"partition="0""#) && *alarm == 1), "{expiring:?}");
    let why = daemon.await_status("/readyz", 503).unwrap();
    assert!(why.starts_with("ticks: consumer 0 starts again: "), "{why}");
    drop(daemon);
    workspace.reconfigure(&format!("{s3}raw: s3://nowhere/raw\n"), &raw).unwrap();

    let checked = workspace.landing(&["check"]).unwrap().expect(&[2]).unwrap();
    assert!(checked.stderr.contains("keeps records for 3600 s"), "{}", checked.stderr);
}

#[test]
fn clusters_land_side_by_side_and_one_that_is_down_holds_up_no_other() {
    let mut rng = seeded("clusters_land");
    let (mut ticks, workspace) = Ticks::local("clusters", Kafka::shared(), 2).unwrap();
    let other = Kafka::start(&run_dir().join("clusters-kafka")).unwrap();
    let nowhere = "nowhere: {r53: {name: nowhere.invalid, port: 9092}}";
    let cluster = format!("clusters:\n  {nowhere}\n  other: {{brokers: '{}'}}\n", other.brokers());
    workspace.reconfigure("clusters:\n", &cluster).unwrap();
    other.create_topic("ticks.other", 3, &[]).unwrap();
    let pipeline = tick_pipeline("other", "ticks.other", "other").replace("cluster: events", "cluster: other");
    workspace.pipeline("other", &pipeline.replace("topic: ", "numberOfConsumers: 2, topic: ")).unwrap();
    let pipeline = tick_pipeline("nowhere", "ticks.nowhere", "nowhere").replace("cluster: events", "cluster: nowhere");
    workspace.pipeline("nowhere", &pipeline).unwrap();
    workspace.reconfigure("memory: 64MiB", "memory: 128MiB").unwrap();
    let records = |numbers: std::ops::Range<u64>, rng: &mut rand::rngs::SmallRng| {
        let tick = |n: u64| firn_e2e::rig::samples::tick(n, rng.random_range(0..3600));
        numbers.map(tick).map(Record::of).enumerate().map(|(i, r)| r.on(i as i32 % 3)).collect::<Vec<_>>()
    };
    other.produce("ticks.other", records(0..300, &mut rng)).unwrap();
    ticks.produce(200, &mut rng).unwrap();

    other.kill();
    let daemon = Daemon::start(&workspace).unwrap();
    let landed = |pipeline: &str, count: i64| {
        let label = format!(r#"pipeline="{pipeline}""#);
        until(&format!("{count} records of {pipeline} have landed"), || {
            let all = daemon.metric("landing_records_total").ok()?;
            let of_it = all.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, value)| value);
            (of_it.sum::<i64>() >= count).then_some(())
        })
    };
    landed("ticks", 200).unwrap();
    let (status, why) = daemon.get("/readyz").unwrap();
    let lacking = |pipelines: &[&str]| {
        let lines: Vec<_> =
            pipelines.iter().map(|pipeline| format!("{pipeline}: has not found its cluster yet\n")).collect();
        lines.concat()
    };
    assert_eq!((status, why), (503, lacking(&["nowhere", "other"])));

    other.restart().unwrap();
    let found = || (daemon.get("/readyz").ok()? == (503, lacking(&["nowhere"]))).then_some(());
    until("the other cluster is found", found).unwrap();
    landed("other", 300).unwrap();
    // A cluster that goes away later is waited for as well.
    other.kill();
    ticks.produce(200, &mut rng).unwrap();
    landed("ticks", 400).unwrap();
    other.restart().unwrap();
    other.produce("ticks.other", records(300..400, &mut rng)).unwrap();
    landed("other", 400).unwrap();
    drop(daemon);

    std::fs::remove_file(workspace.dir().join("pipelines/nowhere.yaml")).unwrap();
    ticks.settle(&workspace).unwrap();
    let rows = workspace.access().duckdb("t.other", "SELECT count(*), count(DISTINCT n) FROM t").unwrap();
    assert_eq!(rows, [[400, 400].map(serde_json::Value::from).to_vec()]);
}

#[test]
fn a_login_over_tls_reads_what_nobody_else_may() {
    let mut rng = seeded("a_login_over_tls");
    let dir = run_dir().join("secured-kafka");
    let kafka = Kafka::start_secured(&dir).unwrap();
    let (mut ticks, workspace) = Ticks::local("secured", &kafka, 1).unwrap();
    ticks.produce(50, &mut rng).unwrap();
    let plain = format!("    brokers: '{}'\n", kafka.brokers());
    let secured = |mechanism: &str, password: &str| {
        let (user, ca) = ("username: firn", dir.join("ca.pem").display().to_string());
        format!(
            "{plain}    security: {{protocol: saslSsl, mechanism: {mechanism}, {user}, password: {password}, caFile: {ca}}}\n"
        )
    };
    workspace.reconfigure(&plain, &secured("plain", "wrong")).unwrap();
    let refused = workspace.landing(&["check"]).unwrap().expect(&[2]).unwrap();
    assert!(refused.stderr.contains("Authentication failed"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wrong"), "a password is in the log: {}", refused.stderr);

    workspace.reconfigure(&secured("plain", "wrong"), &secured("plain", "secret")).unwrap();
    workspace.landing(&["check"]).unwrap().expect(&[0]).unwrap();
    ticks.settle(&workspace).unwrap();
    workspace.reconfigure(&secured("plain", "secret"), &secured("scramSha512", "secret")).unwrap();
    ticks.produce(50, &mut rng).unwrap();
    ticks.settle(&workspace).unwrap();
    let shown = workspace.landing(&["config", "show"]).unwrap().expect(&[0]).unwrap().stdout;
    assert!(shown.contains("scramSha512") && !shown.contains("secret"), "{shown}");
}
