//! Kafka to the raw zone, exactly once.
//!
//! ```text
//! consumer ─ chunk ─→ lane: admit → batch (by hour) → rotate ─ sealed ─→ commit: upload → ledger (append)
//!    ↑                 one per partition, in order, on the processors      one per partition, on tokio     │
//!    └── membership ← assign ← ledger (position)                          group offset, a hint ←──────────┘
//! ```
//! [`pipeline`] wires it, [`observe`] and [`expiry`] watch Kafka from outside the group, [`rivals`] keeps two
//! pipelines off one topic, [`retired`] speaks for topics that are gone, [`catch_up`] decides when a run is
//! done; [`memory`] bounds it. `batch` and `rotate` hold policy (and [`firn_shared::raw::admit`], which pipeline tests
//! share) and take values and `now`; `consumer`, `membership`, `upload`, `commit`, `ledger`, `server` hold the waiting and
//! no policy.
//!
//! Nothing here links Arrow, Polars or Iceberg.

pub mod assign;
pub mod batch;
pub mod catch_up;
pub mod chunk;
pub mod cli;
pub mod commit;
pub mod compress;
pub mod consumer;
pub mod cpu;
pub mod daemon;
pub mod damage;
pub mod expiry;
pub mod headers;
pub mod kafka;
pub mod lane;
pub mod ledger;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod observe;
pub mod patience;
pub mod pipeline;
pub mod retention;
pub mod retired;
pub mod rivals;
pub mod rotate;
pub mod server;
pub mod status;
pub mod summary;
pub mod topic_id;
pub mod upload;

pub use daemon::{Options, run};
pub use summary::{PipelineSummary, Summary};
