//! URLs, user agents and addresses.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, StringArray, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use firn_shared::error::{Error, Result};
use firn_shared::functions::{Function, web as spec};
use url::Url;
use url::form_urlencoded;

use crate::arrow_types::data_type;
use crate::transform::kernel::{Build, Call, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, batch, column, long_text, text_or_reject, text_to, texts};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[
    (&spec::URL_SCHEME, url_scheme),
    (&spec::URL_HOST, url_host),
    (&spec::URL_PATH, url_path),
    (&spec::URL_QUERY, url_query),
    (&spec::URL_PARAMETER, url_parameter),
    (&spec::URL_ENCODE, url_encode),
    (&spec::URL_DECODE, url_decode),
    (&spec::USER_AGENT, user_agent),
    (&spec::IP_PREFIX, ip_prefix),
    (&spec::IP_VERSION, ip_version),
    (&spec::IP_IS_PRIVATE, ip_is_private),
    (&spec::IP_IN, ip_in),
];

fn parse(text: &str) -> Result<Url, Why> {
    Url::parse(text).map_err(|e| Why::form(format!("not a URL: {e}")))
}

/// A part of a URL; none is null.
fn part(of: impl Fn(&Url) -> Option<&str> + Send + Sync + 'static) -> Work {
    text_or_reject(move |text, out| {
        let url = parse(text)?;
        let part = of(&url);
        out.push_str(part.unwrap_or_default());
        Ok(part.is_some())
    })
}

fn url_scheme(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(part(|url| Some(url.scheme())))
}

fn url_host(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(part(|url| url.host_str()))
}

fn url_path(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(part(|url| Some(url.path())))
}

fn url_query(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(part(|url| url.query()))
}

fn url_parameter(call: &Call<'_>) -> Result<Work, Misfit> {
    let name = call.args.text("name").map_err(broken)?.to_owned();
    Ok(text_or_reject(move |text, out| {
        let url = parse(text)?;
        let value = url.query_pairs().find(|(key, _)| *key == name).map(|(_, value)| value);
        out.push_str(value.as_deref().unwrap_or_default());
        Ok(value.is_some())
    }))
}

fn url_encode(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(long_text(|text, out| {
        // Ends at the first piece that is too long.
        let _ = form_urlencoded::byte_serialize(text.as_bytes()).all(|piece| out.push_str(piece));
    }))
}

fn url_decode(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(text_or_reject(|text, out| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).map(|digit| digit as u8);
                    let pair = digit(rest.next()).zip(digit(rest.next()));
                    let (high, low) = pair.ok_or_else(|| Why::form("a percent sign without two hexadecimal digits"))?;
                    high << 4 | low
                }
                other => other,
            });
        }
        out.push_str(std::str::from_utf8(&bytes).map_err(|_| Why::form("percent signs that do not make UTF-8"))?);
        Ok(true)
    }))
}

fn user_agent(call: &Call<'_>) -> Result<Work, Misfit> {
    let DataType::Struct(fields) = data_type(call.to().map_err(broken)?) else {
        return Err(("column", "does not become a struct".to_owned()));
    };
    Ok(column(move |column| {
        let agents = texts(column)?;
        // Few agents make most of the traffic: each is read once a batch.
        let mut known: HashMap<&str, Option<[String; 6]>> = HashMap::new();
        let mut parts: [StringBuilder; 6] = std::array::from_fn(|_| StringBuilder::new());
        for agent in agents {
            let found = match agent {
                Some(agent) => known.entry(agent).or_insert_with(|| agent_parts(agent)).as_ref(),
                None => None,
            };
            for (i, part) in parts.iter_mut().enumerate() {
                let value = found.map(|values| values[i].as_str());
                part.append_option(value.filter(|value| !value.is_empty()));
            }
        }
        let columns = parts.iter_mut().map(|part| Arc::new(part.finish()) as ArrayRef).collect();
        let nulls: Option<NullBuffer> = agents.nulls().cloned();
        let parts = StructArray::try_new(fields.clone(), columns, nulls);
        Ok(Arc::new(parts.map_err(|e| Error::bug("cannot build the parts of user agents").with_source(e))?))
    }))
}

/// Name, version, category, system, its version, vendor; empty where it is not known.
fn agent_parts(agent: &str) -> Option<[String; 6]> {
    let found = woothee::parser::Parser::new().parse(agent)?;
    let told = |text: &str| if text == "UNKNOWN" { String::new() } else { text.to_owned() };
    let (os, version) = (told(found.os), told(&found.os_version));
    Some([told(found.name), told(found.version), told(found.category), os, version, told(found.vendor)])
}

/// An address; one of IPv4 that is written as IPv6 (`::ffff:192.0.2.1`), as sockets of both kinds show it, is of IPv4.
fn address(text: &str) -> Result<IpAddr, Why> {
    let address = text.parse::<IpAddr>().map_err(|_| Why::form("not an address of IPv4 or IPv6"))?;
    Ok(address.to_canonical())
}

/// The address with all bits behind the first `bits` cleared.
fn network(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into()),
    }
}

fn ip_prefix(call: &Call<'_>) -> Result<Work, Misfit> {
    let bits = |name| call.args.int(name).map(|bits| bits as u32).map_err(broken);
    let (v4, v6) = (bits("v4")?, bits("v6")?);
    Ok(text_or_reject(move |text, out| {
        let address = address(text)?;
        let bits = if address.is_ipv4() { v4 } else { v6 };
        // Writing into text cannot fail.
        let _ = write!(out, "{}/{bits}", network(address, bits));
        Ok(true)
    }))
}

fn ip_version(call: &Call<'_>) -> Result<Work, Misfit> {
    text_to::<Int32Type>(call, |text| Ok(Some(if address(text)?.is_ipv4() { 4 } else { 6 })))
}

/// Addresses to true or false.
fn addresses(work: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let column = batch.column(0)?;
        let texts: &StringArray = texts(column)?;
        let mut rejects = Rejects::new(column.name);
        let mut out = BooleanBuilder::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            out.append_option(text.and_then(|text| rejects.sieve(row, address(text)).map(&work)));
        }
        Ok(Made { columns: vec![Arc::new(out.finish())], rejects: rejects.found })
    })
}

fn ip_is_private(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(addresses(|address| match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }))
}

fn ip_in(call: &Call<'_>) -> Result<Work, Misfit> {
    let read = |text: &String| {
        let wrong = || ("networks", format!("`{text}` is not a network such as `10.0.0.0/8`"));
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most || network(address, bits) != address {
            return Err(wrong());
        }
        Ok((address, bits))
    };
    let networks: Vec<(IpAddr, u32)> = call.args.texts("networks").iter().map(read).collect::<Result<_, Misfit>>()?;
    Ok(addresses(move |address| {
        let mut same = networks.iter().filter(|(network, _)| network.is_ipv4() == address.is_ipv4());
        same.any(|(start, bits)| network(address, *bits) == *start)
    }))
}
