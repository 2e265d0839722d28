//! How a node finds out whether an endpoint can take traffic.
//!
//! ```text
//! tcp:PORT          the port accepts a connection
//! http:PORT[/PATH]  GET of the path answers with a status of 200-399
//! ```

use core::{fmt, num::NonZeroU16, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::SpecError;

/// What is asked of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HealthCheck {
    /// The port accepts a connection.
    Tcp {
        /// Port of the endpoint.
        port: NonZeroU16,
    },
    /// A GET of the path (RFC 9110) answers with a status of 200-399.
    Http {
        /// Port of the endpoint.
        port: NonZeroU16,
        /// Begins with a slash.
        path: HttpPath,
    },
}

impl HealthCheck {
    /// The port that is asked.
    pub const fn port(&self) -> NonZeroU16 {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } => *port,
        }
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { port } => write!(f, "tcp:{port}"),
            Self::Http { port, path } => write!(f, "http:{port}{path}"),
        }
    }
}

impl FromStr for HealthCheck {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        const GRAMMAR: &str = "a health check is tcp:PORT or http:PORT/PATH";
        let refuse =
            |part: &str, reason| SpecError::new("health", part, reason).found_in(text, part);
        let Some((kind, rest)) = text.split_once(':') else { return Err(refuse(text, GRAMMAR)) };
        let (port, path) = match (kind, rest.find('/')) {
            ("tcp", _) => (rest, None),
            ("http", Some(at)) => (&rest[..at], Some(&rest[at..])),
            ("http", None) => (rest, Some("/")),
            _ => return Err(refuse(kind, GRAMMAR)),
        };
        let number = port.parse().map_err(|_| refuse(port, "a port is 1-65535"))?;
        match path {
            None => Ok(Self::Tcp { port: number }),
            Some(path) => {
                let path = path.parse().map_err(|error: SpecError| error.found_in(text, path))?;
                Ok(Self::Http { port: number, path })
            }
        }
    }
}

/// What a GET asks for: begins with a slash, has no white space, and 256 bytes at most.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpPath(String);

impl HttpPath {
    const MAX_LEN: usize = 256;

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HttpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HttpPath {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let fits = text.starts_with('/')
            && text.len() <= Self::MAX_LEN
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let reason = "a path begins with a slash and has at most 256 printable ASCII characters";
        Err(SpecError::new("health", text, reason))
    }
}

impl TryFrom<String> for HttpPath {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<HttpPath> for String {
    fn from(path: HttpPath) -> Self {
        path.0
    }
}

/// A check, and when it is made. [`HealthProbe::try_from`] checks the draft.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthDraft {
    /// What is asked.
    pub check: HealthCheck,
    /// Time from one check to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Checks in a row that fail until the endpoint counts as failing.
    pub retries: u32,
    /// How long failures do not count, from when the node begins to check: after the attach, and after each of
    /// its own starts.
    pub start_period: Duration,
}

impl HealthDraft {
    /// A check at the usual times: quick enough for a rolling update, slow enough to cost nothing.
    pub const fn new(check: HealthCheck) -> Self {
        Self {
            check,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            retries: 3,
            start_period: Duration::ZERO,
        }
    }
}

/// A probe that makes sense. Read it like a [`HealthDraft`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "HealthDraft", into = "HealthDraft")]
pub struct HealthProbe(HealthDraft);

impl HealthProbe {
    /// Shortest interval and timeout: a node may have a thousand endpoints.
    pub const SHORTEST: Duration = Duration::from_millis(100);
    /// Longest interval and start period.
    pub const LONGEST: Duration = Duration::from_hours(1);
    /// Longest timeout: a node asks a limited number of endpoints at once, and those that do not answer keep
    /// the others waiting.
    pub const LONGEST_TIMEOUT: Duration = Duration::from_mins(1);
    /// Most failures that are waited for.
    pub const MAX_RETRIES: u32 = 100;

    /// A draft with the same content, to be changed and checked again.
    pub fn into_draft(self) -> HealthDraft {
        self.0
    }
}

impl core::ops::Deref for HealthProbe {
    type Target = HealthDraft;

    fn deref(&self) -> &HealthDraft {
        &self.0
    }
}

impl From<HealthProbe> for HealthDraft {
    fn from(probe: HealthProbe) -> Self {
        probe.0
    }
}

impl TryFrom<HealthDraft> for HealthProbe {
    type Error = SpecError;

    fn try_from(draft: HealthDraft) -> Result<Self, SpecError> {
        for (field, time, longest, reason) in [
            ("health-interval", draft.interval, Self::LONGEST, "expected 100ms to 1h"),
            ("health-timeout", draft.timeout, Self::LONGEST_TIMEOUT, "expected 100ms to 1m"),
        ] {
            if !(Self::SHORTEST..=longest).contains(&time) {
                return Err(SpecError::new(field, format!("{time:?}"), reason));
            }
        }
        if draft.start_period > Self::LONGEST {
            let value = format!("{:?}", draft.start_period);
            return Err(SpecError::new("health-start-period", value, "expected 1h at most"));
        }
        if !(1..=Self::MAX_RETRIES).contains(&draft.retries) {
            return Err(SpecError::new("health-retries", draft.retries, "expected 1 to 100"));
        }
        Ok(Self(draft))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("tcp:80", "tcp:80")]
    #[case("http:8080", "http:8080/")]
    #[case("http:8080/health?deep=1", "http:8080/health?deep=1")]
    fn s13_a_check_is_read_and_shown(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(text.parse::<HealthCheck>().unwrap().to_string(), shown);
    }

    #[rstest]
    #[case("80", "80")]
    #[case("udp:80", "udp")]
    #[case("tcp:0", "0")]
    #[case("tcp:80/x", "80/x")]
    #[case("http:/x", "")]
    #[case("http:80/a b", "/a b")]
    fn s13_a_wrong_check_is_pointed_at(#[case] text: &str, #[case] value: &str) {
        let error = text.parse::<HealthCheck>().unwrap_err();
        assert_eq!((error.field(), error.value()), ("health", value));
    }

    #[rstest]
    #[case(|d: &mut HealthDraft| d.interval = Duration::from_millis(99), "health-interval")]
    #[case(|d: &mut HealthDraft| d.interval = Duration::from_hours(2), "health-interval")]
    #[case(|d: &mut HealthDraft| d.timeout = Duration::from_secs(61), "health-timeout")]
    #[case(|d: &mut HealthDraft| d.retries = 0, "health-retries")]
    #[case(|d: &mut HealthDraft| d.start_period = Duration::from_hours(2), "health-start-period")]
    fn r06_times_of_a_probe_are_bounded(#[case] change: fn(&mut HealthDraft), #[case] field: &str) {
        let mut draft = HealthDraft::new("tcp:80".parse().unwrap());
        assert!(HealthProbe::try_from(draft.clone()).is_ok());
        change(&mut draft);
        assert_eq!(HealthProbe::try_from(draft).unwrap_err().field(), field);
    }
}
