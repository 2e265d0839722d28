//! One number that a bench reports, and the target it is held against.

use std::fmt;

use anyhow::{Context, Result, bail};

/// One line of a bench.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measurement {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The value as the bench wrote it, with the digits that it found meaningful.
    pub(crate) text: String,
    pub(crate) unit: String,
    pub(crate) target: Option<Target>,
}

/// What a value should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    direction: Direction,
    bound: f64,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    AtMost,
    AtLeast,
}

impl Measurement {
    /// Parses `name<TAB>value<TAB>unit<TAB>target`; the last tab may be missing.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split('\t').map(str::trim).collect();
        let (name, value, unit, target) = match fields[..] {
            [name, value, unit] => (name, value, unit, ""),
            [name, value, unit, target] => (name, value, unit, target),
            _ => bail!("{line:?} is not `name<TAB>value<TAB>unit<TAB>target`"),
        };
        Ok(Self {
            name: name.to_owned(),
            value: number(value).with_context(|| format!("{line:?}: value {value:?}"))?,
            text: value.to_owned(),
            unit: unit.to_owned(),
            target: Target::parse(target).with_context(|| format!("{line:?}"))?,
        })
    }

    /// `met`, `missed`, or nothing without a target.
    pub(crate) fn verdict(&self) -> &'static str {
        match &self.target {
            None => "",
            Some(target) if target.is_met_by(self.value) => "met",
            Some(_) => "missed",
        }
    }
}

impl Target {
    fn parse(text: &str) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        let (direction, bound) = if let Some(bound) = text.strip_prefix("<=") {
            (Direction::AtMost, bound)
        } else if let Some(bound) = text.strip_prefix(">=") {
            (Direction::AtLeast, bound)
        } else {
            bail!("target {text:?} is not like `<= 1.25` or `>= 3e6`");
        };
        let bound = number(bound.trim()).with_context(|| format!("target {text:?}"))?;
        Ok(Some(Self { direction, bound, text: text.to_owned() }))
    }

    fn is_met_by(&self, value: f64) -> bool {
        match self.direction {
            Direction::AtMost => value <= self.bound,
            Direction::AtLeast => value >= self.bound,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A finite number: `NaN` would meet no target and `inf` any.
fn number(text: &str) -> Result<f64> {
    let value: f64 = text.parse()?;
    if !value.is_finite() {
        bail!("not a finite number");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, verdict: &str) {
        assert_eq!(Measurement::parse(line).unwrap().verdict(), verdict, "{line}");
    }

    #[test]
    fn values_are_held_against_targets() {
        check("esp/1400\t1.25\tx raw\t<= 1.25", "met");
        check("esp/1400\t1.26\tx raw\t<= 1.25", "missed");
        check("engine/plain\t3.1e6\tframes/s\t>= 3e6", "met");
        check("engine/plain\t2999999\tframes/s\t>=3e6", "missed");
        check("esp/64\t94\tns\t", "");
        check("esp/64\t94\tns", "");
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "one\t1",
            "a\t1\tns\t<= 1\tmore",
            "a\tfast\tns\t",
            "a\tNaN\tns\t<= 1",
            "a\tinf\tns\t>= 1",
            "a\t1\tns\t1",
            "a\t1\tns\t<= fast",
            "a\t1\tns\t< 1",
        ] {
            assert!(Measurement::parse(line).is_err(), "{line:?}");
        }
    }
}
