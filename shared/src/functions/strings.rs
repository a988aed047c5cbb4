//! Text.

use super::{Arg, Family, Function, Gives, Kind, LONG, Nulls, Shape, Takes};

/// This family.
pub const ALL: &[Function] = &[
    LOWER,
    UPPER,
    CAPITALISE,
    TRIM,
    SQUEEZE,
    REPLACE,
    REGEX_REPLACE,
    REGEX_EXTRACT,
    REGEX_MATCH,
    SPLIT,
    PAD,
    NORMALISE,
    REMOVE_ACCENTS,
    SUBSTRING,
    CONCAT,
    LENGTH,
    REVERSE,
    CONTAINS,
    BASE64_ENCODE,
    BASE64_DECODE,
    HEX_ENCODE,
    HEX_DECODE,
];

const fn text(name: &'static str, about: &'static str, gives: Gives) -> Function {
    Function::map(name, about, Takes::Text, gives).of(Family::Strings)
}

/// `lower`
pub const LOWER: Function = text("lower", "Lower case, by Unicode.", Gives::Same).example("lower: {column: email}");

/// `upper`
pub const UPPER: Function = text("upper", "Upper case, by Unicode.", Gives::Same).example("upper: {column: currency}");

/// `capitalise`
pub const CAPITALISE: Function =
    text("capitalise", "Upper case at the start of each word, lower case in it.", Gives::Same)
        .example("capitalise: {column: city}");

/// `trim`
pub const TRIM: Function = text("trim", "Takes characters off the ends.", Gives::Same)
    .args(&[
        Arg::default("side", Kind::Word(&["both", "start", "end"]), "\"both\"", "Which ends."),
        Arg::optional("characters", Kind::Text, "The characters; else white space."),
    ])
    .example("trim: {column: name}");

/// `squeeze`
pub const SQUEEZE: Function = text("squeeze", "Runs of white space as one blank, none at the ends.", Gives::Same)
    .example("squeeze: {column: note}");

/// `replace`
pub const REPLACE: Function = text("replace", "Every occurrence of a text by another.", Gives::Same)
    .args(&[
        Arg::required("find", Kind::Text, "What is replaced; not empty."),
        Arg::required("with", Kind::Text, "What stands there instead."),
    ])
    .rejects(LONG)
    .example("replace: {column: phone, find: ' ', with: ''}");

/// `regexReplace`
pub const REGEX_REPLACE: Function = text("regexReplace", "Every match of a pattern by another text.", Gives::Same)
    .args(&[
        Arg::required("pattern", Kind::Regex, "The pattern."),
        Arg::required("with", Kind::Text, "What stands there instead; `$1` and `${name}` are groups of the match."),
    ])
    .rejects(LONG)
    .example("regexReplace: {column: phone, pattern: '[^0-9+]', with: ''}");

/// `regexExtract`
pub const REGEX_EXTRACT: Function =
    text("regexExtract", "The first match of a pattern, or a group of it.", Gives::Same)
        .args(&[
            Arg::required("pattern", Kind::Regex, "The pattern."),
            Arg::default("group", Kind::Int(0, 99), "0", "Number of the group; 0 is the whole match."),
        ])
        .nulls(Nulls::Made("text without a match"))
        .example("regexExtract: {column: path, pattern: '/orders/([0-9]+)', group: 1, as: order}");

/// `regexMatch`
pub const REGEX_MATCH: Function = text("regexMatch", "Whether a pattern matches somewhere.", Gives::Boolean)
    .args(&[Arg::required("pattern", Kind::Regex, "The pattern; `^` and `$` bind it to the ends.")])
    .example("regexMatch: {column: email, pattern: '@example[.]com$', as: is_internal}");

/// `split`
pub const SPLIT: Function = text("split", "Text to a list, cut at a separator.", Gives::Texts)
    .args(&[
        Arg::required("separator", Kind::Text, "Where it is cut; not empty."),
        Arg::default("trim", Kind::Bool, "false", "Whether white space around the parts goes."),
    ])
    .example("split: {column: tags, separator: ','}");

/// `pad`
pub const PAD: Function = text("pad", "Fills text up to a number of characters; longer text stays.", Gives::Same)
    .args(&[
        Arg::required("width", Kind::Int(1, 10_000), "Characters."),
        Arg::default("with", Kind::Text, "\" \"", "One character that fills."),
        Arg::default("side", Kind::Word(&["start", "end"]), "\"start\"", "Where it is put."),
    ])
    .rejects(LONG)
    .example("pad: {column: store, width: 5, with: '0'}");

/// `normalise`
pub const NORMALISE: Function =
    text("normalise", "One form for text that looks the same (Unicode normalisation).", Gives::Same)
        .args(&[Arg::default("form", Kind::Word(&["nfc", "nfd", "nfkc", "nfkd"]), "\"nfc\"", "The form.")])
        .rejects(LONG)
        .example("normalise: {column: name}");

/// `removeAccents`
pub const REMOVE_ACCENTS: Function =
    text("removeAccents", "Letters without their accents: `é` is `e`. Vowel signs of other scripts stay.", Gives::Same)
        .example("removeAccents: {column: name, as: name_plain}");

/// `substring`
pub const SUBSTRING: Function = text("substring", "Part of a text, in characters.", Gives::Same)
    .args(&[
        Arg::default(
            "start",
            Kind::Int(i64::MIN, i64::MAX),
            "0",
            "Where it begins, from 0; negative counts from the end.",
        ),
        Arg::optional("length", Kind::Int(0, i64::MAX), "How many characters; else to the end."),
    ])
    .example("substring: {column: sku, start: 0, length: 3, as: brand}");

/// `concat`
pub const CONCAT: Function = Function::new(
    "concat",
    "The texts of several columns, one after the other.",
    Shape::Combine(Takes::Text, Gives::Text),
)
.of(Family::Strings)
.args(&[
    Arg::default("separator", Kind::Text, "\"\"", "What stands between them."),
    Arg::default("skipNulls", Kind::Bool, "false", "Whether columns without a value are left out."),
])
.nulls(Nulls::Own("null where a column is null, or, with `skipNulls`, where all are"))
.rejects(LONG)
.example("concat: {columns: [first_name, last_name], separator: ' ', as: name}");

/// `length`
pub const LENGTH: Function =
    text("length", "How many characters a text has.", Gives::Int).example("length: {column: note, as: note_length}");

/// `reverse`
pub const REVERSE: Function =
    text("reverse", "The characters from the last to the first.", Gives::Same).example("reverse: {column: key}");

/// `contains`
pub const CONTAINS: Function = text("contains", "Whether a text has another in it.", Gives::Boolean)
    .args(&[
        Arg::required("text", Kind::Text, "What is looked for."),
        Arg::default("at", Kind::Word(&["anywhere", "start", "end"]), "\"anywhere\"", "Where it must stand."),
    ])
    .example("contains: {column: path, text: /api/, at: start, as: is_api}");

/// `base64Encode`
pub const BASE64_ENCODE: Function =
    Function::map("base64Encode", "Bytes, or the UTF-8 bytes of text, as base64.", Takes::Bytes, Gives::Text)
        .of(Family::Strings)
        .rejects(LONG)
        .example("base64Encode: {column: body}");

/// `base64Decode`
pub const BASE64_DECODE: Function = text("base64Decode", "Base64 (standard alphabet, padded) to bytes.", Gives::Binary)
    .rejects("text that is not base64")
    .example("base64Decode: {column: body}");

/// `hexEncode`
pub const HEX_ENCODE: Function = Function::map(
    "hexEncode",
    "Bytes, or the UTF-8 bytes of text, as lower-case hexadecimal digits.",
    Takes::Bytes,
    Gives::Text,
)
.of(Family::Strings)
.rejects(LONG)
.example("hexEncode: {column: body}");

/// `hexDecode`
pub const HEX_DECODE: Function = text("hexDecode", "Pairs of hexadecimal digits to bytes.", Gives::Binary)
    .rejects("text of other characters, or an odd number of them")
    .example("hexDecode: {column: body}");
