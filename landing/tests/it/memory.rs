//! The bound on buffers, with more partitions, hours and bytes than fit.

use firn_landing::memory::Shares;

use crate::support::{Kafka, assert_all, config, event, land, landed, raw_zone};

#[tokio::test(flavor = "multi_thread")]
async fn buffers_stay_under_the_bound_whatever_the_partitions_and_hours() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start("t", 12);
    // 40 MB of noise, into 12 partitions and 192 hours: 2,304 objects open at once if nothing gave way.
    let produced: Vec<_> = (0..20_000_usize)
        .map(|n| {
            let (day, hour) = (1 + n / 24 % 8, n % 24);
            let noise: String =
                (0..125).map(|i| blake3::hash(&[n, i].map(|x| x as u8)).to_hex()[..16].to_owned()).collect();
            event(
                (n * 7 % 12) as i32,
                format!("{{\"at\":\"2026-11-{day:02}T{hour:02}:00:00Z\",\"n\":{n},\"pad\":\"{noise}\"}}"),
            )
        })
        .collect();
    kafka.produce("t", &produced);
    let mut config = config(dir.path(), &kafka.brokers(), "t", "", "{size: 1GiB, age: 1h}");
    config.deployment.landing.memory = 64 << 20;
    let store = raw_zone(dir.path());

    let summary = land(&config, store.clone()).await.unwrap();
    assert_all(&landed(&store, "t", 12).await, &produced);
    let (peak, bound) = (summary.buffer_bytes_peak, Shares::of(64 << 20, 2).unwrap().buffers);
    assert!(peak <= bound, "{peak} bytes buffered, {bound} are allowed");
    assert!(summary.pipelines["p"].batches > 12, "memory closed batches early");
}
