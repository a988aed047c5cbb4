//! `pipelines/*.yaml` to a [`Pipeline`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::columns::check_names;
use super::{File, protect, table};
use crate::config::domain::{
    EventTime, Ingestion, JsonPath, LateThen, Output, PayloadFormat, Pipeline, Step, TimeFormat, TopicSelector,
    WhitelistEntry,
};
use crate::config::shape::join;
use crate::config::units::{ByteSize, Period};
use crate::config::wire::{
    EventTimeYaml, GenerationYaml, IncomingYaml, IngestionYaml, KafkaYaml, LateThenYaml, LateYaml, ModeYaml,
    OutputYaml, PayloadFormatYaml, PipelineYaml, ProtectAt, RotateYaml, StepYaml, TopicYaml,
};
use crate::cursor::did_you_mean;
use crate::functions::rows::OTHER_EVENT;
use crate::functions::{Args, Columns, Function, Functions, Shape};
use crate::ids::{ClusterName, Generation, Generations, PipelineName, Topic};

const LATE_ALLOWED: Period = Period(Duration::from_hours(1));
const RECORD_SIZE_MAX: ByteSize = ByteSize(16 << 20);
const ROTATE_SIZE: ByteSize = ByteSize(128_000_000);
const ROTATE_AGE: Period = Period(Duration::from_mins(5));
const KAFKA_TIMESTAMP: &str = "kafkaTimestamp";

/// Names in `firn.yaml` that pipelines refer to, `None` when they are not known; and the functions that steps call.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Known<'a> {
    /// Clusters.
    pub(in crate::config) clusters: Option<&'a [String]>,
    /// Keys for personal data.
    pub(in crate::config) keys: Option<&'a [String]>,
    /// Functions.
    pub(in crate::config) functions: &'a Functions,
}

/// The pipeline, if all of it could be built.
pub(in crate::config) fn pipeline(file: &File, yaml: &PipelineYaml, known: Known<'_>) -> Option<Pipeline> {
    let name = yaml.name.clone().and_then(|name| file.take("name", PipelineName::new(name)));
    let ingestion = yaml.ingestion_unit.as_ref().and_then(|yaml| ingestion(file, yaml, known.clusters));
    let incoming = yaml.ingestion_unit.as_ref().and_then(|yaml| yaml.incoming_data.as_ref());
    let format = incoming.and_then(|yaml| yaml.format).map(payload_format);
    for i in 0..yaml.streams.as_ref().map_or(0, Vec::len) {
        file.unsupported(&format!("streams[{i}]"), "streams");
    }
    let mut outputs = Vec::new();
    let mut whole = true;
    for (i, yaml) in yaml.outsourcing_unit.iter().flatten().enumerate() {
        let output = yaml
            .as_ref()
            .and_then(|yaml| output(file, &format!("outsourcingUnit[{i}]"), yaml, (ingestion.as_ref(), format), known));
        whole &= output.is_some();
        outputs.extend(output.map(|output| (format!("outsourcingUnit[{i}].table"), output)));
    }
    if let (true, Some(ingestion)) = (whole, &ingestion) {
        protect::check_landing(file, ingestion, &outputs);
    }
    // What landing protects is plain nowhere.
    if !ingestion.as_ref().is_some_and(|ingestion| ingestion.protect_at_landing)
        && whole
        && outputs.iter().zip(yaml.outsourcing_unit.iter().flatten().flatten()).all(is_planned)
    {
        protect::check_neighbours(file, &outputs);
    }
    let outputs = outputs.into_iter().map(|(_, output)| output).collect();
    let pipeline = Pipeline { name: name?, file: file.path.clone(), ingestion: ingestion?, outputs };
    whole.then_some(pipeline)
}

/// Whether every step of an output is known here, so that its columns can be followed.
fn is_planned(((_, output), yaml): (&(String, Output), &OutputYaml)) -> bool {
    output.transformations.len() == yaml.transformations.as_ref().map_or(0, Vec::len)
}

fn ingestion(file: &File, yaml: &IngestionYaml, clusters: Option<&[String]>) -> Option<Ingestion> {
    let rotate = yaml.raw.as_ref().and_then(|raw| raw.rotate.clone()).unwrap_or_default();
    let (rotate_size, rotate_age) = self::rotate(file, &rotate);
    let kafka = yaml.kafka.as_ref().map(|yaml| kafka(file, yaml, clusters));
    let incoming = yaml.incoming_data.as_ref().map(|yaml| incoming(file, yaml));
    let (cluster, topics, retention, consumers, generation) = kafka?;
    let incoming = incoming?;
    Some(Ingestion {
        cluster: cluster?,
        topics: topics?,
        retention: retention?,
        consumers,
        generation: generation?,
        format: incoming.format,
        event_name: incoming.event_name?,
        event_time: incoming.event_time?,
        whitelist: incoming.whitelist,
        late_allowed: incoming.late_allowed?,
        late_then: incoming.late_then,
        max_record_bytes: incoming.max_record_bytes?,
        rotate_size: rotate_size?,
        rotate_age: rotate_age?,
        protect_at_landing: yaml.protect_at == Some(ProtectAt::Landing),
    })
}

fn rotate(file: &File, yaml: &RotateYaml) -> (Option<u64>, Option<Duration>) {
    let (size_path, age_path) = ("ingestionUnit.raw.rotate.size", "ingestionUnit.raw.rotate.age");
    let size = file.parse_or(size_path, yaml.size.as_ref(), ROTATE_SIZE);
    let age = file.parse_or(age_path, yaml.age.as_ref(), ROTATE_AGE);
    if size == Some(ByteSize(0)) {
        file.report(size_path, "must be above 0");
    }
    if age.is_some_and(|age| age.0.is_zero()) {
        file.report(age_path, "must be above 0");
    }
    (size.map(|size| size.0), age.map(|age| age.0))
}

#[allow(clippy::option_option, reason = "`None` outside is a reported mistake, inside it is `not given`")]
type Kafka = (Option<ClusterName>, Option<TopicSelector>, Option<Option<Duration>>, usize, Option<Generations>);

fn kafka(file: &File, yaml: &KafkaYaml, clusters: Option<&[String]>) -> Kafka {
    let at = |key: &str| format!("ingestionUnit.kafka.{key}");
    if let (Some(name), Some(clusters)) = (&yaml.cluster, clusters)
        && !clusters.contains(name)
    {
        let known = clusters.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let hint = did_you_mean(name, clusters.iter().map(String::as_str));
        file.report(&at("cluster"), format!("no cluster `{name}` in firn.yaml, which has {known}{hint}"));
    }
    let cluster = file.parse(&at("cluster"), yaml.cluster.as_ref());
    let topics = yaml.topic.as_ref().and_then(|yaml| topics(file, &at("topic"), yaml));
    let retention = match &yaml.retention {
        Some(text) => file.take(&at("retention"), text.parse::<Period>()).map(|period| Some(period.0)),
        None => Some(None),
    };
    let generation = generations(file, &at("generation"), yaml.generation.as_ref(), topics.as_ref());
    (cluster, topics, retention, yaml.number_of_consumers.unwrap_or(1) as usize, generation)
}

/// The incarnation of each topic. A number that also counted for topics that were not made again would land and convert
/// them a second time.
fn generations(
    file: &File,
    path: &str,
    yaml: Option<&GenerationYaml>,
    topics: Option<&TopicSelector>,
) -> Option<Generations> {
    let each = match (yaml, topics?) {
        (None, _) => return Some(Generations::default()),
        (Some(GenerationYaml::One(number)), TopicSelector::List(list)) if list.len() == 1 => {
            return Some([(list[0].clone(), Generation(number.get()))].into_iter().collect());
        }
        (Some(GenerationYaml::One(number)), _) if number.get() == 1 => return Some(Generations::default()),
        (Some(GenerationYaml::One(number)), _) => {
            let message = "is of one topic, and the pipeline reads several; write it for the one that was made again";
            file.report(path, format!("{message}: `{{TOPIC: {number}}}`"));
            return None;
        }
        (Some(GenerationYaml::Each(each)), _) => each,
    };
    let of = |(name, number): (&String, &std::num::NonZeroU32)| {
        let path = join(path, name);
        let topic = file.take(&path, Topic::new(name.clone()))?;
        if !topics.is_some_and(|topics| is_read(topics, &topic)) {
            let listed = match topics {
                Some(TopicSelector::List(list)) => list.as_slice(),
                _ => &[],
            };
            let hint = did_you_mean(name, listed.iter().map(Topic::as_str));
            file.report(&path, format!("the pipeline reads no topic `{name}`{hint}"));
            return None;
        }
        Some((topic, Generation(number.get())))
    };
    // All of them are looked at, whatever is wrong with one.
    each.iter().map(of).collect::<Vec<_>>().into_iter().collect()
}

/// Whether a pipeline reads a topic.
fn is_read(topics: &TopicSelector, topic: &Topic) -> bool {
    match topics {
        TopicSelector::List(list) => list.contains(topic),
        TopicSelector::Pattern(pattern) => {
            regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(topic.as_str()))
        }
    }
}

fn topics(file: &File, path: &str, yaml: &TopicYaml) -> Option<TopicSelector> {
    match yaml {
        TopicYaml::One(text) => Some(TopicSelector::List(vec![file.take(path, Topic::new(text.clone()))?])),
        TopicYaml::Many(texts) => {
            if texts.is_empty() {
                file.report(path, "must not be empty");
            }
            let mut out: Vec<Topic> = Vec::new();
            for (i, text) in texts.iter().enumerate() {
                let path = format!("{path}[{i}]");
                let Some(topic) = file.take(&path, Topic::new(text.clone())) else { continue };
                if out.contains(&topic) {
                    file.report(&path, format!("topic `{topic}` comes twice"));
                }
                out.push(topic);
            }
            (out.len() == texts.len()).then_some(TopicSelector::List(out))
        }
        TopicYaml::Pattern(yaml) => {
            let pattern = yaml.regex.as_ref()?;
            if let Err(error) = regex::Regex::new(pattern) {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                file.report(&format!("{path}.regex"), format!("`{pattern}` is not a regular expression: {reason}"));
                return None;
            }
            Some(TopicSelector::Pattern(pattern.clone()))
        }
    }
}

#[allow(clippy::option_option, reason = "`None` outside is a reported mistake, inside it is `not given`")]
struct Incoming {
    format: PayloadFormat,
    event_name: Option<Option<JsonPath>>,
    event_time: Option<EventTime>,
    whitelist: Option<BTreeMap<String, WhitelistEntry>>,
    late_allowed: Option<Duration>,
    late_then: LateThen,
    max_record_bytes: Option<u64>,
}

fn incoming(file: &File, yaml: &IncomingYaml) -> Incoming {
    let at = |key: &str| format!("ingestionUnit.incomingData.{key}");
    match yaml.format {
        Some(PayloadFormatYaml::Avro) => file.unsupported(&at("format"), "format `avro`; use `json`"),
        Some(PayloadFormatYaml::Protobuf) => file.unsupported(&at("format"), "format `protobuf`; use `json`"),
        Some(PayloadFormatYaml::Json | PayloadFormatYaml::Debezium | PayloadFormatYaml::Dynamodb) | None => {}
    }
    let event_name = match &yaml.event_name {
        Some(text) => file.take(&at("eventName"), text.parse()).map(Some),
        None => Some(None),
    };
    if let Some(whitelist) = &yaml.whitelist {
        if yaml.event_name.is_none() && !file.is_cut(&at("eventName")) {
            file.report(&at("whitelist"), "needs `eventName`, the place of the event's name");
        }
        for (event, entry) in whitelist {
            let subject = entry.as_ref().and_then(|entry| entry.subject.as_ref());
            file.refuse(
                subject,
                &format!("{}.subject", join(&at("whitelist"), event)),
                "checking against a schema registry",
            );
        }
    }
    let whitelist = yaml.whitelist.as_ref().map(|whitelist| {
        let entry = |(event, _): (&String, _)| (event.clone(), WhitelistEntry::default());
        whitelist.iter().map(entry).collect()
    });
    let late = yaml.late.clone().unwrap_or_default();
    let (late_allowed, late_then) = self::late(file, &at("late"), &late);
    let record = file.parse_or(&at("maxRecordSize"), yaml.max_record_size.as_ref(), RECORD_SIZE_MAX);
    if record == Some(ByteSize(0)) {
        file.report(&at("maxRecordSize"), "must be above 0");
    }
    Incoming {
        format: yaml.format.map(payload_format).unwrap_or_default(),
        event_name,
        event_time: yaml.event_time.as_ref().and_then(|yaml| event_time(file, &at("eventTime"), yaml)),
        whitelist,
        late_allowed,
        late_then,
        max_record_bytes: record.map(|size| size.0),
    }
}

fn late(file: &File, path: &str, yaml: &LateYaml) -> (Option<Duration>, LateThen) {
    let then = match yaml.then {
        Some(LateThenYaml::Quarantine) => LateThen::Quarantine,
        Some(LateThenYaml::SideTable) => {
            file.unsupported(&format!("{path}.then"), "`sideTable`; use `accept` or `quarantine`");
            LateThen::default()
        }
        Some(LateThenYaml::Accept) => LateThen::Accept,
        None => LateThen::default(),
    };
    let allowed = file.parse_or(&format!("{path}.allowed"), yaml.allowed.as_ref(), LATE_ALLOWED);
    (allowed.map(|period| period.0), then)
}

fn event_time(file: &File, path: &str, yaml: &EventTimeYaml) -> Option<EventTime> {
    match yaml {
        EventTimeYaml::Word(word) if word == KAFKA_TIMESTAMP => Some(EventTime::KafkaTimestamp),
        EventTimeYaml::Word(word) => {
            let hint = did_you_mean(word, [KAFKA_TIMESTAMP]);
            file.report(path, format!("`{word}` is neither `{KAFKA_TIMESTAMP}` nor `{{path, format}}`{hint}"));
            None
        }
        EventTimeYaml::Field(yaml) if yaml.format.as_deref() == Some(KAFKA_TIMESTAMP) => {
            if yaml.path.is_some() {
                file.report(&format!("{path}.path"), "the Kafka timestamp is not in the payload; leave the path out");
            }
            Some(EventTime::KafkaTimestamp)
        }
        EventTimeYaml::Field(yaml) => {
            let format: Option<TimeFormat> = file.parse(&format!("{path}.format"), yaml.format.as_ref());
            let field = format!("{path}.path");
            if yaml.path.is_none() && !file.is_cut(&field) {
                file.report(&field, "missing");
            }
            Some(EventTime::Field { path: file.parse(&field, yaml.path.as_ref())?, format: format? })
        }
    }
}

fn payload_format(yaml: PayloadFormatYaml) -> PayloadFormat {
    match yaml {
        PayloadFormatYaml::Debezium => PayloadFormat::Debezium,
        PayloadFormatYaml::Dynamodb => PayloadFormat::Dynamodb,
        PayloadFormatYaml::Json | PayloadFormatYaml::Avro | PayloadFormatYaml::Protobuf => PayloadFormat::Json,
    }
}

fn output(
    file: &File,
    path: &str,
    yaml: &OutputYaml,
    (ingestion, format): (Option<&Ingestion>, Option<PayloadFormat>),
    known: Known<'_>,
) -> Option<Output> {
    if let (Some(events), Some(ingestion)) = (&yaml.events, ingestion) {
        table::check_events(file, &format!("{path}.events"), events, ingestion);
    }
    if yaml.events.as_ref().is_some_and(Vec::is_empty) {
        file.report(&format!("{path}.events"), "must not be empty; leave it out for all events");
    }
    let table_yaml = yaml.table.as_ref()?;
    let table_path = format!("{path}.table");
    let (mut columns, decoded) = table::columns(file, &table_path, table_yaml);
    table::add_change_columns(&mut columns, &table_path, table_yaml, format.unwrap_or_default());
    let mut steps = Vec::new();
    columns.incomplete |= file.is_cut(&format!("{path}.transformations"));
    for (i, step) in yaml.transformations.iter().flatten().enumerate() {
        let path = format!("{path}.transformations[{i}]");
        let Some(yaml) = step else {
            columns.incomplete = true;
            continue;
        };
        steps.extend(self::step(file, &path, yaml, &mut columns, known.functions));
    }
    let planned = steps.len() == yaml.transformations.as_ref().map_or(0, Vec::len);
    let upsert = table_yaml.mode == Some(ModeYaml::Upsert);
    refuse_steps(file, path, yaml, (upsert, format.is_some_and(PayloadFormat::is_change)), known.functions);
    let plain: Vec<String> = columns.iter().map(|tracked| tracked.column.name.clone()).collect();
    let protections = protect::protections(file, &table_path, table_yaml, &mut columns, known.keys);
    check_names(&columns, file);
    let table = table::table(file, &table_path, table_yaml, (decoded, protections), (&columns, format))?;
    let output =
        Output { format: format.unwrap_or_default(), events: yaml.events.clone(), table, transformations: steps };
    if planned && !columns.incomplete {
        protect::check_copies(file, &table_path, &output, &plain);
    } else if known.functions.is_open()
        && ingestion.is_some_and(|ingestion| ingestion.protect_at_landing)
        && !output.table.protections.is_empty()
    {
        let message = "landing cannot follow protected columns through steps that only another program knows";
        file.report(&format!("{path}.transformations"), format!("{message}; use `protectAt: conversion`"));
    }
    if let Some(ingestion) = ingestion
        && !output.table.provenance
        && planned
        && !columns.incomplete
        && table::event_hour_partition(ingestion, &output).is_none()
    {
        let message = "without provenance, `reprocess` needs the table partitioned by `hour(…)` of the event time's column; \
                       partition it so, or keep provenance";
        file.report(&format!("{table_path}.provenance"), message);
    }
    Some(output)
}

/// Reports steps that do not go with the mode of the table, or with change events.
fn refuse_steps(file: &File, path: &str, yaml: &OutputYaml, (upsert, changes): (bool, bool), functions: &Functions) {
    for (i, step) in yaml.transformations.iter().flatten().enumerate() {
        let Some(name) = step.as_ref().and_then(|step| step.0.keys().next()) else { continue };
        let Some(function) = functions.get(name) else { continue };
        let several = matches!(function.shape, Shape::Explode(_));
        let at = format!("{path}.transformations[{i}].{name}");
        if several && (upsert || changes) {
            let what = if upsert { "a table of mode `upsert`" } else { "change events" };
            file.report(&at, format!(
                "does not go with {what}: when a record is replaced by one with fewer elements, the rows of the others would stay"
            ));
        }
        if *function == crate::functions::rows::DEDUP && (upsert || changes) {
            file.report(&at, "does not go with mode `upsert` or change events, where versions decide which row stays");
        }
    }
}

/// A step as planned over `columns`, which change as it says; `None` after a report, or for a function that only
/// another program knows.
fn step(file: &File, path: &str, yaml: &StepYaml, columns: &mut Columns, functions: &Functions) -> Option<Step> {
    let (name, given) = yaml.0.iter().next()?;
    let inner = join(path, name);
    let Some(function) = functions.get(name) else {
        columns.incomplete = true;
        if !functions.passes(name) {
            let own = functions.iter().map(|function| function.name).filter(|name| Function::is_own(name));
            let hint = did_you_mean(name, own);
            file.report(
                &inner,
                format!("no function `{name}` in this program; is its crate or plug-in missing?{hint}"),
            );
        }
        return None;
    };
    let args = Args::read(function, given, &mut |arg, message| {
        if !file.is_cut(&format!("{inner}.{arg}")) {
            file.report(&format!("{inner}.{arg}"), message);
        }
    });
    let Some(args) = args else {
        columns.incomplete = true;
        return None;
    };
    if matches!(function.shape, Shape::Keep(_)) && args.opt_text("name") == Some(OTHER_EVENT) {
        let message = "records of events that go to other tables are counted under this name; give the step another";
        file.report(&format!("{inner}.name"), message);
    }
    let plan = columns.apply(function, &args, &inner, &mut |path, message| file.report(path, message))?;
    Some(Step { at: file.place(path), places: file.places(&inner), function, args, plan })
}
