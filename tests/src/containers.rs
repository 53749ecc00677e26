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

/// An image in buildah's own storage.
pub struct Built {
    storage: PathBuf,
    /// What `buildah` calls it.
    pub name: String,
}

impl Built {
    /// Gives `buildah`, wherever it is to run, this storage and a task.
    pub fn command(&self, mut buildah: Command, arguments: &[&str]) -> Command {
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.storage.join("root"));
        buildah.arg("--runroot").arg(self.storage.join("run")).args(arguments);
        buildah
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        command::run(&mut self.command(Command::new("buildah"), arguments)).map(|said| said.trim().to_owned())
    }
}

/// A small image that has busybox and its libraries and nothing else, made by `buildah`, whose program serves one page as nobody.
pub fn busybox(home: &Home, name: &str) -> Result<Built> {
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
    let built = Built { storage: home.dir().join("buildah"), name: format!("localhost/{name}") };
    let container = built.run(&["from", "scratch"])?;
    built.run(&["copy", "--quiet", &container, &tree.display().to_string(), "/"])?;
    let entry = r#"["/bin/busybox","httpd","-f","-v","-p","8080"]"#;
    let options = ["--user", "web", "--workingdir", "/srv", "--env", "GREETING=hello", "--label", "team=web"];
    built.run(&[&["config", "--entrypoint", entry, "--cmd", ""], &options[..], &[&container]].concat())?;
    built.run(&["commit", "--quiet", "--format", "oci", &container, &built.name])?;
    Ok(built)
}
