//! From bytes to Parquet, each part's CPU time by itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use clap::ValueEnum;
use firn_shared::config::columns_after;
use firn_shared::config::domain::{Column, Output, S3Options, Step};
use firn_shared::functions::{self, Functions};
use firn_shared::ids::{ClusterName, EventHour, Generation, Offset, Partition, PartitionRef, RunId, Topic, TopicRef};
use firn_shared::raw::envelope::Envelope;
use firn_shared::raw::key::RawKey;
use firn_shared::store::Stores;
use iceberg::spec::TableMetadataBuilder;
use iceberg::{NamespaceIdent, TableIdent};
use serde::Serialize;

use super::lines::{each_line, part};
use super::{protect, spelled, tasks};
use crate::arrow_types::data_type;
use crate::decode::Decoder;
use crate::protect::{Buffers, Protector};
use crate::provenance::{self, Origin};
use crate::table::create::Definition;
use crate::table::schema::TableColumn;
use crate::transform::{Outcome, References, Transformer};
use crate::write::{DataWriter, OPEN_FILES_MAX, WriteSpec};

/// Files are closed at this many bytes, as a table's are by default.
const FILE_BYTES: u64 = 512 << 20;
/// What each thread's writer may hold, bytes.
const WRITER_MEMORY: u64 = 128 << 20;

/// A batch is encoded when it has this many rows, or the bytes of the options.
pub(super) const BATCH_ROWS: usize = 16_384;

/// How much of the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Read lines only.
    Read,
    /// Read and decode.
    Decode,
    /// Read, decode and encode.
    All,
}

/// How to convert.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to decode.
    pub columns: Vec<Column>,
    /// Where to stop.
    pub stage: Stage,
    /// Parts of the input worked on at once.
    pub threads: usize,
    /// Whether rows carry `_firn`.
    pub provenance: bool,
    /// Whether the steps of [`tasks::STEPS`] run over the columns.
    pub steps: bool,
    /// Columns that are protected.
    pub protect: Vec<String>,
    /// zstd level of the pages.
    pub level: i32,
    /// Bytes at which a batch is encoded.
    pub batch_bytes: usize,
    /// Directory of the table that the rows go to; needed to encode.
    pub to: Option<PathBuf>,
}

/// What a conversion did.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Figures {
    /// How far it went.
    pub stage: String,
    /// Records taken.
    pub rows: u64,
    /// Records refused.
    pub rejected: u64,
    /// The first refusals.
    pub refusals: Vec<String>,
    /// Payload bytes, without envelopes and line feeds.
    pub bytes_in: u64,
    /// Parquet bytes.
    pub bytes_out: u64,
    /// CPU seconds of reading (decompression and envelopes included) and decoding, all threads.
    pub decode_seconds: f64,
    /// CPU seconds of the steps, all threads.
    pub transform_seconds: f64,
    /// CPU seconds of protection, all threads.
    pub protect_seconds: f64,
    /// CPU seconds of Parquet, all threads.
    pub encode_seconds: f64,
}

/// Converts newline-delimited JSON, or every object of a raw zone, and answers the figures.
///
/// # Errors
/// Input that cannot be read, envelopes that are none, Parquet that cannot be written.
pub fn convert(from: &Path, options: &Options) -> Result<Figures> {
    let objects = if from.is_dir() { raw_objects(from)? } else { Vec::new() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut output = protect::output(&options.columns, &options.protect)?;
    output.transformations = steps(options)?;
    let protector = match &options.to {
        Some(to) if !options.protect.is_empty() => runtime.block_on(protect::protector(&output, to))?,
        _ => None,
    };
    let protector = protector.as_ref();
    let spec = if options.stage == Stage::All { Some(table(options, &output, runtime.handle())?) } else { None };
    let outcomes: Vec<Result<Figures>> = std::thread::scope(|scope| {
        let spawn = |i| {
            let (objects, spec) = (&objects, spec.as_ref());
            scope.spawn(move || run_part(from, objects, i, options, (spec, protector)))
        };
        let handles: Vec<_> = (0..options.threads).map(spawn).collect();
        handles.into_iter().map(|h| h.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    let mut all = Figures { stage: spelled(&options.stage), ..Figures::default() };
    for part in outcomes {
        let part = part?;
        all.rows += part.rows;
        all.rejected += part.rejected;
        all.refusals.extend(part.refusals);
        all.bytes_in += part.bytes_in;
        all.bytes_out += part.bytes_out;
        all.decode_seconds += part.decode_seconds;
        all.transform_seconds += part.transform_seconds;
        all.protect_seconds += part.protect_seconds;
        all.encode_seconds += part.encode_seconds;
    }
    all.refusals.truncate(3);
    Ok(all)
}

/// Data objects under a directory, in the order of their keys.
fn raw_objects(root: &Path) -> Result<Vec<(PathBuf, RawKey)>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Some(key) = path.strip_prefix(root)?.to_str().and_then(|k| RawKey::from_str(k).ok()) {
                found.push((path, key));
            }
        }
    }
    ensure!(!found.is_empty(), "{} holds no raw objects", root.display());
    found.sort_by_key(|(path, _)| path.clone());
    Ok(found)
}

/// A table of the columns, as a run would write it: unpartitioned, unsorted, local files.
fn table(options: &Options, output: &Output, runtime: &tokio::runtime::Handle) -> Result<WriteSpec> {
    let to = options.to.as_ref().context("encoding needs a directory for the files")?;
    std::fs::create_dir_all(to)?;
    let column = |c: Column| TableColumn { name: c.name, r#type: c.r#type, required: c.required, doc: c.doc };
    let mut columns: Vec<_> = columns_after(output).into_iter().map(column).collect();
    if options.provenance {
        columns.push(TableColumn::provenance());
    }
    let definition = Definition {
        ident: TableIdent::new(NamespaceIdent::new("bench".to_owned()), "table".to_owned()),
        location: format!("file://{}", to.canonicalize()?.display()),
        columns,
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: std::collections::BTreeMap::new(),
        needed: crate::protect::properties(output),
    };
    let table = TableMetadataBuilder::from_table_creation(definition.creation()?)?.build()?;
    Ok(WriteSpec {
        metadata: Arc::new(table.metadata),
        stores: Stores::new(S3Options::default()),
        runtime: runtime.clone(),
        run: RunId::new(),
        slice: String::new(),
        target_file_bytes: FILE_BYTES,
        memory: WRITER_MEMORY,
        open_files_max: OPEN_FILES_MAX,
        zstd_level: options.level,
    })
}

/// The steps, planned over the columns.
fn steps(options: &Options) -> Result<Vec<Step>> {
    let list = if options.steps { tasks::steps()? } else { Vec::new() };
    let list: Vec<(&str, serde_json::Value)> = list.iter().map(|(name, args)| (name.as_str(), args.clone())).collect();
    Ok(functions::steps(&Functions::built_in(), &options.columns, &list)?)
}

fn run_part(
    from: &Path,
    objects: &[(PathBuf, RawKey)],
    number: usize,
    options: &Options,
    (spec, protector): (Option<&WriteSpec>, Option<&Protector>),
) -> Result<Figures> {
    let spec = spec.map(|spec| WriteSpec { slice: number.to_string(), ..spec.clone() });
    let mut work = Part::new(options, spec, protector)?;
    if objects.is_empty() {
        work.enter(Origin { partition: plain_partition()?, hour: EventHour::from_epoch_hours(0) });
        let mut offset: Offset = 0;
        each_line(part(from, number, options.threads)?, |line| {
            offset += 1;
            work.payload(line, offset)
        })?;
    }
    for (path, key) in objects.iter().skip(number).step_by(options.threads) {
        work.enter(Origin { partition: key.partition.clone(), hour: key.hour });
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        each_line(zstd::Decoder::new(file)?, |line| {
            let envelope = Envelope::parse(line)?;
            match envelope.payload()? {
                Some(payload) => work.payload(&payload, envelope.offset),
                None => Ok(()),
            }
        })
        .with_context(|| format!("in {}", path.display()))?;
    }
    work.finish()
}

fn plain_partition() -> Result<PartitionRef> {
    let topic = TopicRef {
        cluster: ClusterName::new("bench")?,
        topic: Topic::new("bench")?,
        generation: Generation::default(),
    };
    Ok(PartitionRef { topic, partition: Partition(0) })
}

/// One thread's share.
struct Part<'a> {
    decoder: Decoder,
    transformer: Transformer,
    protector: Option<&'a Protector>,
    buffers: Buffers,
    writer: Option<DataWriter>,
    provenance: bool,
    decode: bool,
    batch_bytes: usize,
    origins: Vec<Origin>,
    positions: Vec<(u32, Offset)>,
    figures: Figures,
    clock: f64,
}

impl<'a> Part<'a> {
    fn new(options: &Options, spec: Option<WriteSpec>, protector: Option<&'a Protector>) -> Result<Self> {
        Ok(Self {
            decoder: Decoder::new(&options.columns)?,
            transformer: Transformer::new(&steps(options)?, &options.columns, &References::default())?,
            protector,
            buffers: Buffers::default(),
            writer: spec.map(DataWriter::new).transpose()?,
            provenance: options.provenance,
            decode: options.stage != Stage::Read,
            batch_bytes: options.batch_bytes,
            origins: Vec::new(),
            positions: Vec::new(),
            figures: Figures::default(),
            clock: thread_cpu_seconds()?,
        })
    }

    /// The payloads that follow come from here.
    fn enter(&mut self, origin: Origin) {
        self.origins.push(origin);
    }

    fn payload(&mut self, payload: &[u8], offset: Offset) -> Result<()> {
        self.figures.bytes_in += payload.len() as u64;
        if !self.decode {
            self.figures.rows += 1;
            return Ok(());
        }
        match self.decoder.push(payload) {
            Ok(()) => self.figures.rows += 1,
            Err(rejected) => {
                self.figures.rejected += 1;
                if self.figures.refusals.len() < 3 {
                    self.figures.refusals.push(rejected.to_string());
                }
                return Ok(());
            }
        }
        if self.provenance {
            self.positions.push((self.origins.len() as u32 - 1, offset));
        }
        if self.decoder.rows() >= BATCH_ROWS || self.decoder.bytes() >= self.batch_bytes {
            self.batch()?;
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<()> {
        let batch = self.decoder.finish()?;
        self.figures.decode_seconds += self.lap()?;
        let Outcome { mut batch, rows, rejected, .. } = self.transformer.apply(batch)?;
        self.figures.rejected += rejected.len() as u64;
        self.figures.transform_seconds += self.lap()?;
        if let Some(protector) = self.protector {
            batch = protector.apply(batch, &mut self.buffers)?;
            self.figures.protect_seconds += self.lap()?;
        }
        if self.provenance {
            if let Some(rows) = rows {
                self.positions = rows.iter().map(|row| self.positions[*row as usize]).collect();
            }
            let column = provenance::column(&self.origins, &self.positions)?;
            let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(provenance::COLUMN, data_type(&provenance::logical_type()), false)));
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(column));
            batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
            self.positions.clear();
            self.origins.drain(..self.origins.len() - 1);
        }
        self.figures.decode_seconds += self.lap()?;
        if let Some(writer) = &mut self.writer {
            writer.write(&batch)?;
            self.figures.encode_seconds += self.lap()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Figures> {
        self.batch()?;
        if let Some(writer) = self.writer.take() {
            self.figures.bytes_out = writer.finish()?.iter().map(|f| f.file.file_size_in_bytes()).sum();
            self.figures.encode_seconds += self.lap()?;
        }
        Ok(self.figures)
    }

    fn lap(&mut self) -> Result<f64> {
        let now = thread_cpu_seconds()?;
        Ok(now - std::mem::replace(&mut self.clock, now))
    }
}

/// CPU time of this thread as Linux accounts it.
pub(super) fn thread_cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("cannot read this thread's CPU time")?;
    let nanos = text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
    Ok(nanos.context("/proc/thread-self/schedstat is not as expected")? as f64 / 1e9)
}
