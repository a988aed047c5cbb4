//! The headers of a record, byte for byte.
//!
//! Kafka allows any bytes as a header's name; rdkafka takes them for UTF-8 and panics where they are not, which no reader
//! would ever get past. So this module reads them through the C interface.
#![allow(unsafe_code, reason = "rdkafka panics at a header whose name is not UTF-8")]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::{ptr, slice};

use rdkafka::bindings as sys;
use rdkafka::message::BorrowedMessage;
use sys::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR__NOENT, RD_KAFKA_RESP_ERR_NO_ERROR};

/// One header, borrowed from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'m> {
    /// Its name, up to the first zero.
    pub name: &'m [u8],
    /// Its value.
    pub value: Option<&'m [u8]>,
    /// Whether that is the whole name. librdkafka tells where a name begins and not how long it is; but it keeps the value
    /// right behind the zero that ends the name. Of a header without value it is not known, and taken to be so.
    pub whole: bool,
}

/// The headers of a record, in order.
#[derive(Debug)]
pub struct Headers<'m> {
    list: *mut sys::rd_kafka_headers_t,
    next: usize,
    record: PhantomData<&'m ()>,
}

/// The headers of a record; `Err` with the reason when they do not have the form that Kafka gives them.
///
/// # Errors
/// The reason, for people.
pub fn of<'m>(message: &'m BorrowedMessage<'_>) -> Result<Headers<'m>, String> {
    let mut list = ptr::null_mut();
    // SAFETY: the record lives as long as its borrow; the list is written before it is read, and belongs to the record.
    let error = unsafe { sys::rd_kafka_message_headers(message.ptr(), &raw mut list) };
    match error {
        RD_KAFKA_RESP_ERR_NO_ERROR => Ok(Headers { list, next: 0, record: PhantomData }),
        RD_KAFKA_RESP_ERR__NOENT => Ok(Headers { list: ptr::null_mut(), next: 0, record: PhantomData }),
        error => Err(format!("its headers cannot be read: {error:?}")),
    }
}

impl<'m> Iterator for Headers<'m> {
    type Item = Header<'m>;

    fn next(&mut self) -> Option<Header<'m>> {
        if self.list.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list belongs to a record that outlives `'m`, and so do names, which end with a zero, and values of
        // `size` bytes. The three are written whenever the answer is no error.
        unsafe {
            let error =
                sys::rd_kafka_header_get_all(self.list, self.next, &raw mut name, &raw mut value, &raw mut size);
            if error != RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            self.next += 1;
            let name = CStr::from_ptr(name).to_bytes();
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
            let end = name.as_ptr().addr() + name.len() + 1;
            Some(Header { name, value, whole: value.is_none_or(|value| value.as_ptr().addr() == end) })
        }
    }
}
