// The page: navigation, theme, keys, and the view that the address names.

import { compareView } from "./compare.js";
import { h, link, place, report, themeButton } from "./dom.js";
import { imagesView } from "./images.js";
import { runView } from "./run.js";
import { runsView } from "./runs.js";

const views = { runs: runsView, run: runView, compare: compareView, images: imagesView };
const titles = { runs: "Runs", run: "Run", compare: "Compare", images: "Images" };

const main = h("main", { id: "main", tabindex: -1 });
const live = h("div", { class: "live", role: "status", "aria-live": "polite" });
const nav = h("nav", { "aria-label": "views" });
const help = h("dialog", { "aria-label": "keys" },
  h("h2", {}, "Keys"),
  h("dl", {}, [["/", "search or filter"], ["?", "this list"], ["r", "runs"], ["Esc", "close, or back to the grid"], ["n p or → ←", "next and previous image"],
    ["t 1 2 …", "show or hide truth and the runs"], ["e", "lines of the errors"], ["k", "names of the keypoints"], ["h", "heatmaps of the first run"], ["z", "zoom to the subjects"], ["+ − 0", "zoom, and the whole image"],
    ["Shift + arrows", "move the zoomed image"]].map(([key, what]) => [h("dt", {}, key), h("dd", {}, what)])),
  h("form", { method: "dialog" }, h("button", {}, "close")));

// ---------------------------------------------------------------- the view of the address

let shown = null; // {name, update(args), event(content), key(event), close()}

function route() {
  const { view, args } = place();
  nav.replaceChildren(...tabs(view, args));
  document.title = `${titles[view] ?? "kplab"} ${args.name ?? args.runs ?? ""} – kplab`;
  if (!(view in views)) {
    main.replaceChildren(h("p", { class: "error" }, `there is no view '${view}'`));
    return;
  }
  if (shown && shown.name === view && shown.update(args) !== false) return;
  shown?.close?.();
  const el = h("div", { class: `view ${view}` });
  main.replaceChildren(el);
  shown = { name: view, ...views[view](el, args) };
}

/** Views that can be reached from here, with the runs that are chosen. */
function tabs(view, args) {
  const runs = args.runs ?? args.name;
  const found = [["runs", report ? null : link("runs"), "Runs"]];
  if (runs) {
    const set = args.set;
    if (!runs.includes(",")) found.push(["run", link("run", { name: runs, set }), "Run"]);
    if (runs.includes(",")) found.push(["compare", link("compare", { runs, set }), "Compare"]);
    found.push(["images", link("images", { runs, set }), "Images"]);
  }
  const links = report ? report.pages.map(([title, target]) => ["", target, title]) : found.filter(([, target]) => target);
  return links.map(([name, target, title]) => h("a", { href: target, "aria-current": name === view || target === location.hash ? "page" : null }, title));
}

// ---------------------------------------------------------------- keys

function typing(target) {
  return /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (shown?.key?.(event)) event.preventDefault();
  else if (event.key === "?") help.showModal();
  else if (event.key === "r" && !report) location.hash = link("runs");
  else if (event.key === "/") {
    const search = main.querySelector("input[type=search]");
    if (search) {
      search.focus();
      event.preventDefault();
    }
  }
});

/** A menu is closed by a click elsewhere. */
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

// ---------------------------------------------------------------- live

function listen() {
  const source = new EventSource("api/events");
  source.addEventListener("message", (event) => shown?.event?.(JSON.parse(event.data)));
  source.addEventListener("open", () => live.replaceChildren());
  source.addEventListener("error", () => live.replaceChildren("no connection to the dashboard: trying again"));
  addEventListener("pagehide", () => source.close());
}

document.body.append(
  h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, "to the content"),
  h("header", {}, h("a", { class: "brand", href: report ? report.pages[0][1] : link("runs") }, "kplab"), nav, h("span", { class: "grow" }), live,
    h("button", { type: "button", class: "small", onclick: () => help.showModal() }, "keys"), themeButton()),
  main, help);
addEventListener("hashchange", route);
if (!location.hash && report) history.replaceState(null, "", report.pages[0][1]);
if (!report) listen();
route();
