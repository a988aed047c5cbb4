//! What every store promises, as a list of claims that run against a real one.
//!
//! Each claim gets a prefix of its own, so that claims do not see each other and a bucket may be used again.

mod listings;
mod objects;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;

use super::{Depth, Page, PutMode, PutOutcome, Store};

/// Bound of one claim: only one that hangs comes near it, however slow the machine is.
const CLAIM_TIME_MAX: Duration = Duration::from_mins(20);

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
    ($($module:ident: [$($name:ident),* $(,)?]),* $(,)?) => {
        /// All claims.
        pub const CLAIMS: &[Claim] = &[$($((stringify!($name), |place| Box::pin($module::$name(place)))),*),*];
    };
}

claims! {
    objects: [
        what_was_put_comes_back_and_is_described,
        an_empty_object_is_an_object,
        a_missing_object_is_none_to_head_and_bad_data_to_get,
        create_over_an_object_leaves_it_untouched,
        one_of_sixteen_creates_wins_and_its_bytes_stay,
        a_deleted_key_can_be_created_again,
        overwrite_replaces_with_longer_and_shorter,
        readers_see_the_old_or_the_new_object_never_a_mixture,
        deleting_twice_and_deleting_nothing_is_no_error,
        purging_a_key_leaves_nothing_of_it_and_all_of_those_that_continue_it,
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
        chunks_add_up_to_the_object,
        chunks_of_a_missing_object_are_an_error,
    ],
    listings: [
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
    ],
}

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

#[allow(clippy::needless_pass_by_value, reason = "claims compare what they just made")]
fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<()> {
    ensure!(got == expected, "got {got:?}, expected {expected:?}");
    Ok(())
}
