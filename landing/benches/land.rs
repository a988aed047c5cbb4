//! Landing from a Kafka to local files, beside the parts it is made of, in one run.
//!
//! ```text
//! localstack/kafka/start --dir /tmp/kafka --port 19092 &
//! cargo bench -p firn-landing --bench land -- --brokers 127.0.0.1:19092 --events events.ndjson --mb 500
//! ```
//! Figures are MB (10^6 bytes) of payload per CPU second of this process, all threads and librdkafka's counted. `parts`
//! is what consuming, then validating and writing lines, then compressing would reach one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use firn_landing::memory::Shares;
use firn_landing::{Options, compress, kafka, run};
use firn_shared::config;
use firn_shared::ids::{Partition, Topic};
use firn_shared::raw::admit::{Admission, Verdict};
use firn_shared::raw::envelope::{LineWriter, Record};
use firn_shared::store::LocalStore;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

#[derive(Parser)]
struct Cli {
    /// The broker.
    #[arg(long)]
    brokers: String,
    /// Events, newline-delimited JSON with a `created_at`; repeated up to the size wanted.
    #[arg(long)]
    events: PathBuf,
    /// Megabytes to produce.
    #[arg(long, default_value_t = 500)]
    mb: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Bound of landing's memory, MiB.
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// Cargo passes this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// CPU seconds of this process so far.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// Largest resident size so far, MiB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse::<u64>()? / 1024)
}

/// Runs `work` and prints MB per CPU second and wall-clock second; returns the former.
fn measure(what: &str, bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (cpu_before, begun) = (cpu()?, Instant::now());
    work()?;
    let (cpu, wall) = ((cpu()? - cpu_before).max(0.01), begun.elapsed().as_secs_f64());
    let mb = bytes as f64 / 1e6;
    println!(
        "{what:<28} {:>7.0} MB/CPU-s {:>7.0} MB/s   cpu {cpu:.2} s  wall {wall:.2} s  peak {} MiB",
        mb / cpu,
        mb / wall,
        peak()?
    );
    Ok(mb / cpu)
}

async fn fill(cli: &Cli, topic: &str, lines: &[&[u8]]) -> Result<(u64, u64)> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &cli.brokers).create()?;
    let new = NewTopic::new(topic, cli.partitions, TopicReplication::Fixed(1));
    for made in admin.create_topics(&[new], &AdminOptions::new()).await? {
        made.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &cli.brokers)
        .set("compression.type", "lz4")
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .create()?;
    let (mut bytes, mut records) = (0, 0_u64);
    for line in lines.iter().cycle() {
        if bytes >= cli.mb * 1_000_000 {
            break;
        }
        let partition = (records % cli.partitions as u64) as i32;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(line);
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = back;
        }
        bytes += line.len() as u64;
        records += 1;
    }
    producer.flush(Duration::from_mins(2))?;
    Ok((bytes, records))
}

/// Consumes every record and looks at none.
fn consume(cli: &Cli, topic: &str, records: u64) -> Result<()> {
    let shares = Shares::of(cli.memory << 20, 1)?;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &cli.brokers);
    kafka::member(&mut client, "bench", &shares);
    let consumer: BaseConsumer = client.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..cli.partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut seen, mut bytes) = (0, 0);
    while seen < records {
        if let Some(message) = consumer.poll(Duration::from_secs(30)) {
            let message = message?;
            bytes += message.payload_len();
            seen += 1;
        }
    }
    ensure!(bytes > 0, "nothing was consumed");
    Ok(())
}

fn main() -> Result<()> {
    firn_shared::allocator::bound();
    let cli = Cli::parse();
    let text = std::fs::read(&cli.events)?;
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    let topic = format!("bench.{}", uuid::Uuid::new_v4().simple());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (bytes, records) = runtime.block_on(fill(&cli, &topic, &lines))?;
    println!(
        "{records} records, {} MB, {} bytes each, {} partitions",
        bytes / 1_000_000,
        bytes / records,
        cli.partitions
    );

    let dir = tempfile::tempdir()?;
    let config = deployment(&cli, &topic, dir.path())?;
    let consumed = measure("consume, bare librdkafka", bytes, || consume(&cli, &topic, records))?;

    let admission = Admission::of(&config.pipelines.values().next().context("one pipeline")?.ingestion)?;
    let sample: Vec<&[u8]> = lines.iter().copied().cycle().take(20_000).collect();
    let sample_bytes = sample.iter().map(|line| line.len() as u64).sum();
    let mut frames = Vec::new();
    let validated =
        measure("validate, write lines", sample_bytes, || validate(&admission, &topic, &sample, &mut frames))?;
    let compressed = measure("compress", sample_bytes, || {
        frames.iter().try_for_each(|frame| compress::frame(frame).map(drop)).map_err(Into::into)
    })?;
    drop(frames);
    let parts = 1.0 / (1.0 / consumed + 1.0 / validated + 1.0 / compressed);

    let store = Arc::new(LocalStore::new(dir.path().join("raw"))?);
    let mut buffered = 0;
    let landed = measure("landing, to local files", bytes, || {
        let options = Options { until_caught_up: true, ..Options::default() };
        let summary = runtime.block_on(run(&config, store, options, std::future::pending()))?;
        buffered = summary.buffer_bytes_peak;
        ensure!(summary.pipelines.values().all(|p| p.records == records), "not every record landed: {summary:?}");
        Ok(())
    })?;
    println!("parts one after the other    {parts:>7.0} MB/CPU-s");
    println!("landing / parts              {:>7.2}", landed / parts);
    println!("buffers at most              {:>7} MiB of {} MiB for everything", buffered >> 20, cli.memory);
    Ok(())
}

fn validate(admission: &Admission, topic: &str, sample: &[&[u8]], frames: &mut Vec<Vec<u8>>) -> Result<()> {
    let writer = LineWriter::new(&Topic::new(topic)?, Partition(0));
    let mut frame = Vec::with_capacity(1 << 21);
    for (offset, payload) in sample.iter().enumerate() {
        let Verdict::Admitted { event, .. } = admission.judge(Some(payload), Some(0), None) else {
            anyhow::bail!("line {offset} of the sample is refused");
        };
        let record = Record { offset: offset as u64, timestamp: Some(0), key: None, headers: std::iter::empty() };
        writer.record(&mut frame, record, event.as_deref(), Some(payload));
        if frame.len() >= 1 << 20 {
            frames.push(std::mem::replace(&mut frame, Vec::with_capacity(1 << 21)));
        }
    }
    frames.push(frame);
    Ok(())
}

fn deployment(cli: &Cli, topic: &str, dir: &Path) -> Result<config::Config> {
    let firn = format!(
        "clusters: {{c: {{brokers: '{}'}}}}\nraw: file://{1}/raw\nwarehouse: file://{1}/tables\n\
         catalog: {{sqlite: {{path: {1}/catalog.db, name: c}}}}\nlanding: {{memory: {2}MiB}}\n",
        cli.brokers,
        dir.display(),
        cli.memory
    );
    let pipeline = format!(
        "name: bench\ningestionUnit:\n  kafka: {{cluster: c, topic: {topic}}}\n  incomingData:\n    format: json\n    \
         eventName: $.type\n    eventTime: {{path: $.created_at, format: rfc3339}}\n  raw: {{rotate: {{size: 128MB, age: 5m}}}}\n\
         outsourcingUnit:\n  - table: {{database: d, tableName: t, columns: [{{name: id, type: string}}]}}\n"
    );
    std::fs::write(dir.join("firn.yaml"), firn)?;
    std::fs::write(dir.join("bench.yaml"), pipeline)?;
    config::load(&dir.join("firn.yaml"), &[dir.join("bench.yaml")]).map_err(|problems| anyhow::anyhow!("{problems}"))
}
