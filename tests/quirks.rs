//! The quirks of files in the wild: one test for each row of the table in section 15
//! of the format document, named after the row. `format_document.rs` makes sure that
//! there is one for each.

mod common;
#[path = "quirks/headers.rs"]
mod headers;
#[path = "quirks/index.rs"]
mod index;
#[path = "quirks/metadata.rs"]
mod metadata;
#[path = "quirks/protection.rs"]
mod protection;
#[path = "quirks/records.rs"]
mod records;
#[path = "quirks/samples.rs"]
mod samples;
