// One run: scores with intervals, errors by keypoint, charts, curves, provenance, config, notes.

import { chart, errorsOnSkeleton } from "./chart.js";
import { change, clock, copy, fillLater, get, h, link, number, post, report, section, select, short, status } from "./dom.js";

export function runView(el, args) {
  const { name } = args;
  let state = null;
  let latest = null;
  fillLater(el, get("api/run", { name }), (run) => {
    latest = run;
    return page(run);
  });

  function page(run) {
    const names = run.sets.map((s) => s.name);
    const set = run.sets.find((s) => s.name === args.set) ?? run.sets[0];
    state = h("p", { class: "running" });
    progress(run.progress);
    return [
      h("div", { class: "title" }, h("h1", {}, short(run.name)), status(run.status),
        run.record.experiment ? h("span", { class: "faint" }, run.record.experiment) : null,
        names.length > 1 ? select("scores", names, set?.name, (value) => change({ set: value })) : null,
        h("span", { class: "grow" }), set && !report ? h("a", { class: "button", href: link("images", { runs: name, set: set.name }) }, "images") : null),
      run.error ? h("p", { class: "error" }, run.error) : null,
      run.cut ? h("p", { class: "faint" }, run.cut) : null,
      run.reproduces ? h("p", {}, run.reproduces) : null,
      run.faults.map((fault) => h("p", { class: "error" }, fault)),
      state,
      set ? scores(set) : h("p", { class: "faint" }, "no scores yet"),
      curves(),
      leaks(run.leaks),
      notes(run),
      h("div", { class: "columns2" },
        section("Provenance", h("ol", { class: "chain" }, run.chain.map(step)), h("p", {}, "to make this run again: ", h("code", {}, run.reproduce), " ", copy(run.reproduce)),
          run.command ? h("p", {}, "made by: ", h("code", {}, run.command), " ", copy(run.command)) : null),
        set ? section("Score card", cardTable(set.card)) : null),
      folded("Config", run.config),
      folded("Record", JSON.stringify(run.record, null, 1)),
    ];
  }

  function progress(now) {
    if (!state) return;
    state.hidden = !now;
    if (now) state.replaceChildren(h("progress", { max: 1, value: now.epochs > 0 ? now.epoch / now.epochs : 0, "aria-label": "progress" }), ` epoch ${now.epoch}/${now.epochs ?? "?"}, loss ${number(now.loss)}, ${clock(now.left)} left`);
  }

  function scores(set) {
    const table = h("div", {}, plain(set));
    const charts = h("div", { class: "charts" }, h("p", { class: "faint" }, "drawing …"));
    const asked = { runs: name, set: set.name };
    fillLater(charts, get("api/analysis", asked), (found) => {
      const errors = found.skeleton.keypoints.map((k) => found.per_keypoint.find((row) => row.keypoint === k)?.mean_px);
      return [
        h("figure", { class: "chart" }, h("div", { class: "head" }, h("h3", {}, "mean error on the skeleton")), errorsOnSkeleton(found.skeleton, found.pose, errors)),
        found.plots.map((plot) => chart(plot, asked)),
      ].flat();
    });
    fillLater(table, get("api/intervals", asked), (found) => [metrics(set, found), h("p", { class: "faint" }, `95 % intervals of ${found.resamples} resamples of ${found.unit}s, seed ${found.seed}`)]);
    return [section("Scores", table), section("Errors and curves of the scores", charts)];
  }

  function plain(set) {
    return h("table", { class: "data narrow" }, h("tbody", {}, Object.entries(set.summary).filter(([key]) => !key.endsWith("_macro")).map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", { class: "number" }, value === -1 ? "–" : number(value))))));
  }

  /** All figures of a summary; those with an interval first. */
  function metrics(set, found) {
    const sure = found.values.map((v) => h("tr", {}, h("th", { scope: "row" }, v.label, v.higher_is_better ? " ↑" : " ↓"), h("td", { class: "number strong" }, number(v.value, v.digits)), h("td", { class: "number" }, `[${number(v.low, v.digits)}, ${number(v.high, v.digits)}]`)));
    const shown = new Set(found.values.map((v) => v.metric));
    const rest = Object.entries(set.summary).filter(([key]) => !shown.has(key));
    return h("div", { class: "columns2" },
      h("table", { class: "data narrow" }, h("thead", {}, h("tr", {}, h("th", {}, "metric"), h("th", { class: "number" }, "value"), h("th", { class: "number" }, "95 % interval"))), h("tbody", {}, sure)),
      h("details", {}, h("summary", {}, "all other figures"), h("table", { class: "data narrow" }, h("tbody", {}, rest.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", { class: "number" }, value === -1 ? "–" : number(value))))))));
  }

  function curves() {
    const box = h("div", { class: "charts" });
    fillLater(box, get("api/curves", { runs: name }), (found) => found.plots.length ? found.plots.map((plot) => chart(plot, { runs: name })) : [h("p", { class: "faint" }, "this run has no curves")]);
    return section("Training", box);
  }

  function step(part) {
    return h("li", {}, h("strong", {}, part.title), h("dl", {}, part.lines.map(([key, value]) => [h("dt", {}, key), h("dd", {}, /^[0-9a-f]{40,}$/.test(value) ? [h("code", { title: value }, value.slice(0, 12)), copy(value)] : value)])));
  }

  /** Images that a split shares with another one. */
  function leaks(pairs) {
    if (!pairs) return null;
    const kinds = { same: "the same", near: "near-identical", neighbours: "neighbours in a video", groups: "groups in both" };
    const examples = pairs.flatMap((pair) => pair.examples.map((line) => h("li", {}, line)));
    return section("Images that splits share",
      pairs.length ? h("table", { class: "data narrow leaks" },
        h("thead", {}, h("tr", {}, h("th", {}, "images of"), h("th", {}, "in"), h("th", { class: "number" }, "images"), Object.values(kinds).map((title) => h("th", { class: "number" }, title)))),
        h("tbody", {}, pairs.map((pair) => h("tr", {}, h("td", {}, pair.other), h("td", {}, pair.one), h("td", { class: "number" }, String(pair.images ?? "–")),
          Object.keys(kinds).map((kind) => h("td", { class: pair[kind] ? "number leak" : "number" }, String(pair[kind] ?? "–"))))))) : h("p", { class: "faint" }, "the run has one split"),
      examples.length ? h("details", {}, h("summary", {}, "examples"), h("ul", {}, examples)) : null);
  }

  function notes(run) {
    if (report) return run.notes.note ? section("Note", h("p", {}, run.notes.note)) : null;
    const tags = h("input", { value: run.notes.tags.join(" "), "aria-label": "tags", placeholder: "tags, separated by spaces" });
    const note = h("textarea", { "aria-label": "note", rows: 3, placeholder: "a note about this run" });
    note.value = run.notes.note;
    const said = h("span", { class: "faint", role: "status" });
    const form = h("form", { class: "notes", onsubmit: async (event) => {
      event.preventDefault();
      try {
        const saved = await post("api/notes", { name, tags: tags.value.split(/\s+/), note: note.value });
        tags.value = saved.tags.join(" ");
        said.textContent = "saved in the run's folder";
      } catch (error) {
        said.textContent = error.message;
      }
    } }, tags, note, h("div", {}, h("button", {}, "save"), " ", said));
    return section("Tags and note", form);
  }

  return {
    update(next) {
      if (next.name !== name) return false;
      if ((next.set ?? "") === (args.set ?? "")) return true;
      return false;
    },
    event(content) {
      const own = content.running.find((r) => r.run === name);
      if (own) progress(own);
      else if (latest?.status === "running") {
        latest = null;
        get("api/run", { name }).then((run) => {
          latest = run;
          el.replaceChildren(...page(run).flat(Infinity).filter(Boolean));
        });
      }
    },
  };
}

function folded(title, content) {
  return h("details", { class: "text" }, h("summary", {}, title), copy(content), h("pre", {}, content));
}

export function cardTable(card) {
  return h("table", { class: "data narrow" }, h("tbody", {}, Object.entries(card).filter(([key]) => key !== "keypoints").map(([key, value]) =>
    h("tr", {}, h("th", { scope: "row" }, key), h("td", { class: "long" }, Array.isArray(value) ? value.join(", ") : value === null ? "–" : String(value))))));
}
