//! What can be known of the images without a container runtime: the build is that of this tree, and the programs find the
//! libraries they load.

use std::collections::BTreeSet;
use std::process::Command;

use firn_e2e::rig::procs::source_dir;
use firn_e2e::rig::programs::program;

/// Debian 12: which package of the Dockerfile brings which library. The image itself has those of `libc6` and `libgcc-s1`.
const PACKAGES: [(&str, &[&str]); 2] = [("libssl3", &["libssl.so.3", "libcrypto.so.3"]), ("zlib1g", &["libz.so.1"])];
const IN_THE_IMAGE: [&str; 7] =
    ["ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"];

fn dockerfile() -> String {
    std::fs::read_to_string(source_dir().join("deploy/Dockerfile")).unwrap()
}

/// The stages of the Dockerfile, by name.
fn stage(name: &str) -> String {
    let text = dockerfile();
    let end = format!(" AS {name}\n");
    let (_, rest) = text.split_once(&end).unwrap_or_else(|| panic!("the Dockerfile has no stage {name}"));
    rest.split("\nFROM ").next().unwrap().to_owned()
}

#[test]
fn images_hold_the_libraries_that_the_programs_load() {
    let base = stage("base");
    let provided: BTreeSet<&str> = PACKAGES
        .iter()
        .filter(|(package, _)| base.split_whitespace().any(|word| word == *package))
        .flat_map(|(_, libraries)| libraries.iter().copied())
        .chain(IN_THE_IMAGE)
        .collect();
    for name in ["landing", "compactor"] {
        let listed = Command::new("ldd").arg(program(name)).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let loaded = text.lines().filter_map(|line| line.split_whitespace().next());
        let loaded =
            loaded.map(|path| path.rsplit('/').next().unwrap_or(path)).filter(|lib| !lib.starts_with("linux-vdso"));
        let missing: Vec<&str> = loaded.filter(|library| !provided.contains(library)).collect();
        assert!(missing.is_empty(), "{name} loads {missing:?}, which the image does not have");
    }
}

#[test]
fn images_are_built_from_this_tree_and_start_its_programs() {
    let (text, build) = (dockerfile(), stage("build"));
    let manifest = std::fs::read_to_string(source_dir().join("Cargo.toml")).unwrap();
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    assert!(text.contains(&format!("FROM rust:{rust}-bookworm AS build\n")), "the image builds with Rust {rust}");
    for name in ["landing", "compactor"] {
        assert!(build.contains(&format!("--bin {name}")), "{name} is built");
        let stage = stage(name);
        assert!(stage.contains(&format!("/src/target/release/{name} /usr/local/bin/{name}\n")), "{name} is copied");
        assert!(stage.contains(&format!("ENTRYPOINT [\"{name}\"]\n")), "{name} is started");
        let run = firn_e2e::rig::programs::run(name, &["run".to_owned(), "--help".to_owned()]).unwrap();
        assert!(stage.contains("CMD [\"run\"]") && run.code == Some(0), "{name} has the command `run`");
    }
    // The build needs no more than `localstack/setup` installs for the same crates.
    let setup = std::fs::read_to_string(source_dir().join("localstack/setup")).unwrap();
    for package in ["libssl-dev", "zlib1g-dev", "pkg-config"] {
        assert!(setup.contains(package) && build.contains(package), "{package} is installed before the build");
    }
}
