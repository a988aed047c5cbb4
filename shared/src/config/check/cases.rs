//! `*.test.yaml` to a [`TestFile`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};

use super::File;
use crate::config::cases::{
    Batch, Case, Event, Expect, Expected, LookupFile, Mistake, Named, Pattern, Place, Sample, TableExpect, TestFile,
    Tree,
};
use crate::config::load::TEST_SUFFIXES;
use crate::config::shape::join;
use crate::config::wire::{
    BatchYaml, CaseYaml, EventYaml, ExpectYaml, LinesYaml, QuarantinedYaml, RejectedYaml, SampleYaml, TableExpectYaml,
    TestFileYaml,
};
use crate::ids::Topic;

/// 2026-01-01T00:00:00Z: the time of everything that gives none.
const DEFAULT_TIME: DateTime<Utc> = match DateTime::from_timestamp(1_767_225_600, 0) {
    Some(time) => time,
    None => DateTime::UNIX_EPOCH,
};

/// The file's tests, if all of them could be built.
pub(in crate::config) fn tests(file: &File, yaml: &TestFileYaml) -> Option<TestFile> {
    let timestamp = time(file, "timestamp", yaml.timestamp.as_ref());
    let now = time(file, "now", yaml.now.as_ref());
    let (mut cases, mut whole) = (Vec::<Case>::new(), true);
    for (i, yaml) in yaml.cases.iter().flatten().enumerate() {
        let path = format!("cases[{i}]");
        let case = yaml.as_ref().and_then(|yaml| case(file, &path, yaml, timestamp?.timestamp_millis()));
        whole &= case.is_some();
        let Some(case) = case else { continue };
        if case.name.trim().is_empty() {
            file.report(&format!("{path}.name"), "must not be empty");
        }
        if let Some(twin) = cases.iter().find(|other| other.name == case.name) {
            file.report(
                &format!("{path}.name"),
                format!("case `{}` is there already, at line {}", case.name, twin.at.line),
            );
        }
        cases.push(case);
    }
    let pipeline = pipeline(file, yaml.pipeline.as_ref())?;
    let (path, timestamp) = (file.path.clone(), timestamp?.timestamp_millis());
    let lookups = yaml.lookups.iter().flatten().map(|(named, path)| lookup(file, named, path)).collect();
    whole.then_some(TestFile { path, pipeline, now: now?, timestamp, lookups, cases })
}

fn lookup(file: &File, named: &str, path: &str) -> LookupFile {
    LookupFile { at: place(file, &join("lookups", named)), named: named.to_owned(), path: file.folder().join(path) }
}

/// The pipeline that is named, or the one with the file's own name.
fn pipeline(file: &File, named: Option<&String>) -> Option<PathBuf> {
    if let Some(name) = named {
        return Some(file.folder().join(name));
    }
    let name = file.path.file_name()?.to_str()?;
    let found =
        TEST_SUFFIXES.iter().find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix.strip_prefix(".test")?)));
    let Some((stem, extension)) = found else {
        file.report("pipeline", "missing: only a file that ends in `.test.yaml` has a pipeline of its own name");
        return None;
    };
    Some(file.folder().join(format!("{stem}{extension}")))
}

fn time(file: &File, path: &str, text: Option<&String>) -> Option<DateTime<Utc>> {
    let Some(text) = text else { return Some(DEFAULT_TIME) };
    let read = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    read.map_err(|_| file.report(path, format!("`{text}` is no time such as `2026-01-01T00:00:00Z`"))).ok()
}

fn place(file: &File, path: &str) -> Place {
    let at = file.position(path);
    Place { line: at.line, column: at.column }
}

fn case(file: &File, path: &str, yaml: &CaseYaml, timestamp: i64) -> Option<Case> {
    let runs = match &yaml.runs {
        None => batch(file, path, (yaml.events.as_deref(), yaml.file.as_ref()), timestamp).map(|batch| vec![batch]),
        Some(_) if yaml.events.is_some() || yaml.file.is_some() => {
            file.report(&format!("{path}.runs"), "stands in place of `events` and `file`; keep one");
            None
        }
        Some(list) => {
            let run = |(i, yaml): (usize, &Option<BatchYaml>)| {
                let yaml = yaml.as_ref()?;
                batch(file, &format!("{path}.runs[{i}]"), (yaml.events.as_deref(), yaml.file.as_ref()), timestamp)
            };
            list.iter().enumerate().map(run).collect()
        }
    };
    let expect = match &yaml.expect {
        Some(yaml) => Some(expect(file, &format!("{path}.expect"), yaml)?),
        None => None,
    };
    Some(Case { name: yaml.name.clone()?, at: place(file, path), runs: runs?, expect })
}

type Events<'a> = Option<&'a [Option<EventYaml>]>;

fn batch(
    file: &File,
    path: &str,
    (events, sample): (Events<'_>, Option<&SampleYaml>),
    timestamp: i64,
) -> Option<Batch> {
    if events.is_none() && sample.is_none() && !file.is_cut(&format!("{path}.events")) {
        file.report(path, "has neither `events` nor a `file` of them; an empty list is written `events: []`");
        return None;
    }
    let read =
        |(i, yaml): (usize, &Option<EventYaml>)| event(file, &format!("{path}.events[{i}]"), yaml.as_ref()?, timestamp);
    let events = events.unwrap_or_default().iter().enumerate().map(read).collect::<Vec<_>>();
    let sample = match sample {
        Some(yaml) => Some(Sample {
            at: place(file, &format!("{path}.file.path")),
            path: file.folder().join(yaml.path.as_ref()?),
            records: yaml.lines == Some(LinesYaml::Records),
            skip: yaml.skip.unwrap_or_default() as usize,
            take: yaml.take.map_or(usize::MAX, |take| take as usize),
        }),
        None => None,
    };
    Some(Batch { file: sample, events: events.into_iter().collect::<Option<_>>()? })
}

fn event(file: &File, path: &str, yaml: &EventYaml, timestamp: i64) -> Option<Event> {
    let at = |key: &str| format!("{path}.{key}");
    let base64 = yaml.base64.as_ref().map(|text| {
        let why = |e: base64::DecodeError| {
            file.report(&at("base64"), format!("is no base64: {}", e.to_string().trim_end_matches('.')));
        };
        STANDARD.decode(text).map_err(why).ok()
    });
    let tombstone = yaml.tombstone.unwrap_or_default();
    let given = [yaml.value.is_some(), yaml.text.is_some(), yaml.base64.is_some(), tombstone];
    if given.iter().filter(|given| **given).count() != 1 {
        let how =
            "needs exactly one of `value`, `text`, `base64` and `tombstone: true`; a JSON null is `text: \"null\"`";
        file.report(path, how);
        return None;
    }
    let payload = match (&yaml.value, &yaml.text, base64) {
        (Some(value), ..) => Some(value.to_json().into_bytes()),
        (_, Some(text), _) => Some(text.clone().into_bytes()),
        (_, _, Some(bytes)) => Some(bytes?),
        _ => None,
    };
    let topic = match &yaml.topic {
        Some(name) => Some(file.take(&at("topic"), Topic::new(name.clone()))?),
        None => None,
    };
    let timestamp = match &yaml.timestamp {
        None => timestamp,
        text => time(file, &at("timestamp"), text.as_ref())?.timestamp_millis(),
    };
    Some(Event {
        topic,
        partition: yaml.partition.unwrap_or_default(),
        key: yaml.key.as_ref().and_then(Tree::bare).map(String::into_bytes),
        headers: yaml.headers.clone().unwrap_or_default().into_iter().collect(),
        timestamp,
        payload,
    })
}

fn expect(file: &File, path: &str, yaml: &ExpectYaml) -> Option<Expect> {
    let at = |key: &str| format!("{path}.{key}");
    if yaml.table.is_some() && yaml.tables.is_some() {
        file.report(&at("tables"), "stands in place of `table`; keep one");
    }
    let mut tables = BTreeMap::new();
    if let Some(yaml) = &yaml.table {
        tables.insert(String::new(), table(file, &at("table"), yaml)?);
    }
    for (name, yaml) in yaml.tables.iter().flatten() {
        tables.insert(name.clone(), table(file, &join(&at("tables"), name), yaml.as_ref()?)?);
    }
    Some(Expect {
        at: place(file, path),
        rejected: records(file, &at("rejected"), yaml.rejected.as_deref().unwrap_or_default(), rejected)?,
        error: yaml.error.as_ref().map(|tree| pattern(file, &at("error"), tree)),
        named: yaml.tables.is_some(),
        tables,
    })
}

fn table(file: &File, path: &str, yaml: &TableExpectYaml) -> Option<TableExpect> {
    let at = |key: &str| format!("{path}.{key}");
    let count = |count: Option<u32>| count.map(u64::from);
    let all = |row: &BTreeMap<String, Tree>| row.iter().map(|(name, tree)| (name.clone(), tree.clone())).collect();
    if yaml.quarantine.is_some() && yaml.quarantine_count.is_some() {
        file.report(&at("quarantineCount"), "stands in place of `quarantine`; keep one");
    }
    Some(TableExpect {
        at: place(file, path),
        rows: match &yaml.rows {
            Some(rows) => Some(records(file, &at("rows"), rows, all)?),
            None => None,
        },
        row_count: count(yaml.row_count),
        ordered: yaml.ordered.unwrap_or_default(),
        schema: yaml.schema.clone().map(|columns| (place(file, &at("schema")), columns)),
        quarantine: match &yaml.quarantine {
            Some(list) => Some(records(file, &at("quarantine"), list, quarantined)?),
            None => None,
        },
        quarantine_count: count(yaml.quarantine_count),
        filtered: yaml.filtered.as_ref().map(|map| map.iter().map(|(k, n)| (k.clone(), u64::from(*n))).collect()),
        tombstones: count(yaml.tombstones),
        superseded: count(yaml.superseded),
        deleted: count(yaml.deleted),
    })
}

type Entries = Vec<(String, Tree)>;

fn rejected(yaml: &RejectedYaml) -> Entries {
    given([("event", &yaml.event), ("reason", &yaml.reason), ("detail", &yaml.detail)])
}

fn quarantined(yaml: &QuarantinedYaml) -> Entries {
    given([
        ("event", &yaml.event),
        ("path", &yaml.path),
        ("reason", &yaml.reason),
        ("detail", &yaml.detail),
        ("step", &yaml.step),
        ("payload", &yaml.payload),
    ])
}

fn given<const N: usize>(values: [(&str, &Option<Tree>); N]) -> Entries {
    values.into_iter().filter_map(|(name, tree)| Some((name.to_owned(), tree.clone()?))).collect()
}

fn records<T>(file: &File, path: &str, list: &[Option<T>], entries: impl Fn(&T) -> Entries) -> Option<Vec<Expected>> {
    let read = |(i, yaml): (usize, &Option<T>)| {
        let path = format!("{path}[{i}]");
        let values: Named = entries(yaml.as_ref()?)
            .iter()
            .map(|(name, tree)| (name.clone(), pattern(file, &join(&path, name), tree)))
            .collect();
        Some(Expected { at: place(file, &path), values })
    };
    list.iter().enumerate().map(read).collect()
}

fn pattern(file: &File, path: &str, tree: &Tree) -> Pattern {
    Pattern::read(tree, &mut |(below, why): Mistake| {
        let dot = if below.is_empty() || below.starts_with('[') { "" } else { "." };
        file.report(&format!("{path}{dot}{below}"), why);
    })
}
