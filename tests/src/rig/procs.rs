//! Processes that die with the tests, with a log each, and waiting that has a bound.
//!
//! Linux ties a child's death signal to the *thread* that started it, and every test has a thread of its own. So all
//! children are started by one thread that lives as long as the test binary: servers shared by many tests survive the
//! test that happened to start them, and none survives the binary, however it ends.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long the rig waits for what is bound to happen: a server that comes up, a run that ends, an answer. Machines differ
/// by a factor of ten and more under load, so this says nothing of how long anything should take: only what hangs for good
/// comes near it. What has failed says so earlier, by its end or its answer.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// The directory of this test run's server data and logs, beside the test binary: `target/e2e`.
pub fn run_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = target_dir().with_file_name("e2e").join(std::process::id().to_string());
        // An earlier run may have had the same process id, and a broker would go on from its data.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the target directory is writable");
        dir
    })
}

/// Where Cargo puts the programs of this build: `target/debug`.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test binary has a path");
    test.ancestors().nth(2).expect("tests run from target/*/deps").to_path_buf()
}

/// The root of the source tree.
pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the source tree").to_path_buf()
}

type Start = (Command, SyncSender<std::io::Result<Child>>);

fn starter() -> &'static SyncSender<Start> {
    static STARTER: OnceLock<SyncSender<Start>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Start>(16);
        let work = move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        };
        thread::Builder::new().name("starter".into()).spawn(work).expect("a thread can be started");
        orders
    })
}

/// Starts a process in a group of its own that is killed when the test binary ends.
fn spawn(mut command: Command) -> Result<Child> {
    let what = format!("{command:?}");
    die_with_parent(command.process_group(0));
    let (reply, answer) = sync_channel(1);
    starter().send((command, reply)).map_err(|_| anyhow::anyhow!("the starter thread is gone"))?;
    answer.recv()?.with_context(|| format!("cannot start {what}"))
}

#[allow(unsafe_code, reason = "the parent-death signal can only be set between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let set = || {
        // SAFETY: prctl with PR_SET_PDEATHSIG touches no memory and is async-signal-safe.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: the closure only calls prctl, which is allowed between fork and exec.
    unsafe { command.pre_exec(set) };
}

#[allow(unsafe_code, reason = "the standard library has no call to signal a process")]
fn signal_group(pid: u32, signal: i32) {
    // SAFETY: kill touches no memory; the group is a child that has not been waited for, so its id is still ours.
    unsafe { libc::kill(-(pid as i32), signal) };
}

/// A running child process; killed with its whole group when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn start(name: impl Into<String>, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        Ok(Self { name: name.into(), child: spawn(command)?, log: log.to_path_buf() })
    }

    /// The same with stdout in a file of its own; only stderr goes to the log.
    ///
    /// # Errors
    /// When the program or a file cannot be opened.
    pub fn start_apart(name: impl Into<String>, mut command: Command, stdout: &Path, log: &Path) -> Result<Self> {
        let err = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(File::create(stdout)?).stderr(err);
        Ok(Self { name: name.into(), child: spawn(command)?, log: log.to_path_buf() })
    }

    /// The same with pipes to its stdin and from its stdout; only stderr goes to the log.
    pub fn start_piped(name: impl Into<String>, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(out);
        Ok(Self { name: name.into(), child: spawn(command)?, log: log.to_path_buf() })
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process and its children.
    pub fn signal(&self, signal: i32) {
        signal_group(self.pid(), signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(libc::SIGKILL);
        }
        let _ = self.child.wait();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// After [`PATIENCE`], with the end of its log; the process goes on.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let name = self.name.clone();
        until(&format!("{name} ends"), || self.child.try_wait().ok().flatten())
            .with_context(|| format!("log of {name}:\n{}", tail(&self.log)))
    }

    /// Polls until `ready` gives a value.
    ///
    /// # Errors
    /// When the process ends first, or after [`PATIENCE`]; with the end of its log.
    pub fn ready<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let child = &mut self.child;
        let answer = until(&format!("{} is up", self.name), || match ready() {
            Some(value) => Some(Ok(value)),
            None => child.try_wait().ok().flatten().map(Err),
        });
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => bail!("{} ended with {status}; its log:\n{}", self.name, tail(&self.log)),
            Err(error) => Err(error.context(format!("log of {}:\n{}", self.name, tail(&self.log)))),
        }
    }

    /// Resident memory of its own, in bytes: `RssAnon`, without the pages of the program's file, which in a debug build
    /// outweigh the data.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).context("the process is gone")?;
        let kib: u64 = line.split_whitespace().nth(1).context("RssAnon has a number")?.parse()?;
        Ok(kib * 1024)
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Polls until `poll` gives a value, every 20 ms.
///
/// # Errors
/// After [`PATIENCE`], naming `what`.
pub fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = poll() {
            return Ok(value);
        }
        if started.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain until {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody listens on, below the kernel's range for outgoing connections, and that no other call has given:
/// who got it may not listen yet, or listen again after a restart.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(10_000..32_000);
        let free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return port;
        }
    }
}

/// Whether something accepts connections on the port.
pub fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}
