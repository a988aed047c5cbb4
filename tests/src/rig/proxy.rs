//! A TCP proxy that spoils HTTP exchanges on order: what the network does to a request or its answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// It does not arrive; the connection is cut.
    Request,
    /// It arrives and has its effect; the connection is cut before the answer.
    Answer,
    /// The connection is cut after this many bytes of the answer.
    AnswerAfter(usize),
    /// It arrives and has its effect; the answer is 503 `SlowDown`.
    SlowDown,
}

/// Spoils the next `times` requests whose first line contains all of `line`.
#[derive(Debug, Clone)]
struct Order {
    line: Vec<String>,
    spoil: Spoil,
    times: usize,
}

/// A proxy in front of one server, on a port of its own until the tests end.
#[derive(Debug, Clone)]
pub struct Proxy {
    port: u16,
    orders: Arc<Mutex<Vec<Order>>>,
}

impl Proxy {
    /// Listens in front of `server` (`host:port`).
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Self { port: listener.local_addr()?.port(), orders: Arc::default() };
        let (server, accepting) = (server.to_owned(), proxy.clone());
        thread::Builder::new().name("proxy".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, proxy) = (server.clone(), accepting.clone());
                let serve = move || {
                    // A connection that breaks is the point of the proxy.
                    let _ = proxy.serve(client, &server);
                };
                let _ = thread::Builder::new().name("proxied".into()).spawn(serve);
            }
        })?;
        Ok(proxy)
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Spoils the next `times` requests whose first line (`PUT /bucket/key?query HTTP/1.1`) contains all of `line`.
    pub fn spoil(&self, line: &[&str], spoil: Spoil, times: usize) {
        let line = line.iter().map(ToString::to_string).collect();
        self.orders().push(Order { line, spoil, times });
    }

    /// How many of the ordered requests are still to come.
    pub fn outstanding(&self) -> usize {
        self.orders().iter().map(|order| order.times).sum()
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the order that fits the beginning of a request.
    fn order_for(&self, request: &[u8]) -> Option<Spoil> {
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = std::str::from_utf8(line).ok().filter(|line| line.ends_with("HTTP/1.1"))?;
        let mut orders = self.orders();
        let order = orders.iter_mut().find(|o| o.times > 0 && o.line.iter().all(|part| line.contains(part)))?;
        order.times -= 1;
        Some(order.spoil)
    }

    /// One connection. A client sends its next request only after an answer, so a read that begins with a request line
    /// is the beginning of a request.
    fn serve(&self, mut client: TcpStream, server: &str) -> std::io::Result<()> {
        let mut upstream = TcpStream::connect(server)?;
        let pending: Arc<Mutex<Option<Spoil>>> = Arc::default();
        let (answers_from, answers_to, spoils) = (upstream.try_clone()?, client.try_clone()?, Arc::clone(&pending));
        let answers = thread::Builder::new().spawn(move || {
            let _ = pump_answers(&answers_from, &answers_to, &spoils);
            let _ = answers_to.shutdown(Shutdown::Both);
            let _ = answers_from.shutdown(Shutdown::Both);
        })?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = client.read(&mut buffer).unwrap_or(0);
            if count == 0 {
                break;
            }
            if let Some(spoil) = self.order_for(&buffer[..count]) {
                if spoil == Spoil::Request {
                    break;
                }
                *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(spoil);
            }
            if upstream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = upstream.shutdown(Shutdown::Both);
        let _ = answers.join();
        Ok(())
    }
}

fn pump_answers(mut from: &TcpStream, mut to: &TcpStream, pending: &Mutex<Option<Spoil>>) -> std::io::Result<()> {
    const SLOW_DOWN: &str = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>";
    let mut buffer = vec![0; 64 << 10];
    let mut left = None;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        // `100 Continue` is not the answer yet.
        if !buffer.starts_with(b"HTTP/1.1 100") {
            match pending.lock().unwrap_or_else(PoisonError::into_inner).take() {
                None => {}
                Some(Spoil::AnswerAfter(bytes)) => left = Some(bytes),
                Some(Spoil::SlowDown) => {
                    let length = SLOW_DOWN.len();
                    write!(
                        to,
                        "HTTP/1.1 503 Slow Down\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{SLOW_DOWN}"
                    )?;
                    return to.flush();
                }
                Some(Spoil::Answer | Spoil::Request) => return Ok(()),
            }
        }
        match &mut left {
            Some(left) if count >= *left => return to.write_all(&buffer[..*left]),
            Some(left) => *left -= count,
            None => {}
        }
        to.write_all(&buffer[..count])?;
    }
}
