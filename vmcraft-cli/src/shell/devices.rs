//! The names of the devices that a person may mean.

use bstr::BString;
use vmcraft::Guest;
use vmcraft::call::Call;
use vmcraft::value::Value;

/// Disks, partitions and volumes, sorted; none before launch.
pub(crate) fn names(guest: &mut Guest) -> Vec<BString> {
    let mut names = Vec::new();
    for call in ["list-devices", "list-partitions", "lvs", "list-md-devices", "list-dm-devices"] {
        let Some(call) = Call::find(call) else { continue };
        let listed = call.bind(Vec::new()).and_then(|bound| (call.invoke)(guest, &bound));
        if let Ok(Value::List(devices)) = listed {
            names.extend(devices);
        }
    }
    names.sort();
    names
}
