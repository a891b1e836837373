//! What commands print: tables for people, JSON for scripts.
//!
//! Owns: their form. Results go to standard output, all else to standard error. Must not know: where they come from.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use super::error::CliError;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    People,
    Json,
}

/// How a column is lined up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// A table without lines, as wide as its content or the terminal.
pub(crate) fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    }));
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in columns.iter().enumerate() {
        if let Some(made) = table.column_mut(index) {
            made.set_padding((0, 2));
            if matches!(column, Column::Number(_)) {
                made.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Writes to standard output.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

/// Writes bytes as they are.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Write)
}

/// A result that may lack a line end, which a person's prompt needs and a script must not get.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn print_result(bytes: &[u8]) -> Result<(), CliError> {
    print_bytes(bytes)?;
    if std::io::stdout().is_terminal() && !bytes.ends_with(b"\n") { print("\n") } else { Ok(()) }
}

/// One JSON value on a line of its own.
///
/// # Errors
/// Nobody reads any more.
pub(crate) fn print_json(value: &Value) -> Result<(), CliError> {
    print(&format!("{value}\n"))
}

/// A remark for people, on standard error.
pub(crate) fn remark(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// A member as text for a cell: strings as they are, nothing for null.
pub(crate) fn cell(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Microseconds for people.
pub(crate) fn show_us(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long name".into(), "1000".into()]];
        let text = table(&[Column::Text("NAME"), Column::Number("COUNT")], rows);
        assert_eq!(text, "NAME       COUNT\na              1\nlong name   1000\n");
    }

    #[test]
    fn times_have_a_fitting_unit() {
        assert_eq!(show_us(999), "999 us");
        assert_eq!(show_us(1234), "1.23 ms");
        assert_eq!(show_us(2_500_000), "2.50 s");
    }
}
