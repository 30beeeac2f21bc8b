//! File capabilities: from the attribute `security.capability` to text, and back.
//!
//! The value is little-endian: a word with the revision in its highest byte and the effective flag in
//! its lowest bit, then one or two pairs of words with the permitted and inheritable sets, then in
//! revision 3 the user that owns the namespace (Linux `include/uapi/linux/capability.h`). The text is
//! what `cap_to_text` of libcap gives, and what `cap_from_text` takes.

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

/// The attribute's value for capabilities as text, such as `cap_net_raw+ep`.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn encode(text: &str) -> Result<Vec<u8>, String> {
    let mut states = [0; 64];
    if text.trim().is_empty() {
        return Err("it is empty; no capabilities are =".into());
    }
    for clause in text.split_ascii_whitespace() {
        apply(clause, &mut states).map_err(|e| format!("{clause}: {e}"))?;
    }
    let set = |flag| {
        let bits = states.iter().enumerate().filter(|(_, state)| **state & flag != 0);
        bits.fold(0u64, |set, (number, _)| set | 1 << number)
    };
    let (effective, permitted, inheritable) = (set(EFFECTIVE), set(PERMITTED), set(INHERITABLE));
    // The attribute has one bit for all of them.
    if effective != 0 && (permitted | inheritable) & !effective != 0 {
        return Err("in a file, either all capabilities are effective or none".into());
    }
    let magic = REVISION | u32::from(effective != 0);
    let mut value = magic.to_le_bytes().to_vec();
    let (permitted, inheritable) = (permitted.to_le_bytes(), inheritable.to_le_bytes());
    for half in [0..4, 4..8] {
        value.extend_from_slice(&permitted[half.clone()]);
        value.extend_from_slice(&inheritable[half]);
    }
    Ok(value)
}

/// The revision that has 64 capabilities and no namespace.
const REVISION: u32 = 2 << 24;

/// Does what a clause says, such as `cap_chown,cap_kill=i+p`.
fn apply(clause: &str, states: &mut [usize; 64]) -> Result<(), String> {
    let is_operator = |byte: char| matches!(byte, '=' | '+' | '-');
    let start = clause.find(is_operator).ok_or("= or + or - is missing")?;
    let (names, mut actions) = clause.split_at(start);
    let numbers: Vec<usize> =
        if names.eq_ignore_ascii_case("all") || (names.is_empty() && actions.starts_with('=')) {
            (0..NAMES.len()).collect()
        } else {
            names.split(',').map(number).collect::<Result<_, _>>()?
        };
    while let Some(operator) = actions.chars().next() {
        let rest = &actions[1..];
        let (letters, next) = rest.split_at(rest.find(is_operator).unwrap_or(rest.len()));
        let mut wanted = 0;
        for letter in letters.chars() {
            wanted |= match letter {
                'e' => EFFECTIVE,
                'i' => INHERITABLE,
                'p' => PERMITTED,
                other => return Err(format!("{other:?} is not e, i or p")),
            };
        }
        if wanted == 0 && operator != '=' {
            return Err(format!("nothing is behind {operator}"));
        }
        for number in &numbers {
            let state = &mut states[*number];
            *state = match operator {
                '=' => wanted,
                '+' => *state | wanted,
                _ => *state & !wanted,
            };
        }
        actions = next;
    }
    Ok(())
}

/// The number of a capability, by its name or its digits.
fn number(name: &str) -> Result<usize, String> {
    let named = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
    named
        .or_else(|| name.parse().ok().filter(|number| *number < 64))
        .ok_or_else(|| format!("there is no capability {name:?}"))
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

    #[test] // Oracle: setcap.
    fn text_becomes_what_setcap_stores() {
        if !testkit::have_root() {
            return testkit::skip("setcap needs root");
        }
        let dir = testkit::tempdir();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        let name = file.to_str().unwrap();
        for text in [
            "cap_net_raw+ep",
            "cap_net_raw=ep",
            "CAP_NET_RAW,cap_chown=eip",
            "=p",
            "all=eip cap_chown-eip",
            "=eip cap_kill,cap_bpf-p",
            "cap_kill=i cap_chown+p",
            "cap_kill=i+p-i",
            "cap_checkpoint_restore=p",
            "39+ep",
            "=",
            "=eip cap_kill-e",
            "cap_net_raw+ep cap_chown+p",
            "cap_nothing+ep",
            "cap_chown",
            "cap_chown+x",
            "cap_chown,+p",
        ] {
            let stored = testkit::run("setcap", [text, name]).status.success().then(|| {
                let shown = testkit::run_ok(
                    "getfattr",
                    ["--absolute-names", "-n", "security.capability", "-e", "hex", name],
                );
                shown.lines().find_map(|line| line.split_once("=0x")).unwrap().1.to_owned()
            });
            let ours =
                encode(text).ok().map(|value| value.iter().map(|byte| format!("{byte:02x}")).collect());
            assert_eq!(ours, stored, "{text}");
        }
        assert!(encode("").is_err());
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
