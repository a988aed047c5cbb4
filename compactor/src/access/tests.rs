#![allow(clippy::unwrap_used, reason = "everything here is test code")]

use std::fs;

use firn_shared::config::Config;
use firn_shared::store::LocalStore;

use super::managed::Managed;
use super::*;

const PIPELINE: &str = "name: shop
ingestionUnit:
  kafka: {cluster: events, topic: shop}
  incomingData: {format: json, eventTime: {path: $.at, format: rfc3339}}
outsourcingUnit:
  - table:
      database: shop
      tableName: orders
      piiColumns:
        - {name: email, protect: encrypt, token: true}
        - {name: 'address.street', protect: mask}
        - {name: note, protect: keep}
      columns:
        - {name: id, type: long}
        - {name: email, type: string}
        - {name: address, type: 'struct<street: string, city: string>'}
        - {name: note, type: string}
  - table: {database: shop, tableName: goods, columns: [{name: id, type: long}, {name: cost, type: long}]}
  - table: {database: stock, tableName: places, columns: [{name: id, type: long}]}
";

/// The deployment with these roles; line 8 of firn.yaml is the first of them.
fn config(roles: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let firn = format!(
        "clusters: {{events: {{brokers: 'localhost:9092'}}}}
raw: s3://lake/raw
warehouse: s3://lake/tables
catalog: {{glue: {{region: eu-central-1}}}}
keys: {{people: {{kms: alias/people}}}}
access:
  roles:
{roles}"
    );
    fs::write(dir.path().join("firn.yaml"), firn).unwrap();
    fs::write(dir.path().join("shop.yaml"), PIPELINE).unwrap();
    firn_shared::config::load(&dir.path().join("firn.yaml"), &[dir.path().join("shop.yaml")]).unwrap()
}

/// A role of this letter.
fn role(letter: char, reads: &str) -> String {
    format!("    {letter}: {{principals: arn:aws:iam::1:role/{letter}, reads: [{reads}]}}\n")
}

/// What these roles are granted where there is nothing yet.
fn granted(roles: &str) -> String {
    let wanted = wanted(&config(roles)).unwrap();
    let steps: Vec<String> = difference(&wanted, &Permissions::new()).iter().map(ToString::to_string).collect();
    steps.join("\n").replace("arn:aws:iam::1:role/", "")
}

#[test]
fn a_role_reads_the_tables_of_a_database_without_personal_data() {
    insta::assert_snapshot!(granted(&role('a', "{database: shop}")), @r"
    + a: DESCRIBE on database shop
    + a: DESCRIBE on shop.goods
    + a: DESCRIBE on shop.orders
    + a: SELECT on shop.goods (_firn, cost, id)
    + a: SELECT on shop.orders (_firn, _key_people, email_token, id)
    ");
}

#[test]
fn personal_data_and_quarantine_are_granted_by_name_only() {
    let reads = "{database: shop, tables: [orders, orders_quarantine], personal: true}";
    insta::assert_snapshot!(granted(&role('b', reads)), @r"
    + b: DESCRIBE on database shop
    + b: DESCRIBE on shop.orders
    + b: DESCRIBE on shop.orders_quarantine
    + b: SELECT on shop.orders
    + b: SELECT on shop.orders_quarantine
    ");
}

#[test]
fn columns_are_chosen_or_left_out_and_add_up() {
    let roles = [
        role('a', "{database: shop, tables: [goods], columns: [id]}, {database: shop, columns: [cost]}"),
        role('b', "{database: shop, exclude: [cost, _firn]}, {database: shop, columns: [email], personal: true}"),
    ];
    insta::assert_snapshot!(granted(&roles.concat()), @r"
    + a: DESCRIBE on database shop
    + a: DESCRIBE on shop.goods
    + b: DESCRIBE on database shop
    + b: DESCRIBE on shop.goods
    + b: DESCRIBE on shop.orders
    + a: SELECT on shop.goods (cost, id)
    + b: SELECT on shop.goods (id)
    + b: SELECT on shop.orders (_key_people, email, email_token, id)
    ");
}

#[test]
fn what_no_pipeline_has_is_refused_with_its_place() {
    for (reads, expected) in [
        (
            "{database: shopp}",
            "8:63: access.roles.a.reads[0].database: no pipeline fills a table of `shopp`, but of shop, stock",
        ),
        (
            "{database: shop, tables: [order]}",
            "8:78: access.roles.a.reads[0].tables[0]: no pipeline fills a table `order` of shop, but orders, goods",
        ),
        (
            "{database: shop, tables: [goods], columns: [price]}",
            "reads[0].columns[0]: table goods has no column `price`",
        ),
        ("{database: shop, exclude: [price]}", "reads[0].exclude[0]: no table of shop has a column `price`"),
        ("{database: shop, tables: [orders], columns: [email]}", "say `personal: true` to grant it"),
        ("{database: shop, tables: [orders], columns: [note]}", "column `note` of orders is personal data"),
        ("{database: shop, tables: [orders_quarantine]}", "orders_quarantine holds whole records"),
        ("{database: stock, exclude: [id, _firn], tables: [places]}", "nothing is left of table places to read"),
    ] {
        let error = wanted(&config(&role('a', reads))).unwrap_err().to_string();
        assert!(error.contains("firn.yaml:8:") && error.contains(expected), "{error}");
    }
    let both = wanted(&config(&role('a', "{database: x}, {database: y}"))).unwrap_err().to_string();
    assert_eq!(both.lines().count(), 2, "{both}");
}

fn table(name: &str) -> Resource {
    Resource::Table { database: "shop".into(), table: name.into() }
}

fn columns(name: &str, columns: Names) -> Resource {
    Resource::Columns { database: "shop".into(), table: name.into(), columns }
}

fn only(names: &[&str]) -> Names {
    Names::Only(names.iter().map(ToString::to_string).collect())
}

/// Permissions of one principal.
fn permissions(all: &[(Resource, &[&str])]) -> Permissions {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    all.iter().map(|(resource, held)| (("a".to_owned(), resource.clone()), names(held))).collect()
}

fn steps(wanted: &Permissions, found: &Permissions) -> String {
    let steps: Vec<String> = difference(wanted, found).iter().map(ToString::to_string).collect();
    steps.join("\n")
}

#[test]
fn only_the_difference_is_revoked_and_granted() {
    let wanted = permissions(&[(table("a"), &["SELECT", "DESCRIBE"]), (table("b"), &["SELECT"])]);
    let found = permissions(&[
        (table("a"), &["SELECT", "DELETE"]),
        (table("b"), &["SELECT"]),
        (table("c"), &["SELECT"]),
        (Resource::AllTables { database: "shop".into() }, &["SELECT"]),
    ]);
    insta::assert_snapshot!(steps(&wanted, &found), @r"
    - a: SELECT on all tables of shop
    - a: DELETE on shop.a
    - a: SELECT on shop.c
    + a: DESCRIBE on shop.a
    ");
    assert_eq!(difference(&wanted, &wanted), []);
}

#[test]
fn columns_are_added_by_themselves_and_lists_that_say_too_much_are_made_anew() {
    let select: &[&str] = &["SELECT"];
    let wanted = permissions(&[(columns("t", only(&["id", "at"])), select)]);
    let found = |all: &[Names]| {
        let all: Vec<_> = all.iter().map(|names| (columns("t", names.clone()), select)).collect();
        permissions(&all)
    };
    assert_eq!(steps(&wanted, &found(&[only(&["id"])])), "+ a: SELECT on shop.t (at)");
    assert_eq!(steps(&wanted, &found(&[only(&["id"]), only(&["at"])])), "", "two lists say the same");
    let anew = "- a: SELECT on shop.t (email, id)\n+ a: SELECT on shop.t (at, id)";
    assert_eq!(steps(&wanted, &found(&[only(&["id", "email"])])), anew);
    let but = Names::AllBut(BTreeSet::from(["email".to_owned()]));
    let anew = "- a: SELECT on shop.t (all but email)\n+ a: SELECT on shop.t (at, id)";
    assert_eq!(steps(&wanted, &found(&[but])), anew, "columns to come are no longer granted");
    let whole = permissions(&[(table("t"), select)]);
    assert_eq!(steps(&wanted, &whole), "- a: SELECT on shop.t\n+ a: SELECT on shop.t (at, id)");
    assert_eq!(steps(&whole, &wanted), "- a: SELECT on shop.t (at, id)\n+ a: SELECT on shop.t");
}

#[tokio::test]
async fn what_is_managed_is_kept_in_the_warehouse() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = LocalStore::new(dir.path()).unwrap();
    assert!(managed::load(&warehouse).await.unwrap().is_empty());
    let held = managed::of(&permissions(&[(table("a"), &["SELECT"]), (table("b"), &["SELECT"])]));
    assert_eq!(held, BTreeSet::from([Managed { principal: "a".into(), database: "shop".into() }]));
    managed::save(&warehouse, held.clone()).await.unwrap();
    assert_eq!(managed::load(&warehouse).await.unwrap(), held);
}
