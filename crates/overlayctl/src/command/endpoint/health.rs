//! Flags of `endpoint attach` that say when the endpoint takes traffic, like Docker's.

use clap::Args;
use overlay_types::{
    HealthCheck, HealthDraft, HealthProbe, Readiness, SpecError, number::from_digits,
};

use crate::duration;

#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "flags are called like fields")]
pub(super) struct Health {
    /// Take no connections before `endpoint ready` says so
    #[arg(long)]
    starting: bool,
    /// Take connections as long as a check succeeds, which the node makes in the endpoint's namespace:
    /// the port accepts a connection, or a GET of the path answers with a status of 200-399
    #[arg(long, value_name = "tcp:PORT|http:PORT/PATH", requires = "interface")]
    health: Option<String>,
    /// Time between checks, at most 1h [default: 5s]
    #[arg(long, value_name = "DURATION", requires = "health")]
    health_interval: Option<String>,
    /// Longest time for an answer, at most 1m [default: 2s]
    #[arg(long, value_name = "DURATION", requires = "health")]
    health_timeout: Option<String>,
    /// Checks in a row that fail until it counts [default: 3]
    #[arg(long, value_name = "NUMBER", requires = "health")]
    health_retries: Option<String>,
    /// Time in which failures do not count, after the node began to check [default: none]
    #[arg(long, value_name = "DURATION", requires = "health")]
    health_start_period: Option<String>,
}

impl Health {
    pub(super) fn readiness(&self) -> Readiness {
        if self.starting { Readiness::Starting } else { Readiness::Ready }
    }

    pub(super) fn probe(&self) -> Result<Option<HealthProbe>, SpecError> {
        let Some(check) = &self.health else { return Ok(None) };
        let mut draft = HealthDraft::new(check.parse::<HealthCheck>()?);
        for (field, given, time) in [
            ("health-interval", &self.health_interval, &mut draft.interval),
            ("health-timeout", &self.health_timeout, &mut draft.timeout),
            ("health-start-period", &self.health_start_period, &mut draft.start_period),
        ] {
            if let Some(text) = given {
                *time = duration::parse(field, text)?;
            }
        }
        if let Some(text) = &self.health_retries {
            draft.retries = from_digits(text)
                .ok_or_else(|| SpecError::new("health-retries", text, "expected 1 to 100"))?;
        }
        draft.try_into().map(Some)
    }
}
