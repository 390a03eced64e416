// All runs: search, filters, sorting, columns, groups, and the progress of running ones.

import { change, clock, figure, fillLater, get, h, link, number, short, status } from "./dom.js";

const PAGE = 100;
const DEFAULT = ["status", "set", "family", "AP", "mean_px", "median_px", "seconds", "tags"];
const LABELS = { run: "run", seconds: "time", images_per_s: "images/s", mean_px: "mean px", median_px: "median px", rmse_px: "RMSE px" };
const TIMES = new Set(["seconds", "fit_seconds"]);
const HINT = "words, and terms such as AP>0.5  dataset=mouse,lsp  status!=failed  experiment~lsp  head.sigma=2";

export function runsView(el, first) {
  let args = first;
  let chosen = new Set();
  let keys = [];
  let waiting = null;
  let version = null;

  const search = h("input", { type: "search", "aria-label": "filter", placeholder: HINT, value: args.q ?? "", oninput: typed, title: HINT });
  const message = h("p", { class: "error", role: "alert" });
  const counter = h("span", { class: "faint", role: "status" });
  const running = h("div", { class: "running" });
  const table = h("div", { class: "scroll" });
  const pager = h("div", { class: "pager" });
  const actions = h("span", { class: "actions" });
  const columns = h("details", { class: "menu columns" }, h("summary", {}, "columns"));
  const group = h("details", { class: "menu groups" }, h("summary", {}, "group by"));
  el.append(h("div", { class: "bar" }, search, columns, group, actions, h("span", { class: "grow" }), counter), message, running, table, pager);

  function typed() {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ q: search.value, page: "" }, true), 120);
  }

  const list = (text, otherwise = []) => (text ? text.split(",") : otherwise);
  const shownColumns = () => list(args.columns, DEFAULT);

  async function load() {
    const page = Number(args.page ?? 0);
    const by = list(args.by);
    const asked = { q: args.q, sort: args.sort, offset: page * PAGE, limit: PAGE, columns: shownColumns().join(",") };
    try {
      if (by.length) {
        const found = await get("api/groups", { ...asked, sort: args.sort ?? "-count", by: by.join(",") });
        table.replaceChildren(groupTable(found, found.by));
        counter.textContent = `${found.total} groups`;
        pages(found.total, page);
      } else {
        const found = await get("api/runs", asked);
        version = found.version;
        table.replaceChildren(found.all ? runTable(found.rows) : nothing());
        counter.textContent = found.total === found.all ? `${found.all} rows` : `${found.total} of ${found.all} rows`;
        pages(found.total, page);
      }
      message.textContent = "";
    } catch (error) {
      message.textContent = error.message;
    }
    buttons();
  }

  function nothing() {
    return h("div", { class: "empty" }, h("h2", {}, "No runs yet"), h("p", {}, "Train one with ", h("code", {}, "kplab train experiment=heatmap_small"), " or ", h("code", {}, "make demo"), ". It appears here while it runs."));
  }

  // ------------------------------------------------------------ tables

  function heading(name, numeric = false, label = LABELS[name] ?? name) {
    const now = args.sort ?? (args.by ? "-count" : "-started");
    const on = now.replace(/^-/, "") === name;
    const down = now.startsWith("-");
    const next = on && down ? name : `-${name}`;
    const sorted = on ? (down ? "descending" : "ascending") : null;
    return h("th", { "aria-sort": sorted, scope: "col", class: numeric ? "number" : null },
      h("button", { type: "button", class: "sort", onclick: () => change({ sort: next, page: "" }) }, label, on ? (down ? " ▼" : " ▲") : ""));
  }

  function runTable(rows) {
    return h("table", { class: "data" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "outside" }, "choose")), heading("run"), shownColumns().map((c) => heading(c, rows.some((r) => typeof r[c] === "number"))), heading("started"))),
      h("tbody", {}, rows.map(rowOf)));
  }

  function rowOf(row) {
    const box = h("input", { type: "checkbox", "aria-label": `choose ${row.run}`, checked: chosen.has(row.run), onchange: () => {
      if (box.checked) chosen.add(row.run);
      else chosen.delete(row.run);
      buttons();
    } });
    const wrong = row.status === "failed" || row.status === "unreadable" || row.status === "stopped";
    return h("tr", { class: wrong ? "wrong" : null },
      h("td", {}, box),
      h("td", { class: "name" }, h("a", { href: link("run", { name: row.run, set: row.set }), title: row.run }, short(row.run)), row.note ? h("span", { class: "note", title: row.note }, ` ${row.note}`) : null,
        row.error ? h("div", { class: wrong ? "reason" : "reason mild", title: row.error }, row.error.split("\n")[0]) : null,
        row.leaks > 0 ? h("div", { class: "reason mild" }, `splits share ${row.leaks} images`) : null),
      shownColumns().map((c) => cell(c, row[c])),
      h("td", {}, (row.started ?? "").replace("T", " ").slice(0, 16)));
  }

  function cell(name, value) {
    if (name === "status") return h("td", {}, status(value));
    if (name === "tags") return h("td", {}, (value ?? "").split(" ").filter(Boolean).map((tag) => h("a", { class: "tag", href: link("runs", { q: `tags~${tag}` }) }, tag)));
    if (TIMES.has(name)) return h("td", { class: "number" }, clock(value));
    if (typeof value === "number") return h("td", { class: "number" }, value === -1 ? "–" : figure(value));
    return h("td", {}, value ?? "");
  }

  function groupTable(found, by) {
    const numbers = shownColumns().filter((c) => found.groups.some((g) => c in g.means));
    return h("table", { class: "data" },
      h("thead", {}, h("tr", {}, by.map((b) => heading(b)), heading("count", true, "rows"), numbers.map((c) => heading(c, true)), h("th", { scope: "col" }, "runs"))),
      h("tbody", {}, found.groups.map((g) => h("tr", {},
        g.by.map((value) => h("td", { class: typeof value === "number" ? "number" : null }, value === null ? "–" : number(value))),
        h("td", { class: "number" }, String(g.count)),
        numbers.map((c) => h("td", { class: "number" }, spread(g.means[c], TIMES.has(c) ? clock : figure))),
        h("td", {}, g.runs.length > 1 ? h("a", { href: link("compare", { runs: g.runs.slice(0, 8).join(",") }) }, `compare ${Math.min(8, g.runs.length)}`) : h("a", { href: link("run", { name: g.runs[0] }) }, short(g.runs[0]))))))); 
  }

  /** Mean and standard deviation; of a single value the value alone. */
  function spread(moments, text) {
    if (!moments) return "–";
    return [text(moments[0]), moments[1] === null ? "" : h("span", { class: "faint" }, ` ± ${text(moments[1])}`)];
  }

  // ------------------------------------------------------------ parts

  function pages(total, page) {
    const last = Math.max(0, Math.ceil(total / PAGE) - 1);
    pager.replaceChildren(...(last === 0 ? [] : [
      h("button", { type: "button", disabled: page === 0, onclick: () => change({ page: page - 1 || "" }) }, "previous"),
      h("span", {}, `page ${page + 1} of ${last + 1}`),
      h("button", { type: "button", disabled: page >= last, onclick: () => change({ page: page + 1 }) }, "next")]));
  }

  function buttons() {
    const names = [...chosen];
    actions.replaceChildren(
      h("button", { type: "button", disabled: names.length < 2 || names.length > 8, onclick: () => { location.hash = link("compare", { runs: names.join(",") }); } }, names.length ? `compare ${names.length}` : "compare"),
      h("button", { type: "button", disabled: !names.length || names.length > 8, onclick: () => { location.hash = link("images", { runs: names.join(",") }); } }, "images"));
  }

  /** Lists of keys with a search: those that are on first. */
  function menu(box, title, on, most, apply) {
    const list = h("div", { class: "options" });
    const find = h("input", { type: "search", placeholder: "search keys", "aria-label": `search ${title}`, oninput: show });
    function show() {
      const wanted = find.value.toLowerCase();
      const fits = keys.filter((k) => k.name.toLowerCase().includes(wanted) && k.name !== "run" && !on().includes(k.name));
      const offered = [...on().map((name) => ({ name })), ...fits].slice(0, 60);
      list.replaceChildren(...offered.map((k) => h("label", {}, h("input", { type: "checkbox", checked: on().includes(k.name), onchange: (event) => {
        const next = event.target.checked ? [...on(), k.name].slice(-most) : on().filter((n) => n !== k.name);
        apply(next);
        setTimeout(show);
      } }), ` ${k.name}`)));
    }
    box.append(h("div", { class: "sheet" }, find, list));
    box.addEventListener("toggle", async () => {
      if (!box.open) return;
      keys = await get("api/keys");
      show();
      find.focus();
    });
  }

  menu(columns, "columns", shownColumns, 40, (next) => change({ columns: next.join(",") }, true));
  menu(group, "groups", () => list(args.by), 3, (next) => change({ by: next.join(","), sort: "", page: "" }, true));

  function bar(run) {
    const share = run.epochs > 0 ? run.epoch / run.epochs : 0;
    return h("a", { class: "progress", href: link("run", { name: run.run }) },
      h("span", {}, short(run.run)), h("progress", { value: share, max: 1, "aria-label": `progress of ${run.run}` }),
      h("span", {}, `epoch ${run.epoch}${run.epochs > 0 ? `/${run.epochs}` : ""}`),
      h("span", {}, run.loss === null ? "" : `loss ${number(run.loss)}`),
      h("span", {}, run.left === null ? "" : `${clock(run.left)} left`));
  }

  fillLater(table, load(), () => [...table.childNodes]);
  return {
    update(next) {
      args = next;
      if (document.activeElement !== search) search.value = args.q ?? "";
      load();
    },
    event(content) {
      running.replaceChildren(...content.running.map(bar));
      if (version !== null && content.version !== version) load();
      version = content.version;
    },
  };
}
