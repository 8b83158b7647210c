//! Lines of a time and the value of each channel.

use std::borrow::Cow;

use mef3_server::grpc::proto::native::SignalGroup;

use super::value::Value;
use super::{Form, Part, time_of};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// The first line has the names of the channels.
pub(super) struct Csv {
    group: SignalGroup,
}

impl Csv {
    pub(super) fn new(group: &SignalGroup) -> Self {
        Self {
            group: group.clone(),
        }
    }
}

impl<T: Value> Form<T> for Csv {
    fn begin(&mut self, output: &mut Output) -> Result<(), Failure> {
        output.write_with(|out| {
            write!(out, "time_uutc")?;
            for name in &self.group.channels {
                write!(out, ",{}", quoted(name))?;
            }
            writeln!(out)
        })
    }

    fn write(&mut self, part: &Part<T>, output: &mut Output) -> Result<(), Failure> {
        output.write_with(|out| {
            for (column, number) in (0..part.columns).zip(part.first_column..) {
                write!(out, "{}", time_of(&self.group, number))?;
                for value in part.values.iter().skip(column).step_by(part.columns) {
                    match value.is_missing() {
                        true => write!(out, ",")?,
                        // As many digits as it takes to read the same value back.
                        false => write!(out, ",{value:?}")?,
                    }
                }
                writeln!(out)?;
            }
            Ok(())
        })
    }

    fn end(&mut self, _: &mut Output) -> Result<(), Failure> {
        Ok(())
    }
}

/// A name as RFC 4180 wants it.
fn quoted(name: &str) -> Cow<'_, str> {
    match name.contains(|c: char| c == ',' || c == '"' || c.is_control()) {
        true => format!("\"{}\"", name.replace('"', "\"\"")).into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_would_break_the_line() {
        for (name, text) in [
            ("LA 1", "LA 1"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "\"a\nb\""),
        ] {
            assert_eq!(quoted(name), text);
        }
    }
}
