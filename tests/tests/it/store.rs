//! The object store against real S3 servers, and against what a network does to requests.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use firn_e2e::rig::procs::PATIENCE;
use firn_e2e::rig::proxy::{Proxy, Spoil};
use firn_e2e::rig::s3::{Kind, S3Server};
use firn_shared::config::domain::{S3Options, Secret, StoreUrl};
use firn_shared::error::ErrorKind;
use firn_shared::store::{Depth, PutMode, PutOutcome, S3Client, S3Limits, S3Store, Store, Stores, conformance};

const ALL: [Kind; 3] = [Kind::SeaweedFs, Kind::Ministack, Kind::LocalStack];

/// Where SeaweedFS differs from S3. Firn's keys hold no backslash, its listings need order only among names of one
/// directory, and nothing asks whether a directory without objects is there.
const SEAWEEDFS_DOES_NOT: &[&str] = &[
    "a_backslash_is_no_slash",
    "listing_is_in_the_order_of_key_bytes",
    "start_after_a_group_does_not_enter_it",
    "what_was_just_written_or_deleted_is_listed_so",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_keeps_what_every_store_promises_but_for_four_known_claims() -> Result<()> {
    let store = S3Server::shared(Kind::SeaweedFs).bucket("conformance").await?;
    conformance::run_except(store, SEAWEEDFS_DOES_NOT).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ministack_keeps_what_every_store_promises() -> Result<()> {
    conformance::run(S3Server::shared(Kind::Ministack).bucket("conformance").await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn localstack_keeps_what_every_store_promises() -> Result<()> {
    conformance::run(S3Server::shared(Kind::LocalStack).bucket("conformance").await?).await
}

/// A bucket of a server, directly and through a proxy.
async fn behind_proxy(kind: Kind) -> Result<(Proxy, S3Store, S3Store)> {
    let server = S3Server::shared(kind);
    let direct = server.s3_bucket("proxied").await?;
    let proxy = Proxy::start(&server.address())?;
    let options = S3Options { endpoint: Some(proxy.endpoint()), ..server.options() };
    let limits = S3Limits { backoff: Duration::from_millis(5), ..S3Limits::default() };
    Ok((proxy, direct, S3Store::new(S3Client::with_limits(&options, limits).await?, "proxied")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_whose_reply_was_lost_is_known_to_be_ours() -> Result<()> {
    for kind in ALL {
        let (proxy, direct, spoiled) = behind_proxy(kind).await?;
        for (name, spoil) in [("cut", Spoil::Answer), ("half", Spoil::AnswerAfter(9)), ("slow", Spoil::SlowDown)] {
            for times in [1, 3] {
                let key = format!("ours/{name}-{times}");
                proxy.spoil(&["PUT", &key], spoil, times);
                let outcome =
                    spoiled.put(&key, "ours".into(), PutMode::Create).await.context(format!("{kind:?} {key}"))?;
                ensure!(outcome == PutOutcome::Written, "{kind:?} {key}: {outcome:?}");
                ensure!(proxy.outstanding() == 0, "{kind:?} {key}: nothing was spoiled");
                ensure!(direct.get(&key).await? == "ours");
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_lost_to_another_writer_and_then_its_reply_has_written_nothing() -> Result<()> {
    for kind in ALL {
        let (proxy, direct, spoiled) = behind_proxy(kind).await?;
        // The same bytes do not make it ours.
        for (key, theirs) in [("theirs/other", "theirs"), ("theirs/same", "ours")] {
            let _written = direct.put(key, theirs.into(), PutMode::Overwrite).await?;
            proxy.spoil(&["PUT", key], Spoil::Answer, 1);
            let outcome = spoiled.put(key, "ours".into(), PutMode::Create).await?;
            ensure!(outcome == PutOutcome::AlreadyExists, "{kind:?} {key}: {outcome:?}");
            ensure!(proxy.outstanding() == 0, "{kind:?} {key}: nothing was spoiled");
            ensure!(direct.get(key).await? == theirs);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_survives_what_the_network_does_to_it() -> Result<()> {
    let body = Bytes::from(vec![7; 20 << 20]);
    for kind in ALL {
        let (proxy, direct, spoiled) = behind_proxy(kind).await?;
        for (name, spoil) in [("request", Spoil::Request), ("answer", Spoil::Answer), ("slow", Spoil::SlowDown)] {
            let key = format!("all/{name}");
            // One of each request that an upload in parts makes.
            for line in [&["POST", "uploads", &key][..], &["PUT", "partNumber=2", &key], &["POST", "uploadId", &key]] {
                proxy.spoil(line, spoil, 1);
            }
            let mut writer = spoiled.writer(&key).await?;
            writer.write(body.clone()).await?;
            let size = writer.close().await.with_context(|| format!("{kind:?} {key}"))?;
            ensure!(size == body.len() as u64);
            for line in [&["GET", &key][..], &["HEAD", &key], &["GET", "list-type=2"], &["DELETE", &key]] {
                proxy.spoil(line, spoil, 2);
            }
            ensure!(spoiled.get(&key).await? == body);
            ensure!(spoiled.head(&key).await?.map(|meta| meta.size) == Some(size));
            ensure!(spoiled.list(&key, None, Depth::All).await?.objects.len() == 1);
            spoiled.delete(&key).await?;
            ensure!(direct.head(&key).await?.is_none());
            ensure!(proxy.outstanding() == 0, "{kind:?} {key}: {} requests were not spoiled", proxy.outstanding());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_read_again() -> Result<()> {
    let body = Bytes::from(vec![7; 3 << 20]);
    for kind in ALL {
        let (proxy, direct, spoiled) = behind_proxy(kind).await?;
        let _written = direct.put("body", body.clone(), PutMode::Overwrite).await?;
        for bytes in [1, 1000, 2 << 20] {
            proxy.spoil(&["GET", "/body"], Spoil::AnswerAfter(bytes), 2);
            ensure!(spoiled.get("body").await? == body);
            ensure!(spoiled.get_range("body", 10..2_000_000).await?.len() == 1_999_990);
            ensure!(proxy.outstanding() == 0);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_end_and_say_what_the_last_one_met() -> Result<()> {
    let server = S3Server::shared(Kind::Ministack);
    server.bucket("proxied").await?;
    let proxy = Proxy::start(&server.address())?;
    let options = S3Options { endpoint: Some(proxy.endpoint()), ..server.options() };
    let limits = S3Limits { attempts: 3, backoff: Duration::from_millis(1), ..S3Limits::default() };
    let store = S3Store::new(S3Client::with_limits(&options, limits).await?, "proxied");
    proxy.spoil(&["GET", "/ends"], Spoil::SlowDown, 4);
    let error = store.get("ends").await.err().context("it cannot succeed")?;
    ensure!(error.kind() == ErrorKind::Unavailable, "{error}");
    let text = error.to_string();
    ensure!(text.contains("s3://proxied/ends: 3 attempts failed, the last with: 503 SlowDown"), "{text}");
    ensure!(proxy.outstanding() == 1, "three attempts were made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_configuration_errors_that_name_operation_and_bucket() -> Result<()> {
    let server = S3Server::shared(Kind::SeaweedFs);
    server.bucket("refusals").await?;
    let stranger = S3Options { credentials: Some(("nobody".into(), Secret::new("wrong"))), ..server.options() };
    let cases = [
        (stranger, "refusals", "access denied"),
        (server.options(), "no-such-bucket", "there is no bucket `no-such-bucket`"),
    ];
    for (options, bucket, expected) in cases {
        let store = S3Store::new(S3Client::connect(&options).await?, bucket);
        let errors = [
            ("read", store.get("k").await.err()),
            ("look at", store.head("k").await.err()),
            ("list", store.list("k", None, Depth::All).await.err()),
            ("write", store.put("k", "x".into(), PutMode::Create).await.err()),
        ];
        for (operation, error) in errors {
            let error = error.with_context(|| format!("{operation} in {bucket} succeeded"))?;
            let text = error.to_string();
            ensure!(error.kind() == ErrorKind::Config, "{operation}: {text}");
            ensure!(text.contains(operation) && text.contains(bucket) && text.contains(expected), "{text}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_unavailable() -> Result<()> {
    let options =
        S3Options { endpoint: Some("http://127.0.0.1:1".into()), ..S3Server::shared(Kind::Ministack).options() };
    let limits = S3Limits { attempts: 2, backoff: Duration::from_millis(1), ..S3Limits::default() };
    let store = S3Store::new(S3Client::with_limits(&options, limits).await?, "lake");
    let error = store.put("k", "x".into(), PutMode::Create).await.err().context("it cannot succeed")?;
    ensure!(error.kind() == ErrorKind::Unavailable, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_encrypted_with_the_configured_kms_key() -> Result<()> {
    for kind in [Kind::Ministack, Kind::LocalStack] {
        let server = S3Server::shared(kind);
        server.bucket("encrypted").await?;
        let key = server.kms_key().await?;
        let options = S3Options { sse_kms_key_id: Some(key.clone()), ..server.options() };
        let store = S3Store::new(S3Client::connect(&options).await?, "encrypted");
        let _written = store.put("put", "x".into(), PutMode::Overwrite).await?;
        let _written = store.put("create", "x".into(), PutMode::Create).await?;
        let _written = store.put("parts", vec![1; 18 << 20].into(), PutMode::Overwrite).await?;
        for name in ["put", "create", "parts"] {
            let got = store.kms_key_of(name).await?;
            ensure!(got.as_ref() == Some(&key), "{kind:?} {name}: {got:?}, not {key}");
            ensure!(!store.get(name).await?.is_empty());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_give_up_leave_no_parts_behind() -> Result<()> {
    for kind in ALL {
        let store = S3Server::shared(kind).s3_bucket("parts").await?;
        let prefix = "given-up/";
        let mut aborted = store.writer(&format!("{prefix}aborted")).await?;
        let mut dropped = store.writer(&format!("{prefix}dropped")).await?;
        for writer in [&mut aborted, &mut dropped] {
            writer.write(vec![1; 20 << 20].into()).await?;
        }
        let begun = store.unfinished_uploads(prefix).await?;
        ensure!(begun == 2, "{kind:?}: {begun} uploads");
        aborted.abort().await?;
        drop(dropped);
        let gone = async {
            while store.unfinished_uploads(prefix).await? > 0 {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.with_context(|| format!("{kind:?}: a dropped writer's upload stays"))??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_lead_to_buckets_and_files() -> Result<()> {
    let server = S3Server::shared(Kind::Ministack);
    server.bucket("urls").await?;
    let dir = tempfile::tempdir()?;
    let stores = Stores::new(server.options());
    let raw = stores.open(&StoreUrl::S3 { bucket: "urls".into(), prefix: "some/raw".into() }).await?;
    let local = stores.open(&StoreUrl::File(dir.path().to_owned())).await?;
    for store in [raw, local] {
        let _written = store.put("dt=1/a b.json", "here".into(), PutMode::Create).await?;
        let (same, key) = stores.resolve(&format!("{}/dt=1/a b.json", store.url())).await?;
        ensure!(same.get(&key).await? == "here", "{}", store.url());
        let (again, _) = stores.resolve(&format!("{}/other", store.url())).await?;
        ensure!(Arc::ptr_eq(&same, &again), "a bucket is opened once");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_purged_with_all_of_its_versions_and_no_other() -> Result<()> {
    for kind in ALL {
        let server = S3Server::shared(kind);
        let store = server.bucket("versions").await?;
        ensure!(!store.keeps_versions().await?, "{kind:?} keeps versions unasked");
        let _ = store.put("p/a", "from before".into(), PutMode::Overwrite).await?;
        server.keep_versions("versions").await?;
        ensure!(store.keeps_versions().await?, "{kind:?} does not keep versions");
        for key in ["p/a", "p/a-", "p/a", "p/deleted", "p/deleted"] {
            let _ = store.put(key, key.into(), PutMode::Overwrite).await?;
        }
        store.delete("p/deleted").await?;
        let purged = (store.purge("p/a").await?, store.purge("p/deleted").await?, store.purge("p/never").await?);
        ensure!(purged == (2, 3, 0), "{kind:?} {purged:?}");
        let left = server.versions("versions", "p/").await?;
        ensure!(left == [("p/a-".to_owned(), Some(b"p/a-".to_vec()))], "{kind:?} {left:?}");
    }
    Ok(())
}
