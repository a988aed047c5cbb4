//! Pipelines that would read the same topic. The configuration's check sees that of names and of equal patterns; which topics
//! two patterns share is seen only when the topics are there.

use firn_shared::config::domain::Config;
use firn_shared::error::Result;
use firn_shared::ids::PipelineName;

use crate::kafka::Selection;

/// The pipelines that come first where two would read one topic: as two writers of one chain they would take turns in
/// losing their batches. The order is that of the names, so that every daemon of a deployment decides alike.
#[derive(Debug, Clone, Default)]
pub struct Rivals(Vec<(PipelineName, Selection)>);

impl Rivals {
    /// Those of a pipeline: the ones before it on its cluster, whichever of them run in this process.
    ///
    /// # Errors
    /// `Config` when a pattern cannot be read.
    pub fn of(config: &Config, name: &PipelineName) -> Result<Self> {
        let Some(own) = config.pipelines.get(name) else { return Ok(Self::default()) };
        let before = config.pipelines.range::<PipelineName, _>(..name);
        let same = before.filter(|(_, other)| other.ingestion.cluster == own.ingestion.cluster);
        same.map(|(name, other)| Ok((name.clone(), Selection::of(&other.ingestion)?))).collect::<Result<_>>().map(Self)
    }

    /// Why a pipeline must leave this topic alone, if it must.
    #[must_use]
    pub fn claim(&self, topic: &str, own: &PipelineName) -> Option<String> {
        let (first, _) = self.0.iter().find(|(_, selection)| selection.takes(topic))?;
        Some(format!(
            "topic {topic} is read by pipeline {first} already, and pipeline {own} leaves it out; make their patterns exclude \
             each other, or add an output to {first}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_patterns_that_meet_in_a_topic_the_first_by_name_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let firn = "clusters:\n  c: {brokers: 'a:1'}\n  d: {brokers: 'a:2'}\nraw: /r\nwarehouse: /w\n\
                    catalog: {sqlite: {path: c.db}}\n";
        std::fs::write(dir.path().join("firn.yaml"), firn).unwrap();
        let pipelines = [("p", "c", "a|b"), ("q", "c", "b|c"), ("r", "d", "a|b|c")];
        let files = pipelines.map(|(name, cluster, topics)| {
            let file = dir.path().join(format!("{name}.yaml"));
            let text = format!(
                "name: {name}\ningestionUnit:\n  kafka: {{cluster: {cluster}, topic: {{regex: '{topics}'}}}}\n  \
                 incomingData: {{format: json, eventTime: kafkaTimestamp}}\noutsourcingUnit:\n  - table: \
                 {{database: d, tableName: {name}, columns: [{{name: n, type: long}}]}}\n"
            );
            std::fs::write(&file, text).unwrap();
            file
        });
        let config = firn_shared::config::load(&dir.path().join("firn.yaml"), &files);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let claims = |name: &str| {
            let name = PipelineName::new(name).unwrap();
            let rivals = Rivals::of(&config, &name).unwrap();
            ["a", "b", "c"].map(|topic| rivals.claim(topic, &name).is_some())
        };
        assert_eq!(claims("p"), [false; 3]);
        assert_eq!(claims("q"), [true, true, false], "whether it would take them or not");
        assert_eq!(claims("r"), [false; 3], "another cluster's topics are others");
        let q = PipelineName::new("q").unwrap();
        assert_eq!(
            Rivals::of(&config, &q).unwrap().claim("b", &q).unwrap(),
            "topic b is read by pipeline p already, and pipeline q leaves it out; make their patterns exclude each other, or \
             add an output to p"
        );
    }
}
