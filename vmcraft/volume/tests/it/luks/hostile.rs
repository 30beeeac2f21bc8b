//! Headers that are damaged, forged, or ask for what is not there.

use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::seal;
use vmcraft_volume::luks::{Effort, FormatOptions, Kdf, KeyOptions, Keyslot, KeyslotState, Luks, Version};
use vmcraft_volume::{Error, Key, Member};

use super::{Noise, bytes_of, cheap, formatted, images, key, member, options, read};

/// A change to the metadata.
type Change = fn(&mut Value);

/// A LUKS2 volume whose metadata was changed in both headers, with checksums that fit.
fn forged(change: impl Fn(&mut Value)) -> Member {
    let (member, _) = formatted(2 << 20, "key", &options(Version::Luks2));
    let bytes = bytes_of(&member);
    let area = &bytes[4096..16384];
    let end = area.iter().position(|byte| *byte == 0).expect("a NUL");
    let mut json: Value = serde_json::from_slice(&area[..end]).expect("JSON");
    change(&mut json);
    with_json(&member, json.to_string().as_bytes());
    member
}

fn with_json(member: &Member, text: &[u8]) {
    for at in [0, 16384_usize] {
        let mut header = bytes_of(member)[at..at + 16384].to_vec();
        seal::luks2(&mut header, text);
        member.device.write_at(at as u64, &header).expect("in range");
    }
}

fn error_of(member: &Member) -> String {
    match Luks::read(member, None) {
        Err(error) => error.to_string(),
        Ok(luks) => luks.expect("LUKS").unlock(&key("key"), None).err().expect("it is refused").to_string(),
    }
}

#[test]
fn a_wrong_key_says_how_many_slots_were_tried() {
    for version in [Version::Luks1, Version::Luks2] {
        let (_, mut luks) = formatted(4 << 20, "key", &options(version));
        let error = luks.unlock(&key("Key"), None).err().expect("wrong");
        assert!(
            matches!(&error, Error::WrongKey(text) if text == "this key opens nothing here (1 key slot tried)"),
            "{error}"
        );
        let mut noise = Noise(2);
        let at = KeyOptions { slot: Some(5), kdf: Some(cheap()) };
        luks.add_key(&key("key"), &key("other"), &at, &mut |bytes| noise.fill(bytes)).expect("added");
        let error = luks.unlock(&key("Key"), None).err().expect("wrong");
        assert!(
            matches!(&error, Error::WrongKey(text) if text == "this key opens nothing here (2 key slots tried)"),
            "{error}"
        );
        let error = luks.unlock(&key("key"), Some(5)).err().expect("wrong");
        assert!(
            matches!(&error, Error::WrongKey(text) if text == "this key does not open key slot 5"),
            "{error}"
        );
        let error = luks.unlock(&key("key"), Some(7)).err().expect("empty");
        assert_eq!(error.to_string(), "key slot 7 has no key");
        assert!(!format!("{luks:?} {:?}", key("key")).contains("key\""));
    }
}

#[test]
fn damage_to_key_material_is_named() {
    for (version, at) in [(Version::Luks1, 4096 + 512), (Version::Luks2, 32768 + 512)] {
        let (member, luks) = formatted(4 << 20, "key", &options(version));
        member.device.write_at(at, &[0; 512]).expect("in range");
        let error = luks.unlock(&key("key"), None).err().expect("damaged").to_string();
        let expected = format!("the key material of key slot 0 is overwritten at byte {at:#x}");
        assert!(error.contains(&expected), "{error}");
        // One bit is enough, and cannot be told from a wrong key.
        let (member, luks) = formatted(4 << 20, "key", &options(version));
        let mut byte = [0];
        member.device.read_at(at, &mut byte).expect("in range");
        member.device.write_at(at, &[byte[0] ^ 1]).expect("in range");
        let error = luks.unlock(&key("key"), None).err().expect("damaged").to_string();
        assert_eq!(error, "this key opens nothing here (1 key slot tried)");
    }
}

#[test]
fn both_headers_bad_is_an_error_that_names_both() {
    let (member, _) = formatted(2 << 20, "key", &options(Version::Luks2));
    member.device.write_at(4096, b"x").expect("in range");
    member.device.write_at(16384 + 4096, b"x").expect("in range");
    let error = Luks::read(&member, None).expect_err("both are bad");
    let text = error.to_string();
    assert!(text.contains("LUKS2 header: checksum") && text.contains("the second header is bad"), "{text}");
    assert!(matches!(error, Error::Corrupt { offset: 448, .. }), "{text}");
}

#[test]
fn versions_to_come_are_named() {
    let (member, _) = formatted(4 << 20, "key", &options(Version::Luks1));
    member.device.write_at(6, &[0, 3]).expect("in range");
    assert_eq!(Luks::read(&member, None).expect_err("too new").to_string(), "not supported: LUKS version 3");
}

#[test] // An older copy is what a crash of cryptsetup leaves.
fn the_newer_header_wins() {
    for stale_at in [0, 16384_usize] {
        let (member, mut luks) = formatted(2 << 20, "key", &options(Version::Luks2));
        let old = bytes_of(&member);
        let mut noise = Noise(4);
        luks.set_uuid("12345678-1234-1234-1234-123456789abc", &mut |b| noise.fill(b)).expect("a UUID");
        member.device.write_at(stale_at as u64, &old[stale_at..stale_at + 16384]).expect("in range");
        let luks = read(&member);
        assert_eq!(luks.uuid(), "12345678-1234-1234-1234-123456789abc");
        assert!(luks.warnings()[0].contains("is older than"), "{:?}", luks.warnings());
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases: [(&str, Change); 9] = [
        ("requirement future-thing", |json| {
            json["config"]["requirements"] = json!({"mandatory": ["future-thing"]})
        }),
        ("reencryption is not finished (online-reencrypt-v2)", |json| {
            json["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]});
        }),
        ("authenticated encryption (integrity hmac(sha256))", |json| {
            json["segments"]["0"]["integrity"] =
                json!({"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"});
        }),
        ("segment of the type hw-opal", |json| json["segments"]["0"]["type"] = "hw-opal-crypt".into()),
        ("cipher capi:xts(ecb(aes-generic))-plain64", |json| {
            json["segments"]["0"]["encryption"] = "capi:xts(ecb(aes-generic))-plain64".into();
        }),
        ("encrypted sectors of 65536 bytes", |json| json["segments"]["0"]["sector_size"] = 65536.into()),
        ("hash function sha3-256", |json| json["keyslots"]["0"]["af"]["hash"] = "sha3-256".into()),
        ("more than 4 GiB of memory", |json| {
            json["keyslots"]["0"]["kdf"] = json!({"type": "argon2id", "time": 4, "memory": 8 << 20, "cpus": 4, "salt": "AAAAAAAAAAAAAAAAAAAAAA=="});
        }),
        ("store of keys", |json| json["segments"] = json!({})),
    ];
    for (expected, change) in cases {
        let error = error_of(&forged(change));
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn metadata_that_contradicts_itself_is_corrupt() {
    let cases: [(&str, Change); 14] = [
        ("keyslots/0/area is not within", |json| json["keyslots"]["0"]["area"]["offset"] = "0".into()),
        ("keyslots/0/area is not within", |json| {
            json["keyslots"]["0"]["area"]["offset"] = u64::MAX.to_string().into()
        }),
        ("keyslots/0/area is not within", |json| {
            json["keyslots"]["0"]["area"]["size"] = u64::MAX.to_string().into()
        }),
        ("key slots 0 and 1 overlap", |json| json["keyslots"]["1"] = json["keyslots"]["0"].clone()),
        ("there are slots 0 to 31", |json| json["keyslots"]["32"] = json["keyslots"]["0"].clone()),
        ("has 4096 bytes, and its key takes", |json| json["keyslots"]["0"]["area"]["size"] = "4096".into()),
        ("0 stripes", |json| json["keyslots"]["0"]["af"]["stripes"] = 0.into()),
        ("the length of a key", |json| json["keyslots"]["0"]["key_size"] = 0.into()),
        ("config/json_size is 4096", |json| json["config"]["json_size"] = "4096".into()),
        ("config/keyslots_size is", |json| json["config"]["keyslots_size"] = u64::MAX.to_string().into()),
        ("segments/0/offset is not a number", |json| json["segments"]["0"]["offset"] = "-1".into()),
        ("segments/0/size is dynamic", |json| json["segments"]["1"] = json["segments"]["0"].clone()),
        ("digests/0/digest has 0 bytes", |json| json["digests"]["0"]["digest"] = "".into()),
        ("digests is missing", |json| drop(json.as_object_mut().expect("an object").remove("digests"))),
    ];
    for (expected, change) in cases {
        let member = forged(change);
        let error = Luks::read(&member, None).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("at byte 0x1000"), "{expected}: {error}");
    }
    let (member, _) = formatted(2 << 20, "key", &options(Version::Luks2));
    let deep = format!("{}{}", "[".repeat(6000), "]".repeat(6000));
    with_json(&member, deep.as_bytes());
    let error = Luks::read(&member, None).expect_err("too deep").to_string();
    assert!(error.contains("recursion limit"), "{error}");
}

#[test]
fn data_beyond_the_end_is_named() {
    let member = forged(|json| json["segments"]["0"]["offset"] = (1_u64 << 50).to_string().into());
    assert!(error_of(&member).contains("the device ends at byte 2097152, and LUKS data is to begin at byte"));
    let member = forged(|json| json["segments"]["0"]["size"] = u64::MAX.to_string().into());
    assert!(error_of(&member).contains("bytes long"));
}

#[test] // What cryptsetup's own tests call evil, and what it refuses, is refused.
fn evil_headers_are_refused() {
    let Some(images) = images() else { return };
    let mut seen = 0;
    for image in images {
        let expected = match &*image.path {
            "luks/cryptsetup-evil_hdr-keyslot_overlap.zst" => "LUKS1 key slots 1 and 2: they overlap",
            "luks/cryptsetup-evil_hdr-payload_overwrite.zst" => {
                "LUKS1 key slot 3: its key material reaches into the data"
            }
            "luks/cryptsetup-evil_hdr-stripes_payload_dmg.zst" => {
                "LUKS1 key slot 5: the number of stripes is not 4000"
            }
            "luks/cryptsetup-luks2_invalid_cipher.img.zst" => "capi:xts(ecb(aes-generic))-plain64",
            "luks/cryptsetup-luks2_header_requirements.img.zst" => "requirement req0, req1",
            "luks/ul-luks1.img" => "the device ends within the area of key slot 0",
            _ => continue,
        };
        let error = error_of(&image.member);
        assert!(error.contains(expected), "{}: {error}", image.path);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test] // Unbound keys, priorities and other types of slots.
fn slots_are_tried_by_what_the_header_says_of_them() {
    let two = |change: fn(&mut Value)| {
        let (member, mut luks) = formatted(2 << 20, "key", &options(Version::Luks2));
        let mut noise = Noise(6);
        let at = KeyOptions { slot: Some(1), kdf: Some(cheap()) };
        luks.add_key(&key("key"), &key("key"), &at, &mut |bytes| noise.fill(bytes)).expect("added");
        let bytes = bytes_of(&member);
        let end = bytes[4096..16384].iter().position(|byte| *byte == 0).expect("a NUL");
        let mut json: Value = serde_json::from_slice(&bytes[4096..4096 + end]).expect("JSON");
        change(&mut json);
        with_json(&member, json.to_string().as_bytes());
        read(&member)
    };
    let slot = |luks: &Luks| luks.volume_key(&key("key"), None).expect("open").0;
    assert_eq!(slot(&two(|_| ())), 0);
    assert_eq!(slot(&two(|json| json["keyslots"]["1"]["priority"] = 2.into())), 1);
    let luks = two(|json| json["keyslots"]["0"]["priority"] = 0.into());
    assert_eq!(slot(&luks), 1);
    assert_eq!(luks.volume_key(&key("key"), Some(0)).expect("asked for").0, 0);
    let luks = two(|json| json["digests"]["0"]["keyslots"] = json!(["1"]));
    assert_eq!(luks.keyslots()[0].state, KeyslotState::Unbound);
    assert_eq!(slot(&luks), 1);
    let error = luks.unlock(&key("key"), Some(0)).err().expect("unbound").to_string();
    assert_eq!(error, "key slot 0 has a key that is not this volume's");
    let luks = two(|json| json["keyslots"]["0"]["type"] = "reencrypt".into());
    assert_eq!(luks.keyslots()[0].state, KeyslotState::Other);
    assert_eq!(slot(&luks), 1);
    // One slot that cannot be used does not hide the other.
    let luks = two(|json| json["keyslots"]["0"]["area"]["encryption"] = "unknown-xts-plain64".into());
    assert_eq!(slot(&luks), 1);
    let error = luks.unlock(&key("wrong"), None).err().expect("wrong").to_string();
    assert!(
        error.contains("(1 key slot tried); key slot 0: not supported: cipher unknown-xts-plain64"),
        "{error}"
    );
}

/// The key `key` in slot 0, and the same area's shape in those up to 7, each as `change` has it.
fn eight_slots(change: fn(&mut Value, &str)) -> Luks {
    let sizes = FormatOptions { data_offset: Some(3 << 20), ..options(Version::Luks2) };
    let (member, _) = formatted(4 << 20, "key", &sizes);
    let bytes = bytes_of(&member);
    let end = bytes[4096..16384].iter().position(|byte| *byte == 0).expect("a NUL");
    let mut json: Value = serde_json::from_slice(&bytes[4096..4096 + end]).expect("JSON");
    for number in 1..8_u64 {
        let name = number.to_string();
        let mut slot = json["keyslots"]["0"].clone();
        slot["area"]["offset"] = (32768 + number * 258_048).to_string().into();
        json["keyslots"][&name] = slot;
        json["digests"]["0"]["keyslots"].as_array_mut().expect("a list").push(name.as_str().into());
        change(&mut json, &name);
    }
    with_json(&member, json.to_string().as_bytes());
    read(&member)
}

#[test] // An image alone must not have us work for minutes, or take more memory than its makers' default.
fn keys_that_nobody_gave_are_tried_with_little_effort() {
    // As cryptsetup makes slots, but that none takes any work is found before.
    let luks = eight_slots(|json, name| {
        let slot = &mut json["keyslots"][name];
        slot["kdf"] = json!({
            "type": "argon2id", "time": 4, "memory": 1 << 20, "cpus": 4, "salt": slot["kdf"]["salt"],
        });
        slot["area"]["encryption"] = "unknown-xts-plain64".into();
    });
    let mut effort = Effort::for_found_keys();
    let error = luks.unlock_within(&key("wrong"), &mut effort).err().expect("all were tried").to_string();
    assert!(error.starts_with("this key opens nothing here (1 key slot tried)"), "{error}");
    assert!(error.contains("; key slot 7: not supported: cipher unknown"), "{error}");
    assert!(!error.contains("not tried"), "{error}");
    assert!(luks.unlock_within(&key("wrong"), &mut effort).expect("not all were").is_none());
    assert!(luks.unlock_within(&key("key"), &mut effort).expect("slot 0 is quick").is_some());

    // More memory than that, and work that a key that was given may be.
    for change in [
        |json: &mut Value, name: &str| {
            let slot = &mut json["keyslots"][name];
            slot["kdf"] = json!({
                "type": "argon2id", "time": 1, "memory": (1 << 20) + 4, "cpus": 4, "salt": slot["kdf"]["salt"],
            });
            slot["area"]["encryption"] = "unknown-xts-plain64".into();
        },
        |json: &mut Value, name: &str| {
            json["keyslots"][name]["kdf"]["iterations"] = 40_000_000.into();
            json["keyslots"][name]["area"]["encryption"] = "unknown-xts-plain64".into();
        },
    ] {
        let luks = eight_slots(change);
        let mut effort = Effort::for_found_keys();
        assert!(luks.unlock_within(&key("wrong"), &mut effort).expect("not all were tried").is_none());
        let error = luks.unlock(&key("wrong"), None).err().expect("all were tried").to_string();
        assert!(!error.contains("not tried"), "{error}");
        assert!(luks.unlock_within(&key("key"), &mut effort).expect("slot 0 is quick").is_some());
    }
}

#[test] // Each of 32 slots may take minutes, and each of many digests: all together must not take hours.
fn slots_that_cost_too_much_together_are_not_tried() {
    let hint =
        "it would take too long altogether; cryptsetup config --priority prefer has a slot tried first";

    // The first ones are as slow as can be, but their cipher is unknown: that is found before.
    let luks = eight_slots(|json, name| {
        json["keyslots"][name]["kdf"]["iterations"] = 499_000_000.into();
        json["keyslots"][name]["area"]["encryption"] = "unknown-xts-plain64".into();
    });
    let error = luks.unlock(&key("wrong"), None).err().expect("wrong").to_string();
    assert!(error.starts_with("this key opens nothing here (1 key slot tried); "), "{error}");
    assert!(error.contains("; key slot 4: not supported: cipher unknown-xts-plain64"), "{error}");
    assert!(error.ends_with(&format!("; key slots not tried: 5, 6, 7: {hint}")), "{error}");
    luks.unlock(&key("key"), None).expect("the slot that can be tried");

    let luks = eight_slots(|json, name| {
        let mut digest = json["digests"]["0"].clone();
        digest["keyslots"] = json!(["1", "2", "3", "4", "5", "6", "7"]);
        digest["iterations"] = 999_000_000.into();
        // Five for each slot.
        if name.parse().is_ok_and(|number: u32| number <= 5) {
            json["digests"][name] = digest;
        }
        // The others are made as it is.
        if name == "7" {
            json["keyslots"]["0"]["priority"] = 0.into();
        }
    });
    let error = luks.unlock(&key("wrong"), None).err().expect("too much").to_string();
    let expected =
        "not supported: a LUKS volume that costs so much to open; key slots not tried: 1, 2, 3, 4, 5, 6, 7";
    assert_eq!(error, format!("{expected}: {hint}"));
    // Who names a slot says that it may take its time; here that is quick.
    luks.unlock(&key("key"), Some(0)).expect("it is right");
}

#[test] // Runs of a volume in the clear and encrypted with numbers of their own follow each other.
fn several_segments_are_one_volume() {
    let member = forged(|json| {
        let mut second = json["segments"]["0"].clone();
        json["segments"]["0"]["size"] = "8192".into();
        second["iv_tweak"] = "16".into();
        second["offset"] = (1_u64 << 20).to_string().into();
        second["offset"] = ((1_u64 << 20) + 8192).to_string().into();
        json["segments"]["1"] = second;
        json["segments"]["2"] =
            json!({"type": "linear", "offset": "0", "size": "512", "flags": ["backup-final"]});
    });
    let (whole, luks) = formatted(2 << 20, "key", &options(Version::Luks2));
    let content = Noise::bytes(1 << 20);
    luks.unlock(&key("key"), None).expect("open").write_at(0, &content).expect("in range");
    let device = read(&member).unlock(&key("key"), None).expect("open");
    assert_eq!(device.size(), 1 << 20);
    device.write_at(0, &content).expect("in range");
    // The numbers go on where the first segment ends, so this is what one segment would have written.
    assert!(bytes_of(&member)[1 << 20..] == bytes_of(&whole)[1 << 20..]);
}

#[test] // Nothing is secret there, so a passphrase must not seem to protect it.
fn null_ciphers_take_no_passphrase() {
    let member = forged(|json| json["keyslots"]["0"]["area"]["encryption"] = "cipher_null-ecb".into());
    assert!(error_of(&member).contains("only the empty passphrase"), "{}", error_of(&member));
    let error = read(&member).unlock(&Key::new(Vec::new()), None).err().expect("not its key");
    assert!(matches!(error, Error::WrongKey(_)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test] // However the bytes of a header are damaged, reading it ends, and panics nowhere.
    fn damaged_headers_are_read_or_refused(
        version in prop::sample::select(vec![Version::Luks1, Version::Luks2]),
        damage in prop::collection::vec((0..33_000_u64, any::<u8>()), 1..8),
        len in 0..40_000_usize,
    ) {
        let image = image(version);
        for (at, byte) in &damage {
            image.device.write_at(*at % if version == Version::Luks1 { 592 } else { 33_000 }, &[*byte]).expect("in range");
        }
        // A digest that is soon computed, whatever the damage made of its costs.
        if version == Version::Luks1 {
            image.device.write_at(164, &10_u32.to_be_bytes()).expect("in range");
            try_all(&image);
        }
        drop(Luks::read(&image, None));
        let mut bytes = bytes_of(&image);
        bytes.truncate(len);
        drop(Luks::read(&member(bytes), None));
    }

    #[test] // The same where the checksum fits.
    fn forged_metadata_is_read_or_refused(
        damage in prop::collection::vec((0..1500_usize, any::<u8>()), 1..4),
        pieces in prop::collection::vec(("[a-z_0-9]{1,8}", 0..6_usize), 0..3),
    ) {
        let image = image(Version::Luks2);
        let bytes = bytes_of(&image);
        let end = 4096 + bytes[4096..16384].iter().position(|byte| *byte == 0).expect("a NUL");
        // A digest that is soon computed and proves nothing, so that the slots are what is tried.
        let mut cheap_json: Value = serde_json::from_slice(&bytes[4096..end]).expect("JSON");
        cheap_json["digests"]["0"]["iterations"] = 10.into();
        let mut text = cheap_json.to_string().into_bytes();
        for (at, byte) in damage {
            let len = text.len();
            text[at % len] = byte;
        }
        with_json(&image, &text);
        try_all(&image);
        let mut json = cheap_json;
        for (name, kind) in pieces {
            let value = [json!(null), json!({}), json!([]), json!(-1), json!("18446744073709551615"), json!(1e300)][kind].clone();
            let place = ["keyslots", "segments", "digests", "config", "tokens"][name.len() % 5];
            let inner = json[place].as_object().and_then(|object| object.keys().next().cloned());
            match inner {
                Some(inner) if json[place][&inner].is_object() => {
                    let field = json[place][&inner].as_object().and_then(|object| object.keys().nth(kind).cloned());
                    json[place][&inner][field.unwrap_or(name)] = value;
                }
                _ => json[place] = value,
            }
        }
        with_json(&image, json.to_string().as_bytes());
        try_all(&image);
    }
}

/// Reads and opens what can be, and changes what can be changed.
fn try_all(image: &Member) {
    let Ok(Some(mut luks)) = Luks::read(image, None) else { return };
    let is_cheap = |slot: &Keyslot| match &slot.kdf {
        Some(Kdf::Pbkdf2 { iterations, .. }) => *iterations < 100_000,
        Some(_) => false,
        None => true,
    };
    if !luks.keyslots().iter().all(is_cheap) {
        return;
    }
    if let Ok(device) = luks.unlock(&key("key"), None) {
        let mut sector = [0; 512];
        drop(device.read_at(0, &mut sector).and_then(|()| device.write_at(0, &sector)));
    }
    let mut noise = Noise(8);
    let at = KeyOptions { slot: None, kdf: Some(cheap()) };
    drop(luks.add_key(&key("key"), &key("new"), &at, &mut |bytes| noise.fill(bytes)));
    drop(luks.kill_slot(0, &key("new"), &mut |bytes| noise.fill(bytes)));
}

/// A volume that is made once, as making takes time.
fn image(version: Version) -> Member {
    static MADE: std::sync::OnceLock<[Vec<u8>; 2]> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| {
        [Version::Luks1, Version::Luks2]
            .map(|version| bytes_of(&formatted(4 << 20, "key", &options(version)).0))
    });
    let bytes = &made[usize::from(version == Version::Luks2)];
    member(bytes.clone())
}
