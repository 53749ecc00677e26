//! A server of the rack: what it is made of, and its power switch.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use crate::{
    console::{Console, Ran},
    home::Home,
    qmp::Qmp,
    relay,
    tpm::Tpm,
    wire::Wire,
    workshop::installed,
};

/// What the machine's firmware is, and how it boots from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS with QEMU's iPXE ROM on the network card.
    Bios,
    /// OVMF, PXE.
    UefiPxe,
    /// OVMF, HTTP boot alone.
    UefiHttp,
    /// OVMF, PXE, with Secure Boot on and Microsoft's keys of 2011.
    UefiSecureBoot,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS PXE",
            Self::UefiPxe => "UEFI PXE",
            Self::UefiHttp => "UEFI HTTP boot",
            Self::UefiSecureBoot => "UEFI PXE, Secure Boot",
        })
    }
}

/// The model of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Nic {
    Virtio,
    E1000,
}

/// What SMBIOS says of the machine.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Smbios {
    pub manufacturer: String,
    pub product: String,
    pub serial: String,
    pub uuid: String,
}

/// A machine as it is ordered.
#[derive(Debug)]
pub struct Spec {
    pub(crate) home: Rc<Home>,
    pub(crate) wire: Rc<Wire>,
    pub(crate) number: u8,
    firmware: Firmware,
    memory: u32,
    nic: Nic,
    smbios: Smbios,
    disk: Option<PathBuf>,
    scratch: Option<u64>,
    prepare: Option<fn(&Path) -> Result<()>>,
    rom_without_http: bool,
    graphics: bool,
    bridge: String,
    second_bridge: Option<String>,
    medium: Option<(Medium, PathBuf)>,
    stick: Option<PathBuf>,
    tpm: bool,
}

/// What the machine starts from before it asks the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A disc in a drive.
    Cd,
    /// The same file, as a USB disk.
    Usb,
    /// A USB disk of 4 GiB that it was written to, and that can be written to.
    Stick,
}

const STICK_BYTES: u64 = 4 << 30;

impl Spec {
    pub(crate) fn new(home: Rc<Home>, wire: Rc<Wire>, number: u8, firmware: Firmware) -> Self {
        let smbios = Smbios {
            manufacturer: "Bennu Virtual Rack".into(),
            product: match firmware {
                Firmware::Bios => "VR-100".into(),
                Firmware::UefiPxe | Firmware::UefiHttp | Firmware::UefiSecureBoot => "VR-200".into(),
            },
            serial: format!("{}-{number}", home.id()),
            uuid: format!("b3220000-0000-4000-8000-{:08x}{number:04x}", std::process::id()),
        };
        Self {
            home,
            wire,
            number,
            firmware,
            memory: 1024,
            nic: Nic::Virtio,
            smbios,
            disk: None,
            scratch: None,
            prepare: None,
            rom_without_http: false,
            graphics: false,
            bridge: "wire".into(),
            second_bridge: None,
            medium: None,
            stick: None,
            tpm: false,
        }
    }

    /// Starts from this file.
    pub fn starts_from(mut self, medium: Medium, file: &Path) -> Self {
        self.medium = Some((medium, file.to_owned()));
        self
    }

    /// A USB stick with one FAT partition that holds the files of this directory; nothing can write to it.
    pub fn stick(mut self, directory: &Path) -> Self {
        self.stick = Some(directory.to_owned());
        self
    }

    /// With a TPM 2.0.
    pub fn tpm(mut self) -> Self {
        self.tpm = true;
        self
    }

    /// Memory in MiB.
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory = mib;
        self
    }

    /// Model of the network card.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nic = nic;
        self
    }

    /// The product that SMBIOS names, as hardware profiles match it.
    pub fn product(mut self, product: &str) -> Self {
        self.smbios.product = product.into();
        self
    }

    /// A disk of its own, second in the boot order.
    pub fn disk(mut self, image: &Path) -> Self {
        self.disk = Some(image.to_owned());
        self
    }

    /// An empty disk of `bytes` that the booted system can write to and the test can read.
    pub fn scratch(mut self, bytes: u64) -> Self {
        self.scratch = Some(bytes);
        self
    }

    /// Does something with the file of that disk before the machine is there.
    pub fn scratch_prepared(mut self, prepare: fn(&Path) -> Result<()>) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Makes the iPXE in its ROM look like one that was built without HTTP.
    pub fn rom_without_http(mut self) -> Self {
        self.rom_without_http = true;
        self
    }

    /// With a graphics card, without which some programs of UEFI do not start.
    pub fn graphics(mut self) -> Self {
        self.graphics = true;
        self
    }

    /// Plugs it into another bridge than the appliance.
    pub fn bridge(mut self, name: &str) -> Self {
        self.bridge = name.into();
        self
    }

    /// A second network card, on this bridge.
    pub fn second_card(mut self, bridge: &str) -> Self {
        self.second_bridge = Some(bridge.into());
        self
    }

    /// Puts the machine into the rack, switched off.
    pub fn install(self) -> Result<Machine> {
        let name = format!("machine{}", self.number);
        let dir = self.home.dir().join(&name);
        fs::create_dir_all(&dir)?;
        if self.firmware != Firmware::Bios {
            let vars = match self.firmware {
                Firmware::UefiSecureBoot => ["/usr/share/OVMF/OVMF_VARS_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"],
                _ => ["/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS.fd"],
            };
            let vars = installed(&vars, "ovmf")?;
            fs::copy(vars, dir.join("vars.fd")).context("cannot copy the firmware's variables")?;
        }
        if let Some(bytes) = self.scratch {
            fs::File::create(dir.join("scratch"))?.set_len(bytes)?;
            self.prepare.map_or(Ok(()), |prepare| prepare(&dir.join("scratch")))?;
        }
        if let Some((Medium::Stick, file)) = &self.medium {
            fs::copy(file, dir.join("stick")).context("cannot write the stick")?;
            fs::File::options().write(true).open(dir.join("stick"))?.set_len(STICK_BYTES)?;
        }
        let tap = self.wire.tap(&self.bridge)?;
        let second_tap = self.second_bridge.as_ref().map(|bridge| self.wire.tap(bridge)).transpose()?;
        Ok(Machine { spec: self, name, dir, tap, second_tap, running: None, starts: 0 })
    }

    /// Puts the machine into the rack and switches it on.
    pub fn start(self) -> Result<Machine> {
        let mut machine = self.install()?;
        machine.power_on()?;
        Ok(machine)
    }

    fn mac(&self) -> String {
        let rack = std::process::id().to_be_bytes();
        format!("52:54:00:{:02x}:{:02x}:{:02x}", rack[2], rack[3], self.number)
    }

    fn qemu(&self, dir: &Path, tap: &str, qmp: &Path) -> Result<Command> {
        let mut qemu = self.wire.namespace().command("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-smp", "1"]);
        qemu.args(["-accel", "tcg,tb-size=256", "-rtc", "base=utc", "-device", "virtio-rng-pci"]);
        qemu.args(["-m", &self.memory.to_string()]);
        qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp.display()));
        let Smbios { manufacturer, product, serial, uuid } = &self.smbios;
        qemu.arg("-smbios")
            .arg(format!("type=1,manufacturer={manufacturer},product={product},serial={serial},uuid={uuid}"));
        self.add_firmware(&mut qemu, dir)?;
        self.add_nic(&mut qemu, tap);
        if self.rom_without_http {
            let (from, to) = self.relay_sockets();
            relay::splice(&mut qemu, &from, &to);
        }
        if self.graphics {
            qemu.args(["-device", "VGA"]);
        }
        if let Some(disk) = &self.disk {
            qemu.arg("-drive").arg(format!("if=none,id=disk,format=raw,file={}", disk.display()));
            qemu.args(["-device", "virtio-blk-pci,drive=disk,serial=disk,bootindex=2"]);
        }
        if self.scratch.is_some() {
            let scratch = dir.join("scratch");
            qemu.arg("-drive").arg(format!("if=none,id=scratch,format=raw,file={}", scratch.display()));
            // OVMF shows loaders no disk that is not in the boot order.
            let place = if self.firmware != Firmware::Bios && self.medium.is_some() { ",bootindex=3" } else { "" };
            qemu.args(["-device", &format!("virtio-blk-pci,drive=scratch,serial=scratch{place}")]);
        }
        self.add_media(&mut qemu, dir);
        if self.tpm {
            let socket = Tpm::socket(&self.home, &format!("machine{}", self.number));
            qemu.arg("-chardev").arg(format!("socket,id=tpm,path={}", socket.display()));
            qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"]);
        }
        Ok(qemu)
    }

    fn add_media(&self, qemu: &mut Command, dir: &Path) {
        if self.stick.is_some() || matches!(self.medium, Some((Medium::Usb | Medium::Stick, _))) {
            qemu.args(["-device", "qemu-xhci"]);
        }
        if let Some((medium, file)) = &self.medium {
            let (device, readonly, file) = match medium {
                Medium::Cd => ("ide-cd", "on", file.clone()),
                Medium::Usb => ("usb-storage", "on", file.clone()),
                Medium::Stick => ("usb-storage", "off", dir.join("stick")),
            };
            qemu.arg("-drive").arg(format!("if=none,id=medium,format=raw,readonly={readonly},file={}", file.display()));
            qemu.arg("-device").arg(format!("{device},drive=medium,bootindex=0"));
        }
        if let Some(directory) = &self.stick {
            qemu.arg("-drive").arg(format!("if=none,id=stick,format=raw,readonly=on,file=fat:{}", directory.display()));
            qemu.args(["-device", "usb-storage,drive=stick"]);
        }
    }

    fn relay_sockets(&self) -> (PathBuf, PathBuf) {
        let socket = |side| self.home.socket(&format!("relay{}-{side}", self.number));
        (socket("from"), socket("to"))
    }

    fn add_firmware(&self, qemu: &mut Command, dir: &Path) -> Result<()> {
        if self.firmware == Firmware::Bios {
            // Without graphics SeaBIOS, and so the ROM and the loaders above it, speak on the serial port.
            qemu.args(["-machine", "pc,graphics=off"]);
            return Ok(());
        }
        let secure = self.firmware == Firmware::UefiSecureBoot;
        let code = match secure {
            true => ["/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_CODE.secboot.fd"],
            false => ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"],
        };
        let code = installed(&code, "ovmf")?;
        if secure {
            // Such firmware keeps its variables from all that does not run in system management mode.
            qemu.args(["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]);
        } else {
            qemu.args(["-machine", "q35"]);
        }
        qemu.arg("-drive").arg(format!("if=pflash,unit=0,format=raw,readonly=on,file={}", code.display()));
        qemu.arg("-drive").arg(format!("if=pflash,unit=1,format=raw,file={}", dir.join("vars.fd").display()));
        if self.firmware == Firmware::UefiHttp {
            // PXE comes first in the firmware's order; only its absence leads to HTTP boot.
            qemu.args(["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no"]);
            qemu.args(["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no"]);
        }
        Ok(())
    }

    fn add_nic(&self, qemu: &mut Command, tap: &str) {
        let model = match self.nic {
            Nic::Virtio => "virtio-net-pci",
            Nic::E1000 => "e1000",
        };
        qemu.arg("-netdev").arg(format!("tap,id=net0,ifname={tap},script=no,downscript=no,vnet_hdr=off"));
        // In UEFI QEMU's own iPXE ROM would answer in EDK2's place.
        let rom = if self.firmware == Firmware::Bios { "" } else { ",romfile=" };
        qemu.arg("-device").arg(format!("{model},netdev=net0,id=nic0,mac={},bootindex=1{rom}", self.mac()));
    }
}

#[derive(Debug)]
struct Running {
    qemu: Child,
    /// Ends after the machine.
    _tpm: Option<Tpm>,
    console: Rc<Console>,
    logged_in: bool,
}

/// A machine in the rack. Dropping it switches it off.
#[derive(Debug)]
pub struct Machine {
    spec: Spec,
    name: String,
    dir: PathBuf,
    tap: String,
    second_tap: Option<String>,
    running: Option<Running>,
    starts: u32,
}

/// How long a machine may take from power-on to its login prompt, on a slow host with another machine beside it.
pub const BOOT_SECONDS: u64 = 420;

impl Machine {
    /// Its name in this rack.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its MAC address.
    pub fn mac(&self) -> String {
        self.spec.mac()
    }

    /// Its firmware.
    pub fn firmware(&self) -> Firmware {
        self.spec.firmware
    }

    /// Switches it on.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on already", self.name);
        self.starts += 1;
        let errors = fs::File::create(self.dir.join("qemu.log"))?;
        let tpm = match self.spec.tpm {
            true => Some(Tpm::start(&self.spec.home, &self.name, &self.tpm_state())?),
            false => None,
        };
        let mut command = self.spec.qemu(&self.dir, &self.tap, &self.qmp_socket())?;
        if let Some(tap) = &self.second_tap {
            command.args(["-netdev", &format!("tap,id=net1,ifname={tap},script=no,downscript=no,vnet_hdr=off")]);
            command
                .args(["-device", &format!("virtio-net-pci,netdev=net1,id=nic1,mac={},romfile=", second(&self.mac()))]);
        }
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.spec.home.note_process(qemu.id())?;
        let (Some(output), Some(input)) = (qemu.stdout.take(), qemu.stdin.take()) else {
            unreachable!("both were asked for as pipes")
        };
        if self.spec.rom_without_http {
            let (from, to) = self.spec.relay_sockets();
            relay::start(&from, &to, relay::rom_without_http())?;
        }
        let log = self.dir.join(format!("console-{}.log", self.starts));
        let console = Rc::new(Console::open(output, input, &log)?);
        self.running = Some(Running { qemu, _tpm: tpm, console, logged_in: false });
        Ok(())
    }

    fn qmp_socket(&self) -> PathBuf {
        self.spec.home.socket(&format!("{}.qmp", self.name))
    }

    /// Cuts its power: no shutdown, no warning.
    pub fn power_off(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.qemu.kill().with_context(|| format!("cannot cut the power of {}", self.name))?;
        running.qemu.wait()?;
        self.spec.home.forget_process(running.qemu.id());
        Ok(())
    }

    fn tpm_state(&self) -> PathBuf {
        self.dir.join("tpm")
    }

    /// Puts another TPM in, while it is off.
    pub fn replace_tpm(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on", self.name);
        fs::remove_dir_all(self.tpm_state()).context("cannot take the TPM out")
    }

    /// Writes a disc over the beginning of its stick, while it is off.
    pub fn write_stick(&mut self, disc: &Path) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on", self.name);
        let mut stick = fs::File::options().write(true).open(self.dir.join("stick"))?;
        std::io::copy(&mut fs::File::open(disc)?, &mut stick).context("cannot write the stick").map(drop)
    }

    /// Cuts its power and switches it on again.
    pub fn power_cycle(&mut self) -> Result<()> {
        self.power_off()?;
        self.power_on()
    }

    /// Whether it is on.
    pub fn is_on(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.qemu.try_wait(), Ok(None)))
    }

    /// Presses its reset button.
    pub fn reset(&mut self) -> Result<()> {
        self.order("system_reset", json!({}))?;
        if let Some(running) = &mut self.running {
            running.logged_in = false;
        }
        Ok(())
    }

    /// Pulls or plugs its network cable.
    pub fn cable(&self, plugged: bool) -> Result<()> {
        self.order("set_link", json!({ "name": "nic0", "up": plugged }))
    }

    fn order(&self, order: &str, arguments: serde_json::Value) -> Result<()> {
        Qmp::connect(&self.qmp_socket())?.execute(order, arguments)?;
        Ok(())
    }

    /// Its serial console since it was last switched on.
    pub fn console(&self) -> Result<Rc<Console>> {
        match &self.running {
            Some(running) => Ok(Rc::clone(&running.console)),
            None => anyhow::bail!("{} is off{}", self.name, self.complaint()),
        }
    }

    /// Waits for the login prompt, and logs in; the time from power-on to the prompt.
    pub fn login(&mut self) -> Result<Duration> {
        let console = self.console()?;
        let prompt = console.login("root", "bennu", BOOT_SECONDS).with_context(|| self.complaint())?;
        if let Some(running) = &mut self.running {
            running.logged_in = true;
        }
        Ok(prompt)
    }

    /// Runs a command as root on the booted system, logging in before when needed; its output when it succeeds.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let ran = self.try_run(command, 180)?;
        ensure!(ran.status == 0, "'{command}' on {} ended with {}: {}", self.name, ran.status, ran.output);
        Ok(ran.output)
    }

    /// Like [`Machine::run`], for commands that may fail or take long.
    pub fn try_run(&mut self, command: &str, seconds: u64) -> Result<Ran> {
        if !self.running.as_ref().is_some_and(|running| running.logged_in) {
            self.login()?;
        }
        self.console()?.run(command, seconds)
    }

    /// Writes a small text file on the booted system.
    pub fn put(&mut self, path: &str, text: &str) -> Result<()> {
        self.run(&format!(": >{path}"))?;
        // In octal no byte means anything to the shell or the terminal, and a line stays under the terminal's limit.
        for chunk in text.as_bytes().chunks(600) {
            let octal: String = chunk.iter().map(|byte| format!("\\0{byte:03o}")).collect();
            self.run(&format!("printf %b '{octal}' >>{path}"))?;
        }
        Ok(())
    }

    /// Writes what its screen shows to a file, as PNG.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        self.order("screendump", json!({ "filename": file, "format": "png" }))
    }

    /// Presses keys of its keyboard, by QEMU's names for them.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            self.order("send-key", json!({ "keys": [{ "type": "qcode", "data": key }] }))?;
        }
        Ok(())
    }

    /// Presses its power button.
    pub fn press_power(&self) -> Result<()> {
        self.order("system_powerdown", json!({}))
    }

    /// The file of its scratch disk.
    pub fn scratch_file(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// What its scratch disk holds.
    pub fn scratch(&self) -> Result<Vec<u8>> {
        fs::read(self.dir.join("scratch")).with_context(|| format!("{} has no scratch disk", self.name))
    }

    /// What QEMU itself complained about, if anything.
    fn complaint(&self) -> String {
        let said = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
        if said.trim().is_empty() { self.name.clone() } else { format!("{} (QEMU says: {})", self.name, said.trim()) }
    }
}

/// The hardware address of a second card.
fn second(mac: &str) -> String {
    mac.replacen("52:", "56:", 1)
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.power_off() {
            eprintln!("rack: {error:#}");
        }
    }
}
