//! The command line: a client of the API, and the door to `serve` and `doctor`.

mod appliance;
mod apply;
mod audit;
mod backup;
mod boot;
pub(crate) mod client;
mod console;
pub(crate) mod error;
mod image;
pub(crate) mod import;
mod inventory;
mod lease;
mod machine;
#[cfg(test)]
mod manual;
mod metadata;
mod meter;
pub(crate) mod output;
mod profile;
mod rule;
mod secret;
mod setup;
mod source;
mod status;
mod support;
mod terminal;
mod token;

pub(crate) use status::now;

use clap::{Args, CommandFactory, Parser, Subcommand};
use client::Client;
use error::{CliError, Done};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Boots racks of bare metal into read-only images.
#[derive(Debug, Parser)]
#[command(name = "bennu", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// The appliance to talk to: unix:// and a socket, or https:// and a host
    ///
    /// Over https, BENNU_TOKEN holds a token (`bennu token create` on the appliance makes one), and BENNU_CACERT may name
    /// a file of certificates to trust, such as a copy of the appliance's own.
    #[arg(
        long,
        global = true,
        env = "BENNU_SERVER",
        value_name = "URL",
        default_value = "unix:///run/bennu/bennu.sock"
    )]
    server: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance: DHCP, TFTP, boot HTTP and the API
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Import, look at, tag and remove images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Look at machines and say what they boot
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    /// Say what machines boot by their labels and hardware
    #[command(subcommand)]
    Rule(rule::RuleCommand),
    /// See what is known of server models, and how they boot
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Make the configuration what files say
    Apply(apply::ApplyArguments),
    /// Write the configuration as files, which apply to nothing
    Export(apply::ExportArguments),
    /// See what machines did when they booted
    #[command(subcommand)]
    Boot(boot::BootCommand),
    /// See who holds which address
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Say who may talk to the appliance from afar
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// See who changed what, and whether that record is whole
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Say what images become on their machines: names, keys, files, cloud-init's data, disks that stay
    #[command(subcommand)]
    Metadata(metadata::MetadataCommand),
    /// Keep what is for machines alone: passwords, keys, certificates
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Write everything that makes this appliance into one file
    Backup(backup::BackupArguments),
    /// Make the state what a backup says
    Restore(backup::RestoreArguments),
    /// Write what a colleague needs to help into one file, without secrets
    Support(support::SupportArguments),
    /// Restart, switch off and upgrade the host of an appliance that runs from its own disc
    #[command(subcommand)]
    Appliance(appliance::ApplianceCommand),
    /// The machines as an Ansible inventory
    ///
    /// A script of one line, `exec bennu inventory "$@"`, is an inventory that ansible -i takes. Hosts go by their label
    /// `name`, or by their MAC; groups are label_KEY_VALUE, image_NAME_TAG, state_STATE and arch_ARCH.
    Inventory(inventory::Asked),
    /// How the appliance is
    Status(Json),
    /// The appliance on one screen: its addresses, what boots now, what failed, what happens
    Console(console::ConsoleArguments),
    /// Look for what would keep machines from booting, and say how to mend it
    Doctor {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
        config: PathBuf,
        #[command(flatten)]
        output: Json,
    },
    /// Make a first configuration by answering questions
    Setup(setup::SetupArguments),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
struct Json {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // clap ends the process by itself with 2 for what cannot be parsed, and 0 for help.
    run(Cli::parse()).unwrap_or_else(|error| {
        if !error.what.is_empty() {
            eprintln!("{error}");
        }
        error.exit_code()
    })
}

fn run(cli: Cli) -> Done<ExitCode> {
    match cli.command {
        Command::Serve { config } => serve(&config)?,
        Command::Doctor { config, output } => {
            return Ok(crate::doctor::main(&config, &cli.server, output.json));
        }
        Command::Setup(arguments) => setup::run(&arguments)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bennu", &mut std::io::stdout());
        }
        Command::Man { directory } => write_man_pages(&directory)?,
        command => talk(&cli.server, command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(config: &Path) -> Done {
    use std::io::IsTerminal;
    use tracing_subscriber::fmt::writer::MakeWriterExt;
    crate::memory::share_one_heap();
    let filter = tracing_subscriber::EnvFilter::try_from_env("BENNU_LOG").unwrap_or_else(|_| "info".into());
    let writer = std::io::stderr.and(crate::support::Memory::default);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    crate::serve::run(config).map_err(|error| match error.downcast_ref::<crate::serve::damaged::Damaged>() {
        Some(damaged) => CliError::failed(damaged.to_string(), "").with_code(bennu_host::EXIT_DAMAGED),
        None => error.into(),
    })
}

/// Commands that ask the API.
fn talk(server: &str, command: Command) -> Done {
    let client = Client::new(server)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}"), ""))?;
    let done = runtime.block_on(async {
        match command {
            Command::Image(command) => image::run(&client, command).await,
            Command::Machine(command) => machine::run(&client, command).await,
            Command::Rule(command) => rule::run(&client, command).await,
            Command::Profile(command) => profile::run(&client, command).await,
            Command::Apply(arguments) => apply::apply(&client, arguments).await,
            Command::Export(arguments) => apply::export(&client, arguments).await,
            Command::Boot(command) => boot::run(&client, command).await,
            Command::Lease(command) => lease::run(&client, command).await,
            Command::Token(command) => token::run(&client, command).await,
            Command::Audit(command) => audit::run(&client, command).await,
            Command::Metadata(command) => metadata::run(&client, command).await,
            Command::Secret(command) => secret::run(&client, command).await,
            Command::Backup(arguments) => backup::run(&client, arguments).await,
            Command::Restore(arguments) => backup::restore(&client, arguments).await,
            Command::Support(arguments) => support::run(&client, arguments).await,
            Command::Appliance(command) => appliance::run(&client, command).await,
            Command::Inventory(asked) => inventory::run(&client, asked).await,
            Command::Status(output) => status::run(&client, output).await,
            Command::Console(arguments) => console::run(&client, arguments).await,
            Command::Serve { .. }
            | Command::Doctor { .. }
            | Command::Setup(_)
            | Command::Completions { .. }
            | Command::Man { .. } => Ok(()),
        }
    });
    // A thread that reads standard input for an import that was refused would be waited for otherwise.
    runtime.shutdown_background();
    done
}

fn write_man_pages(directory: &Path) -> Done {
    let refuse = |error: std::io::Error| {
        CliError::failed(
            format!("cannot write man pages in {}: {error}", directory.display()),
            "name a directory that you may write",
        )
    };
    std::fs::create_dir_all(directory).map_err(refuse)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(refuse)
}

/// Every subcommand with its arguments is well formed, and usage errors are told from failures.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::http::{api::tests::Bench, connection::serve_unix};

    /// An appliance's API on a socket.
    pub struct Served {
        pub bench: Bench,
        pub server: String,
        _directory: tempfile::TempDir,
    }

    impl Served {
        pub fn new() -> Self {
            Self::with("")
        }

        /// With more in its configuration.
        pub fn with(config: &str) -> Self {
            let (bench, directory) = (Bench::with(config), tempfile::tempdir().unwrap());
            let socket = directory.path().join("bennu.sock");
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            tokio::spawn(serve_unix(listener, bench.router.clone(), bench.appliance.shutdown.clone()));
            Self { bench, server: format!("unix://{}", socket.display()), _directory: directory }
        }
    }

    /// Runs a command line against it, as a process of its own would.
    pub async fn run(served: &Served, line: &str) -> Done<ExitCode> {
        let words = format!("bennu --server {} {line}", served.server);
        let work = tokio::task::spawn_blocking(move || super::run(Cli::try_parse_from(words.split(' ')).unwrap()));
        work.await.unwrap()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_are_read() {
        for line in [
            "bennu serve --config /etc/bennu/bennu.toml",
            "bennu image import dir:/srv/web web:v1 --level 3",
            "bennu image import kernel=linux initrd=a initrd=b cmdline=x installer:v1",
            "bennu image import docker://registry.example.com/web:v1 web:v1 --creds ci:x --tls-verify=false",
            "bennu image import docker://registry.example.com:5000/web web:v1 --platform linux/arm64 --cert-dir /etc/certs",
            "bennu image list --json",
            "bennu image diff web:v1 web:v2 --files --json",
            "bennu image gc --dry-run --json",
            "bennu image export web:v1 oci:layout:v1 --source",
            "bennu image tag web:v1 web:stable",
            "bennu image test web:v1 --timeout 120 --memory 1024 --console web.log --promote web:stable",
            "bennu image test installer:v1 --expect login: --json",
            "bennu machine assign 52:54:00:00:00:01 web:v1",
            "bennu machine assign 52-54-00-00-00-01 local",
            "bennu machine unassign 525400000001",
            "bennu machine label 52:54:00:00:00:01 rack=b7 row-",
            "bennu machine reserve 52:54:00:00:00:01 10.77.0.20",
            "bennu machine join 52:54:00:00:00:01 52:54:00:00:00:02",
            "bennu machine explain 52:54:00:00:00:01 --json",
            "bennu boot show 52:54:00:00:00:01",
            "bennu boot follow --json",
            "bennu machine list --selector rack=r1,!retired --json",
            "bennu rule set web web:v1 --selector role=web --priority -5 --description racks",
            "bennu rule list --json",
            "bennu apply -f rack -f - --dry-run --prune Rule,Machine --expect-revision 0123 --json",
            "bennu apply --schema",
            "bennu profile list --json",
            "bennu token create ci --role builder --expires 7",
            "bennu token new ci --role builder",
            "bennu token roles",
            "bennu export rack",
            "bennu rule show web",
            "bennu rule remove web",
            "bennu boot logs 52:54:00:00:00:01 --follow --lines 20",
            "bennu lease list",
            "bennu token create ci --scope read --scope images --limit rack=r1,env!=dev --expires 30",
            "bennu token list --json",
            "bennu token revoke 01020304",
            "bennu audit list --machine 52:54:00:00:00:01 --who ci --since 2d --json",
            "bennu audit show 7",
            "bennu audit verify --head sha256:abababababababababababababababababababababababababababababababab",
            "bennu audit verify log.jsonl",
            "bennu audit export log.jsonl",
            "bennu metadata set -f web.toml",
            "bennu metadata show web --json",
            "bennu metadata render 52:54:00:00:00:01 --json",
            "bennu secret set db-password --selector rack=r1 --path /etc/app/db --mode 0440 --owner app:app",
            "bennu secret set tls --machine 52:54:00:00:00:01",
            "bennu secret list --json",
            "bennu secret remove tls",
            "bennu backup rack.tar --without-images",
            "bennu backup list --json",
            "bennu backup verify rack.tar",
            "bennu restore rack.tar --replace --state-dir /var/lib/bennu",
            "bennu restore --last --replace",
            "bennu support rack-support.tar.zst",
            "bennu appliance show --json",
            "bennu appliance restart",
            "bennu appliance power-off",
            "bennu appliance reset --confirm bennu1 --keep-configuration",
            "bennu appliance upgrade bennu.iso --signature bennu.iso.sig --allow-older --no-restart",
            "bennu appliance sign bennu.iso --key release.key",
            "bennu appliance verify bennu.iso --key release.pub --json",
            "bennu inventory --list",
            "bennu inventory --host web-1",
            "bennu status --json",
            "bennu console --plain",
            "bennu setup --output /tmp/bennu.toml",
            "bennu console --tty /dev/tty1",
            "bennu doctor --config x.toml",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_a_usage_error() {
        for line in [
            "bennu",
            "bennu machine assign",
            "bennu machine assign nonsense web:v1",
            "bennu image tag web:v1 W:",
            "bennu image test web:v1 --promote W:",
            "bennu image test web:v1 --timeout soon",
            "bennu rule set web",
            "bennu apply",
            "bennu apply --schema -f rack",
            "bennu rule set -web local",
            "bennu machine list --selector rack=r1,",
            "bennu token create ci",
            "bennu token create ci --scope root",
            "bennu token create ci --scope read --limit rack=r1,",
            "bennu token revoke ci",
            "bennu audit list --since soon",
            "bennu audit verify --head abc",
            "bennu secret set tls",
            "bennu secret set tls --machine 52:54:00:00:00:01 --selector a=b",
            "bennu secret set tls --selector a=b --mode 0600",
            "bennu secret set ../tls --selector a=b",
            "bennu inventory",
            "bennu backup",
            "bennu restore",
            "bennu support",
            "bennu image import dir:/srv/web web:v1 --level 40",
            "bennu image import docker://registry.example.com/web:v1 web:v1 --platform plan9/amd64",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn servers_that_cannot_be_spoken_to_are_usage_errors() {
        for server in ["http://rack:8443", "https://", "https://rack/v1", "unix://relative.sock", "rack"] {
            let error = Client::new(server).unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::from(2), "{server}");
            assert!(!error.help.is_empty());
        }
        assert!(Client::new("unix:///run/bennu/bennu.sock").is_ok());
    }

    #[test]
    fn a_missing_socket_says_how_to_start_the_service() {
        let missing = tempfile::tempdir().unwrap().path().join("bennu.sock");
        let error = talk(&format!("unix://{}", missing.display()), Command::Status(Json { json: false })).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::from(1));
        assert!(error.what.contains("there is no such socket"), "{error}");
        assert!(error.help.contains("bennu serve") || error.help.contains("api.socket"), "{error}");
    }

    #[test]
    fn man_pages_and_completions_are_made_of_every_command() {
        let directory = tempfile::tempdir().unwrap();
        write_man_pages(directory.path()).unwrap();
        assert!(directory.path().join("bennu-image-import.1").exists());
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "bennu", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("unassign"));
    }
}
