//! Resetting a guest, so that copies of it can be made: what `vmcraft sysprep` does.
//!
//! The operations have virt-sysprep's names, and the same of them are done unless others are asked for.

mod operations;

use std::collections::BTreeSet;

use bstr::ByteSlice;

use self::operations::Action;
pub use self::operations::{OPERATIONS, SysprepOperation};
use super::system::System;
use super::{Customization, Operation, Options, Said, Say, identity};
use crate::{Error, Guest, GuestPath, Result};

/// What is reset, and how.
#[derive(Debug, Clone, Default)]
pub struct Sysprep {
    /// The names of the operations; `None` is those of [`OPERATIONS`] that are done by default.
    pub operations: Option<BTreeSet<String>>,
    /// What else is changed: the options of the operation `customize`.
    pub customize: Vec<Operation>,
    /// The users that `user-account` removes; empty is all.
    pub remove_users: Vec<String>,
    /// The users that `user-account` keeps.
    pub keep_users: Vec<String>,
}

/// Changes a set of operations by a list as virt-sysprep's `--operations` takes it: names with commas between
/// them, `defaults` and `all`, and each of them with a `-` before it to be left out.
pub fn select(operations: &mut BTreeSet<String>, list: &str) -> Result<()> {
    for word in list.split(',').map(str::trim) {
        if word.is_empty() {
            return Err(Error::Usage(format!(
                "{list:?}: the name of an operation is empty; --list-operations shows them"
            )));
        }
        let (name, is_wanted) = match word.strip_prefix('-') {
            Some(name) => (name, false),
            None => (word, true),
        };
        let named: Vec<_> = OPERATIONS
            .iter()
            .filter(|operation| match name {
                "all" => true,
                "defaults" => operation.is_default,
                name => operation.name == name,
            })
            .collect();
        if named.is_empty() {
            return Err(Error::Usage(format!(
                "{name}: there is no such operation; --list-operations shows them"
            )));
        }
        for operation in named {
            if is_wanted {
                operations.insert(operation.name.to_owned());
            } else {
                operations.remove(operation.name);
            }
        }
    }
    Ok(())
}

impl Guest {
    /// Resets the guest that is mounted, all or nothing.
    pub fn sysprep(&mut self, sysprep: &Sysprep, options: &Options, say: &mut Say<'_>) -> Result<()> {
        let system = System::of(self)?;
        let is_wanted = |operation: &&SysprepOperation| match &sysprep.operations {
            Some(wanted) => wanted.contains(operation.name),
            None => operation.is_default,
        };
        self.atomically(|guest| {
            for operation in OPERATIONS.iter().filter(is_wanted) {
                say(Said::Step(&format!("Performing {:?} ...", operation.name)));
                match &operation.action {
                    Action::Remove(patterns) => remove_matching(guest, patterns)?,
                    Action::Special(change) => change(guest, &system, sysprep)?,
                    Action::Customize => {
                        if !identity::set_random_seed(guest, &system)? {
                            guest
                                .warnings
                                .push("the guest has no place for a random seed that is known".into());
                        }
                        Customization { guest, system: &system, options, say: &mut *say }
                            .run(&sysprep.customize)?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// Removes all that these patterns match, directories with their content.
fn remove_matching(guest: &mut Guest, patterns: &[&str]) -> Result<()> {
    for pattern in patterns {
        for path in guest.glob_expand(GuestPath::new(pattern), Some(false))? {
            // A pattern such as `.*` can match these.
            if !path.ends_with_str("/.") && !path.ends_with_str("/..") {
                guest.rm_rf(GuestPath::new(&path))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_operations_add_and_take_away() {
        let select = |lists: &[&str]| {
            let mut chosen = BTreeSet::new();
            lists.iter().try_for_each(|list| select(&mut chosen, list)).map(|()| chosen)
        };
        let defaults = select(&["defaults"]).unwrap();
        assert!(defaults.contains("machine-id") && !defaults.contains("fs-uuids"));
        let fewer = select(&["firewall-rules,defaults,-tmp-files"]).unwrap();
        assert!(fewer.contains("firewall-rules") && !fewer.contains("tmp-files"));
        assert_eq!(select(&["all"]).unwrap().len(), OPERATIONS.len());
        assert_eq!(select(&["all,-all", "utmp"]).unwrap(), BTreeSet::from(["utmp".to_owned()]));
        for empty in ["", "defaults,,all", "-"] {
            assert!(select(&[empty]).is_err(), "{empty:?}");
        }
        assert!(select(&["nonsense"]).unwrap_err().to_string().contains("--list-operations"));
    }
}
