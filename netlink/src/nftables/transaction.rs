//! Transactions: changes of the rule set that the kernel makes all at once, or, if one of them is refused, not at all.
//!
//! Owns: the order of commands, the brackets around them, the outcome. Must not know: what the rules are.

use faaster_limits::NETLINK_TRANSACTION_BYTES_MAX;

use super::set::ELEMENTS_PER_MESSAGE;
use super::{Chain, Element, ElementError, Rule, Set, Table};
use crate::attribute::Writer;
use crate::connection::{Connection, Finished};
use crate::error::{KernelError, NetlinkError};
use crate::netfilter::{self, Subsystem};
use crate::request::{Protocol, Request};
use crate::wire::{FLAG_ACK, FLAG_APPEND, FLAG_CREATE, FLAG_EXCLUSIVE, FLAG_REQUEST};

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u8 = 0;
const NFT_MSG_DELTABLE: u8 = 2;
const NFT_MSG_NEWCHAIN: u8 = 3;
const NFT_MSG_NEWRULE: u8 = 6;
const NFT_MSG_DELRULE: u8 = 8;
const NFT_MSG_NEWSET: u8 = 9;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_DELSETELEM: u8 = 14;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;

/// Why a transaction was not made. The rule set is as it was, unless the answer is missing.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The kernel refused a command.
    #[error("nothing was changed: of {commands} commands, number {number} failed")]
    Refused {
        /// Which, beginning at 1.
        number: usize,
        /// Of so many.
        commands: usize,
        /// Why.
        source: KernelError,
    },
    /// The kernel refused all of it.
    #[error("nothing was changed: the {commands} commands failed together")]
    RefusedWhole {
        /// So many commands.
        commands: usize,
        /// Why.
        source: KernelError,
    },
    /// No answer came; the change may have been made.
    #[error("the outcome is not known")]
    Exchange(#[source] NetlinkError),
}

/// Changes that are to be made together.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    commands: Vec<Request<'static>>,
    sets: u32,
}

impl Transaction {
    /// A transaction that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a table; it may be there already.
    pub fn add_table(&mut self, table: &Table) {
        let mut writer = netfilter::body(table.family.number(), 0);
        writer.text(NFTA_TABLE_NAME, table.name.as_str()).be32(NFTA_TABLE_FLAGS, 0);
        self.push(NFT_MSG_NEWTABLE, FLAG_CREATE, "add a table", writer);
    }

    /// Removes a table and all that is in it; it must be there.
    pub fn delete_table(&mut self, table: &Table) {
        let mut writer = netfilter::body(table.family.number(), 0);
        writer.text(NFTA_TABLE_NAME, table.name.as_str());
        self.push(NFT_MSG_DELTABLE, 0, "remove a table", writer);
    }

    /// Removes a table, if it is there.
    pub fn remove_table(&mut self, table: &Table) {
        // The command that does both at once is from Linux 6.3.
        self.add_table(table);
        self.delete_table(table);
    }

    /// Makes a table that is empty, whatever was in it.
    pub fn replace_table(&mut self, table: &Table) {
        self.remove_table(table);
        self.add_table(table);
    }

    /// Makes a chain; it may be there already.
    pub fn add_chain(&mut self, chain: &Chain) {
        let mut writer = netfilter::body(chain.family.number(), 0);
        chain.write(&mut writer);
        self.push(NFT_MSG_NEWCHAIN, FLAG_CREATE, "add a chain", writer);
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &Chain) {
        let mut writer = netfilter::body(chain.family.number(), 0);
        writer.text(NFTA_RULE_TABLE, &chain.table).text(NFTA_RULE_CHAIN, &chain.name);
        self.push(NFT_MSG_DELRULE, 0, "remove the rules of a chain", writer);
    }

    /// Adds a rule behind those of its chain.
    pub fn add_rule(&mut self, chain: &Chain, rule: &Rule) {
        let mut writer = netfilter::body(chain.family.number(), 0);
        let (expressions, notes) = rule.parts();
        writer.text(NFTA_RULE_TABLE, &chain.table).text(NFTA_RULE_CHAIN, &chain.name);
        writer.nested(NFTA_RULE_EXPRESSIONS, |list| {
            list.fixed(expressions);
        });
        if let Some(notes) = notes {
            writer.attribute(NFTA_RULE_USERDATA, &notes);
        }
        self.push(NFT_MSG_NEWRULE, FLAG_CREATE | FLAG_APPEND, "add a rule", writer);
    }

    /// Makes a set or a map; it may be there already, if it is of the same kind.
    pub fn add_set(&mut self, set: &Set) {
        self.sets += 1;
        let mut writer = netfilter::body(set.family().number(), 0);
        set.write(self.sets, &mut writer);
        self.push(NFT_MSG_NEWSET, FLAG_CREATE, "add a set", writer);
    }

    /// Puts elements into a set or a map. An element that is there already is refused.
    ///
    /// # Errors
    /// [`ElementError`] if one does not fit; the transaction is then as it was.
    pub fn add_elements(&mut self, set: &Set, elements: &[Element]) -> Result<(), ElementError> {
        self.elements(
            NFT_MSG_NEWSETELEM,
            FLAG_CREATE | FLAG_EXCLUSIVE,
            "add elements to a set",
            set,
            elements,
        )
    }

    /// Takes elements out of a set or a map. An element that is not there is refused.
    ///
    /// # Errors
    /// [`ElementError`] if one does not fit; the transaction is then as it was.
    pub fn delete_elements(&mut self, set: &Set, elements: &[Element]) -> Result<(), ElementError> {
        self.elements(NFT_MSG_DELSETELEM, 0, "remove elements from a set", set, elements)
    }

    fn elements(
        &mut self,
        message: u8,
        flags: u16,
        what: &'static str,
        set: &Set,
        elements: &[Element],
    ) -> Result<(), ElementError> {
        let before = self.commands.len();
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut writer = netfilter::body(set.family().number(), 0);
            if let Err(error) = set.write_elements(some, &mut writer) {
                self.commands.truncate(before);
                return Err(error);
            }
            self.push(message, flags, what, writer);
        }
        Ok(())
    }

    fn push(&mut self, message: u8, flags: u16, what: &'static str, body: Writer) {
        let kind = netfilter::kind(Subsystem::Nftables, message);
        self.commands.push(Request::new(Protocol::Netfilter, kind, flags, what, body));
    }
}

/// What stands around the commands.
fn bracket(kind: u16) -> Request<'static> {
    Request::new(
        Protocol::Netfilter,
        kind,
        0,
        "change the rule set",
        netfilter::body(0, Subsystem::Nftables as u8),
    )
}

impl Connection {
    /// Makes all changes of a transaction, or none.
    ///
    /// # Errors
    /// [`CommitError`] says which command the kernel refused, or that its answer is missing.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<(), CommitError> {
        let commands = transaction.commands.len();
        if commands == 0 {
            return Ok(());
        }
        let (begin, end) = (bracket(NFNL_MSG_BATCH_BEGIN), bracket(NFNL_MSG_BATCH_END));
        let mut messages = vec![(FLAG_REQUEST, &begin)];
        messages.extend(transaction.commands.iter().map(|command| (FLAG_REQUEST | command.flags, command)));
        // The kernel tells every refusal unasked, after it has looked at all commands; an answer to the last one in any
        // case says that all was told. (It acknowledges the closing bracket itself only from Linux 6.10.)
        messages[commands].0 |= FLAG_ACK;
        messages.push((FLAG_REQUEST, &end));
        let bytes = messages.iter().map(|(_, request)| request.message_bytes()).sum();
        if bytes > NETLINK_TRANSACTION_BYTES_MAX {
            let (what, max) = (begin.what(), NETLINK_TRANSACTION_BYTES_MAX);
            return Err(CommitError::Exchange(NetlinkError::RequestTooLarge { what, bytes, max }));
        }
        let mut refused = None;
        self.transact(&messages, |index, answer| {
            if let Err(error) = answer
                && refused.is_none()
            {
                refused = Some((index, error));
            }
            // A refusal of the whole is told as one of the opening bracket.
            if index == 0 || index == commands { Finished::Yes } else { Finished::No }
        })
        .map_err(CommitError::Exchange)?;
        match refused {
            None => Ok(()),
            Some((0, source)) => Err(CommitError::RefusedWhole { commands, source }),
            Some((number, source)) => Err(CommitError::Refused { number, commands, source }),
        }
    }
}
