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

class Page {
  // One view of the application: `model` is the kernel's side, `root` the element that everything stands in.
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.asked = 0;
    this.answered = 0;
    this.watched = [];
    root.innerHTML = model.get("page");
    this.paint(preferredTheme());
    this.combos = [...this.all("[data-combo]")].map((box) => new Combo(box, (content) => this.send(content)));
    this.onAnswer = (content) => this.answer(content);
    model.on("msg:custom", this.onAnswer);
    for (const region of this.all("[data-region]")) this.watch(region.dataset.region, () => this.refresh(region));
    this.watch("values", () => this.fill(model.get("values")));
    this.watch("link", () => this.keepLink());
    for (const event of ["input", "change", "click", "keydown"]) root.addEventListener(event, (e) => this[event](e));
    root.addEventListener("toggle", (e) => this.toggle(e), true);
    // In JupyterLab a key pressed here is no command to the notebook; it asks the very element that has the focus.
    root.addEventListener("focusin", ({ target }) => { target.dataset.lmSuppressShortcuts = "true"; });
    root.dataset.ready = "yes";
    if (inVoila()) this.begin();
    else this.all("[data-local=copy]").forEach((button) => { button.hidden = true; }); // only Voilà has links
  }
  all(selector) { return this.root.querySelectorAll(selector); }
  one(selector) { return this.root.querySelector(selector); }
  watch(name, call) {
    this.model.on("change:" + name, call);
    this.watched.push([name, call]);
    call();
  }
  close() {
    this.model.off("msg:custom", this.onAnswer);
    for (const [name, call] of this.watched) this.model.off("change:" + name, call);
  }
  begin() {
    document.title = "Film lab";
    if (location.search.length > 1) this.send({ event: "restore", value: location.search });
  }

  // ---- between the page and the kernel
  send(content) {
    this.asked += 1;
    this.root.dataset.asked = this.asked;
    clearTimeout(this.slow);
    clearTimeout(this.lost);
    this.slow = setTimeout(() => this.root.setAttribute("aria-busy", "true"), 250);
    this.lost = setTimeout(() => this.gone(), 15000);
    try {
      this.model.send({ ...content, number: this.asked });
    } catch (closed) { // the kernel's end of the line is not there any more
      clearTimeout(this.slow);
      this.gone();
    }
  }
  answer(content) {
    if (content.why !== undefined) {
      const place = `details[data-why="${CSS.escape(content.scope)}"][data-value="${CSS.escape(content.film)}"]`;
      const box = this.one(`${place} .rl-why-text`);
      if (box) box.innerHTML = content.why;
    }
    if (!content.done) return;
    this.answered = Math.max(this.answered, content.done);
    this.root.dataset.answered = this.answered;
    if (this.answered < this.asked) return;
    clearTimeout(this.slow);
    clearTimeout(this.lost);
    this.root.removeAttribute("aria-busy");
    if (this.left) this.refresh(this.one("[data-region=notice]")); // it was only slow
    this.left = false;
  }
  gone() {
    const notice = this.one("[data-region=notice]");
    this.left = true;
    if (notice) notice.innerHTML = '<p>The session has ended, perhaps because it was idle. '
      + '<button type="button" data-local="reload">Open it again where you were</button></p>';
  }

  // ---- what the kernel says is shown
  refresh(region) {
    show(region, this.model.get(region.dataset.region));
    this.combos.filter((combo) => combo.list === region).forEach((combo) => combo.refresh());
  }
  fill(values) {
    if (values.tab) this.open(values.tab, false);
    for (const control of this.all("[data-name]")) {
      const value = values[control.dataset.name];
      if (value === undefined) continue;
      if (control.type === "checkbox") control.checked = Array.isArray(value) ? value.includes(control.value) : value;
      else if (document.activeElement !== control || control.type !== "number") control.value = value;
    }
    for (const output of this.all("[data-shows]")) output.textContent = values[output.dataset.shows];
    for (const combo of this.combos) {
      const text = (values.texts || {})[combo.name];
      if (text !== undefined && document.activeElement !== combo.input) combo.input.value = text;
    }
  }
  link() { return location.pathname + (this.model.get("link") ? "?" + this.model.get("link") : ""); }
  keepLink() { if (inVoila() && this.asked) history.replaceState(null, "", this.link()); }
  open(key, focus) {
    for (const tab of this.all("[data-tab]")) {
      const chosen = tab.dataset.tab === key;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      this.one("#rl-page-" + tab.dataset.tab).hidden = !chosen;
      if (chosen && focus) tab.focus();
      if (chosen) tab.parentNode.scrollLeft = tab.offsetLeft - (tab.parentNode.clientWidth - tab.offsetWidth) / 2;
    }
  }
  paint(theme) {
    this.root.dataset.theme = theme;
    if (inVoila()) document.documentElement.dataset.theme = theme;
    this.one("[data-local=theme]")?.setAttribute("aria-pressed", String(theme === "dark"));
  }

  // ---- what a person does is told
  input({ target }) {
    if (target.type !== "range") return;
    for (const output of this.all(`[data-shows="${target.dataset.name}"]`)) output.textContent = target.value;
  }
  change({ target }) {
    const { action, name, value } = target.dataset;
    if (action) this.send({ event: action, value, rating: target.value });
    else if (name === "models") {
      const chosen = target.closest("fieldset").querySelectorAll("input:checked");
      this.send({ event: "set", name, value: [...chosen].map((each) => each.value) });
    } else if (name) {
      this.send({ event: "set", name, value: target.type === "checkbox" ? target.checked : target.value });
    }
  }
  click(event) {
    const button = event.target.closest("button, a");
    if (!button) return;
    const { tab, action, value, local } = button.dataset;
    if (tab) {
      this.open(tab, true);
      this.send({ event: "set", name: "tab", value: tab });
    } else if (action) this.send({ event: action, value });
    else if (local === "theme") this.switchTheme();
    else if (local === "copy") this.copy(button);
    else if (local === "reload") location.reload();
    else if (button.closest("table[data-sortable] th")) sortTable(button);
    else if (button.classList.contains("rl-skip")) {
      event.preventDefault();
      this.one("#rl-main").focus();
    }
  }
  keydown(event) {
    if (!event.target.dataset.tab) return;
    const tabs = [...this.all("[data-tab]")];
    const here = tabs.indexOf(event.target);
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs[(to + tabs.length) % tabs.length].click();
  }
  toggle({ target }) {
    if (!target.dataset.why || !target.open || target.dataset.known) return;
    target.dataset.known = "yes";
    this.send({ event: "why", name: target.dataset.why, value: target.dataset.value });
  }
  switchTheme() {
    const theme = this.root.dataset.theme === "dark" ? "light" : "dark";
    keep("theme", theme);
    this.paint(theme);
  }
  async copy(button) {
    const [link, said] = [location.origin + this.link(), button.textContent];
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = "Copied";
    } catch (refused) {
      window.prompt("Copy this link:", link);
    }
    setTimeout(() => { button.textContent = said; }, 1500);
  }
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    root.className = "rl";
    el.append(root);
    const page = new Page(model, root);
    return () => page.close();
  },
};
