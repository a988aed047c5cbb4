//! One HTTP request over a connection of its own. Blocking, and without a runtime: servers are started from inside of one too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_mins(1);

/// Status and body of a page of `host:port`.
///
/// # Errors
/// When nobody answers.
pub fn get(address: &str, path: &str) -> Result<(u16, String)> {
    ask(address, &format!("GET {path}"), &[], "")
}

/// The same for a request (`POST /path`) with these headers and this body.
///
/// # Errors
/// When nobody answers.
pub fn ask(address: &str, request: &str, headers: &[&str], body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let headers = headers.iter().flat_map(|header| [*header, "\r\n"]).collect::<String>();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head and a body")?;
    let status = head.split_whitespace().nth(1).context("an answer has a status")?.parse()?;
    Ok((status, body.to_owned()))
}
