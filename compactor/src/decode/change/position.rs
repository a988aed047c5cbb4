//! Where in its source a change happened, as text that sorts as the changes do: `_firn.version`.
//!
//! The text is made of numbers of fixed width, most significant first, and of what cannot be told apart otherwise. Only
//! positions of one source are compared, so each connector has its own order:
//!
//! | source | order |
//! | --- | --- |
//! | `MySQL`, `MariaDB` | binlog file number, position, snapshot before stream, row, time |
//! | Postgres | LSN, snapshot before stream, time |
//! | SQL Server, Informix | commit LSN, snapshot before stream, change LSN |
//! | Oracle | SCN, snapshot before stream, time |
//! | `MongoDB` | time, snapshot before stream, ordinal |
//! | any other | time, snapshot before stream |
//! | none that says a position or a time | all are equal, so that Kafka's order decides |
//! | DynamoDB | sequence number, else time |
//!
//! A log position comes before the time: a snapshot's rows bear the time at which their table was read, but the position
//! at which the snapshot began, and it is the position that says which changes came later.

use super::super::cursor::Raw;

/// What a change says of its place, as raw JSON values.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Source<'a> {
    pub ts_ms: Option<Raw<'a>>,
    file: Option<Raw<'a>>,
    pos: Option<Raw<'a>>,
    row: Option<Raw<'a>>,
    lsn: Option<Raw<'a>>,
    commit_lsn: Option<Raw<'a>>,
    change_lsn: Option<Raw<'a>>,
    scn: Option<Raw<'a>>,
    ord: Option<Raw<'a>>,
    /// Database, schema, and table or collection.
    names: [Option<Raw<'a>>; 3],
    /// Whether it is a collection.
    of_documents: bool,
}

impl<'a> Source<'a> {
    /// Takes the value of a field of Debezium's `source`.
    pub fn set(&mut self, name: &str, value: Raw<'a>) {
        let slot = match name {
            "ts_ms" => &mut self.ts_ms,
            "file" => &mut self.file,
            "pos" => &mut self.pos,
            "row" => &mut self.row,
            "lsn" => &mut self.lsn,
            "commit_lsn" => &mut self.commit_lsn,
            "change_lsn" => &mut self.change_lsn,
            "scn" => &mut self.scn,
            "ord" => &mut self.ord,
            "db" => &mut self.names[0],
            "schema" => &mut self.names[1],
            "table" | "collection" => &mut self.names[2],
            _ => return,
        };
        *slot = (!value.is_null()).then_some(value);
        self.of_documents |= name == "collection" && !value.is_null();
    }

    /// Whether rows are documents (`MongoDB`).
    pub fn has_documents(&self) -> bool {
        self.of_documents
    }

    /// Whether it says which table it speaks of.
    pub fn names_table(&self) -> bool {
        self.names[2].is_some()
    }

    /// Appends the name of the source table, `database.schema.table` as far as they are said.
    pub fn write_table(&self, out: &mut Vec<u8>) {
        for (number, name) in self.names.iter().flatten().enumerate() {
            if number > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(bare(*name).as_bytes());
        }
    }

    /// Appends the position; `fallback` is the time when the source gives none.
    pub fn write(&self, snapshot: bool, fallback: Option<Raw<'a>>, out: &mut Vec<u8>) {
        let rank = if snapshot { b'0' } else { b'1' };
        let time = self.ts_ms.or(fallback);
        if let Some(pos) = self.pos {
            // `mysql-bin.000003`
            let file = self.file.map_or("", |file| bare(file).rsplit('.').next().unwrap_or_default());
            pad(file, 10, out);
            pad(bare(pos), 20, out);
            out.push(rank);
            pad(self.row.map_or("", bare), 10, out);
            pad(time.map_or("", bare), 15, out);
        } else if let Some(commit) = self.commit_lsn {
            write_lsn(bare(commit), out);
            out.push(rank);
            write_lsn(self.change_lsn.map_or("", bare), out);
        } else if let Some(number) = self.lsn.or(self.scn) {
            pad(bare(number), 20, out);
            out.push(rank);
            pad(time.map_or("", bare), 15, out);
        } else {
            pad(time.map_or("", bare), 15, out);
            // A row of a snapshot comes before changes of the same time. Without a time nothing says so: one read again after
            // a change is the newer one.
            out.push(if time.is_none() && self.ord.is_none() { b'1' } else { rank });
            if let Some(ord) = self.ord {
                pad(bare(ord), 10, out);
            }
        }
    }
}

/// The text of a string or number, without quotes.
pub(super) fn bare(raw: Raw<'_>) -> &str {
    raw.text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(raw.text)
}

/// Appends an LSN: `00000027:00000ac0:0002`, hexadecimal digits of fixed width, of SQL Server, a number of Informix.
fn write_lsn(lsn: &str, out: &mut Vec<u8>) {
    if !lsn.is_empty() && lsn.bytes().all(|b| b.is_ascii_digit()) {
        pad(lsn, 20, out);
    } else {
        out.extend_from_slice(lsn.as_bytes());
    }
}

/// Appends a number, zeros before it up to `width` digits; what is no such number is zero.
pub(super) fn pad(digits: &str, width: usize, out: &mut Vec<u8>) {
    let digits = digits.trim_start_matches('0');
    let digits = if digits.bytes().all(|b| b.is_ascii_digit()) { digits } else { "" };
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(snapshot: bool, fields: &[(&str, &'static str)]) -> String {
        let mut source = Source::default();
        for (name, text) in fields {
            source.set(name, Raw { text, escaped: false });
        }
        let mut out = Vec::new();
        source.write(snapshot, Some(Raw { text: "7", escaped: false }), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn positions_sort_as_the_changes_happened() {
        let mysql = |snapshot, ts, file, pos, row| {
            version(snapshot, &[("ts_ms", ts), ("file", file), ("pos", pos), ("row", row)])
        };
        let ascending = [
            // The snapshot read this row late, but as of an earlier position.
            mysql(true, "1700000900000", "\"mysql-bin.000003\"", "500", "0"),
            mysql(false, "1700000000000", "\"mysql-bin.000003\"", "500", "0"),
            mysql(false, "1700000000000", "\"mysql-bin.000003\"", "500", "2"),
            mysql(false, "1700000000000", "\"mysql-bin.000003\"", "500", "10"),
            mysql(false, "1700000000000", "\"mysql-bin.000003\"", "4000", "0"),
            mysql(false, "1700000000000", "\"mysql-bin.000010\"", "4", "0"),
            mysql(false, "1700000000000", "\"mysql-bin.1000000\"", "4", "0"),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:#?}");
        let postgres = |snapshot, lsn| version(snapshot, &[("lsn", lsn), ("ts_ms", "1")]);
        let ascending = [postgres(true, "33832960"), postgres(false, "33832960"), postgres(false, "\"133832960\"")];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:#?}");
        let server = |commit, change| version(change == "null", &[("commit_lsn", commit), ("change_lsn", change)]);
        let ascending = [
            server("\"00000027:00000ac0:0002\"", "null"),
            server("\"00000027:00000ac0:0002\"", "\"00000027:00000aa0:0001\""),
            server("\"00000027:00000ac0:0002\"", "\"00000027:00000aa0:0003\""),
            server("\"00000028:00000000:0001\"", "\"00000027:00000aa0:0001\""),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:#?}");
        let informix = |commit, change| version(change == "null", &[("commit_lsn", commit), ("change_lsn", change)]);
        let ascending = [
            informix("\"99\"", "null"),
            informix("\"99\"", "\"98\""),
            informix("\"99\"", "\"100\""),
            informix("\"277026004984\"", "\"7\""),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:#?}");
        let mongo = |ts, ord| version(false, &[("ts_ms", ts), ("ord", ord)]);
        let ascending = [mongo("1000", "9"), mongo("1000", "10"), mongo("2000", "1")];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:#?}");
        assert_eq!(version(false, &[]), "0000000000000071");
    }

    #[test]
    fn without_position_and_time_a_row_of_a_snapshot_is_as_old_as_a_change() {
        assert_eq!(written(true, &[]), written(false, &[]));
        assert!(version(true, &[]) < version(false, &[]), "there is a time");
    }

    fn written(snapshot: bool, fields: &[(&str, String)]) -> String {
        let mut source = Source::default();
        for (name, text) in fields {
            source.set(name, Raw { text, escaped: false });
        }
        let mut out = Vec::new();
        source.write(snapshot, None, &mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn any_two_positions_compare_as_their_numbers_do(
            a in (0..1_000_000u32, any::<u32>(), any::<bool>(), 0..5000u32),
            b in (0..1_000_000u32, any::<u32>(), any::<bool>(), 0..5000u32),
            lsns in (any::<u64>(), any::<u64>()),
        ) {
            let mysql = |(file, pos, stream, row): (u32, u32, bool, u32)| {
                let fields = [("file", format!("\"bin.{file:06}\"")), ("pos", pos.to_string()), ("row", row.to_string())];
                written(!stream, &fields)
            };
            prop_assert_eq!(mysql(a).cmp(&mysql(b)), a.cmp(&b));
            let postgres = |lsn: u64, stream: bool| written(!stream, &[("lsn", lsn.to_string())]);
            let (one, other) = ((lsns.0, a.2), (lsns.1, b.2));
            prop_assert_eq!(postgres(one.0, one.1).cmp(&postgres(other.0, other.1)), one.cmp(&other));
        }
    }

    #[test]
    fn a_source_table_has_all_the_names_that_are_said() {
        let name = |fields: &[(&str, &'static str)]| {
            let mut source = Source::default();
            for (name, text) in fields {
                source.set(name, Raw { text, escaped: false });
            }
            let mut out = Vec::new();
            source.write_table(&mut out);
            (String::from_utf8(out).unwrap(), source.names_table())
        };
        let postgres = [("db", "\"shop\""), ("schema", "\"public\""), ("table", "\"orders\"")];
        assert_eq!(name(&postgres), ("shop.public.orders".to_owned(), true));
        assert_eq!(name(&[("db", "\"shop\""), ("collection", "\"orders\"")]), ("shop.orders".to_owned(), true));
        assert_eq!(name(&[("db", "\"shop\""), ("table", "null")]), ("shop".to_owned(), false));
    }

    #[test]
    fn numbers_are_padded_and_nonsense_is_zero() {
        let padded = |text| {
            let mut out = Vec::new();
            pad(text, 4, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            ["7", "0012", "-1", "x", "", "12345"].map(padded),
            ["0007", "0012", "0000", "0000", "0000", "12345"]
        );
    }
}
