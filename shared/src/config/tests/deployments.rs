//! Deployments, and pipelines that get in each other's way.

use super::*;

#[test]
fn deployments_are_checked() {
    let cases = [
        ("raw: /data/raw\n", ""),
        ("raw: /data/raw", "raw: gs://x"),
        ("raw: /data/raw", "raw: /data/./tables/"),
        ("raw: /data/raw", "raw: ${NOPE}"),
        ("raw: /data/raw", "raw: ${NOPE:-/data/raw}"),
        ("{brokers: 'localhost:9092'}", "{}"),
        ("{brokers: 'localhost:9092'}", "{brokers: 'localhost:9092,other'}"),
        ("{brokers: 'localhost:9092'}", "{brokers: 'a:1', r53: {name: b, port: 70000}}"),
        ("{brokers: 'localhost:9092'}", "{r53: {name: b, port: '${PORT}'}}"),
        ("{brokers: 'localhost:9092'}", "{brokers: 'a:1', properties: {group.id: x, fetch.min.bytes: 1}}"),
        ("{brokers: 'localhost:9092'}", "{brokers: 'a:1', security: {protocol: saslSsl, username: u}}"),
        (
            "{brokers: 'localhost:9092'}",
            "{brokers: 'a:1', security: {protocol: ssl, password: '${PASSWORD}', certFile: c}}",
        ),
        (
            "{brokers: 'localhost:9092'}",
            "{brokers: 'a:1', security: {protocol: saslSsl, mechanism: awsMskIam, username: u, password: p}}",
        ),
        ("events: {", "Ev ents: {"),
        ("sqlite: {path: catalog.db}", "sqlit: {path: catalog.db}"),
        ("sqlite: {path: catalog.db}", "sqlite: {}"),
        ("sqlite: {path: catalog.db}", "glue: {accessKeyId: a, endpoint: 'x:1'}"),
        ("sqlite: {path: catalog.db}", "rest: {uri: 'http://x', token: a, credential: b}"),
        ("catalog:", "landing: {memory: 1MB, listen: here, drain: x}\ncatalog:"),
        ("catalog:", "landing: {memory: '${MEMORY}'}\ncatalog:"),
        ("catalog:", "compactor: {threads: -1}\ncatalog:"),
        ("catalog:", "compactor: {deleteMemoryLocation: 'gs://x'}\ncatalog:"),
        ("catalog:", "compactor: {deleteMemoryLocation: /data/raw}\ncatalog:"),
        ("catalog:", "compactor: {deleteMemoryLocation: 's3://ops/deletes'}\ncatalog:"),
        ("catalog:", "telemetry: {log: 'a=loudest', format: xml}\ncatalog:"),
        ("catalog:", "registry: {url: x}\ncatalog:"),
    ];
    insta::assert_snapshot!(spoil(FIRN, &cases, |text| check(text, &[PIPELINE])), @r#"
    # 
    firn.yaml:1:1: raw: missing
    # raw: gs://x
    firn.yaml:3:6: raw: location `gs://x` has the unknown scheme `gs`: use `s3://`, `file://` or a directory
    # raw: /data/./tables/
    firn.yaml:4:12: warehouse: is the same place as `raw`; tables and raw objects need places of their own
    # raw: ${NOPE}
    firn.yaml:3:6: raw: environment variable `NOPE` is not set; set it or write `${NOPE:-default}`
    # raw: ${NOPE:-/data/raw}
    passes
    # {}
    firn.yaml:2:11: clusters.events: needs `brokers` or `r53`
    # {brokers: 'localhost:9092,other'}
    firn.yaml:2:21: clusters.events.brokers: `other` is not `host:port`
    # {brokers: 'a:1', r53: {name: b, port: 70000}}
    firn.yaml:2:11: clusters.events: has both `brokers` and `r53`; keep one
    firn.yaml:2:49: clusters.events.r53.port: must be between 1 and 65535, found 70000
    # {r53: {name: b, port: '${PORT}'}}
    passes
    # {brokers: 'a:1', properties: {group.id: x, fetch.min.bytes: 1}}
    firn.yaml:2:51: clusters.events.properties['group.id']: cannot be set here: landing names its groups, see landing.groupPrefix
    firn.yaml:2:71: clusters.events.properties['fetch.min.bytes']: expected text, found a whole number; put it in quotes
    # {brokers: 'a:1', security: {protocol: saslSsl, username: u}}
    firn.yaml:2:38: clusters.events.security.mechanism: missing: the protocol needs it
    firn.yaml:2:38: clusters.events.security.password: missing: the protocol needs it
    # {brokers: 'a:1', security: {protocol: ssl, password: '${PASSWORD}', certFile: c}}
    firn.yaml:2:38: clusters.events.security: needs both `certFile` and `keyFile`, or neither
    firn.yaml:2:64: clusters.events.security.password: the protocol does not use SASL
    # {brokers: 'a:1', security: {protocol: saslSsl, mechanism: awsMskIam, username: u, password: p}}
    firn.yaml:2:69: clusters.events.security.mechanism: not supported yet: login with AWS IAM
    # Ev ents: {
    a.yaml:3:20: ingestionUnit.kafka.cluster: no cluster `events` in firn.yaml, which has `Ev ents`; did you mean `Ev ents`?
    firn.yaml:2:12: clusters['Ev ents']: cluster `Ev ents` may hold only ASCII letters, digits, `.`, `_` and `-`, and starts with a letter or digit
    # sqlit: {path: catalog.db}
    firn.yaml:6:3: catalog.sqlit: unknown key, expected one of `sqlite`, `glue`, `rest`; did you mean `sqlite`?
    # sqlite: {}
    firn.yaml:6:11: catalog.sqlite.path: missing
    # glue: {accessKeyId: a, endpoint: 'x:1'}
    firn.yaml:6:9: catalog.glue: needs both `accessKeyId` and `secretAccessKey`, or neither
    firn.yaml:6:36: catalog.glue.endpoint: `x:1` is not an address such as `https://host:port`
    # rest: {uri: 'http://x', token: a, credential: b}
    firn.yaml:6:9: catalog.rest: has both `credential` and `token`; keep one
    # landing: {memory: 1MB, listen: here, drain: x}⏎catalog:
    firn.yaml:5:19: landing.memory: must be at least 64MiB
    firn.yaml:5:32: landing.listen: `here` is not an address such as `0.0.0.0:9464`
    firn.yaml:5:45: landing.drain: time `x`: expected a whole number and a unit, such as 5m, found `x` at character 1
    # landing: {memory: '${MEMORY}'}⏎catalog:
    passes
    # compactor: {threads: -1}⏎catalog:
    firn.yaml:5:22: compactor.threads: must be between 0 and 4294967295, found -1
    # compactor: {deleteMemoryLocation: 'gs://x'}⏎catalog:
    firn.yaml:5:35: compactor.deleteMemoryLocation: location `gs://x` has the unknown scheme `gs`: use `s3://`, `file://` or a directory
    # compactor: {deleteMemoryLocation: /data/raw}⏎catalog:
    firn.yaml:5:35: compactor.deleteMemoryLocation: is the same place as `raw`; name one of its own
    # compactor: {deleteMemoryLocation: 's3://ops/deletes'}⏎catalog:
    passes
    # telemetry: {log: 'a=loudest', format: xml}⏎catalog:
    firn.yaml:5:18: telemetry.log: log filter `a=loudest`: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    firn.yaml:5:39: telemetry.format: `xml` is not one of `text`, `json`
    # registry: {url: x}⏎catalog:
    firn.yaml:5:11: registry: not supported yet: a schema registry
    "#);
}

#[test]
fn pipelines_are_checked_against_each_other() {
    let other = PIPELINE.replace("name: orders\n", "name: second\n").replace("tableName: orders", "tableName: second");
    let pattern = other.replace("topic: shop.orders", "topic: {regex: 'shop\\..*'}");
    let apart = other.replace("topic: shop.orders", "topic: x");
    let twin = apart.replace("name: second", "name: orders").replace("tableName: second", "tableName: orders");
    let inside =
        apart.replace("tableName: second\n", "tableName: second\n      s3Location: /data/tables/shop/orders\n");
    let cases = [
        ("same topic", &other),
        ("pattern", &pattern),
        ("apart", &apart),
        ("same name and table", &twin),
        ("where another lies by default", &inside),
    ];
    let answers = cases.map(|(case, second)| {
        let answer =
            check(FIRN, &[PIPELINE, second]).map_or_else(|problems| problems.to_string(), |_| "passes".to_owned());
        format!("# {case}\n{answer}")
    });
    insta::assert_snapshot!(answers.join("\n"), @r#"
    # same topic
    b.yaml:3:35: ingestionUnit.kafka.topic: topic `shop.orders` of cluster `events` is read already, at a.yaml:3:35; add an output there instead
    # pattern
    b.yaml:3:35: ingestionUnit.kafka.topic: topic `shop.orders` of cluster `events` is read already, at a.yaml:3:35; add an output there instead
    # apart
    passes
    # same name and table
    b.yaml:1:7: name: pipeline `orders` is there already, at a.yaml:1:7
    b.yaml:12:18: outsourcingUnit[0].table.tableName: table `shop.orders` is written already, at a.yaml:12:18; a table has one writer
    # where another lies by default
    b.yaml:13:19: outsourcingUnit[0].table.s3Location: another table lives at file:///data/tables/shop/orders, see a.yaml:12:18
    "#);
}

#[test]
fn roles_are_checked() {
    let role = "{principals: arn:aws:iam::1:role/a, reads: [{database: shop}]}";
    let good = FIRN
        .replace("sqlite: {path: catalog.db}", "glue: {region: eu-central-1}")
        .replace("catalog:", &format!("access: {{roles: {{analysts: {role}}}}}\ncatalog:"));
    assert!(check(&good, &[PIPELINE]).is_ok());
    for (old, new, expected) in [
        (
            "{database: shop}",
            "{database: shop, columns: [a], exclude: [b]}",
            "has both `columns` and `exclude`; keep one",
        ),
        (
            "{database: shop}",
            "{database: shop, tables: []}",
            "reads[0].tables: must not be empty; leave it out for all",
        ),
        ("{database: shop}", "{tables: [a]}", "reads[0].database: missing"),
        ("principals: arn:aws:iam::1:role/a", "principals: []", "access.roles.analysts.principals: must not be empty"),
        ("principals: arn:aws:iam::1:role/a, ", "", "access.roles.analysts.principals: missing"),
        ("principals: arn:aws:iam::1:role/a", "principals: [analyst]", "principals[0]: `analyst` is neither an ARN"),
        ("arn:aws:iam::1:role/a", "arn:aws:iam::1:role/*", "analysts.principals: `arn:aws:iam::1:role/*` is neither"),
        ("arn:aws:iam::1:role/a", "IAM_ALLOWED_PRINCIPALS", "everybody whom IAM lets in"),
        (role, "", "access.roles.analysts: expected a mapping with `principals` and `reads`, found nothing"),
        ("{roles:", "{endpoint: here, roles:", "access.endpoint"),
        ("glue: {region: eu-central-1}", "sqlite: {path: c}", "access: needs `catalog: {glue: ...}`"),
    ] {
        assert!(good.contains(old), "{old}");
        let problems = check(&good.replacen(old, new, 1), &[PIPELINE]).unwrap_err().to_string();
        assert!(problems.contains(expected), "{new}: {problems}");
    }
}
