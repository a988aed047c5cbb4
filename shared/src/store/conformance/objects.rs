//! Claims about single objects.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;

use super::{Place, noise, same};
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorKind;
use crate::store::{Depth, PutMode, PutOutcome, read_chunks};

pub(super) async fn what_was_put_comes_back_and_is_described(at: Place) -> Result<()> {
    at.put("a.json", "hello").await?;
    at.expect("a.json", b"hello").await?;
    let meta = at.store.head(&at.key("a.json")).await?.context("head says there is none")?;
    same((meta.key, meta.size), (at.key("a.json"), 5))?;
    let age = (SystemClock.now() - meta.modified).num_seconds();
    ensure!((-60..3600).contains(&age), "modified {age} s ago");
    Ok(())
}

pub(super) async fn an_empty_object_is_an_object(at: Place) -> Result<()> {
    at.put("empty", "").await?;
    at.expect("empty", b"").await?;
    same(at.store.head(&at.key("empty")).await?.map(|meta| meta.size), Some(0))?;
    same(at.store.get_range(&at.key("empty"), 0..10).await?.len(), 0)?;
    same(at.list_all("", Depth::All).await?.0, vec!["empty".into()])
}

pub(super) async fn a_missing_object_is_none_to_head_and_bad_data_to_get(at: Place) -> Result<()> {
    same(at.store.head(&at.key("none")).await?, None)?;
    for error in [
        at.store.get(&at.key("none")).await.err().context("get gave something")?,
        at.store.get_range(&at.key("none"), 0..1).await.err().context("get_range gave something")?,
    ] {
        same(error.kind(), ErrorKind::Data)?;
        ensure!(error.to_string().contains(&at.key("none")), "the message does not name the key: {error}");
    }
    Ok(())
}

pub(super) async fn create_over_an_object_leaves_it_untouched(at: Place) -> Result<()> {
    let key = at.key("taken");
    same(at.store.put(&key, "first".into(), PutMode::Create).await?, PutOutcome::Written)?;
    same(at.store.put(&key, "second".into(), PutMode::Create).await?, PutOutcome::AlreadyExists)?;
    // The same bytes again are another writer's, too.
    same(at.store.put(&key, "first".into(), PutMode::Create).await?, PutOutcome::AlreadyExists)?;
    at.expect("taken", b"first").await
}

pub(super) async fn one_of_sixteen_creates_wins_and_its_bytes_stay(at: Place) -> Result<()> {
    for round in 0..5 {
        let key = at.key(&format!("race-{round}"));
        let puts = (0..16).map(|i| {
            let (store, key) = (Arc::clone(&at.store), key.clone());
            tokio::spawn(async move { store.put(&key, format!("writer {i}").into(), PutMode::Create).await })
        });
        let mut winners = Vec::new();
        for (i, done) in join_all(puts).await.into_iter().enumerate() {
            if done?? == PutOutcome::Written {
                winners.push(format!("writer {i}"));
            }
        }
        same(winners.len(), 1)?;
        at.expect(&format!("race-{round}"), winners[0].as_bytes()).await?;
    }
    Ok(())
}

pub(super) async fn a_deleted_key_can_be_created_again(at: Place) -> Result<()> {
    let key = at.key("again");
    for body in ["one", "two"] {
        same(at.store.put(&key, body.into(), PutMode::Create).await?, PutOutcome::Written)?;
        at.expect("again", body.as_bytes()).await?;
        at.store.delete(&key).await?;
    }
    at.is_absent("again").await
}

pub(super) async fn overwrite_replaces_with_longer_and_shorter(at: Place) -> Result<()> {
    for body in ["medium", "much longer than before", "short", ""] {
        at.put("o", body).await?;
        at.expect("o", body.as_bytes()).await?;
    }
    same(at.list_all("", Depth::All).await?.0, vec!["o".into()])
}

pub(super) async fn readers_see_the_old_or_the_new_object_never_a_mixture(at: Place) -> Result<()> {
    const LEN: usize = 300_000;
    at.put("o", vec![0; LEN]).await?;
    let writer = {
        let at = at.clone();
        tokio::spawn(async move {
            for i in 1..=20_u8 {
                at.put("o", vec![i; LEN]).await?;
            }
            anyhow::Ok(())
        })
    };
    loop {
        let done = writer.is_finished();
        let body = at.store.get(&at.key("o")).await?;
        same(body.len(), LEN)?;
        ensure!(body.iter().all(|byte| *byte == body[0]), "a mixture of two objects was read");
        if done {
            break;
        }
    }
    writer.await?
}

pub(super) async fn deleting_twice_and_deleting_nothing_is_no_error(at: Place) -> Result<()> {
    at.put("o", "x").await?;
    for name in ["o", "o", "never/was/there"] {
        at.store.delete(&at.key(name)).await.with_context(|| name.to_owned())?;
    }
    at.is_absent("o").await
}

pub(super) async fn purging_a_key_leaves_nothing_of_it_and_all_of_those_that_continue_it(at: Place) -> Result<()> {
    for body in ["one", "two"] {
        at.put("p/a", body).await?;
    }
    at.put_all(&["p/a-", "p/ab"]).await?;
    let kept = at.store.keeps_versions().await?;
    for expected in [u64::from(kept), 0] {
        same(at.store.purge(&at.key("p/a")).await?, expected)?;
    }
    same(at.list_all("", Depth::All).await?.0, vec!["p/a-".into(), "p/ab".into()])
}

pub(super) async fn deleting_a_key_leaves_keys_that_continue_it(at: Place) -> Result<()> {
    at.put_all(&["d/a", "d/ab", "d/a-", "da"]).await?;
    at.store.delete(&at.key("d/a")).await?;
    at.store.delete(&at.key("d")).await?;
    same(at.list_all("", Depth::All).await?.0, vec!["d/a-".into(), "d/ab".into(), "da".into()])
}

pub(super) async fn a_range_is_half_open(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    for (range, expected) in [(0..1, "0"), (3..7, "3456"), (9..10, "9"), (0..10, "0123456789")] {
        same(at.store.get_range(&at.key("o"), range).await?, Bytes::from(expected))?;
    }
    Ok(())
}

pub(super) async fn a_range_past_the_end_is_cut_short(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    for (range, expected) in [(8..100, "89"), (0..1 << 40, "0123456789")] {
        same(at.store.get_range(&at.key("o"), range).await?, Bytes::from(expected))?;
    }
    Ok(())
}

pub(super) async fn a_range_beyond_the_object_is_empty(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    for range in [10..11, 10..1000, 5000..6000] {
        same(at.store.get_range(&at.key("o"), range).await?.len(), 0)?;
    }
    Ok(())
}

pub(super) async fn an_empty_range_needs_the_object(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    same(at.store.get_range(&at.key("o"), 4..4).await?.len(), 0)?;
    let error = at.store.get_range(&at.key("none"), 4..4).await.err().context("a missing object gave a range")?;
    same(error.kind(), ErrorKind::Data)
}

/// Names that break when a layer escapes too little or too much.
const SPECIAL: &[&str] = &[
    "dt=2026-11-22/hr=07/x",
    "percent %",
    "percent%20twenty",
    "plus+plus",
    "space in the middle",
    "a&b<c>\"d'",
    "hash#question?semicolon;colon:",
    "tilde~bang!star*comma,paren()",
    "at@dollar$equals=",
    "brace{}bracket[]pipe|caret^tick`",
    "umlaut-ä-ß",
    "snow-雪-🦀",
    "dots..in...name",
    ".hidden",
];

pub(super) async fn special_characters_in_keys_survive(at: Place) -> Result<()> {
    at.put_all(SPECIAL).await?;
    for name in SPECIAL {
        at.expect(name, name.as_bytes()).await.with_context(|| format!("key `{name}`"))?;
    }
    let mut expected: Vec<String> = SPECIAL.iter().map(|&name| name.to_owned()).collect();
    expected.sort_unstable();
    let mut listed = at.list_all("", Depth::All).await?.0;
    listed.sort_unstable();
    same(listed, expected)?;
    for name in SPECIAL {
        same(at.list(name, None, Depth::All).await?.objects.len(), 1).with_context(|| format!("prefix `{name}`"))?;
        at.store.delete(&at.key(name)).await?;
    }
    at.is_absent(SPECIAL[0]).await
}

pub(super) async fn a_backslash_is_no_slash(at: Place) -> Result<()> {
    at.put("back\\slash", "x").await?;
    same(at.list_all("", Depth::All).await?.0, vec!["back\\slash".into()])?;
    same(at.store.head(&at.key("back/slash")).await?, None)
}

pub(super) async fn binary_bodies_survive(at: Place) -> Result<()> {
    let body: Vec<u8> = (0..=255).chain(*b"\r\n0\r\n\r\n").collect();
    at.put("bin", body.clone()).await?;
    at.expect("bin", &body).await
}

pub(super) async fn twenty_megabytes_survive(at: Place) -> Result<()> {
    let body = noise(20_000_001);
    at.put("big", body.clone()).await?;
    at.expect("big", &body).await?;
    let key = at.key("big-created");
    same(at.store.put(&key, body.clone(), PutMode::Create).await?, PutOutcome::Written)?;
    same(at.store.put(&key, body.clone(), PutMode::Create).await?, PutOutcome::AlreadyExists)?;
    at.expect("big-created", &body).await?;
    let middle = 8_388_600..8_388_620;
    same(
        at.store.get_range(&at.key("big"), middle.clone()).await?,
        body.slice(middle.start as usize..middle.end as usize),
    )
}

pub(super) async fn twenty_megabytes_overwrite_a_small_object(at: Place) -> Result<()> {
    at.put("o", "small").await?;
    let body = noise(20 << 20);
    at.put("o", body.clone()).await?;
    at.expect("o", &body).await?;
    at.put("o", "small again").await?;
    at.expect("o", b"small again").await
}

pub(super) async fn a_writer_joins_pieces_of_any_size(at: Place) -> Result<()> {
    for (name, len, pieces) in [("small", 1000, vec![1, 7, 100]), ("large", 19_000_000, vec![3_000_000, 1, 9_000_000])]
    {
        let body = noise(len);
        let mut writer = at.store.writer(&at.key(name)).await?;
        let mut rest = body.clone();
        for size in pieces.iter().cycle() {
            let piece = rest.split_to(rest.len().min(*size));
            writer.write(piece).await?;
            if rest.is_empty() {
                break;
            }
        }
        same(writer.close().await?, len as u64)?;
        at.expect(name, &body).await?;
    }
    Ok(())
}

pub(super) async fn a_writer_shows_nothing_before_close(at: Place) -> Result<()> {
    let mut writer = at.store.writer(&at.key("o")).await?;
    for _ in 0..3 {
        writer.write(noise(7 << 20)).await?;
        at.is_absent("o").await?;
    }
    same(writer.close().await?, 21 << 20)?;
    same(at.store.head(&at.key("o")).await?.map(|meta| meta.size), Some(21 << 20))
}

pub(super) async fn a_writer_without_bytes_makes_an_empty_object(at: Place) -> Result<()> {
    let mut writer = at.store.writer(&at.key("o")).await?;
    writer.write(Bytes::new()).await?;
    same(writer.close().await?, 0)?;
    at.expect("o", b"").await
}

pub(super) async fn an_aborted_writer_leaves_nothing(at: Place) -> Result<()> {
    for len in [10, 18 << 20] {
        let mut writer = at.store.writer(&at.key("o")).await?;
        writer.write(noise(len)).await?;
        writer.abort().await?;
        at.is_absent("o").await?;
    }
    Ok(())
}

pub(super) async fn a_dropped_writer_leaves_nothing(at: Place) -> Result<()> {
    for len in [10, 18 << 20] {
        let mut writer = at.store.writer(&at.key("o")).await?;
        writer.write(noise(len)).await?;
        drop(writer);
        at.is_absent("o").await?;
    }
    Ok(())
}

pub(super) async fn a_writer_replaces_an_object_when_it_closes(at: Place) -> Result<()> {
    at.put("o", "old").await?;
    let mut writer = at.store.writer(&at.key("o")).await?;
    writer.write("new and longer".into()).await?;
    at.expect("o", b"old").await?;
    writer.close().await?;
    at.expect("o", b"new and longer").await
}

pub(super) async fn chunks_add_up_to_the_object(at: Place) -> Result<()> {
    for (len, chunk, expected) in [(10_000, 3_000, 4), (9_000, 3_000, 3), (1, 3_000, 1), (0, 3_000, 0)] {
        let body = noise(len);
        at.put("o", body.clone()).await?;
        let mut chunks = Box::pin(read_chunks(Arc::clone(&at.store), &at.key("o"), chunk).await?);
        let (mut joined, mut count) = (Vec::new(), 0);
        while let Some(piece) = chunks.next().await {
            joined.extend_from_slice(&piece?);
            count += 1;
        }
        same(count, expected)?;
        ensure!(joined == body, "{len} bytes in chunks of {chunk} came back different");
    }
    Ok(())
}

pub(super) async fn chunks_of_a_missing_object_are_an_error(at: Place) -> Result<()> {
    let error = read_chunks(at.store, "none", 10).await.err().context("a missing object gave chunks")?;
    same(error.kind(), ErrorKind::Data)
}
