//! Rules between pipelines: names, topics and tables belong to one each.

use std::collections::BTreeMap;

use super::File;
use crate::config::domain::{Pipeline, StoreUrl, TopicSelector};
use crate::config::wire::PipelineYaml;

/// Reports pipelines of one name, topics read twice, and tables written twice. Works on what could be read, so that
/// problems elsewhere hide nothing.
pub(in crate::config) fn across(files: &[(File, PipelineYaml, Option<Pipeline>)]) {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let mut locations: Vec<(&StoreUrl, String)> = Vec::new();
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
        for (n, output) in pipeline.outputs.iter().enumerate() {
            let path = format!("outsourcingUnit[{n}].table.s3Location");
            let Some(location) = &output.table.location else { continue };
            if let Some((_, first)) = locations.iter().find(|(other, _)| other == &location) {
                file.report(&path, format!("another table lives there, see {first}"));
            }
            locations.push((location, file.place(&path)));
        }
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
