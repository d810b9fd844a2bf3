//! The network file, `NAME.network.toml`: all that a node or a client needs to join a network (spec 12, 1).
//!
//! It names the network, the root keys whose word counts, where signed lists are fetched, and the parameters that hold until the
//! first list. It is strict as the configuration is: an unknown key is refused, and an error names file, line and key. Relative paths
//! are taken from the directory of the file. A network with its own CA carries the certificate inside, so that one file joins.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use hyper::Uri;
use port17_proto::crypto::VerifyingKey;
use port17_proto::network::{Definition, DefinitionError, ROOTS, Roots};
use port17_proto::params::{Params, SetName};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::config::InvalidFile;

/// How the name of a network file ends.
pub const NETWORK_FILE_ENDING: &str = ".network.toml";
/// Most sources of a network file: each of them is asked, at once.
pub const SOURCES: usize = 16;
/// A network file is written by hand, with a few certificates inside; nothing larger is one.
const NETWORK_FILE_BYTES: u64 = 256 * 1024;
/// A longer address is no address of a list.
const SOURCE_CHARS: usize = 2048;

/// What a network file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFile {
    /// Name and root keys.
    pub definition: Definition,
    /// Where signed lists come from.
    pub sources: Vec<Source>,
    /// The CA certificates, as PEM, that HTTPS sources are held to; none: the public web's.
    pub ca_pem: Option<String>,
    /// Whether `http://` sources are allowed: whoever is on the way can then hold a newer list back, though never forge one.
    pub danger_http: bool,
    /// The parameters that hold until the first list, and that a list is signed with.
    pub params: Params,
}

/// Where a signed list comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// An `https://` or, where the network file allows it, `http://` address.
    Web(Uri),
    /// A file, absolute.
    File(PathBuf),
}

/// Why there is no network file.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It says something that is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidFile),
}

impl NetworkFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or says something that is not allowed.
    pub fn load(path: &Path) -> Result<Self, NetworkFileError> {
        let unreadable = |source| NetworkFileError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > NETWORK_FILE_BYTES {
            return Err(unreadable(std::io::Error::other(format!("no network file: larger than {NETWORK_FILE_BYTES} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => unreadable(std::io::Error::other("no network file: it is not text")),
            _ => unreadable(error),
        })?;
        Self::parse(&text, path)
    }

    /// Parses a network file's text; `path` is named in errors and gives the directory of relative paths.
    ///
    /// # Errors
    /// When it says something that is not allowed.
    pub fn parse(text: &str, path: &Path) -> Result<Self, NetworkFileError> {
        if text.trim_start().starts_with('{') {
            let problem = "this is JSON, as signed lists are; a network file says `name = …`, and its name ends in .network.toml";
            return Err(InvalidFile::at(text, path, 0, Some("syntax"), problem).into());
        }
        let file: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            InvalidFile::at(text, path, offset, None, error.message())
        })?;
        Ok(file.resolve(path).map_err(|wrong| InvalidFile::at(text, path, wrong.span.start, Some(&wrong.key), &wrong.problem))?)
    }

    /// The file's text, for who makes or moves one: sources that are files become absolute.
    pub fn to_toml(&self) -> String {
        let roots = self.definition.roots();
        let written = Written {
            name: self.definition.name(),
            threshold: roots.threshold(),
            roots: roots.keys().iter().map(key_to_text).collect(),
            sources: self.sources.iter().map(ToString::to_string).collect(),
            danger_http: self.danger_http.then_some(true),
            ca_pem: self.ca_pem.as_deref(),
            parameters: self.written_parameters(),
        };
        // Strings, numbers, lists and a table of strings: all of them exist in TOML.
        toml::to_string(&written).expect("a network file can be written as TOML")
    }

    fn written_parameters(&self) -> BTreeMap<&'static str, String> {
        let base = set_of(self.params.name);
        let set = if base.name == SetName::Default { None } else { Some(("set", base.name.to_string())) };
        let own =
            self.params.entries().into_iter().zip(base.entries()).filter(|(own, base)| own.1 != base.1 && own.0.name != "name");
        set.into_iter().chain(own.map(|((parameter, value), _)| (parameter.name, value))).collect()
    }

    /// The name the file should have: `NAME.network.toml`.
    pub fn file_name(&self) -> String {
        format!("{}{NETWORK_FILE_ENDING}", self.definition.name())
    }

    /// The CA certificates of [`Self::ca_pem`], none where the public web's CAs hold.
    pub fn ca_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        // Parsed once already.
        self.ca_pem.as_deref().and_then(|pem| certificates(pem).ok())
    }
}

/// The shown form of a root key: its 32 bytes as 64 characters of lower case hex, as in key files.
pub fn key_to_text(key: &VerifyingKey) -> String {
    data_encoding::HEXLOWER.encode(&key.0)
}

/// A root key of its shown form.
///
/// # Errors
/// What is expected, in words.
pub fn key_from_text(text: &str) -> Result<VerifyingKey, String> {
    let expected = || format!("`{text}`: expected a root key: 64 characters 0-9 and a-f");
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| expected())?;
    let key = VerifyingKey(bytes.try_into().map_err(|_| expected())?);
    key.check().map_err(|_| format!("`{text}`: this is no key that anything can be signed with"))?;
    Ok(key)
}

impl Source {
    /// The source that `text` names: an address, `file:` with a path, or a path; relative ones are taken from `directory`.
    ///
    /// # Errors
    /// What is expected, in words.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        if text.is_empty() || text.len() > SOURCE_CHARS {
            return Err(format!("a source has 1 to {SOURCE_CHARS} characters"));
        }
        let file = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:"));
        if let Some(path) = file.or_else(|| (!text.contains("://")).then_some(text)) {
            let path = directory.join(path);
            let absolute = std::path::absolute(&path).unwrap_or(path);
            // Without the second of two slashes in front: `file:` and they would be read as `file://`.
            return Ok(Self::File(absolute.components().collect()));
        }
        let expected = |why| format!("`{text}`: {why}; expected https://HOST/PATH, file:PATH or a path");
        let uri: Uri = text.parse().map_err(|_| expected("no address"))?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err(expected("only https, http and file are known"));
        }
        match uri.authority() {
            Some(authority) if authority.host().is_empty() => Err(expected("it names no host")),
            Some(authority) if authority.as_str().contains('@') => Err(expected("a name or password cannot be sent")),
            Some(_) => Ok(Self::Web(uri)),
            None => Err(expected("it names no host")),
        }
    }

    /// Whether it is fetched without TLS.
    pub fn is_plain_http(&self) -> bool {
        matches!(self, Self::Web(uri) if uri.scheme_str() == Some("http"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(uri) => uri.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// When there is none, or one is damaged.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| format!("no PEM certificate: {error}"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| format!("no CA certificate: {error}"))?;
    }
    if certificates.is_empty() {
        return Err("no PEM certificate: `-----BEGIN CERTIFICATE-----` is expected".into());
    }
    Ok(certificates)
}

/// The file as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    threshold: Spanned<u8>,
    roots: Spanned<Vec<Spanned<String>>>,
    sources: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    danger_http: bool,
    ca_pem: Option<Spanned<String>>,
    #[serde(default)]
    parameters: ParameterTable,
}

/// The file as it is written.
#[derive(Serialize)]
struct Written<'a> {
    name: &'a str,
    threshold: u8,
    roots: Vec<String>,
    sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    danger_http: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_pem: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<&'static str, String>,
}

/// A value that is well-formed by itself but wrong here.
struct Wrong {
    span: Range<usize>,
    key: String,
    problem: String,
}

impl Wrong {
    fn new<T>(value: &Spanned<T>, key: &str, problem: impl fmt::Display) -> Self {
        Self { span: value.span(), key: key.to_owned(), problem: problem.to_string() }
    }
}

impl File {
    fn resolve(self, path: &Path) -> Result<NetworkFile, Wrong> {
        let definition = self.definition()?;
        let sources = self.sources(path.parent().unwrap_or(Path::new("")))?;
        if let Some(pem) = &self.ca_pem {
            certificates(pem.get_ref()).map_err(|problem| Wrong::new(pem, "ca_pem", problem))?;
        }
        let params = params(&self.parameters)?;
        let ca_pem = self.ca_pem.map(Spanned::into_inner);
        Ok(NetworkFile { definition, sources, ca_pem, danger_http: self.danger_http, params })
    }

    fn definition(&self) -> Result<Definition, Wrong> {
        if self.roots.get_ref().len() > ROOTS {
            return Err(Wrong::new(&self.roots, "roots", DefinitionError::Roots));
        }
        let mut keys = Vec::new();
        for text in self.roots.get_ref() {
            keys.push(key_from_text(text.get_ref()).map_err(|problem| Wrong::new(text, "roots", problem))?);
        }
        let wrong = |error: DefinitionError| match error {
            DefinitionError::Name => Wrong::new(&self.name, "name", error),
            DefinitionError::Roots | DefinitionError::Twice => Wrong::new(&self.roots, "roots", error),
            DefinitionError::Threshold => Wrong::new(&self.threshold, "threshold", error),
        };
        let roots = Roots::new(*self.threshold.get_ref(), keys).map_err(wrong)?;
        Definition::new(self.name.get_ref(), roots).map_err(wrong)
    }

    fn sources(&self, directory: &Path) -> Result<Vec<Source>, Wrong> {
        let mut sources: Vec<Source> = Vec::new();
        for text in self.sources.get_ref() {
            let source = Source::parse(text.get_ref(), directory).map_err(|problem| Wrong::new(text, "sources", problem))?;
            if source.is_plain_http() && !self.danger_http {
                let problem = format!(
                    "{source}: whoever is on the way can hold newer lists back; use https://, or `danger_http = true` allows it"
                );
                return Err(Wrong::new(text, "sources", problem));
            }
            if sources.contains(&source) {
                return Err(Wrong::new(text, "sources", format_args!("{source} stands twice")));
            }
            sources.push(source);
        }
        if sources.len() > SOURCES {
            return Err(Wrong::new(&self.sources, "sources", format_args!("at most {SOURCES} are allowed")));
        }
        Ok(sources)
    }
}

type ParameterTable = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

/// The set that `set` names, with what else the table says.
fn params(table: &ParameterTable) -> Result<Params, Wrong> {
    let set = table.iter().find(|(name, _)| name.get_ref() == "set");
    let mut params = match set {
        None => Params::DEFAULT,
        Some((_, value)) => named_set(value)?,
    };
    for (name, value) in table.iter().filter(|(name, _)| name.get_ref() != "set") {
        let key = format!("parameters.{}", name.get_ref());
        if name.get_ref() == "name" {
            return Err(Wrong::new(name, &key, "the set is named by `set`"));
        }
        let text = parameter_text(value)
            .ok_or_else(|| Wrong::new(value, &key, "expected text as \"5 min\", a whole number or a switch"))?;
        params.set(name.get_ref(), &text).map_err(|error| Wrong::new(name, &key, error))?;
    }
    // Who writes down what holds anyway has changed nothing.
    if params.name == SetName::Default && !params.differences().is_empty() {
        params.name = SetName::Own;
    }
    params.validate().map_err(|error| {
        // A value that is wrong together with another one stands at the table's beginning, where it is not in the table itself.
        let at =
            table.keys().find(|name| name.get_ref() == error.name).or_else(|| table.keys().min_by_key(|name| name.span().start));
        let span = at.map_or(0..0, Spanned::span);
        Wrong { span, key: format!("parameters.{}", error.name), problem: format!("expected {}", error.rule) }
    })?;
    Ok(params)
}

fn named_set(value: &Spanned<toml::Value>) -> Result<Params, Wrong> {
    match value.get_ref().as_str() {
        Some("default") => Ok(Params::DEFAULT),
        Some("private") => Ok(Params::private()),
        Some("demo") => Ok(Params::demo()),
        _ => Err(Wrong::new(value, "parameters.set", "expected \"default\", \"private\" or \"demo\"")),
    }
}

/// The set that one of this name begins with.
fn set_of(name: SetName) -> Params {
    match name {
        SetName::Default | SetName::Own => Params::DEFAULT,
        SetName::Private => Params::private(),
        SetName::Demo => Params::demo(),
    }
}

/// A parameter as text: numbers and switches may stand without quotes.
fn parameter_text(value: &Spanned<toml::Value>) -> Option<String> {
    match value.get_ref() {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A point of the curve: the public key of the seed of zeros.
    const ROOT: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

    fn parse(text: &str) -> Result<NetworkFile, NetworkFileError> {
        NetworkFile::parse(text, Path::new("/etc/port17/three.network.toml"))
    }

    fn with(more: &str) -> String {
        format!("name = \"three\"\nthreshold = 1\nroots = [\"{ROOT}\"]\n{more}")
    }

    #[test]
    fn every_key_is_read_and_written_again() {
        let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert.pem();
        let text = with(&format!(
            "sources = [\"https://a.example/b.json\", \"http://b.example/\", \"list.json\", \"file:/x/l.json\", \"file:///y\"]\n\
             danger_http = true\nca_pem = \"\"\"\n{ca}\"\"\"\n[parameters]\nset = \"private\"\nhops = 4\nping_interval = \"7 s\"\n"
        ));
        let file = parse(&text).unwrap();
        let sources: Vec<String> = file.sources.iter().map(ToString::to_string).collect();
        assert_eq!(sources[0], "https://a.example/b.json");
        assert_eq!(sources[2..], ["file:/etc/port17/list.json", "file:/x/l.json", "file:/y"], "relative to the file");
        assert_eq!(file.ca_certificates().unwrap().len(), 1);
        assert_eq!(file.params.hops, 4);
        assert_eq!((file.params.name, file.params.diversity), (SetName::Private, false), "the rest is the set's");
        assert_eq!(file.file_name(), "three.network.toml");
        let elsewhere = NetworkFile::parse(&file.to_toml(), Path::new("/elsewhere/x.toml")).unwrap();
        assert_eq!(elsewhere, file, "a moved file means the same");
    }

    #[test]
    fn wrong_values_name_file_line_key_and_what_is_allowed() {
        for (text, starts, contains) in [
            (with("sources = []\nsource = 1"), ":5: source: unknown field", "`sources`"),
            (with(""), ":1: ", "missing field `sources`"),
            (with("sources = [\"ftp://a/b\"]"), ":4: sources: `ftp://a/b`", "https"),
            (with("sources = [\"https://\"]"), ":4: sources: `https://`", "expected"),
            (with("sources = [\"https://u:p@a/b\"]"), ":4: sources: ", "password"),
            (with("sources = [\"\"]"), ":4: sources: ", "characters"),
            (with("sources = [\n\"https://a/\",\n\"http://a/b\"]"), ":6: sources: http://a/b", "danger_http = true"),
            (with("sources = [\"a\", \"file:a\"]"), ":4: sources: ", "twice"),
            (with("sources = []\nca_pem = \"x\""), ":5: ca_pem: ", "BEGIN CERTIFICATE"),
            (with("sources = []\nca_pem = \"-----BEGIN CERTIFICATE-----\\n!\""), ":5: ca_pem: ", "no PEM certificate"),
            (with("sources = []\n[parameters]\nhops = 3.5"), ":6: parameters.hops: ", "whole number"),
            (with("sources = []\n[parameters]\nhops = 9"), ":6: parameters.hops: ", "to 6"),
            (with("sources = []\n[parameters]\nhopps = 4"), ":6: parameters.hopps: ", "no parameter hopps"),
            (with("sources = []\n[parameters]\nping_interval = 5"), ":6: parameters.ping_interval: ", "100 ms"),
            (with("sources = []\n[parameters]\nset = \"fast\""), ":6: parameters.set: ", "private"),
            (with("sources = []\n[parameters]\nname = \"demo\""), ":6: parameters.name: ", "`set`"),
            (with("sources = []").replace("= 1", "= 2"), ":2: threshold: ", "1 to the number of root keys"),
            (with("sources = []").replace("= 1", "= 0"), ":2: threshold: ", "1 to the number of root keys"),
            (with("sources = []").replace("three", "Three"), ":1: name: ", "a-z"),
            (with("sources = []").replace(ROOT, "x"), ":3: roots: `x`", "64 characters"),
            (with("sources = []").replace(ROOT, &"0".repeat(64)), ":3: roots: `000", "no key"),
            (with("sources = []").replace(&format!("\"{ROOT}\""), ""), ":3: roots: ", "1 to 16"),
            (with("sources = []").replace(ROOT, &format!("{ROOT}\", \"{ROOT}")), ":3: roots: ", "twice"),
            ("name = ".into(), ":1: name: ", ""),
            ("{\"payload\": \"\"}".into(), ":1: syntax: ", "signed lists"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            let rest = error.strip_prefix("/etc/port17/three.network.toml").expect("the file comes first");
            assert!(rest.starts_with(starts) && rest.contains(contains), "{text:?} gave {error}");
        }
    }

    #[test]
    fn parameters_begin_with_a_set_and_name_it() {
        let name = |more: &str| parse(&with(more)).unwrap().params.name;
        assert_eq!(name("sources = []"), SetName::Default);
        assert_eq!(name("sources = []\n[parameters]\nset = \"demo\"\nhops = 2"), SetName::Demo);
        assert_eq!(name("sources = []\n[parameters]\nhops = 5"), SetName::Own, "no longer the default");
        let own = parse(&with("sources = []\n[parameters]\nhops = 5")).unwrap();
        assert_eq!(parse(&own.to_toml()).unwrap(), own);
        assert!(!parse(&with("sources = []")).unwrap().to_toml().contains("[parameters]"));
    }

    #[test]
    fn too_many_sources_and_a_huge_file_are_refused() {
        let many: Vec<String> = (0..=SOURCES).map(|n| format!("\"https://a.example/{n}\"")).collect();
        assert!(parse(&with(&format!("sources = [{}]", many.join(",")))).unwrap_err().to_string().contains("at most 16"));
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("huge.network.toml");
        std::fs::write(&path, vec![b'#'; 300_000]).unwrap();
        assert!(NetworkFile::load(&path).unwrap_err().to_string().contains("larger than"));
        std::fs::write(&path, [0xff; 300]).unwrap();
        assert!(NetworkFile::load(&path).unwrap_err().to_string().contains("it is not text"));
    }
}
