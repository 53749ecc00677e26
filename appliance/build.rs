//! Gathers what `bennu` carries in itself: the iPXE loaders of the distribution, its signed shim and GRUB, and stage 1,
//! built here as a static program and packed as the initrd that machines get.
//!
//! - `BENNU_LOADERS`: the directory of the loaders; without it the workspace's `.cache/loaders` (`make setup` fills
//!   it) and `/usr/lib/ipxe` (the package `ipxe`) are looked at. `signed/` in it has shim and GRUB; without that the
//!   installed packages `shim-signed` and `grub-efi-amd64-signed` are taken.
//! - `BENNU_STAGE1`: a stage 1 that was built elsewhere, as when cross-building or packaging.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, exit},
};

/// Loaders every appliance has.
const LOADERS: [&str; 3] = ["undionly.kpxe", "snponly.efi", "ipxe.efi"];
const INSTALLED: &str = "/usr/lib/ipxe";
/// The loaders that Secure Boot accepts, and where the packages have them.
const SIGNED: [(&str, &str); 2] = [
    ("shimx64.efi", "/usr/lib/shim/shimx64.efi.signed"),
    ("grubx64.efi", "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
];
const STAGE1_TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(required("OUT_DIR"));
    let workspace = Path::new(&required("CARGO_MANIFEST_DIR")).join("..");

    let mut code = String::from("static EMBEDDED: &[Embedded] = &[\n");
    let loaders = find_loaders(&workspace);
    let (version, source) = provenance(&loaders);
    for name in LOADERS {
        embed(&mut code, name, &loaders.join(name), &version, &source);
    }
    for (name, installed) in SIGNED {
        let (path, version, source) = find_signed(&workspace, name, installed);
        embed(&mut code, name, &path, &version, &source);
    }
    let initrd = out.join("stage1.initrd");
    let program = stage1(&workspace, &out);
    if let Err(error) = fs::read(&program).and_then(|program| fs::write(&initrd, pack(&program)?)) {
        fail(&format!("cannot make {} of {}: {error}", initrd.display(), program.display()));
    }
    let _ = writeln!(code, "];\n/// Stage 1, packed.\npub static STAGE1_INITRD: &[u8] = include_bytes!({initrd:?});");
    pack_browser(&out);
    let file = out.join("embedded.rs");
    fs::write(&file, code).unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", file.display())));
}

/// The page that the API's description is browsed with: of Swagger UI's files the two that it needs, packed as they
/// are sent.
fn pack_browser(out: &Path) {
    let archive = io::Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED);
    let packed = zip::ZipArchive::new(archive).map_err(io::Error::from).and_then(|mut archive| {
        for name in ["swagger-ui-bundle.js", "swagger-ui.css"] {
            let ending = format!("/dist/{name}");
            let path =
                archive.file_names().flatten().find(|path| path.ends_with(&ending)).map(|path| path.into_owned());
            let path = path.ok_or_else(|| io::Error::other(format!("{name} is not in it")))?;
            let file = fs::File::create(out.join(format!("{name}.gz")))?;
            let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::best());
            io::copy(&mut archive.by_name(&path)?, &mut packer)?;
            packer.finish()?;
        }
        Ok(())
    });
    packed.unwrap_or_else(|error| fail(&format!("cannot unpack Swagger UI: {error}")));
}

fn embed(code: &mut String, name: &str, path: &Path, version: &str, source: &str) {
    let path = watched(path);
    let path = path.canonicalize().unwrap_or_else(|error| fail(&format!("cannot find {}: {error}", path.display())));
    let _ = writeln!(
        code,
        "    Embedded {{ name: {name:?}, bytes: include_bytes!({path:?}), version: {version:?}, source: {source:?} }},"
    );
}

/// A signed loader with its version and source.
fn find_signed(workspace: &Path, name: &str, installed: &str) -> (PathBuf, String, String) {
    let gathered = env::var_os("BENNU_LOADERS").map_or_else(|| workspace.join(".cache/loaders"), PathBuf::from);
    let gathered = gathered.join("signed");
    let path = watched(&gathered.join(name));
    if path.is_file() {
        let versions = fs::read_to_string(watched(&gathered.join("VERSIONS"))).unwrap_or_default();
        let value = |key: &str| {
            let key = format!("{name} {key} ");
            versions.lines().find_map(|line| line.strip_prefix(&key)).unwrap_or("unknown").to_owned()
        };
        return (path, value("version"), value("source"));
    }
    let installed = PathBuf::from(installed);
    if installed.is_file() {
        let source = installed.display().to_string();
        return (installed, "unknown".to_owned(), source);
    }
    fail(&format!("{name} is not in {} and {} is not there: run `make setup`", gathered.display(), installed.display()))
}

/// The first directory that has every loader.
fn find_loaders(workspace: &Path) -> PathBuf {
    println!("cargo::rerun-if-env-changed=BENNU_LOADERS");
    let candidates = match env::var_os("BENNU_LOADERS") {
        Some(named) => vec![PathBuf::from(named)],
        None => vec![workspace.join(".cache/loaders"), PathBuf::from(INSTALLED)],
    };
    for directory in &candidates {
        watched(&directory.join(LOADERS[0]));
    }
    let whole = |directory: &&PathBuf| LOADERS.iter().all(|name| directory.join(name).is_file());
    candidates.iter().find(whole).cloned().unwrap_or_else(|| {
        let looked: Vec<String> = candidates.iter().map(|directory| directory.display().to_string()).collect();
        fail(&format!("the loaders {} are not in {}: run `make setup`", LOADERS.join(", "), looked.join(" or ")))
    })
}

/// Version and source of the loaders, from the `VERSIONS` file beside them, else from the package database.
fn provenance(loaders: &Path) -> (String, String) {
    let versions = fs::read_to_string(watched(&loaders.join("VERSIONS"))).unwrap_or_default();
    let value =
        |key: &str| versions.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned);
    let package = || {
        let query = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "ipxe"]).output().ok()?;
        (query.status.success() && loaders == Path::new(INSTALLED))
            .then(|| String::from_utf8_lossy(&query.stdout).into_owned())
    };
    let version = value("version").or_else(package).unwrap_or_else(|| "unknown".to_owned());
    (version, value("source").unwrap_or_else(|| loaders.display().to_string()))
}

/// The path of the stage 1 program.
fn stage1(workspace: &Path, out: &Path) -> PathBuf {
    println!("cargo::rerun-if-env-changed=BENNU_STAGE1");
    if let Some(ready) = env::var_os("BENNU_STAGE1") {
        return watched(Path::new(&ready))
            .canonicalize()
            .unwrap_or_else(|error| fail(&format!("BENNU_STAGE1 names {}: {error}", Path::new(&ready).display())));
    }
    for source in ["stage1", "rules/plan", "Cargo.lock"] {
        watched(&workspace.join(source));
    }
    // A target directory of its own, since cargo holds a lock on the one that this build runs in. Debug and release builds
    // share it, and the disc's init (scripts/iso). The wrapper is clippy's when clippy runs this script: it is for the
    // appliance, not for stage 1.
    let target = out.ancestors().find(|place| place.join("CACHEDIR.TAG").is_file()).unwrap_or(out).join("static");
    let mut cargo = Command::new(required("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--package", "bennu-stage1", "--release", "--target", STAGE1_TARGET, "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("OUT_DIR");
    // What cargo told this script of its own crate: other scripts would run again where it is missing, and be built anew.
    let ours = |name: &str| {
        ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|start| name.starts_with(start))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        cargo.env_remove(name);
    }
    let status = cargo.status().unwrap_or_else(|error| fail(&format!("cannot run cargo for stage 1: {error}")));
    if !status.success() {
        fail("stage 1 does not build; the errors are above (to build without it, name a ready one in BENNU_STAGE1)");
    }
    target.join(STAGE1_TARGET).join("release/stage1")
}

/// Stage 1 as an initrd of its own: a newc archive that holds `/init`, the same bytes for the same program. Compressed,
/// it may follow the modules initrd at any offset; the kernel wants a plain archive on four bytes.
fn pack(program: &[u8]) -> io::Result<Vec<u8>> {
    let init = cpio::newc::Builder::new("init").mode(0o100_755);
    let size = u32::try_from(program.len()).map_err(io::Error::other)?;
    let mut writer = init.write(Vec::with_capacity(program.len() + 1024), size);
    writer.write_all(program)?;
    let archive = cpio::newc::trailer(writer.finish()?)?;
    zstd::encode_all(&archive[..], 19)
}

fn watched(path: &Path) -> PathBuf {
    println!("cargo::rerun-if-changed={}", path.display());
    path.to_owned()
}

fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| fail(&format!("{variable} is not set: build with cargo")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={}", message.replace('\n', " "));
    exit(1)
}
