//! What is written here is read by Linux's dm-crypt, and the other way round.

use testkit::appliance::{Disk, run_ok};
use testkit::tempdir;
use vmcraft_volume::luks::{FormatOptions, Version};

use super::{Noise, bytes_of, formatted, key, member, options, read};

#[test] // Ciphers that cryptsetup has only with the kernel's help, and the numbering of large sectors.
fn the_kernel_reads_and_writes_the_same_content() {
    if !testkit::long_suites("LUKS against the kernel's dm-crypt") {
        return;
    }
    let volume = |version, cipher: &str, key_bytes, sector_size| FormatOptions {
        cipher: cipher.into(),
        key_bytes,
        sector_size,
        ..options(version)
    };
    let cases = [
        volume(Version::Luks2, "aes-xts-plain64", None, Some(512)),
        volume(Version::Luks2, "aes-xts-plain64", Some(32), Some(4096)),
        volume(Version::Luks1, "aes-cbc-essiv:sha256", None, None),
        volume(Version::Luks2, "serpent-xts-plain64", None, None),
        volume(Version::Luks1, "serpent-cbc-essiv:sha256", None, None),
        volume(Version::Luks2, "twofish-xts-plain64", None, Some(1024)),
        volume(Version::Luks2, "twofish-cbc-essiv:sha256", Some(24), None),
        volume(Version::Luks2, "camellia-xts-plain64", None, Some(2048)),
        volume(Version::Luks1, "cast5-cbc-plain64", Some(16), None),
        volume(Version::Luks2, "aes-cbc-benbi", Some(24), Some(4096)),
        volume(Version::Luks2, "cast5-cbc-benbi", Some(16), None),
        volume(Version::Luks2, "aes-xts-plain", None, None),
        volume(Version::Luks2, "aes-cbc-plain64be", None, Some(4096)),
        volume(Version::Luks2, "aes-cbc-essiv:sha256", None, Some(4096)),
        volume(Version::Luks2, "aes-cbc-eboiv", None, None),
        volume(Version::Luks2, "aes-ecb", None, None),
        volume(Version::Luks2, "cipher_null-ecb", None, None),
    ];
    let dir = tempdir();
    let content = Noise::bytes(256 << 10);
    let mut images = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let case = FormatOptions { data_offset: Some(3 << 20), ..case.clone() };
        let (member, luks) = formatted((3 << 20) + content.len(), "shared", &case);
        luks.unlock(&key("shared"), None).expect("open").write_at(0, &content).expect("in range");
        let image = dir.path().join(format!("{number}.raw"));
        std::fs::write(&image, bytes_of(&member)).expect("space");
        images.push(image);
    }
    let expected = dir.path().join("content");
    std::fs::write(&expected, &content).expect("space");
    let disks: Vec<_> = [&expected]
        .into_iter()
        .map(|image| Disk::kept(image))
        .chain(images.iter().map(|image| Disk::raw(image)))
        .collect();
    let last = char::from(b'a' + u8::try_from(cases.len()).expect("few"));
    let printed = run_ok(
        &disks,
        &format!(
            r#"printf shared > /tmp/key
            for disk in /dev/vd[b-{last}]; do
                cryptsetup open --key-file /tmp/key $disk plain
                cmp -n 262144 /dev/vda /dev/mapper/plain && echo "$disk same"
                yes "written by Linux" | head -c 12288 |
                    dd of=/dev/mapper/plain bs=4096 seek=5 conv=fsync iflag=fullblock status=none
                cryptsetup close plain
            done"#
        ),
    );
    assert_eq!(printed.matches("same").count(), cases.len(), "{printed}");
    let mut changed = content;
    for (byte, new) in changed[5 * 4096..8 * 4096].iter_mut().zip(b"written by Linux\n".iter().cycle()) {
        *byte = *new;
    }
    for (image, case) in images.iter().zip(&cases) {
        let luks = read(&member(std::fs::read(image).expect("the image is there")));
        let mut plain = vec![0; changed.len()];
        luks.unlock(&key("shared"), None).expect("open").read_at(0, &mut plain).expect("in range");
        assert!(plain == changed, "{case:?}");
    }
}
