//! The signed list as a file, `bootstrap-nodes.json`: the payload in base64, and who signed it (spec 12, 2).
//!
//! JSON is only the paper it is printed on: what counts are the payload's bytes. Keys are written as in the network file, so that
//! people can compare them. What is read is bounded first and of unknown worth: [`SignedList::verify`] decides.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use data_encoding::BASE64;
use port17_proto::limits::{LIST_BYTES, LIST_SIGNATURES};
use port17_proto::network::SignedList;
use serde::{Deserialize, Serialize};

use crate::fetcher::{FetchError, LIST_FILE_BYTES, read_bounded};
use crate::network_file::{key_from_text, key_to_text};

/// The usual name of the file.
pub const LIST_FILE_NAME: &str = "bootstrap-nodes.json";

/// Why a file is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] FetchError),
    /// It is longer than any list.
    #[error("it is longer than {LIST_FILE_BYTES} bytes: no list")]
    TooLong,
    /// It stops before its end.
    #[error("it ends in the middle, after {0} bytes: only a part was downloaded or copied; fetch it again")]
    Cut(usize),
    /// It is not such JSON.
    #[error("it is not a signed list in JSON ({0}); a list has \"payload\" and \"signatures\"")]
    Json(serde_json::Error),
    /// A part of it is not what it should be.
    #[error("{0}")]
    Part(String),
}

/// The file as it is.
#[derive(Debug, Serialize, Deserialize)]
struct ListFile {
    payload: String,
    signatures: Vec<SignatureEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SignatureEntry {
    key: String,
    sig: String,
}

/// Reads the list at `path`, none where there is none.
///
/// # Errors
/// When the file cannot be read or is no list.
pub fn read(path: &Path) -> Result<Option<SignedList>, ListFileError> {
    match read_bounded(path) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(FetchError::File(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The list in a file's bytes; nothing about it is proven.
///
/// # Errors
/// When it is no list.
pub fn parse(bytes: &[u8]) -> Result<SignedList, ListFileError> {
    if bytes.len() > LIST_FILE_BYTES {
        return Err(ListFileError::TooLong);
    }
    let file: ListFile = serde_json::from_slice(bytes)
        .map_err(|error| if error.is_eof() { ListFileError::Cut(bytes.len()) } else { ListFileError::Json(error) })?;
    let payload = BASE64.decode(file.payload.as_bytes()).map_err(|_| part("its payload is not base64"))?;
    let too_large = || part(format_args!("it is too large: {LIST_BYTES} bytes and {LIST_SIGNATURES} signatures are allowed"));
    if file.signatures.len() > LIST_SIGNATURES {
        return Err(too_large());
    }
    let mut list = SignedList::new(payload);
    for entry in &file.signatures {
        let key = key_from_text(&entry.key).map_err(ListFileError::Part)?;
        let bytes = BASE64.decode(entry.sig.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = bytes.ok_or_else(|| part(format_args!("the signature of {} is not 64 bytes in base64", entry.key)))?;
        match list.signatures.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(_) => return Err(part(format_args!("the key {} has signed twice", entry.key))),
            // In the one order that the list's own encoding allows.
            Err(at) => list.signatures.insert(at, (key, signature)),
        }
    }
    // What is larger no link would carry on.
    if list.encode().len() > LIST_BYTES { Err(too_large()) } else { Ok(list) }
}

fn part(problem: impl ToString) -> ListFileError {
    ListFileError::Part(problem.to_string())
}

/// The file of a list.
pub fn to_json(list: &SignedList) -> String {
    let entry = |(key, signature): &(_, [u8; 64])| SignatureEntry { key: key_to_text(key), sig: BASE64.encode(signature) };
    let file = ListFile { payload: BASE64.encode(&list.payload), signatures: list.signatures.iter().map(entry).collect() };
    // Text and lists of text: all of it exists in JSON.
    serde_json::to_string_pretty(&file).expect("a list can be written as JSON") + "\n"
}

/// Writes a list by rename: a web server that has the file open gives the old one or the new one, never half of it.
///
/// # Errors
/// What the system says; the old file stays.
pub fn write(path: &Path, list: &SignedList) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(&beside).and_then(|mut file| {
        file.write_all(to_json(list).as_bytes()).and_then(|()| file.sync_all())?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        // Half a file helps nobody; that it could not be removed is the smaller problem.
        let _ = fs::remove_file(&beside);
        return written;
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use port17_proto::crypto::{Secret, SigningKey};

    use super::*;

    fn signed(keys: &[u8]) -> SignedList {
        let mut list = SignedList::new(vec![7; 100]);
        keys.iter().for_each(|seed| list.sign(&SigningKey::from_seed(Secret::new([*seed; 32]))));
        list
    }

    fn problem(bytes: impl AsRef<[u8]>) -> String {
        parse(bytes.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn a_list_is_written_and_read_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(LIST_FILE_NAME);
        assert!(read(&path).unwrap().is_none());
        for list in [signed(&[]), signed(&[1, 2, 3])] {
            write(&path, &list).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), list);
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(write(&root.path().join("no/such"), &signed(&[])).is_err());
    }

    #[test]
    fn the_order_of_signatures_in_the_file_does_not_matter() {
        let list = signed(&[1, 2, 3]);
        let mut json: serde_json::Value = serde_json::from_str(&to_json(&list)).unwrap();
        json["signatures"].as_array_mut().unwrap().reverse();
        json["note"] = "what is not known is left alone".into();
        assert_eq!(parse(json.to_string().as_bytes()).unwrap(), list);
    }

    #[test]
    fn a_list_cut_anywhere_is_said_to_be_half() {
        let text = to_json(&signed(&[1, 2]));
        let whole = text.trim_end().len();
        for cut in 0..whole {
            assert!(problem(&text[..cut]).contains("only a part was downloaded"), "{cut}");
        }
        assert!(parse(&text.as_bytes()[..whole]).is_ok());
    }

    #[test]
    fn what_is_no_list_is_named() {
        let key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
        let sig = BASE64.encode(&[0; 64]);
        let one = |key: &str, sig: &str| format!("{{\"key\": \"{key}\", \"sig\": \"{sig}\"}}");
        let with = |signatures: String| format!("{{\"payload\": \"\", \"signatures\": [{signatures}]}}");
        for (text, contains) in [
            ("<html>404</html>".to_owned(), "not a signed list in JSON"),
            ("[]".into(), "not a signed list"),
            ("{}".into(), "payload"),
            ("{\"payload\": \"%\", \"signatures\": []}".into(), "not base64"),
            (with(one("x", &sig)), "64 characters"),
            (with(one(key, "AAAA")), "64 bytes in base64"),
            (with(format!("{0},{0}", one(key, &sig))), "signed twice"),
            (with(vec![one(key, &sig); 33].join(",")), "too large"),
            (format!("{{\"payload\": \"{}\", \"signatures\": []}}", BASE64.encode(&vec![0; LIST_BYTES + 1])), "too large"),
            ("x".repeat(LIST_FILE_BYTES + 1), "longer than"),
        ] {
            let problem = problem(&text);
            assert!(problem.contains(contains), "{} gave {problem}", &text[..text.len().min(100)]);
        }
    }
}
