//! Draws what the view knows.

use super::view::{Counts, Event, Kind, Mode, Power, Row, View};
use crate::{
    cli::{
        output::{age, bytes, seconds, span},
        terminal::{Look, Paint, fitted},
    },
    http::api::status::{InterfaceShown, Status},
    zone::Zone,
};
use bennu_rules::Timestamp;
use ratatui::{buffer::Buffer, layout::Rect, style::Style};

/// Columns of the names of fields.
const LABEL: usize = 10;
/// Lines that a heading takes, with the space above it.
const HEADING: usize = 2;
/// Events that are shown at least.
const LEAST_EVENTS: usize = 3;
/// The least screen on which lists are drawn.
const LEAST_WIDTH: u16 = 40;

/// All of the screen.
pub fn draw(view: &View, buffer: &mut Buffer, look: Look) {
    let whole = buffer.area;
    if whole.width < LEAST_WIDTH {
        Paint::on(buffer, whole, look).wrapped("This screen is too narrow.", 0, Style::new());
        return;
    }
    // The last column stays free: some terminals go on to the next line from there.
    let area = Rect { width: whole.width - 1, ..whole };
    let mut paint = Paint::on(buffer, area, look);
    match view.mode {
        Mode::Overview => overview(view, &mut paint),
        Mode::Timeline(from) => timeline(view, from, &mut paint),
        Mode::Help => help(view, &mut paint),
        Mode::Asking(what, again) => asking(what, again, &mut paint),
        Mode::Naming => naming(view, &mut paint),
    }
    paint.go_to(usize::from(area.height) - 1);
    footer(view, &mut paint);
}

fn overview(view: &View, paint: &mut Paint<'_>) {
    title(view, paint);
    match (&view.facts.status, &view.facts.trouble) {
        (_, Some(trouble)) => {
            let waits = format!(" waiting for the service: {trouble}");
            paint.band(&waits, paint.look.loud());
        }
        (None, None) => paint.line(&[("waiting for the service", Style::new())]),
        _ => {}
    }
    if let Some(status) = &view.facts.status {
        about(status, paint);
    }
    if let Some(token) = &view.facts.token {
        first_token(token, paint);
    }
    paint.skip();
    lists(view, paint);
}

fn title(view: &View, paint: &mut Paint<'_>) {
    let status = view.facts.status.as_ref();
    let name = status.map_or("", |status| status.hostname.as_str());
    let name = if name.is_empty() { "Bennu" } else { name };
    let version =
        status.map_or_else(String::new, |status| format!("Bennu {}, up {}", status.version, span(status.uptime_ms)));
    let clock = zone(view).clock_and_zone(view.facts.now);
    let right = if version.is_empty() { clock } else { format!("{version}  {clock}") };
    let room = paint.width().saturating_sub(right.chars().count() + 1);
    let name = fitted(name, room, paint.look);
    paint.line(&[(&name, paint.look.heading()), (" ", Style::new()), (&right, Style::new())]);
    paint.rule();
}

/// That in which the appliance's people read times.
fn zone(view: &View) -> Zone {
    Zone::of(view.facts.status.as_ref().and_then(|status| status.time_zone.as_deref()))
}

fn field(paint: &mut Paint<'_>, name: &str, value: &str, style: Style) {
    let name = fitted(name, LABEL, paint.look);
    paint.line(&[(&name, paint.look.label()), (value, style)]);
}

fn about(status: &Status, paint: &mut Paint<'_>) {
    let plain = Style::new();
    let dhcp = format!("DHCP {}", format!("{:?}", status.dhcp).to_lowercase());
    match status.interfaces.as_slice() {
        [] => field(paint, "serving", "nothing: no interface is up", paint.look.bad()),
        all => {
            for (at, interface) in all.iter().enumerate() {
                let stands_by = interface.stands_by_for.map(|server| format!("STANDS BY for {server}: no DHCP"));
                let mode = stands_by.as_deref().unwrap_or(if at == 0 { dhcp.as_str() } else { "" });
                let post = if stands_by.is_some() { paint.look.bad() } else { plain };
                let label = fitted(if at == 0 { "serving" } else { "" }, LABEL, paint.look);
                let (link, style) = link(interface, paint.look);
                let shown = format!("{} {}/{}, ", interface.name, interface.address, interface.network.prefix_len());
                paint.line(&[
                    (&label, paint.look.label()),
                    (&shown, plain),
                    (link, style),
                    ("  ", plain),
                    (mode, post),
                ]);
            }
        }
    }
    let free = format!("{} free", bytes(status.disk_free));
    match (status.ledger_closed, status.ledger_full, status.state_in_memory) {
        (true, _, _) => {
            paint.band(" THE LEDGER IS CLOSED after a disk fault: restart on a healthy disk", paint.look.loud())
        }
        (_, true, _) => paint.band(" THE DISK IS FULL: nothing is stored until there is room", paint.look.loud()),
        (_, _, true) => {
            let text = " STATE IS IN MEMORY, and LOST when this machine is switched off";
            paint.band(&format!("{text} ({free})"), paint.look.loud());
        }
        _ => field(paint, "state", &format!("on disk, {free}, {} images", status.images), plain),
    }
    let Some(api) = &status.api else { return field(paint, "API", "on the local socket alone", plain) };
    let addresses: Vec<String> = api.listen.iter().map(|address| format!("https://{address}")).collect();
    field(paint, "API", &addresses.join(" "), plain);
    let whole = api.fingerprint.as_str();
    let half = whole.char_indices().nth(16 * 3).map(|(at, _)| at);
    match half.filter(|_| whole.len() + LABEL > paint.width()) {
        Some(half) => {
            field(paint, "SHA-256", &whole[..half], plain);
            field(paint, "", &whole[half..], plain);
        }
        None => field(paint, "SHA-256", whole, plain),
    }
}

fn link(interface: &InterfaceShown, look: Look) -> (&'static str, Style) {
    match interface.link {
        Some(true) => ("link up", look.good()),
        Some(false) => ("NO LINK", look.bad()),
        None => ("", Style::new()),
    }
}

fn first_token(token: &str, paint: &mut Paint<'_>) {
    let text = " First token: may do everything, shown until it is used. t puts it away.";
    paint.band(text, paint.look.loud());
    paint.line(&[(token, paint.look.heading())]);
}

/// How many lines each list gets: those that boot, failures (two lines each), and events.
fn shares(room: usize, booting: usize, failed: usize) -> (usize, usize) {
    let both = room.saturating_sub(HEADING + LEAST_EVENTS + if failed > 0 { HEADING } else { 0 });
    let least_failed = failed.min(2).min(both / 4);
    let booting = booting.max(1).min(both.saturating_sub(2 * least_failed));
    (booting, failed.min(both.saturating_sub(booting) / 2))
}

fn lists(view: &View, paint: &mut Paint<'_>) {
    let rows = &view.facts.machines;
    let first_failed = rows.iter().position(|row| row.kind == Kind::Failed).unwrap_or(rows.len());
    let (booting, failed) = rows.split_at(first_failed);
    let place = view.place();
    heading(view, paint);
    let (lines, failures) = shares(paint.left().saturating_sub(1), booting.len(), failed.len());
    if booting.is_empty() {
        paint.line(&[("  no machine boots or waits now", Style::new())]);
    }
    for at in window(booting.len(), lines, place) {
        machine(&booting[at], place == Some(at), view.facts.now, paint);
    }
    if !failed.is_empty() {
        paint.skip();
        paint.line(&[("FAILURES", paint.look.heading())]);
        let place = place.and_then(|place| place.checked_sub(first_failed));
        for at in window(failed.len(), failures, place) {
            failure(&failed[at], place == Some(at), view.facts.now, paint);
        }
    }
    events(view, paint);
}

/// Which of so many lines are shown, so that the selected one is among them.
fn window(all: usize, shown: usize, selected: Option<usize>) -> std::ops::Range<usize> {
    let shown = shown.min(all);
    let from = selected.filter(|place| *place < all).map_or(0, |place| (place + 1).saturating_sub(shown));
    from..from + shown
}

fn heading(view: &View, paint: &mut Paint<'_>) {
    let counts = view.facts.status.as_ref().map(|status| Counts::of(&status.machines_by_state)).unwrap_or_default();
    let plain = Style::new();
    let mut parts = vec![("MACHINES  ".to_owned(), paint.look.heading())];
    let always = [
        (counts.up, "up", paint.look.good()),
        (counts.booting, "booting", plain),
        (counts.failed, "failed", if counts.failed > 0 { paint.look.bad() } else { plain }),
        (counts.waiting, "waiting", plain),
    ];
    parts.extend(always.map(|(count, word, style)| (format!("{count} {word}   "), style)));
    let others = [(counts.local, "on their own disk"), (counts.never, "not seen")];
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    parts.extend(others.map(|(count, word)| (format!("{count} {word}   "), plain)));
    let parts: Vec<(&str, Style)> = parts.iter().map(|(text, style)| (text.as_str(), *style)).collect();
    paint.line(&parts);
}

/// The columns of a machine's line: name, image, bar.
fn columns(width: usize) -> (usize, usize, usize) {
    // Stage, share, time, and the spaces between all of them.
    const OTHERS: usize = 2 + 8 + 5 + 8 + 4;
    let room = width.saturating_sub(OTHERS);
    let name = (room / 3).clamp(17, 40);
    let image = (room.saturating_sub(name) / 2).clamp(6, 40);
    (name, image, room.saturating_sub(name + image).min(40))
}

fn named(row: &Row, width: usize) -> String {
    match row.name.as_str() {
        "" => row.machine.to_string(),
        name if name.chars().count() + 19 <= width => format!("{} {name}", row.machine),
        name => name.to_owned(),
    }
}

fn machine(row: &Row, is_selected: bool, now: Timestamp, paint: &mut Paint<'_>) {
    let (name, image, bar) = columns(paint.width());
    let look = paint.look;
    let since = format!("{:>7}", span(now.since(row.opened)));
    let name = fitted(&named(row, name), name, look);
    let head =
        format!("{} {name} {} {} ", mark(is_selected), fitted(&row.image, image, look), fitted(row.stage, 8, look));
    let style = if is_selected { look.selected() } else { Style::new() };
    if row.kind == Kind::Waiting {
        let text = fitted("waits for an assignment", bar + 5, look);
        return paint.line(&[(&head, style), (&text, style), (&since, style)]);
    }
    let (bar, share) = (paint.bar(row.percent, bar), format!("{:>4}%", row.percent));
    let of_bar = if is_selected { style } else { look.label() };
    paint.line(&[(&head, style), (&bar, of_bar), (&share, style), (&since, style)]);
}

/// Without colours and reversed letters too one sees where one is.
fn mark(is_selected: bool) -> char {
    if is_selected { '>' } else { ' ' }
}

fn failure(row: &Row, is_selected: bool, now: Timestamp, paint: &mut Paint<'_>) {
    let (name, image, _) = columns(paint.width());
    let look = paint.look;
    let shown_name = fitted(&named(row, name), name, look);
    let head = format!("{} {shown_name} {} ", mark(is_selected), fitted(&row.image, image, look));
    let ago = format!("{:>4} ago  ", age(row.last_seen, now));
    let style = if is_selected { look.selected() } else { Style::new() };
    let reason = if is_selected { style } else { look.bad() };
    let room = paint.width().saturating_sub(head.chars().count() + ago.len());
    paint.line(&[(&head, style), (&ago, style), (&fitted(&row.reason, room, look), reason)]);
    let advice = if row.advice.is_empty() { "Enter shows what was seen of it" } else { &row.advice };
    let advice = fitted(advice, paint.width().saturating_sub(4), look);
    paint.line(&[("    ", Style::new()), (advice.trim_end(), Style::new())]);
}

fn events(view: &View, paint: &mut Paint<'_>) {
    paint.skip();
    paint.line(&[("EVENTS", paint.look.heading())]);
    let room = paint.left().saturating_sub(1);
    let (events, zone) = (&view.facts.events, zone(view));
    for Event { at, of, text } in events.range(events.len().saturating_sub(room)..) {
        let at = format!("  {} ", zone.clock(*at));
        let of = fitted(of, 18, paint.look);
        let text = fitted(text, paint.width().saturating_sub(29), paint.look);
        paint.line(&[(&at, paint.look.label()), (&of, Style::new()), (text.trim_end(), Style::new())]);
    }
}

fn timeline(view: &View, from: usize, paint: &mut Paint<'_>) {
    let Some(boot) = &view.facts.boot else {
        return paint.line(&[("looking it up", Style::new())]);
    };
    let name = view.facts.name(boot.summary.machine);
    let head = format!("Boot {} of {name} ({})", boot.summary.id, boot.summary.machine);
    let width = paint.width();
    let head = fitted(&head, width, paint.look);
    paint.line(&[(&head, paint.look.heading())]);
    paint.rule();
    let image = boot.summary.image.as_ref().map(|image| image.reference.to_string());
    field(paint, "image", &image.unwrap_or_else(|| "none".into()), Style::new());
    field(paint, "state", &boot.summary.state.to_string(), Style::new());
    if let Some(diagnosis) = &boot.summary.diagnosis {
        paint.wrapped(&diagnosis.reason, 0, paint.look.bad());
        paint.wrapped(&diagnosis.advice, 0, Style::new());
    }
    paint.skip();
    let mut before = from.checked_sub(1).and_then(|at| boot.timeline.get(at)).map_or(0, |entry| entry.after_ms);
    for entry in boot.timeline.iter().skip(from) {
        if paint.left() <= 2 {
            let more = if paint.look.unicode { "  »" } else { "  ..." };
            paint.line(&[(more, Style::new())]);
            break;
        }
        let (at, step) = (seconds(entry.after_ms), seconds(entry.after_ms.saturating_sub(before)));
        before = entry.after_ms;
        let head = format!("{at:>9} {step:>8}  ");
        let text = fitted(&entry.text, width.saturating_sub(head.len()), paint.look);
        paint.line(&[(&head, paint.look.label()), (text.trim_end(), Style::new())]);
    }
}

fn help(view: &View, paint: &mut Paint<'_>) {
    paint.line(&[("Keys", paint.look.heading())]);
    paint.rule();
    let mut keys = vec![
        ("Up, Down", "select a machine"),
        ("Tab", "from those that boot to those that failed, and back"),
        ("Enter", "what was seen of the selected machine's boot; Esc comes back"),
        ("Ctrl-L", "draw everything anew, and look how large the screen is"),
        ("t", "put the first token away, where one is shown"),
    ];
    match view.on_disc {
        true => keys.extend([
            ("p", "switch this machine off"),
            ("r", "restart this machine"),
            ("F", "have everything go that this appliance keeps, and start anew"),
        ]),
        false => keys.push(("q", "leave")),
    }
    for (key, does) in keys {
        field(paint, key, does, Style::new());
    }
    paint.skip();
    let text = "This view shows what `bennu status` and `bennu boot` tell, and changes nothing. Times are of the zone that stands above. Everything else is done \
                from another host, with the API's address, its certificate's fingerprint and a token.";
    paint.wrapped(text, 0, Style::new());
}

fn asking(what: Power, again: bool, paint: &mut Paint<'_>) {
    let (does, doing) = match what {
        Power::Off => ("Switch this machine off?", "switched off"),
        Power::Restart => ("Restart this machine?", "restarted"),
        Power::Reset => ("Have EVERYTHING go that this appliance keeps?", "emptied"),
    };
    paint.line(&[(does, paint.look.heading())]);
    paint.rule();
    let warning = match what {
        Power::Reset => {
            "Machines, images, keys, tokens, backups, logs and the configuration go; the discs in the slots stay. Then it starts \
             into its set-up. Without a backup that lies elsewhere there is no way back."
        }
        _ => "No machine of the rack gets an address or an image meanwhile; those that run go on.",
    };
    paint.wrapped(warning, 0, Style::new());
    paint.skip();
    let question = match again {
        false => "y: yes      any other key: no".to_owned(),
        true if what == Power::Reset => "Really? Then type its name.      y: yes      any other key: no".to_owned(),
        true => format!("Really? It is {doing} at once.      y: yes      any other key: no"),
    };
    paint.line(&[(&question, if again { paint.look.loud() } else { Style::new() })]);
}

fn naming(view: &View, paint: &mut Paint<'_>) {
    paint.line(&[("Have EVERYTHING go that this appliance keeps?", paint.look.heading())]);
    paint.rule();
    let question = format!("Type this machine's name, {}, and Enter. Esc: no", view.facts.host_name);
    paint.wrapped(&question, 0, Style::new());
    paint.skip();
    paint.line(&[(&format!("> {}_", view.typed), paint.look.loud())]);
}

fn footer(view: &View, paint: &mut Paint<'_>) {
    if let Some(remark) = view.remark {
        return paint.band(remark, paint.look.loud());
    }
    let keys = match (view.mode, view.on_disc) {
        (Mode::Overview, true) => "Up/Down select   Enter timeline   Tab failures   p off   r restart   ? help",
        (Mode::Overview, false) => "Up/Down select   Enter timeline   Tab failures   ? help   q leave",
        (Mode::Timeline(_), _) => "Up/Down scroll   Esc back",
        (Mode::Help, _) => "any key: back",
        (Mode::Asking(..) | Mode::Naming, _) => "",
    };
    paint.line(&[(keys, paint.look.label())]);
}

#[cfg(test)]
mod tests;
