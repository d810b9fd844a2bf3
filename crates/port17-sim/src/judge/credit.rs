//! Credit as it is seen on the wire: no cell goes out that was not permitted, whatever the two ends believe.

use std::collections::BTreeMap;

use port17_proto::ids::CircuitId;
use port17_proto::lane::frame::{FrameBuf, Header, pairs};
use port17_proto::limits::{FIRST_WINDOW_CELLS, MAX_WINDOW_CELLS};
use port17_proto::wire::registry::{Command, HEADER_BYTES};

/// What one end of a lane may send, by what has reached it.
#[derive(Default)]
pub(crate) struct CreditView {
    circuits: BTreeMap<CircuitId, Account>,
}

struct Account {
    sent: u64,
    permitted: u64,
    asked: Option<u64>,
    /// A DESTROY has left.
    is_ended: bool,
}

impl Account {
    const fn new() -> Self {
        Self { sent: 0, permitted: FIRST_WINDOW_CELLS, asked: None, is_ended: false }
    }
}

impl CreditView {
    /// A frame leaves this end. Gives what is wrong with it.
    pub(crate) fn sent(&mut self, frame: &FrameBuf) -> Option<String> {
        let header = Header::decode(frame.bytes()).ok()?;
        let circuit = header.circuit;
        match header.command {
            Command::Setup if header.part == 0 => {
                self.circuits.insert(circuit, Account::new());
                None
            }
            Command::Cell => {
                let account = self.circuits.entry(circuit).or_insert_with(Account::new);
                account.sent += 1;
                if account.is_ended {
                    return Some(format!("a cell of circuit {} behind its DESTROY", circuit.0));
                }
                let (sent, permitted) = (account.sent, account.permitted);
                (sent > permitted).then(|| format!("cell {sent} of circuit {} where {permitted} are permitted", circuit.0))
            }
            Command::Destroy => {
                let account = self.circuits.entry(circuit).or_insert_with(Account::new);
                std::mem::replace(&mut account.is_ended, true).then(|| format!("a second DESTROY of circuit {}", circuit.0))
            }
            Command::Limit => self.limits(frame),
            Command::Setup | Command::Created | Command::Credit | Command::Reclaim | Command::Control | Command::Padding => None,
        }
    }

    /// Cells that may still be sent, over all circuits that have not ended.
    pub(crate) fn permitted(&self) -> u64 {
        let open = self.circuits.values().filter(|account| !account.is_ended);
        open.map(|account| account.permitted.saturating_sub(account.sent)).sum()
    }

    /// Circuits whose DESTROY has not left.
    pub(crate) fn open(&self) -> Vec<CircuitId> {
        self.circuits.iter().filter(|(_, account)| !account.is_ended).map(|(circuit, _)| *circuit).collect()
    }

    fn limits(&mut self, frame: &FrameBuf) -> Option<String> {
        let mut wrong = None;
        for (circuit, limit) in pairs(&frame.bytes()[HEADER_BYTES..]).ok()? {
            let Some(account) = self.circuits.get_mut(&circuit) else { continue };
            let least = account.asked.take().unwrap_or(0).min(account.permitted).max(account.sent);
            if limit != least && limit < account.sent {
                wrong = Some(format!("LIMIT {limit} of circuit {} where {} were sent", circuit.0, account.sent));
            }
            account.permitted = account.permitted.min(limit).max(account.sent);
        }
        wrong
    }

    /// A frame reaches this end. Gives what is wrong with it.
    pub(crate) fn came(&mut self, frame: &FrameBuf) -> Option<String> {
        let header = Header::decode(frame.bytes()).ok()?;
        let body = &frame.bytes()[HEADER_BYTES..];
        let mut wrong = None;
        match header.command {
            Command::Credit => {
                for (circuit, permitted) in pairs(body).ok()? {
                    let Some(account) = self.circuits.get_mut(&circuit) else { continue };
                    account.permitted = account.permitted.max(permitted);
                    if account.permitted > account.sent + MAX_WINDOW_CELLS {
                        wrong = Some(format!(
                            "CREDIT up to {permitted} of circuit {} where {} were sent: more than the largest window",
                            circuit.0, account.sent
                        ));
                    }
                }
            }
            Command::Reclaim => {
                for (circuit, to) in pairs(body).ok()? {
                    if let Some(account) = self.circuits.get_mut(&circuit) {
                        account.asked = Some(to);
                    }
                }
            }
            Command::Setup if header.part == 0 => {
                self.circuits.insert(header.circuit, Account::new());
            }
            Command::Setup
            | Command::Created
            | Command::Cell
            | Command::Limit
            | Command::Destroy
            | Command::Control
            | Command::Padding => {}
        }
        wrong
    }
}
