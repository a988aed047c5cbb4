//! Kafka's ids of topics, which tell a topic from one made again under its name.
//!
//! librdkafka knows them (KIP-516) and rdkafka does not pass them on, so this module asks through the C interface.
#![allow(unsafe_code, reason = "rdkafka has no binding for DescribeTopics")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use firn_shared::ids::Topic;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

/// What brokers that know no ids say.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Calls a destructor of librdkafka at the end of a scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the constructor that belongs to this destructor, and dropped once.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// The ids of these topics, as far as the brokers tell; `None` when there is no answer within `patience`. Blocks.
pub fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[Topic],
    patience: Duration,
) -> Option<BTreeMap<Topic, String>> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_str()).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    if pointers.is_empty() {
        return Some(BTreeMap::new());
    }
    let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let client = client.native_ptr();
    // SAFETY: the client lives as long as its borrow. Every pointer comes from librdkafka, is checked for null before use, and lives in an `Owned` until after
    // its last use; the texts are copied before the event that owns them goes. Declared first, the queue goes last.
    unsafe {
        let queue = Owned(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        let collection = Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let options = Owned(
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        );
        if queue.0.is_null() || collection.0.is_null() || options.0.is_null() {
            return None;
        }
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        let event = Owned(sys::rd_kafka_queue_poll(queue.0, millis), sys::rd_kafka_event_destroy);
        if event.0.is_null() {
            return None;
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Some((0..count).filter_map(|i| read(*described.add(i))).collect())
    }
}

/// Name and id of one description.
///
/// # Safety
/// The description belongs to an event that is alive.
unsafe fn read(description: *const sys::rd_kafka_TopicDescription_t) -> Option<(Topic, String)> {
    // SAFETY: the caller keeps the event; both texts are owned by it and end with a zero.
    unsafe {
        let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(description)).to_str().ok()?;
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return None;
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return None;
        }
        let text = CStr::from_ptr(text).to_str().ok().filter(|text| *text != NONE)?;
        Some((Topic::new(name).ok()?, text.to_owned()))
    }
}
