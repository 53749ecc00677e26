//! Container images, made by the tools that people make them with.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{command, home::Home};

/// An OCI layout under construction, by `umoci`.
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// An empty one.
    pub fn new(home: &Home, name: &str) -> Result<Self> {
        let dir = home.dir().join(name);
        command::call("umoci", ["init", "--layout", &dir.display().to_string()])?;
        Ok(Self { dir })
    }

    /// A new image of these layers, the lowest first.
    pub fn image(&self, tag: &str, layers: &[&Path]) -> Result<()> {
        let image = self.named(tag);
        command::call("umoci", ["new", "--image", &image])?;
        for layer in layers {
            command::call("umoci", ["raw", "add-layer", "--image", &image, &layer.display().to_string()])?;
        }
        Ok(())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As tools name an image in it: `DIR:TAG`.
    pub fn named(&self, tag: &str) -> String {
        format!("{}:{tag}", self.dir.display())
    }
}

/// A small image that has busybox and its libraries and nothing else, made by `buildah`, whose program serves one page as nobody.
pub fn busybox(home: &Home, tag: &str) -> Result<PathBuf> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
    let busybox = busybox.context("busybox is not installed; run scripts/setup")?;
    let tree = home.dir().join("busybox");
    for directory in ["bin", "srv", "etc"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    fs::copy(busybox, tree.join("bin/busybox"))?;
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and the loader by its path alone.
    for word in command::run(Command::new("ldd").arg(busybox))?.split_whitespace().filter(|word| word.starts_with('/'))
    {
        let library = tree.join(word.trim_start_matches('/'));
        fs::create_dir_all(library.parent().context("a library lies in no directory")?)?;
        fs::copy(word, library)?;
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:\nweb:x:4242:4242::/srv:\n")?;
    fs::write(tree.join("srv/index.html"), "a container serves this\n")?;
    let buildah = |arguments: &[&str]| {
        let mut buildah = Command::new("buildah");
        let storage = home.dir().join("buildah");
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(storage.join("root"));
        buildah.arg("--runroot").arg(storage.join("run")).args(arguments);
        command::run(&mut buildah).map(|said| said.trim().to_owned())
    };
    let container = buildah(&["from", "scratch"])?;
    buildah(&["copy", "--quiet", &container, &tree.display().to_string(), "/"])?;
    let entry = r#"["/bin/busybox","httpd","-f","-v","-p","8080"]"#;
    let options = ["--user", "web", "--workingdir", "/srv", "--env", "GREETING=hello", "--label", "team=web"];
    buildah(&[&["config", "--entrypoint", entry, "--cmd", ""], &options[..], &[&container]].concat())?;
    let layout = home.dir().join(format!("{tag}-layout"));
    buildah(&["commit", "--quiet", "--format", "oci", &container, &format!("oci:{}:{tag}", layout.display())])?;
    Ok(layout)
}
