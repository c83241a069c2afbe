// The page of the demo: shows the HTML that the kernel makes and tells it what a person does. Nothing is fetched.
// `sortTable` comes from tables.js, which stands before this text.

const inVoila = () => document.body.dataset.voila === "voila";

function preferredTheme() {
  const kept = keep("theme");
  if (kept === "light" || kept === "dark") return kept;
  if (!inVoila() && document.body.dataset.jpThemeLight) {
    return document.body.dataset.jpThemeLight === "true" ? "light" : "dark";
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function keep(name, value) {
  try {
    if (value === undefined) return localStorage.getItem("recsys-" + name);
    localStorage.setItem("recsys-" + name, value);
  } catch (refused) {
    return null; // a browser that keeps nothing: the choice lasts as long as the page
  }
}

function show(region, html) {
  const active = document.activeElement;
  const key = region.contains(active) ? active.dataset.key : null;
  const open = [...region.querySelectorAll("details[data-key][open]")].map((each) => each.dataset.key);
  region.innerHTML = html;
  for (const name of open) region.querySelector(`details[data-key="${CSS.escape(name)}"]`)?.setAttribute("open", "");
  if (key) region.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

class Combo {
  // A text field with a list of proposals from the kernel (the ARIA combobox pattern).
  constructor(box, send) {
    this.name = box.dataset.combo;
    this.input = box.querySelector("input");
    this.list = box.querySelector("ul");
    this.send = send;
    this.at = -1;
    this.input.addEventListener("input", () => this.ask());
    this.input.addEventListener("focus", () => { this.input.select(); this.ask(""); });
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("blur", () => setTimeout(() => this.close(), 150));
    this.list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option) this.choose(option);
    });
  }
  ask(text) {
    clearTimeout(this.timer);
    this.at = -1;
    const value = text ?? this.input.value;
    this.timer = setTimeout(() => this.send({ event: "search", name: this.name, value }), text === undefined ? 90 : 0);
    this.wanted = true;
  }
  options() { return [...this.list.querySelectorAll("[role=option]")]; }
  refresh() {
    this.at = -1;
    this.input.removeAttribute("aria-activedescendant");
    const open = this.wanted && document.activeElement === this.input && this.list.children.length > 0;
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
  }
  close() {
    clearTimeout(this.timer);
    this.at = -1;
    this.wanted = false;
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }
  choose(option) {
    this.send({ event: "choose", name: this.name, value: option.dataset.value });
    if (this.name === "pick") this.input.value = "";
    this.close();
  }
  key(event) {
    const options = this.options();
    if (event.key === "Escape") { this.close(); return; }
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.at >= 0 && options[this.at]) this.choose(options[this.at]);
      else if (this.input.value.trim()) {
        this.send({ event: "typed", name: this.name, value: this.input.value });
        if (this.name === "pick") this.input.value = "";
        this.close();
      }
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    if (this.list.hidden) { this.ask(); return; }
    if (!options.length) return;
    this.at = (this.at + step + options.length) % options.length;
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === this.at)));
    options[this.at].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", options[this.at].id);
  }
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    root.className = "rl";
    el.append(root);
    root.innerHTML = model.get("page");
    let asked = 0;
    let answered = 0;
    let slow = null;
    let lost = null;

    const paint = (theme) => {
      root.dataset.theme = theme;
      if (inVoila()) document.documentElement.dataset.theme = theme;
      root.querySelector("[data-local=theme]")?.setAttribute("aria-pressed", String(theme === "dark"));
    };
    paint(preferredTheme());

    const gone = () => {
      const notice = root.querySelector("[data-region=notice]");
      if (notice) notice.innerHTML = '<p>The session has ended, perhaps because it was idle. '
        + '<button type="button" data-local="reload">Open it again where you were</button></p>';
    };
    const send = (content) => {
      asked += 1;
      root.dataset.asked = asked;
      clearTimeout(slow);
      slow = setTimeout(() => root.setAttribute("aria-busy", "true"), 250);
      clearTimeout(lost);
      lost = setTimeout(gone, 15000);
      try {
        model.send({ ...content, number: asked });
      } catch (closed) { // the kernel's end of the line is not there any more
        clearTimeout(slow);
        gone();
      }
    };
    const onAnswer = (content) => {
      if (content.done) {
        answered = Math.max(answered, content.done);
        root.dataset.answered = answered;
        if (answered >= asked) {
          clearTimeout(slow);
          clearTimeout(lost);
          root.removeAttribute("aria-busy");
        }
      }
      if (content.why !== undefined) {
        const box = root.querySelector(
          `details[data-why="${CSS.escape(content.scope)}"][data-value="${CSS.escape(content.film)}"] .rl-why-text`);
        if (box) box.innerHTML = content.why;
      }
    };
    model.on("msg:custom", onAnswer);

    const combos = [...root.querySelectorAll("[data-combo]")].map((box) => new Combo(box, send));
    const regions = [...root.querySelectorAll("[data-region]")];
    const watched = [];
    const watch = (name, call) => { model.on("change:" + name, call); watched.push([name, call]); call(); };
    for (const region of regions) {
      const name = region.dataset.region;
      watch(name, () => {
        show(region, model.get(name));
        combos.filter((combo) => combo.list === region).forEach((combo) => combo.refresh());
      });
    }

    const openTab = (key, focus) => {
      for (const tab of root.querySelectorAll("[data-tab]")) {
        const chosen = tab.dataset.tab === key;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        root.querySelector("#rl-page-" + tab.dataset.tab).hidden = !chosen;
        if (chosen && focus) tab.focus();
        if (chosen) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
    };
    const fill = () => {
      const values = model.get("values");
      if (values.tab) openTab(values.tab, false);
      for (const control of root.querySelectorAll("[data-name]")) {
        const value = values[control.dataset.name];
        if (value === undefined) continue;
        if (control.type === "checkbox") control.checked = Array.isArray(value) ? value.includes(control.value) : value;
        else if (document.activeElement !== control || control.type !== "number") control.value = value;
      }
      for (const output of root.querySelectorAll("[data-shows]")) output.textContent = values[output.dataset.shows];
      for (const combo of combos) {
        const text = (values.texts || {})[combo.name];
        if (text !== undefined && document.activeElement !== combo.input) combo.input.value = text;
      }
    };
    watch("values", fill);
    watch("link", () => {
      if (inVoila() && root.dataset.asked) history.replaceState(null, "", location.pathname + (model.get("link") ? "?" + model.get("link") : ""));
    });

    root.addEventListener("input", (event) => {
      const { name } = event.target.dataset;
      if (event.target.type !== "range") return;
      root.querySelectorAll(`[data-shows="${name}"]`).forEach((output) => { output.textContent = event.target.value; });
    });
    root.addEventListener("change", (event) => {
      const control = event.target;
      if (control.dataset.action) {
        send({ event: control.dataset.action, value: control.dataset.value, rating: control.value });
        return;
      }
      if (!control.dataset.name) return;
      let value = control.type === "checkbox" ? control.checked : control.value;
      if (control.dataset.name === "models") {
        const group = control.closest("fieldset");
        value = [...group.querySelectorAll("input:checked")].map((each) => each.value);
      }
      send({ event: "set", name: control.dataset.name, value });
    });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button, a");
      if (!button) return;
      if (button.dataset.tab) { openTab(button.dataset.tab, true); send({ event: "set", name: "tab", value: button.dataset.tab }); }
      else if (button.dataset.action) send({ event: button.dataset.action, value: button.dataset.value });
      else if (button.dataset.local === "theme") {
        const theme = root.dataset.theme === "dark" ? "light" : "dark";
        keep("theme", theme);
        paint(theme);
      } else if (button.dataset.local === "reload") location.reload();
      else if (button.dataset.local === "copy") copyLink(button);
      else if (button.closest("table[data-sortable] th")) sortTable(button);
      else if (button.classList.contains("rl-skip")) { event.preventDefault(); root.querySelector("#rl-main").focus(); }
    });
    root.addEventListener("keydown", (event) => {
      if (!event.target.dataset.tab) return;
      const tabs = [...root.querySelectorAll("[data-tab]")];
      const here = tabs.indexOf(event.target);
      const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      tabs[(to + tabs.length) % tabs.length].click();
    });
    root.addEventListener("toggle", (event) => {
      const why = event.target;
      if (why.dataset.why && why.open && !why.dataset.known) {
        why.dataset.known = "yes";
        send({ event: "why", name: why.dataset.why, value: why.dataset.value });
      }
    }, true);

    async function copyLink(button) {
      const link = location.origin + location.pathname + (model.get("link") ? "?" + model.get("link") : "");
      const said = button.textContent;
      try {
        await navigator.clipboard.writeText(link);
        button.textContent = "Copied";
      } catch (refused) {
        window.prompt("Copy this link:", link);
      }
      setTimeout(() => { button.textContent = said; }, 1500);
    }

    root.dataset.ready = "yes";
    if (inVoila()) document.title = "Film lab";
    if (inVoila() && location.search.length > 1) send({ event: "restore", value: location.search });
    return () => {
      model.off("msg:custom", onAnswer);
      for (const [name, call] of watched) model.off("change:" + name, call);
    };
  },
};
