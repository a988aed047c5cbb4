//! The keys of a deployment by name, and what is kept of them in memory, within bounds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::provider::{KeyBytes, KeyProvider, KeyVersion};
use super::ring::RingProvider;
use super::seal::DataKey;
use super::token::{SUBJECT_CHARS, TokenKey};
use super::usage::{Share, Usage, VALUES_MAX, VALUES_WARN};
use super::{kms, subjects};
use crate::clock::Clock;
use crate::config::domain::{Deployment, KeySource, KeySpec, KmsOptions, Reuse};
use crate::config::read_ring;
use crate::error::{Error, Result};
use crate::ids::KeyName;
use crate::store::{Store, Stores};

/// The newest version is asked for again this often: an operator may have added one, or another process.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// Opened versions and the secret of tokens are forgotten after so long, and the provider is asked again: whom KMS no longer
/// lets in opens nothing for longer than this.
pub const KEPT: TimeDelta = TimeDelta::minutes(15);
/// Opened keys that are kept, of each kind.
const KEPT_MAX: usize = 20_000;
/// Keys of subjects that are fetched at a time.
const AT_ONCE: usize = 32;

/// The keys of `firn.yaml`; nothing is opened before it is asked for.
#[derive(Debug)]
pub struct Keys {
    specs: BTreeMap<KeyName, KeySpec>,
    kms: KmsOptions,
    client: OnceCell<aws_sdk_kms::Client>,
    stores: Stores,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    opened: AsyncMutex<BTreeMap<KeyName, Arc<Key>>>,
}

impl Keys {
    /// The keys of a deployment. To be called on the runtime that shall do the waiting.
    #[must_use]
    pub fn new(deployment: &Deployment, stores: Stores, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::of(deployment.keys.clone(), deployment.kms.clone(), stores, clock)
    }

    /// These keys, under the same condition.
    #[must_use]
    pub fn of(specs: BTreeMap<KeyName, KeySpec>, kms: KmsOptions, stores: Stores, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            specs,
            kms,
            client: OnceCell::new(),
            stores,
            clock,
            runtime: Handle::current(),
            opened: AsyncMutex::default(),
        })
    }

    /// A key by its name.
    ///
    /// # Errors
    /// `Config` for a name that `firn.yaml` does not have, or when KMS cannot be reached as it says.
    pub async fn key(&self, name: &KeyName) -> Result<Arc<Key>> {
        let mut opened = self.opened.lock().await;
        if let Some(key) = opened.get(name) {
            return Ok(Arc::clone(key));
        }
        let spec = self.specs.get(name).ok_or_else(|| Error::config(format!("firn.yaml has no key `{name}`")))?;
        let store = self.stores.open(&spec.store).await?;
        let provider: Box<dyn KeyProvider> = match &spec.source {
            KeySource::File(path) => Box::new(RingProvider::new(path.clone(), name.clone())),
            KeySource::Kms { key_id, context } => {
                let client = self.client.get_or_try_init(|| kms::connect(&self.kms)).await?.clone();
                let of = (key_id.clone(), context.clone());
                Box::new(kms::KmsProvider::new(client, Arc::clone(&store), name.clone(), of, spec.reuse))
            }
        };
        // Only an operator adds versions to a ring: its version goes on up to the bound of AES-GCM itself.
        let by_hand = matches!(spec.source, KeySource::File(_));
        let reuse = if by_hand { Reuse { values: u64::MAX, bytes: u64::MAX, ..spec.reuse } } else { spec.reuse };
        let key = Arc::new(Key {
            name: name.clone(),
            provider,
            usage: Usage::new(Arc::clone(&store), name.clone()),
            store,
            reuse,
            by_hand,
            clock: Arc::clone(&self.clock),
            runtime: self.runtime.clone(),
            asking: AsyncMutex::default(),
            current: Mutex::default(),
            earlier: AsyncMutex::default(),
            token: AsyncMutex::default(),
            token_fast: Mutex::default(),
            versions: Mutex::default(),
            subjects: Mutex::default(),
        });
        opened.insert(name.clone(), Arc::clone(&key));
        Ok(key)
    }

    /// Names of all keys.
    pub fn names(&self) -> impl Iterator<Item = &KeyName> {
        self.specs.keys()
    }

    /// How much the versions in use have sealed, of the keys that were asked for their newest one; nothing while one is
    /// being opened.
    #[must_use]
    pub fn used(&self) -> Vec<Used> {
        let Ok(opened) = self.opened.try_lock() else { return Vec::new() };
        opened.values().filter_map(|key| key.used()).collect()
    }

    /// The seed of the key that signs certificates: from the first key ring that has one, else of the first key from KMS,
    /// which keeps it apart from what readers open.
    ///
    /// # Errors
    /// `Config` when no ring has one and no key is from KMS, or a ring cannot be read; those of the provider.
    pub async fn signing_seed(&self) -> Result<KeyBytes> {
        for spec in self.specs.values() {
            if let KeySource::File(path) = &spec.source
                && let Some(seed) = read_ring(path)?.signing
            {
                return Ok(seed);
            }
        }
        let mut names = self.specs.iter().filter(|(_, spec)| matches!(spec.source, KeySource::Kms { .. }));
        if let Some((name, _)) = names.next() {
            return self.key(name).await?.provider.signing(self.clock.now()).await;
        }
        Err(Error::config(
            "no key ring has a `signing` key, which certificates need; add `signing: ` and the output of `openssl rand -base64 32` to one",
        ))
    }
}

/// Which of a key's data keys an id names.
enum Which<'a> {
    Version(u32),
    Subject(&'a str),
}

/// The parts of an id: `{key}/{version}` or `{key}/s/{subject}`; `None` for any other text.
fn parse_id(id: &str) -> Option<(&str, Which<'_>)> {
    let (name, which) = id.split_once('/')?;
    let which = match which.strip_prefix("s/") {
        Some(subject) => {
            let hex = subject.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (hex && subject.len() == SUBJECT_CHARS).then_some(Which::Subject(subject))?
        }
        None => Which::Version(which.parse().ok()?),
    };
    Some((name, which))
}

/// The key of `firn.yaml` that the id of a data key belongs to (`_key_people` of a row: `people/3`); `None` for text that
/// is no such id, which may be anything and should not be repeated in a message.
#[must_use]
pub fn key_of(id: &str) -> Option<KeyName> {
    parse_id(id).and_then(|(name, _)| KeyName::new(name).ok())
}

/// How much a version has sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The key's name.
    pub key: KeyName,
    /// The version.
    pub version: u32,
    /// Values that all processes together have taken to seal, as this one last saw it; never fewer than were sealed.
    pub values: u64,
    /// Whether only an operator can add the next version.
    pub by_hand: bool,
}

impl Used {
    /// What an operator has to do about it, and why; `None` as long as there is time.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self { key, version, values, by_hand } = self;
        (*by_hand && *values >= VALUES_WARN).then(|| {
            let percent = values * 100 / VALUES_MAX;
            format!(
                "version {version} of key {key} has used {percent} % of the 2^32 values that it may seal; add a version to its ring"
            )
        })
    }
}

/// The version in use, when it was asked for, and what of it is ours.
#[derive(Debug, Clone)]
struct Current {
    number: u32,
    key: Arc<DataKey>,
    asked: DateTime<Utc>,
    share: Share,
}

/// One key: its newest version to seal with, all versions to open with, its tokens and its subjects.
#[derive(Debug)]
pub struct Key {
    name: KeyName,
    provider: Box<dyn KeyProvider>,
    store: Arc<dyn Store>,
    usage: Usage,
    reuse: Reuse,
    /// Whether only an operator adds versions.
    by_hand: bool,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    /// Held while somebody asks the provider or takes values from the store, so that one asks for all.
    asking: AsyncMutex<()>,
    current: Mutex<Option<Current>>,
    /// Shares of versions that go on sealing what belongs to a row of theirs.
    earlier: AsyncMutex<BTreeMap<u32, Share>>,
    /// Held while somebody asks for the secret of tokens.
    token: AsyncMutex<()>,
    /// That, and when it was asked for.
    token_fast: Mutex<Option<(Arc<TokenKey>, DateTime<Utc>)>>,
    versions: Mutex<Recent>,
    subjects: Mutex<Recent>,
}

impl Key {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key to seal with now, of which so many `values` are taken: it may seal these and no more. With none it is only
    /// looked whether it could.
    ///
    /// # Errors
    /// As the provider says, and the store that counts; `Config` when a key ring's version has sealed all it may.
    pub async fn current(&self, values: u64) -> Result<Arc<DataKey>> {
        if let Some(key) = self.take(values) {
            return Ok(key);
        }
        let _asking = self.asking.lock().await;
        if let Some(key) = self.take(values) {
            return Ok(key);
        }
        let now = self.clock.now();
        let mut current = self.ask(now).await?;
        // Numbers go up, so it ends: with a ring's newest version, or with one that is made now.
        loop {
            let Some(granted) = self.granted(&current, values, now).await? else {
                current = self.renewed(current.number, now).await?;
                continue;
            };
            match self.settle(granted, values) {
                Some(key) => return Ok(key),
                None => current = self.ask(now).await?,
            }
        }
    }

    /// The same where nobody may wait: on a worker thread.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub fn current_blocking(&self, values: u64) -> Result<Arc<DataKey>> {
        match self.take(values) {
            Some(key) => Ok(key),
            None => self.runtime.block_on(self.current(values)),
        }
    }

    /// Takes values of the version in use, unless somebody must be asked first.
    fn take(&self, values: u64) -> Option<Arc<DataKey>> {
        let mut current = lock(&self.current);
        let current = current.as_mut()?;
        (self.is_fresh(current, self.clock.now()) && current.share.take(values)).then(|| Arc::clone(&current.key))
    }

    /// Whether it seals on without anybody being asked which version does.
    fn is_fresh(&self, current: &Current, now: DateTime<Utc>) -> bool {
        let age = (now - current.asked).to_std().unwrap_or_default();
        age < ASK_AGAIN.min(self.reuse.age) && !self.is_worn(&current.key)
    }

    /// The version in use, as the provider says now.
    async fn ask(&self, now: DateTime<Utc>) -> Result<Current> {
        let held = lock(&self.current).clone();
        if let Some(fresh) = held.as_ref().filter(|held| self.is_fresh(held, now)) {
            return Ok(fresh.clone());
        }
        if let Some(worn) = held.as_ref().filter(|held| self.is_worn(&held.key)) {
            return self.renewed(worn.number, now).await;
        }
        let version = self.provider.newest(now).await?;
        match held.filter(|held| held.number == version.number) {
            Some(held) => Ok(Current { asked: now, ..held }),
            None => self.of(&version, now),
        }
    }

    async fn renewed(&self, than: u32, now: DateTime<Utc>) -> Result<Current> {
        let version = self.provider.renew(than, now).await?.ok_or_else(|| {
            let name = &self.name;
            Error::config(format!("version {than} of key {name} has sealed its 2^32 values; add a version to its ring"))
        })?;
        self.of(&version, now)
    }

    fn of(&self, version: &KeyVersion, now: DateTime<Utc>) -> Result<Current> {
        let key = DataKey::new(format!("{}/{}", self.name, version.number), &version.key)?;
        Ok(Current { number: version.number, key: Arc::new(key), asked: now, share: Share::default() })
    }

    /// With as much of the version as `values` more need; `None` when it would pass its bound.
    async fn granted(&self, current: &Current, values: u64, now: DateTime<Utc>) -> Result<Option<Current>> {
        if current.share.is_known() && current.share.fits(values) {
            return Ok(Some(current.clone()));
        }
        let share = self.usage.grant(current.number, current.share, values, now).await?;
        let granted = share.map(|share| Current { share, ..current.clone() });
        if let Some(used) =
            granted.as_ref().map(|granted| self.used_of(granted)).filter(|used| used.warning().is_some())
        {
            let (version, values) = (used.version, used.values);
            tracing::warn!(key = %self.name, version, values, "a version has used half of its 2^32 values; add one to its ring");
        }
        Ok(granted)
    }

    /// Makes this the version in use, and takes values of it.
    fn settle(&self, new: Current, values: u64) -> Option<Arc<DataKey>> {
        let mut held = lock(&self.current);
        // Others may have taken of it meanwhile.
        let share = match held.as_ref().filter(|old| old.number == new.number) {
            Some(old) => old.share.with(&new.share),
            None => new.share,
        };
        let current = held.insert(Current { share, ..new });
        current.share.take(values).then(|| Arc::clone(&current.key))
    }

    fn used_of(&self, current: &Current) -> Used {
        let (key, by_hand) = (self.name.clone(), self.by_hand);
        Used { key, version: current.number, values: current.share.end, by_hand }
    }

    fn used(&self) -> Option<Used> {
        lock(&self.current).as_ref().map(|current| self.used_of(current))
    }

    fn is_worn(&self, key: &DataKey) -> bool {
        let (values, bytes) = key.used();
        values >= self.reuse.values || bytes >= self.reuse.bytes
    }

    /// The key of its tokens.
    ///
    /// # Errors
    /// As the provider says.
    pub async fn token_key(&self) -> Result<Arc<TokenKey>> {
        if let Some(key) = self.token_fresh() {
            return Ok(key);
        }
        let _asking = self.token.lock().await;
        if let Some(key) = self.token_fresh() {
            return Ok(key);
        }
        let now = self.clock.now();
        let key = Arc::new(TokenKey::new(&self.provider.token(now).await?));
        *lock(&self.token_fast) = Some((Arc::clone(&key), now));
        Ok(key)
    }

    /// The same on a worker thread.
    ///
    /// # Errors
    /// As [`Self::token_key`].
    pub fn token_key_blocking(&self) -> Result<Arc<TokenKey>> {
        match self.token_fresh() {
            Some(key) => Ok(key),
            None => self.runtime.block_on(self.token_key()),
        }
    }

    fn token_fresh(&self) -> Option<Arc<TokenKey>> {
        let held = lock(&self.token_fast);
        let (key, asked) = held.as_ref()?;
        (self.clock.now() - asked < KEPT).then(|| Arc::clone(key))
    }

    /// The key that a ciphertext names, to open it; `None` for a subject whose key is gone.
    ///
    /// # Errors
    /// `Data` for an id of another key or form, else as the provider says.
    pub async fn open(&self, id: &str) -> Result<Option<Arc<DataKey>>> {
        match parse_id(id) {
            Some((name, Which::Version(number))) if name == self.name.as_str() => self.version(number).await.map(Some),
            Some((name, Which::Subject(subject))) if name == self.name.as_str() => self.find_subject(subject).await,
            _ => Err(Error::data(format!("`{id}` is no id of key {}", self.name))),
        }
    }

    /// The same on a worker thread.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_blocking(&self, id: &str) -> Result<Option<Arc<DataKey>>> {
        self.runtime.block_on(self.open(id))
    }

    /// The same to seal so many `values` more by it, on a worker thread.
    ///
    /// # Errors
    /// As [`Self::open`]; `Data`, too, when it is a version that has sealed all it may.
    pub fn seal_on_blocking(&self, id: &str, values: u64) -> Result<Option<Arc<DataKey>>> {
        self.runtime.block_on(self.seal_on(id, values))
    }

    async fn seal_on(&self, id: &str, values: u64) -> Result<Option<Arc<DataKey>>> {
        let found = self.open(id).await?;
        let Some((_, Which::Version(number))) = parse_id(id) else { return Ok(found) };
        let mut earlier = self.earlier.lock().await;
        let mut share = earlier.get(&number).copied().unwrap_or_default();
        if !share.take(values) {
            let granted = self.usage.grant(number, share, values, self.clock.now()).await?;
            share = granted.ok_or_else(|| Error::data(format!("{id} has sealed its 2^32 values")))?;
            share.take(values);
        }
        earlier.insert(number, share);
        Ok(found)
    }

    async fn version(&self, number: u32) -> Result<Arc<DataKey>> {
        let id = format!("{}/{number}", self.name);
        let now = self.clock.now();
        {
            let mut kept = lock(&self.versions);
            kept.forget_before(now - KEPT);
            if let Some(key) = kept.get(&id) {
                return Ok(key);
            }
        }
        let version = self.provider.version(number).await?;
        let key = Arc::new(DataKey::new(id.clone(), &version.key)?);
        lock(&self.versions).insert(id, Arc::clone(&key), now);
        Ok(key)
    }

    async fn find_subject(&self, subject: &str) -> Result<Option<Arc<DataKey>>> {
        let Some(stored) = subjects::find(&*self.store, &self.name, subject).await? else { return Ok(None) };
        let number = stored.wrapped_by.rsplit('/').next().and_then(|n| n.parse().ok());
        let number = number.ok_or_else(|| Error::data(format!("`{}` is no id of a key", stored.wrapped_by)))?;
        let by = self.version(number).await?;
        subjects::open(&stored, &by).map(|key| Some(Arc::new(key)))
    }

    /// The keys of these subjects ([`TokenKey::subject`]), made for those who have none. They are kept for a minute: for
    /// so long a daemon goes on sealing with a key that was destroyed meanwhile.
    ///
    /// # Errors
    /// Those of the store and the provider.
    pub async fn subjects(&self, wanted: &[String]) -> Result<HashMap<String, Arc<DataKey>>> {
        let now = self.clock.now();
        let mut found = HashMap::with_capacity(wanted.len());
        let mut missing = Vec::new();
        {
            let mut kept = lock(&self.subjects);
            kept.forget_before(now - ASK_AGAIN);
            for subject in wanted {
                match kept.get(subject) {
                    Some(key) => drop(found.insert(subject.clone(), key)),
                    None => missing.push(subject.clone()),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let fetched = missing.into_iter().map(|subject| self.subject(subject));
        let fetched: Vec<_> = stream::iter(fetched).buffer_unordered(AT_ONCE).try_collect().await?;
        let mut kept = lock(&self.subjects);
        for (subject, key) in fetched {
            kept.insert(subject.clone(), Arc::clone(&key), now);
            found.insert(subject, key);
        }
        Ok(found)
    }

    async fn subject(&self, subject: String) -> Result<(String, Arc<DataKey>)> {
        if let Some(key) = self.find_subject(&subject).await? {
            return Ok((subject, key));
        }
        let by = self.current(1).await?;
        if let Some(key) = subjects::make(&*self.store, &self.name, &subject, &by, self.clock.now()).await? {
            return Ok((subject, Arc::new(key)));
        }
        let key = self.find_subject(&subject).await?;
        let key = key.ok_or_else(|| {
            Error::conflict(format!("the key of a subject of {} comes and goes; run again", self.name))
        })?;
        Ok((subject, key))
    }

    /// The same on a worker thread.
    ///
    /// # Errors
    /// As [`Self::subjects`].
    pub fn subjects_blocking(&self, wanted: &[String]) -> Result<HashMap<String, Arc<DataKey>>> {
        self.runtime.block_on(self.subjects(wanted))
    }

    /// Whether a subject has a key.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn has_subject(&self, subject: &str) -> Result<bool> {
        self.store.head(&subjects::object(&self.name, subject)).await.map(|found| found.is_some())
    }

    /// Destroys the key of a subject: what it sealed cannot be opened any more, wherever it is. Says where it was.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn destroy_subject(&self, subject: &str) -> Result<String> {
        let object = subjects::object(&self.name, subject);
        self.store.delete(&object).await?;
        lock(&self.subjects).remove(subject);
        Ok(format!("{}/{object}", self.store.url()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys used lately: when half of them are new, those not used since the last time are forgotten.
#[derive(Debug, Default)]
struct Recent {
    young: HashMap<String, (Arc<DataKey>, DateTime<Utc>)>,
    old: HashMap<String, (Arc<DataKey>, DateTime<Utc>)>,
}

impl Recent {
    fn get(&mut self, name: &str) -> Option<Arc<DataKey>> {
        if let Some((key, _)) = self.young.get(name) {
            return Some(Arc::clone(key));
        }
        let (key, at) = self.old.remove(name)?;
        self.insert(name.to_owned(), Arc::clone(&key), at);
        Some(key)
    }

    fn insert(&mut self, name: String, key: Arc<DataKey>, at: DateTime<Utc>) {
        if self.young.len() >= KEPT_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, (key, at));
    }

    fn remove(&mut self, name: &str) {
        self.young.remove(name);
        self.old.remove(name);
    }

    fn forget_before(&mut self, time: DateTime<Utc>) {
        for keys in [&mut self.young, &mut self.old] {
            keys.retain(|_, (_, at)| *at >= time);
        }
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
pub(super) mod tests;
