//! Tables in Markdown, aligned so that they can be read in a terminal as well.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// The lines between which a document has its tables.
const BEGIN: &str = "<!-- The tables are written by `make bench`. -->";
const END: &str = "<!-- End of the tables. -->";

/// Tables with what they are about.
#[derive(Default)]
pub(crate) struct Text(Vec<Table>);

pub(crate) struct Table {
    caption: String,
    columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row(Vec<String>);

/// A value and how it is shown.
pub(crate) enum Cell {
    Count(f64),
    Tenths(f64),
    Ratio(f64),
    Text(String),
    None,
}

impl Text {
    pub(crate) fn add(&mut self, table: Option<Table>) {
        self.0.extend(table);
    }
}

impl Table {
    pub(crate) fn new(caption: String, columns: &[&str]) -> Self {
        Self {
            caption,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn column(&mut self, name: String) {
        self.columns.push(name);
    }
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    pub(crate) fn cell(&mut self, cell: Cell) {
        self.0.push(cell.to_string());
    }
}

impl Cell {
    pub(crate) fn ratio(ratio: Option<f64>) -> Self {
        ratio.map_or(Self::None, Self::Ratio)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(value) => write!(f, "{value:.0}"),
            Self::Tenths(value) => write!(f, "{value:.1}"),
            Self::Ratio(value) => write!(f, "{value:.2}"),
            Self::Text(text) => f.write_str(text),
            Self::None => Ok(()),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, table) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "**{}**\n", self.caption)?;
        let cells = || std::iter::once(&self.columns).chain(self.rows.iter().map(|row| &row.0));
        let width = |column: usize| {
            cells()
                .filter_map(|cells| cells.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for (line, cells) in cells().enumerate() {
            f.write_str("|")?;
            for (column, width) in widths.iter().enumerate() {
                let cell = cells.get(column).map_or("", String::as_str);
                match column {
                    0 => write!(f, " {cell:<width$} |")?,
                    _ => write!(f, " {cell:>width$} |")?,
                }
            }
            writeln!(f)?;
            if line == 0 {
                f.write_str("|")?;
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width + 1);
                    match column {
                        0 => write!(f, "{dashes}-|")?,
                        _ => write!(f, "{dashes}:|")?,
                    }
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// The middle value, or the mean of the two in the middle; not a number if there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2);
    let lower = values.get(values.len().saturating_sub(1) / 2);
    match (lower, upper) {
        (Some(lower), Some(upper)) => (lower + upper) / 2.0,
        _ => f64::NAN,
    }
}

/// Replaces the tables of a document.
pub(crate) fn replace(path: &Path, tables: &str) -> anyhow::Result<()> {
    let document = fs::read_to_string(path)?;
    let (before, rest) = document
        .split_once(BEGIN)
        .with_context(|| format!("no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("no line {END}"))?;
    fs::write(path, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))?;
    Ok(())
}
