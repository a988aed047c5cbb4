//! `firn_decrypt` for Athena: a Lambda that opens what Firn encrypted.
//!
//! ```text
//! Athena ─ request ─→ Lambda's runtime API ─→ runtime ─→ protocol ─→ decrypt ─→ keys: store and KMS
//!                                                          JSON with Arrow IPC in base64, both ways
//! ```
//! It holds no policy of its own. Whoever may invoke the function and whose role may `kms:Decrypt` the key reads the
//! values; see docs/protection-reading.md. Neither values nor keys are logged or part of an error.

pub mod decrypt;
pub mod protocol;
pub mod runtime;
