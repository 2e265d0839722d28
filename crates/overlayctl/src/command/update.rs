//! `update`: what holds for the whole cluster.

use clap::Args;
use overlay_api::v1;
use overlay_types::SpecError;

use super::Report;
use crate::{duration, failure::Failure, session::Session, view::update::Updated};

/// `update`
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Update {
    /// Have managers start with an unlock key only, or without one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    autolock: Option<bool>,
    /// Time from one generation of data-plane and gossip keys to the next, like 12h or 1h30m. A shorter
    /// one brings the next rotation closer
    #[arg(long, value_name = "DURATION")]
    rotation_period: Option<String>,
}

impl Update {
    fn request(&self) -> Result<v1::UpdateClusterRequest, SpecError> {
        let period = self.rotation_period.as_deref();
        let period = period.map(|text| duration::parse_millis("rotation-period", text));
        Ok(v1::UpdateClusterRequest {
            autolock: self.autolock,
            rotation_period_ms: period.transpose()?,
            ..Default::default()
        })
    }

    /// Changes what the flags name.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let request = self.request()?;
        let mut local = session.connect().await?.local();
        let updated = Updated::from(local.update_cluster(request).await?.into_inner());
        Ok(session.format.said(updated.sentence(), &updated).into())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::flag::parsed;

    #[rstest]
    #[case("--autolock", Some(true), None)]
    #[case("--autolock=false", Some(false), None)]
    #[case("--rotation-period 90m", None, Some(5_400_000))]
    #[case("--autolock=true --rotation-period 1d", Some(true), Some(86_400_000))]
    fn c09_only_what_is_named_is_changed(
        #[case] line: &str,
        #[case] autolock: Option<bool>,
        #[case] rotation_period_ms: Option<u64>,
    ) {
        let request = parsed::<Update>(line).unwrap().request().unwrap();
        let expected =
            v1::UpdateClusterRequest { autolock, rotation_period_ms, ..Default::default() };
        assert_eq!(request, expected);
    }

    #[rstest]
    #[case("")]
    #[case("--autolock=perhaps")]
    #[case("--rotation-period")]
    fn c09_other_lines_are_usage_errors(#[case] line: &str) {
        assert!(parsed::<Update>(line).is_err());
    }

    #[rstest]
    #[case("12", "12")]
    #[case("0h", "0h")]
    #[case("18446744073709551615s", "18446744073709551615s")]
    fn c09_refusals_name_flag_and_value(#[case] period: &str, #[case] value: &str) {
        let error = parsed::<Update>(&format!("--rotation-period {period}"))
            .unwrap()
            .request()
            .unwrap_err();
        assert_eq!((error.field(), error.value()), ("rotation-period", value));
    }
}
