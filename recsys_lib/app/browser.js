// What no widget serves: the address bar, the theme, buttons inside HTML, focus after a redraw, a kernel that is gone.
const kept = (theme) => {
  try {
    if (theme) localStorage.setItem("film-lab-theme", theme);
    return localStorage.getItem("film-lab-theme");
  } catch { return null; } // a browser that keeps nothing
};
const voila = document.body.dataset.voila === "voila";

export default { render({ model, el }) {
  el.innerHTML = model.get("html");
  const root = () => el.closest(".film-lab") ?? el;
  const part = (name) => el.querySelector(`[data-part=${name}]`);
  let key = null, late = null;

  const paint = (theme) => [root(), ...(voila ? [document.documentElement] : [])].forEach((e) => { e.dataset.theme = theme; });
  const system = voila || !document.body.dataset.jpThemeLight ? !matchMedia("(prefers-color-scheme: dark)").matches
    : document.body.dataset.jpThemeLight === "true";
  const theme = () => kept() ?? (system ? "light" : "dark");
  const tell = (content) => {
    model.send(content);
    late ??= setTimeout(() => { part("gone").hidden = false; }, 8000);
  };
  model.on("msg:custom", () => { clearTimeout(late); late = null; part("gone").hidden = true; });

  const acts = { reload: () => location.reload(), copy: () => navigator.clipboard.writeText(location.href).then(() => { part("copy").textContent = "Copied"; }),
    theme: () => { kept(theme() === "light" ? "dark" : "light"); paint(theme()); } };
  const onClick = (event) => {
    const button = event.target.closest("button");
    if (!button || !root().contains(button)) return;
    if (button.dataset.do) { key = button.dataset.do; tell({ do: key }); } else acts[button.dataset.part]?.();
  };
  const onChange = (event) => root().contains(event.target) && tell({ ping: true });
  const onFocus = (event) => root().contains(event.target) && event.target.matches(".widget-combobox input") && event.target.select();
  const onBack = () => tell({ link: location.search });
  const onKey = (event) => root().contains(event.target) && !voila && event.stopPropagation(); // no commands to the notebook

  const label = () => {
    for (const handle of root().querySelectorAll("[role=slider]:not([aria-label])")) handle.ariaLabel = handle.closest(".jupyter-widgets")?.querySelector(".widget-label")?.textContent || "Value";
    if (key && document.activeElement === document.body) root().querySelector(`[data-do="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  };
  const watch = new MutationObserver(label);
  const put = (name) => { part(name).textContent = model.get(name); };
  model.on("change:notice", () => put("notice"));
  model.on("change:said", () => put("said"));
  if (voila) model.on("change:link", () => {
    const link = model.get("link") ? "?" + model.get("link") : "";
    if (link !== location.search) history.pushState(null, "", location.pathname + link);
  });

  const events = [[document, "click", onClick], [document, "change", onChange], [document, "focusin", onFocus], [window, "popstate", onBack], [root(), "keydown", onKey]];
  setTimeout(() => {
    paint(theme());
    events[4][0] = root();
    events.forEach(([target, name, act]) => target.addEventListener(name, act));
    watch.observe(root(), { childList: true, subtree: true });
    label();
    if (voila && location.search) onBack();
    root().dataset.ready = "yes";
  });
  return () => { events.forEach(([target, name, act]) => target.removeEventListener(name, act)); watch.disconnect(); };
} };
