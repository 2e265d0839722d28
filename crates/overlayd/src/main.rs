//! The daemon: configuration, logs, signals; the rest is the library.

mod flags;

use core::time::Duration;
use std::io::IsTerminal;

use anyhow::Context;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use overlayd::{Config, Node, NodeHandle};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use self::flags::Flags;

/// How long the end waits for a service manager that is being told of it.
const NOTIFY_PATIENCE: Duration = Duration::from_secs(1);

/// Work moves between threads, and memory with it: the system's allocator spent a tenth of a busy
/// manager's time in waiting for its own locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the daemon starts itself with, for a process that holds the socket of ESP.
const HOLD: &str = "hold-esp";

fn main() -> anyhow::Result<()> {
    // Before there are threads, settings, and whatever else such a process does not need.
    if std::env::args_os().nth(1).is_some_and(|word| word == HOLD) {
        return Ok(overlayd::hold()?);
    }
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let config = flags.config()?;
    if flags.print_config {
        print(&flags::describe(&config)?);
        return Ok(());
    }
    let (filter, log) = reload::Layer::new(filter(&config)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A file has no colours.
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();

    raise_limit();
    // Whatever has become of the file that it was started from.
    let holder = ("/proc/self/exe", vec![HOLD.into()]);
    let node = Node::builder(config.clone()).holder(holder.0, holder.1).build()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (told, stopping) = oneshot::channel();
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        notify(NotifyState::Stopping, Some(told));
    };
    let handle = node.handle();
    let attend = attend(handle, Reload { flags, config, log });
    let ended = tokio::select! {
        ended = node.run(shutdown) => ended.map_err(Into::into),
        failed = attend => failed,
    };
    // Whoever is told may not read; the process would end before one that does was told.
    let _ = timeout(NOTIFY_PATIENCE, stopping).await;
    ended
}

/// What a hangup changes.
struct Reload {
    flags: Flags,
    config: Config,
    log: reload::Handle<EnvFilter, Registry>,
}

/// Says when the node is ready, then reloads at each hangup.
async fn attend(handle: NodeHandle, mut reload: Reload) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    handle.ready().await;
    notify(NotifyState::Ready, None);
    loop {
        hangup.recv().await;
        match reload.apply(&handle) {
            Ok(()) => tracing::info!("reloaded"),
            Err(error) => tracing::error!("not reloaded: {error:#}"),
        }
    }
}

impl Reload {
    /// Takes what can change while the node runs: what is logged, and the certificate.
    fn apply(&mut self, handle: &NodeHandle) -> anyhow::Result<()> {
        let config = self.flags.config()?;
        self.log.reload(filter(&config)?)?;
        self.config.log.clone_from(&config.log);
        if config != self.config {
            tracing::warn!("settings other than log were changed: restart the daemon to use them");
        }
        match handle.reload() {
            Ok(()) | Err(overlayd::NodeError::NoCluster) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Each container takes some file descriptors. What shells allow by default is for programs that use `select`.
fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "there may be no more file descriptors than were allowed");
    }
}

fn filter(config: &Config) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&config.log).with_context(|| {
        format!("log {:?} is no filter like info,overlay_gossip=debug", config.log)
    })
}

#[expect(clippy::print_stdout, reason = "asked for by a flag")]
fn print(text: &str) {
    print!("{text}");
}

/// Tells the service manager, on a thread of its own: one that does not read would hold up the node. `told` is
/// dropped when that is done.
fn notify(state: NotifyState<'static>, told: Option<oneshot::Sender<()>>) {
    std::thread::spawn(move || {
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[state]);
        drop(told);
    });
}
