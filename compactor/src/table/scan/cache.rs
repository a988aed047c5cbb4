//! A map with a bound on the weight of what it keeps; the least recently used goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Values are shared; what is evicted lives on while somebody uses it.
#[derive(Debug)]
pub(super) struct Cache<V: ?Sized> {
    limit: u64,
    state: Mutex<State<V>>,
}

#[derive(Debug)]
struct State<V: ?Sized> {
    entries: HashMap<String, Entry<V>>,
    weight: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry<V: ?Sized> {
    value: Arc<V>,
    weight: u64,
    used: u64,
}

impl<V: ?Sized> Cache<V> {
    pub fn new(limit: u64) -> Self {
        Self { limit, state: Mutex::new(State { entries: HashMap::new(), weight: 0, clock: 0 }) }
    }

    pub fn get(&self, key: &str) -> Option<Arc<V>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let clock = state.clock;
        let entry = state.entries.get_mut(key)?;
        entry.used = clock;
        Some(entry.value.clone())
    }

    /// Keeps `value`, or puts a new weight on it; makes room down to three quarters, so that sorting by age is rare.
    pub fn put(&self, key: &str, value: Arc<V>, weight: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let used = state.clock;
        let replaced = state.entries.insert(key.to_owned(), Entry { value, weight, used });
        state.weight = state.weight - replaced.map_or(0, |e| e.weight) + weight;
        if state.weight <= self.limit {
            return;
        }
        let mut ages: Vec<(u64, String)> = state.entries.iter().map(|(k, e)| (e.used, k.clone())).collect();
        ages.sort_unstable();
        for (_, key) in ages {
            if state.weight <= self.limit / 4 * 3 {
                break;
            }
            let gone = state.entries.remove(&key);
            state.weight -= gone.map_or(0, |e| e.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let cache: Cache<u32> = Cache::new(10);
        for n in 0..5 {
            cache.put(&n.to_string(), Arc::new(n), 2);
        }
        assert_eq!(cache.get("0").as_deref(), Some(&0));
        cache.put("5", Arc::new(5), 2);
        assert!(cache.get("1").is_none() && cache.get("3").is_none() && cache.get("4").is_some());
        assert_eq!((cache.get("0").as_deref(), cache.get("5").as_deref()), (Some(&0), Some(&5)));
        // What is larger than everything is not kept.
        cache.put("big", Arc::new(6), 11);
        assert!(cache.get("big").is_none());
        assert!(cache.state.lock().unwrap().weight <= 10);
    }
}
