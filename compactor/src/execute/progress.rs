//! How far a run is: a bar on a terminal, a line a slice otherwise.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// Tells somebody how far a run is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Says nothing but log lines.
    #[must_use]
    pub fn quiet() -> Self {
        Self::default()
    }

    /// A bar on standard error when that is a terminal; `bytes` are the compressed bytes to read.
    #[must_use]
    pub fn of(table: &str, bytes: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::quiet();
        }
        let bar = ProgressBar::new(bytes);
        let style = "{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(table.to_owned());
        Self { bar: Some(bar) }
    }

    /// So many compressed bytes more are to be read.
    pub fn expect(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
    }

    /// So many compressed bytes more were read.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// A slice is done.
    pub fn slice_done(&self, slice: u32, records: u64) {
        if self.bar.is_none() {
            tracing::info!(slice, records, "slice converted");
        }
    }

    /// The run is over, well or not.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
