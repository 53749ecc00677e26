//! Draws the question that the set-up is at.

use super::wizard::{Step, Wizard, heard, locked, told};
use crate::cli::terminal::{Look, Paint, fitted};
use ratatui::{buffer::Buffer, layout::Rect, style::Style};

/// All of the screen.
pub fn draw(wizard: &Wizard, buffer: &mut Buffer, look: Look) {
    let whole = buffer.area;
    // The last column stays free: some terminals go on to the next line from there.
    let area = Rect { width: whole.width.saturating_sub(1), ..whole };
    let mut paint = Paint::on(buffer, area, look);
    let (at, of) = wizard.number();
    let step = format!("{at}/{of}");
    let room = paint.width().saturating_sub(step.len());
    let title = fitted("Set-up of this Bennu appliance", room, look);
    paint.line(&[(&title, look.heading()), (&step, look.heading())]);
    paint.rule();
    paint.skip();
    let (question, explanation) = words(wizard);
    paint.line(&[(question, look.heading())]);
    paint.wrapped(&explanation, 0, Style::new());
    paint.skip();
    match wizard.step {
        Step::Summary => summary(wizard, &mut paint),
        _ => answer(wizard, &mut paint),
    }
    if let Some(wrong) = &wizard.wrong {
        paint.skip();
        paint.wrapped(wrong, 0, look.bad());
    }
    paint.go_to(usize::from(area.height) - 1);
    paint.line(&[(keys(wizard), look.label())]);
}

fn answer(wizard: &Wizard, paint: &mut Paint<'_>) {
    let look = paint.look;
    let choices = wizard.choices();
    if !choices.is_empty() {
        let room = paint.left().saturating_sub(5).max(1);
        let from = (wizard.choice() + 1).saturating_sub(room);
        for (at, choice) in choices.iter().enumerate().skip(from).take(room) {
            match at == wizard.choice() {
                true => paint.band(&format!("> {choice}"), look.selected()),
                false => paint.line(&[("  ", Style::new()), (choice, Style::new())]),
            }
        }
        return;
    }
    // The end of a long text is where one types.
    let room = paint.width().saturating_sub(4);
    let text = wizard.text();
    let shown = &text[text.len().saturating_sub(room)..];
    paint.line(&[("> ", look.label()), (shown, look.heading()), (" ", look.selected())]);
}

/// The question, and what one should know of it.
fn words(wizard: &Wizard) -> (&'static str, String) {
    let none = String::new();
    match wizard.step {
        Step::Interface => (
            "Which network card leads to the machines?",
            "They boot over it. Cables and DHCP servers show as they are found.".into(),
        ),
        Step::Address => {
            let heard = wizard.card().map(heard).unwrap_or_default();
            let explanation = "Its address with the length of the network's prefix. It must be nobody else's.";
            ("Which address has this appliance there?", format!("{explanation} {}", sentence("On this wire", &heard)))
        }
        Step::Dhcp => {
            let heard = wizard.card().map(heard).unwrap_or_default();
            let advice = "One wire needs one server that gives addresses: beside another one, choose proxy.";
            ("Who gives the machines their addresses?", format!("{advice} {}", sentence("On this wire", &heard)))
        }
        Step::Range => (
            "Which addresses may be given to machines?",
            "The first and the last. No other host has one of them.".into(),
        ),
        Step::Router => {
            ("Is there a router on this network?", "Its address; leave it empty where there is none.".into())
        }
        Step::Dns => (
            "Which name servers are there?",
            "Addresses, with spaces between; leave it empty where there are none.".into(),
        ),
        Step::Name => ("What is this host called?", "Letters, digits and '-'.".into()),
        Step::Zone => (
            "In which time zone are times shown here?",
            "A name of IANA's, such as Europe/Zurich. Logs and the API are in UTC.".into(),
        ),
        Step::State => (
            "Where are images, assignments and logs kept?",
            "An empty disk is formatted. Disks with something on them are asked for once more.".into(),
        ),
        Step::Erase => {
            let disk =
                wizard.erased().map(|disk| format!("{} ({})", disk.device.display(), disk.serial)).unwrap_or_default();
            (
                "ALL THAT IS ON THIS DISK WILL BE LOST.",
                format!("To give up what is on {disk}, type its serial number in full."),
            )
        }
        Step::Encryption => (
            "May whoever takes this disk away read it?",
            "What is new is asked or shown once this is done. Discs cannot be installed beside encrypted state.".into(),
        ),
        Step::Summary => ("Is this right?", none),
    }
}

fn sentence(begin: &str, heard: &str) -> String {
    if heard.is_empty() { String::new() } else { format!("{begin}: {heard}.") }
}

fn summary(wizard: &Wizard, paint: &mut Paint<'_>) {
    let answers = wizard.answers();
    let range = if answers.mode == super::written::Mode::Full { answers.range.as_str() } else { "" };
    let dhcp = format!("{} {range}", answers.mode.word());
    let place = if wizard.disks.is_some() { told(&answers.place) } else { String::new() };
    let encryption = if answers.encryption.is_none() { "" } else { locked(answers.encryption) };
    let api = format!("https://{}:8443", answers.address.split('/').next().unwrap_or_default());
    for (name, value) in [
        ("interface", answers.interface.as_str()),
        ("address", &answers.address),
        ("DHCP", &dhcp),
        ("router", &answers.router),
        ("DNS", &answers.dns),
        ("host name", &answers.hostname),
        ("time zone", &answers.zone),
        ("state", &place),
        ("encryption", encryption),
        ("API", &api),
    ] {
        let value = if value.trim().is_empty() { "none" } else { value };
        let name = fitted(name, 12, paint.look);
        paint.line(&[("  ", Style::new()), (&name, paint.look.label()), (value, Style::new())]);
    }
}

fn keys(wizard: &Wizard) -> &'static str {
    match (wizard.step, wizard.choices().is_empty()) {
        (Step::Interface, _) => "Up/Down choose   Enter next",
        (Step::Summary, _) => "Enter begin to serve   Esc back",
        (_, false) => "Up/Down choose   Enter next   Esc back",
        (_, true) => "type   Ctrl-U clear   Enter next   Esc back",
    }
}
