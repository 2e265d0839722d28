//! The thread that writes the file: takes all that waits, commits it once, then answers.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use openraft::storage::LogFlushed;
use tokio::sync::oneshot;

use super::{
    error::StoreError,
    file::{File, Write},
    tail::Tail,
};
use crate::raft::types::TypeConfig;

/// Writes that may wait: an appender beyond that blocks until the disk has caught up.
const QUEUE: usize = 4096;
/// Writes in one transaction. Bounds how long the first of them waits for the others.
const BATCH: usize = 1024;

pub(super) enum Done {
    Flushed(LogFlushed<TypeConfig>),
    Reply(oneshot::Sender<Result<(), String>>),
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
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // It ends by itself; a panic in it was reported when it happened.
            drop(handle.join());
        }
    }
}

impl Writer {
    pub(super) fn start(file: Arc<File>, tail: Arc<Mutex<Tail>>) -> Result<Self, StoreError> {
        let (sender, jobs) = mpsc::sync_channel(QUEUE);
        let handle = thread::Builder::new()
            .name("overlay-store".to_owned())
            .spawn(move || run(&file, &tail, &jobs))
            .map_err(StoreError::Thread)?;
        Ok(Self(Arc::new(Thread { jobs: Some(sender), handle: Some(handle) })))
    }

    /// Queues a write; `done` hears when it is on the disk.
    pub(super) fn submit(&self, write: Write, done: Done) -> Result<(), StoreError> {
        let jobs = self.0.jobs.as_ref().ok_or(StoreError::WriterGone)?;
        jobs.send(Job { write, done }).map_err(|_| StoreError::WriterGone)
    }

    /// Writes, and waits until it is on the disk.
    pub(super) async fn write(&self, write: Write) -> Result<(), io::Error> {
        let (reply, answer) = oneshot::channel();
        self.submit(write, Done::Reply(reply)).map_err(io::Error::other)?;
        match answer.await {
            Ok(outcome) => outcome.map_err(io::Error::other),
            Err(_) => Err(io::Error::other(StoreError::WriterGone)),
        }
    }
}

fn run(file: &File, tail: &Mutex<Tail>, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let (mut writes, mut waiting) = (vec![first.write], vec![first.done]);
        for job in jobs.try_iter().take(BATCH - 1) {
            writes.push(job.write);
            waiting.push(job.done);
        }
        let outcome = file.write(&writes).map_err(|error| error.to_string());
        match &outcome {
            Ok(()) => {
                if let Some(index) = writes.iter().filter_map(last_appended).max() {
                    tail.lock().unwrap_or_else(PoisonError::into_inner).flushed_up_to(index);
                }
            }
            Err(error) => {
                tracing::error!(path = %file.path().display(), error, "state file not written");
            }
        }
        for done in waiting {
            match done {
                Done::Flushed(callback) => {
                    callback.log_io_completed(outcome.clone().map_err(io::Error::other));
                }
                // Whoever asked may be gone.
                Done::Reply(reply) => drop(reply.send(outcome.clone())),
            }
        }
    }
}

fn last_appended(write: &Write) -> Option<u64> {
    match write {
        Write::Append(entries) => entries.last().map(|(index, _)| *index),
        _ => None,
    }
}
