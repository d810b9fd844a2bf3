//! The signed list of a network (spec 12, 2): who is trusted at first, and which parameters hold.
//!
//! It comes in as bytes. [`SignedList::decode`] checks that they are an envelope; [`SignedList::verify`] checks signatures, network,
//! age and content and gives a [`VerifiedList`], the only thing that an engine goes by (law 4).
//!
//! Envelope: `[3, payload bytes, [[key bytes 32, signature bytes 64]…]]`, at most 1 MiB, keys ascending; a signature is over
//! `"p17-list-v1" ‖ payload`. The payload is a map with unsigned integer keys, ascending ([`ListKey`]). Both are deterministic CBOR, as
//! Bottles are.
//!
//! | key | field | type, bounds | absent |
//! |---|---|---|---|
//! | 1 | network | bytes, 32 | never |
//! | 2 | seq | uint, from 1 | never |
//! | 3 | issued | uint, Unix s | never |
//! | 4 | expires | uint, Unix s, issued < expires <= issued + 90 d | never |
//! | 5 | random | bytes, 32 | never |
//! | 6 | nodes | array of Bottles' envelopes, no two of one node; may be empty | never |
//! | 7 | parameters | map, see [`crate::params::codec`] | never |
//! | 8 | roots | `[threshold, [key bytes 32…]]`, keys ascending; reserved | none |
//! | 9 | releases | 1..=64 of `[version text, platform text, sha256 bytes 32, url text]` | none |
//! | others | unknown | at most 16, any value nested at most 4 deep; kept and covered | |
//!
//! The parameters may name codes that this version does not know, and values that are this version's default: so what is read need
//! not re-encode to itself. The bytes that were signed are kept instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::content;
use super::{Definition, Roots};
use crate::bottle::{BottleError, BottleRules, UnverifiedBottle, VerifiedBottle};
use crate::cbor::{CborError, Reader, Writer};
use crate::crypto::{self, Signature, SigningKey, VerifyingKey};
use crate::ids::{NetworkId, NodeId};
use crate::limits::{LIST_AHEAD_S, LIST_BYTES, LIST_SIGNATURES};
use crate::params::{Params, ParamsError};
use crate::planted::planted;
use crate::wire::registry::{BottleKey, LIST_ENVELOPE, ListKey, Scope};

const SIGNATURE_TAG: &str = "p17-list-v1";
const SEED_TAG: &str = "p17-seed-v1";

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListContent {
    /// The network that it is for.
    pub network: NetworkId,
    /// Its place in the order of the network's lists, from 1. The highest wins.
    pub seq: u64,
    /// When it was made, Unix seconds.
    pub issued_s: u64,
    /// Until when it holds, Unix seconds; at most 90 days after `issued_s`.
    pub expires_s: u64,
    /// Nobody could know it before: links are drawn by it.
    pub random: [u8; 32],
    /// Envelopes of the nodes' Bottles.
    pub nodes: Vec<Vec<u8>>,
    /// The network's parameters.
    pub params: Params,
    /// Reserved for the change of root keys: read, kept, not acted upon.
    pub roots: Option<Roots>,
    /// Releases of the software.
    pub releases: Vec<Release>,
    /// Fields of a later version, encoded, by key.
    pub unknown: BTreeMap<u64, Vec<u8>>,
}

/// A release of the software.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its version, 1 to 64 printable ASCII characters.
    pub version: String,
    /// What it runs on, 1 to 64 printable ASCII characters.
    pub platform: String,
    /// Hash of the file.
    pub sha256: [u8; 32],
    /// Where the file is, 1 to 512 printable ASCII characters.
    pub url: String,
}

/// Why a list is not one to go by, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not deterministic CBOR, or not of the right shape.
    #[error("this is not a signed list, or only a part of one ({0}): fetch it again")]
    Encoding(#[from] CborError),
    /// Not a list's envelope.
    #[error("this is not a signed list: check that the file or address is the network's")]
    NotAList,
    /// More than 1 MiB, or more signatures or unknown fields than there may be.
    #[error("the list is larger than is allowed (1 MiB, 32 signatures, 16 unknown fields): it needs fewer nodes or releases")]
    TooLarge,
    /// A field is missing.
    #[error("the list lacks its field {0:?}: it has to be made again")]
    Missing(ListKey),
    /// A field has a value outside of its bounds.
    #[error("the list's field {0:?} is not valid: it has to be made again")]
    Field(ListKey),
    /// A list of a version that this software does not know.
    #[error("the list is of a newer version: update this software")]
    NewerVersion,
    /// The list belongs to another network.
    #[error("the list is for another network ({found}, not {wanted}): check the network file and where the list comes from")]
    OtherNetwork {
        /// The list's network.
        found: NetworkId,
        /// This one.
        wanted: NetworkId,
    },
    /// Too few root keys have signed.
    #[error("{valid} of the {wanted} signatures wanted are there (root keys: {roots}): the list has to be signed by more roots")]
    TooFewSignatures {
        /// Valid signatures of different root keys.
        valid: usize,
        /// The network's threshold.
        wanted: usize,
        /// The network's root keys.
        roots: usize,
    },
    /// The list's time is over.
    #[error("the list has expired {} ago: fetch a newer one, or check this machine's clock", days_and_hours(*.for_s))]
    Expired {
        /// For how long, seconds.
        for_s: u64,
    },
    /// The list was made in the future.
    #[error("the list was made {} in the future: check this machine's clock", days_and_hours(*.by_s))]
    Future {
        /// How far ahead, seconds.
        by_s: u64,
    },
    /// A Bottle in it is not valid.
    #[error("the Bottle of node {} of the list is not valid ({why}): the list has to be made again without it", index + 1)]
    Node {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        why: BottleError,
    },
    /// A node stands twice.
    #[error("node {0} stands twice in the list: the list has to be made again with one Bottle of each node")]
    TwoBottles(NodeId),
    /// There is no network file, so nobody's word counts.
    #[error("there is no network file: a signed list means nothing without one")]
    NoNetwork,
    /// Its sequence number is not the one that was announced.
    #[error("the list has another sequence number than was announced")]
    NotAsPromised,
    /// A parameter is out of range.
    #[error("the list's {0}: the list has to be made again")]
    Params(#[from] ParamsError),
}

fn days_and_hours(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

impl ListContent {
    /// The payload: what is signed.
    ///
    /// # Errors
    /// What a receiver would find wrong with it.
    pub fn encode(&self) -> Result<Vec<u8>, ListError> {
        let payload = content::encode(self);
        // Whatever is wrong with it, the receivers would find: so let them not get it.
        let read = content::decode(&payload)?;
        read.check_nodes()?;
        if read != *self {
            return Err(ListError::NotAList);
        }
        let signed = SignedList { payload, signatures: vec![(VerifyingKey([0; 32]), [0; 64]); LIST_SIGNATURES] };
        if signed.encode().len() > LIST_BYTES { Err(ListError::TooLarge) } else { Ok(signed.payload) }
    }

    /// The nodes' Bottles, in the order of their NodeIDs: signature checked, age not.
    fn check_nodes(&self) -> Result<Vec<VerifiedBottle>, ListError> {
        let rules = self.params.bottle_rules();
        let mut nodes = BTreeMap::new();
        for (index, envelope) in self.nodes.iter().enumerate() {
            let bottle = check_node(envelope, &rules).map_err(|why| ListError::Node { index, why })?;
            let node = bottle.node_id();
            if nodes.insert(node, bottle).is_some() {
                return Err(ListError::TwoBottles(node));
            }
        }
        Ok(nodes.into_values().collect())
    }
}

/// A listed Bottle is contact and trust, whatever its age: it is judged as of its own seq (spec 12, 3).
fn check_node(envelope: &[u8], rules: &BottleRules) -> Result<VerifiedBottle, BottleError> {
    let bottle = UnverifiedBottle::parse(envelope)?;
    let made_ms = bottle.claimed_seq().unix_ms();
    // Nobody uses its circuit key. Else no list could ever shorten the life of those that its nodes have now.
    let bottle = bottle.verify(made_ms, &BottleRules { circuit_key_life_ms: u64::MAX, ..*rules })?;
    if bottle.content().scope != Scope::Public {
        return Err(BottleError::Field(BottleKey::Scope));
    }
    Ok(bottle)
}

/// A payload with signatures of which nothing is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedList {
    /// What is signed.
    pub payload: Vec<u8>,
    /// Who signed, keys ascending.
    pub signatures: Vec<(VerifyingKey, Signature)>,
}

impl SignedList {
    /// A list that nobody has signed yet.
    pub fn new(payload: Vec<u8>) -> Self {
        Self { payload, signatures: Vec::new() }
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// `NotAList`, `NewerVersion`, `TooLarge` or `Encoding`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        if bytes.len() > LIST_BYTES {
            return Err(ListError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let parts = reader.array().map_err(not_a_list)?;
        let version = reader.unsigned().map_err(not_a_list)?;
        if version != u64::from(LIST_ENVELOPE) {
            return Err(ListError::NotAList);
        }
        if parts != 3 {
            return Err(ListError::NewerVersion);
        }
        let payload = reader.bytes()?.to_vec();
        let count = reader.array()?;
        if count > LIST_SIGNATURES as u64 {
            return Err(ListError::TooLarge);
        }
        let signatures = (0..count).map(|_| read_signature(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        if signatures.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(CborError::KeyOrder.into());
        }
        Ok(Self { payload, signatures })
    }

    /// The envelope. What is larger than 1 MiB nobody takes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(3);
        writer.unsigned(LIST_ENVELOPE.into());
        writer.bytes(&self.payload);
        writer.array(self.signatures.len());
        for (key, signature) in &self.signatures {
            writer.array(2);
            writer.bytes(&key.0);
            writer.bytes(signature);
        }
        writer.into_bytes()
    }

    /// Adds a root's signature, in place of an older one.
    pub fn sign(&mut self, key: &SigningKey) {
        let (public, signature) = (key.public(), key.sign(SIGNATURE_TAG, &[&self.payload]));
        match self.signatures.binary_search_by_key(&public, |(key, _)| *key) {
            Ok(at) => self.signatures[at].1 = signature,
            Err(at) => self.signatures.insert(at, (public, signature)),
        }
    }

    /// How many different root keys have validly signed.
    pub fn signers(&self, roots: &Roots) -> usize {
        // Of a key that stands twice only the first counts; `decode` lets none through.
        let signed: BTreeMap<&VerifyingKey, &Signature> = self.signatures.iter().rev().map(|(key, it)| (key, it)).collect();
        let is_valid = |key: &&VerifyingKey| {
            signed.get(key).is_some_and(|signature| key.verify(SIGNATURE_TAG, &[&self.payload], signature).is_ok())
        };
        roots.keys().iter().filter(is_valid).count()
    }

    /// What the list says, nothing proven: for a display.
    ///
    /// # Errors
    /// When the payload is not one.
    pub fn read_unverified(&self) -> Result<ListContent, ListError> {
        content::decode(&self.payload)
    }

    /// Checks everything at `now_s`, Unix seconds (spec 12, 2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(self, definition: &Definition, now_s: u64) -> Result<VerifiedList, ListError> {
        self.verify_whatever_age(definition)?.of_right_age(now_s)
    }

    /// The same for a list that was in force before: one that has expired since still says who is trusted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify_whatever_age(self, definition: &Definition) -> Result<VerifiedList, ListError> {
        let roots = definition.roots();
        let (valid, wanted) = (self.signers(roots), usize::from(roots.threshold()));
        let network = content::network(&self.payload);
        if let Ok(found) = network
            && found != definition.id()
        {
            return Err(ListError::OtherNetwork { found, wanted: definition.id() });
        }
        if valid + usize::from(planted("list-one-signature-short")) < wanted {
            return Err(ListError::TooFewSignatures { valid, wanted, roots: roots.keys().len() });
        }
        network?;
        let content = self.read_unverified()?;
        let nodes = content.check_nodes()?;
        let seed = crypto::hash(SEED_TAG, &[&self.payload]);
        let signers = u8::try_from(valid).unwrap_or(u8::MAX);
        let envelope = self.encode();
        Ok(VerifiedList(Arc::new(List { content, nodes, seed, signers, signed: self, envelope })))
    }
}

fn not_a_list(_: CborError) -> ListError {
    ListError::NotAList
}

fn read_signature(reader: &mut Reader<'_>) -> Result<(VerifyingKey, Signature), ListError> {
    if reader.array()? != 2 {
        return Err(ListError::NotAList);
    }
    let key = reader.bytes()?.try_into().map_err(|_| ListError::NotAList)?;
    let signature = reader.bytes()?.try_into().map_err(|_| ListError::NotAList)?;
    Ok((VerifyingKey(key), signature))
}

/// A list that enough roots of its network have signed. It cannot be made in another way (law 4). Its clones are the same one.
#[derive(Debug, Clone)]
pub struct VerifiedList(Arc<List>);

#[derive(Debug)]
struct List {
    content: ListContent,
    nodes: Vec<VerifiedBottle>,
    seed: [u8; 32],
    signers: u8,
    signed: SignedList,
    envelope: Vec<u8>,
}

impl VerifiedList {
    /// The list, if its time has come and is not over at `now_s`, Unix seconds.
    ///
    /// # Errors
    /// When it is too early or too late.
    pub fn of_right_age(self, now_s: u64) -> Result<Self, ListError> {
        let (issued_s, expires_s) = (self.issued_s(), self.expires_s());
        if issued_s > now_s.saturating_add(LIST_AHEAD_S) {
            return Err(ListError::Future { by_s: issued_s - now_s });
        }
        if self.has_expired(now_s) {
            return Err(ListError::Expired { for_s: now_s - expires_s });
        }
        Ok(self)
    }

    /// What it says.
    pub fn content(&self) -> &ListContent {
        &self.0.content
    }

    /// The Bottles in it, in the order of their NodeIDs. Each is contact and trust only, whatever its age; never a hop.
    pub fn nodes(&self) -> &[VerifiedBottle] {
        &self.0.nodes
    }

    /// The listed Bottle of a node.
    pub fn node(&self, node: &NodeId) -> Option<&VerifiedBottle> {
        let at = self.0.nodes.binary_search_by_key(node, VerifiedBottle::node_id).ok()?;
        self.0.nodes.get(at)
    }

    /// Its place in the order of the network's lists.
    pub fn seq(&self) -> u64 {
        self.0.content.seq
    }

    /// When it was made, Unix seconds.
    pub fn issued_s(&self) -> u64 {
        self.0.content.issued_s
    }

    /// Until when it holds, Unix seconds.
    pub fn expires_s(&self) -> u64 {
        self.0.content.expires_s
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now_s: u64) -> bool {
        self.0.content.expires_s <= now_s
    }

    /// Whether it should have been replaced long ago.
    pub fn is_old(&self, now_s: u64) -> bool {
        now_s.saturating_sub(self.0.content.issued_s) > self.0.content.params.list_warn_age.as_secs()
    }

    /// What links are drawn by: H("p17-seed-v1", payload).
    pub fn seed(&self) -> [u8; 32] {
        self.0.seed
    }

    /// The network's parameters.
    pub fn params(&self) -> &Params {
        &self.0.content.params
    }

    /// How many root keys have signed it.
    pub fn signers(&self) -> u8 {
        self.0.signers
    }

    /// The bytes to pass on.
    pub fn envelope(&self) -> &[u8] {
        &self.0.envelope
    }

    /// What was signed, and by whom.
    pub fn signed(&self) -> &SignedList {
        &self.0.signed
    }
}
