//! Claims about listings.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;

use super::{Place, same};
use crate::store::{Depth, ObjectMeta};

pub(super) async fn listing_nothing_gives_an_empty_last_page(at: Place) -> Result<()> {
    for depth in [Depth::All, Depth::One] {
        let page = at.list("", None, depth).await?;
        ensure!(page.objects.is_empty() && page.prefixes.is_empty() && page.next.is_none(), "{page:?}");
    }
    Ok(())
}

pub(super) async fn listing_describes_objects_as_head_does(at: Place) -> Result<()> {
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

pub(super) async fn listing_is_in_the_order_of_key_bytes(at: Place) -> Result<()> {
    let mut expected: Vec<&str> = TRICKY.to_vec();
    expected.sort_unstable();
    // Put in another order than they list.
    let mut shuffled = expected.clone();
    shuffled.reverse();
    shuffled.swap(3, 11);
    at.put_all(&shuffled).await?;
    same(at.list_all("", Depth::All).await?.0, expected.iter().map(|&name| name.to_owned()).collect())
}

pub(super) async fn a_prefix_is_a_string_and_not_a_directory(at: Place) -> Result<()> {
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

pub(super) async fn start_after_is_exclusive_and_need_not_exist(at: Place) -> Result<()> {
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

pub(super) async fn a_delimiter_groups_what_lies_deeper(at: Place) -> Result<()> {
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

pub(super) async fn start_after_a_group_does_not_enter_it(at: Place) -> Result<()> {
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
    let puts = names.iter().cloned().map(|name| {
        let at = at.clone();
        async move { at.put(&name, "x").await }
    });
    let mut puts = futures::stream::iter(puts).buffer_unordered(16);
    while let Some(done) = puts.next().await {
        done?;
    }
    Ok(())
}

pub(super) async fn a_listing_of_2500_keys_pages_without_gap_or_repetition(at: Place) -> Result<()> {
    let names: Vec<String> = (0..2500).map(|i| format!("{:03}/{:020}", i / 100, i)).collect();
    put_many(&at, &names).await?;
    let (objects, _, pages) = at.list_all("", Depth::All).await?;
    ensure!(objects == names, "{} names came back, or in another order", objects.len());
    ensure!(pages >= 3, "{pages} pages: a page has 1,000 entries at most");
    let page = at.list("", Some(&names[2400]), Depth::All).await?;
    same(page.objects.len(), 99)?;
    same(page.next, None)
}

pub(super) async fn groups_page_without_gap_or_repetition(at: Place) -> Result<()> {
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

pub(super) async fn what_was_just_written_or_deleted_is_listed_so(at: Place) -> Result<()> {
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
