//! Arithmetic on blocks of bytes in the field of 256 elements that RAID-6 uses: polynomial 0x11d, generator 2.
//!
//! Spec: H. Peter Anvin, "The mathematics of RAID-6".

const POLYNOMIAL: u16 = 0x11d;

/// `EXP[i]` is 2 to the power i, and `LOG` its inverse (0 has none).
const TABLES: ([u8; 255], [u8; 256]) = {
    let (mut exp, mut log) = ([0; 255], [0; 256]);
    let mut value: u16 = 1;
    let mut power: u8 = 0;
    while power < 255 {
        exp[power as usize] = value.to_le_bytes()[0];
        log[value as usize] = power;
        value <<= 1;
        if value > 0xff {
            value ^= POLYNOMIAL;
        }
        power += 1;
    }
    (exp, log)
};

/// 2 to the power `exponent`.
pub(super) fn power_of_two(exponent: usize) -> u8 {
    TABLES.0[exponent % 255]
}

pub(super) fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    power_of_two(usize::from(TABLES.1[usize::from(a)]) + usize::from(TABLES.1[usize::from(b)]))
}

/// The inverse of an element other than 0; 0 for 0.
pub(super) fn invert(a: u8) -> u8 {
    if a == 0 { 0 } else { power_of_two(255 - usize::from(TABLES.1[usize::from(a)])) }
}

/// `target ^= source`.
pub(super) fn xor(target: &mut [u8], source: &[u8]) {
    let (words, rest) = target.as_chunks_mut::<8>();
    let (source_words, source_rest) = source.as_chunks::<8>();
    for (target, source) in words.iter_mut().zip(source_words) {
        *target = (u64::from_ne_bytes(*target) ^ u64::from_ne_bytes(*source)).to_ne_bytes();
    }
    for (target, source) in rest.iter_mut().zip(source_rest) {
        *target ^= source;
    }
}

/// `target *= 2`, eight bytes at a time.
pub(super) fn double(target: &mut [u8]) {
    let (words, rest) = target.as_chunks_mut::<8>();
    for word in words {
        *word = double_word(u64::from_ne_bytes(*word)).to_ne_bytes();
    }
    for byte in rest {
        *byte = multiply(*byte, 2);
    }
}

/// `target = target * 2 ^ source`: one step of Horner's scheme for Q.
pub(super) fn double_and_xor(target: &mut [u8], source: &[u8]) {
    let (words, rest) = target.as_chunks_mut::<8>();
    let (source_words, source_rest) = source.as_chunks::<8>();
    for (word, source) in words.iter_mut().zip(source_words) {
        *word = (double_word(u64::from_ne_bytes(*word)) ^ u64::from_ne_bytes(*source)).to_ne_bytes();
    }
    for (byte, source) in rest.iter_mut().zip(source_rest) {
        *byte = multiply(*byte, 2) ^ source;
    }
}

/// Each byte doubled: shifted left, and reduced where its top bit was set.
fn double_word(word: u64) -> u64 {
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let tops = (word & TOPS) >> 7;
    ((word & !TOPS) << 1) ^ (tops * 0x1d)
}

/// `target *= factor`.
pub(super) fn scale(target: &mut [u8], factor: u8) {
    let products = products_of(factor);
    for byte in target {
        *byte = products[usize::from(*byte)];
    }
}

/// `target ^= source * factor`.
pub(super) fn scale_and_xor(target: &mut [u8], source: &[u8], factor: u8) {
    let products = products_of(factor);
    for (byte, source) in target.iter_mut().zip(source) {
        *byte ^= products[usize::from(*source)];
    }
}

/// `target = target * factor ^ source * source_factor`.
pub(super) fn scale_both_and_xor(target: &mut [u8], factor: u8, source: &[u8], source_factor: u8) {
    let (products, source_products) = (products_of(factor), products_of(source_factor));
    for (byte, source) in target.iter_mut().zip(source) {
        *byte = products[usize::from(*byte)] ^ source_products[usize::from(*source)];
    }
}

fn products_of(factor: u8) -> [u8; 256] {
    let mut products = [0; 256];
    for (byte, product) in (0..=255u8).zip(&mut products) {
        *product = multiply(byte, factor);
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication by the definition: polynomials over GF(2), reduced bit by bit.
    fn slow_multiply(a: u8, b: u8) -> u8 {
        let (mut product, mut a) = (0u16, u16::from(a));
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= a;
            }
            a <<= 1;
            if a & 0x100 != 0 {
                a ^= POLYNOMIAL;
            }
        }
        product.to_le_bytes()[0]
    }

    #[test] // The tables hold what the field's definition says, for every pair.
    fn products_and_inverses_are_those_of_the_field() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), slow_multiply(a, b));
            }
            assert_eq!(slow_multiply(a, invert(a)), u8::from(a != 0));
        }
    }

    #[test] // Blocks of a length that is no multiple of a word are done to their last byte.
    fn blocks_are_done_byte_by_byte() {
        let source: Vec<u8> = (0..=255).rev().take(253).collect();
        let start: Vec<u8> = (0..253).collect();
        let expect =
            |f: fn(u8, u8) -> u8| start.iter().zip(&source).map(|(a, b)| f(*a, *b)).collect::<Vec<_>>();
        let check = |change: &dyn Fn(&mut [u8]), f: fn(u8, u8) -> u8| {
            let mut block = start.clone();
            change(&mut block);
            assert_eq!(block, expect(f));
        };
        check(&|block| xor(block, &source), |a, b| a ^ b);
        check(&|block| double(block), |a, _| slow_multiply(a, 2));
        check(&|block| double_and_xor(block, &source), |a, b| slow_multiply(a, 2) ^ b);
        check(&|block| scale(block, 0x53), |a, _| slow_multiply(a, 0x53));
        check(&|block| scale_and_xor(block, &source, 0x53), |a, b| a ^ slow_multiply(b, 0x53));
    }
}
