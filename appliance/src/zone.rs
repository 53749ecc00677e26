//! Time zones: people at a console read their own time. The API, records and logs are in UTC.

use bennu_rules::Timestamp;
use jiff::tz::{TimeZone, db};

/// How like a zone's name another must be to be meant (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// A zone in which times are shown.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of that name; UTC without one, or where this program knows none that is called so.
    pub fn of(name: Option<&str>) -> Self {
        Self(name.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC))
    }

    /// Hours, minutes and seconds of a day.
    pub fn clock(&self, at: Timestamp) -> String {
        self.shown(at, "%H:%M:%S")
    }

    /// The same with the zone's abbreviation then, such as `CEST`; where it has none, with its distance from UTC.
    pub fn clock_and_zone(&self, at: Timestamp) -> String {
        self.shown(at, "%H:%M:%S %Z")
    }

    /// A point in time with its distance from UTC, as RFC 3339 has it.
    pub fn time(&self, at: Timestamp) -> String {
        match self.0 == TimeZone::UTC {
            true => self.shown(at, "%Y-%m-%dT%H:%M:%SZ"),
            false => self.shown(at, "%Y-%m-%dT%H:%M:%S%:z"),
        }
    }

    fn shown(&self, at: Timestamp, format: &str) -> String {
        let milliseconds = i64::try_from(at.0).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
        at.to_zoned(self.0.clone()).strftime(format).to_string()
    }
}

/// Whether there is a zone of that name (IANA's time zone database, which is part of this program).
pub fn check(name: &str) -> Result<(), String> {
    if TimeZone::get(name).is_ok() {
        return Ok(());
    }
    let known = db().available().map(|known| known.to_string());
    let alike = known.map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()), known));
    let nearest = alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(alike, _)| *alike > ALIKE);
    let nearest = nearest.map_or_else(|| "Europe/Zurich, or UTC".to_owned(), |(_, name)| name);
    Err(format!("host.time_zone: there is no time zone '{name}'; write one of IANA's names, such as {nearest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-29T00:59:59Z, a second before the clocks of Europe are set forward.
    const LAST_OF_WINTER: Timestamp = Timestamp(1_774_745_999_000);

    #[test]
    fn times_are_those_of_the_zone_then() {
        let zurich = Zone::of(Some("Europe/Zurich"));
        let summer = LAST_OF_WINTER.plus_seconds(1);
        assert_eq!(zurich.clock_and_zone(LAST_OF_WINTER), "01:59:59 CET");
        assert_eq!(zurich.clock_and_zone(summer), "03:00:00 CEST");
        assert_eq!(zurich.time(summer), "2026-03-29T03:00:00+02:00");
        assert_eq!(Zone::of(Some("Asia/Kathmandu")).time(LAST_OF_WINTER), "2026-03-29T06:44:59+05:45");
        assert_eq!(Zone::of(Some("America/Sao_Paulo")).clock_and_zone(LAST_OF_WINTER), "21:59:59 -03");
        for name in [None, Some("UTC"), Some("Nowhere/Land")] {
            assert_eq!(Zone::of(name).clock_and_zone(LAST_OF_WINTER), "00:59:59 UTC");
            assert_eq!(Zone::of(name).time(LAST_OF_WINTER), "2026-03-29T00:59:59Z");
        }
        assert!(!zurich.time(Timestamp(u64::MAX)).is_empty());
    }

    #[test]
    fn a_zone_that_is_none_is_told_with_the_nearest() {
        assert_eq!(check("Europe/Zurich"), Ok(()));
        assert_eq!(check("UTC"), Ok(()));
        assert!(check("Europe/Zurch").unwrap_err().contains("Europe/Zurich"));
        for bad in ["", "../../etc/passwd", "/etc/localtime", "CEST-99"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
