//! Commands as the command line gives them, on a deployment of local files in which nothing has landed.

use std::path::Path;

use firn_shared::error::ErrorKind;

use super::*;

const FIRN: &str = "
clusters: {c: {brokers: 'localhost:9092'}}
raw: DIR/raw
warehouse: DIR/lake
catalog: {sqlite: {path: DIR/catalog.db}}
compactor: {memory: 128MB, threads: 2}
";

/// A pipeline of the topic and the table `name`.
fn pipeline(name: &str) -> String {
    format!(
        "name: {name}
ingestionUnit:
  kafka: {{cluster: c, topic: {name}}}
  incomingData: {{format: json, eventTime: {{path: $.at, format: rfc3339}}, late: {{allowed: 1h, then: accept}}}}
outsourcingUnit:
  - table: {{database: d, tableName: {name}, columns: [{{name: id, type: long}}]}}
"
    )
}

fn deployment(pipelines: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("firn.yaml", &FIRN.replace("DIR", dir.path().to_str().unwrap()));
    std::fs::create_dir(dir.path().join("pipelines")).unwrap();
    for name in pipelines {
        write(&format!("pipelines/{name}.yaml"), &pipeline(name));
    }
    dir
}

/// What a command ends with.
async fn ended(dir: &Path, args: &[&str]) -> Result<u8> {
    let place = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let places = ["--config".to_owned(), place("firn.yaml"), "--pipelines".to_owned(), place("pipelines")];
    let all = ["compactor".to_owned()].into_iter().chain(places).chain(args.iter().map(|arg| (*arg).to_owned()));
    let cli = Cli::try_parse_from(all).unwrap();
    let config = Arc::new(config::load(&cli.config.unwrap(), &cli.pipelines).unwrap());
    commands::command(cli.command, cli.output, config, Arc::new(SystemClock)).await
}

#[test]
fn a_deployment_that_is_named_is_not_the_default_even_where_the_names_are_alike() {
    let config = |args: &[&str]| Cli::try_parse_from([&["compactor", "test"], args].concat()).unwrap().config;
    assert_eq!(config(&[]), None);
    assert_eq!(config(&["--config", FIRN_YAML]).as_deref(), Some(Path::new(FIRN_YAML)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_do_anything_to_is_no_success() {
    let dir = deployment(&[]);
    for command in ["run", "plan", "reconcile", "maintain", "check", "explain"] {
        let error = ended(dir.path(), &[command]).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("there is no pipeline"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_fails_hides_no_other_and_one_that_is_not_there_is_no_error() {
    let dir = deployment(&["a", "b", "c"]);
    for command in [&["reconcile"][..], &["reconcile", "--deep"], &["inspect", "snapshots"], &["plan"]] {
        assert_eq!(ended(dir.path(), command).await.unwrap(), DONE, "{command:?}");
    }
    let ledger = dir.path().join("raw/c/b/_batches/1/0");
    std::fs::create_dir_all(&ledger).unwrap();
    std::fs::write(ledger.join(format!("{:020}.json", 0)), "junk").unwrap();
    for command in [&["reconcile"][..], &["reconcile", "--output", "json"], &["plan"], &["plan", "--output", "json"]] {
        assert_eq!(ended(dir.path(), command).await.unwrap(), exit_code(ErrorKind::Data), "{command:?}");
    }
    assert_eq!(ended(dir.path(), &["ddl"]).await.unwrap(), DONE);
    assert_eq!(ended(dir.path(), &["inspect", "snapshots"]).await.unwrap(), DONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_that_only_shows_sizes_had_nothing_to_do() {
    let dir = deployment(&["a", "b"]);
    for command in [&["ddl"][..], &["ddl"]] {
        assert_eq!(ended(dir.path(), command).await.unwrap(), DONE);
    }
    for command in [&["maintain"][..], &["maintain", "--output", "json"], &["maintain", "--only", "statistics"]] {
        assert_eq!(ended(dir.path(), command).await.unwrap(), NOTHING_TO_DO, "{command:?}");
    }
}
