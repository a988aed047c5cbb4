//! The Iceberg REST protocol: the server checks requirements, applies updates and writes the metadata.
//!
//! Storage credentials that a server hands out are ignored: table files go through our own stores.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use firn_shared::config::domain::Secret;
use firn_shared::error::{Error, ErrorKind, Result};
use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, TableMetadata};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent, TableRequirement, TableUpdate};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Catalog, CommitOutcome, Created, pointer};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a server's error text is repeated.
const ERROR_TEXT_MAX: usize = 300;

/// What a server answers, or a proxy in its place, when the request was looked at and not carried out. Any other answer
/// may come after the deed: 408 and 499, for one, are of proxies that did not wait for the server's.
const REFUSED: [StatusCode; 9] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::TOO_MANY_REQUESTS,
];

/// The specification's status for a token whose time is over; a server that says so has done nothing.
const TOKEN_TIMED_OUT: u16 = 419;

/// How we prove who we are.
#[derive(Debug, Clone)]
pub struct Access {
    /// OAuth2 `client:secret`; a token is fetched with it.
    pub credential: Option<Secret>,
    /// A token that is ready.
    pub token: Option<Secret>,
    /// OAuth2 scope.
    pub scope: String,
}

/// A REST catalog server.
#[derive(Debug)]
pub struct RestCatalog {
    http: Client,
    uri: String,
    /// `/v1` or `/v1/{prefix}`.
    base: String,
    access: Access,
    token: Mutex<Option<Secret>>,
    file_io: FileIO,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    defaults: HashMap<String, String>,
    #[serde(default)]
    overrides: HashMap<String, String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TableAnswer {
    metadata_location: Option<String>,
    metadata: TableMetadata,
}

/// A part of a listing.
trait Page: for<'a> Deserialize<'a> {
    /// Where the next part begins.
    fn next(&self) -> Option<&str>;
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Namespaces {
    #[serde(default)]
    namespaces: Vec<Vec<String>>,
    next_page_token: Option<String>,
}

impl Page for Namespaces {
    fn next(&self) -> Option<&str> {
        self.next_page_token.as_deref()
    }
}

#[derive(Deserialize)]
struct Identifier {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identifiers {
    #[serde(default)]
    identifiers: Vec<Identifier>,
    next_page_token: Option<String>,
}

impl Page for Identifiers {
    fn next(&self) -> Option<&str> {
        self.next_page_token.as_deref()
    }
}

/// An answer that is not a success, or none at all.
struct Refusal {
    status: Option<StatusCode>,
    error: Error,
}

impl Refusal {
    /// Whether the token is not good, or not any more: 419 is the specification's `AuthenticationTimeoutResponse`.
    fn is_of_token(&self) -> bool {
        self.status.is_some_and(|status| status == StatusCode::UNAUTHORIZED || status.as_u16() == TOKEN_TIMED_OUT)
    }
}

impl RestCatalog {
    /// Asks the server for its settings; `uri` is without `/v1`.
    ///
    /// # Errors
    /// `Config` when access is refused, `Unavailable` when nobody answers.
    pub async fn connect(uri: &str, warehouse: Option<&str>, access: Access, file_io: FileIO) -> Result<Self> {
        let http = Client::builder().timeout(TIMEOUT).build();
        let http = http.map_err(|e| Error::config("cannot make an HTTP client").with_source(e))?;
        let token = Mutex::new(access.token.clone());
        let uri = uri.trim_end_matches('/').to_owned();
        let mut catalog = Self { http, uri, base: "/v1".to_owned(), access, token, file_io };
        let path = match warehouse {
            Some(warehouse) => format!("/v1/config?warehouse={}", escape(warehouse)),
            None => "/v1/config".to_owned(),
        };
        let settings: Settings = catalog.read(Method::GET, &path, None).await.map_err(|r| r.error)?;
        let setting = |key: &str| settings.overrides.get(key).or_else(|| settings.defaults.get(key)).cloned();
        if let Some(uri) = settings.overrides.get("uri") {
            catalog.uri = uri.trim_end_matches('/').to_owned();
        }
        if let Some(prefix) = setting("prefix").filter(|p| !p.is_empty()) {
            // A prefix may have several segments; what it holds is the server's own text.
            catalog.base = format!("/v1/{}", prefix.split('/').map(escape).collect::<Vec<_>>().join("/"));
        }
        Ok(catalog)
    }

    fn table_path(&self, ident: &TableIdent) -> Result<String> {
        let namespace = pointer::database(ident.namespace())?;
        Ok(format!("{}/namespaces/{}/tables/{}", self.base, escape(namespace), escape(ident.name())))
    }

    /// One request and its answer as JSON; a token that has run out is fetched again, once.
    async fn read<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Refusal> {
        let first = self.request(method.clone(), path, body).await;
        let bytes = match first {
            // Refused before anything was done, so that sending again is safe even for a commit.
            Err(r) if r.is_of_token() && self.access.credential.is_some() => {
                *self.token.lock().await = None;
                self.request(method, path, body).await?
            }
            other => other?,
        };
        serde_json::from_slice(&bytes).map_err(|e| Refusal {
            status: None,
            error: Error::data(format!("the answer of {}{path} cannot be read: {e}", self.uri)).with_source(e),
        })
    }

    /// All parts of a listing; a server that gives it in one piece names no next one.
    async fn pages<T: Page>(&self, path: &str) -> Result<Vec<T>, Refusal> {
        let mut pages: Vec<T> = Vec::new();
        loop {
            let token = pages.last().and_then(Page::next).filter(|token| !token.is_empty());
            let path = match token {
                Some(token) => format!("{path}?pageToken={}", escape(token)),
                None if pages.is_empty() => path.to_owned(),
                None => return Ok(pages),
            };
            pages.push(self.read(Method::GET, &path, None).await?);
        }
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<bytes::Bytes, Refusal> {
        let url = format!("{}{path}", self.uri);
        let mut request = self.http.request(method.clone(), &url);
        if let Some(token) =
            self.bearer().await.map_err(|error| Refusal { status: Some(StatusCode::FORBIDDEN), error })?
        {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let silent = |e: reqwest::Error| {
            // A connection that was never made carried nothing: as if the server had said that it is not ready.
            let status = e.is_connect().then_some(StatusCode::TOO_MANY_REQUESTS);
            Refusal { status, error: Error::unavailable(format!("{method} {url} got no answer: {e}")).with_source(e) }
        };
        let answer = request.send().await.map_err(silent)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|e| Refusal {
            status: None,
            error: Error::unavailable(format!("{method} {url}: the answer broke off: {e}")).with_source(e),
        })?;
        if status.is_success() {
            return Ok(bytes);
        }
        let text: String = String::from_utf8_lossy(&bytes).chars().take(ERROR_TEXT_MAX).collect();
        let kind = match status {
            StatusCode::CONFLICT => ErrorKind::Conflict,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
            s if s.is_server_error() => ErrorKind::Unavailable,
            _ => ErrorKind::Config,
        };
        Err(Refusal { status: Some(status), error: Error::new(kind, format!("{method} {url}: {status}: {text}")) })
    }

    /// The token to send, fetched with the credential at first use.
    async fn bearer(&self) -> Result<Option<Secret>> {
        let mut token = self.token.lock().await;
        if let (None, Some(credential)) = (token.as_ref(), &self.access.credential) {
            let url = format!("{}/v1/oauth/tokens", self.uri);
            let (id, secret) = credential.expose().split_once(':').unwrap_or(("", credential.expose()));
            let mut form = vec![("grant_type", "client_credentials"), ("client_secret", secret)];
            form.push(("scope", &self.access.scope));
            if !id.is_empty() {
                form.push(("client_id", id));
            }
            let failed = |e: reqwest::Error| Error::unavailable(format!("cannot get a token at {url}")).with_source(e);
            let answer = self.http.post(&url).form(&form).send().await.map_err(failed)?;
            if !answer.status().is_success() {
                let status = answer.status();
                let kind = if status.is_server_error() { ErrorKind::Unavailable } else { ErrorKind::Config };
                return Err(Error::new(kind, format!("{url} gave no token: {status}; check the catalog's credential")));
            }
            *token = Some(Secret::new(answer.json::<TokenAnswer>().await.map_err(failed)?.access_token));
        }
        Ok(token.clone())
    }

    /// Whether the server kept the table that it says `made` is.
    ///
    /// SeaweedFS 4.48 does not decide between creators of the same moment, with or without `assert-create`: each is told
    /// that it made the table, each with another uuid at the same metadata location, and the last one written stays.
    /// Whoever finds another uuid has lost. One who asks before the last write believes that it won; its first commit
    /// then meets a table of another uuid and is a conflict.
    async fn verify_created(&self, made: Table) -> Result<Created> {
        match self.load(made.identifier()).await? {
            Some(kept) if kept.metadata().uuid() != made.metadata().uuid() => Ok(Created::Existing(kept)),
            _ => Ok(Created::New(made)),
        }
    }

    fn table(&self, ident: &TableIdent, answer: TableAnswer) -> Result<Table> {
        let location = answer
            .metadata_location
            .ok_or_else(|| Error::data(format!("{} sent {ident} without a metadata location", self.describe())))?;
        pointer::table(ident, location, answer.metadata, &self.file_io)
    }
}

/// Percent-encodes what is not safe in a path segment or query value.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[async_trait]
impl Catalog for RestCatalog {
    fn describe(&self) -> String {
        format!("the REST catalog {}", self.uri)
    }

    async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        match self.read::<TableAnswer>(Method::GET, &self.table_path(ident)?, None).await {
            Ok(answer) => Ok(Some(self.table(ident, answer)?)),
            Err(r) if r.status == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(r) => Err(r.error),
        }
    }

    async fn databases(&self) -> Result<Vec<NamespaceIdent>> {
        let path = format!("{}/namespaces", self.base);
        let pages: Vec<Namespaces> = self.pages(&path).await.map_err(|r| r.error)?;
        let names = pages.into_iter().flat_map(|page| page.namespaces);
        Ok(names.filter(|parts| parts.len() == 1).flatten().map(NamespaceIdent::new).collect())
    }

    async fn tables(&self, database: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let path = format!("{}/namespaces/{}/tables", self.base, escape(pointer::database(database)?));
        match self.pages::<Identifiers>(&path).await {
            Ok(pages) => {
                let all = pages.into_iter().flat_map(|page| page.identifiers);
                Ok(all.map(|of| TableIdent::new(database.clone(), of.name)).collect())
            }
            Err(r) if r.status == Some(StatusCode::NOT_FOUND) => Ok(Vec::new()),
            Err(r) => Err(r.error),
        }
    }

    async fn ensure_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let name = pointer::database(namespace)?;
        let body = json!({"namespace": [name], "properties": {}});
        match self.read::<Value>(Method::POST, &format!("{}/namespaces", self.base), Some(&body)).await {
            Ok(_) => Ok(()),
            Err(r) if r.status == Some(StatusCode::CONFLICT) => Ok(()),
            Err(r) => Err(r.error),
        }
    }

    async fn create(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Created> {
        let ident = TableIdent::new(namespace.clone(), creation.name.clone());
        if let Some(table) = self.load(&ident).await? {
            return Ok(Created::Existing(table));
        }
        let mut properties = creation.properties.clone();
        let version = if creation.format_version == FormatVersion::V3 { "3" } else { "2" };
        properties.insert("format-version".to_owned(), version.to_owned());
        let body = json!({
            "name": creation.name,
            "location": creation.location,
            "schema": creation.schema,
            "partition-spec": creation.partition_spec,
            "write-order": creation.sort_order,
            "stage-create": false,
            "properties": properties,
        });
        let path = format!("{}/namespaces/{}/tables", self.base, escape(pointer::database(namespace)?));
        match self.read::<TableAnswer>(Method::POST, &path, Some(&body)).await {
            Ok(answer) => self.verify_created(self.table(&ident, answer)?).await,
            Err(r) if r.status == Some(StatusCode::CONFLICT) => {
                self.made_by_another(&ident).await.map(Created::Existing)
            }
            Err(r) => Err(r.error),
        }
    }

    async fn commit(
        &self,
        base: &Table,
        updates: Vec<TableUpdate>,
        requirements: Vec<TableRequirement>,
    ) -> Result<CommitOutcome> {
        let ident = base.identifier();
        let body = json!({
            "identifier": {"namespace": ident.namespace(), "name": ident.name()},
            "requirements": requirements,
            "updates": updates,
        });
        match self.read::<TableAnswer>(Method::POST, &self.table_path(ident)?, Some(&body)).await {
            // The server says yes; an answer that cannot be used takes nothing back.
            Ok(answer) => Ok(self.table(ident, answer).map_or_else(CommitOutcome::Unknown, CommitOutcome::Committed)),
            Err(Refusal { status: Some(StatusCode::CONFLICT), error }) => {
                Ok(CommitOutcome::Conflict(error.to_string()))
            }
            Err(Refusal { status: Some(status), error })
                if REFUSED.contains(&status) || status.as_u16() == TOKEN_TIMED_OUT =>
            {
                Err(error)
            }
            Err(Refusal { error, .. }) => Ok(CommitOutcome::Unknown(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use firn_shared::config::domain::S3Options;
    use firn_shared::store::Stores;
    use iceberg::spec::TableMetadataBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::table::create::Definition;
    use crate::table::schema::TableColumn;

    /// Gives these answers, one a request, and its address.
    async fn server(answers: Vec<(u16, String)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !is_whole(&request) {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0, "half a request");
                }
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    /// Whether a request is there up to the end of its body.
    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    }

    fn metadata() -> TableMetadata {
        let id = TableColumn { name: "id".to_owned(), r#type: "long".parse().unwrap(), required: true, doc: None };
        let definition = Definition {
            ident: TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned()),
            location: "file:///t".to_owned(),
            columns: vec![id],
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            properties: BTreeMap::new(),
            needed: BTreeMap::new(),
        };
        let built = TableMetadataBuilder::from_table_creation(definition.creation().unwrap());
        built.unwrap().build().unwrap().metadata
    }

    #[tokio::test]
    async fn a_token_whose_time_is_over_is_fetched_again() {
        for status in [401, 419] {
            let token = |token: &str| (200, json!({"access_token": token}).to_string());
            let answers = [
                token("first"),
                (200, "{}".to_owned()),
                (status, String::new()),
                token("second"),
                (404, String::new()),
            ];
            let uri = server(answers.to_vec()).await;
            let file_io = crate::table::storage::file_io(&Stores::new(S3Options::default()));
            let credential = Some(Secret::new("client:secret".to_owned()));
            let access = Access { credential, token: None, scope: "catalog".to_owned() };
            let catalog = RestCatalog::connect(&uri, None, access, file_io).await.unwrap();
            let ident = TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned());
            assert!(catalog.load(&ident).await.unwrap().is_none(), "{status}");
        }
    }

    #[tokio::test]
    async fn only_an_answer_that_refuses_the_request_says_that_nothing_was_committed() {
        let whole = |location: Option<&str>| {
            let location = location.map(|l| json!({"metadata-location": l, "metadata": metadata()}));
            location.unwrap_or_else(|| json!({"metadata": metadata()})).to_string()
        };
        let cases = [
            ((200, whole(Some("file:///t/metadata/1.json"))), "committed"),
            ((200, whole(None)), "unknown"),
            ((200, "{}".to_owned()), "unknown"),
            ((200, String::new()), "unknown"),
            ((408, "a proxy".to_owned()), "unknown"),
            ((499, "a proxy".to_owned()), "unknown"),
            ((418, "who knows".to_owned()), "unknown"),
            ((500, String::new()), "unknown"),
            ((503, String::new()), "unknown"),
            ((409, String::new()), "conflict"),
            ((400, String::new()), "refused"),
            ((419, String::new()), "refused"),
            ((404, String::new()), "refused"),
        ];
        let answers = cases.iter().map(|(answer, _)| answer.clone());
        let uri = server([(200, "{}".to_owned())].into_iter().chain(answers).collect()).await;
        let file_io = crate::table::storage::file_io(&Stores::new(S3Options::default()));
        let access = Access { credential: None, token: None, scope: "catalog".to_owned() };
        let catalog = RestCatalog::connect(&uri, None, access, file_io.clone()).await.unwrap();
        let ident = TableIdent::new(NamespaceIdent::new("d".to_owned()), "t".to_owned());
        let base = pointer::table(&ident, "file:///t/metadata/0.json".to_owned(), metadata(), &file_io).unwrap();
        for ((status, body), expected) in cases {
            let found = match catalog.commit(&base, Vec::new(), Vec::new()).await {
                Ok(CommitOutcome::Committed(_)) => "committed",
                Ok(CommitOutcome::Conflict(_)) => "conflict",
                Ok(CommitOutcome::Unknown(_)) => "unknown",
                Err(_) => "refused",
            };
            assert_eq!(found, expected, "{status}: {body}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_listing_in_parts_is_read_to_its_end() {
        let page = |body: Value| (200, body.to_string());
        let answers = vec![
            page(json!({})),
            page(json!({"namespaces": [["a"], ["a", "below"]], "next-page-token": "n 1"})),
            page(json!({"namespaces": [["b"]], "next-page-token": null})),
            page(json!({"identifiers": [{"namespace": ["a"], "name": "t"}], "next-page-token": "2"})),
            page(json!({"identifiers": [{"namespace": ["a"], "name": "u"}], "next-page-token": ""})),
            (404, String::new()),
            (403, String::new()),
        ];
        let uri = server(answers).await;
        let file_io = crate::table::storage::file_io(&Stores::new(S3Options::default()));
        let access = Access { credential: None, token: None, scope: "catalog".to_owned() };
        let catalog = RestCatalog::connect(&uri, None, access, file_io).await.unwrap();
        let a = NamespaceIdent::new("a".to_owned());
        assert_eq!(catalog.databases().await.unwrap(), [a.clone(), NamespaceIdent::new("b".to_owned())]);
        let names: Vec<String> =
            catalog.tables(&a).await.unwrap().iter().map(|ident| ident.name().to_owned()).collect();
        assert_eq!(names, ["t", "u"]);
        assert!(catalog.tables(&a).await.unwrap().is_empty());
        assert_eq!(catalog.tables(&a).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
