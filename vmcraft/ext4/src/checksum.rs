//! The checksums of ext4 and JBD2, in the conventions of their specifications: the running value is
//! kept as it is, neither inverted before nor after.

/// Continues a CRC-32C (Castagnoli, reflected) from `crc`; ext4 starts from `!0`.
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    // The crate inverts on the way in and out; ext4 does neither.
    !crc32c::crc32c_append(!crc, bytes)
}

/// Continues a CRC-16 (polynomial 0x8005, reflected) from `crc`: group descriptors of `uninit_bg`.
pub(crate) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xa001 } else { c >> 1 })
    })
}

/// Continues a CRC-32 (polynomial 0x04c11db7, most significant bit first) from `crc`: the commit
/// checksum of JBD2's first checksum feature.
pub(crate) fn crc32_be(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| crc << 8 ^ CRC32_BE[usize::from((crc >> 24) as u8 ^ byte)])
}

static CRC32_BE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    let mut top = 0; // `index`, in the top byte
    while index < 256 {
        let mut crc: u32 = top;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
        top = top.wrapping_add(1 << 24);
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The check values of the CRC catalogue, less the final inversions that we don't make.
    fn check_values() {
        let check = b"123456789";
        assert_eq!(!crc32c(!0, check), 0xe306_9283);
        assert_eq!(crc16(0, check), 0xbb3d); // CRC-16/ARC
        assert_eq!(crc16(!0, check), 0x4b37); // CRC-16/MODBUS
        assert_eq!(!crc32_be(!0, check), 0xfc89_1918); // CRC-32/BZIP2
    }
}
