//! Loops over numbers and bytes on their way in or out, with the widest instructions that the processor has.
//!
//! Called by: `list`, `number`, `column`, `outbox`, `link`.
//! Invariants: what a loop makes does not depend on the instructions.

use std::mem::MaybeUninit;
use std::slice;

use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{ArrowNativeType, ToByteSlice};

/// Bytes of a line of the cache: a wide load or store over the end of one is two.
const LINE: usize = 64;

/// A loop that is compiled three times: for every processor of the target, for those with AVX2, and for those
/// with AVX-512. `LANES` is how many numbers one of their instructions does.
macro_rules! widest {
    (
        $(#[$about:meta])*
        fn $name:ident<const $lanes:ident: usize>($($given:ident: $ty:ty),*) $(-> $made:ty)? $body:block
    ) => {
        $(#[$about])*
        pub(crate) fn $name($($given: $ty),*) $(-> $made)? {
            #[inline(always)]
            fn each<const $lanes: usize>($($given: $ty),*) $(-> $made)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq")]
                fn by_eight($($given: $ty),*) $(-> $made)? {
                    each::<8>($($given),*)
                }

                #[target_feature(enable = "avx2")]
                fn by_four($($given: $ty),*) $(-> $made)? {
                    each::<4>($($given),*)
                }

                let has_eight = is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq");
                // SAFETY: the processor has the instructions
                unsafe {
                    if has_eight {
                        return by_eight($($given),*);
                    }
                    if is_x86_feature_detected!("avx2") {
                        return by_four($($given),*);
                    }
                }
            }
            each::<2>($($given),*)
        }
    };
}

widest! {
    /// As many floats as there are integers, each the nearest; panics where there is room for more or fewer.
    fn write_floats<const LANES: usize>(ints: &[i64], floats: &mut [u8]) {
        let put = |ints: &[i64], floats: &mut [[u8; 8]]| {
            for (float, int) in floats.iter_mut().zip(ints) {
                let nearest = if LANES == 4 { nearest(*int) } else { *int as f64 };
                *float = nearest.to_le_bytes();
            }
        };
        let floats = floats.as_chunks_mut().0;
        assert_eq!(floats.len(), ints.len(), "room for each");
        let (first, floats) = floats.split_at_mut(to_line(floats));
        let (first_ints, ints) = ints.split_at(first.len());
        put(first_ints, first);
        put(ints, floats);
    }
}

/// The nearest float, by steps that AVX2 has for four numbers at once; it has no instruction that does it.
#[inline(always)]
fn nearest(int: i64) -> f64 {
    // the low 48 bits, above 2^52, and the high 16, above 3 * 2^67, as mantissas of floats; exact
    const LOW: f64 = (1u64 << 52) as f64;
    const HIGH: f64 = (3u128 << 67) as f64;
    let low = f64::from_bits(LOW.to_bits() | (int as u64 & ((1 << 48) - 1)));
    let high = f64::from_bits(HIGH.to_bits().wrapping_add(((int >> 48) << 32) as u64));
    // the first is exact too, so that only the second rounds
    (high - (HIGH + LOW)) + low
}

widest! {
    /// Copies floats, of which these are the bits, into all of the room, and says whether all are finite:
    /// looked at while they are in registers. Panics where there is room for more or fewer.
    fn copy_floats<const LANES: usize>(floats: &[u64], room: &mut [MaybeUninit<u64>]) -> bool {
        assert_eq!(floats.len(), room.len(), "room for each");
        const BLOCK: usize = 2 * LINE / size_of::<u64>();
        let (first, floats) = floats.split_at(to_line(floats));
        let (first_room, room) = room.split_at_mut(first.len());
        let (blocks, last) = floats.as_chunks::<BLOCK>();
        let (rooms, last_room) = room.as_chunks_mut::<BLOCK>();
        let mut are_finite = true;
        for (floats, room) in [(first, first_room), (last, last_room)] {
            room.write_copy_of_slice(floats);
            are_finite &= codec::all_finite(floats.iter().copied());
        }
        for (block, room) in blocks.iter().zip(rooms) {
            let block = *block;
            *room = block.map(MaybeUninit::new);
            are_finite &= codec::all_finite(block.into_iter());
        }
        are_finite
    }
}

/// A copy of a guest's numbers or bytes, where any number may lie: packed ones come as bytes.
pub(crate) fn copied_buffer<T: ArrowNativeType>(items: &[T]) -> Buffer {
    let bytes = items.to_byte_slice();
    let mut copy = MutableBuffer::with_capacity(bytes.len());
    // SAFETY: so many bytes of room are there, and `copy_bytes` writes each
    unsafe {
        let room = slice::from_raw_parts_mut(copy.as_mut_ptr().cast(), bytes.len());
        copy_bytes(bytes, room);
        copy.set_len(bytes.len());
    }
    copy.into()
}

/// A copy of a guest's numbers, of which these are the bytes; panics where one is not whole.
pub(crate) fn copied_list<T: ArrowNativeType>(bytes: &[u8]) -> Vec<T> {
    let len = bytes.len() / size_of::<T>();
    let mut copy = Vec::<T>::with_capacity(len);
    // SAFETY: so many numbers of room are there, `copy_bytes` writes each, and any bits are a number
    unsafe {
        let room = slice::from_raw_parts_mut(copy.as_mut_ptr().cast(), len * size_of::<T>());
        copy_bytes(bytes, room);
        copy.set_len(len);
    }
    copy
}

/// Copies bytes into all of the room; panics where there is room for more or fewer.
pub(crate) fn copy_into(bytes: &[u8], room: &mut [u8]) {
    // SAFETY: `copy_bytes` only writes bytes that are
    copy_bytes(bytes, unsafe {
        slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len())
    });
}

widest! {
    /// As `memcpy`, which glibc before 2.40 leaves to `rep movsb` where the processor says it is quick. On
    /// AMD's Zen 3 that takes 16 to 30 times as long where the room is 1 to 31 bytes, but for whole pages,
    /// after what is copied, as a guest's may be: <https://sourceware.org/bugzilla/show_bug.cgi?id=30994>.
    /// A block goes through registers, or the compiler would make a `memcpy` of the loop.
    fn copy_bytes<const LANES: usize>(bytes: &[u8], room: &mut [MaybeUninit<u8>]) {
        assert_eq!(bytes.len(), room.len(), "room for each");
        const BLOCK: usize = 2 * LINE;
        let (first_room, room) = room.split_at_mut(to_line(room));
        let (first, bytes) = bytes.split_at(first_room.len());
        let (blocks, last) = bytes.as_chunks::<BLOCK>();
        let (rooms, last_room) = room.as_chunks_mut::<BLOCK>();
        first_room.write_copy_of_slice(first);
        for (block, room) in blocks.iter().zip(rooms) {
            let block = *block;
            *room = block.map(MaybeUninit::new);
        }
        last_room.write_copy_of_slice(last);
    }
}

widest! {
    /// The largest of the numbers; 0 where there is none.
    fn largest<const LANES: usize>(numbers: &[u32]) -> u32 {
        numbers.iter().copied().fold(0, u32::max)
    }
}

/// How many of the items are before the first whole line.
fn to_line<T>(items: &[T]) -> usize {
    items.as_ptr().align_offset(LINE).min(items.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of every length, wherever they are put.
    #[test]
    fn a_copy_is_what_was_copied() {
        let bytes: Vec<u8> = (0..1500usize).map(|n| (n % 251) as u8).collect();
        for (len, at) in (0..300)
            .chain([511, 512, 513, 1400])
            .flat_map(|len| [0, 1, 24, 63].map(|at| (len, at)))
        {
            let mut room = vec![0xaa; 1600];
            copy_into(&bytes[at..][..len], &mut room[at / 2..][..len]);
            let (before, copy) = room.split_at(at / 2);
            let (copy, after) = copy.split_at(len);
            assert_eq!(copy, &bytes[at..][..len], "{len} at {at}");
            assert!(
                before.iter().chain(after).all(|byte| *byte == 0xaa),
                "{len} at {at}"
            );
            assert_eq!(copied_buffer(copy).as_slice(), copy);
            assert_eq!(copied_list::<u8>(copy), copy);
        }
        let numbers: Vec<i64> = (0..70).map(|n| n - 35).collect();
        let packed = numbers.to_byte_slice();
        assert_eq!(copied_buffer(&numbers).typed_data::<i64>(), numbers);
        assert_eq!(copied_buffer(packed).typed_data::<i64>(), numbers);
        assert_eq!(copied_list::<i64>(packed), numbers);
        assert!(copied_buffer::<i64>(&[]).is_empty() && copied_list::<i64>(&[]).is_empty());
    }

    #[test]
    #[should_panic(expected = "room for each")]
    fn a_number_is_whole() {
        copied_list::<i64>(&[0; 15]);
    }

    /// Of every length and wherever they are put, what one number at a time would give.
    #[test]
    fn wide_loops_do_what_narrow_ones_do() {
        let ints: Vec<i64> = (0..1100).map(|n| (n * n - 500) << (n % 50)).collect();
        let mut room = vec![0u8; 8 * 1200 + 64];
        for (len, at) in (0..70)
            .chain([511, 512, 513, 1100])
            .flat_map(|len| [0, 8, 24, 63].map(|at| (len, at)))
        {
            write_floats(&ints[..len], &mut room[at..][..len * 8]);
            for (float, int) in room[at..].as_chunks().0.iter().zip(&ints[..len]) {
                assert_eq!(f64::from_le_bytes(*float), *int as f64, "{len} at {at}");
            }
        }
        for len in (0..70usize).chain([511, 512, 513, 1100]) {
            for at in [0, len / 2, len.saturating_sub(1)] {
                let mut numbers: Vec<u32> = (0..len as u32).map(|n| n % 7).collect();
                if let Some(number) = numbers.get_mut(at) {
                    *number = u32::MAX - 1;
                }
                let expected = numbers.iter().copied().max().unwrap_or(0);
                assert_eq!(largest(&numbers), expected, "{len}, largest at {at}");
            }
        }
        let edges = [i64::MIN, i64::MAX, (1 << 53) + 1, -(1 << 53) - 1, -1, 0];
        for int in ints.iter().chain(&edges) {
            // whatever this processor has
            assert_eq!(nearest(*int).to_bits(), (*int as f64).to_bits(), "{int}");
        }
        let floats: Vec<u64> = ints.iter().map(|int| (*int as f64).to_bits()).collect();
        for len in (0..70usize).chain([511, 512, 513, 1100]) {
            for wrong in [None, Some(0), Some(len / 2), len.checked_sub(1)] {
                let mut given = floats[..len].to_vec();
                if let Some(place) = wrong.and_then(|place| given.get_mut(place)) {
                    *place = f64::NEG_INFINITY.to_bits();
                }
                let is_wrong = given.iter().any(|bits| !f64::from_bits(*bits).is_finite());
                let mut copy = Vec::with_capacity(len);
                let are_finite = copy_floats(&given, &mut copy.spare_capacity_mut()[..len]);
                // SAFETY: each was written
                unsafe { copy.set_len(len) };
                assert_eq!(
                    (copy, are_finite),
                    (given, !is_wrong),
                    "{len}, wrong at {wrong:?}"
                );
            }
        }
    }
}
