//! The loop of a Lambda, over the HTTP interface that AWS documents for custom runtimes: ask for an event, answer it.

use std::fmt::Display;
use std::time::Duration;

use firn_shared::error::{Error, ErrorKind, Result};
use reqwest::{Client, Response};
use serde_json::json;

use crate::decrypt::Decrypt;

const VERSION: &str = "2018-06-01";
/// Tells which event an answer belongs to.
const REQUEST_ID: &str = "lambda-runtime-aws-request-id";
/// An answer is taken at once or not at all; only the next event is waited for without a bound.
const ANSWER: Duration = Duration::from_secs(30);

/// The runtime interface of the Lambda that we run in.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    base: String,
}

impl Runtime {
    /// The interface at `host:port`, as `AWS_LAMBDA_RUNTIME_API` has it.
    ///
    /// # Errors
    /// `Bug` when there can be no HTTP client.
    pub fn new(address: &str) -> Result<Self> {
        // The next event comes when somebody asks for it: hours may pass.
        let client = Client::builder().no_proxy().build();
        let client = client.map_err(|e| Error::bug("no HTTP client").with_source(e))?;
        Ok(Self { client, base: format!("http://{address}/{VERSION}/runtime") })
    }

    /// Answers events until the interface is gone, which ends the process.
    ///
    /// # Errors
    /// `Unavailable` when the interface does not do its part.
    pub async fn serve(&self, function: &Decrypt) -> Result<()> {
        loop {
            let (id, body) = self.next().await?;
            let invocation = format!("invocation/{id}");
            match function.answer(&body).await {
                Ok(answer) => self.post(&format!("{invocation}/response"), answer).await?,
                Err(error) => {
                    tracing::warn!(kind = %error.kind(), %error, "an event could not be answered");
                    self.post(&format!("{invocation}/error"), failure(&error)).await?;
                }
            }
        }
    }

    /// Says that there will be no answers, and why.
    ///
    /// # Errors
    /// `Unavailable` when the interface does not do its part.
    pub async fn fail(&self, error: &Error) -> Result<()> {
        self.post("init/error", failure(error)).await
    }

    async fn next(&self) -> Result<(String, Vec<u8>)> {
        let answer = self.client.get(format!("{}/invocation/next", self.base)).send().await;
        let answer = done("ask for the next event", answer)?;
        let id = answer.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let id = id.ok_or_else(|| Error::unavailable(format!("an event has no header {REQUEST_ID}")))?;
        let body = answer.bytes().await.map_err(|e| lost("read the next event", e))?;
        Ok((id, body.to_vec()))
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<()> {
        let request = self.client.post(format!("{}/{path}", self.base)).timeout(ANSWER);
        let request = request.header("content-type", "application/json").body(body);
        done("give an answer", request.send().await).map(drop)
    }
}

fn done(what: &str, answer: reqwest::Result<Response>) -> Result<Response> {
    answer.and_then(Response::error_for_status).map_err(|e| lost(what, e))
}

fn lost(what: &str, error: impl Display) -> Error {
    Error::unavailable(format!("cannot {what} of the Lambda runtime: {error}"))
}

/// An error in the form that Lambda hands to whoever called; Athena shows its message to the user.
fn failure(error: &Error) -> Vec<u8> {
    let kind = match error.kind() {
        ErrorKind::Config => "Config",
        ErrorKind::Data => "Data",
        ErrorKind::Conflict | ErrorKind::Unavailable => "Unavailable",
        ErrorKind::Bug => "Bug",
    };
    json!({"errorType": format!("Firn.{kind}"), "errorMessage": error.to_string(), "stackTrace": []})
        .to_string()
        .into_bytes()
}
