//! File capabilities: from the attribute `security.capability` to text.
//!
//! The value is little-endian: a word with the revision in its highest byte and the effective flag in
//! its lowest bit, then one or two pairs of words with the permitted and inheritable sets, then in
//! revision 3 the user that owns the namespace (Linux `include/uapi/linux/capability.h`). The text is
//! what `cap_to_text` of libcap gives.

/// The names by number.
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

const EFFECTIVE: usize = 1;
const PERMITTED: usize = 2;
const INHERITABLE: usize = 4;

/// The capabilities as text, such as `cap_net_raw=ep`. `None` if the value is not of a known form.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    let (words, rest) = value.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let (magic, words) = words.split_first()?;
    let pairs = match (magic >> 24, words.len()) {
        _ if !rest.is_empty() => return None,
        (1, 2) | (2, 4) => words,
        (3, 5) => &words[..4],
        _ => return None,
    };
    let set = |first: usize| {
        let high = pairs.get(first + 2).copied().unwrap_or(0);
        u64::from(pairs[first]) | u64::from(high) << 32
    };
    let (permitted, inheritable) = (set(0), set(1));
    let is_effective = magic & 1 == 1;
    let state = |number: usize| {
        let bit = |set: u64| usize::from(set >> number & 1 == 1);
        let state = bit(permitted) * PERMITTED + bit(inheritable) * INHERITABLE;
        if is_effective && state != 0 { state + EFFECTIVE } else { state }
    };
    let in_state = |numbers: std::ops::Range<usize>, wanted| -> Vec<usize> {
        numbers.filter(|number| state(*number) == wanted).collect()
    };
    // What most capabilities have is said first, the others by their difference from it.
    let base = (0..8).rev().max_by_key(|state| in_state(0..NAMES.len(), *state).len())?;
    let mut text = if base == 0 { String::new() } else { format!("={}", flags(base)) };
    for other in (0..8).rev().filter(|state| *state != base) {
        let names: Vec<_> = in_state(0..NAMES.len(), other).iter().map(|number| NAMES[*number]).collect();
        if names.is_empty() {
            continue;
        }
        if text.is_empty() {
            text = format!("{}={}", names.join(","), flags(other));
            continue;
        }
        text.push_str(&format!(" {}", names.join(",")));
        for (sign, changed) in [('+', other & !base), ('-', !other & base)] {
            if changed != 0 {
                text.push_str(&format!("{sign}{}", flags(changed)));
            }
        }
    }
    if text.is_empty() {
        text.push('=');
    }
    // Those that have no name yet.
    for other in (1..8).rev() {
        let numbers: Vec<_> = in_state(NAMES.len()..64, other).iter().map(ToString::to_string).collect();
        if !numbers.is_empty() {
            text.push_str(&format!(" {}+{}", numbers.join(","), flags(other)));
        }
    }
    Some(text)
}

fn flags(state: usize) -> String {
    let letters = [(EFFECTIVE, 'e'), (INHERITABLE, 'i'), (PERMITTED, 'p')];
    letters.iter().filter(|(flag, _)| state & flag != 0).map(|(_, letter)| *letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(magic: u32, permitted: u64, inheritable: u64) -> Vec<u8> {
        let low_high = |set: u64| [set.to_le_bytes()[..4].to_vec(), set.to_le_bytes()[4..].to_vec()];
        let (permitted, inheritable) = (low_high(permitted), low_high(inheritable));
        [
            magic.to_le_bytes().to_vec(),
            permitted[0].clone(),
            inheritable[0].clone(),
            permitted[1].clone(),
            inheritable[1].clone(),
        ]
        .concat()
    }

    #[test] // Each was printed by getcap of libcap 2.66 for the same value.
    fn text_is_what_getcap_prints() {
        let all = 0x1ff_ffff_ffff;
        for (magic, permitted, inheritable, expected) in [
            (0x0200_0000, 1, 0, "cap_chown=p"),
            (0x0200_0001, 0x3000, 0, "cap_net_admin,cap_net_raw=ep"),
            (0x0200_0000, 1, 0x20, "cap_kill=i cap_chown+p"),
            (0x0200_0001, 1, 0x20, "cap_kill=ei cap_chown+ep"),
            (0x0200_0000, 1, 1, "cap_chown=ip"),
            (0x0200_0000, all, 0, "=p"),
            (0x0200_0001, all, all, "=eip"),
            (0x0200_0000, all - 1, 0, "=p cap_chown-p"),
            (0x0200_0000, all - 1, 0x20, "=p cap_kill+i cap_chown-p"),
            (0x0200_0000, 1, all, "=i cap_chown+p"),
            (0x0200_0001, all - 1, all, "=eip cap_chown-p"),
            (0x0200_0001, 0, all - 1, "=ei cap_chown-ei"),
            (0x0200_0001, 1 << 41, 0, "= 41+ep"),
            (0x0200_0001, 0, 0, "="),
        ] {
            assert_eq!(text(&value(magic, permitted, inheritable)).as_deref(), Some(expected));
        }
        let named = text(&value(0x0200_0001, u64::MAX, 0)).unwrap();
        assert!(named.starts_with("=ep 41,42,43") && named.ends_with(",63+ep"), "{named}");
        // As many with as without it: those with fewer flags are the base.
        let half = text(&value(0x0200_0001, 0xf_ffff, 0)).unwrap();
        assert!(half.starts_with("cap_chown,") && half.ends_with(",cap_sys_ptrace=ep"), "{half}");
    }

    #[test]
    fn revisions_have_their_sizes() {
        let second = value(0x0200_0001, 1, 0);
        assert_eq!(text(&second[..12]), None);
        let first = [&0x0100_0001_u32.to_le_bytes()[..], &second[4..12]].concat();
        assert_eq!(text(&first).as_deref(), Some("cap_chown=ep"));
        let third = [&0x0300_0001_u32.to_le_bytes()[..], &second[4..], &1000_u32.to_le_bytes()].concat();
        assert_eq!(text(&third).as_deref(), Some("cap_chown=ep"));
        assert_eq!(text(&third[..20]), None);
        assert_eq!(text(&[&third[..], &[0]].concat()), None);
        assert_eq!(text(b""), None);
    }
}
