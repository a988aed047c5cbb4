//! Whole files in, a configuration or every mistake out.

use std::path::Path;

use super::{Config, Problems, columns_after, find, load};

mod examples {
    use super::*;

    fn example(name: &str) -> Result<Config, Problems> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(name);
        let files = find(&folder).unwrap();
        load(&files.firn, &files.pipelines)
    }

    #[test]
    fn examples_pass() {
        let config = example("github").unwrap_or_else(|problems| panic!("{problems}"));
        let pipeline = config.pipelines.values().next().unwrap();
        assert_eq!(columns_after(&pipeline.outputs[0]).len(), 12);
        assert!(super::super::event_hour_partition(&pipeline.ingestion, &pipeline.outputs[0]).is_some());
        let config = example("zeek").unwrap_or_else(|problems| panic!("{problems}"));
        let columns = columns_after(&config.pipelines.values().next().unwrap().outputs[0]);
        assert_eq!((columns[2].name.as_str(), columns[2].path.to_string().as_str()), ("orig_h", "$['id.orig_h']"));
    }

    #[test]
    fn every_key_is_known_and_what_is_not_supported_says_so() {
        let problems = example("everything").unwrap_err();
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}:{}: {}: {}", problem.line, problem.column, problem.path, problem.message))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        33:11: registry: not supported yet: a schema registry
        35:3: keys: not supported yet: keys for personal data
        13:13: ingestionUnit.incomingData.format: not supported yet: format `debezium`; use `json`
        17:30: ingestionUnit.incomingData.whitelist.OrderPlaced.subject: not supported yet: checking against a schema registry
        19:31: ingestionUnit.incomingData.late.then: not supported yet: `sideTable`; use `accept` or `quarantine`
        22:14: ingestionUnit.protectAt: not supported yet: protecting columns in the raw zone
        31:13: outsourcingUnit[0].table.mode: not supported yet: mode `upsert`; use `append`
        32:22: outsourcingUnit[0].table.writeStrategy: not supported yet: write strategies (they belong to mode `upsert`)
        33:18: outsourcingUnit[0].table.idColumns: not supported yet: key columns (they belong to mode `upsert`)
        34:25: outsourcingUnit[0].table.timestampColumns: not supported yet: version columns (they belong to mode `upsert`)
        35:21: outsourcingUnit[0].table.deleteMemory: not supported yet: deletes (they belong to mode `upsert`)
        37:11: outsourcingUnit[0].table.piiColumns[0]: not supported yet: protecting columns
        38:11: outsourcingUnit[0].table.piiColumns[1]: not supported yet: protecting columns
        45:77: outsourcingUnit[0].table.columns[2].was: not supported yet: renaming columns of a table that exists
        50:29: outsourcingUnit[0].table.contract.newColumn: not supported yet: anything but `ignore`
        50:52: outsourcingUnit[0].table.contract.removedColumn: not supported yet: anything but `keep`
        50:70: outsourcingUnit[0].table.contract.typeChange: not supported yet: anything but `fail`
        50:91: outsourcingUnit[0].table.contract.incompatible: not supported yet: anything but `quarantine`
        65:5: streams[0]: not supported yet: streams
        "#);
    }
}
