//! The steps, in order. Each tells what it does, measures, and fails if something does not hold.

use anyhow::{Context, Result};

use crate::{demo::Demo, story::Story};

pub(crate) mod cluster;
pub(crate) mod death;
pub(crate) mod leader;
pub(crate) mod networks;
pub(crate) mod rotation;
pub(crate) mod service;
pub(crate) mod wire;

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    cluster::run(story, demo).await.context("step 1")?;
    networks::run(story, demo).await.context("step 2")?;
    wire::run(story, demo).await.context("step 3")?;
    service::run(story, demo).await.context("step 4")?;
    rotation::run(story, demo).await.context("step 5")?;
    death::run(story, demo).await.context("step 6")?;
    leader::run(story, demo).await.context("step 7")
}
