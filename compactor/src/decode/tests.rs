//! Claims about whole records.
