//! Check digits: what tells a number that means something from one that does not.

/// The digits of a text, if it has nothing but digits and these separators, never two in a row nor at an end.
pub fn digits(text: &str, separators: &[char]) -> Option<Vec<u8>> {
    let mut digits = Vec::new();
    let mut separated = true;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            digits.push(digit as u8);
            separated = false;
        } else if separators.contains(&c) && !separated {
            separated = true;
        } else {
            return None;
        }
    }
    (!separated).then_some(digits)
}

/// Luhn: payment cards.
pub fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| match (i % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    !digits.is_empty() && sum.is_multiple_of(10)
}

/// The remainder by 97 of digits and letters, a letter being two digits: IBAN (ISO 7064).
pub fn mod97(text: impl Iterator<Item = char>) -> Option<u32> {
    let mut remainder = 0;
    for c in text {
        let value = c.to_digit(36)?;
        remainder = (remainder * if value > 9 { 100 } else { 10 } + value) % 97;
    }
    Some(remainder)
}

/// Verhoeff: Aadhaar.
pub fn verhoeff(digits: &[u8]) -> bool {
    // Multiplication in the dihedral group of order 10: rotations 0 to 4, reflections 5 to 9.
    fn product(a: u8, b: u8) -> u8 {
        match (a < 5, b < 5) {
            (true, true) => (a + b) % 5,
            (true, false) => (a + b) % 5 + 5,
            (false, true) => (a - b) % 5 + 5,
            (false, false) => (a + 5 - b) % 5,
        }
    }
    const ROUND: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let permuted = |digit: u8, times: usize| (0..times).fold(digit, |digit, _| ROUND[usize::from(digit)]);
    let sum = digits.iter().rev().enumerate().fold(0, |sum, (i, digit)| product(sum, permuted(*digit, i % 8)));
    !digits.is_empty() && sum == 0
}

/// A sum of digits by weights.
pub fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| u32::from(*digit) * weight).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_numbers_check() {
        let of = |text: &str| digits(text, &[' ', '-']).unwrap();
        assert!(
            luhn(&of("4111 1111 1111 1111")) && luhn(&of("3782-822463-10005")) && !luhn(&of("4111 1111 1111 1112"))
        );
        assert_eq!(mod97("3214282912345698765432161182".chars()), Some(1));
        assert!(verhoeff(&of("2363")) && !verhoeff(&of("2364")));
        assert_eq!(digits("1  2", &[' ']), None);
        assert_eq!(digits("12 ", &[' ']), None);
    }

    proptest! {
        #[test]
        fn one_wrong_digit_or_two_that_changed_places_never_pass_verhoeff(
            start in prop::collection::vec(0u8..10, 5..15), at in any::<prop::sample::Index>(), by in 1u8..10,
        ) {
            let mut number = start;
            number.push(0);
            let last = number.len() - 1;
            let check = (0..10).find(|check| { number[last] = *check; verhoeff(&number) }).expect("one digit fits");
            number[last] = check;
            let at = at.index(last);
            let mut wrong = number.clone();
            wrong[at] = (wrong[at] + by) % 10;
            prop_assert!(!verhoeff(&wrong));
            let mut swapped = number.clone();
            swapped.swap(at, at + 1);
            prop_assert!(swapped == number || !verhoeff(&swapped));
        }

        #[test]
        fn one_wrong_digit_never_passes_luhn(start in prop::collection::vec(0u8..10, 5..20), at in any::<prop::sample::Index>(), by in 1u8..10) {
            let mut number = start;
            number.push(0);
            let last = number.len() - 1;
            let check = (0..10).find(|check| { number[last] = *check; luhn(&number) }).expect("one digit fits");
            number[last] = check;
            let at = at.index(number.len());
            number[at] = (number[at] + by) % 10;
            prop_assert!(!luhn(&number));
        }
    }
}
