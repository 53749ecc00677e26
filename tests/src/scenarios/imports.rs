//! Imports by themselves.

use anyhow::ensure;
use std::{fs, process::Command};

use crate::{appliance::Config, command, harness::Life, images, rack::Rack};

/// One source gives one digest, wherever and whenever it is imported.
pub const TWO_STORES: Life = Life {
    name: "two stores",
    shows: &["one_source_one_digest"],
    live: |story| {
        let here = story.rack()?;
        let source = images::images()?.debian_v1();
        story.show("one_source_one_digest", || {
            let copy = here.home().dir().join("a copy of it.tar");
            command::run(Command::new("cp").arg("--reflink=auto").args([&source, &copy]))?;
            let first = here.appliance(Config::full())?;
            first.import("tar", &source, "debian:v1")?;
            // Another store, another file name, another time.
            let there = Rack::new()?;
            let second = there.appliance(Config::full())?;
            second.import("tar", &copy, "another/name:latest")?;
            fs::remove_file(copy)?;
            let (one, two) = (first.digest("debian:v1")?, second.digest("another/name:latest")?);
            ensure!(one == two, "the same source became {one} and {two}");
            Ok(one)
        })
    },
};
