//! What a field's name says of its values.

/// What values of a field may be, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    None,
    /// An id, hash or number of something that is no person.
    Identifier,
    /// A version: four numbers with dots are no address.
    Version,
    /// A person's name.
    Name,
    /// A user's name.
    UserName,
    /// A telephone number.
    Phone,
    /// A payment card.
    Card,
    /// A number that a state gives a person.
    NationalId,
    /// A postal address.
    Address,
    /// A date of birth.
    BirthDate,
    /// A secret.
    Secret,
}

impl Hint {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Identifier,
        Self::Version,
        Self::Name,
        Self::UserName,
        Self::Phone,
        Self::Card,
        Self::NationalId,
        Self::Address,
        Self::BirthDate,
        Self::Secret,
    ];

    /// Whether bare digits are most likely an id.
    pub fn is_identifier(self) -> bool {
        self == Self::Identifier
    }
}

/// Words of a name, in order of what they decide: the first list that has one wins.
const WORDS: &[(Hint, &[&str])] = &[
    (Hint::BirthDate, &["birthdate", "birthday", "dob", "dateofbirth", "born", "geburtsdatum"]),
    (Hint::Secret, &["password", "passwd", "secret", "privatekey", "apikey", "accesstoken", "authtoken"]),
    (
        Hint::NationalId,
        &[
            "ssn",
            "socialsecurity",
            "nationalid",
            "passport",
            "taxid",
            "taxnumber",
            "nino",
            "dni",
            "nie",
            "pesel",
            "cpf",
            "aadhaar",
            "aadhar",
            "bsn",
            "nir",
            "codicefiscale",
            "steuerid",
            "driverlicense",
            "driverslicense",
        ],
    ),
    (Hint::Card, &["card", "cardnumber", "creditcard", "pan", "ccnumber", "cc"]),
    (Hint::Phone, &["phone", "telephone", "tel", "mobile", "msisdn", "fax", "cellphone"]),
    (
        Hint::Name,
        &[
            "firstname",
            "lastname",
            "fullname",
            "surname",
            "givenname",
            "familyname",
            "middlename",
            "maidenname",
            "realname",
            "personname",
            "customername",
            "contactname",
            "vorname",
            "nachname",
        ],
    ),
    (Hint::UserName, &["username", "login", "userlogin", "nickname", "screenname", "handle"]),
    (
        Hint::Address,
        &[
            "street",
            "streetaddress",
            "postaladdress",
            "homeaddress",
            "addressline",
            "zipcode",
            "postcode",
            "postalcode",
        ],
    ),
    (Hint::Version, &["version", "release", "build", "useragent"]),
    (
        Hint::Identifier,
        &["id", "ids", "sha", "hash", "uuid", "guid", "etag", "checksum", "digest", "offset", "sequence", "cursor"],
    ),
];

/// A field called `name` is a person's if it lies in one of these.
const PEOPLE: [&str; 12] = [
    "author",
    "committer",
    "person",
    "customer",
    "contact",
    "employee",
    "patient",
    "owner",
    "recipient",
    "sender",
    "people",
    "passenger",
];

const TYPES: [&str; 6] = ["S", "N", "M", "L", "SS", "NS"];

/// What the last keys of a path say; elements of lists do not count.
pub fn hint(path: &[String]) -> Hint {
    // In DynamoDB's typed JSON the last key is a type.
    let typed = path.iter().any(|key| key == "dynamodb");
    let is_name = |key: &&String| !(key.starts_with('[') || typed && TYPES.contains(&key.as_str()));
    let keys: Vec<&String> = path.iter().filter(is_name).collect();
    let Some((last, above)) = keys.split_last() else { return Hint::None };
    let words = words(last);
    if words == ["name"] {
        let of_people = above.last().is_some_and(|key| self::words(key).iter().any(|word| is_one_of(word, &PEOPLE)));
        return if of_people { Hint::Name } else { Hint::None };
    }
    let joined: String = words.concat();
    let pairs: Vec<String> = words.windows(2).map(<[String]>::concat).collect();
    for (hint, list) in WORDS {
        let whole = list.contains(&joined.as_str());
        let part = words.iter().chain(&pairs).any(|word| list.contains(&word.as_str()));
        if whole || part {
            return *hint;
        }
    }
    Hint::None
}

/// Also in the plural.
fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.contains(&word) || word.strip_suffix('s').is_some_and(|word| list.contains(&word))
}

/// `userEmail`, `user_email`, `user-email` and `USER_EMAIL` are `user`, `email`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_lower = false;
    for c in name.chars() {
        let starts = !c.is_alphanumeric() || (c.is_uppercase() && before_lower);
        before_lower = c.is_lowercase();
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling() {
        let of = |path: &str| hint(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        for (path, expected) in [
            ("firstName", Hint::Name),
            ("customer.LAST_NAME", Hint::Name),
            ("commits.[].author.name", Hint::Name),
            ("customers.name", Hint::Name),
            ("repo.name", Hint::None),
            ("name", Hint::None),
            ("actor.login", Hint::UserName),
            ("home-phone", Hint::Phone),
            ("dateOfBirth", Hint::BirthDate),
            ("credit_card_number", Hint::Card),
            ("tax_id", Hint::NationalId),
            ("actor_id", Hint::Identifier),
            ("head.sha", Hint::Identifier),
            ("app_version", Hint::Version),
            ("street", Hint::Address),
            ("db_password", Hint::Secret),
            ("hotel", Hint::None),
            ("company", Hint::None),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }
}
