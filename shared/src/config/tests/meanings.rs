//! Pipelines of the right shape that mean nothing.

use super::*;
use crate::ids::Topic;

#[test]
fn meanings_are_checked() {
    let cases = [
        ("name: orders", "name: _x"),
        ("cluster: events", "cluster: event"),
        ("topic: shop.orders", "topic: shop/orders"),
        ("topic: shop.orders", "topic: []"),
        ("topic: shop.orders", "topic: [a, b, a]"),
        ("topic: shop.orders", "topic: {regex: 'a('}"),
        ("topic: shop.orders", "topic: shop.orders, retention: 7 days"),
        ("eventName: $.type", "eventName: type"),
        ("    eventName: $.type\n", ""),
        ("{path: $.at, format: rfc3339}", "kafkaTimestamps"),
        ("{path: $.at, format: rfc3339}", "kafkaTimestamp"),
        ("{path: $.at, format: rfc3339}", "{format: kafkaTimestamp}"),
        ("{path: $.at, format: rfc3339}", "{format: epochMillis}"),
        ("{path: $.at, format: rfc3339}", "{path: $.at, format: iso8601}"),
        ("{path: $.at, format: rfc3339}", "{path: '$.at', format: rfc3339}\n    whitelist: {Placd: {}}"),
        ("{path: $.at, format: rfc3339}", "{path: '$.at', format: rfc3339}\n    whitelist: {Placed: }"),
        (
            "{path: $.at, format: rfc3339}",
            "{path: '$.at', format: rfc3339}\n    late: {allowed: 1w}\n    maxRecordSize: 1 meg",
        ),
        ("outsourcingUnit:", "  raw: {rotate: {size: 0MB, age: 0s}}\noutsourcingUnit:"),
        ("database: shop", "database: Shop"),
        ("tableName: orders", "tableName: orders\n      s3Location: http://x"),
        (
            "tableName: orders",
            "tableName: orders\n      targetFileSize: 1KB\n      properties: {firn.x: a, format-version: '3'}",
        ),
        (
            "tableName: orders",
            "tableName: orders\n      athena: {allow: [formatVersion, types]}\n      properties: {format-version: '3'}",
        ),
        (
            "tableName: orders",
            "tableName: orders\n      athena: {allow: [formatVersion]}\n      mode: upsert\n      idColumns: [id]\n      timestampColumns: [at]\n      properties: {format-version: '3'}",
        ),
        (
            "tableName: orders",
            "tableName: orders\n      properties: {write.target-file-size-bytes: '1', write.parquet.compression-codec: zstd, write.parquet.compression-level: '9'}",
        ),
        (
            "tableName: orders",
            "tableName: orders\n      properties: {write.format.default: orc, write.parquet.compression-codec: snappy}",
        ),
        (
            "tableName: orders",
            "tableName: orders\n      athena: {allow: [names]}\n      properties: {format-version: '4'}",
        ),
        ("tableName: orders", "tableName: orders\n      mode: upsert"),
        ("tableName: orders", "tableName: orders\n      idColumns: [id]\n      allowEmpty: true"),
        (
            "tableName: orders",
            "tableName: orders\n      mode: upsert\n      idColumns: [id, body, nope, id]\n      timestampColumns: [body]\n      provenance: false",
        ),
        (
            "tableName: orders",
            "tableName: orders\n      mode: upsert\n      idColumns: [id]\n      timestampColumns: [at]\n      writeStrategy: copyOnWrite\n      deleteFiles: equality\n      deleteMemory: 1 week",
        ),
        ("[hour(at)]", "[hour(att)]"),
        ("[hour(at)]", "[hours(at)]"),
        ("[hour(at)]", "[hour(id)]"),
        ("[hour(at)]", "[body, 'truncate(4, at)', 'bucket(16, id)']"),
        ("[hour(at)]", "[hour(at), day(at), id, id]"),
        ("sortBy: [id]", "sortBy: [idd, size desc, size, id down]"),
        ("jsonColumns: [body]", "jsonColumns: [boddy]"),
        ("jsonColumns: [body]", "jsonColumns: [body]\n      provenance: false"),
        ("partitionBy: [hour(at)]", "provenance: false"),
        ("{name: body}", "{name: body, type: string}"),
        ("type: long", "type: lnog"),
        ("type: long", "type: long, format: rfc3339"),
        ("type: long", "type: long, path: id"),
        ("type: long", "type: 'struct<Odd: int>'"),
        ("{name: mail, type: string}", "{name: Mail, type: string}"),
        ("{name: mail, type: string}", "{name: mail, type: string}\n        - {name: mail, type: string}"),
        ("{name: mail, type: string}", "{name: mail, type: string}\n        - {name: MAIL, type: string}"),
        ("{name: mail, type: string}", "{name: mail, type: string}\n        - {name: at_hour, type: int}"),
        ("{name: mail, type: string}", "{name: mail, type: string}\n        - {name: _firn, type: int}"),
        ("{name: mail, type: string}", "{name: mail, type: string}\n        - {name: _pos, type: int}"),
        ("lower: {column: mail}", "lower: {column: id}"),
        ("lower: {column: mail}", "lower: {column: mial}"),
        ("lower: {column: mail}", "rename: {from: mial, to: email}\n      - lower: {column: email}"),
        ("lower: {column: mail}", "rename: {from: mail, to: E-Mail}"),
        ("lower: {column: mail}", "rename: {from: mail, to: id}"),
        ("lower: {column: mail}", "drop: {columns: [at, nope]}"),
        ("lower: {column: mail}", "cast: {column: at, to: boolean}"),
        ("lower: {column: mail}", "cast: {column: id, to: timestamptz}"),
        (
            "lower: {column: mail}",
            "cast: {column: mail, to: timestamp, format: epochMillis}\n      - lower: {column: mail}",
        ),
        ("lower: {column: mail}", "filter: {where: ''}"),
        ("lower: {column: mail}", "filter: {where: 'size > 0', name: event}"),
        ("extract: {from: body", "extract: {from: id"),
        ("as: size", "as: mail"),
        ("path: $.size", "path: size"),
    ];
    insta::assert_snapshot!(spoil(PIPELINE, &cases, |text| check(FIRN, &[text])), @r#"
    # name: _x
    a.yaml:1:7: name: pipeline `_x` may hold only ASCII letters, digits, `.`, `_` and `-`, and starts with a letter or digit
    # cluster: event
    a.yaml:3:20: ingestionUnit.kafka.cluster: no cluster `event` in firn.yaml, which has `events`; did you mean `events`?
    # topic: shop/orders
    a.yaml:3:35: ingestionUnit.kafka.topic: topic `shop/orders` may hold only ASCII letters, digits, `.`, `_` and `-`
    # topic: []
    a.yaml:3:35: ingestionUnit.kafka.topic: must not be empty
    # topic: [a, b, a]
    a.yaml:3:42: ingestionUnit.kafka.topic[2]: topic `a` comes twice
    # topic: {regex: 'a('}
    a.yaml:3:43: ingestionUnit.kafka.topic.regex: `a(` is not a regular expression: unclosed group
    # topic: shop.orders, retention: 7 days
    a.yaml:3:59: ingestionUnit.kafka.retention: time `7 days`: expected a unit (`d`, `h`, `m`, `s`, `ms`), found `d` at character 3
    # eventName: type
    a.yaml:6:16: ingestionUnit.incomingData.eventName: JSON path `type`: expected `$`, found `t` at character 1
    # 
    a.yaml:8:13: outsourcingUnit[0].events: needs ingestionUnit.incomingData.eventName, the place of the event's name
    # kafkaTimestamps
    a.yaml:7:16: ingestionUnit.incomingData.eventTime: `kafkaTimestamps` is neither `kafkaTimestamp` nor `{path, format}`; did you mean `kafkaTimestamp`?
    # kafkaTimestamp
    passes
    # {format: kafkaTimestamp}
    passes
    # {format: epochMillis}
    a.yaml:7:16: ingestionUnit.incomingData.eventTime.path: missing
    # {path: $.at, format: iso8601}
    a.yaml:7:37: ingestionUnit.incomingData.eventTime.format: no time format `iso8601`: use `rfc3339`, `epochSeconds`, `epochMillis`, `epochMicros`, `epochNanos`, `epochDays` or a strftime pattern such as `%Y-%m-%d %H:%M:%S`
    # {path: '$.at', format: rfc3339}⏎    whitelist: {Placd: {}}
    a.yaml:10:14: outsourcingUnit[0].events[0]: event `Placed` is not in the whitelist, so it never arrives; did you mean `Placd`?
    # {path: '$.at', format: rfc3339}⏎    whitelist: {Placed: }
    passes
    # {path: '$.at', format: rfc3339}⏎    late: {allowed: 1w}⏎    maxRecordSize: 1 meg
    a.yaml:8:21: ingestionUnit.incomingData.late.allowed: time `1w`: expected a unit (`d`, `h`, `m`, `s`, `ms`), found `w` at character 2
    a.yaml:9:20: ingestionUnit.incomingData.maxRecordSize: size `1 meg`: expected a unit (`TiB`, `TB`, `GiB`, `GB`, `MiB`, `MB`, `KiB`, `KB`, `B`), found `m` at character 3
    #   raw: {rotate: {size: 0MB, age: 0s}}⏎outsourcingUnit:
    a.yaml:8:24: ingestionUnit.raw.rotate.size: must be above 0
    a.yaml:8:34: ingestionUnit.raw.rotate.age: must be above 0
    # database: Shop
    a.yaml:11:17: outsourcingUnit[0].table.database: database `Shop` may hold only lower-case ASCII letters, digits and `_`, as Athena requires
    # tableName: orders⏎      s3Location: http://x
    a.yaml:13:19: outsourcingUnit[0].table.s3Location: location `http://x` has the unknown scheme `http`: use `s3://`, `file://` or a directory
    # tableName: orders⏎      targetFileSize: 1KB⏎      properties: {firn.x: a, format-version: '3'}
    a.yaml:13:23: outsourcingUnit[0].table.targetFileSize: must be at least 1MB
    a.yaml:14:28: outsourcingUnit[0].table.properties['firn.x']: properties that begin with `firn.` are ours
    a.yaml:14:47: outsourcingUnit[0].table.properties.format-version: Athena reads format version 2; for a table that it never reads, set athena: {allow: [formatVersion]}
    # tableName: orders⏎      athena: {allow: [formatVersion, types]}⏎      properties: {format-version: '3'}
    passes
    # tableName: orders⏎      athena: {allow: [formatVersion]}⏎      mode: upsert⏎      idColumns: [id]⏎      timestampColumns: [at]⏎      properties: {format-version: '3'}
    a.yaml:17:36: outsourcingUnit[0].table.properties.format-version: format version 3 takes no position delete files; set writeStrategy: copyOnWrite or deleteFiles: equality
    # tableName: orders⏎      properties: {write.target-file-size-bytes: '1', write.parquet.compression-codec: zstd, write.parquet.compression-level: '9'}
    a.yaml:13:50: outsourcingUnit[0].table.properties['write.target-file-size-bytes']: has no effect on what is written here; set targetFileSize
    a.yaml:13:127: outsourcingUnit[0].table.properties['write.parquet.compression-level']: has no effect on what is written here; set zstdLevel
    # tableName: orders⏎      properties: {write.format.default: orc, write.parquet.compression-codec: snappy}
    a.yaml:13:42: outsourcingUnit[0].table.properties['write.format.default']: has no effect on what is written here, which is always Parquet
    a.yaml:13:80: outsourcingUnit[0].table.properties['write.parquet.compression-codec']: has no effect on what is written here, which is always zstd; set zstdLevel
    # tableName: orders⏎      athena: {allow: [names]}⏎      properties: {format-version: '4'}
    a.yaml:13:24: outsourcingUnit[0].table.athena.allow[0]: `names` is not one of `formatVersion`, `types`
    a.yaml:14:36: outsourcingUnit[0].table.properties.format-version: there is no format version `4` to write; use 2 or 3
    # tableName: orders⏎      mode: upsert
    a.yaml:11:7: outsourcingUnit[0].table.idColumns: missing; mode `upsert` needs at least one column
    a.yaml:11:7: outsourcingUnit[0].table.timestampColumns: missing; mode `upsert` needs at least one column
    # tableName: orders⏎      idColumns: [id]⏎      allowEmpty: true
    a.yaml:13:18: outsourcingUnit[0].table.idColumns: belongs to `mode: upsert`
    a.yaml:14:19: outsourcingUnit[0].table.allowEmpty: belongs to `mode: truncateLoad`
    # tableName: orders⏎      mode: upsert⏎      idColumns: [id, body, nope, id]⏎      timestampColumns: [body]⏎      provenance: false
    a.yaml:14:23: outsourcingUnit[0].table.idColumns[1]: column `body` is nested, so it cannot be part of a key
    a.yaml:14:29: outsourcingUnit[0].table.idColumns[2]: no column `nope` here
    a.yaml:14:35: outsourcingUnit[0].table.idColumns[3]: column `id` comes twice
    a.yaml:15:26: outsourcingUnit[0].table.timestampColumns[0]: column `body` has no order that says which version is newer
    a.yaml:16:19: outsourcingUnit[0].table.provenance: mode `upsert` needs it: the Kafka offset decides between equal versions
    # tableName: orders⏎      mode: upsert⏎      idColumns: [id]⏎      timestampColumns: [at]⏎      writeStrategy: copyOnWrite⏎      deleteFiles: equality⏎      deleteMemory: 1 week
    a.yaml:17:20: outsourcingUnit[0].table.deleteFiles: `copyOnWrite` writes no delete files; leave it out
    a.yaml:18:21: outsourcingUnit[0].table.deleteMemory: time `1 week`: expected a unit (`d`, `h`, `m`, `s`, `ms`), found `w` at character 3
    # [hour(att)]
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: no column `att` here; did you mean `at`?
    # [hours(at)]
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: partition field `hours(at)`: no transform `hours` at character 1; did you mean `hour`?
    # [hour(id)]
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: `hour(id)` does not suit column `id`, which is long
    # [body, 'truncate(4, at)', 'bucket(16, id)']
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: `body` does not suit column `body`, which is json
    a.yaml:14:27: outsourcingUnit[0].table.partitionBy[1]: `truncate(4, at)` does not suit column `at`, which is timestamptz
    # [hour(at), day(at), id, id]
    a.yaml:14:31: outsourcingUnit[0].table.partitionBy[1]: `day(at)` repeats a partition field of column `at`
    a.yaml:14:44: outsourcingUnit[0].table.partitionBy[3]: `id` repeats a partition field of column `id`
    # sortBy: [idd, size desc, size, id down]
    a.yaml:15:16: outsourcingUnit[0].table.sortBy[0]: no column `idd` here; did you mean `id`?
    a.yaml:15:32: outsourcingUnit[0].table.sortBy[2]: column `size` comes twice
    a.yaml:15:38: outsourcingUnit[0].table.sortBy[3]: sort field `id down`: expected `asc`, `desc` or the end, found `d` at character 4
    # jsonColumns: [boddy]
    a.yaml:13:21: outsourcingUnit[0].table.jsonColumns[0]: no column `boddy` here; did you mean `body`?
    a.yaml:20:11: outsourcingUnit[0].table.columns[3].type: missing
    # jsonColumns: [body]⏎      provenance: false
    passes
    # provenance: false
    a.yaml:14:19: outsourcingUnit[0].table.provenance: without provenance, `reprocess` needs the table partitioned by `hour(…)` of the event time's column; partition it so, or keep provenance
    # {name: body, type: string}
    a.yaml:20:30: outsourcingUnit[0].table.columns[3].type: is string, but jsonColumns names the column; leave the type out
    # type: lnog
    a.yaml:17:28: outsourcingUnit[0].table.columns[0].type: type `lnog`: no type `lnog` at character 1; did you mean `long`?
    # type: long, format: rfc3339
    a.yaml:17:42: outsourcingUnit[0].table.columns[0].format: only dates and times have a time format, column `id` is long
    # type: long, path: id
    a.yaml:17:40: outsourcingUnit[0].table.columns[0].path: JSON path `id`: expected `$`, found `i` at character 1
    # type: 'struct<Odd: int>'
    a.yaml:15:16: outsourcingUnit[0].table.sortBy[0]: column `id` is struct<Odd: int>, which has no order
    a.yaml:17:18: outsourcingUnit[0].table.columns[0].name: column `id`: field inside: column `Odd` may hold only lower-case ASCII letters, digits and `_`, as Athena requires
    # {name: Mail, type: string}
    a.yaml:19:18: outsourcingUnit[0].table.columns[2].name: column `Mail` may hold only lower-case ASCII letters, digits and `_`, as Athena requires; add a step `rename: {from: Mail, to: mail}`
    a.yaml:23:25: outsourcingUnit[0].transformations[1].lower.column: no column `mail` here; did you mean `Mail`?; the columns here are id long, at timestamptz, Mail string, body json, size int
    # {name: mail, type: string}⏎        - {name: mail, type: string}
    a.yaml:20:18: outsourcingUnit[0].table.columns[3].name: column `mail` comes twice; the other `mail` is at line 19
    # {name: mail, type: string}⏎        - {name: MAIL, type: string}
    a.yaml:20:18: outsourcingUnit[0].table.columns[3].name: column `MAIL` is the same to Athena, which ignores case; the other `mail` is at line 19
    # {name: mail, type: string}⏎        - {name: at_hour, type: int}
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: the partition field `at_hour` has the name of a column
    # {name: mail, type: string}⏎        - {name: _firn, type: int}
    a.yaml:20:18: outsourcingUnit[0].table.columns[3].name: `_firn` is the name of the provenance column
    # {name: mail, type: string}⏎        - {name: _pos, type: int}
    a.yaml:20:18: outsourcingUnit[0].table.columns[3].name: `_pos` is a name that Iceberg keeps for itself, and Spark could not read the table; choose another
    # lower: {column: id}
    a.yaml:23:25: outsourcingUnit[0].transformations[1].lower.column: column `id` is long; lower takes string; the columns here are id long, at timestamptz, mail string, body json, size int
    # lower: {column: mial}
    a.yaml:23:25: outsourcingUnit[0].transformations[1].lower.column: no column `mial` here; did you mean `mail`?; the columns here are id long, at timestamptz, mail string, body json, size int
    # rename: {from: mial, to: email}⏎      - lower: {column: email}
    a.yaml:23:24: outsourcingUnit[0].transformations[1].rename.from: no column `mial` here; did you mean `mail`?; the columns here are id long, at timestamptz, mail string, body json, size int
    # rename: {from: mail, to: E-Mail}
    a.yaml:23:34: outsourcingUnit[0].transformations[1].rename.to: column `E-Mail` may hold only lower-case ASCII letters, digits and `_`, as Athena requires; add a step `rename: {from: E-Mail, to: e_mail}`
    # rename: {from: mail, to: id}
    a.yaml:23:34: outsourcingUnit[0].transformations[1].rename.to: a column `id` is there already
    # drop: {columns: [at, nope]}
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: no column `at` here
    a.yaml:23:30: outsourcingUnit[0].transformations[1].drop.columns[1]: no column `nope` here; the columns here are id long, at timestamptz, mail string, body json, size int
    # cast: {column: at, to: boolean}
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: `hour(at)` does not suit column `at`, which is boolean
    a.yaml:23:32: outsourcingUnit[0].transformations[1].cast.to: there is no way from timestamptz to boolean; the columns here are id long, at timestamptz, mail string, body json, size int
    # cast: {column: id, to: timestamptz}
    a.yaml:23:32: outsourcingUnit[0].transformations[1].cast.to: long to timestamptz needs `format`: epochSeconds, epochMillis or epochMicros; the columns here are id long, at timestamptz, mail string, body json, size int
    # cast: {column: mail, to: timestamp, format: epochMillis}⏎      - lower: {column: mail}
    a.yaml:24:25: outsourcingUnit[0].transformations[2].lower.column: column `mail` is timestamp; lower takes string; the columns here are id long, at timestamptz, mail timestamp, body json, size int
    # filter: {where: ''}
    a.yaml:23:25: outsourcingUnit[0].transformations[1].filter.where: is empty
    # filter: {where: 'size > 0', name: event}
    a.yaml:23:43: outsourcingUnit[0].transformations[1].filter.name: records of events that go to other tables are counted under this name; give the step another
    # extract: {from: id
    a.yaml:22:25: outsourcingUnit[0].transformations[0].extract.from: column `id` is long; extract takes json or string; the columns here are id long, at timestamptz, mail string, body json
    # as: mail
    a.yaml:22:49: outsourcingUnit[0].transformations[0].extract.as: a column `mail` is there already
    # path: size
    a.yaml:22:37: outsourcingUnit[0].transformations[0].extract.path: JSON path `size`: expected `$`, found `s` at character 1
    "#);
}

#[test]
fn columns_must_be_listed_for_now() {
    let start = PIPELINE.find("      jsonColumns").unwrap();
    let answer = check(FIRN, &[&PIPELINE[..start]]).unwrap_err().to_string();
    insta::assert_snapshot!(answer, @"a.yaml:11:7: outsourcingUnit[0].table: not supported yet: inferring columns; list them under `columns`");
}

/// [`PIPELINE`] with other texts in it.
fn changed(changes: &[(&str, &str)]) -> String {
    let text = changes.iter().fold(PIPELINE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    check(FIRN, &[&text]).map_or_else(|problems| format!("{problems}\n"), |_| "passes\n".to_owned())
}

#[test]
fn change_events_have_rules_of_their_own() {
    let upsert = "tableName: orders\n      mode: upsert\n      idColumns: [id]";
    let soft = format!("{upsert}\n      softDelete: true");
    let outcomes = [
        // The position in the source says what is newer.
        changed(&[("format: json", "format: debezium"), ("tableName: orders", upsert)]),
        changed(&[
            ("format: json", "format: dynamodb"),
            ("tableName: orders", &soft),
            ("[hour(at)]", "[day(_deleted_at)]"),
        ]),
        changed(&[("tableName: orders", &format!("{soft}\n      timestampColumns: [at]"))]),
        changed(&[
            ("format: json", "format: debezium"),
            ("tableName: orders", "tableName: orders\n      mode: truncateLoad"),
        ]),
        changed(&[("format: json", "format: debezium"), ("[hour(at)]", "[_op]")]),
        changed(&[("[hour(at)]", "[_op]")]),
        changed(&[("format: json", "format: avro")]),
    ];
    insta::assert_snapshot!(outcomes.concat(), @r"
    passes
    passes
    a.yaml:15:19: outsourcingUnit[0].table.softDelete: needs change events (format `debezium` or `dynamodb`), which say what is deleted
    a.yaml:13:13: outsourcingUnit[0].table.mode: `truncateLoad` needs whole rows; change events are for `upsert` and `append`
    passes
    a.yaml:14:21: outsourcingUnit[0].table.partitionBy[0]: no column `_op` here
    a.yaml:5:13: ingestionUnit.incomingData.format: not supported yet: format `avro`; use `json`
    ");
}

#[test]
fn a_generation_is_of_one_topic_and_the_others_are_left_alone() {
    let read = |kafka: &str| check(FIRN, &[&PIPELINE.replace("topic: shop.orders", kafka)]);
    for (kafka, expected) in [
        ("topic: a, generation: 2", [2, 1]),
        ("topic: [a], generation: 2", [2, 1]),
        ("topic: [a, b]", [1, 1]),
        ("topic: [a, b], generation: 1", [1, 1]),
        ("topic: [a, b], generation: {a: 2}", [2, 1]),
        ("topic: {regex: 'a|b'}, generation: {b: 3}", [1, 3]),
    ] {
        let config = read(kafka).unwrap_or_else(|problems| panic!("{kafka}: {problems}"));
        let generations = &config.pipelines.values().next().unwrap().ingestion.generation;
        assert_eq!(["a", "b"].map(|topic| generations.of(&Topic::new(topic).unwrap()).0), expected, "{kafka}");
    }
    let several = "ingestionUnit.kafka.generation: is of one topic, and the pipeline reads several; write it for the one that \
                   was made again: `{TOPIC: 2}`";
    for (kafka, expected) in [
        ("topic: [a, b], generation: 2", several),
        ("topic: {regex: 'a|b'}, generation: 2", several),
        ("topic: a, generation: 0", "must be between 1 and 4294967295, found 0"),
        ("topic: [orders, b], generation: {ordrs: 2}", "the pipeline reads no topic `ordrs`; did you mean `orders`?"),
        ("topic: {regex: 'a|b'}, generation: {ab: 2}", "the pipeline reads no topic `ab`"),
    ] {
        let problems = read(kafka).unwrap_err().to_string();
        assert!(problems.contains(expected), "{kafka}: {problems}");
    }
}
