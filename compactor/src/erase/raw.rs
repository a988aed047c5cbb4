//! The raw zone without a subject: objects are written again where a record of the subject is in them, manifests name
//! these, and then every object goes that no manifest names and none will.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use firn_shared::crypto::erase::{Erased, Eraser};
use firn_shared::error::{Error, ErrorKind, Result};
use firn_shared::ids::{Offset, PartitionRef, RunId, TopicRef};
use firn_shared::raw::chain::{Chain, successor};
use firn_shared::raw::envelope::LineWriter;
use firn_shared::raw::key::{Key, Ledger, ledger_prefix};
use firn_shared::raw::manifest::{BatchManifest, RawObject};
use firn_shared::store::PutMode;
use firn_shared::store::{Depth, Store};
use futures::{StreamExt, TryStreamExt, stream};

use super::held::Pass;
use super::journal::Journal;
use super::lines::{New, Stored};
use super::rows::opened;
use super::turn::Turn;
use super::{RawErased, progress};
use crate::maintain::names::Names;
use crate::plan::read::partitions;
use crate::run::Env;

/// Manifests that are changed at a time: what a crash leaves half done.
const MANIFESTS: usize = 1000;
/// And their objects' bytes, at most, as long as one manifest is less.
const BYTES: u64 = 1 << 30;

/// What was looked through.
#[derive(Debug, Default)]
pub struct Looked {
    topics: BTreeSet<TopicRef>,
    /// Where each chain ended: objects from there on belong to batches to come.
    ends: BTreeMap<PartitionRef, Offset>,
    /// Objects that each chain names.
    names: BTreeMap<PartitionRef, Names>,
}

/// Erases from the objects of topics that one owner answers for.
pub struct Work<'a> {
    env: &'a Env,
    store: Arc<dyn Store>,
    pass: Pass,
    /// In the names of new objects.
    erasure: String,
}

impl<'a> Work<'a> {
    pub async fn new(env: &'a Env, pass: Pass, run: RunId) -> Result<Self> {
        // The last digits of a version 7 identity are the random ones.
        let erasure = run.0.simple().to_string()[20..].to_owned();
        Ok(Self { env, store: env.raw().await?, pass, erasure })
    }

    /// Looks through everything and, with the turn, lets the ledger name objects without the subject.
    ///
    /// # Errors
    /// `Conflict` when another erasure took the turn over; `Data` for a broken ledger or object; those of the store.
    pub async fn erase(&self, mut turn: Option<&mut Turn>, journal: &mut Journal, looked: &mut Looked) -> Result<()> {
        for (topic, eraser) in &self.pass.topics {
            for partition in partitions(&*self.store, std::slice::from_ref(topic)).await? {
                self.partition((&partition, eraser), turn.as_deref_mut(), journal, looked).await?;
            }
            looked.topics.insert(topic.clone());
        }
        Ok(())
    }

    async fn partition(
        &self,
        (partition, eraser): (&PartitionRef, &Arc<Eraser>),
        mut turn: Option<&mut Turn>,
        journal: &mut Journal,
        looked: &mut Looked,
    ) -> Result<()> {
        let chain = Chain::new(Arc::clone(&self.store), partition.clone());
        let (mut from, mut names) = (0, Names::default());
        let progress = progress(self.env, &partition.to_string());
        loop {
            let manifests = some(&chain, from).await?;
            progress.expect(manifests.iter().map(bytes_of).sum());
            let Some(last) = manifests.last() else { break };
            from = last.range.end();
            let mut changed = BTreeMap::new();
            let mut counts = RawErased::default();
            let (chain, write) = (&chain, turn.is_some());
            let work = manifests.into_iter().map(|manifest| async move {
                let mut counts = RawErased::default();
                let new = self.manifest((chain, eraser), &manifest, write, &mut counts).await?;
                Ok::<_, Error>((manifest, new, counts))
            });
            // Most manifests name one object or two.
            let mut done = stream::iter(work).buffered(self.env.cpu.threads());
            while let Some((manifest, new, found)) = done.try_next().await? {
                counts.add(&found);
                progress.advance(bytes_of(&manifest));
                for object in new.objects.iter().chain(&new.quarantine) {
                    names.insert(&object.key);
                }
                if new != manifest {
                    changed.insert(new.range.start(), new);
                }
            }
            drop(done);
            if let Some(turn) = turn.as_deref_mut()
                && !changed.is_empty()
            {
                turn.hold().await?;
                chain.amend(&changed).await?;
            }
            journal.report().raw_of(&self.pass.owner).add(&counts);
            journal.save().await?;
            tracing::info!(%partition, offset = from, rewritten = counts.rewritten, "looked through raw objects");
        }
        progress.end();
        looked.ends.insert(partition.clone(), from);
        looked.names.insert(partition.clone(), names);
        journal.report().raw_of(&self.pass.owner).through.insert(partition.to_string(), from);
        Ok(())
    }

    /// The manifest that takes the place of this one, which is the same when the subject is not in its objects.
    async fn manifest(
        &self,
        (chain, eraser): (&Chain, &Arc<Eraser>),
        manifest: &BatchManifest,
        write: bool,
        counts: &mut RawErased,
    ) -> Result<BatchManifest> {
        match self.objects((chain.partition(), eraser), manifest, write, counts).await {
            // A checkpoint that was folded while another erasure replaced the manifest names what is gone.
            Err(e) if e.kind() == ErrorKind::Data => {
                let own = chain.manifest_at(manifest.range.start()).await?;
                if own == *manifest {
                    Err(e)
                } else {
                    self.objects((chain.partition(), eraser), &own, write, counts).await
                }
            }
            outcome => outcome,
        }
    }

    async fn objects(
        &self,
        of: (&PartitionRef, &Arc<Eraser>),
        manifest: &BatchManifest,
        write: bool,
        counts: &mut RawErased,
    ) -> Result<BatchManifest> {
        let mut new = manifest.clone();
        let all = new.objects.iter_mut().chain(&mut new.quarantine);
        let work = all.map(|object| async move {
            let found = self.object(of, object, write).await?;
            Ok::<_, Error>((object, found))
        });
        let mut done = stream::iter(work).buffer_unordered(self.env.cpu.threads());
        let mut found = RawErased::default();
        while let Some((object, InObject { new, records, unopened })) = done.try_next().await? {
            found.objects += 1;
            found.unopened += unopened;
            let Some(successor) = new else { continue };
            found.rewritten += 1;
            found.records += records;
            if write {
                *object = successor;
            }
        }
        drop(done);
        counts.add(&found);
        Ok(new)
    }

    /// Looks through an object and, where the subject is in it, makes the one that takes its place.
    async fn object(
        &self,
        (of, eraser): (&PartitionRef, &Arc<Eraser>),
        object: &RawObject,
        write: bool,
    ) -> Result<InObject> {
        // Of refused records all may be sealed as a whole, and are opened together.
        let plain = if object.event_hour.is_none() { 2 * object.raw_bytes } else { 0 };
        let permit = self.env.cpu.permit(2 * object.bytes + plain + (1 << 20)).await?;
        let bytes = self.store.get(&object.key).await?;
        let url = format!("{}/{}", self.store.url(), object.key);
        let (by, refused) = (Arc::clone(eraser), object.event_hour.is_none());
        let look = move || {
            let found = Stored { bytes: &bytes, url: &url, refused }.look(&by);
            (bytes, url, found)
        };
        let (bytes, url, found) = self.env.cpu.run(&permit, look).await?;
        let mut found = found?;
        let mut unopened = BTreeSet::new();
        for (line, part, bytes, sealed) in std::mem::take(&mut found.sealed) {
            let (plain, closed) = opened(&self.env.keys, &sealed).await?;
            if closed > 0 {
                unopened.insert(line);
            }
            if let Erased::Changed(new) = eraser.erase_opened(&bytes, &plain) {
                found.lines.entry(line).or_insert_with(New::default).put(part, new);
            }
        }
        let unopened = unopened.len() as u64;
        let records = found.lines.len() as u64;
        if records == 0 || !write {
            return Ok(InObject { new: (records > 0).then(|| object.clone()), records, unopened });
        }
        let writer = LineWriter::new(&of.topic.topic, of.partition);
        let by = Arc::clone(eraser);
        let rewrite = move || Stored { bytes: &bytes, url: &url, refused }.rewrite(&found.lines, &by, &writer);
        let (new, raw_bytes) = self.env.cpu.run(&permit, rewrite).await??;
        let key = successor(&object.key, &self.erasure)?;
        let (size, hash) = (new.len() as u64, blake3::hash(&new).to_hex().to_string());
        // A crash right after leaves an object that nothing names; it goes with those of before.
        let _ = self.store.put(&key, Bytes::from(new), PutMode::Create).await?;
        // A record of several subjects that were erased counts once, as far as that can be known.
        let erased = (object.erased + records).min(object.records);
        let new = Some(RawObject { key, bytes: size, raw_bytes, blake3: hash, erased, ..object.clone() });
        Ok(InObject { new, records, unopened })
    }
}

/// What was found in an object.
struct InObject {
    /// What takes its place; `None` when the subject is not in it.
    new: Option<RawObject>,
    /// Records that lose something.
    records: u64,
    /// Records with something sealed that could not be opened.
    unopened: u64,
}

fn bytes_of(manifest: &BatchManifest) -> u64 {
    manifest.objects.iter().chain(&manifest.quarantine).map(|object| object.bytes).sum()
}

/// The manifests from an offset on, bounded in number and size.
async fn some(chain: &Chain, from: Offset) -> Result<Vec<BatchManifest>> {
    let (mut manifests, mut bytes) = (Vec::new(), 0);
    chain
        .scan(from, &mut |manifest: BatchManifest| {
            bytes += bytes_of(&manifest);
            manifests.push(manifest);
            Ok(manifests.len() < MANIFESTS && bytes < BYTES)
        })
        .await?;
    Ok(manifests)
}

/// Removes what no manifest names: objects of before an erasure, and those of a landing that died. Objects of a batch that
/// is to come lie behind the chain's end, and stay. Says how many went.
///
/// # Errors
/// `Conflict` when another erasure took the turn over; those of the store.
pub async fn sweep(env: &Env, turn: &mut Turn, looked: &Looked) -> Result<u64> {
    let store = env.raw().await?;
    for partition in looked.ends.keys() {
        refold_stale(&Chain::new(Arc::clone(&store), partition.clone()), turn, looked).await?;
    }
    let mut removed = 0;
    for topic in &looked.topics {
        let data = format!("{}/{}/dt=", topic.cluster, topic.topic);
        let refused = ledger_prefix(&topic.cluster, &topic.topic, Ledger::Quarantine);
        for prefix in [data, refused] {
            let mut after: Option<String> = None;
            loop {
                let page = store.list(&prefix, after.as_deref(), Depth::All).await?;
                let gone: Vec<String> =
                    page.objects.into_iter().map(|object| object.key).filter(|key| looked.is_unnamed(key)).collect();
                if !gone.is_empty() {
                    turn.hold().await?;
                }
                for key in &gone {
                    store.delete(key).await?;
                }
                removed += gone.len() as u64;
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
    }
    Ok(removed)
}

impl Looked {
    /// The topics.
    pub fn topics(&self) -> impl Iterator<Item = &TopicRef> {
        self.topics.iter()
    }

    /// Whether nothing names this object and nothing will.
    fn is_unnamed(&self, key: &str) -> bool {
        let (partition, start) = match key.parse() {
            Ok(Key::Raw(raw)) => (raw.partition, raw.range.start()),
            Ok(Key::Quarantine(refused)) => (refused.partition, refused.range.start()),
            _ => return false,
        };
        self.ends.get(&partition).is_some_and(|end| start < *end) && !self.names(&partition, key)
    }

    fn names(&self, partition: &PartitionRef, key: &str) -> bool {
        self.names.get(partition).is_some_and(|names| names.contains(key))
    }
}

/// Landing may have folded manifests of before into a checkpoint.
async fn refold_stale(chain: &Chain, turn: &mut Turn, looked: &Looked) -> Result<()> {
    let end = looked.ends.get(chain.partition()).copied().unwrap_or(0);
    let mut stale = BTreeSet::new();
    chain
        .scan(0, &mut |manifest: BatchManifest| {
            let mut objects = manifest.objects.iter().chain(&manifest.quarantine);
            if manifest.range.end() <= end && objects.any(|object| !looked.names(chain.partition(), &object.key)) {
                stale.insert(manifest.range.start());
            }
            Ok(manifest.range.end() < end)
        })
        .await?;
    if stale.is_empty() {
        return Ok(());
    }
    turn.hold().await?;
    chain.refold(&stale).await
}
