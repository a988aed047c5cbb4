//! URLs, user agents and addresses.

use super::{Arg, Family, Function, Gives, Kind, LONG, Nulls, Takes};
use crate::types::{LogicalType, StructField};

/// This family.
pub const ALL: &[Function] = &[
    URL_SCHEME,
    URL_HOST,
    URL_PATH,
    URL_QUERY,
    URL_PARAMETER,
    URL_ENCODE,
    URL_DECODE,
    USER_AGENT,
    IP_PREFIX,
    IP_VERSION,
    IP_IS_PRIVATE,
    IP_IN,
];

const fn text(name: &'static str, about: &'static str, gives: Gives) -> Function {
    Function::map(name, about, Takes::Text, gives).of(Family::Web)
}

const NO_URL: &str = "text that is no URL with a scheme";

/// `urlScheme`
pub const URL_SCHEME: Function = text("urlScheme", "The scheme of a URL, in lower case.", Gives::Text)
    .rejects(NO_URL)
    .example("urlScheme: {column: url, as: scheme}");

/// `urlHost`
pub const URL_HOST: Function =
    text("urlHost", "The host of a URL, in lower case, names in their ASCII form.", Gives::Text)
        .nulls(Nulls::Made("a URL without a host"))
        .rejects(NO_URL)
        .example("urlHost: {column: url, as: host}");

/// `urlPath`
pub const URL_PATH: Function = text("urlPath", "The path of a URL, percent signs as they are.", Gives::Text)
    .rejects(NO_URL)
    .example("urlPath: {column: url, as: path}");

/// `urlQuery`
pub const URL_QUERY: Function = text("urlQuery", "The query of a URL, without the question mark.", Gives::Text)
    .nulls(Nulls::Made("a URL without a query"))
    .rejects(NO_URL)
    .example("urlQuery: {column: url, as: query}");

/// `urlParameter`
pub const URL_PARAMETER: Function = text("urlParameter", "The first value of a query parameter, decoded.", Gives::Text)
    .args(&[Arg::required("name", Kind::Text, "Its name.")])
    .nulls(Nulls::Made("a URL without the parameter"))
    .rejects(NO_URL)
    .example("urlParameter: {column: url, name: utm_source, as: source}");

/// `urlEncode`
pub const URL_ENCODE: Function = text("urlEncode", "Percent encoding, as forms send it: a blank is `+`.", Gives::Text)
    .rejects(LONG)
    .example("urlEncode: {column: term}");

/// `urlDecode`
pub const URL_DECODE: Function = text("urlDecode", "The text behind percent encoding; `+` is a blank.", Gives::Text)
    .rejects("percent signs that do not make UTF-8")
    .example("urlDecode: {column: term}");

/// `userAgent`
pub const USER_AGENT: Function = text(
    "userAgent",
    "Browser and system out of a User-Agent header; `unnest` and `field` take the parts.",
    Gives::With(
        "struct<name: string, version: string, category: string, os: string, os_version: string, vendor: string>",
        |_, _| Ok(agent_type()),
    ),
)
.nulls(Nulls::Made("of an agent that is not known, the fields"))
.example("userAgent: {column: user_agent, as: agent}");

/// Fields of what `userAgent` gives.
pub const AGENT_FIELDS: [&str; 6] = ["name", "version", "category", "os", "os_version", "vendor"];

/// The type of what `userAgent` gives.
#[must_use]
pub fn agent_type() -> LogicalType {
    let field = |name: &str| StructField { name: name.to_owned(), r#type: LogicalType::String, required: false };
    LogicalType::Struct(AGENT_FIELDS.map(field).to_vec())
}

const NO_ADDRESS: &str = "text that is no address of IPv4 or IPv6";

/// `ipPrefix`
pub const IP_PREFIX: Function = text(
    "ipPrefix",
    "The network of an address, such as `203.0.113.0/24`; `::ffff:203.0.113.7` is an address of IPv4.",
    Gives::Text,
)
.args(&[
    Arg::default("v4", Kind::Int(0, 32), "24", "Bits of the network of IPv4."),
    Arg::default("v6", Kind::Int(0, 128), "48", "Bits of the network of IPv6."),
])
.rejects(NO_ADDRESS)
.example("ipPrefix: {column: client_ip, as: network}");

/// `ipVersion`
pub const IP_VERSION: Function =
    text("ipVersion", "4 or 6; 4 for `::ffff:203.0.113.7`, which is an address of IPv4.", Gives::Int)
        .rejects(NO_ADDRESS)
        .example("ipVersion: {column: client_ip, as: ip_version}");

/// `ipIsPrivate`
pub const IP_IS_PRIVATE: Function = text(
    "ipIsPrivate",
    "Whether an address is of a network that is not routed in public: private, loopback, link-local, unique local.",
    Gives::Boolean,
)
.rejects(NO_ADDRESS)
.example("ipIsPrivate: {column: client_ip, as: is_internal}");

/// `ipIn`
pub const IP_IN: Function = text("ipIn", "Whether an address is in one of some networks.", Gives::Boolean)
    .args(&[Arg::required("networks", Kind::Texts, "The networks, such as `10.0.0.0/8`.")])
    .rejects(NO_ADDRESS)
    .example("ipIn: {column: client_ip, networks: [10.0.0.0/8, 'fd00::/8'], as: is_office}");
