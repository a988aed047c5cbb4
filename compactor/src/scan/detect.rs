//! Values that look like personal data. What has a check digit is checked; what has none needs its field's name.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;

use super::checksums::{digits, luhn, mod97, verhoeff, weighted};
use super::names::Hint;

/// Kinds of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A payment card.
    Card,
    /// A bank account (IBAN).
    Iban,
    /// A number that a state gives a person.
    NationalId,
    /// An IP address.
    Ip,
    /// A person's name, by the field's name.
    Name,
    /// A user's name, by the field's name.
    UserName,
    /// A postal address, by the field's name.
    Address,
    /// A date of birth, by the field's name.
    BirthDate,
    /// A secret, by the field's name.
    Secret,
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "e-mail",
            Self::Phone => "phone",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::NationalId => "national id",
            Self::Ip => "ip",
            Self::Name => "name",
            Self::UserName => "user name",
            Self::Address => "address",
            Self::BirthDate => "birth date",
            Self::Secret => "secret",
        }
    }
}

/// How a value matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Somewhere inside other text.
    Inside,
    /// As a whole, by its form or its field's name alone.
    Likely,
    /// As a whole, by a form that nothing else has, or a check digit.
    Sure,
}

/// Texts are looked at up to here.
const TEXT_MAX: usize = 4096;

#[allow(clippy::unwrap_used, reason = "constant patterns, which tests compile")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}")
});
static CARD: LazyLock<Regex> = LazyLock::new(|| regex(r"[0-9](?:[ -]?[0-9]){12,18}"));
static IBAN: LazyLock<Regex> = LazyLock::new(|| regex(r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"));
static PHONE: LazyLock<Regex> = LazyLock::new(|| regex(r"^(?:\+|00)[1-9][0-9]{0,2}(?:[ ./()-]{0,2}[0-9]){6,13}$"));
static LOCAL_PHONE: LazyLock<Regex> = LazyLock::new(|| regex(r"^\(?0?[1-9](?:[ ./()-]{0,2}[0-9]){5,13}$"));
static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"^([0-9]{3})-([0-9]{2})-([0-9]{4})$"));
static NINO: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]$"));
static CODICE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]$"));

/// What a text of a field looks like; at most one finding.
pub fn text(value: &str, hint: Hint) -> Option<(Kind, Match)> {
    let value = value.trim();
    if value.is_empty() {
        return None;
    }
    if value.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
        return inside(&value[..end]);
    }
    if let Some(found) = whole(value, hint) {
        return Some(found);
    }
    named(value, hint).or_else(|| inside(value))
}

/// What a number of a field looks like.
pub fn number(raw: &str, hint: Hint) -> Option<(Kind, Match)> {
    if !raw.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match hint {
        // Numbers are ids and times far more often than cards: only the field's name makes one.
        Hint::Card if is_card(raw) => Some((Kind::Card, Match::Sure)),
        Hint::NationalId => national_number(raw).then_some((Kind::NationalId, Match::Likely)),
        Hint::Phone if (7..=15).contains(&raw.len()) => Some((Kind::Phone, Match::Likely)),
        _ => None,
    }
}

fn whole(value: &str, hint: Hint) -> Option<(Kind, Match)> {
    if is_email(value, 0, value.len()) && EMAIL.find(value).is_some_and(|found| found.len() == value.len()) {
        return Some((Kind::Email, Match::Sure));
    }
    if hint != Hint::Version
        && let Ok(address) = value.parse::<IpAddr>()
    {
        return Some((Kind::Ip, if is_public(address) { Match::Sure } else { Match::Likely }));
    }
    if is_iban(value) {
        return Some((Kind::Iban, Match::Sure));
    }
    if is_card(value) && (hint == Hint::Card || value.contains([' ', '-']) || !hint.is_identifier()) {
        return Some((Kind::Card, Match::Sure));
    }
    if let Some(sure) = national_text(value) {
        return Some((Kind::NationalId, if sure || hint == Hint::NationalId { Match::Sure } else { Match::Likely }));
    }
    if hint == Hint::NationalId && national_number(value) {
        return Some((Kind::NationalId, Match::Likely));
    }
    if PHONE.is_match(value) && value.contains('+') {
        return Some((Kind::Phone, if hint == Hint::Phone { Match::Sure } else { Match::Likely }));
    }
    None
}

/// What only the field's name tells.
fn named(value: &str, hint: Hint) -> Option<(Kind, Match)> {
    let lettered = value.chars().any(char::is_alphabetic);
    let kind = match hint {
        Hint::Phone if PHONE.is_match(value) || LOCAL_PHONE.is_match(value) => Kind::Phone,
        Hint::Name if lettered && value.chars().count() <= 100 && !value.contains(['/', '\\', '{', '=']) => Kind::Name,
        Hint::UserName if value.len() <= 100 && !value.contains([' ', '/']) => Kind::UserName,
        Hint::Address if value.chars().count() <= 200 => Kind::Address,
        Hint::BirthDate if value.bytes().filter(u8::is_ascii_digit).count() >= 6 => Kind::BirthDate,
        Hint::Secret => Kind::Secret,
        _ => return None,
    };
    Some((kind, Match::Likely))
}

/// What stands somewhere in a longer text.
fn inside(value: &str) -> Option<(Kind, Match)> {
    if EMAIL.find_iter(value).any(|found| is_email(value, found.start(), found.end())) {
        return Some((Kind::Email, Match::Inside));
    }
    if apart(&IBAN, value).any(is_iban) {
        return Some((Kind::Iban, Match::Inside));
    }
    // In running text a card is written in groups; a long number without them is something else.
    if apart(&CARD, value).any(|found| found.contains([' ', '-']) && is_card(found)) {
        return Some((Kind::Card, Match::Inside));
    }
    None
}

/// What is found and touches no further letter, digit or sign that would make it part of something else.
fn apart<'a>(regex: &'static Regex, text: &'a str) -> impl Iterator<Item = &'a str> {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '.' | '=');
    regex.find_iter(text).filter_map(move |found| {
        let before = text[..found.start()].chars().next_back().is_some_and(part);
        let after =
            text[found.end()..].chars().next().is_some_and(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '/'));
        (!before && !after).then_some(found.as_str())
    })
}

/// An address, and neither the user of a URL (`git@github.com:…`, `//user@host`) nor a file's name.
fn is_email(text: &str, start: usize, end: usize) -> bool {
    let address = &text[start..end];
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let odd = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    let url = text[end..].starts_with([':', '/']) && !text[end..].starts_with(": ");
    let user = text[..start].ends_with(['/', ':', '@']);
    let end = domain.rsplit('.').next().unwrap_or_default();
    let service = local == "git" || ["local", "png", "jpg", "svg", "gif"].contains(&end);
    !odd && !url && !user && !service
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation())
        }
        IpAddr::V6(v6) => {
            let local = (v6.segments()[0] & 0xfe00) == 0xfc00 || (v6.segments()[0] & 0xffc0) == 0xfe80;
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || local)
        }
    }
}

/// A number of a card network (ISO/IEC 7812) with its length and check digit.
pub(super) fn is_card(text: &str) -> bool {
    let Some(digits) = digits(text, &[' ', '-']) else { return false };
    if !(13..=19).contains(&digits.len()) {
        return false;
    }
    let prefix = |n: usize| digits[..n].iter().fold(0u32, |number, digit| number * 10 + u32::from(*digit));
    let length = digits.len();
    let known = match (prefix(1), prefix(2), prefix(4)) {
        (4, ..) => [13, 16, 19].contains(&length),
        (_, 35 | 51..=55 | 65, _) | (_, _, 2221..=2720 | 6011) => length == 16,
        (_, 34 | 37, _) => length == 15,
        (_, 36 | 38 | 39, _) => length == 14,
        (_, 62, _) => length >= 16,
        _ => false,
    };
    known && luhn(&digits)
}

/// An account number of ISO 13616.
pub(super) fn is_iban(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| *c != ' ').collect();
    let form = (15..=34).contains(&compact.len())
        && compact.bytes().enumerate().all(|(i, b)| match i {
            0 | 1 => b.is_ascii_uppercase(),
            2 | 3 => b.is_ascii_digit(),
            _ => b.is_ascii_uppercase() || b.is_ascii_digit(),
        });
    form && mod97(compact[4..].chars().chain(compact[..4].chars())) == Some(1)
}

/// Ids whose form says what they are; whether a check digit agrees.
fn national_text(value: &str) -> Option<bool> {
    if let Some(parts) = SSN.captures(value) {
        let (area, group, serial) = (&parts[1], &parts[2], &parts[3]);
        let given = area != "000" && area != "666" && !area.starts_with('9') && group != "00" && serial != "0000";
        return given.then_some(false);
    }
    if NINO.is_match(value) {
        return Some(false);
    }
    if CODICE.is_match(value) {
        return codice_fiscale(value).then_some(true);
    }
    if spanish(value) {
        return Some(true);
    }
    // Formatted only: bare digits are ids of anything.
    let bytes = value.as_bytes();
    if bytes.len() == 14 && bytes[3] == b'.' && bytes[7] == b'.' && bytes[11] == b'-' {
        return digits(value, &['.', '-']).is_some_and(|digits| cpf(&digits)).then_some(true);
    }
    if bytes.len() == 14 && bytes[4] == b' ' && bytes[9] == b' ' {
        return digits(value, &[' ']).is_some_and(|digits| digits[0] > 1 && verhoeff(&digits)).then_some(true);
    }
    None
}

/// Numbers of states that have a check digit; they need the field's name, every tenth number passes one of them.
fn national_number(value: &str) -> bool {
    let Some(digits) = digits(value, &[' ', '-', '.']) else { return false };
    match digits.len() {
        9 => {
            let eleven = i64::from(weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2])) - i64::from(digits[8]);
            eleven % 11 == 0 || (digits[0] < 9 && digits[..3] != [0, 0, 0])
        }
        11 => {
            let pesel =
                (10 - weighted(&digits[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10 == u32::from(digits[10]);
            pesel || cpf(&digits) || steuer_id(&digits)
        }
        12 => verhoeff(&digits),
        15 => {
            let number = digits[..13].iter().fold(0u64, |number, digit| number * 10 + u64::from(*digit));
            97 - number % 97 == u64::from(digits[13]) * 10 + u64::from(digits[14])
        }
        _ => false,
    }
}

fn cpf(digits: &[u8]) -> bool {
    let check = |n: usize| {
        let sum: u32 = (0..n).map(|i| u32::from(digits[i]) * (n as u32 + 1 - i as u32)).sum();
        sum * 10 % 11 % 10
    };
    digits.len() == 11
        && digits.iter().any(|digit| *digit != digits[0])
        && check(9) == u32::from(digits[9])
        && check(10) == u32::from(digits[10])
}

/// ISO 7064 MOD 11,10.
fn steuer_id(digits: &[u8]) -> bool {
    let product = digits[..10].iter().fold(10u32, |product, digit| {
        let sum = (u32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    digits[0] != 0 && (11 - product) % 10 == u32::from(digits[10])
}

/// DNI and NIE.
fn spanish(value: &str) -> bool {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let bytes = value.as_bytes();
    if bytes.len() != 9 || !bytes[1..8].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let first = match bytes[0] {
        digit @ b'0'..=b'9' => u32::from(digit - b'0'),
        letter @ b'X'..=b'Z' => u32::from(letter - b'X'),
        _ => return false,
    };
    let number = bytes[1..8].iter().fold(first, |number, digit| number * 10 + u32::from(digit - b'0'));
    bytes[8] == LETTERS[number as usize % 23]
}

fn codice_fiscale(value: &str) -> bool {
    /// What letters count at odd places, from 1; digits count as A to J.
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let order = |b: u8| u32::from(if b.is_ascii_digit() { b - b'0' } else { b - b'A' });
    let bytes = value.as_bytes();
    let sum: u32 =
        bytes[..15].iter().enumerate().map(|(i, b)| if i % 2 == 0 { ODD[order(*b) as usize] } else { order(*b) }).sum();
    sum % 26 == order(bytes[15])
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
