// Elements, data and texts. Text of runs becomes text nodes only, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Fill an element: properties named on… are listeners, others attributes; children are elements, texts, or lists of them. */
function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// ---------------------------------------------------------------- data

const embedded = document.getElementById("report");
/** The content of a report file; null on a server. */
export const report = embedded ? JSON.parse(embedded.textContent) : null;

/** The address of data: the same order of arguments for the same arguments. */
export function address(path, args = {}) {
  const given = Object.entries(args).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  given.sort(([a], [b]) => (a < b ? -1 : 1));
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}

/** Data of an address: of the server, or those that are embedded in a report. */
export async function get(path, args, signal) {
  const place = address(path, args);
  if (report) {
    if (place in report.answers) return report.answers[place];
    throw new Error("this report does not contain that");
  }
  const response = await fetch(place, { signal });
  const found = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Error(found.error ?? response.statusText);
  return found;
}

export async function post(path, content) {
  const response = await fetch(path, { method: "POST", body: JSON.stringify(content) });
  const found = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Error(found.error ?? response.statusText);
  return found;
}

/** The address of an image, as small as it is shown; null where there is none. */
export function imageAddress(run, set, item, width, box = null) {
  if (report) return report.images[`${set}/${item.id}`] ?? null;
  if (!item.version) return null;
  return address("image", { run, set, id: item.id, w: width, box: box && box.join(","), v: item.version });
}

// ---------------------------------------------------------------- places

/** The view and the arguments of the part after # of an address: "#/compare?runs=A,B". */
export function place() {
  const [path, text] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: decodeURIComponent(path || "runs"), args: Object.fromEntries(new URLSearchParams(text ?? "")) };
}

export function link(view, args = {}) {
  return "#/" + address(view, args);
}

/** Go to the same view with other arguments; empty ones are removed. */
export function change(args, replace = false) {
  const now = place();
  const target = link(now.view, { ...now.args, ...args });
  if (replace) {
    history.replaceState(null, "", target);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = target;
}

// ---------------------------------------------------------------- texts

/** A number as text: so many decimals, or four significant digits; a dash for none. */
export function number(value, digits) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value !== "number") return String(value);
  if (digits !== undefined && digits !== null) return value.toFixed(digits);
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1e4 || Math.abs(value) < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** A metric in a table of many: three decimals of small values, fewer of large ones. */
export function figure(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return number(value);
  return Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(1) : value.toFixed(Math.abs(value) < 10 ? 3 : Math.abs(value) < 1000 ? 2 : 0);
}

export function signed(value, digits) {
  return value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + value.toFixed(digits);
}

/** A duration in its two largest units. */
export function clock(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const all = Math.round(seconds);
  const minutes = Math.floor(all / 60);
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(all % 60).padStart(2, "0")} s` : `${all} s`;
}

/** A run's name without its date, if it has one. */
export function short(name) {
  return name.replace(/^\d{4}-\d\d-\d\d_\d{6}_/, "");
}

// ---------------------------------------------------------------- parts of pages

export function status(name) {
  return h("span", { class: `status ${name}` }, name);
}

/** A button that copies a text. */
export function copy(text) {
  const button = h("button", { type: "button", class: "small", onclick: copied }, "copy");
  async function copied() {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = h("textarea", { class: "outside" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }
  return button;
}

/** Show what a promise gives in an element; its error as a message. */
export async function fillLater(element, promise, show) {
  element.setAttribute("aria-busy", "true");
  try {
    const found = await promise;
    element.replaceChildren(...[show(found)].flat(Infinity).filter(Boolean));
  } catch (error) {
    if (error.name !== "AbortError") element.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
  }
  element.removeAttribute("aria-busy");
}

export function section(title, ...content) {
  return h("section", {}, h("h2", {}, title), ...content);
}

/** A choice of one of several values; the change is part of the address. */
export function select(label, options, value, onchange) {
  const box = h("select", { onchange: () => onchange(box.value) },
    options.map((o) => h("option", { value: o.value ?? o, selected: String(o.value ?? o) === String(value ?? "") }, o.label ?? o)));
  return h("label", { class: "field" }, h("span", {}, label), box);
}

/** A button that switches between the theme of the system, light and dark. */
export function themeButton() {
  const names = ["auto", "light", "dark"];
  let now = stored() ?? "auto";
  const button = h("button", { type: "button", class: "small", onclick: next }, "");
  function next() {
    now = names[(names.indexOf(now) + 1) % names.length];
    try { localStorage.setItem("kplab-theme", now); } catch { /* a file without storage keeps it for this page */ }
    apply();
  }
  function apply() {
    if (now === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    button.textContent = `theme: ${now}`;
  }
  apply();
  return button;
}

function stored() {
  try { return localStorage.getItem("kplab-theme"); } catch { return null; }
}
