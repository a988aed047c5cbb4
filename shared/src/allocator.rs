//! How memory that is freed goes back to the system.
//!
//! Both programs allocate everything with the C library: Rust's buffers as well as those of librdkafka and zstd, so that
//! what one part frees another can use. Their bound is on what the process holds, and an allocator that keeps what was
//! freed breaks it whatever the program counts: with mimalloc 3, which purges a second later and per thread, the
//! compactor peaked at 640 to 810 MiB where 107 MiB do. glibc by itself is no better: it raises the size from which it
//! maps blocks to that of the largest block freed, and makes eight arenas a processor.

/// Blocks from this size are mapped one by one and unmapped when they are freed, bytes. Fixed, so that glibc never raises
/// it; as large as batches, pieces and row groups allow, because a mapped block costs a page fault every 4 KiB.
const MAPPED_FROM: i32 = 1 << 20;
/// Free bytes at the end of an arena beyond which they are given back.
const TRIMMED_FROM: i32 = 1 << 20;
/// Arenas; threads share them. More would be faster for many threads and leave more holes.
const ARENAS: i32 = 4;

/// Sets the C library's allocator up; to be called first in `main`. Does nothing where that is not glibc.
pub fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in
        [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_TRIM_THRESHOLD, TRIMMED_FROM), (libc::M_ARENA_MAX, ARENAS)]
    {
        #[allow(unsafe_code, reason = "the standard library has no call for it")]
        // SAFETY: mallopt takes two numbers and locks the allocator itself.
        let set = unsafe { libc::mallopt(option, value) };
        debug_assert_eq!(set, 1, "glibc knows option {option}");
    }
}
