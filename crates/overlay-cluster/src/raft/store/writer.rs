//! The thread that writes the file: takes all that waits, commits it once, then answers.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use openraft::storage::LogFlushed;
use tokio::sync::{Notify, oneshot};

use super::{
    durable::{Durable, Mark},
    error::StoreError,
    file::{File, Write},
    medium::Disk,
    tail::Tail,
};
use crate::raft::types::TypeConfig;

/// Writes that may wait: an appender beyond that blocks until the disk has caught up. The log waits
/// for its own entries long before, see [`MAX_AHEAD`](super::log::MAX_AHEAD).
const QUEUE: usize = 4096;
/// Writes in one transaction. Bounds how long the first of them waits for the others.
const BATCH: usize = 1024;

type Outcome = Result<(), Arc<StoreError>>;

pub(super) enum Done {
    Flushed(LogFlushed<TypeConfig>),
    Reply(oneshot::Sender<Outcome>),
    /// Whoever needs to know follows [`Durable`].
    Unasked,
}

struct Job {
    write: Write,
    done: Done,
}

/// Hands writes to the thread.
#[derive(Clone, Debug)]
pub(super) struct Writer(Arc<Thread>);

/// The thread ends with the last [`Writer`], which waits for it: the file is closed then, and can
/// be opened again.
#[derive(Debug)]
struct Thread {
    jobs: Option<mpsc::SyncSender<Job>>,
    handle: Option<thread::JoinHandle<()>>,
    /// Wakes the task that writes in the thread's place.
    task: Option<Arc<Notify>>,
    mark: Mark,
    durable: Durable,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // It ends by itself; a panic in it was reported when it happened.
            drop(handle.join());
        }
        if let Some(task) = &self.task {
            task.notify_one();
        }
    }
}

impl Writer {
    /// Starts the thread; for a simulated disk, a task. Entries below `below` are in the file.
    pub(super) fn start(
        file: Arc<File>,
        tail: Arc<Mutex<Tail>>,
        below: u64,
    ) -> Result<Self, StoreError> {
        let (sender, jobs) = mpsc::sync_channel(QUEUE);
        let mark = Mark::new(below);
        let durable = mark.follow();
        let (mut handle, mut task) = (None, None);
        let disk = file.disk().cloned();
        let log = Log { file, tail, mark: mark.clone(), held: Vec::new() };
        if let Some(disk) = disk {
            let wake = Arc::new(Notify::new());
            task = Some(Arc::clone(&wake));
            tokio::spawn(run_as_task(log, jobs, wake, disk));
        } else {
            let thread = thread::Builder::new().name("overlay-store".to_owned());
            let started = thread.spawn(move || run(log, &jobs));
            handle = Some(started.map_err(StoreError::Thread)?);
        }
        Ok(Self(Arc::new(Thread { jobs: Some(sender), handle, task, mark, durable })))
    }

    /// Notes how far raft is ahead of the disk.
    pub(super) fn mark(&self) -> &Mark {
        &self.0.mark
    }

    /// How much of the log is on the disk.
    pub(super) fn durable(&self) -> &Durable {
        &self.0.durable
    }

    /// Queues a write; `done` hears when it is on the disk.
    pub(super) fn submit(&self, write: Write, done: Done) -> Outcome {
        let jobs = self.0.jobs.as_ref().ok_or_else(|| self.gone())?;
        jobs.send(Job { write, done }).map_err(|_| self.gone())?;
        if let Some(task) = &self.0.task {
            task.notify_one();
        }
        Ok(())
    }

    /// Writes, and waits until it is on the disk.
    pub(super) async fn write(&self, write: Write) -> Result<(), io::Error> {
        let (reply, answer) = oneshot::channel();
        self.submit(write, Done::Reply(reply)).map_err(io::Error::other)?;
        answer.await.unwrap_or_else(|_| Err(self.gone())).map_err(io::Error::other)
    }

    /// Why the thread has ended.
    fn gone(&self) -> Arc<StoreError> {
        self.durable().failure().unwrap_or_else(|| Arc::new(StoreError::Closed))
    }
}

/// What is written, and who is told.
struct Log {
    file: Arc<File>,
    tail: Arc<Mutex<Tail>>,
    mark: Mark,
    /// Entries behind a snapshot that is not on the disk yet, and what came to the log after them: nobody
    /// may count them before.
    held: Vec<Job>,
}

/// Writes until nobody is left who could ask, or until the file cannot be written: what it holds
/// after that only opening it again can tell.
fn run(mut log: Log, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let batch = [first].into_iter().chain(jobs.try_iter().take(BATCH - 1)).collect();
        if !log.commit(batch) {
            return;
        }
    }
    log.settle();
}

/// What [`run`] does, at the pace of `disk`.
async fn run_as_task(
    mut log: Log,
    jobs: mpsc::Receiver<Job>,
    wake: Arc<Notify>,
    disk: Arc<dyn Disk>,
) {
    loop {
        let first = match jobs.try_recv() {
            Ok(first) => first,
            Err(mpsc::TryRecvError::Empty) => {
                wake.notified().await;
                continue;
            }
            Err(mpsc::TryRecvError::Disconnected) => return log.settle(),
        };
        pause(disk.latency()).await;
        let batch = [first].into_iter().chain(jobs.try_iter().take(BATCH - 1)).collect();
        if !log.commit(batch) {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the passing of time is what a slow disk shows")]
async fn pause(latency: core::time::Duration) {
    tokio::time::sleep(latency).await;
}

impl Log {
    /// Writes what could wait until the end.
    fn settle(&self) {
        if let Err(error) = self.file.settle() {
            tracing::warn!(%error, "the next start finds out how far the log is committed");
        }
    }

    /// Writes what is in `batch`, and answers. Says whether it could be written.
    fn commit(&mut self, mut batch: Vec<Job>) -> bool {
        loop {
            let snapshot = batch.iter().any(|job| matches!(job.write, Write::Snapshot(_)));
            let ready = self.hold_back(batch);
            if !self.write(ready) {
                return false;
            }
            if !snapshot || self.held.is_empty() {
                return true;
            }
            batch = Vec::new();
        }
    }

    /// Those of the jobs before and in `batch` that leave no gap in the log, where a snapshot is to fill
    /// it; the others wait.
    fn hold_back(&mut self, batch: Vec<Job>) -> Vec<Job> {
        let (mut awaited, mut next) = (self.file.awaits_snapshot(), self.file.next_index());
        let mut ready = Vec::with_capacity(batch.len());
        for job in std::mem::take(&mut self.held).into_iter().chain(batch) {
            let write = &job.write;
            if write.is_of_log() && (!self.held.is_empty() || awaited && write.begins_behind(next))
            {
                self.held.push(job);
                continue;
            }
            match write {
                Write::Append(entries) => {
                    next = entries.last().map_or(next, |last| last.log_id.index + 1);
                }
                Write::Truncate(from) => next = next.min(*from),
                Write::Purge(_) => awaited = true,
                _ => {}
            }
            ready.push(job);
        }
        ready
    }

    fn write(&self, jobs: Vec<Job>) -> bool {
        let (writes, waiting): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.write, job.done)).unzip();
        let outcome = self.file.write(&writes).map_err(Arc::new);
        match &outcome {
            Ok(()) => note(&writes, &self.tail, &self.mark),
            Err(error) => {
                tracing::error!(%error, "state file not written");
                self.mark.failed(Arc::clone(error));
            }
        }
        for done in waiting {
            match done {
                Done::Flushed(callback) => {
                    callback.log_io_completed(outcome.clone().map_err(io::Error::other));
                }
                // Whoever asked may be gone.
                Done::Reply(reply) => drop(reply.send(outcome.clone())),
                Done::Unasked => {}
            }
        }
        outcome.is_ok()
    }
}

/// Notes, in their order, what `writes` made of the log.
fn note(writes: &[Write], tail: &Mutex<Tail>, mark: &Mark) {
    let mut newest = None;
    for write in writes {
        match write {
            Write::Append(entries) => {
                newest = entries.last().map(|entry| entry.log_id.index).or(newest);
            }
            Write::Truncate(from) => {
                newest = None;
                mark.truncated(*from);
            }
            Write::Purge(upto) => newest = newest.max(Some(upto.index)),
            _ => {}
        }
    }
    if let Some(newest) = newest {
        tail.lock().unwrap_or_else(PoisonError::into_inner).flushed_up_to(newest);
        mark.written(newest);
    }
}
