//! Lines of files: whole samples, and parts of large inputs in bounded memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use memchr::memchr;

const CHUNK: usize = 1 << 20;

/// A sample file as its bytes, decompressed when its name says so.
pub(super) fn read_sample(path: &Path) -> Result<Vec<u8>> {
    let open = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?;
        if path.extension().is_some_and(|e| e == "zst") {
            zstd::Decoder::new(file)?.read_to_end(&mut bytes)?;
        } else {
            file.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    open().with_context(|| format!("cannot read {}", path.display()))
}

/// The lines of bytes, empty ones left out.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// Calls `each` with every line of a stream, without its line feed; the buffer grows to the longest line.
pub(super) fn each_line(mut from: impl Read, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 2 * CHUNK];
    let mut held = 0;
    loop {
        if held + CHUNK > buffer.len() {
            buffer.resize(held + 2 * CHUNK, 0);
        }
        let read = from.read(&mut buffer[held..])?;
        if read == 0 {
            return if held == 0 { Ok(()) } else { each(&buffer[..held]) };
        }
        let end = held + read;
        let mut at = 0;
        // What was held has no line feed, so the search starts behind it.
        let mut searched = held;
        while let Some(feed) = memchr(b'\n', &buffer[searched..end]) {
            let line = &buffer[at..searched + feed];
            if !line.is_empty() {
                each(line)?;
            }
            at = searched + feed + 1;
            searched = at;
        }
        buffer.copy_within(at..end, 0);
        held = end - at;
    }
}

/// The lines of a file that begin in the `part`-th of `parts` equal pieces, as a stream.
pub(super) fn part(path: &Path, part: usize, parts: usize) -> Result<impl Read> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let size = file.metadata()?.len();
    let start = line_start(&mut file, size * part as u64 / parts as u64, size)?;
    let end = line_start(&mut file, size * (part as u64 + 1) / parts as u64, size)?;
    file.seek(SeekFrom::Start(start))?;
    Ok(file.take(end - start))
}

/// The first line start at or after `at`.
fn line_start(file: &mut File, at: u64, size: u64) -> Result<u64> {
    if at == 0 || at >= size {
        return Ok(at.min(size));
    }
    let mut position = at - 1;
    file.seek(SeekFrom::Start(position))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(size);
        }
        if let Some(feed) = memchr(b'\n', &buffer[..read]) {
            return Ok(position + feed as u64 + 1);
        }
        position += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_are_its_lines_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = (0..5000).map(|i| "x".repeat(i % 97) + &i.to_string()).collect::<Vec<_>>().join("\n") + "\n";
        std::fs::write(file.path(), &text).unwrap();
        for parts in [1, 2, 3, 7] {
            let mut seen = Vec::new();
            for i in 0..parts {
                let stream = part(file.path(), i, parts).unwrap();
                each_line(stream, |line| {
                    seen.extend_from_slice(line);
                    seen.push(b'\n');
                    Ok(())
                })
                .unwrap();
            }
            assert!(seen == text.as_bytes(), "{parts} parts");
        }
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_whole() {
        let long = vec![b'x'; 5 * CHUNK];
        let mut seen = 0;
        each_line(long.as_slice(), |line| {
            seen += line.len();
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, long.len());
    }
}
