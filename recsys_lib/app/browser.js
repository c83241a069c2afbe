// What no widget serves: the address bar, the theme, buttons inside HTML, focus after a redraw, a kernel that is gone.
const kept = (theme) => { // null in a browser that keeps nothing
  try { return (theme && (localStorage["film-lab-theme"] = theme)) || localStorage["film-lab-theme"]; } catch { return null; }
};
const voila = document.body.dataset.voila === "voila";
const plain = (link) => new URLSearchParams(link).toString();
export default { render({ model, el }) {
  el.innerHTML = model.get("html");
  const root = () => el.closest(".film-lab") ?? el;
  const part = (name) => el.querySelector(`[data-part=${name}]`);
  let key = null, late;

  const light = voila ? !matchMedia("(prefers-color-scheme: dark)").matches : document.body.dataset.jpThemeLight !== "false";
  const paint = (theme) => { root().dataset.theme = kept(theme) || theme || (light ? "light" : "dark"); };
  const tell = (content) => {
    root().dataset.asked = Number(root().dataset.asked ?? 0) + 1;
    model.send({ ...content, number: root().dataset.asked });
    late ??= setTimeout(() => { part("gone").hidden = false; }, 8000);
  };
  model.on("msg:custom", (answer) => {
    [late, part("gone").hidden] = [clearTimeout(late), true];
    tidy(); // another tab may stand in front
    root().dataset.answered = answer.done;
  });

  const acts = { reload: () => location.reload(), theme: () => paint(root().dataset.theme === "light" ? "dark" : "light"),
    copy: () => navigator.clipboard.writeText(location.href).then(() => { part("copy").textContent = "Copied"; }) };
  const onClick = ({ target }) => {
    const button = target.closest("button");
    key = button?.dataset.do ?? null;
    if (acts[button?.dataset.part]) acts[button.dataset.part](); else tell(key ? { do: key } : {});
  };
  const onBack = () => tell({ link: location.search });
  const inside = (act) => (event) => root().contains(event.target) && act(event);
  const onFocus = ({ target }) => { // keys are no commands to a notebook; what is typed takes the place of what was there
    target.dataset.lmSuppressShortcuts = "true";
    if (target.list) target.select();
  };
  const events = [[document, "click", inside(onClick)], [document, "focusin", inside(onFocus)], [window, "popstate", onBack],
    ...["change", "keyup"].map((name) => [document, name, inside(() => tell({}))])];
  const tidy = () => { // what the widgets' own HTML lacks
    const heading = root().querySelector("[data-said]:not(.lm-mod-hidden *)")?.textContent ?? "";
    if (part("said").textContent !== heading) part("said").textContent = heading;
    for (const handle of root().querySelectorAll("[role=slider]:not([aria-label])")) handle.ariaLabel = handle.closest(".widget-inline-hbox")?.querySelector(".widget-label")?.textContent ?? "Value";
    if (key && document.activeElement === document.body) root().querySelector(`[data-do="${CSS.escape(key)}"]:not(.lm-mod-hidden *)`)?.focus({ preventScroll: true });
  };
  const gone = new AbortController(), watch = new MutationObserver(tidy);
  model.on("change:notice", () => { part("notice").textContent = model.get("notice"); });
  if (voila) model.on("change:link", () => plain(location.search) !== plain(model.get("link")) && history.pushState(null, "", `?${model.get("link")}`));
  setTimeout(() => { // once it stands in the page
    if (voila) [document.title, root().role] = ["Film lab", "main"];
    paint();
    events.forEach(([target, name, act]) => target.addEventListener(name, act, { signal: gone.signal }));
    watch.observe(root(), { childList: true, subtree: true });
    tidy();
    if (voila && location.search) onBack(); else tell({});
    root().dataset.ready = "yes";
  });
  return () => { gone.abort(); watch.disconnect(); };
} };
