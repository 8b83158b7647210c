//! The tables of the format document held against the tests: a row that is new has
//! none, and fails here.

use std::fs;
use std::path::Path;

/// The format document, beside the checkout.
fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mef3-format.md");
    fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "the format document is missing: expected it at {}: {error}",
            path.display()
        )
    })
}

/// The first cells of the table of a section, without its heading.
fn first_cells(section: &str) -> Vec<String> {
    let document = document();
    let title = format!("## {section}. ");
    let mut lines = document
        .lines()
        .skip_while(|line| !line.starts_with(&title));
    assert!(lines.next().is_some(), "no section {section}");
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let rows = lines.filter_map(|line| line.strip_prefix('|'));
    let cells = rows.filter_map(|row| row.split('|').next());
    cells.skip(2).map(|cell| cell.trim().to_owned()).collect()
}

/// Names of the tests in a test program and in its modules.
fn tests_of(program: &str) -> Vec<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut sources = vec![fs::read_to_string(tests.join(format!("{program}.rs"))).unwrap()];
    for module in fs::read_dir(tests.join(program)).unwrap() {
        sources.push(fs::read_to_string(module.unwrap().path()).unwrap());
    }
    let names = |source: &String| -> Vec<String> {
        let behind = source.split("#[test]\nfn ").skip(1);
        behind
            .filter_map(|text| Some(text.split_once('(')?.0.to_owned()))
            .collect()
    };
    sources.iter().flat_map(names).collect()
}

#[test]
fn every_row_of_section_15_has_a_test() {
    let tests = tests_of("quirks");
    let rows = first_cells("15");
    assert!(rows.len() >= 35, "only {} rows", rows.len());
    for row in &rows {
        let number: u32 = row.parse().unwrap();
        let prefix = format!("row_{number:02}_");
        let found = tests.iter().filter(|test| test.starts_with(&prefix));
        assert_eq!(found.count(), 1, "tests/quirks needs a test {prefix}...");
    }
    assert_eq!(tests.len(), rows.len(), "a test without a row");
}

#[test]
fn every_field_of_section_14_has_a_test() {
    let tests = tests_of("validation");
    let fields = first_cells("14");
    assert!(fields.len() >= 28, "only {} fields", fields.len());
    for field in fields {
        let words = field.split(|character: char| !character.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let name = words.join("_").to_lowercase();
        assert!(
            tests.contains(&name),
            "tests/validation needs a test {name}"
        );
    }
}
