//! Random operations, against a model in memory, and against the kernel's driver.

use proptest::prelude::*;

use crate::kernel::{Mount, can_mount};
use crate::model::{Model, Scope};
use crate::namespace::{KINDS, long_form};
use crate::random::Random;
use crate::scratch::{Scratch, errno};
use crate::tree;

/// The block size among the options of `mke2fs`.
fn block_size(options: &str) -> usize {
    let value = options.split("-b ").nth(1).and_then(|rest| rest.split(' ').next());
    value.and_then(|value| value.parse().ok()).expect("a block size")
}

/// Runs operations on a volume and on the model, and judges the volume now and then.
fn run(scratch: &mut Scratch, scope: Scope, picks: impl Iterator<Item = [u32; 4]>, what: &str, every: usize) {
    let mut model = Model::new(scratch.fs(), block_size(what));
    let mut refused = 0;
    for (count, pick) in picks.enumerate() {
        let action = model.pick(scope, pick);
        match model.step(scratch.fs(), &action) {
            Ok(true) => (),
            Ok(false) => refused += 1,
            Err(e) => panic!("{what}: operation {count}: {e}"),
        }
        if count % every == every - 1 {
            let ours = tree::ours(scratch.fs()).unwrap_or_else(|e| panic!("{what}: {count}: {e}"));
            model.assert_like(&ours, &format!("{what}: after {count}"));
            scratch.judge();
        }
    }
    if let Some(kernels) = scratch.judge() {
        model.assert_like(&kernels, what);
    }
    eprintln!("{what}: {} nodes at the end, {refused} operations had no space", model.len());
}

fn random_picks(seed: u64, count: usize) -> impl Iterator<Item = [u32; 4]> {
    let mut random = Random::new(seed);
    (0..count).map(move |_| std::array::from_fn(|_| (random.next() & 0xffff_ffff) as u32))
}

/// Runs on each of these volumes.
fn run_on(kinds: &[&str], scope: Scope, size_mib: u64, count: usize) {
    for (index, options) in kinds.iter().enumerate() {
        let mut scratch = Scratch::new(size_mib, options);
        let picks = random_picks(index as u64 + 1, count);
        run(&mut scratch, scope, picks, options, count.div_ceil(3));
    }
}

#[test]
fn names_change_as_in_the_model() {
    run_on(KINDS, Scope::Names, 16, if long_form() { 20_000 } else { 1_500 });
}

#[test]
fn everything_changes_as_in_the_model() {
    run_on(KINDS, Scope::All, 32, if long_form() { 12_000 } else { 500 });
}

#[test] // What fails for want of space changes nothing.
fn full_volumes_change_as_in_the_model() {
    let kinds: &[&str] = &[
        "-t ext4 -b 1024 -N 256",
        "-t ext4 -b 4096 -N 512 -O inline_data",
        "-t ext3 -b 2048 -N 256",
        "-t ext2 -b 1024 -N 4096 -m 0",
    ];
    run_on(kinds, Scope::All, 6, if long_form() { 12_000 } else { 700 });
}

#[test] // The kernel answers alike, and ends with the same tree.
fn the_kernel_does_the_same() {
    if !can_mount("random operations through the kernel") {
        return;
    }
    for (index, options) in KINDS.iter().enumerate() {
        let mut ours = Scratch::new(16, options);
        let mut theirs = Scratch::new(16, options);
        let mut model = Model::new(ours.fs(), block_size(options));
        let done = theirs.lend(|image| {
            let mount = Mount::new(image, "noatime");
            for (count, pick) in
                random_picks(1000 + index as u64, if long_form() { 5000 } else { 600 }).enumerate()
            {
                let action = model.pick(Scope::Names, pick);
                let kernels = model.ask_kernel(mount.path(), &action);
                let answer = model.ask(ours.fs(), &action);
                let found = errno(&answer);
                let what = model.show(&action);
                assert_eq!(found, kernels, "{options}: operation {count}: {what}: {answer:?}");
                if let Ok(inode) = answer {
                    model.note(&action, inode);
                }
            }
            tree::mounted(mount.path())
        });
        ours.judge();
        let found = tree::ours(ours.fs()).unwrap();
        let names = |tree: &tree::Tree| -> Vec<_> {
            tree.iter()
                .map(|(path, n)| {
                    (path.escape_ascii().to_string(), n.mode, n.links, n.device, n.content.clone())
                })
                .collect()
        };
        assert_same_entries(&names(&done), &names(&found), options);
        model.assert_like(&found, options);
    }
}

/// Fails with the first entry that differs.
fn assert_same_entries<T: PartialEq + std::fmt::Debug>(theirs: &[T], ours: &[T], what: &str) {
    if let Some((a, b)) = theirs.iter().zip(ours).find(|(a, b)| a != b) {
        panic!("{what}: the kernel has {a:?}, we have {b:?}");
    }
    assert_eq!(theirs.len(), ours.len(), "{what}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if long_form() { 200 } else { 12 }, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_names(kind in 0..KINDS.len(), picks in prop::collection::vec(any::<[u32; 4]>(), 1..120)) {
        let mut scratch = Scratch::new(4, KINDS[kind]);
        let every = picks.len();
        run(&mut scratch, Scope::Names, picks.into_iter(), KINDS[kind], every);
    }
}
