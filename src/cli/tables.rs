//! Tables for people.

use std::io::{self, Write};

/// Writes rows, the first of which is the heading. The first column is left-aligned, the
/// others right-aligned.
pub(super) fn write_table<const COLUMNS: usize>(
    rows: &[[String; COLUMNS]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            match column {
                0 => write!(out, "{cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
