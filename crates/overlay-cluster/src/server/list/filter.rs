//! Fields of filters. Of the values of one an object has to fit one, of labels all; a field
//! without values fits everything.

use core::ops::RangeInclusive;
use std::collections::{BTreeMap, BTreeSet};

use overlay_api::v1;
use overlay_types::{Name, SpecError, label};

use crate::state::{Id, Rejection, id_range};

/// Values of one field. Every object is compared with each of them.
const MAX_VALUES: usize = 64;

/// Refuses more values than a field may have.
fn check_count(field: &'static str, count: usize) -> Result<(), SpecError> {
    if count <= MAX_VALUES {
        return Ok(());
    }
    Err(SpecError::new(field, count, format!("a filter has at most {MAX_VALUES} values")))
}

/// Texts that names are compared with, in lower case.
#[derive(Debug)]
pub(in crate::server) struct Names(Vec<String>);

impl Names {
    pub(in crate::server) fn new(texts: &[String]) -> Result<Self, SpecError> {
        const FIELD: &str = "filter.names";
        check_count(FIELD, texts.len())?;
        let check = |text: &String| match text.len() {
            0 => Err(SpecError::new(FIELD, "", "a part of a name is needed")),
            1..=Name::MAX_LEN => Ok(text.to_ascii_lowercase()),
            length => {
                let reason = format!("a name has at most {} characters", Name::MAX_LEN);
                Err(SpecError::new(FIELD, format!("({length} characters)"), reason))
            }
        };
        texts.iter().map(check).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the texts is in the name.
    pub(in crate::server) fn are_in(&self, name: Option<&Name>) -> bool {
        self.fit(name, |name, text| name.contains(text))
    }

    /// Whether the name starts with one of the texts.
    pub(in crate::server) fn start(&self, name: &Name) -> bool {
        self.fit(Some(name), |name, text| name.starts_with(text))
    }

    fn fit(&self, name: Option<&Name>, fits: impl Fn(&str, &str) -> bool) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(name) = name.map(|name| name.to_ascii_lowercase()) else { return false };
        self.0.iter().any(|text| fits(&name, text))
    }
}

/// Labels that an object has, with this value or any.
#[derive(Debug)]
pub(in crate::server) struct Labels(Vec<(String, Option<String>)>);

impl Labels {
    pub(in crate::server) fn new(labels: Vec<v1::LabelFilter>) -> Result<Self, SpecError> {
        check_count("filter.labels", labels.len())?;
        let check = |filter: v1::LabelFilter| {
            let label = (filter.key.clone(), filter.value.clone().unwrap_or_default());
            label::check(&[label].into())?;
            Ok((filter.key, filter.value))
        };
        let labels = labels.into_iter().map(check).collect::<Result<_, SpecError>>();
        labels.map(Self).map_err(|error| error.of_field("filter.labels"))
    }

    pub(in crate::server) fn fit(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let value = labels.get(key);
            value.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        })
    }
}

/// Ids by their beginnings.
#[derive(Debug)]
pub(in crate::server) struct Ids(Vec<RangeInclusive<u128>>);

impl Ids {
    pub(in crate::server) fn new(prefixes: &[String]) -> Result<Self, SpecError> {
        const FIELD: &str = "filter.ids";
        check_count(FIELD, prefixes.len())?;
        let range = |prefix: &String| {
            let reason = "no id starts like this; ids are 25 characters of 0-9 and a-z";
            let shown: String = prefix.chars().take(32).collect();
            id_range(prefix).ok_or_else(|| SpecError::new(FIELD, shown, reason))
        };
        let mut ranges: Vec<_> = prefixes.iter().map(range).collect::<Result<_, _>>()?;
        if ranges.is_empty() {
            ranges.push(0..=u128::MAX);
        }
        // Of two prefixes one begins with the other, or nothing begins with both.
        ranges.sort_by_key(|range| (*range.start(), core::cmp::Reverse(*range.end())));
        ranges.dedup_by(|inner, outer| inner.end() <= outer.end());
        Ok(Self(ranges))
    }

    /// Objects with such an id, from `from` on, in the order of ids.
    pub(in crate::server) fn walk<'a, I: Id, T>(
        &self,
        objects: &'a BTreeMap<I, T>,
        from: u128,
    ) -> impl Iterator<Item = &'a T> {
        let ranges = self.0.iter().map(move |range| from.max(*range.start())..=*range.end());
        ranges
            .filter(|range| !range.is_empty())
            .flat_map(|range| objects.range(I::of(*range.start())..=I::of(*range.end())))
            .map(|(_, object)| object)
    }

    pub(in crate::server) fn fit(&self, id: u128) -> bool {
        self.0.iter().any(|range| range.contains(&id))
    }
}

/// One of a few values.
#[derive(Debug)]
pub(in crate::server) struct OneOf<T>(Vec<T>);

impl<T: PartialEq + Copy> OneOf<T> {
    /// Values of an enum, as a message has them.
    pub(in crate::server) fn new(
        field: &'static str,
        values: &[i32],
        parse: impl Fn(i32) -> Option<T>,
    ) -> Result<Self, SpecError> {
        check_count(field, values.len())?;
        let parse = |value: &i32| {
            parse(*value).ok_or_else(|| SpecError::new(field, value, "there is no such value"))
        };
        values.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    pub(in crate::server) fn fit(&self, value: T) -> bool {
        self.0.is_empty() || self.0.contains(&value)
    }
}

/// A switch of an object that is on, off or no matter.
pub(in crate::server) fn switch(wanted: Option<bool>, is: bool) -> bool {
    wanted.is_none_or(|wanted| wanted == is)
}

/// Objects that others belong to, by what callers call them.
#[derive(Debug)]
pub(in crate::server) struct References(Vec<String>);

impl References {
    pub(in crate::server) fn new(
        field: &'static str,
        texts: Vec<String>,
    ) -> Result<Self, SpecError> {
        check_count(field, texts.len()).map(|()| Self(texts))
    }

    /// Their ids, as the state has them; `None`: no matter which.
    pub(in crate::server) fn resolve<I: Ord>(
        &self,
        find: impl Fn(&str) -> Result<I, Rejection>,
    ) -> Result<Option<BTreeSet<I>>, Rejection> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.0.iter().map(|text| find(text)).collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use overlay_types::{NetworkId, id::ID_TEXT_LEN};
    use rstest::rstest;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[rstest]
    #[case(&[], true, true)]
    #[case(&["fro"], true, true)]
    #[case(&["RONT"], true, false)]
    #[case(&["back", "front"], true, true)]
    #[case(&["front1"], false, false)]
    fn o02_names_fit_by_a_part_or_by_their_beginning(
        #[case] wanted: &[&str],
        #[case] anywhere: bool,
        #[case] start: bool,
    ) {
        let names = Names::new(&texts(wanted)).unwrap();
        let name: Name = "Front".parse().unwrap();
        assert_eq!((names.are_in(Some(&name)), names.start(&name)), (anywhere, start));
        assert_eq!(names.are_in(None), wanted.is_empty());
    }

    #[rstest]
    #[case(&[], true)]
    #[case(&[("tier", None)], true)]
    #[case(&[("tier", Some("web"))], true)]
    #[case(&[("tier", Some(""))], false)]
    #[case(&[("tier", None), ("disk", None)], false)]
    fn o02_an_object_has_all_the_labels(
        #[case] wanted: &[(&str, Option<&str>)],
        #[case] fits: bool,
    ) {
        let filter = |(key, value): &(&str, Option<&str>)| v1::LabelFilter {
            key: (*key).to_owned(),
            value: value.map(str::to_owned),
        };
        let labels = Labels::new(wanted.iter().map(filter).collect()).unwrap();
        assert_eq!(labels.fit(&[("tier".to_owned(), "web".to_owned())].into()), fits);
    }

    /// Ids whose texts start with `3a`, `3b` and `4`.
    fn objects() -> BTreeMap<NetworkId, String> {
        let texts = ["3a", "3b", "4"].map(|text| format!("{text:0<ID_TEXT_LEN$}"));
        texts.into_iter().map(|text| (text.parse().unwrap(), text)).collect()
    }

    #[rstest]
    #[case(&[], "3a 3b 4")]
    #[case(&["3"], "3a 3b")]
    #[case(&["4", "3a", "3"], "3a 3b 4")]
    #[case(&["3b", "3b"], "3b")]
    #[case(&["5"], "")]
    fn o02_ids_fit_by_their_beginnings_and_come_once(#[case] wanted: &[&str], #[case] met: &str) {
        let ids = Ids::new(&texts(wanted)).unwrap();
        let objects = objects();
        let walked = |from| {
            let found = ids.walk(&objects, from).map(|text| text.trim_end_matches('0'));
            found.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(walked(0), met);
        let fit = objects.iter().filter(|(id, _)| ids.fit(id.to_u128())).count();
        assert_eq!(fit, met.split_whitespace().count());
        let last = objects.keys().next_back().unwrap().to_u128();
        assert_eq!(walked(last), if met.ends_with('4') { "4" } else { "" });
        assert_eq!(walked(u128::MAX), "");
    }

    #[rstest]
    #[case("filter.names", Names::new(&texts(&[""])).map(drop))]
    #[case("filter.names", Names::new(&["x".repeat(64)]).map(drop))]
    #[case("filter.names", Names::new(&vec!["x".to_owned(); 65]).map(drop))]
    #[case("filter.ids", Ids::new(&texts(&[""])).map(drop))]
    #[case("filter.ids", Ids::new(&texts(&["A"])).map(drop))]
    #[case("filter.ids", Ids::new(&["z".repeat(25)]).map(drop))]
    #[case("filter.ids", Ids::new(&["1".repeat(26)]).map(drop))]
    #[case("filter.labels", Labels::new(vec![v1::LabelFilter::default()]).map(drop))]
    fn r06_values_that_nothing_has_are_refused(
        #[case] field: &str,
        #[case] outcome: Result<(), SpecError>,
    ) {
        assert_eq!(outcome.unwrap_err().field(), field);
    }
}
