//! Rules between pipelines: names, topics and tables belong to one each.

use std::collections::BTreeMap;

use super::File;
use crate::config::domain::{Pipeline, StoreUrl, TopicSelector};
use crate::config::wire::PipelineYaml;

/// Reports pipelines of one name, topics read twice, tables written twice and tables of one place. Works on what could be
/// read, so that problems elsewhere hide nothing.
pub(in crate::config) fn across(files: &[(File, PipelineYaml, Option<Pipeline>)], warehouse: Option<&StoreUrl>) {
    if let Some(warehouse) = warehouse {
        places(files, warehouse);
    }
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    for (i, (file, yaml, pipeline)) in files.iter().enumerate() {
        if let Some(name) = &yaml.name
            && let Some(first) = names.insert(name, file.place("name"))
        {
            file.report("name", format!("pipeline `{name}` is there already, at {first}"));
        }
        for (n, output) in yaml.outsourcing_unit.iter().flatten().enumerate() {
            let table = output.as_ref().and_then(|output| output.table.as_ref());
            let Some((database, name)) = table.and_then(|table| table.database.as_ref().zip(table.table_name.as_ref()))
            else {
                continue;
            };
            let path = format!("outsourcingUnit[{n}].table.tableName");
            if let Some(first) = tables.insert(format!("{database}.{name}"), file.place(&path)) {
                file.report(
                    &path,
                    format!("table `{database}.{name}` is written already, at {first}; a table has one writer"),
                );
            }
        }
        let Some(pipeline) = pipeline else { continue };
        for (other_file, _, other) in &files[..i] {
            let Some(other) = other.as_ref().filter(|other| other.ingestion.cluster == pipeline.ingestion.cluster)
            else {
                continue;
            };
            if let Some(topic) = shared_topic(&pipeline.ingestion.topics, &other.ingestion.topics) {
                let place = other_file.place("ingestionUnit.kafka.topic");
                let message = format!(
                    "{topic} of cluster `{}` is read already, at {place}; add an output there instead",
                    pipeline.ingestion.cluster
                );
                file.report("ingestionUnit.kafka.topic", message);
            }
        }
    }
}

/// Reports tables that live where another one does. Of those that share a name, which is reported already, only places that
/// are written out count.
fn places(files: &[(File, PipelineYaml, Option<Pipeline>)], warehouse: &StoreUrl) {
    let mut seen: Vec<(String, bool, String)> = Vec::new();
    for (file, _, pipeline) in files {
        for (n, output) in pipeline.iter().flat_map(|pipeline| pipeline.outputs.iter().enumerate()) {
            let (location, named) = (output.table.location_in(warehouse), output.table.location.is_some());
            let path = format!("outsourcingUnit[{n}].table.{}", if named { "s3Location" } else { "tableName" });
            let first = seen.iter().find(|(other, other_named, _)| *other == location && (named || *other_named));
            if let Some((.., first)) = first {
                file.report(&path, format!("another table lives at {location}, see {first}"));
            }
            seen.push((location, named, file.place(&path)));
        }
    }
}

/// What both read, as far as it can be told without asking the broker.
fn shared_topic(a: &TopicSelector, b: &TopicSelector) -> Option<String> {
    match (a, b) {
        (TopicSelector::List(a), TopicSelector::List(b)) => {
            a.iter().find(|topic| b.contains(topic)).map(|topic| format!("topic `{topic}`"))
        }
        (TopicSelector::List(list), TopicSelector::Pattern(pattern))
        | (TopicSelector::Pattern(pattern), TopicSelector::List(list)) => {
            let regex = regex::Regex::new(&format!("^(?:{pattern})$")).ok()?;
            list.iter().find(|topic| regex.is_match(topic.as_str())).map(|topic| format!("topic `{topic}`"))
        }
        (TopicSelector::Pattern(a), TopicSelector::Pattern(b)) => (a == b).then(|| format!("pattern `{a}`")),
    }
}
