//! What can be known of `deploy/` without a container runtime and without AWS: the images are built of this tree and hold the
//! libraries that the programs load, policies allow what the clients call, manifests of Kubernetes give what the
//! configuration asks for.

use std::collections::BTreeSet;
use std::process::Command;

use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::programs::program;
use firn_shared::cli::{DIFFERENCE, OVER_THRESHOLD, exit_code};
use firn_shared::config::units::{ByteSize, Period};
use firn_shared::config::yaml_as_json;
use firn_shared::error::ErrorKind;
use serde_json::Value;

/// Debian 12: which package of the Dockerfile brings which library. The image itself has those of `libc6` and `libgcc-s1`.
const PACKAGES: [(&str, &[&str]); 2] = [("libssl3", &["libssl.so.3", "libcrypto.so.3"]), ("zlib1g", &["libz.so.1"])];
const IN_THE_IMAGE: [&str; 7] =
    ["ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"];

fn read(path: &str) -> String {
    std::fs::read_to_string(source_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dockerfile() -> String {
    read("deploy/Dockerfile")
}

/// The stages of the Dockerfile, by name.
fn stage(name: &str) -> String {
    let text = dockerfile();
    let end = format!(" AS {name}\n");
    let (_, rest) = text.split_once(&end).unwrap_or_else(|| panic!("the Dockerfile has no stage {name}"));
    rest.split("\nFROM ").next().unwrap().to_owned()
}

#[test]
fn images_hold_the_libraries_that_the_programs_load() {
    let base = stage("base");
    let provided: BTreeSet<&str> = PACKAGES
        .iter()
        .filter(|(package, _)| base.split_whitespace().any(|word| word == *package))
        .flat_map(|(_, libraries)| libraries.iter().copied())
        .chain(IN_THE_IMAGE)
        .collect();
    for name in ["landing", "compactor"] {
        let listed = Command::new("ldd").arg(program(name)).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let loaded = text.lines().filter_map(|line| line.split_whitespace().next());
        let loaded =
            loaded.map(|path| path.rsplit('/').next().unwrap_or(path)).filter(|lib| !lib.starts_with("linux-vdso"));
        let missing: Vec<&str> = loaded.filter(|library| !provided.contains(library)).collect();
        assert!(missing.is_empty(), "{name} loads {missing:?}, which the image does not have");
    }
}

#[test]
fn images_are_built_from_this_tree_and_start_its_programs() {
    let (text, build) = (dockerfile(), stage("build"));
    let manifest = std::fs::read_to_string(source_dir().join("Cargo.toml")).unwrap();
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    assert!(text.contains(&format!("FROM rust:{rust}-bookworm AS build\n")), "the image builds with Rust {rust}");
    for name in ["landing", "compactor"] {
        assert!(build.contains(&format!("--bin {name}")), "{name} is built");
        let stage = stage(name);
        assert!(stage.contains(&format!("/src/target/release/{name} /usr/local/bin/{name}\n")), "{name} is copied");
        assert!(stage.contains(&format!("ENTRYPOINT [\"{name}\"]\n")), "{name} is started");
        let run = firn_e2e::rig::programs::run(name, &["run".to_owned(), "--help".to_owned()]).unwrap();
        assert!(stage.contains("CMD [\"run\"]") && run.code == Some(0), "{name} has the command `run`");
    }
    // The build needs no more than `localstack/setup` installs for the same crates.
    let setup = std::fs::read_to_string(source_dir().join("localstack/setup")).unwrap();
    for package in ["libssl-dev", "zlib1g-dev", "pkg-config"] {
        assert!(setup.contains(package) && build.contains(package), "{package} is installed before the build");
    }
}

/// The operations that a client of AWS is asked for in a source file, as policies write them.
fn called(service: &str, source: &str) -> BTreeSet<String> {
    let text: String = read(source).split_whitespace().collect();
    let calls = text.split("client.").skip(1).filter_map(|rest| rest.trim_start_matches("sdk.").split_once("()"));
    let calls = calls
        .map(|(call, _)| call)
        .filter(|call| call.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b)));
    let capital =
        |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect::<String>();
    calls
        .map(|call| call.split('_').map(capital).collect::<String>())
        // Asked by tests.
        .filter(|operation| operation != "ListMultipartUploads")
        .map(|operation| match operation.as_str() {
            "HeadBucket" | "ListObjectsV2" => "s3:ListBucket".to_owned(),
            "HeadObject" => "s3:GetObject".to_owned(),
            "ListObjectVersions" => "s3:ListBucketVersions".to_owned(),
            "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => "s3:PutObject".to_owned(),
            _ => format!("{service}:{operation}"),
        })
        .collect()
}

/// What a policy allows of a service.
fn allowed(service: &str, policy: &str) -> BTreeSet<String> {
    let policy: Value = serde_json::from_str(&read(policy)).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter().map(|statement| &statement["Action"]);
    let actions = statements.flat_map(|action| action.as_array().cloned().unwrap_or_else(|| vec![action.clone()]));
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .filter(|a| a.starts_with(&format!("{service}:")))
        .collect()
}

#[test]
fn policies_allow_what_the_clients_call_and_nothing_else() {
    for (policy, service, sources) in [
        ("compactor", "s3", &["shared/src/store/s3/mod.rs", "shared/src/store/s3/writer.rs"][..]),
        ("compactor", "glue", &["compactor/src/table/catalog/glue.rs"]),
        ("compactor-erase", "glue", &["compactor/src/table/catalog/glue_list.rs"]),
        ("compactor", "kms", &["shared/src/crypto/kms.rs"]),
        ("landing", "kms", &["shared/src/crypto/kms.rs"]),
        ("compactor-grants", "lakeformation", &["compactor/src/access/lake_formation.rs"]),
    ] {
        let called: BTreeSet<String> = sources.iter().flat_map(|source| called(service, source)).collect();
        assert_eq!(allowed(service, &format!("deploy/iam/{policy}.json")), called, "{service} of {policy}");
    }
    let mut versions = called("s3", "shared/src/store/s3/versions.rs");
    versions.insert("s3:DeleteObjectVersion".to_owned());
    assert!(
        versions.len() > 3 && versions.is_subset(&allowed("s3", "deploy/iam/compactor-erase.json")),
        "{versions:?}"
    );
    assert!(!allowed("s3", "deploy/iam/landing.json").contains("s3:DeleteObject"), "landing deletes nothing");
}

#[test]
fn kubernetes_gives_what_the_example_asks_for() {
    let firn = yaml_as_json(&read("deploy/examples/github/firn.yaml")).unwrap();
    let manifest = |name: &str| yaml_as_json(&read(&format!("deploy/kubernetes/{name}.yaml"))).unwrap();
    let bytes = |value: &Value, unit: &str| format!("{}{unit}", value.as_str().unwrap()).parse::<ByteSize>().unwrap().0;
    let (landing, compactor) = (manifest("landing"), manifest("compactor"));
    let (landing, job) = (&landing["spec"]["template"]["spec"], &compactor["spec"]["jobTemplate"]["spec"]);
    for (program, pod) in [("landing", landing), ("compactor", &job["template"]["spec"])] {
        let limit = bytes(&pod["containers"][0]["resources"]["limits"]["memory"], "B");
        assert!(limit >= bytes(&firn[program]["memory"], "") + (100 << 20), "{program} is killed at {limit} bytes");
    }
    let drain: Period = firn["landing"]["drain"].as_str().unwrap_or("30s").parse().unwrap();
    assert!(landing["terminationGracePeriodSeconds"].as_u64() > Some(drain.0.as_secs()));
    let port = firn["landing"]["listen"].as_str().unwrap().rsplit(':').next().unwrap();
    assert_eq!(landing["containers"][0]["ports"][0]["containerPort"].to_string(), port);

    assert_eq!(compactor["spec"]["concurrencyPolicy"], "Forbid");
    let kinds = [ErrorKind::Config, ErrorKind::Data, ErrorKind::Bug].map(exit_code);
    let final_codes: BTreeSet<u64> = kinds.into_iter().chain([DIFFERENCE, OVER_THRESHOLD]).map(u64::from).collect();
    let codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"].as_array().unwrap();
    assert_eq!(codes.iter().filter_map(Value::as_u64).collect::<BTreeSet<_>>(), final_codes);
}
