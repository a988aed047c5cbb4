//! What every store promises, as a list of claims that run against a real one.
//!
//! Each claim gets a prefix of its own, so that claims do not see each other and a bucket may be used again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;

use super::{Depth, ObjectMeta, Page, PutMode, PutOutcome, Store, read_chunks};
use crate::error::ErrorKind;

/// Bound of one claim.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(300);

/// Where a claim is tried.
#[derive(Debug, Clone)]
pub struct Place {
    store: Arc<dyn Store>,
    prefix: String,
}

type Run = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A claim: its name, and the function that tries it.
pub type Claim = (&'static str, fn(Place) -> Run);

macro_rules! claims {
    ($($name:ident),* $(,)?) => {
        /// All claims.
        pub const CLAIMS: &[Claim] = &[$((stringify!($name), |place| Box::pin($name(place)))),*];
    };
}

claims![
    what_was_put_comes_back_and_is_described,
    an_empty_object_is_an_object,
    a_missing_object_is_none_to_head_and_bad_data_to_get,
    create_over_an_object_leaves_it_untouched,
    one_of_sixteen_creates_wins_and_its_bytes_stay,
    a_deleted_key_can_be_created_again,
    overwrite_replaces_with_longer_and_shorter,
    readers_see_the_old_or_the_new_object_never_a_mixture,
    deleting_twice_and_deleting_nothing_is_no_error,
    deleting_a_key_leaves_keys_that_continue_it,
    a_range_is_half_open,
    a_range_past_the_end_is_cut_short,
    a_range_beyond_the_object_is_empty,
    an_empty_range_needs_the_object,
    special_characters_in_keys_survive,
    a_backslash_is_no_slash,
    binary_bodies_survive,
    twenty_megabytes_survive,
    twenty_megabytes_overwrite_a_small_object,
    a_writer_joins_pieces_of_any_size,
    a_writer_shows_nothing_before_close,
    a_writer_without_bytes_makes_an_empty_object,
    an_aborted_writer_leaves_nothing,
    a_dropped_writer_leaves_nothing,
    a_writer_replaces_an_object_when_it_closes,
    listing_nothing_gives_an_empty_last_page,
    listing_describes_objects_as_head_does,
    listing_is_in_the_order_of_key_bytes,
    a_prefix_is_a_string_and_not_a_directory,
    start_after_is_exclusive_and_need_not_exist,
    a_delimiter_groups_what_lies_deeper,
    start_after_a_group_does_not_enter_it,
    a_listing_of_2500_keys_pages_without_gap_or_repetition,
    groups_page_without_gap_or_repetition,
    what_was_just_written_or_deleted_is_listed_so,
    chunks_add_up_to_the_object,
    chunks_of_a_missing_object_are_an_error,
];

/// Tries all claims and tells which do not hold.
///
/// # Errors
/// Names every claim that failed, with its reason.
pub async fn run(store: Arc<dyn Store>) -> Result<()> {
    run_except(store, &[]).await
}

/// Tries all claims; those in `known_not_to_hold` must fail, so that a server which gets better is noticed.
///
/// # Errors
/// Names every claim that went against the expectation.
pub async fn run_except(store: Arc<dyn Store>, known_not_to_hold: &[&str]) -> Result<()> {
    let run_id = uuid::Uuid::new_v4().simple().to_string();
    let tried = futures::stream::iter(CLAIMS).map(|(name, claim)| {
        let place = Place { store: Arc::clone(&store), prefix: format!("conformance-{run_id}/{name}/") };
        // On a task of its own: a claim that panics is a claim that failed.
        let task = tokio::spawn(tokio::time::timeout(CLAIM_TIME_MAX, claim(place)));
        async move {
            let done = match task.await {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Err(anyhow::anyhow!("took more than {CLAIM_TIME_MAX:?}")),
                Err(panic) => Err(anyhow::anyhow!("{panic}")),
            };
            match (done, known_not_to_hold.contains(name)) {
                (Err(error), false) => Some(format!("{name}: {error:#}")),
                (Ok(()), true) => Some(format!("{name}: holds, but is listed as not holding")),
                _ => None,
            }
        }
    });
    let surprises: Vec<String> = tried.buffered(4).filter_map(|surprise| async { surprise }).collect().await;
    ensure!(
        surprises.is_empty(),
        "{} of {} claims on {}:\n{}",
        surprises.len(),
        CLAIMS.len(),
        store.url(),
        surprises.join("\n")
    );
    Ok(())
}

impl Place {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&self, name: &str, body: impl Into<Bytes>) -> Result<()> {
        let outcome = self.store.put(&self.key(name), body.into(), PutMode::Overwrite).await?;
        ensure!(outcome == PutOutcome::Written, "an overwrite said {outcome:?}");
        Ok(())
    }

    async fn put_all(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.put(name, name.as_bytes().to_vec()).await.with_context(|| format!("key `{name}`"))?;
        }
        Ok(())
    }

    async fn expect(&self, name: &str, body: &[u8]) -> Result<()> {
        let got = self.store.get(&self.key(name)).await?;
        ensure!(got.len() == body.len(), "`{name}` has {} bytes, not {}", got.len(), body.len());
        ensure!(got == body, "`{name}` has other bytes than were put");
        Ok(())
    }

    async fn list(&self, below: &str, after: Option<&str>, depth: Depth) -> Result<Page> {
        let after = after.map(|name| self.key(name));
        Ok(self.store.list(&self.key(below), after.as_deref(), depth).await?)
    }

    /// All pages: names of objects and of groups, and the number of pages.
    async fn list_all(&self, below: &str, depth: Depth) -> Result<(Vec<String>, Vec<String>, usize)> {
        let (mut objects, mut groups, mut pages) = (Vec::new(), Vec::new(), 0);
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(&self.key(below), after.as_deref(), depth).await?;
            pages += 1;
            objects.extend(self.names(&page));
            groups.extend(self.groups(&page));
            ensure!(page.next.is_none() || page.next > after, "the listing does not get on from {after:?}");
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((objects, groups, pages)),
            }
        }
    }

    fn names(&self, page: &Page) -> Vec<String> {
        page.objects.iter().map(|meta| self.name(&meta.key)).collect()
    }

    fn groups(&self, page: &Page) -> Vec<String> {
        page.prefixes.iter().map(|group| self.name(group)).collect()
    }

    fn name(&self, key: &str) -> String {
        key.strip_prefix(&self.prefix).unwrap_or(key).to_owned()
    }

    async fn is_absent(&self, name: &str) -> Result<()> {
        ensure!(self.store.head(&self.key(name)).await?.is_none(), "`{name}` is there");
        let (objects, _, _) = self.list_all("", Depth::All).await?;
        ensure!(objects.is_empty(), "listed: {objects:?}");
        Ok(())
    }
}

/// Bytes that repeat nowhere soon, so that a part out of place shows.
fn noise(len: usize) -> Bytes {
    let words = (0..len.div_ceil(8) as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes.into()
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<()> {
    ensure!(got == expected, "got {got:?}, expected {expected:?}");
    Ok(())
}

async fn what_was_put_comes_back_and_is_described(at: Place) -> Result<()> {
    at.put("a.json", "hello").await?;
    at.expect("a.json", b"hello").await?;
    let meta = at.store.head(&at.key("a.json")).await?.context("head says there is none")?;
    same((meta.key, meta.size), (at.key("a.json"), 5))?;
    let age = (crate::clock::Clock::now(&crate::clock::SystemClock) - meta.modified).num_seconds();
    ensure!((-60..3600).contains(&age), "modified {age} s ago");
    Ok(())
}

async fn an_empty_object_is_an_object(at: Place) -> Result<()> {
    at.put("empty", "").await?;
    at.expect("empty", b"").await?;
    same(at.store.head(&at.key("empty")).await?.map(|meta| meta.size), Some(0))?;
    same(at.store.get_range(&at.key("empty"), 0..10).await?.len(), 0)?;
    same(at.list_all("", Depth::All).await?.0, vec!["empty".into()])
}

async fn a_missing_object_is_none_to_head_and_bad_data_to_get(at: Place) -> Result<()> {
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

async fn create_over_an_object_leaves_it_untouched(at: Place) -> Result<()> {
    let key = at.key("taken");
    same(at.store.put(&key, "first".into(), PutMode::Create).await?, PutOutcome::Written)?;
    same(at.store.put(&key, "second".into(), PutMode::Create).await?, PutOutcome::AlreadyExists)?;
    // The same bytes again are another writer's, too.
    same(at.store.put(&key, "first".into(), PutMode::Create).await?, PutOutcome::AlreadyExists)?;
    at.expect("taken", b"first").await
}

async fn one_of_sixteen_creates_wins_and_its_bytes_stay(at: Place) -> Result<()> {
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

async fn a_deleted_key_can_be_created_again(at: Place) -> Result<()> {
    let key = at.key("again");
    for body in ["one", "two"] {
        same(at.store.put(&key, body.into(), PutMode::Create).await?, PutOutcome::Written)?;
        at.expect("again", body.as_bytes()).await?;
        at.store.delete(&key).await?;
    }
    at.is_absent("again").await
}

async fn overwrite_replaces_with_longer_and_shorter(at: Place) -> Result<()> {
    for body in ["medium", "much longer than before", "short", ""] {
        at.put("o", body).await?;
        at.expect("o", body.as_bytes()).await?;
    }
    same(at.list_all("", Depth::All).await?.0, vec!["o".into()])
}

async fn readers_see_the_old_or_the_new_object_never_a_mixture(at: Place) -> Result<()> {
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

async fn deleting_twice_and_deleting_nothing_is_no_error(at: Place) -> Result<()> {
    at.put("o", "x").await?;
    for name in ["o", "o", "never/was/there"] {
        at.store.delete(&at.key(name)).await.with_context(|| name.to_owned())?;
    }
    at.is_absent("o").await
}

async fn deleting_a_key_leaves_keys_that_continue_it(at: Place) -> Result<()> {
    at.put_all(&["d/a", "d/ab", "d/a-", "da"]).await?;
    at.store.delete(&at.key("d/a")).await?;
    at.store.delete(&at.key("d")).await?;
    same(at.list_all("", Depth::All).await?.0, vec!["d/a-".into(), "d/ab".into(), "da".into()])
}

async fn a_range_is_half_open(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    for (range, expected) in [(0..1, "0"), (3..7, "3456"), (9..10, "9"), (0..10, "0123456789")] {
        same(at.store.get_range(&at.key("o"), range).await?, Bytes::from(expected))?;
    }
    Ok(())
}

async fn a_range_past_the_end_is_cut_short(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    for (range, expected) in [(8..100, "89"), (0..1 << 40, "0123456789")] {
        same(at.store.get_range(&at.key("o"), range).await?, Bytes::from(expected))?;
    }
    Ok(())
}

async fn a_range_beyond_the_object_is_empty(at: Place) -> Result<()> {
    at.put("o", "0123456789").await?;
    for range in [10..11, 10..1000, 5000..6000] {
        same(at.store.get_range(&at.key("o"), range).await?.len(), 0)?;
    }
    Ok(())
}

async fn an_empty_range_needs_the_object(at: Place) -> Result<()> {
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

async fn special_characters_in_keys_survive(at: Place) -> Result<()> {
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

async fn a_backslash_is_no_slash(at: Place) -> Result<()> {
    at.put("back\\slash", "x").await?;
    same(at.list_all("", Depth::All).await?.0, vec!["back\\slash".into()])?;
    same(at.store.head(&at.key("back/slash")).await?, None)
}

async fn binary_bodies_survive(at: Place) -> Result<()> {
    let body: Vec<u8> = (0..=255).chain(*b"\r\n0\r\n\r\n").collect();
    at.put("bin", body.clone()).await?;
    at.expect("bin", &body).await
}

async fn twenty_megabytes_survive(at: Place) -> Result<()> {
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

async fn twenty_megabytes_overwrite_a_small_object(at: Place) -> Result<()> {
    at.put("o", "small").await?;
    let body = noise(20 << 20);
    at.put("o", body.clone()).await?;
    at.expect("o", &body).await?;
    at.put("o", "small again").await?;
    at.expect("o", b"small again").await
}

async fn a_writer_joins_pieces_of_any_size(at: Place) -> Result<()> {
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

async fn a_writer_shows_nothing_before_close(at: Place) -> Result<()> {
    let mut writer = at.store.writer(&at.key("o")).await?;
    for _ in 0..3 {
        writer.write(noise(7 << 20)).await?;
        at.is_absent("o").await?;
    }
    same(writer.close().await?, 21 << 20)?;
    same(at.store.head(&at.key("o")).await?.map(|meta| meta.size), Some(21 << 20))
}

async fn a_writer_without_bytes_makes_an_empty_object(at: Place) -> Result<()> {
    let mut writer = at.store.writer(&at.key("o")).await?;
    writer.write(Bytes::new()).await?;
    same(writer.close().await?, 0)?;
    at.expect("o", b"").await
}

async fn an_aborted_writer_leaves_nothing(at: Place) -> Result<()> {
    for len in [10, 18 << 20] {
        let mut writer = at.store.writer(&at.key("o")).await?;
        writer.write(noise(len)).await?;
        writer.abort().await?;
        at.is_absent("o").await?;
    }
    Ok(())
}

async fn a_dropped_writer_leaves_nothing(at: Place) -> Result<()> {
    for len in [10, 18 << 20] {
        let mut writer = at.store.writer(&at.key("o")).await?;
        writer.write(noise(len)).await?;
        drop(writer);
        at.is_absent("o").await?;
    }
    Ok(())
}

async fn a_writer_replaces_an_object_when_it_closes(at: Place) -> Result<()> {
    at.put("o", "old").await?;
    let mut writer = at.store.writer(&at.key("o")).await?;
    writer.write("new and longer".into()).await?;
    at.expect("o", b"old").await?;
    writer.close().await?;
    at.expect("o", b"new and longer").await
}

async fn listing_nothing_gives_an_empty_last_page(at: Place) -> Result<()> {
    for depth in [Depth::All, Depth::One] {
        let page = at.list("", None, depth).await?;
        ensure!(page.objects.is_empty() && page.prefixes.is_empty() && page.next.is_none(), "{page:?}");
    }
    Ok(())
}

async fn listing_describes_objects_as_head_does(at: Place) -> Result<()> {
    at.put("d/o", "12345").await?;
    let page = at.list("d/", None, Depth::All).await?;
    let listed: Vec<(String, u64)> = page.objects.iter().map(|meta| (meta.key.clone(), meta.size)).collect();
    same(listed, vec![(at.key("d/o"), 5)])?;
    let ObjectMeta { modified, .. } = at.store.head(&at.key("d/o")).await?.context("head says there is none")?;
    let apart = (page.objects[0].modified - modified).num_milliseconds().abs();
    ensure!(apart <= 1000, "times differ by {apart} ms");
    Ok(())
}

/// In the order of their bytes; a plain walk of directories gives another one.
const TRICKY: &[&str] = &[
    "A", "Z/1", "_a", "a!", "a-b", "a-c/d", "a.json", "a/-", "a/b", "a/b-", "a/c/d", "a0", "aa", "b=1/x", "b=10/x",
    "b=1~", "ä", "雪", "🦀",
];

async fn listing_is_in_the_order_of_key_bytes(at: Place) -> Result<()> {
    let mut expected: Vec<&str> = TRICKY.to_vec();
    expected.sort_unstable();
    // Put in another order than they list.
    let mut shuffled = expected.clone();
    shuffled.reverse();
    shuffled.swap(3, 11);
    at.put_all(&shuffled).await?;
    same(at.list_all("", Depth::All).await?.0, expected.iter().map(|&name| name.to_owned()).collect())
}

async fn a_prefix_is_a_string_and_not_a_directory(at: Place) -> Result<()> {
    at.put_all(&["raw/ab", "raw/abc/d", "raw/b", "rawer"]).await?;
    let cases: [(&str, &[&str]); 5] = [
        ("raw/a", &["raw/ab", "raw/abc/d"]),
        ("raw/ab", &["raw/ab", "raw/abc/d"]),
        ("raw/abc/", &["raw/abc/d"]),
        ("raw", &["raw/ab", "raw/abc/d", "raw/b", "rawer"]),
        ("raw/ab/", &[]),
    ];
    for (prefix, expected) in cases {
        let listed = at.list_all(prefix, Depth::All).await?.0;
        same(listed, expected.iter().map(|&name| name.to_owned()).collect()).with_context(|| prefix.to_owned())?;
    }
    Ok(())
}

async fn start_after_is_exclusive_and_need_not_exist(at: Place) -> Result<()> {
    at.put_all(&["a", "b/1", "b/2", "c"]).await?;
    let cases: [(&str, &[&str]); 7] = [
        ("a", &["b/1", "b/2", "c"]),
        ("a0", &["b/1", "b/2", "c"]),
        ("b/1", &["b/2", "c"]),
        ("b/11", &["b/2", "c"]),
        ("b/2", &["c"]),
        ("c", &[]),
        ("zzz", &[]),
    ];
    for (after, expected) in cases {
        let page = at.list("", Some(after), Depth::All).await?;
        same(at.names(&page), expected.iter().map(|&name| name.to_owned()).collect())
            .with_context(|| after.to_owned())?;
    }
    Ok(())
}

async fn a_delimiter_groups_what_lies_deeper(at: Place) -> Result<()> {
    at.put_all(&["dt=1/hr=1/x", "dt=1/hr=2/y", "dt=1/z", "dt=2/hr=1/x", "top", "dt=1-"]).await?;
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("", &["dt=1-", "top"], &["dt=1/", "dt=2/"]),
        ("dt=1/", &["dt=1/z"], &["dt=1/hr=1/", "dt=1/hr=2/"]),
        ("dt=", &["dt=1-"], &["dt=1/", "dt=2/"]),
        ("dt=1", &["dt=1-"], &["dt=1/"]),
    ];
    for (below, objects, groups) in cases {
        let (got_objects, got_groups, _) = at.list_all(below, Depth::One).await?;
        same(
            (got_objects, got_groups),
            (
                objects.iter().map(|&name| name.to_owned()).collect(),
                groups.iter().map(|&name| name.to_owned()).collect(),
            ),
        )
        .with_context(|| format!("prefix `{below}`"))?;
    }
    Ok(())
}

async fn start_after_a_group_does_not_enter_it(at: Place) -> Result<()> {
    at.put_all(&["a/1", "a/2", "b", "c/1", "d"]).await?;
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("a", &["b", "d"], &["a/", "c/"]),
        ("a/", &["b", "d"], &["c/"]),
        ("a/1", &["b", "d"], &["c/"]),
        ("b", &["d"], &["c/"]),
        ("c/", &["d"], &[]),
    ];
    for (after, objects, groups) in cases {
        let page = at.list("", Some(after), Depth::One).await?;
        same(
            (at.names(&page), at.groups(&page)),
            (
                objects.iter().map(|&name| name.to_owned()).collect(),
                groups.iter().map(|&name| name.to_owned()).collect(),
            ),
        )
        .with_context(|| format!("after `{after}`"))?;
    }
    Ok(())
}

/// Puts many small objects, some at a time.
async fn put_many(at: &Place, names: &[String]) -> Result<()> {
    let puts = names.to_vec().into_iter().map(|name| {
        let at = at.clone();
        async move { at.put(&name, "x").await }
    });
    let mut puts = futures::stream::iter(puts).buffer_unordered(16);
    while let Some(done) = puts.next().await {
        done?;
    }
    Ok(())
}

async fn a_listing_of_2500_keys_pages_without_gap_or_repetition(at: Place) -> Result<()> {
    let names: Vec<String> = (0..2500).map(|i| format!("{:03}/{:020}", i / 100, i)).collect();
    put_many(&at, &names).await?;
    let (objects, _, pages) = at.list_all("", Depth::All).await?;
    ensure!(objects == names, "{} names came back, or in another order", objects.len());
    ensure!(pages >= 3, "{pages} pages: a page has 1,000 entries at most");
    let page = at.list("", Some(&names[2400]), Depth::All).await?;
    same(page.objects.len(), 99)?;
    same(page.next, None)
}

async fn groups_page_without_gap_or_repetition(at: Place) -> Result<()> {
    let names: Vec<String> = (0..1100).map(|i| format!("g{i:04}{}", if i % 10 == 0 { "" } else { "/x" })).collect();
    put_many(&at, &names).await?;
    let (objects, groups, pages) = at.list_all("", Depth::One).await?;
    let expected = |object: bool| -> Vec<String> {
        let names = names.iter().filter(|name| name.ends_with('x') != object);
        names.map(|name| name.trim_end_matches('x').to_owned()).collect()
    };
    ensure!(objects == expected(true), "{} objects came back, or in another order", objects.len());
    ensure!(groups == expected(false), "{} groups came back, or in another order", groups.len());
    ensure!(pages >= 2, "{pages} pages: a page has 1,000 entries at most");
    Ok(())
}

async fn what_was_just_written_or_deleted_is_listed_so(at: Place) -> Result<()> {
    for i in 0..20 {
        let name = format!("d{i}/o");
        at.put(&name, "x").await?;
        same(at.list_all("", Depth::All).await?.0, vec![name.clone()])?;
        same(at.list_all("", Depth::One).await?.1, vec![format!("d{i}/")])?;
        at.store.delete(&at.key(&name)).await?;
        same(at.list_all("", Depth::One).await?, (vec![], vec![], 1))?;
    }
    Ok(())
}

async fn chunks_add_up_to_the_object(at: Place) -> Result<()> {
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

async fn chunks_of_a_missing_object_are_an_error(at: Place) -> Result<()> {
    let error = read_chunks(at.store, "none", 10).await.err().context("a missing object gave chunks")?;
    same(error.kind(), ErrorKind::Data)
}
