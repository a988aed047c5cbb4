//! A WebAssembly plug-in from a store, through the programs: pinned, planned with, run, and its refusals in quarantine.

use bytes::Bytes;
use firn_e2e::rig::kafka::{Kafka, Record, block_on};
use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::s3::{Kind, S3Server};
use firn_e2e::rig::workspace::Workspace;
use firn_shared::store::{PutMode, PutOutcome};
use serde_json::json;

#[test]
fn a_plugin_in_a_store_makes_columns_and_what_it_refuses_is_in_quarantine() {
    let kafka = Kafka::shared();
    kafka.create_topic("transfers", 2, &[]).unwrap();
    let workspace = Workspace::glue("plugins", kafka).unwrap();
    let file = std::fs::read(source_dir().join("deploy/plugins/bank/bank.wasm")).unwrap();
    let bucket = block_on(S3Server::shared(Kind::Ministack).bucket("firn")).unwrap();
    let put = |file: Bytes| {
        let outcome = block_on(bucket.put("plugins/bank.wasm", file, PutMode::Overwrite)).unwrap();
        assert_eq!(outcome, PutOutcome::Written);
    };
    put(file.into());
    let example = source_dir().join("deploy/examples/plugins/pipelines/transfers.yaml");
    workspace.pipeline("transfers", &std::fs::read_to_string(example).unwrap()).unwrap();

    // Without a hash it is not taken, and the check says what it is.
    let plugin = "plugins: {bank: {path: 's3://firn/plugins/bank.wasm', memory: 16MB}}\nlanding:";
    workspace.reconfigure("landing:", plugin).unwrap();
    let told = workspace.compactor(&["check"]).unwrap().expect(&[2]).unwrap().stderr;
    assert!(told.contains("plugins.bank: plug-in `bank`: `sha256` is missing"), "{told}");
    let hash = told.split_whitespace().last().unwrap();
    workspace.reconfigure("memory: 16MB", &format!("memory: 16MB, sha256: {hash}")).unwrap();
    let explained = workspace.compactor(&["explain"]).unwrap().expect(&[0]).unwrap().stdout;
    assert!(explained.contains("by WebAssembly") && explained.contains("+iban string"), "{explained}");

    let accounts = ["de89 3704 0044 0532 0130 00", "DE89 3704 0044 0532 0130 01", "GB82-WEST-1234-5698-7654-32"];
    let events = accounts.iter().enumerate().map(|(id, account)| {
        let charges = vec![0.25; id];
        json!({"id": id, "at": "2026-11-22T07:00:00Z", "account": account, "fee": 1, "amount": 100 * id, "charges": charges})
    });
    kafka.produce("transfers", events.map(|event| Record::of(event.to_string()))).unwrap();
    workspace.land().unwrap();
    workspace.compact().unwrap();
    let ask = |table: &str, sql: &str| workspace.access().duckdb(table, sql).unwrap();
    let rows = [json!([0, "DE89370400440532013000", 0.0, "0.00"]), json!([2, "GB82WEST12345698765432", 0.5, "0.50"])];
    assert_eq!(
        json!(ask("bank.transfers", "SELECT id, iban, fee_percent, charged::VARCHAR FROM t ORDER BY id")),
        json!(rows)
    );
    let refused = ask("bank.transfers_quarantine", "SELECT json_path, detail, step FROM t");
    assert_eq!(refused[0][..2], [json!("account"), json!("text that is no IBAN, or of another country")]);
    let step = refused[0][2].as_str().unwrap();
    assert!(refused.len() == 1 && step.ends_with("transfers.yaml:21:9"), "{step}");
    workspace.reconcile().unwrap();

    // Somebody has replaced the file: nothing runs.
    put(Bytes::from_static(b"\0asm\x01\0\0\0"));
    let told = workspace.compactor(&["run"]).unwrap().expect(&[2]).unwrap().stderr;
    assert!(told.contains("not the one given here"), "{told}");
}
