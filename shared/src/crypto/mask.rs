//! What is left of a value when it is masked, and free text without what a pattern finds. Both lose the value for good.

use std::sync::OnceLock;

use regex::Regex;

use crate::config::domain::Mask;
use crate::error::{Error, Result};

/// What stands in for text that a pattern has found.
pub const REDACTED: &str = "[redacted]";
/// What stands in for a whole value; always as long, because lengths tell, too.
const MASKED: &str = "****";

/// Patterns that have names, so that nobody has to write them.
pub const NAMED: &[(&str, &str)] = &[
    ("email", r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+"),
    ("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
    ("card", r"\b(?:\d[ \-]?){12,18}\d\b"),
    ("phone", r"\+\d[\d ()\-./]{6,18}\d|\(\d{2,5}\)[\d \-./]{5,14}\d"),
    ("ipv4", r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"),
];

/// These patterns, compiled by whoever asks first: that takes milliseconds, and every table of every run asks.
static COMPILED: [OnceLock<Regex>; NAMED.len()] = [const { OnceLock::new() }; NAMED.len()];

/// Appends what `mask` leaves of `value`.
pub fn mask(mask: Mask, value: &str, out: &mut Vec<u8>) {
    match mask {
        Mask::All => out.extend_from_slice(MASKED.as_bytes()),
        Mask::First(keep) => ends(value, keep as usize, 0, out),
        Mask::Last(keep) => ends(value, 0, keep as usize, out),
        Mask::Email => match value.rsplit_once('@') {
            Some((local, domain)) if !local.is_empty() => {
                let first = local.chars().next().map_or(0, char::len_utf8);
                // Of a single letter, the first is all there is.
                let shown = if first < local.len() { first } else { 0 };
                out.extend_from_slice(&local.as_bytes()[..shown]);
                out.extend_from_slice(b"***@");
                out.extend_from_slice(domain.as_bytes());
            }
            _ => out.extend_from_slice(MASKED.as_bytes()),
        },
        Mask::Ip => ip(value, out),
    }
}

/// What parts numbers into groups; it is shown, too.
const SEPARATORS: [char; 4] = ['-', ' ', '.', '/'];

/// Keeps characters at one end, and separators where most of the value is letters and digits. A value that would be shown in
/// half or more is masked as a whole: of `1234`, the last four digits are all there is.
fn ends(value: &str, first: usize, last: usize, out: &mut Vec<u8>) {
    let length = value.chars().count();
    if length < 2 * (first + last) || first + last == 0 {
        return out.extend_from_slice(MASKED.as_bytes());
    }
    let grouped = 2 * value.chars().filter(|c| c.is_alphanumeric()).count() >= length;
    let mut buffer = [0; 4];
    for (i, c) in value.chars().enumerate() {
        let shown = i < first || i >= length - last || (grouped && SEPARATORS.contains(&c));
        let c = if shown { c } else { '*' };
        out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
    }
}

/// The network of an address: 24 bits of IPv4, 48 of IPv6.
fn ip(value: &str, out: &mut Vec<u8>) {
    let text = match value.trim().parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0")
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            let s = ip.segments();
            std::net::Ipv6Addr::new(s[0], s[1], s[2], 0, 0, 0, 0, 0).to_string()
        }
        Err(_) => MASKED.to_owned(),
    };
    out.extend_from_slice(text.as_bytes());
}

/// Patterns whose matches are taken out of text.
#[derive(Debug, Clone)]
pub struct Redactor(Vec<Regex>);

impl Redactor {
    /// Each of `patterns` is a name of [`NAMED`] or a regular expression.
    ///
    /// # Errors
    /// `Config`, naming the pattern.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let compiled = patterns.iter().map(|pattern| compile(pattern));
        compiled.collect::<Result<_>>().map(Self)
    }

    /// Appends `value` without what the patterns find.
    pub fn redact(&self, value: &str, out: &mut Vec<u8>) {
        let mut text = std::borrow::Cow::Borrowed(value);
        for pattern in &self.0 {
            if let std::borrow::Cow::Owned(redacted) = pattern.replace_all(&text, REDACTED) {
                text = redacted.into();
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    let Some(at) = NAMED.iter().position(|(name, _)| *name == pattern) else { return compiled(pattern, pattern) };
    if let Some(regex) = COMPILED[at].get() {
        return Ok(regex.clone());
    }
    let regex = compiled(pattern, NAMED[at].1)?;
    Ok(COMPILED[at].get_or_init(|| regex).clone())
}

/// `pattern` is what it is called in messages.
fn compiled(pattern: &str, text: &str) -> Result<Regex> {
    let regex = Regex::new(text).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::config(format!("`{pattern}` is neither a named pattern nor a regular expression: {reason}"))
    })?;
    if regex.is_match("") {
        return Err(Error::config(format!("`{pattern}` finds empty text, so it says nothing about what to take out")));
    }
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(how: Mask, value: &str) -> String {
        let mut out = Vec::new();
        mask(how, value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn masks_show_what_they_say_and_no_more() {
        for (how, value, expected) in [
            (Mask::All, "anything", "****"),
            (Mask::All, "", "****"),
            (Mask::Last(4), "4111-1111-1111-1234", "****-****-****-1234"),
            (Mask::Last(4), "1234567", "****"),
            (Mask::Last(4), "12345678", "****5678"),
            (Mask::First(2), "Grüße", "Gr***"),
            (Mask::First(2), "abc", "****"),
            (Mask::Email, "alice@example.com", "a***@example.com"),
            (Mask::Last(4), "!!@@##$$", "****##$$"),
            (Mask::Last(2), "--------", "******--"),
            (Mask::Last(4), "DE89 3704/0044.0532", "**** ****/****.0532"),
            (Mask::First(2), "p@$$w0rd!", "p@*******"),
            (Mask::Email, "é@x", "***@x"),
            (Mask::Email, "a@b.com", "***@b.com"),
            (Mask::Email, "éa@x", "é***@x"),
            (Mask::Email, "@x", "****"),
            (Mask::Email, "alice", "****"),
            (Mask::Ip, "192.168.17.4", "192.168.17.0"),
            (Mask::Ip, "2001:db8:1:2::3", "2001:db8:1::"),
            (Mask::Ip, "localhost", "****"),
        ] {
            assert_eq!(masked(how, value), expected, "{how:?} {value}");
        }
    }

    #[test]
    fn free_text_loses_what_the_patterns_find() {
        let names: Vec<String> = NAMED.iter().map(|(name, _)| (*name).to_owned()).collect();
        let redactor = Redactor::new(&names).unwrap();
        let text = "Write to bob.b+x@mail.example.org or call +49 (30) 123-4567; card 4111 1111 1111 1111, \
                    IBAN DE89 3704 0044 0532 0130 00, from 10.1.2.3 at 12:30 on 2026-11-26.";
        let mut out = Vec::new();
        redactor.redact(text, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Write to [redacted] or call [redacted]; card [redacted], IBAN [redacted], from [redacted] at 12:30 on 2026-11-26."
        );
    }

    #[test]
    fn patterns_that_cannot_work_are_refused() {
        assert!(Redactor::new(&["a(".to_owned()]).unwrap_err().to_string().contains("`a(` is neither"));
        assert!(Redactor::new(&["a*".to_owned()]).unwrap_err().to_string().contains("finds empty text"));
    }
}
