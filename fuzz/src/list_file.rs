//! A signed list as the JSON that a web server gives (spec 12, 2). The input is the file.

use port17::list_file::{parse, to_json};
use port17_proto::limits::{LIST_BYTES, LIST_SIGNATURES};
use port17_proto::network::SignedList;

use crate::sample_list::{content, signed, signed_by};

/// Reads a list's file.
pub fn run(bytes: &[u8]) {
    let Ok(list) = parse(bytes) else { return };
    assert!(list.signatures.len() <= LIST_SIGNATURES && list.encode().len() <= LIST_BYTES);
    assert!(list.signatures.is_sorted_by(|one, other| one.0 < other.0), "in the one order");
    assert_eq!(SignedList::decode(&list.encode()).as_ref(), Ok(&list), "links can carry it");
    assert_eq!(parse(to_json(&list).as_bytes()).expect("what is written can be read"), list);
}

/// A whole list, and small ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let whole = signed(&content());
    let lists = [whole.clone(), signed_by(b"payload".to_vec(), &[41, 42, 43]), SignedList::new(vec![])];
    let mut seeds: Vec<Vec<u8>> = lists.iter().map(|list| to_json(list).into_bytes()).collect();
    let cut = seeds[1][..seeds[1].len() / 2].to_vec();
    seeds.push(cut);
    seeds
}
