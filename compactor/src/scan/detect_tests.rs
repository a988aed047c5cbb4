use proptest::prelude::*;

use super::*;

fn found(value: &str) -> Option<(Kind, Match)> {
    text(value, Hint::None)
}

#[test]
fn published_examples_are_found() {
    for (value, kind, how) in [
        ("ann.lee+news@mail.example.co.uk", Kind::Email, Match::Sure),
        ("write to Ann <ann@example.com>, please", Kind::Email, Match::Inside),
        ("+44 20 7946 0958", Kind::Phone, Match::Likely),
        ("4111 1111 1111 1111", Kind::Card, Match::Sure),
        ("378282246310005", Kind::Card, Match::Sure),
        ("paid with 5555-5555-5555-4444 today", Kind::Card, Match::Inside),
        ("GB82 WEST 1234 5698 7654 32", Kind::Iban, Match::Sure),
        ("DE89370400440532013000", Kind::Iban, Match::Sure),
        ("078-05-1120", Kind::NationalId, Match::Likely),
        ("QQ123456C", Kind::NationalId, Match::Likely),
        ("RSSMRA85T10A562S", Kind::NationalId, Match::Sure),
        ("12345678Z", Kind::NationalId, Match::Sure),
        ("X1234567L", Kind::NationalId, Match::Sure),
        ("529.982.247-25", Kind::NationalId, Match::Sure),
        ("8.8.8.8", Kind::Ip, Match::Sure),
        ("10.0.0.1", Kind::Ip, Match::Likely),
        ("2001:4860:4860::8888", Kind::Ip, Match::Sure),
    ] {
        // QQ is no prefix that is given out; the form is what counts for the others.
        let expected = (!value.starts_with("QQ")).then_some((kind, how));
        assert_eq!(found(value), expected, "{value}");
    }
    assert_eq!(found("AB123456C"), Some((Kind::NationalId, Match::Likely)));
    for (value, hint, kind) in [
        ("44051401359", Hint::NationalId, Kind::NationalId),
        ("86095742719", Hint::NationalId, Kind::NationalId),
        ("(020) 7946 0958", Hint::Phone, Kind::Phone),
        ("Ann Lee", Hint::Name, Kind::Name),
        ("1980-02-29", Hint::BirthDate, Kind::BirthDate),
        ("221b Baker Street", Hint::Address, Kind::Address),
    ] {
        assert_eq!(text(value, hint).map(|(kind, _)| kind), Some(kind), "{value}");
    }
    assert_eq!(number("4111111111111111", Hint::Card), Some((Kind::Card, Match::Sure)));
}

#[test]
fn what_only_looks_similar_is_not_found() {
    for value in [
        "git@github.com:octo/cat.git",
        "https://user@example.com/x",
        "ann@localhost",
        "image@2x.png",
        "4111 1111 1111 1112",
        "1626847200000",
        "1626847200123456",
        "17244783512",
        "2021-07-21T06:00:00Z",
        "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
        "1.2.3",
        "12:30",
        "000-12-3456",
        "12345678A",
        "GB82 WEST 1234 5698 7654 33",
        "PushEvent",
        "",
        "   ",
        "+1",
    ] {
        assert_eq!(found(value), None, "{value}");
    }
    assert_eq!(text("1.2.3.4", Hint::Version), None);
    assert_eq!(number("4111111111111111", Hint::None), None);
    assert_eq!(number("17244783512", Hint::Identifier), None);
    assert_eq!(number("-5", Hint::Phone), None);
}

proptest! {
    #[test]
    fn any_text_gets_an_answer(value in any::<String>()) {
        for hint in Hint::ALL {
            let _ = (text(&value, hint), number(&value, hint));
        }
        let long = value.repeat(200);
        let _ = found(&long);
    }

    #[test]
    fn cards_are_found_with_their_check_digit_and_only_so(
        start in prop::sample::select(vec!["4", "51", "2221", "6011", "65"]), rest in "[0-9]{15}", space in any::<bool>(),
    ) {
        let body = format!("{start}{rest}")[..15].to_owned();
        let matching: Vec<String> = (0..10).map(|check| format!("{body}{check}")).filter(|card| is_card(card)).collect();
        prop_assert_eq!(matching.len(), 1);
        let card = if space { format!("{} {}", &matching[0][..4], &matching[0][4..]) } else { matching[0].clone() };
        prop_assert_eq!(found(&card), Some((Kind::Card, Match::Sure)));
    }

    #[test]
    fn accounts_are_found_with_their_check_digits_and_only_so(country in "[A-Z]{2}", rest in "[A-Z0-9]{14,26}") {
        let matching = (2..99).filter(|check| is_iban(&format!("{country}{check:02}{rest}"))).count();
        prop_assert_eq!(matching, 1);
    }

    #[test]
    fn addresses_are_found_wherever_they_stand(local in "[a-z][a-z0-9_]{0,20}", domain in "[a-z]{1,20}", words in "[a-z ]{0,30}") {
        prop_assume!(local != "git");
        let address = format!("{local}@{domain}.example");
        prop_assert_eq!(found(&address), Some((Kind::Email, Match::Sure)));
        let inside = format!("{words} <{address}> {words}");
        prop_assert_eq!(found(&inside), Some((Kind::Email, Match::Inside)));
    }
}
