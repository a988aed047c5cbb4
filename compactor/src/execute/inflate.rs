//! The bytes of one raw object to its lines: zstd, BLAKE3 and length, in bounded memory.
//!
//! Bytes are pushed as they arrive, lines are pulled. That the object is the one its manifest names is known only at
//! its end; nothing made of its lines becomes visible before that.

use bytes::Bytes;
use firn_shared::error::{Error, Result};
use firn_shared::raw::manifest::RawObject;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Room for lines at first; it grows only for a longer line.
const BUFFER: usize = 256 * 1024;
/// The offset of a record is within the first bytes of its line: before it come only topic and partition.
const OFFSET_WITHIN: usize = 512;
/// Frames may ask for a window of 2^this bytes; zstd's levels up to 19 stay below it.
const WINDOW_LOG_MAX: u32 = 23;

/// Reads one object after the other.
pub struct Inflate {
    zstd: Decoder<'static>,
    hash: blake3::Hasher,
    name: String,
    input: Bytes,
    /// Compressed bytes taken in so far.
    taken: u64,
    /// Whether the last frame was read to its end.
    frame_done: bool,
    buffer: Vec<u8>,
    /// The part of `buffer` that holds bytes not yet handed out.
    start: usize,
    end: usize,
    /// Up to where `buffer` was searched for a line feed.
    searched: usize,
    /// Lines handed out, and inflated bytes before `buffer[start]`.
    lines: u64,
    position: u64,
    line_max: usize,
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").field("name", &self.name).field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Inflate {
    /// Refuses lines of more than `line_max` bytes.
    ///
    /// # Errors
    /// `Bug` when zstd cannot be set up.
    pub fn new(line_max: usize) -> Result<Self> {
        let mut zstd = Decoder::new().map_err(|e| Error::bug("cannot set up zstd").with_source(e))?;
        zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(|e| Error::bug("cannot set up zstd").with_source(e))?;
        Ok(Self {
            zstd,
            hash: blake3::Hasher::new(),
            name: String::new(),
            input: Bytes::new(),
            taken: 0,
            frame_done: true,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            searched: 0,
            lines: 0,
            position: 0,
            line_max,
        })
    }

    /// Begins with an object; `name` is its URL, for errors.
    ///
    /// # Errors
    /// `Bug` when zstd cannot be reset.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.zstd.reinit().map_err(|e| Error::bug("cannot reset zstd").with_source(e))?;
        self.hash.reset();
        name.clone_into(&mut self.name);
        self.input = Bytes::new();
        (self.taken, self.frame_done, self.lines, self.position) = (0, true, 0, 0);
        (self.start, self.end, self.searched) = (0, 0, 0);
        Ok(())
    }

    /// Takes the object's next bytes; the bytes before must have been read to the end.
    pub fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.input.is_empty(), "bytes were left");
        self.hash.update(&bytes);
        self.taken += bytes.len() as u64;
        self.input = bytes;
    }

    /// The next line, without its line feed; `None` when more bytes are needed.
    ///
    /// # Errors
    /// `Data`, naming the object and where in it, when the bytes are not zstd or a line is too long.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..self.end]) {
                let (from, to) = (self.start, self.searched + found);
                self.start = to + 1;
                self.searched = self.start;
                self.lines += 1;
                self.position += (self.start - from) as u64;
                return Ok(Some(&self.buffer[from..to]));
            }
            self.searched = self.end;
            if self.end - self.start > self.line_max {
                return Err(self.too_long());
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Inflates into the buffer; `false` when nothing came and more input is needed.
    fn fill(&mut self) -> Result<bool> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let length = (self.buffer.len() * 2).max(BUFFER);
            self.buffer.resize(length, 0);
        }
        let before = self.end;
        // Even with all input taken, zstd may hold output that did not fit before.
        while self.end < self.buffer.len() {
            let mut input = InBuffer::around(&self.input);
            let mut output = OutBuffer::around(&mut self.buffer[self.end..]);
            let hint = self.zstd.run(&mut input, &mut output);
            let (read, written) = (input.pos(), output.pos());
            match hint {
                Ok(hint) if read > 0 || written > 0 => self.frame_done = hint == 0,
                Ok(_) => break,
                Err(e) => {
                    let at = self.taken - self.input.len() as u64;
                    return Err(self.corrupt(format!("byte {at} and following are not zstd")).with_source(e));
                }
            }
            self.end += written;
            let _ = self.input.split_to(read);
            if self.input.is_empty() && self.end < self.buffer.len() {
                break;
            }
        }
        Ok(self.end > before)
    }

    /// Where the last line came from, for errors.
    pub fn place(&self) -> String {
        format!("raw object {} line {} (inflated byte {})", self.name, self.lines, self.position)
    }

    /// An error of this object as a whole.
    pub fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        Error::data(format!("raw object {} is corrupt: {what}; nothing was committed", self.name))
    }

    /// An error of the line that begins here. It need not be damage: a record may have been landed under a larger bound.
    fn too_long(&self) -> Error {
        let (line, max) = (self.lines + 1, self.line_max);
        let begin = &self.buffer[self.start..self.end.min(self.start + OFFSET_WITHIN)];
        let offset = offset_in(begin).map_or_else(String::new, |offset| format!(" (offset {offset})"));
        Error::config(format!(
            "raw object {}: line {line}{offset} is longer than {max} bytes; raise maxRecordSize of the pipeline, or \
             compactor.memory; nothing was committed",
            self.name
        ))
    }

    /// Ends the object: its bytes must be those that the manifest names, and complete.
    ///
    /// # Errors
    /// `Data`, naming the object and what differs.
    pub fn finish(&mut self, object: &RawObject) -> Result<()> {
        if self.taken != object.bytes {
            return Err(self.corrupt(format!("{} bytes, the manifest says {}", self.taken, object.bytes)));
        }
        let hash = self.hash.finalize().to_hex();
        if hash.as_str() != object.blake3 {
            return Err(self.corrupt(format!("its BLAKE3 is {hash}, the manifest says {}", object.blake3)));
        }
        if !self.frame_done {
            return Err(self.corrupt("its last zstd frame is cut off"));
        }
        if self.start != self.end {
            return Err(self.corrupt(format!("line {} has no line feed", self.lines + 1)));
        }
        if self.lines != object.records {
            return Err(self.corrupt(format!("{} lines, the manifest says {}", self.lines, object.records)));
        }
        Ok(())
    }
}

/// The record's offset in the beginning of a line, as landing writes it.
fn offset_in(begin: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"offset\":";
    let from = memchr::memmem::find(begin, NAME)? + NAME.len();
    let digits = begin[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&begin[from..from + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bytes: &[u8], records: u64) -> RawObject {
        RawObject {
            key: "k".into(),
            event_hour: None,
            records,
            tombstones: 0,
            bytes: bytes.len() as u64,
            raw_bytes: 0,
            blake3: blake3::hash(bytes).to_hex().to_string(),
            min_offset: 0,
            max_offset: 0,
            min_event_time: None,
            max_event_time: None,
            erased: 0,
        }
    }

    fn read(bytes: &[u8], of: &RawObject, chunk: usize, line_max: usize) -> Result<Vec<String>> {
        let mut inflate = Inflate::new(line_max)?;
        inflate.begin("file:///raw/k")?;
        let mut lines = Vec::new();
        for piece in bytes.chunks(chunk) {
            inflate.push(Bytes::copy_from_slice(piece));
            while let Some(line) = inflate.next_line()? {
                lines.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        inflate.finish(of).map(|()| lines)
    }

    fn compress(text: &str) -> Vec<u8> {
        zstd::bulk::compress(text.as_bytes(), 3).unwrap()
    }

    #[test]
    fn lines_come_out_whole_whatever_the_pieces() {
        let lines: Vec<String> = (0..2000).map(|i| format!("{i}-{}", "x".repeat(i * 7 % 911))).collect();
        let mut bytes = compress(&(lines[..1000].join("\n") + "\n"));
        // Two frames, as landing writes them.
        bytes.extend(compress(&(lines[1000..].join("\n") + "\n")));
        for chunk in [1, 13, 4096, usize::MAX] {
            let of = object(&bytes, 2000);
            assert_eq!(read(&bytes, &of, chunk, 1 << 20).unwrap(), lines, "pieces of {chunk}");
        }
        let long = "y".repeat(1_000_000);
        let bytes = compress(&format!("{long}\n"));
        assert_eq!(read(&bytes, &object(&bytes, 1), 100, 1 << 20).unwrap(), [long]);
    }

    #[test]
    fn damage_is_named_and_never_passes() {
        let good = compress("a\nb\n");
        let whole = object(&good, 2);
        let truncated = &good[..good.len() - 2];
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let open = compress("a\nb");
        let long = compress(&format!(r#"{{"topic":"t","partition":0,"offset":77,{}"#, "z".repeat(400_000)));
        let cases: [(&[u8], &RawObject, &str); 8] = [
            (truncated, &whole, "bytes, the manifest says"),
            (truncated, &object(truncated, 2), "cut off"),
            (&flipped, &whole, "is corrupt"),
            (&good, &object(&good, 3), "2 lines, the manifest says 3"),
            (b"no zstd", &whole, "byte 0 and following are not zstd"),
            (&open, &object(&open, 2), "line 2 has no line feed"),
            (&long, &object(&long, 1), "line 1 (offset 77) is longer than 100 bytes; raise maxRecordSize"),
            (b"", &whole, "0 bytes, the manifest says"),
        ];
        assert_eq!(read(&good, &whole, 3, 100).unwrap(), ["a", "b"]);
        for (bytes, of, expected) in cases {
            let error = read(bytes, of, 3, 100).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("file:///raw/k"), "{expected}: {error}");
        }
    }
}
