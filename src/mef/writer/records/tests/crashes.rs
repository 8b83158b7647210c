//! What a crash leaves, and what the next writer makes of it.

use super::*;

/// The files before and after an append of two notes to two others.
fn before_and_after() -> (TempDir, Image, Image) {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = create(folder.path());
    writer.append(&notes(1..3)).unwrap();
    let before = Image::read(folder.path());
    writer.append(&notes(5..7)).unwrap();
    let after = Image::read(folder.path());
    (folder, before, after)
}

/// All states between the two, in the order in which the writer goes through them,
/// each with the number of whole new records in it.
fn states(before: &Image, after: &Image) -> Vec<(Image, usize)> {
    let mut states = Vec::new();
    let first_end = before.data.len() + 24 + 48;
    for length in before.data.len()..=after.data.len() {
        let mut state = before.clone();
        state
            .data
            .extend_from_slice(&after.data[before.data.len()..length]);
        let whole = usize::from(length >= first_end) + usize::from(length == after.data.len());
        states.push((state, whole));
    }
    let mut state = before.clone();
    state.data[1024..].copy_from_slice(&before.data[1024..]);
    state
        .data
        .extend_from_slice(&after.data[before.data.len()..]);
    let (old, new) = (
        before.index.as_ref().unwrap(),
        after.index.as_ref().unwrap(),
    );
    for length in old.len()..=new.len() {
        let mut index = new[..length].to_vec();
        index[..1024].copy_from_slice(&old[..1024]);
        state.index = Some(index);
        states.push((state.clone(), 2));
    }
    state.index = Some(new.clone());
    states.push((state, 2));
    states.push((after.clone(), 2));
    states
}

#[test]
fn a_reader_finds_all_earlier_records_at_every_step() {
    let (_folder, before, after) = before_and_after();
    let earlier = before.records();
    let all = after.records();
    for (state, whole) in states(&before, &after) {
        let records = state.records();
        assert!(earlier.iter().all(|record| records.contains(record)));
        let growing = state.scan(true);
        assert_eq!(growing.damage, RecordDamage::default());
        assert_eq!(growing.positions.len(), 2 + whole);
        assert!(records.iter().all(|record| all.contains(record)));
    }
}

#[test]
fn the_next_writer_goes_on_at_every_step() {
    let (folder, before, after) = before_and_after();
    for (state, whole) in states(&before, &after) {
        state.write(folder.path());
        let mut writer = open(folder.path()).unwrap();
        // Opening changes nothing.
        assert!(Image::read(folder.path()) == state);
        // Shorter than any torn record, so that some of it stays uncovered.
        writer.append(&notes(0..1)).unwrap();
        let mut expected = texts(&notes(1..3));
        expected.extend(texts(&notes(5..7)).into_iter().take(whole));
        expected.push(String::new());
        let image = Image::read(folder.path());
        assert_eq!(image.texts(), expected);
        image.check_headers(expected.len());
        assert!(image.data.len() >= state.data.len(), "truncated");
        assert_eq!(image.scan(true), image.scan(false));

        // And so does the one after it, over what is left of the torn bytes.
        drop(writer);
        let mut writer = open(folder.path()).unwrap();
        writer.append(&notes(2..3)).unwrap();
        writer.append(&notes(9..10)).unwrap();
        expected.extend(texts(&[notes(2..3), notes(9..10)].concat()));
        let image = Image::read(folder.path());
        assert_eq!(image.texts(), expected);
        image.check_headers(expected.len());
    }
}

#[test]
fn whole_records_without_entries_get_them_even_if_nothing_is_appended() {
    let (folder, before, after) = before_and_after();
    let mut state = before.clone();
    state
        .data
        .extend_from_slice(&after.data[before.data.len()..]);
    state.write(folder.path());
    open(folder.path()).unwrap().append(&[]).unwrap();
    let image = Image::read(folder.path());
    image.check_headers(4);
    assert!(image == after);
}

#[test]
fn an_index_that_is_missing_is_made_of_the_records() {
    let (folder, _, after) = before_and_after();
    let mut state = after.clone();
    state.index = None;
    state.write(folder.path());
    drop(open(folder.path()).unwrap());
    let image = Image::read(folder.path());
    assert!(image.data == after.data);
    image.check_headers(4);
    let entries = |image: &Image| image.index.as_ref().unwrap()[1024..].to_vec();
    assert_eq!(entries(&image), entries(&after));
    let [data, index] = image.headers();
    assert_eq!(
        (data.start_time, data.end_time),
        (index.start_time, index.end_time)
    );
    open(folder.path()).unwrap().append(&notes(3..4)).unwrap();
    Image::read(folder.path()).check_headers(5);
}

#[test]
fn a_crc_that_was_never_computed_is_not_computed_after_a_crash_either() {
    let folder = copy("records_pymef");
    let mut image = Image::read(folder.path());
    image.data.extend([9; 30]);
    image.write(folder.path());
    open(folder.path()).unwrap().append(&notes(0..1)).unwrap();
    let image = Image::read(folder.path());
    assert_eq!(image.headers()[0].body_crc.get(), 0);
    assert_eq!(image.records().len(), 10);
}
