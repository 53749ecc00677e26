# The one door. Everything is made from a fresh checkout by `make test` or `make demo`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# Seconds on each target under `make fuzz`.
SECONDS_EACH ?= 1440

.PHONY: help setup build deb iso check test test-long demo bench fuzz clean

help:
	@echo 'make demo       three virtual machines boot before your eyes (needs root)'
	@echo 'make test       set-up, checks, unit tests and the end-to-end tests (needs root)'
	@echo 'make check      formatting, lints and documentation'
	@echo 'make build      the release binary, target/release/bennu'
	@echo 'make deb        the Debian package, target/bennu_VERSION_ARCH.deb'
	@echo 'make iso        the appliance as a bootable disc and stick, target/iso/bennu-VERSION-x86_64.iso (needs root once)'
	@echo 'make test-long  the end-to-end tests again and again, resumable (needs root)'
	@echo 'make bench      Bennu beside its peers, into bench/RESULTS.md (needs root); BENCH=--quick only tries it out'
	@echo 'make fuzz       the fuzzer on each target, SECONDS_EACH=$(SECONDS_EACH)'
	@echo 'make setup      installs what is missing'
	@echo 'make clean      removes everything that was built or cached here'

setup:
	@scripts/setup

build: setup
	cargo build --release

deb: build
	@scripts/deb

iso: build
	@scripts/iso

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --workspace --no-deps --quiet

test: check
	@scripts/test

test-long: build
	BENNU_POWER_CUT_IMAGES=10000 cargo test --quiet --package bennu --lib ledger::tests::power_cut
	cargo test --release --quiet --package bennu-rules --test dhcp cost -- --ignored --nocapture
	cargo test --release --quiet --package bennu --lib ledger::tests::speed -- --ignored --nocapture
	cargo test --release --quiet --package bennu --lib -- speed_of --include-ignored --test-threads=1 --nocapture
	cargo build --quiet --package bennu-tests
	target/debug/rack test --long

demo: build
	@cargo build --quiet --package bennu-tests
	@target/debug/rack demo

# BENCH takes options of the bench, such as BENCH='--suite tftp --rounds 3'; its --help tells them all.
bench: build
	@scripts/setup bench
	@cargo build --quiet --release --package bennu-bench
	@target/release/bench $(BENCH)

fuzz: setup
	@scripts/fuzz $(SECONDS_EACH)

clean:
	@if [ -x target/debug/rack ]; then target/debug/rack clean; fi
	cargo clean
	rm -rf .cache
