//! Boot scripts: what a loader is told.
