// Keeps pages fresh. Everything works without it but the upload; nothing here decides anything.
"use strict";

(() => {
  const view = document.body.dataset.view;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Times, by the appliance's clock.
  const skew = Number(document.documentElement.dataset.now) - Date.now();
  const rough = (ms) => {
    const minutes = Math.floor(ms / 60000);
    if (minutes < 1) return `${Math.floor(ms / 1000)} s`;
    if (minutes < 60) return `${minutes} min`;
    return minutes < 2880 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`;
  };
  const tick = () => {
    const now = Date.now() + skew;
    for (const time of all("time[data-ago]")) {
      const at = Number(time.dataset.ago);
      const text = at > now ? `in ${rough(at - now)}` : rough(now - at);
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(tick, 15000);

  // The server renders; this takes over what differs. What has the focus keeps it.
  const take = (old, fresh) => {
    if (old.outerHTML === fresh.outerHTML) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    if (focused && focused.matches("input, select, textarea")) return;
    const open = all("details[open]", old).length > 0;
    const place = focused && all("a, button, summary, [tabindex]", old).indexOf(focused);
    const kept = document.importNode(fresh, true);
    if (open) all("details", kept).forEach((details, at) => { details.open = all("details", old)[at]?.open ?? false; });
    old.replaceWith(kept);
    if (focused) all("a, button, summary, [tabindex]", kept)[place]?.focus({ preventScroll: true });
  };
  let loading = null;
  let [cost, uploading] = [0, false];
  const unveil = () => { for (const form of all("#import")) form.hidden = false; };
  const breath = () => new Promise((done) => { setTimeout(done); });
  const refresh = async () => {
    if (loading) return loading.again = true;
    loading = { again: false };
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", headers: { accept: "text/html" } });
      if (answer.redirected && new URL(answer.url).pathname === "/login") return location.reload();
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const ids = (root) => all("[data-fresh]", root).map((region) => region.id);
      if (ids(document).join() === ids(fresh).join()) {
        let taken = 0;
        for (const region of all("[data-fresh]")) {
          take(region, fresh.getElementById(region.id));
          // A long rack is taken over in parts, so that keys and scrolling go on.
          if (++taken % 40 === 0) await breath();
        }
      } else {
        const [old, whole] = [document, fresh].map((root) => root.getElementById("content"));
        if (uploading) return;
        if (!old.contains(document.activeElement) || document.activeElement === old) {
          old.replaceChildren(...whole.childNodes);
          unveil();
        }
        else if (document.getElementById("fresh") && fresh.getElementById("fresh")) take(document.getElementById("fresh"), fresh.getElementById("fresh"));
      }
      const counts = ["counts", "partly"].map((id) => [document.getElementById(id), fresh.getElementById(id)]);
      for (const [old, now] of counts) if (old && now) take(old, now);
      if (view === "rack") filter();
    } finally {
      const { again } = loading;
      cost = performance.now() - began;
      loading = null;
      if (again) later(1000);
    }
  };
  let timer = null;
  // What takes long is done less often.
  const later = (ms) => { timer ??= setTimeout(() => { timer = null; refresh().catch(() => {}); }, Math.max(ms, 6 * cost)); };

  // The rack: what is known of an event goes into its machine's line at once, many events together.
  const pending = new Map();
  let [drawing, pace] = [null, 100];
  const shapeOf = (kind) => `#shape-${kind}`;
  const percentOf = (event, row, marks) => {
    const { seen, step, progress } = event.observation;
    const name = seen === "reported" ? step : seen;
    const reached = marks[name] ?? 0;
    const root = Number(row.dataset.root);
    if (name !== "downloading" || !root) return reached;
    return reached + Math.min(progress / root, 1) * (marks.verified - reached);
  };
  const draw = () => {
    const began = performance.now();
    const table = document.getElementById("fresh");
    if (!table?.dataset.marks) { pending.clear(); drawing = null; return later(300); }
    const [marks, looks] = [JSON.parse(table.dataset.marks), JSON.parse(table.dataset.looks)];
    for (const [mac, events] of pending) {
      const row = document.getElementById(`m-${mac.replaceAll(":", "-")}`);
      if (!row) { later(800); continue; }
      const last = events.at(-1);
      const [word, kind] = looks[last.state] ?? [last.state, "booting"];
      const isNew = row.dataset.boot !== last.boot;
      if (isNew) { row.dataset.boot = last.boot; later(1500); }
      const cell = row.querySelector(".c-state");
      if (row.dataset.kind !== kind || cell.querySelector(".word").textContent !== word) {
        if (row.dataset.kind !== kind && kind !== "booting") later(1500);
        row.dataset.kind = kind;
        cell.querySelector(".state").setAttribute("class", `state k-${kind}`);
        cell.querySelector(".shape").setAttribute("class", `shape k-${kind}`);
        cell.querySelector("use").setAttribute("href", shapeOf(kind));
        cell.querySelector(".word").textContent = word;
      }
      let bar = cell.querySelector("progress");
      if (kind === "booting") {
        if (!bar) {
          bar = document.createElement("progress");
          bar.max = 100;
          bar.setAttribute("aria-label", "Progress of the boot");
          cell.append(bar);
        }
        const reached = Math.max(...events.filter((event) => event.boot === last.boot).map((event) => percentOf(event, row, marks)));
        bar.value = isNew ? reached : Math.max(bar.value, reached);
      } else {
        bar?.remove();
      }
      row.querySelector(".c-last").textContent = last.text;
    }
    pending.clear();
    count();
    pace = Math.max(100, 3 * (performance.now() - began));
    drawing = null;
  };
  const count = () => {
    const kinds = {};
    const rows = all("tr[data-kind]");
    for (const row of rows) kinds[row.dataset.kind] = (kinds[row.dataset.kind] ?? 0) + 1;
    if (document.getElementById("partly") || location.search.includes("state=") || location.search.includes("q=")) return;
    for (const link of all("#counts [data-count]")) {
      const number = link.querySelector("b");
      const text = String(kinds[link.dataset.count] ?? 0);
      if (number.textContent !== text) number.textContent = text;
    }
    if (Object.keys(kinds).some((kind) => !document.querySelector(`#counts [data-count="${kind}"]`))) later(500);
  };

  // A search narrows while it is typed.
  const filter = () => {
    const box = document.getElementById("q");
    const words = box ? box.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    for (const row of all("tr[data-find]")) {
      const hidden = !words.every((word) => row.dataset.find.includes(word));
      if (row.hidden !== hidden) row.hidden = hidden;
    }
    for (const body of all(".rack tbody")) body.hidden = !all("tr[data-find]", body).some((row) => !row.hidden);
  };
  if (view === "rack") {
    document.addEventListener("input", ({ target }) => { if (target.id === "q") filter(); });
    document.addEventListener("change", ({ target }) => { if (target.id === "group") target.form.requestSubmit(); });
  }

  // What happens, as it happens.
  const live = document.getElementById("live");
  const say = (text, lost) => {
    if (!live || live.textContent === text) return;
    live.textContent = text;
    live.classList.toggle("lost", lost);
  };
  const listen = (path, on, missed = () => later(0)) => {
    const source = new EventSource(path);
    let away = false;
    source.onopen = () => { say("live", false); if (away) missed(); away = false; };
    source.onerror = () => { say("reconnecting", true); away = true; if (source.readyState === EventSource.CLOSED) setTimeout(() => later(0), 5000); };
    for (const [name, act] of Object.entries(on)) source.addEventListener(name, (event) => act(JSON.parse(event.data)));
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  };
  if (view === "rack") {
    listen("/v1/events", {
      boot: (event) => {
        const of = pending.get(event.machine);
        of ? of.push(event) : pending.set(event.machine, [event]);
        drawing ??= setTimeout(draw, pace);
      },
      notice: () => later(500),
      lost: () => later(300),
    });
  } else if (view === "machine") {
    const { machine } = document.querySelector("[data-machine]").dataset;
    if (!location.search.includes("boot=")) listen(`/v1/events?machine=${encodeURIComponent(machine)}`, { boot: () => later(250), lost: () => later(250) });
  } else if (view === "images") {
    listen("/v1/events", { push: () => later(400) });
  } else if (view === "logs") {
    const list = document.getElementById("log");
    const { boot, severity, last } = list.dataset;
    const wanted = new URLSearchParams({ follow: "true" });
    if (severity) wanted.set("severity", severity);
    if (last) wanted.set("after", last);
    list.scrollTop = list.scrollHeight;
    // Many lines at once are drawn at once; who has scrolled back stays there.
    const said = [];
    let writing = null;
    const write = () => {
      writing = null;
      const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 20;
      const fresh = document.createDocumentFragment();
      for (const line of said.splice(0).slice(-2000)) {
        const item = document.getElementById("line").content.firstElementChild.cloneNode(true);
        const iso = new Date(line.at).toISOString();
        item.className = `s-${line.severity}`;
        item.querySelector("time").dateTime = iso;
        item.querySelector("time").textContent = iso.slice(0, 23).replace("T", " ");
        item.querySelector(".severity").textContent = line.severity;
        item.querySelector(".unproven").hidden = line.proven;
        item.querySelector(".program").textContent = line.program ?? "";
        item.querySelector(".text").textContent = line.text;
        fresh.append(item);
      }
      list.append(fresh);
      while (list.children.length > 2000) list.firstElementChild.remove();
      document.getElementById("silence").hidden = list.children.length > 0;
      if (isAtEnd) list.scrollTop = list.scrollHeight;
    };
    listen(`/v1/boots/${encodeURIComponent(boot)}/logs?${wanted}`, {
      log: (line) => { said.push(line); writing ??= setTimeout(write, 100); },
    }, () => {});
  } else if (view === "events") {
    const list = document.getElementById("log");
    const line = (at, parts) => {
      const item = document.getElementById("line").content.firstElementChild.cloneNode(true);
      const time = item.querySelector("time");
      const iso = new Date(at).toISOString();
      time.dateTime = iso;
      time.textContent = iso.slice(0, 19).replace("T", " ");
      for (const [name, text] of Object.entries(parts)) item.querySelector(`.${name}`).textContent = text;
      if (parts.machine) item.querySelector(".machine").href = `/ui/machines/${encodeURIComponent(parts.machine)}`;
      else item.querySelector(".machine").remove();
      list.prepend(item);
      while (list.children.length > 500) list.lastElementChild.remove();
    };
    listen("/v1/events", {
      boot: (event) => line(event.observation.at, { machine: event.machine, text: event.text }),
      push: (event) => line(event.at, { text: `push of ${event.name}: ${event.outcome}${event.step ? `, ${event.step}` : ""}` }),
      notice: () => later(300),
    });
  }

  // An upload, with how far it is.
  document.addEventListener("submit", (submitted) => {
    const form = submitted.target;
    if (form.id !== "import") return;
    submitted.preventDefault();
    const file = form.elements.file.files[0];
    const said = document.getElementById("import-said");
    const bar = document.getElementById("import-bar");
    const button = form.querySelector("button");
    if (!file) { said.textContent = "Choose a file first."; form.elements.file.focus(); return; }
    const wanted = { name: form.elements.name.value, source: `upload:${file.name}`, kind: form.elements.kind.value, size: file.size };
    if (form.elements.cmdline.value) wanted.cmdline = form.elements.cmdline.value;
    const request = new XMLHttpRequest();
    let read = 0;
    let end = null;
    const mib = (bytes) => `${(bytes / 1048576).toFixed(0)} MiB`;
    const lines = () => {
      const text = request.responseText;
      for (let stop; (stop = text.indexOf("\n", read)) >= 0; read = stop + 1) {
        const line = JSON.parse(text.slice(read, stop));
        if (line.step) {
          said.textContent = { read: "Reading", modules: "Making the modules' initrd", root: "Making the root", store: "Storing" }[line.step] ?? line.step;
          if (line.total) { bar.max = line.total; bar.value = line.done; } else bar.removeAttribute("value");
        } else if (line.note) said.textContent = line.note;
        else end = line;
      }
    };
    const over = (text) => {
      said.textContent = text;
      said.className = "wrong";
      bar.hidden = true;
      button.disabled = false;
      uploading = false;
    };
    request.upload.onprogress = (event) => {
      bar.max = event.total || file.size;
      bar.value = event.loaded;
      said.textContent = `Sending: ${mib(event.loaded)} of ${mib(file.size)}`;
    };
    request.onprogress = lines;
    request.onerror = () => over("The connection broke. Nothing was kept; try again.");
    request.onload = () => {
      if (request.status === 200) lines();
      else end = { problem: JSON.parse(request.responseText) };
      if (end?.image) location.assign(`/ui/images?done=${end.known ? "known" : "imported"}`);
      else if (end?.problem) over(`${end.problem.detail}. ${end.problem.advice ?? ""}`);
      else over("The import broke off. Nothing was kept; try again.");
    };
    uploading = true;
    said.className = "";
    said.textContent = "Sending";
    bar.hidden = false;
    bar.removeAttribute("value");
    button.disabled = true;
    request.open("POST", `/v1/imports?${new URLSearchParams(wanted)}`);
    request.setRequestHeader("x-bennu-key", document.body.dataset.key);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.send(file);
  });
  unveil();
})();
