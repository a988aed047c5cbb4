//! Personal data that cannot be protected as the file says, and what is said about it.

use super::*;
use crate::config::domain::{KeySource, Mask, Protect};
use crate::types::LogicalType;

const KEYS: &str = "keys:\n  people: {file: keys.yaml}\n";

/// The good pipeline with these entries of `piiColumns`, and the answer.
fn pii(entries: &str) -> String {
    pii_with(entries, |pipeline| pipeline)
}

fn pii_with(entries: &str, change: impl Fn(String) -> String) -> String {
    let pipeline =
        PIPELINE.replace("jsonColumns: [body]", &format!("jsonColumns: [body]\n      piiColumns:\n{entries}"));
    let answer = check(&format!("{FIRN}{KEYS}"), &[&change(pipeline)]);
    answer.map_or_else(|problems| problems.to_string(), |_| "passes".to_owned())
}

fn entry(text: &str) -> String {
    format!("        - {{{text}}}\n")
}

#[test]
fn protections_change_the_columns_of_the_table() {
    let entries = [
        "name: mail, protect: encrypt, token: true, aad: x, encoding: binary",
        "name: id, protect: mask, mask: last(2)",
        "name: body, protect: drop",
    ];
    let entries: String = entries.iter().map(|text| entry(text)).collect();
    let pipeline = PIPELINE
        .replace("jsonColumns: [body]", &format!("jsonColumns: [body]\n      piiColumns:\n{entries}"))
        .replace("sortBy: [id]", "sortBy: [at]");
    let config = check(&format!("{FIRN}{KEYS}"), &[&pipeline]).unwrap_or_else(|problems| panic!("{problems}"));
    let output = &config.pipelines.values().next().unwrap().outputs[0];
    let columns: Vec<(String, LogicalType)> = columns_after(output).into_iter().map(|c| (c.name, c.r#type)).collect();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "at", "mail", "mail_token", "size", "_key_people"]);
    assert_eq!(columns[0].1, LogicalType::String);
    assert_eq!((&columns[2].1, &columns[3].1), (&LogicalType::Binary, &LogicalType::String));
    assert_eq!(output.table.protections[1].how, Protect::Mask(Mask::Last(2)));
    let key = config.deployment.keys.values().next().unwrap();
    assert!(matches!(&key.source, KeySource::File(path) if path.ends_with("keys.yaml")));
    assert_eq!(key.store.to_string(), "file:///data/tables/_keys");
    // What is shown reads back as the same.
    let shown = crate::config::show(&config);
    assert!(
        shown.contains("mask: last(2)") && shown.contains("aad: x") && shown.contains("encoding: binary"),
        "{shown}"
    );
}

#[test]
fn mistakes_in_protections_are_explained() {
    for (text, expected) in [
        ("name: mial, protect: drop", "piiColumns[0].name: no column `mial` here; did you mean `mail`?"),
        ("name: mail.x, protect: drop", "`.x` is for structs, here is string"),
        ("name: 'mail[]', protect: mask", "`[]` is for lists and maps, here is string"),
        ("name: id, protect: redact, pattern: email", "`redact` looks through text, here is long"),
        ("name: mail, protect: redact", "`redact` needs `pattern` or `patterns`"),
        ("name: mail, protect: redact, pattern: 'a('", "`a(` is neither a named pattern nor a regular expression"),
        ("name: mail, protect: mask, mask: some", "mask `some`: expected `all`, `first(n)`"),
        ("name: mail, protect: hash, mask: all", "piiColumns[0].mask: belongs to `protect: mask`"),
        ("name: mail, protect: token, encoding: binary", "piiColumns[0].encoding: belongs to `protect: encrypt`"),
        ("name: mail, protect: token, token: true", "`protect: token` is the token already"),
        ("name: mail, protect: drop, token: true", "write `protect: token` to keep only the token"),
        ("name: mail, protect: mask, key: people", "this protection needs no key"),
        ("name: mail, protect: token, key: poeple", "no key `poeple` in firn.yaml; did you mean `people`?"),
        ("name: mail, protect: encrypt, subject: who", "piiColumns[0].subject: no column `who` here"),
        (
            "name: mail, protect: encrypt, subject: body",
            "column `body` is json; a subject is text, a whole number or a uuid",
        ),
        (
            "name: id, protect: encrypt",
            "sortBy[0]: column `id` is encrypted with a fresh iv for every value, so no two are equal; add `token: true` and use `id_token`",
        ),
        ("name: at, protect: token", "`hour(at)` does not suit column `at`, which is string"),
        ("name: size, protect: token", "column `body` holds `size` in plain, at $.body"),
    ] {
        let answer = pii(&entry(text));
        assert!(answer.contains(expected), "{text}\n{answer}\n{expected}");
    }
    let twice = entry("name: mail, protect: mask") + &entry("name: mail, protect: hash");
    assert!(pii(&twice).contains("`mail` is protected already, as `mail`"));
    let kept = entry("name: size, protect: token") + &entry("name: body, protect: keep");
    assert_eq!(pii(&kept), "passes", "somebody looked at it");
    let subjects = entry("name: mail, protect: encrypt, subject: id") + &entry("name: body, protect: encrypt");
    assert!(pii(&subjects).contains("is sealed with `people` for another `subject`"), "{}", pii(&subjects));
}

/// A subject that cannot be told apart in the table any more needs a key beside the values.
#[test]
fn subjects_that_are_hidden_are_found_by_key_or_refused() {
    let of_subject = |how: &str| entry(&format!("name: mail, protect: {how}, subject: id"));
    let unsorted = |pipeline: String| pipeline.replace("      sortBy: [id]\n", "");
    for (subject, lost) in [("mask", "masked"), ("drop", "dropped"), ("encrypt", "encrypted without a token")] {
        let subject = entry(&format!("name: id, protect: {subject}"));
        let answer = pii_with(&(of_subject("token") + &subject), unsorted);
        let expected = format!(
            "piiColumns[0].subject: column `id` is {lost}, so erasure would not find the rows of a subject again and `mail` \
             would stay; give `id` a token, or encrypt `mail`"
        );
        assert!(answer.contains(&expected), "{answer}");
        let answer = pii_with(&(of_subject("drop") + &subject), unsorted);
        assert!(!answer.contains("would not find the rows"), "{answer}");
    }
    for subject in ["hash", "token", "keep", "mask, token: true", "encrypt, token: true"] {
        let answer = pii_with(&(of_subject("mask") + &entry(&format!("name: id, protect: {subject}"))), unsorted);
        assert!(!answer.contains("would not find the rows"), "{subject}\n{answer}");
    }
    let sealed = of_subject("encrypt") + &entry("name: id, protect: mask");
    assert!(!pii_with(&sealed, unsorted).contains("would not find the rows"), "{}", pii_with(&sealed, unsorted));
}

/// What a function makes of a protected value is followed, whatever the function.
#[test]
fn values_that_functions_make_of_protected_ones_are_not_left_in_plain() {
    let mail = entry("name: mail, protect: encrypt, token: true, subject: id");
    for (step, column) in [
        ("copy: {from: mail, to: again}", "again"),
        ("upper: {column: mail, as: loud}", "loud"),
        ("regexExtract: {column: mail, pattern: '@(.*)', as: domain}", "domain"),
        ("length: {column: mail, as: chars}", "chars"),
        ("concat: {columns: [mail, mail], as: both}", "both"),
        ("sha256: {column: mail, as: digest}", "digest"),
        ("split: {column: mail, separator: '@', as: parts}", "parts"),
        ("expr: {sql: 'LOWER(mail)', as: quiet, type: string}", "quiet"),
    ] {
        let with = |entries: &str| {
            pii_with(entries, |pipeline| {
                let lower = "      - lower: {column: mail}";
                assert!(pipeline.contains(lower));
                pipeline.replace(lower, &format!("{lower}\n      - {step}"))
            })
        };
        let answer = with(&mail);
        assert!(answer.contains(&format!("piiColumns[0].name: column `{column}` ")), "{step}\n{answer}");
        let entry_of = |rest: &str| format!("{mail}{}", entry(&format!("name: {column}, {rest}")));
        assert_eq!(with(&entry_of("protect: keep")), "passes", "{step}: somebody looked at it");
        assert_eq!(with(&entry_of("protect: token, subject: id")), "passes", "{step}");
        let answer = with(&entry_of("protect: token"));
        assert!(answer.contains("which goes when its subject is erased; give it a `subject`, too"), "{step}\n{answer}");
    }
}

/// A second table of the pipeline with these columns and what else is said of it.
fn beside(columns: &str, more: &str) -> impl Fn(String) -> String {
    let table = format!(
        "  - table:\n      database: shop\n      tableName: copies\n      columns:\n        - {{name: at, type: timestamptz}}\n\
         {columns}      partitionBy: [hour(at)]\n{more}"
    );
    move |pipeline: String| pipeline + &table
}

#[test]
fn what_one_table_protects_is_not_left_in_plain_in_another() {
    let mail = entry("name: mail, protect: encrypt, token: true, subject: id");
    for (columns, more, expected) in [
        (
            "name: post, type: string, path: $.mail",
            "",
            "columns[1].name: column `post` holds `mail` of table shop.orders in plain, at $.mail; protect it here, too, or say \
             `{name: post, protect: keep}`",
        ),
        ("name: all, type: json, path: $.mail", "", "column `all` holds `mail` of table shop.orders"),
        (
            "name: post, type: string, path: $.mail",
            "    transformations:\n      - upper: {column: post, as: loud}\n      - drop: {columns: [post]}\n",
            "tableName: column `loud` is made of `mail` of table shop.orders in plain",
        ),
        (
            "name: post, type: string, path: $.mail",
            "      piiColumns: [{name: post, protect: mask}]\n",
            "piiColumns[0].name: `post` is made of $.mail, as `mail` of table shop.orders is, which goes when",
        ),
    ] {
        let answer = pii_with(&mail, beside(&entry(columns), more));
        assert!(answer.contains(expected) && answer.contains("a.yaml:"), "{columns} {more}\n{answer}");
    }
    let post = entry("name: post, type: string, path: $.mail");
    for more in [
        "      piiColumns: [{name: post, protect: keep}]\n",
        "      piiColumns: [{name: post, protect: hash, subject: at_id}]\n",
        "    events: [Shipped]\n",
        "    transformations:\n      - drop: {columns: [post]}\n",
    ] {
        let columns = format!("{post}{}", entry("name: at_id, type: long, path: $.id"));
        let answer = pii_with(&mail, beside(&columns, more));
        assert_eq!(answer, "passes", "{more}");
    }
    assert_eq!(pii_with(&mail, beside(&entry("name: size, type: int"), "")), "passes");
}

/// An entry for one field says nothing of the others.
#[test]
fn a_struct_beside_a_protected_field_needs_that_field_protected_too() {
    let phone = entry("name: mail, protect: encrypt");
    let person = "name: person, type: 'struct<mail: string, phone: string>'";
    let with = |columns: &str, entries: &str| {
        pii_with(&(phone.clone() + entries), |pipeline| {
            let columns = format!("      columns:\n{}{columns}", entry(person));
            pipeline
                .replace("- {name: mail, type: string}", "- {name: mail, type: string, path: $.person.mail}")
                .replace("      columns:\n", &columns)
        })
    };
    let answer = with("", &entry("name: person.phone, protect: mask"));
    let expected = "column `person` holds `mail` in plain, at $.person; protect it, too, take it out with the step `drop`, or say \
                    `{name: person.mail, protect: keep}`";
    assert!(answer.contains(expected), "{answer}");
    assert_eq!(
        with("", &(entry("name: person.phone, protect: mask") + &entry("name: person.mail, protect: keep"))),
        "passes"
    );
    let labels = entry("name: labels, type: 'map<string, string>'") + &entry("name: a, type: string, path: $.labels.a");
    let answer = with(&labels, &(entry("name: person, protect: mask") + &entry("name: 'labels[]', protect: encrypt")));
    assert!(answer.contains("column `a` holds `labels[]` in plain, at $.labels.a"), "{answer}");
}

#[test]
fn a_value_of_a_subject_can_be_null_all_the_way() {
    let with = |r#type: &str, path: &str| {
        let who = entry(&format!("name: '{path}', protect: encrypt, subject: id"));
        pii_with(&who, |pipeline| {
            let column = entry(&format!("name: who, type: '{type}'"));
            pipeline.replace("      columns:\n", &format!("      columns:\n{column}"))
        })
    };
    for (r#type, path, field) in [
        ("struct<mail: string not null>", "who.mail", "who.mail"),
        ("list<struct<mail: string not null, kind: string>>", "who[].mail", "who[].mail"),
        ("struct<home: struct<mail: string> not null>", "who.home.mail", "who.home"),
    ] {
        let answer = with(r#type, path);
        let expected =
            format!("piiColumns[0].subject: field `{field}` is required, and a value whose key is destroyed");
        assert!(answer.contains(&expected), "{type}\n{answer}");
    }
    assert_eq!(with("list<struct<mail: string, kind: string not null>>", "who[].mail"), "passes");
}

#[test]
fn keys_are_found_by_name_or_because_there_is_one() {
    let entry = entry("name: mail, protect: encrypt");
    let pipeline = PIPELINE.replace("jsonColumns: [body]", &format!("jsonColumns: [body]\n      piiColumns:\n{entry}"));
    let answer = |keys: &str| {
        let answer = check(&format!("{FIRN}{keys}"), &[&pipeline]);
        answer.map_or_else(|problems| problems.to_string(), |_| "passes".to_owned())
    };
    assert_eq!(answer("keys: {a: {kms: alias/a}}"), "passes");
    for (keys, expected) in [
        ("", "piiColumns[0].key: firn.yaml has no keys; add one under `keys`"),
        ("keys: {a: {kms: x}, b: {file: y}}", "missing; firn.yaml has the keys `a`, `b`"),
        ("keys: {a: {kms: x, file: y}}", "has both `kms` and `file`; keep one"),
        ("keys: {a: {}}", "keys.a: needs `kms` or `file`"),
        ("keys: {A: {kms: x}}", "key `A` may hold only lower-case"),
        ("keys: {a: {file: y, context: {b: c}}}", "keys.a.context: belongs to keys from `kms`"),
        ("keys: {a: {kms: y, context: {'firn:x': c}}}", "names that begin with `firn:` are ours"),
        ("keys: {a: {kms: y, reuse: {age: 0s}}}", "keys.a.reuse: must be above 0"),
    ] {
        assert!(answer(keys).contains(expected), "{keys}\n{}\n{expected}", answer(keys));
    }
}

#[test]
fn keys_of_upserts_must_have_equal_values() {
    let upsert = |key: &str| {
        let mode =
            format!("tableName: orders\n      mode: upsert\n      idColumns: [{key}]\n      timestampColumns: [at]");
        move |pipeline: String| pipeline.replace("tableName: orders", &mode)
    };
    let encrypted = entry("name: mail, protect: encrypt, token: true");
    let answer = pii_with(&encrypted, upsert("mail"));
    assert!(answer.contains("idColumns[0]: column `mail` is encrypted with a fresh iv for every value, so no two are equal; use `mail_token`"), "{answer}");
    assert_eq!(pii_with(&encrypted, upsert("mail_token")), "passes");
    let of_subject = entry("name: mail, protect: encrypt, token: true, subject: id");
    let answer = pii_with(&of_subject, upsert("mail_token"));
    assert!(answer.contains("erasure takes `mail_token` out"), "{answer}");
    let answer = pii_with(&of_subject, |p| p.replace("[hour(at)]", "[hour(at), 'bucket(4, mail_token)']"));
    assert!(answer.contains("partitionBy[1]: erasure takes `mail_token` out"), "{answer}");
    let answer = pii_with(&entry("name: at, protect: hash"), |p| upsert("id")(p).replace("[hour(at)]", "[]"));
    assert!(answer.contains("timestampColumns[0]: column `at` is protected, so it has lost its order"), "{answer}");
}

#[test]
fn landing_protects_only_what_nobody_touches_first() {
    let landing = |pipeline: String| pipeline.replace("outsourcingUnit:", "  protectAt: landing\noutsourcingUnit:");
    let mail = entry("name: mail, protect: encrypt");
    let answer = pii_with(&mail, landing);
    assert!(
        answer.contains("steps find ciphertext in `mail`; only those that arrange columns may touch it"),
        "{answer}"
    );
    let untouched = |pipeline: String| landing(pipeline.replace("\n      - lower: {column: mail}", ""));
    assert_eq!(pii_with(&mail, untouched), "passes");
    let answer = pii_with(&entry("name: at, protect: token"), |p| untouched(p).replace("[hour(at)]", "[]"));
    assert!(answer.contains("landing reads `eventTime.path` there"), "{answer}");
    let shapes = |pipeline: String| {
        let columns = "        - {name: user, type: 'struct<mail: string>', path: $.user}\n        - {name: whole, type: string, path: $.user}\n";
        untouched(pipeline).replace("      columns:\n", &format!("      columns:\n{columns}"))
    };
    let answer = pii_with(&entry("name: user.mail, protect: encrypt"), shapes);
    assert!(answer.contains("is string, and landing seals $.user where"), "{answer}");
    for (r#type, meets) in [
        ("string", true),
        ("int", true),
        ("long", true),
        ("uuid", true),
        ("boolean", true),
        ("double", false),
        ("decimal(10,2)", false),
        ("date", false),
        ("time", false),
        ("timestamptz", false),
        ("binary", false),
        ("json", false),
        ("list<int>", false),
        ("struct<a: long>", false),
        ("long, format: base64(2)", false),
    ] {
        let column = format!("      columns:\n        - {{name: v, type: '{type}'}}\n")
            .replace(", format: base64(2)'", "', format: base64(2)");
        let typed = |pipeline: String| untouched(pipeline).replace("      columns:\n", &column);
        for (entry_text, key) in [
            ("name: v, protect: token", "protect"),
            ("name: v, protect: hash", "protect"),
            ("name: v, protect: encrypt, token: true", "token"),
        ] {
            let answer = pii_with(&entry(entry_text), typed);
            let refused = answer.contains(&format!("piiColumns[0].{key}: `v` is "));
            assert_eq!((refused, answer == "passes"), (!meets, meets), "{type} {entry_text}: {answer}");
        }
        assert_eq!(pii_with(&entry("name: v, protect: encrypt"), typed), "passes", "{type}: no token, no question");
    }
    let answer = check(FIRN, &[&landing(PIPELINE.to_owned())]).unwrap_err().to_string();
    assert!(answer.contains("no table of this pipeline has `piiColumns`"), "{answer}");
}
