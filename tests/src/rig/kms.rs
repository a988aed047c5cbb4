//! A stand-in for AWS KMS that refuses on order: its JSON protocol, as far as data keys go. What it calls wrapped is not
//! encrypted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::s3::{KEY, REGION, SECRET};

/// The key that it has.
pub const ARN: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";
/// How long it keeps silent at most, so that its threads end.
const SILENCE: Duration = Duration::from_mins(2);

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Works,
    /// With this status, error and message.
    Refuses(u16, &'static str, &'static str),
    /// Not at all, though it takes the request.
    Silent,
}

/// The server, until the tests end.
#[derive(Debug, Clone)]
pub struct Kms {
    port: u16,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
    made: Arc<AtomicU8>,
}

impl Kms {
    /// Starts one that works.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mood = Arc::new(Mutex::new(Mood::Works));
        let kms = Self { port: listener.local_addr()?.port(), mood, asked: Arc::default(), made: Arc::default() };
        let serving = kms.clone();
        thread::Builder::new().name("kms".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                let kms = serving.clone();
                // Clients that are kept waiting go away.
                let _ = thread::Builder::new().name("kms request".into()).spawn(move || kms.serve(&client));
            }
        })?;
        Ok(kms)
    }

    /// From now on it answers so.
    pub fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// Requests that it has had.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// `http://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The sections of `firn.yaml` for the key `people`, wrapped by the key that it has.
    #[must_use]
    pub fn sections(&self) -> String {
        sections(&self.endpoint())
    }

    fn serve(&self, client: &TcpStream) -> Result<()> {
        let (operation, body) = request(client)?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, answer) = match mood {
            Mood::Works => match operation.as_str() {
                "TrentService.GenerateDataKey" => (200, self.make(&body)),
                "TrentService.Decrypt" => open(&body),
                _ => (400, json!({"__type": "UnknownOperationException"})),
            },
            Mood::Refuses(status, error, message) => (status, json!({"__type": error, "message": message})),
            Mood::Silent => {
                thread::sleep(SILENCE);
                return Ok(());
            }
        };
        let answer = answer.to_string();
        let length = answer.len();
        let mut client = client;
        write!(
            client,
            "HTTP/1.1 {status} .\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
        )?;
        Ok(client.flush()?)
    }

    fn make(&self, asked: &Value) -> Value {
        let plain = STANDARD.encode([self.made.fetch_add(1, Ordering::Relaxed) + 1; 32]);
        let wrapped = json!({"plain": plain, "context": asked["EncryptionContext"]});
        json!({"KeyId": ARN, "Plaintext": plain, "CiphertextBlob": STANDARD.encode(wrapped.to_string())})
    }
}

/// The same sections for a KMS at any endpoint.
#[must_use]
pub fn sections(endpoint: &str) -> String {
    format!(
        "kms: {{endpoint: '{endpoint}', region: {REGION}, accessKeyId: {KEY}, secretAccessKey: {SECRET}}}\nkeys: {{people: {{kms: '{ARN}'}}}}"
    )
}

fn open(asked: &Value) -> (u16, Value) {
    let invalid = (400, json!({"__type": "InvalidCiphertextException"}));
    let blob = asked["CiphertextBlob"].as_str().and_then(|blob| STANDARD.decode(blob).ok());
    let Some(wrapped) = blob.and_then(|blob| serde_json::from_slice::<Value>(&blob).ok()) else { return invalid };
    if wrapped["context"] != asked["EncryptionContext"] {
        return invalid;
    }
    (200, json!({"KeyId": ARN, "Plaintext": wrapped["plain"]}))
}

/// The operation and the body of a request.
fn request(client: &TcpStream) -> Result<(String, Value)> {
    let mut reader = BufReader::new(client);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None if line.trim_end().is_empty() => break,
            None => continue,
        };
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let operation = headers.remove("x-amz-target").context("a request names its operation")?;
    Ok((operation, serde_json::from_slice(&body)?))
}
