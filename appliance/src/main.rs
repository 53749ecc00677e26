//! The `bennu` binary; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    bennu_appliance::main()
}
