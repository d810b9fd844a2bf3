//! What must survive a restart: the identity key, the link key and the last sequence number, as small text files.
//!
//! A key file is 0600 in a directory of mode 0700, both owned by the user who runs the daemon; anything else is refused, since a
//! key that others could read is no secret any more. Files are written beside their place, synced and renamed, so that a crash
//! leaves the old or the new one. A damaged file is named and refused, never replaced: only its owner knows whether a backup exists.
//! Circuit keys are never here: they live in memory alone (spec 02).

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use port17_proto::crypto::{Entropy, Secret, SigningKey, VerifyingKey};
use port17_proto::identity::{Identity, LinkKey};
use zeroize::Zeroizing;

/// How long a link key is used at most (spec 03, 3).
const LINK_KEY_LIFETIME_S: u64 = 90 * 24 * 3600;
/// A link key that ends sooner than this is replaced at start, so that no Bottle is published with a key that is about to end.
const LINK_KEY_SPARE_S: u64 = 7 * 24 * 3600;
/// The files of this module are far smaller; a larger one is damaged.
const FILE_BYTES: u64 = 1024;

const IDENTITY_FILE: &str = "identity.key";
const IDENTITY_HEADER: &str = "port17 identity key 1";
const LINK_FILE: &str = "link.key";
const LINK_HEADER: &str = "port17 link key 1";
const ROOT_HEADER: &str = "port17 root key 1";
const SEQ_FILE: &str = "seq";
const SEQ_HEADER: &str = "port17 seq 1";
const LOCK_FILE: &str = "lock";

/// Why keys or state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The system refused an operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others could read it.
    #[error("{}: mode {mode:03o} lets other users in; `chmod {wanted:03o} {}` closes it (if others may have read a key, make a new identity)", path.display(), path.display())]
    Open {
        /// File or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// Another user owns it.
    #[error("{}: belongs to user id {owner}, but this process runs as user id {user}", path.display())]
    Owner {
        /// File or directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// The content is not what was written.
    #[error("{}: damaged ({problem}); restore it from a backup, or move it away to start with a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another daemon uses the state directory.
    #[error("{}: another port17 daemon uses this state directory; stop it, or name another one by `state = …`", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A stream of randomness seeded from the system.
///
/// # Errors
/// When the system has none.
pub fn system_entropy() -> io::Result<Entropy> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut()).map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(Entropy::from_seed(*seed))
}

/// The lock on a state directory: one daemon at a time. It ends when this is dropped or the process dies.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the directory if it is missing, checks it and locks it.
    ///
    /// # Errors
    /// When another daemon has it, or it is not private to this user.
    pub fn acquire(state: &Path) -> Result<Self, KeystoreError> {
        make_private_directory(state)?;
        let path = state.join(LOCK_FILE);
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(failed(&path, "be opened"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(KeystoreError::InUse { path: state.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(&path, "be locked")(source)),
        }
    }
}

/// The directory of the key files.
#[derive(Debug)]
pub struct Keystore {
    dir: PathBuf,
}

impl Keystore {
    /// Uses `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or is not private to this user.
    pub fn create(dir: &Path) -> Result<Self, KeystoreError> {
        make_private_directory(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Uses `dir` as it is; none where there is none.
    ///
    /// # Errors
    /// When it is not private to this user.
    pub fn existing(dir: &Path) -> Result<Option<Self>, KeystoreError> {
        match fs::metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(dir, "be read")(error)),
            Ok(metadata) => {
                check_private(dir, &metadata, 0o700)?;
                Ok(Some(Self { dir: dir.to_owned() }))
            }
        }
    }

    /// Where the identity key is.
    pub fn identity_path(&self) -> PathBuf {
        self.dir.join(IDENTITY_FILE)
    }

    /// The identity key, none where there is none yet.
    ///
    /// # Errors
    /// When the file is damaged or not private.
    pub fn identity(&self) -> Result<Option<Identity>, KeystoreError> {
        let path = self.identity_path();
        let Some(text) = read_private(&path)? else { return Ok(None) };
        parse_key(&path, &text, IDENTITY_HEADER).map(|(seed, _)| Some(Identity::from_seed(seed)))
    }

    /// The identity key, made at first use.
    ///
    /// # Errors
    /// When the file is damaged or not private, or a new one cannot be written.
    pub fn identity_or_new(&self, entropy: &mut Entropy) -> Result<Identity, KeystoreError> {
        // Two processes that start at once must agree on one identity.
        let _lock = self.lock()?;
        if let Some(identity) = self.identity()? {
            return Ok(identity);
        }
        let identity = Identity::generate(entropy);
        write_private(&self.identity_path(), key_text(IDENTITY_HEADER, identity.key(), None).as_bytes())?;
        Ok(identity)
    }

    /// The link key, made at first use and anew when the old one ends within a week of `now_s` (Unix seconds).
    ///
    /// # Errors
    /// When the file is damaged or not private, or a new one cannot be written.
    pub fn link_key_or_new(&self, entropy: &mut Entropy, now_s: u64) -> Result<LinkKey, KeystoreError> {
        let _lock = self.lock()?;
        if let Some(key) = self.link_key()?.filter(|key| key.expiry_s() > now_s.saturating_add(LINK_KEY_SPARE_S)) {
            return Ok(key);
        }
        let key = LinkKey::generate(now_s.saturating_add(LINK_KEY_LIFETIME_S), entropy);
        let text = key_text(LINK_HEADER, key.key(), Some(key.expiry_s()));
        write_private(&self.dir.join(LINK_FILE), text.as_bytes())?;
        Ok(key)
    }

    /// The link key, none where there is none yet.
    ///
    /// # Errors
    /// When the file is damaged or not private.
    pub fn link_key(&self) -> Result<Option<LinkKey>, KeystoreError> {
        let path = self.dir.join(LINK_FILE);
        let Some(text) = read_private(&path)? else { return Ok(None) };
        let (seed, expiry_s) = parse_key(&path, &text, LINK_HEADER)?;
        let expiry_s = expiry_s.ok_or(KeystoreError::Damaged { path, problem: "no line `expiry`" })?;
        Ok(Some(LinkKey::from_seed(seed, expiry_s)))
    }

    fn lock(&self) -> Result<File, KeystoreError> {
        let directory = File::open(&self.dir).map_err(failed(&self.dir, "be opened"))?;
        directory.lock().map_err(failed(&self.dir, "be locked"))?;
        Ok(directory)
    }
}

/// The last sequence number that may have been published: it must be on the disk before the Bottle leaves (spec 04, 2).
#[derive(Debug, Clone)]
pub struct SeqFile {
    path: PathBuf,
}

impl SeqFile {
    /// The file in a state directory.
    pub fn new(state: &Path) -> Self {
        Self { path: state.join(SEQ_FILE) }
    }

    /// The stored number, none before the first.
    ///
    /// # Errors
    /// When the file is damaged or not private.
    pub fn load(&self) -> Result<Option<u64>, KeystoreError> {
        let Some(text) = read_private(&self.path)? else { return Ok(None) };
        let mut lines = text.lines();
        let damaged = |problem| KeystoreError::Damaged { path: self.path.clone(), problem };
        if lines.next() != Some(SEQ_HEADER) {
            return Err(damaged("the first line is not `port17 seq 1`"));
        }
        let seq = lines.next().and_then(number).ok_or_else(|| damaged("the second line is not a number"))?;
        if lines.next().is_some() {
            return Err(damaged("more lines than two"));
        }
        Ok(Some(seq))
    }

    /// Stores a number; it is on the disk when this returns. Blocks for the length of two `fsync`.
    ///
    /// # Errors
    /// When it cannot be written; the old number stays.
    pub fn store(&self, seq: u64) -> Result<(), KeystoreError> {
        write_private(&self.path, format!("{SEQ_HEADER}\n{seq}\n").as_bytes())
    }
}

/// Writes a network's root key to a place where nothing is yet.
///
/// # Errors
/// When there is a file already, or it cannot be written.
pub fn write_root_key(path: &Path, key: &SigningKey) -> Result<(), KeystoreError> {
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = open.map_err(failed(path, "be made"))?;
    let text = key_text(ROOT_HEADER, key, None);
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(path, "be written"))
}

/// A network's root key.
///
/// # Errors
/// When there is none, or the file is damaged or not private.
pub fn read_root_key(path: &Path) -> Result<SigningKey, KeystoreError> {
    let missing = || failed(path, "be opened")(io::ErrorKind::NotFound.into());
    let text = read_private(path)?.ok_or_else(missing)?;
    parse_key(path, &text, ROOT_HEADER).map(|(seed, _)| SigningKey::from_seed(seed))
}

/// Makes a directory of mode 0700, with those above it that are missing, or checks the one that exists.
///
/// # Errors
/// When it cannot be made, or others may enter it.
pub fn make_private_directory(path: &Path) -> Result<(), KeystoreError> {
    // Of a directory that exists, neither the mode nor anything else is changed.
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path, "be made"))?;
    let metadata = fs::metadata(path).map_err(failed(path, "be read"))?;
    if !metadata.is_dir() {
        return Err(failed(path, "be used")(io::ErrorKind::NotADirectory.into()));
    }
    check_private(path, &metadata, 0o700)
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KeystoreError {
    let path = path.to_owned();
    move |source| KeystoreError::Io { path, action, source }
}

fn check_private(path: &Path, metadata: &Metadata, wanted: u32) -> Result<(), KeystoreError> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(KeystoreError::Owner { path: path.to_owned(), owner, user });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeystoreError::Open { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Reads a private file; none where there is none.
fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, KeystoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "be opened")(error)),
    };
    // Of the opened file, not of the path: the two could differ a moment later.
    let metadata = file.metadata().map_err(failed(path, "be read"))?;
    check_private(path, &metadata, 0o600)?;
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES as usize + 1));
    match file.take(FILE_BYTES + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= FILE_BYTES => Ok(Some(text)),
        Ok(_) => Err(KeystoreError::Damaged { path: path.to_owned(), problem: "too long" }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KeystoreError::Damaged { path: path.to_owned(), problem: "not text" })
        }
        Err(error) => Err(failed(path, "be read")(error)),
    }
}

/// Writes beside, syncs, renames, syncs the directory.
fn write_private(path: &Path, content: &[u8]) -> Result<(), KeystoreError> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&beside, "be removed")(error)),
        _ => {}
    }
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
    let mut file = open.map_err(failed(&beside, "be made"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed(&beside, "be written"))?;
    fs::rename(&beside, path).map_err(failed(path, "be replaced"))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory, "be synced"))
}

/// Header, seed, public key, and the end where there is one. The public key is there so that a damaged seed is noticed: it would
/// silently be another node.
fn key_text(header: &str, key: &SigningKey, expiry_s: Option<u64>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES as usize));
    text.push_str(header);
    text.push_str("\nseed ");
    push_hex(&mut text, key.seed().expose());
    text.push_str("\npublic ");
    push_hex(&mut text, &key.public().0);
    text.push('\n');
    if let Some(expiry_s) = expiry_s {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "expiry {expiry_s}");
    }
    text
}

fn parse_key(path: &Path, text: &str, header: &str) -> Result<(Secret<32>, Option<u64>), KeystoreError> {
    let damaged = |problem| KeystoreError::Damaged { path: path.to_owned(), problem };
    let mut lines = text.lines();
    if lines.next() != Some(header) {
        return Err(damaged("its first line is not that of such a key"));
    }
    let field = |line: Option<&str>, name: &str| line.and_then(|line| line.strip_prefix(name)).and_then(unhex);
    let seed = field(lines.next(), "seed ").ok_or_else(|| damaged("no line `seed` with 64 hexadecimal digits"))?;
    let public = field(lines.next(), "public ").ok_or_else(|| damaged("no line `public` with 64 hexadecimal digits"))?;
    let expiry = match lines.next() {
        None => None,
        Some(line) => Some(line.strip_prefix("expiry ").and_then(number).ok_or_else(|| damaged("a line that is unknown"))?),
    };
    if lines.next().is_some() {
        return Err(damaged("more lines than expected"));
    }
    if SigningKey::from_seed(Secret::new(*seed)).public() != VerifyingKey(*public) {
        return Err(damaged("seed and public key do not fit together"));
    }
    Ok((Secret::new(*seed), expiry))
}

/// A decimal number as it is written here: no sign, no spaces.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn push_hex(text: &mut String, bytes: &[u8; 32]) {
    for byte in bytes {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| HEX.iter().position(|known| *known == digit).and_then(|value| u8::try_from(value).ok());
    let mut out = Zeroizing::new([0; 32]);
    for (at, pair) in digits.chunks_exact(2).enumerate() {
        out[at] = (value(pair[0])? << 4) | value(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("keys");
        (root, dir)
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn identity_error(store: &Keystore) -> String {
        store.identity().err().expect("an error").to_string()
    }

    #[test]
    fn keys_are_made_once_and_stay() {
        let (_root, dir) = directory();
        assert!(Keystore::existing(&dir).unwrap().is_none());
        let store = Keystore::create(&dir).unwrap();
        assert!(store.identity().unwrap().is_none());

        let made = store.identity_or_new(&mut Entropy::from_number(1)).unwrap().public();
        assert_eq!(store.identity_or_new(&mut Entropy::from_number(2)).unwrap().public(), made);
        assert_eq!(Keystore::existing(&dir).unwrap().unwrap().identity().unwrap().unwrap().public(), made);
    }

    #[test]
    fn key_files_are_0600_in_a_0700_directory() {
        let (_root, dir) = directory();
        let store = Keystore::create(&dir).unwrap();
        store.identity_or_new(&mut Entropy::from_number(1)).unwrap();
        store.link_key_or_new(&mut Entropy::from_number(1), 0).unwrap();
        assert_eq!(mode_of(&dir), 0o700);
        assert_eq!(mode_of(&store.identity_path()), 0o600);
        assert_eq!(mode_of(&dir.join(LINK_FILE)), 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let (_root, dir) = directory();
        let store = Keystore::create(&dir).unwrap();
        store.identity_or_new(&mut Entropy::from_number(1)).unwrap();

        set_mode(&store.identity_path(), 0o640);
        assert!(identity_error(&store).contains("chmod 600"));
        set_mode(&store.identity_path(), 0o600);
        assert!(store.identity().is_ok());

        set_mode(&dir, 0o755);
        assert!(Keystore::create(&dir).unwrap_err().to_string().contains("chmod 700"));
        assert!(Keystore::existing(&dir).is_err());
    }

    #[test]
    fn keys_of_another_owner_are_refused() {
        // Only root can give files away; for others there is nothing to test here.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_root, dir) = directory();
        let store = Keystore::create(&dir).unwrap();
        store.identity_or_new(&mut Entropy::from_number(1)).unwrap();
        std::os::unix::fs::chown(store.identity_path(), Some(12345), None).unwrap();
        assert!(identity_error(&store).contains("belongs to user id 12345"));
    }

    #[test]
    fn damaged_keys_are_named_refused_and_never_replaced() {
        let (_root, dir) = directory();
        let store = Keystore::create(&dir).unwrap();
        store.identity_or_new(&mut Entropy::from_number(1)).unwrap();
        let good = fs::read_to_string(store.identity_path()).unwrap();
        let flipped = {
            let at = good.find("seed ").unwrap() + 5;
            let other = if &good[at..=at] == "0" { "1" } else { "0" };
            format!("{}{other}{}", &good[..at], &good[at + 1..])
        };
        let mut damaged: Vec<String> = (0..good.len() - 1).map(|cut| good[..cut].to_owned()).collect();
        damaged.extend([flipped, format!("{good}more\n"), good.to_uppercase(), "x".repeat(5000), "\0".repeat(100)]);

        for text in damaged {
            fs::write(store.identity_path(), &text).unwrap();
            let error = store.identity_or_new(&mut Entropy::from_number(2)).err().expect("refused").to_string();
            assert!(error.contains("identity.key: damaged"), "{error}");
            assert_eq!(fs::read_to_string(store.identity_path()).unwrap(), text);
        }
    }

    #[test]
    fn link_key_is_renewed_before_its_end() {
        let (_root, dir) = directory();
        let store = Keystore::create(&dir).unwrap();
        let mut entropy = Entropy::from_number(1);
        let first = store.link_key_or_new(&mut entropy, 1000).unwrap();
        assert_eq!(first.expiry_s(), 1000 + LINK_KEY_LIFETIME_S);

        let before = store.link_key_or_new(&mut entropy, first.expiry_s() - LINK_KEY_SPARE_S - 1).unwrap();
        assert_eq!(before.public(), first.public());
        let after = store.link_key_or_new(&mut entropy, first.expiry_s() - LINK_KEY_SPARE_S).unwrap();
        assert_ne!(after.public(), first.public());
        assert_eq!(store.link_key().unwrap().unwrap().public(), after.public());
    }

    #[test]
    fn an_identity_key_is_no_link_key() {
        let (_root, dir) = directory();
        let store = Keystore::create(&dir).unwrap();
        store.identity_or_new(&mut Entropy::from_number(1)).unwrap();
        fs::copy(store.identity_path(), dir.join(LINK_FILE)).unwrap();
        assert!(matches!(store.link_key(), Err(KeystoreError::Damaged { .. })));
    }

    #[test]
    fn a_root_key_is_private_and_never_overwritten() {
        let (_root, dir) = directory();
        make_private_directory(&dir).unwrap();
        let path = dir.join("root-1.key");
        assert!(matches!(read_root_key(&path), Err(KeystoreError::Io { .. })));
        let key = SigningKey::from_seed(Secret::new([3; 32]));
        write_root_key(&path, &key).unwrap();
        assert_eq!(read_root_key(&path).unwrap().public(), key.public());
        assert_eq!(mode_of(&path), 0o600);
        assert!(write_root_key(&path, &SigningKey::from_seed(Secret::new([4; 32]))).is_err());
        assert_eq!(read_root_key(&path).unwrap().public(), key.public());
        fs::write(&path, "port17 identity key 1\n").unwrap();
        assert!(matches!(read_root_key(&path), Err(KeystoreError::Damaged { .. })));
    }

    #[test]
    fn state_directory_serves_one_daemon() {
        let (_root, dir) = directory();
        let first = StateLock::acquire(&dir).unwrap();
        assert!(matches!(StateLock::acquire(&dir), Err(KeystoreError::InUse { .. })));
        drop(first);
        assert!(StateLock::acquire(&dir).is_ok());
    }

    #[test]
    fn seq_is_stored_and_a_damaged_one_refused() {
        let (_root, dir) = directory();
        make_private_directory(&dir).unwrap();
        let file = SeqFile::new(&dir);
        assert_eq!(file.load().unwrap(), None);
        for seq in [1, u64::MAX] {
            file.store(seq).unwrap();
            assert_eq!(file.load().unwrap(), Some(seq));
        }
        for text in
            ["", "port17 seq 1\n", "port17 seq 1\n-1\n", "port17 seq 1\n+1\n", "port17 seq 1\n99999999999999999999\n", "7\n"]
        {
            fs::write(dir.join(SEQ_FILE), text).unwrap();
            assert!(matches!(file.load(), Err(KeystoreError::Damaged { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_crash_between_write_and_rename_does_not_block() {
        let (_root, dir) = directory();
        make_private_directory(&dir).unwrap();
        fs::write(dir.join("seq.new"), "half").unwrap();
        SeqFile::new(&dir).store(5).unwrap();
        assert_eq!(SeqFile::new(&dir).load().unwrap(), Some(5));
    }
}
