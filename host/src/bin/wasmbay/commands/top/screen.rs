//! What is on the screen, and what keys do to it.

use std::cmp::Ordering;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as Line_, Table, TableState};
use wasmbay::insight::HealthState;

use super::{HEAD, Key, Row, cells, rate, time};
use crate::report::plain;

/// The column by which rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Calls,
    Errors,
    P99,
    Name,
}

impl By {
    const fn next(self) -> Self {
        match self {
            Self::Calls => Self::Errors,
            Self::Errors => Self::P99,
            Self::P99 => Self::Name,
            Self::Name => Self::Calls,
        }
    }

    /// Its place among the columns.
    const fn column(self) -> usize {
        match self {
            Self::Name => 0,
            Self::Calls => 2,
            Self::Errors => 3,
            Self::P99 => 5,
        }
    }

    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let (a, b) = (&one.calls, &other.calls);
        let by = match self {
            Self::Calls => b.calls_per_second.total_cmp(&a.calls_per_second),
            Self::Errors => b.errors_per_second.total_cmp(&a.errors_per_second),
            Self::P99 => b.p99_seconds.total_cmp(&a.p99_seconds),
            Self::Name => Ordering::Equal,
        };
        by.then_with(|| (&one.app, &one.service).cmp(&(&other.app, &other.service)))
    }
}

/// The screen.
pub(super) struct Screen {
    every: Duration,
    /// Nothing before the second reading.
    rows: Option<Vec<Row>>,
    /// The chosen service, which stays chosen when the order changes.
    chosen: Option<(String, String)>,
    details: bool,
    by: By,
    /// Why nothing newer is shown.
    trouble: Option<String>,
}

impl Screen {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            rows: None,
            chosen: None,
            details: true,
            by: By::Calls,
            trouble: None,
        }
    }

    pub(super) fn show(&mut self, mut rows: Vec<Row>) {
        rows.sort_by(|one, other| self.by.compare(one, other));
        self.rows = Some(rows);
        self.trouble = None;
    }

    pub(super) fn say(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    pub(super) fn typed(&mut self, key: &Key) {
        match key {
            Key::Sort => {
                self.by = self.by.next();
                let rows = self.rows.take();
                if let Some(rows) = rows {
                    let trouble = self.trouble.take();
                    self.show(rows);
                    self.trouble = trouble;
                }
            }
            Key::Up => self.choose(|at, _| at.saturating_sub(1)),
            Key::Down => self.choose(|at, last| (at + 1).min(last)),
            Key::Details => self.details = !self.details,
            Key::End | Key::Resized => {}
        }
    }

    fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let rows = self.rows.as_deref().unwrap_or_default();
        let at = self
            .position()
            .map(|at| to(at, rows.len().saturating_sub(1)));
        let row = rows.get(at.unwrap_or_default());
        self.chosen = row.map(|row| (row.app.clone(), row.service.clone()));
    }

    /// The place of the chosen row.
    fn position(&self) -> Option<usize> {
        let (app, service) = self.chosen.as_ref()?;
        let mut rows = self.rows.as_deref().unwrap_or_default().iter();
        rows.position(|row| row.app == *app && row.service == *service)
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let row = self.position().and_then(|at| self.rows.as_ref()?.get(at));
        let row = row.filter(|_| self.details);
        let below = row.map_or(0, |row| {
            let lines = row.imports.len() + row.health.as_ref().map_or(0, |h| h.why.len()) + 3;
            u16::try_from(lines)
                .unwrap_or(u16::MAX)
                .min(frame.area().height / 2)
        });
        let [top, middle, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(below),
        ])
        .areas(frame.area());
        frame.render_widget(self.title(), top);
        self.table(frame, middle);
        if let Some(row) = row {
            frame.render_widget(details(row), bottom);
        }
    }

    fn title(&self) -> Line<'_> {
        let weak = Style::new().add_modifier(Modifier::DIM);
        let every = format!(", the last {:?}", self.every);
        let keys = "   q ends, s sorts, ↑↓ choose, Enter details";
        let mut title = vec![
            Span::styled("wasmbay top", Style::new().add_modifier(Modifier::BOLD)),
            Span::styled(every, weak),
            Span::styled(keys, weak),
        ];
        if let Some(trouble) = &self.trouble {
            let trouble = format!("   not newer: {}", plain(trouble));
            title.push(Span::styled(trouble, Style::new().fg(Color::Red)));
        }
        Line::from(title)
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(rows) = &self.rows else {
            return frame.render_widget(Paragraph::new("counting…"), area);
        };
        if rows.is_empty() {
            return frame.render_widget(Paragraph::new("no service runs"), area);
        }
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let head = HEAD.iter().enumerate().map(|(column, head)| {
            let sorted = column == self.by.column();
            Cell::from(if sorted {
                format!("{head}▾")
            } else {
                (*head).to_owned()
            })
        });
        let lines = rows.iter().map(|row| {
            let colour = colour(row.health.as_ref().map(|health| health.state));
            let cells = cells(row).into_iter().enumerate();
            let cells = cells.map(|(column, text)| match column {
                1 => Cell::from(text).style(Style::new().fg(colour)),
                3 if row.calls.errors_per_second > 0.0 => {
                    Cell::from(text).style(Style::new().fg(Color::Red))
                }
                _ => Cell::from(text),
            });
            Line_::new(cells)
        });
        let names = rows.iter().map(|row| row.app.len() + row.service.len() + 1);
        let names = u16::try_from(names.max().unwrap_or(0)).unwrap_or(u16::MAX);
        let widths = [
            Constraint::Length(names.clamp(8, 60)),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(6),
        ];
        let table = Table::new(lines, widths)
            .header(Line_::new(head).style(bold))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::default().with_selected(self.position());
        frame.render_stateful_widget(table, area, &mut state);
    }
}

const fn colour(health: Option<HealthState>) -> Color {
    match health {
        Some(HealthState::Ready) => Color::Green,
        Some(HealthState::Degraded) => Color::Yellow,
        Some(HealthState::Failing) => Color::Red,
        None => Color::Reset,
    }
}

/// Why a service is not ready, and what it calls.
fn details(row: &Row) -> Paragraph<'_> {
    let why = row.health.iter().flat_map(|health| &health.why);
    let why = why.map(|why| Line::styled(plain(why), Style::new().fg(Color::Red)));
    let hosts = Line::from(format!("on {}", plain(&row.hosts.join(", "))));
    let imports = row.imports.iter().map(|import| {
        let verb = if import.event { "publishes" } else { "calls" };
        let to = match import.to.as_slice() {
            [] => "outside the app".to_owned(),
            to => to.join(", "),
        };
        let calls = &import.calls;
        let mut line = format!(
            "{verb} {} of {to}: {}/s, {} errors/s, p99 {}",
            import.function,
            rate(calls.calls_per_second),
            rate(calls.errors_per_second),
            time(calls.p99_seconds)
        );
        line = plain(&line);
        Line::from(line)
    });
    let lines: Vec<_> = why.chain([hosts]).chain(imports).collect();
    let title = format!(" {}/{} ", plain(&row.app), plain(&row.service));
    Paragraph::new(lines).block(Block::new().borders(Borders::TOP).title(title))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::rows;
    use super::super::tests::reading;
    use super::*;

    fn drawn(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 14)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_rows_details_and_trouble() {
        let mut screen = Screen::new(Duration::from_secs(2));
        assert!(drawn(&screen).contains("counting"));
        screen.show(Vec::new());
        assert!(drawn(&screen).contains("no service runs"));
        let before = Instant::now();
        let after = before + Duration::from_secs(2);
        let found = rows(&reading(before, "a", 100, 3), &reading(after, "a", 140, 5));
        screen.show(found.clone());
        let shown = drawn(&screen);
        assert!(
            shown.contains("CALLS/S▾") && shown.contains("shop/orders"),
            "{shown}"
        );
        assert!(!shown.contains("payments.charge"), "{shown}");
        screen.typed(&Key::Down);
        let shown = drawn(&screen);
        for part in [
            "9 of 10 calls",
            "on a",
            "calls shop:payment/payments.charge of payment: 10/s",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        screen.typed(&Key::Details);
        assert!(!drawn(&screen).contains("payments.charge"));
        screen.say("connection closed".to_owned());
        screen.typed(&Key::Sort);
        let shown = drawn(&screen);
        assert!(shown.contains("ERRORS/S▾"), "{shown}");
        assert!(screen.trouble.is_some());
        screen.show(found);
        assert!(screen.trouble.is_none());
    }

    #[test]
    fn rows_are_sorted_and_the_chosen_one_stays_chosen() {
        let row = |service: &str, calls: f64, errors: f64| {
            let mut row = super::super::row("a", service);
            row.calls.calls_per_second = calls;
            row.calls.errors_per_second = errors;
            row
        };
        let mut screen = Screen::new(Duration::from_secs(2));
        screen.show(vec![
            row("slow", 1.0, 5.0),
            row("busy", 9.0, 0.0),
            row("idle", 0.0, 0.0),
        ]);
        let names = |screen: &Screen| -> Vec<String> {
            let rows = screen.rows.as_ref().unwrap().iter();
            rows.map(|row| row.service.clone()).collect()
        };
        assert_eq!(names(&screen), ["busy", "slow", "idle"]);
        screen.typed(&Key::Down);
        screen.typed(&Key::Down);
        assert_eq!(screen.position(), Some(1));
        screen.typed(&Key::Sort);
        assert_eq!(names(&screen), ["slow", "busy", "idle"]);
        assert_eq!(screen.position(), Some(0));
        for _ in 0..5 {
            screen.typed(&Key::Down);
        }
        assert_eq!(screen.position(), Some(2));
        screen.typed(&Key::Up);
        assert_eq!(screen.position(), Some(1));
    }
}
