//! History as files: `at,bucket,percent,resets_at`, as CSV with a heading or as a JSON array of objects with these keys.
//!
//! Times are RFC 3339 with an offset; `bucket` is `account/kind` or `account/kind/scope`; `resets_at` may be empty. Texts
//! come in and go out: where they lie is the caller's matter.

use std::fmt;
use std::str::FromStr as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bucket::{Bucket, Source};
use super::cycle::{ClosedWindow, Cycle, Frame, Sample, Step};

/// The columns, in the order in which they are written.
const COLUMNS: [&str; 4] = ["at", "bucket", "percent", "resets_at"];

/// How full a bucket was at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When.
    pub at: Timestamp,
    /// Which one.
    pub bucket: Bucket,
    /// Used part of the limit, in per cent.
    pub percent: f64,
    /// When its window ends, as announced then.
    pub resets_at: Option<Timestamp>,
}

impl Row {
    /// The same as a sample, said by a file.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let Self { at, percent, resets_at, .. } = *self;
        Sample { at, percent, resets_at, source: Source::Import, owner: None, amount: None }
    }
}

/// Why a file of history cannot be read: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line of a CSV file, or entry of a JSON array; both from 1. 0: the file as a whole.
    pub place: u64,
    /// `line` or `entry`.
    unit: &'static str,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            0 => f.write_str(&self.what),
            place => write!(f, "{} {place}: {}", self.unit, self.what),
        }
    }
}

impl std::error::Error for Fault {}

/// Reads either form: what begins with `[` is JSON. The rows stay in the order of the file.
///
/// # Errors
/// The first line or entry that cannot be read, with what to write there.
pub fn read(text: &str) -> Result<Vec<Row>, Fault> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with('[') { read_json(text) } else { read_csv(text) }
}

/// Reads CSV. The first line names the columns, in any order; columns of other names are passed over.
///
/// # Errors
/// The first line that cannot be read, with what to write there.
pub fn read_csv(text: &str) -> Result<Vec<Row>, Fault> {
    let fault = |place, what: String| Fault { place, unit: "line", what };
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let heading = reader.headers().map_err(|error| fault(1, error.to_string()))?.clone();
    let column = |name: &str| heading.iter().position(|column| column.eq_ignore_ascii_case(name));
    let needed = |name: &str| {
        let what = format!("the heading has no column `{name}`; begin the file with `{}`", COLUMNS.join(","));
        column(name).ok_or_else(|| fault(1, what))
    };
    let (at, bucket, percent) = (needed("at")?, needed("bucket")?, needed("percent")?);
    let resets_at = column("resets_at");
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            fault(error.position().map_or(0, csv::Position::line), format!("this is no CSV: {error}"))
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |index: usize| record.get(index).unwrap_or_default();
        let resets_at = resets_at.map_or("", cell);
        let row = row(cell(at), cell(bucket), cell(percent), resets_at).map_err(|what| fault(line, what))?;
        rows.push(row);
    }
    Ok(rows)
}

/// Reads a JSON array of objects.
///
/// # Errors
/// The first entry that cannot be read, with what to write there.
pub fn read_json(text: &str) -> Result<Vec<Row>, Fault> {
    let entries: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        let what = format!("this is no JSON array: {error}; write `[{{\"at\": …, \"bucket\": …, \"percent\": …}}]`");
        Fault { place: 0, unit: "entry", what }
    })?;
    let read = |(place, entry): (u64, &Value)| {
        let cell = |name: &str| match entry.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        row(&cell("at"), &cell("bucket"), &cell("percent"), &cell("resets_at")).map_err(|what| Fault {
            place,
            unit: "entry",
            what,
        })
    };
    (1..).zip(&entries).map(read).collect()
}

fn row(at: &str, bucket: &str, percent: &str, resets_at: &str) -> Result<Row, String> {
    let time = |name: &str, text: &str| {
        Timestamp::from_str(text).map_err(|_| {
            format!("{name} is {text:?}, which is no time; write it with its offset, as in 2026-09-14T22:00:00Z")
        })
    };
    if bucket.is_empty() {
        return Err("bucket is missing; write account/kind, as in work/weekly_all".to_owned());
    }
    let number = f64::from_str(percent).ok().filter(|number| number.is_finite() && *number >= 0.0);
    Ok(Row {
        at: time("at", at)?,
        bucket: Bucket::from_str(bucket).unwrap_or_else(|never| match never {}),
        percent: number
            .ok_or_else(|| format!("percent is {percent:?}; write the used part of the limit, 0 to 100, as in 42"))?,
        resets_at: if resets_at.is_empty() { None } else { Some(time("resets_at", resets_at)?) },
    })
}

/// Writes CSV with a heading.
#[must_use]
pub fn write_csv(rows: &[Row]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(COLUMNS);
    for row in rows {
        let resets_at = row.resets_at.map_or_else(String::new, |at| at.to_string());
        let _ = writer.write_record([row.at.to_string(), row.bucket.to_string(), row.percent.to_string(), resets_at]);
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Writes a JSON array, an entry a line.
#[must_use]
pub fn write_json(rows: &[Row]) -> String {
    #[derive(Serialize, Deserialize)]
    struct Entry {
        at: Timestamp,
        bucket: String,
        percent: f64,
        resets_at: Option<Timestamp>,
    }
    let entry = |row: &Row| Entry {
        at: row.at,
        bucket: row.bucket.to_string(),
        percent: row.percent,
        resets_at: row.resets_at,
    };
    let lines: Vec<String> = rows.iter().filter_map(|row| serde_json::to_string(&entry(row)).ok()).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// The windows that ended within a history, each bucket's in order, so that a forecast can learn from it at once. Whoever
/// recorded it is taken to have seen the whole account.
#[must_use]
pub fn windows(rows: &[Row], frame: &Frame) -> Vec<ClosedWindow> {
    let mut closed = Vec::new();
    for (bucket, samples) in by_bucket(rows) {
        let frame = Frame { length: bucket.kind.window().or(frame.length), ..frame.clone() };
        let mut cycle: Option<Cycle> = None;
        for sample in &samples {
            let Some(cycle) = &mut cycle else {
                cycle = Some(Cycle::found(sample, &frame));
                continue;
            };
            if let Step::Turned { old, turn, .. } = cycle.take(sample, &frame) {
                closed.push(old.close(bucket.clone(), &turn));
            }
        }
    }
    closed
}

/// The samples of each bucket, in the order of time.
pub(super) fn by_bucket(rows: &[Row]) -> Vec<(Bucket, Vec<Sample>)> {
    let mut buckets: std::collections::BTreeMap<&Bucket, Vec<Sample>> = std::collections::BTreeMap::new();
    for row in rows {
        buckets.entry(&row.bucket).or_default().push(row.sample());
    }
    buckets
        .into_iter()
        .map(|(bucket, mut samples)| {
            samples.sort_by_key(|sample| sample.at);
            (bucket.clone(), samples)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "at,bucket,percent,resets_at\n\
        2026-09-14T10:00:00Z,work/weekly_all,41,2026-09-18T22:00:00Z\n\
        2026-09-14T12:05:00+02:00,work/weekly_scoped/Fable,99.5,\n";

    #[test]
    fn history_is_read_as_it_is_written() {
        let rows = read(CSV).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[1].resets_at, rows[1].bucket.scope.as_deref()), (None, Some("Fable")));
        assert_eq!(rows[1].at, "2026-09-14T10:05:00Z".parse().unwrap());
        assert_eq!(read(&write_csv(&rows)).unwrap(), rows);
        assert_eq!(read(&write_json(&rows)).unwrap(), rows);
        assert_eq!(read(&write_json(&[])).unwrap(), []);
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let rows = read("percent,note,bucket,at\n7, hello ,weekly_all, 2026-09-14T10:00:00Z\n").unwrap();
        assert_eq!((rows[0].percent, rows[0].bucket.to_string().as_str()), (7.0, "default/weekly_all"));
    }

    #[test]
    fn a_fault_says_where_what_and_what_to_write() {
        for (text, says) in [
            (
                "at,percent\n",
                "line 1: the heading has no column `bucket`; begin the file with `at,bucket,percent,resets_at`",
            ),
            (
                "at,bucket,percent\n2026-09-14T10:00:00Z,a/b,1\n14.9.,a/b,1\n",
                "line 3: at is \"14.9.\", which is no time; ",
            ),
            ("at,bucket,percent\n2026-09-14T10:00:00Z,a/b,half\n", "line 2: percent is \"half\"; write the used part"),
            ("at,bucket,percent\n2026-09-14T10:00:00Z,a/b,NaN\n", "line 2: percent is \"NaN\""),
            ("at,bucket,percent\n2026-09-14T10:00:00Z,,5\n", "line 2: bucket is missing; write account/kind"),
            ("[{\"at\": \"2026-09-14T10:00:00Z\", \"bucket\": \"a/b\"}]", "entry 1: percent is \"\""),
            ("[{", "this is no JSON array: EOF"),
        ] {
            let fault = read(text).unwrap_err().to_string();
            assert!(fault.starts_with(says), "{fault}");
        }
    }

    #[test]
    fn windows_are_found_in_what_was_recorded() {
        let row = |at: &str, percent: f64, resets_at: &str| Row {
            at: at.parse().unwrap(),
            bucket: "work/weekly_all".parse().unwrap(),
            percent,
            resets_at: resets_at.parse().ok(),
        };
        let (first, next) = ("2026-09-18T22:00:00Z", "2026-09-25T22:00:00Z");
        let rows = [
            row("2026-09-18T23:00:00Z", 2.0, next),
            row("2026-09-18T21:00:00Z", 71.0, first),
            row("2026-09-18T23:30:00Z", 2.0, next),
        ];
        let closed = windows(&rows, &Frame::default());
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].started_at, "2026-09-11T22:00:00Z".parse().unwrap());
        assert!((closed[0].last - 71.0).abs() < 1e-9);
    }
}
