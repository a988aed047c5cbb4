//! YAML that is broken or has the wrong shape.

use super::*;

#[test]
fn shapes_are_checked() {
    let cases = [
        ("name: orders\n", ""),
        ("name: orders\n", "nam: orders\n"),
        ("name: orders\n", "name: orders\nname: other\n"),
        ("name: orders\n", "name: 5\n"),
        ("name: orders\n", "name: orders\nzzz: 1\n"),
        ("name: orders", "name:"),
        ("name: orders", "name: [orders"),
        ("name: orders", "name: &x orders"),
        ("name: orders", "name: !x orders"),
        ("name: orders", "- name"),
        ("cluster: events, ", ""),
        ("topic: shop.orders", "topic: {regx: a}"),
        ("topic: shop.orders", "topic: true"),
        ("topic: shop.orders", "topic: shop.orders, numberOfConsumers: two"),
        ("topic: shop.orders", "topic: shop.orders, numberOfConsumers: 0"),
        ("topic: shop.orders", "topic: shop.orders, generation: 99999999999"),
        ("format: json", "format: jsn"),
        ("  - events: [Placed]", "  - 5\n  - events: [Placed]"),
        ("events: [Placed]", "events: [Placed, 7]"),
        ("jsonColumns: [body]", "jsonColumns: body"),
        ("jsonColumns: [body]", "jsonColumns: [body]\n      quarantineThreshold: 1.5"),
        ("jsonColumns: [body]", "jsonColumns: [body]\n      provenance: yes"),
        ("- {name: mail, type: string}", "- mail"),
        ("- lower: {column: mail}", "- lowr: {column: mail}"),
        ("- lower: {column: mail}", "- {lower: {column: mail}, drop: {columns: [id]}}"),
        ("- lower: {column: mail}", "- drop: {columns: []}"),
        ("      - lower: {column: mail}\n", "      - lower: {column: mail}\n---\nname: b\n"),
    ];
    insta::assert_snapshot!(spoil(PIPELINE, &cases, |text| check(FIRN, &[text])), @r#"
    # 
    a.yaml:1:1: name: missing
    # nam: orders⏎
    a.yaml:1:1: nam: unknown key; did you mean `name`?
    # name: orders⏎name: other⏎
    a.yaml:2:1: key `name` comes twice; first at line 1
    # name: 5⏎
    a.yaml:1:7: name: expected text, found a whole number; put it in quotes
    # name: orders⏎zzz: 1⏎
    a.yaml:2:1: zzz: unknown key; known are `ingestionUnit`, `name`, `outsourcingUnit`, `streams`
    # name:
    a.yaml:1:1: name: expected text, found nothing
    # name: [orders
    a.yaml:2:14: not YAML: illegal placement of ':' indicator
    # name: &x orders
    a.yaml:1:10: anchors (`&name`) are not supported; write the value out
    # name: !x orders
    a.yaml:1:10: tags (`!name`) are not supported
    # - name
    a.yaml:2:1: not YAML: while parsing a block collection, did not find expected '-' indicator
    # 
    a.yaml:3:10: ingestionUnit.kafka.cluster: missing
    # topic: {regx: a}
    a.yaml:3:36: ingestionUnit.kafka.topic.regx: unknown key; did you mean `regex`?
    # topic: true
    a.yaml:3:35: ingestionUnit.kafka.topic: expected text or a list or a mapping, found true or false; put it in quotes
    # topic: shop.orders, numberOfConsumers: two
    a.yaml:3:67: ingestionUnit.kafka.numberOfConsumers: expected a whole number, found text
    # topic: shop.orders, numberOfConsumers: 0
    a.yaml:3:67: ingestionUnit.kafka.numberOfConsumers: must be between 1 and 256, found 0
    # topic: shop.orders, generation: 99999999999
    a.yaml:3:60: ingestionUnit.kafka.generation: must be between 1 and 4294967295, found 99999999999
    # format: jsn
    a.yaml:5:13: ingestionUnit.incomingData.format: `jsn` is not one of `json`, `debezium`, `dynamodb`, `avro`, `protobuf`; did you mean `json`?
    #   - 5⏎  - events: [Placed]
    a.yaml:9:5: outsourcingUnit[0]: expected a mapping, found a whole number
    # events: [Placed, 7]
    a.yaml:9:22: outsourcingUnit[0].events[1]: expected text, found a whole number; put it in quotes
    # jsonColumns: body
    a.yaml:13:20: outsourcingUnit[0].table.jsonColumns: expected a list, found text
    # jsonColumns: [body]⏎      quarantineThreshold: 1.5
    a.yaml:14:28: outsourcingUnit[0].table.quarantineThreshold: must be between 0 and 1, found 1.5
    # jsonColumns: [body]⏎      provenance: yes
    a.yaml:14:19: outsourcingUnit[0].table.provenance: expected true or false, found text
    # - mail
    a.yaml:19:11: outsourcingUnit[0].table.columns[2]: expected a mapping, found text
    # - lowr: {column: mail}
    a.yaml:23:9: outsourcingUnit[0].transformations[1].lowr: unknown key, expected one of 115 functions (docs/functions.md); did you mean `lower`?
    # - {lower: {column: mail}, drop: {columns: [id]}}
    a.yaml:23:9: outsourcingUnit[0].transformations[1]: expected a mapping of one key, one of 115 functions (docs/functions.md); found 2 keys
    # - drop: {columns: []}
    a.yaml:23:25: outsourcingUnit[0].transformations[1].drop.columns: must not be empty
    #       - lower: {column: mail}⏎---⏎name: b⏎
    a.yaml:24:1: a second document; only one is read from a file
    "#);
}
