//! What a pair of hosts has between them.

use std::{ops::RangeInclusive, time::Duration};

/// How datagrams fare between two hosts, in one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Share of datagrams that are lost, 0-1.
    pub loss: f64,
    /// Share of a stream's segments that are lost, 0-1; they are sent again.
    pub stream_loss: f64,
    /// Share of datagrams that arrive twice, 0-1.
    pub duplication: f64,
    /// Share of datagrams that are held back by up to ten times the longest delay, 0-1.
    pub reordering: f64,
    /// One-way delay, drawn evenly from this range for each datagram.
    pub delay: RangeInclusive<Duration>,
}

impl Link {
    /// Loses nothing, takes 0.1 to 1 ms.
    pub fn lan() -> Self {
        Self {
            loss: 0.0,
            stream_loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            delay: Duration::from_micros(100)..=Duration::from_millis(1),
        }
    }

    /// The same link with this share of loss, of datagrams and of streams' segments.
    #[must_use]
    pub fn with_loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        self.stream_loss = loss;
        self
    }

    /// The same link with this share of loss of datagrams, streams untouched: a filter, or a queue
    /// that drops UDP first.
    #[must_use]
    pub fn with_datagram_loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }

    /// The same link with this share of duplicates.
    #[must_use]
    pub fn with_duplication(mut self, duplication: f64) -> Self {
        self.duplication = duplication;
        self
    }

    /// The same link with this share of datagrams held back.
    #[must_use]
    pub fn with_reordering(mut self, reordering: f64) -> Self {
        self.reordering = reordering;
        self
    }

    /// The same link with this one-way delay.
    #[must_use]
    pub fn with_delay(mut self, delay: RangeInclusive<Duration>) -> Self {
        self.delay = delay;
        self
    }
}
