// Runs side by side: paired differences with a verdict, charts, keypoints, and how the configs differ.

import { chart, colour } from "./chart.js";
import { change, clock, fillLater, get, h, link, number, report, section, select, short, signed, status } from "./dom.js";

export function compareView(el, args) {
  const asked = { runs: args.runs, set: args.set };
  fillLater(el, get("api/compare", asked), page);

  function page(found) {
    const { labels } = found;
    const names = found.runs.map((r) => r.name);
    const heading = [
      h("div", { class: "title" }, h("h1", {}, `Compare ${names.length} runs`),
        found.sets.length > 1 ? select("scores", found.sets, args.set ?? found.sets[0], (value) => change({ set: value })) : null,
        h("span", { class: "grow" }), h("a", { class: "button", href: link("images", { runs: args.runs, set: args.set }) }, "images")),
      h("ul", { class: "chosen" }, found.runs.map((run, i) => h("li", {}, chip(i), h("a", { href: link("run", { name: run.name, set: args.set }) }, labels[i]), " ",
        h("span", { class: "faint" }, `${report ? run.name : short(run.name)}, ${run.parameters === null ? "?" : (run.parameters / 1e6).toFixed(1)} M parameters, ${clock(run.seconds)}`), run.status === "finished" ? null : status(run.status),
        names.length > 2 ? h("button", { type: "button", class: "small", "aria-label": `remove ${run.name}`, onclick: () => change({ runs: names.filter((n) => n !== run.name).join(",") }) }, "×") : null,
        i ? h("button", { type: "button", class: "small", onclick: () => change({ runs: [run.name, ...names.filter((n) => n !== run.name)].join(",") }) }, "as first") : h("span", { class: "tag" }, "reference")))),
    ];
    const curves = h("div", { class: "charts" });
    fillLater(curves, get("api/curves", { runs: args.runs }), (c) => c.plots.length ? c.plots.map((plot) => chart(plot, { runs: args.runs })) : [h("p", { class: "faint" }, "these runs have no curves")]);
    const training = [section("Training", curves), section("Configs differ in", configs(found, labels))];
    if (!found.sets.length) return [...heading, h("p", { class: "error" }, "These runs share no scores. Run kplab evaluate with the same split for each."), ...training];
    const table = h("div", {}, h("p", { class: "faint" }, "drawing resamples …"));
    const charts = h("div", { class: "charts" });
    const keypoints = h("div", {});
    const intervals = h("div", { class: "charts" });
    fillLater(table, get("api/intervals", asked), (result) => {
      if (result.refused) {
        keypoints.replaceChildren();
        return [h("div", { class: "error", role: "alert" }, h("strong", {}, "These runs can't be compared. "), h("pre", {}, result.refused))];
      }
      keypoints.replaceChildren(perKeypoint(result.per_keypoint, labels));
      intervals.replaceChildren(...result.plots.map((plot) => chart(plot, asked)));
      return [verdicts(result, labels), metrics(result, labels), h("p", { class: "faint" }, `95 % intervals of ${result.resamples} resamples of ${result.unit}s, paired, seed ${result.seed}: those of kplab compare`)];
    });
    fillLater(charts, get("api/analysis", asked), (a) => a.plots.map((plot) => chart(plot, asked)));
    return [...heading, section("Which is better", table), section("Intervals", intervals), section("Errors, and accuracy against cost", charts), section("Keypoints", keypoints), ...training];
  }

  return { update: (next) => next.runs === args.runs && (next.set ?? "") === (args.set ?? "") && next.sort === args.sort };
}

function chip(i) {
  const dot = h("span", { class: "chip", "aria-hidden": "true" });
  dot.style.background = colour(i);
  return dot;
}

/** What can be stated of each run against the first one, in a sentence. */
function verdicts(result, labels) {
  const lines = labels.slice(1).map((label) => {
    const own = result.differences.filter((d) => d.a === labels[0] && d.b === label);
    const better = own.filter((d) => d.verdict === `${label} is better`).map((d) => d.label);
    const worse = own.filter((d) => d.verdict === `${labels[0]} is better`).map((d) => d.label);
    const parts = [better.length ? `better in ${better.join(", ")}` : "", worse.length ? `worse in ${worse.join(", ")}` : ""].filter(Boolean);
    return h("li", {}, h("strong", {}, label), ` against ${labels[0]}: `, parts.length ? parts.join("; ") : "no difference is shown: each interval contains 0");
  });
  return h("ul", { class: "verdicts" }, lines);
}

function metrics(result, labels) {
  const names = [...new Set(result.values.map((v) => v.metric))];
  const value = (run, metric) => result.values.find((v) => v.run === run && v.metric === metric);
  return h("div", { class: "scroll" }, h("table", { class: "data" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "metric"), labels.map((label, i) => h("th", { scope: "col", class: "number" }, chip(i), label)), labels.slice(1).map((label) => h("th", { scope: "col", class: "number" }, `${label} − ${labels[0]}`)))),
    h("tbody", {}, names.map((metric) => {
      const first = value(labels[0], metric);
      return h("tr", {}, h("th", { scope: "row" }, first.label, first.higher_is_better ? " ↑" : " ↓"),
        labels.map((label) => {
          const v = value(label, metric);
          return h("td", { class: "number" }, v ? [h("span", { class: "strong" }, number(v.value, v.digits)), h("span", { class: "faint" }, ` [${number(v.low, v.digits)}, ${number(v.high, v.digits)}]`)] : "–");
        }),
        labels.slice(1).map((label) => {
          const d = result.differences.find((x) => x.a === labels[0] && x.b === label && x.metric === metric);
          if (!d) return h("td", {}, "–");
          const kind = d.zero_inside ? "same" : d.verdict === `${label} is better` ? "better" : "worse";
          return h("td", { class: `number ${kind}` }, `${signed(d.difference, d.digits)} [${signed(d.low, d.digits)}, ${signed(d.high, d.digits)}] `, h("span", { class: "verdict" }, d.zero_inside ? "= not shown" : kind === "better" ? "▲ better" : "▼ worse"));
        }));
    }))));
}

/** Mean error of each keypoint, and the difference of each run to the first; sorted by a click. */
function perKeypoint(rows, labels) {
  let [by, down] = [labels.length > 1 ? labels[1] : labels[0], true];
  const box = h("div", { class: "scroll" });
  const difference = (row, label) => (row[label] === null || row[labels[0]] === null ? null : row[label] - row[labels[0]]);
  function show() {
    const key = (row) => (by === "keypoint" ? row.keypoint : by === labels[0] ? row[by] : difference(row, by)) ?? -Infinity;
    const sorted = [...rows].sort((p, q) => (key(p) < key(q) ? -1 : key(p) > key(q) ? 1 : 0) * (down ? -1 : 1));
    const heading = (name, label) => h("th", { scope: "col", "aria-sort": by === name ? (down ? "descending" : "ascending") : null }, h("button", { type: "button", class: "sort", onclick: () => { down = by === name ? !down : true; by = name; show(); } }, label, by === name ? (down ? " ▼" : " ▲") : ""));
    box.replaceChildren(h("table", { class: "data narrow" },
      h("thead", {}, h("tr", {}, heading("keypoint", "keypoint"), heading(labels[0], `${labels[0]}, px`), labels.slice(1).map((l) => [h("th", { scope: "col" }, `${l}, px`), heading(l, "difference")]))),
      h("tbody", {}, sorted.map((row) => h("tr", {}, h("th", { scope: "row" }, row.keypoint), h("td", { class: "number" }, number(row[labels[0]], 2)),
        labels.slice(1).map((l) => [h("td", { class: "number" }, number(row[l], 2)), h("td", { class: `number ${difference(row, l) < 0 ? "better" : "worse"}` }, signed(difference(row, l), 2))]))))));
  }
  show();
  return box;
}

function configs(found, labels) {
  if (!found.config.length) return h("p", { class: "faint" }, "nothing");
  return h("div", { class: "scroll" }, h("table", { class: "data" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "key"), labels.map((label, i) => h("th", { scope: "col" }, chip(i), label)))),
    h("tbody", {}, found.config.map((line) => h("tr", { class: line.minor ? "faint" : null }, h("th", { scope: "row" }, h("code", {}, line.key)), line.values.map((v) => h("td", { class: "long" }, v === null ? "–" : String(v))))))));
}
