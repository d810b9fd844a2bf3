//! The network file. The input is its text.

use std::path::Path;

use port17::network_file::{NetworkFile, NetworkFileError, SOURCES, key_to_text};
use port17_proto::network::ROOTS;

use crate::sample_bottle::key;

const PATH: &str = "/etc/port17/sample.network.toml";

/// Reads a network file.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match NetworkFile::parse(text, Path::new(PATH)) {
        Ok(file) => {
            check(&file);
            let written = file.to_toml();
            let back = NetworkFile::parse(&written, Path::new(PATH));
            assert_eq!(back.expect("what is written can be read"), file, "{written}");
        }
        Err(NetworkFileError::Invalid(wrong)) => {
            assert!(wrong.path == Path::new(PATH) && !wrong.key.is_empty() && !wrong.problem.contains('\n'));
            assert!((1..=text.lines().count() + 1).contains(&wrong.line), "line {} of the text", wrong.line);
        }
        Err(error @ NetworkFileError::Read { .. }) => panic!("nothing was read: {error}"),
    }
}

fn check(file: &NetworkFile) {
    let roots = file.definition.roots();
    assert!((1..=ROOTS).contains(&roots.keys().len()) && roots.keys().len() >= usize::from(roots.threshold()));
    assert!(file.sources.len() <= SOURCES);
    assert!(file.danger_http || !file.sources.iter().any(port17::network_file::Source::is_plain_http));
    assert!(file.params.validate().is_ok());
    assert_eq!(file.ca_pem.is_some(), file.ca_certificates().is_some());
}

/// A small one, one that says everything but a CA, and wrong ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let root = |seed| key_to_text(&key(seed).public());
    let head = format!("name = \"sample-net\"\nthreshold = 1\nroots = [\"{}\", \"{}\"]\n", root(41), root(42));
    let texts = [
        format!("{head}sources = []\n"),
        format!("{head}sources = [\"https://a.example/list.json\", \"file:list.json\", \"http://b.example\"]\ndanger_http = true\n"),
        format!("{head}sources = [\"list.json\"]\n[parameters]\nset = \"private\"\nhops = 4\nbottle_lifetime = \"20 h\"\n"),
        format!("{head}sources = [\"ftp://a\"]\n"),
        format!("{head}sources = []\nca_pem = \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"\n"),
        "name = \"x\"\nthreshold = 0\nroots = []\nsources = []\n".to_owned(),
        "{\"payload\": \"\"}".to_owned(),
    ];
    texts.map(String::into_bytes).to_vec()
}
