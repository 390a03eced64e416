// Charts as SVG. What a chart shows comes from the server (kplab.viz.chart.Plot), which draws the same for print.

import { address, h, number, report, svg } from "./dom.js";

export const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777", "currentColor"];
const WIDTH = 440;
const ROW = 15;

export function colour(of) {
  return typeof of === "number" ? PALETTE[of % PALETTE.length] : of;
}

/** At most so many round values between two ends. */
function ticks(low, high, most) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = power * [1, 2, 5, 10].find((m) => span / (power * m) <= most);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Map of values to places, with the marks of the axis. */
function axis(values, range, log, from, to, most, whole = false) {
  let low = range ? range[0] : Math.min(...values);
  let high = range ? range[1] : Math.max(...values);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  if (log) {
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const decades = [];
    for (let i = Math.ceil(a - 1e-9); i <= b + 1e-9; i++) decades.push(10 ** i);
    return { at: (v) => from + ((Math.log10(v) - a) / (b - a)) * (to - from), marks: decades.length > 1 ? decades : [low, high] };
  }
  if (!range) {
    const room = (high - low) * 0.05;
    [low, high] = [low - room, high + room];
  }
  const marks = ticks(low, high, most);
  return { at: (v) => from + ((v - low) / (high - low)) * (to - from), marks: whole ? marks.filter(Number.isInteger) : marks };
}

const finite = (v) => typeof v === "number";

/** A chart with its title, legend and buttons to save it. */
export function chart(plot, saving) {
  const draw = plot.kind === "dot" || plot.kind === "bar" ? rows : points;
  const picture = draw(plot);
  const legend = plot.series.length > 1 && !plot.own_rows && plot.kind !== "scatter"
    ? h("figcaption", { class: "legend" }, plot.series.map((s) => h("span", {}, swatch(s), s.name))) : null;
  const note = plot.note ? h("p", { class: "faint" }, plot.note) : null;
  return h("figure", { class: "chart", "data-plot": plot.name }, h("div", { class: "head" }, h("h3", {}, plot.title), buttons(plot, picture, saving)), picture, legend, note);
}

export function swatch(series) {
  return svg("svg", { class: "swatch", viewBox: "0 0 16 8", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 16, y1: 4, y2: 4, stroke: colour(series.colour), "stroke-width": 3, "stroke-dasharray": series.dashed ? "4 2" : null }));
}

function buttons(plot, picture, saving) {
  if (report) return h("button", { class: "small", type: "button", onclick: () => save(plot, picture) }, "SVG");
  if (!saving) return null;
  return h("span", { class: "saves" }, ["svg", "pdf"].map((format) =>
    h("a", { class: "button small", href: address("figure", { ...saving, plot: plot.name, format }), download: true }, format.toUpperCase())));
}

/** Save a chart of a report, which has no server to draw it. */
function save(plot, picture) {
  const whole = picture.cloneNode(true);
  whole.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  whole.setAttribute("color", "#222222");
  whole.setAttribute("font-family", "sans-serif");
  const file = new Blob([new XMLSerializer().serializeToString(whole)], { type: "image/svg+xml" });
  const anchor = h("a", { href: URL.createObjectURL(file), download: `${plot.name}.svg` });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
}

function text(x, y, content, more = {}) {
  return svg("text", { x, y, "font-size": 11, fill: "currentColor", ...more }, content);
}

function frame(plot, height) {
  const summary = plot.series.map((s) => s.name).join(", ");
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${plot.title}: ${summary}` });
}

/** Lines and single points. */
function points(plot) {
  const [height, left, right, top, bottom] = [270, 48, WIDTH - 12, 10, 228];
  const picture = frame(plot, height);
  const all = (key) => plot.series.flatMap((s) => s[key].filter(finite));
  const x = axis(all("x"), plot.x_range, plot.log_x, left, right, 6, plot.x === "epoch");
  const y = axis(all("y"), plot.y_range, plot.log_y, bottom, top, 5);
  for (const mark of x.marks) {
    const at = x.at(mark);
    if (at < left - 1 || at > right + 1) continue;
    picture.append(svg("line", { x1: at, x2: at, y1: top, y2: bottom, stroke: "currentColor", "stroke-opacity": 0.12 }),
      text(at, bottom + 15, number(mark), { "text-anchor": "middle" }));
  }
  for (const mark of y.marks) {
    const at = y.at(mark);
    if (at < top - 1 || at > bottom + 1) continue;
    picture.append(svg("line", { x1: left, x2: right, y1: at, y2: at, stroke: "currentColor", "stroke-opacity": 0.12 }),
      text(left - 5, at + 4, number(mark), { "text-anchor": "end" }));
  }
  picture.append(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: "currentColor", "stroke-opacity": 0.5 }),
    text((left + right) / 2, height - 8, plot.x, { "text-anchor": "middle" }),
    svg("text", { transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)`, "font-size": 11, fill: "currentColor", "text-anchor": "middle" }, plot.y));
  const places = [];
  for (const s of plot.series) {
    let [path, pen] = ["", false];
    s.x.forEach((value, i) => {
      if (!finite(value) || !finite(s.y[i])) { pen = false; return; }
      const [a, b] = [Math.min(Math.max(x.at(value), left - 50), right + 50), y.at(s.y[i])];
      path += pen ? (plot.steps ? `H${a.toFixed(1)}V${b.toFixed(1)}` : `L${a.toFixed(1)} ${b.toFixed(1)}`) : `M${a.toFixed(1)} ${b.toFixed(1)}`;
      pen = true;
      if (a <= right + 1) places.push({ a, b, s, i });
    });
    if (plot.kind === "line" || s.dashed) {
      picture.append(svg("path", { d: path, fill: "none", stroke: colour(s.colour), "stroke-width": 1.8, "stroke-dasharray": s.dashed ? "5 3" : null, "clip-path": null }));
    }
    const single = plot.kind === "scatter" ? !s.dashed : s.x.length < 12 && !plot.steps;
    if (single) {
      for (const p of places.filter((q) => q.s === s)) {
        picture.append(svg("circle", { cx: p.a, cy: p.b, r: plot.kind === "scatter" ? 5 : 2.6, fill: colour(s.colour) }));
        if (s.labels[p.i]) picture.append(text(p.a + (p.a > WIDTH * 0.6 ? -8 : 8), p.b - 6, s.labels[p.i], { "text-anchor": p.a > WIDTH * 0.6 ? "end" : "start" }));
      }
    }
  }
  hover(picture, places, top, bottom);
  return picture;
}

/** Show the values of the nearest point. */
function hover(picture, places, top, bottom) {
  const dot = svg("circle", { r: 4, fill: "none", stroke: "currentColor", visibility: "hidden" });
  const label = text(0, 0, "", { visibility: "hidden", class: "tip" });
  picture.append(dot, label);
  const hide = () => [dot, label].forEach((e) => e.setAttribute("visibility", "hidden"));
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const scale = WIDTH / box.width;
    const [a, b] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let [best, least] = [null, 900];
    for (const p of places) {
      const d = (p.a - a) ** 2 + (p.b - b) ** 2;
      if (d < least) [best, least] = [p, d];
    }
    if (!best) { hide(); return; }
    dot.setAttribute("cx", best.a);
    dot.setAttribute("cy", best.b);
    label.textContent = `${best.s.name}: ${number(best.s.x[best.i])}, ${number(best.s.y[best.i])}`;
    label.setAttribute("x", best.a > WIDTH / 2 ? best.a - 8 : best.a + 8);
    label.setAttribute("text-anchor", best.a > WIDTH / 2 ? "end" : "start");
    label.setAttribute("y", Math.min(bottom - 4, Math.max(top + 12, best.b - 8)));
    [dot, label].forEach((e) => e.setAttribute("visibility", "visible"));
  });
}

/** Values in rows: dots with intervals, or bars. */
function rows(plot) {
  const beside = plot.own_rows ? 1 : Math.max(1, plot.series.length);
  const step = Math.max(ROW, beside * (plot.kind === "bar" ? 9 : 7) + 5);
  const longest = Math.max(...plot.categories.map((c) => c.length), 0);
  const left = Math.min(WIDTH * 0.48, 14 + longest * 6.1);
  const [right, top] = [WIDTH - 14, 6];
  const bottom = top + step * plot.categories.length + 4;
  const picture = frame(plot, bottom + (plot.x ? 36 : 22));
  const values = plot.series.flatMap((s) => [...s.x, ...s.low, ...s.high]).filter(finite);
  if (plot.reference !== null) values.push(plot.reference);
  const range = plot.x_range ?? (plot.kind === "bar" ? [0, Math.max(...values, 1e-9) * 1.04] : null);
  const x = axis(values, range, plot.log_x, left, right, 5);
  for (const mark of x.marks) {
    picture.append(svg("line", { x1: x.at(mark), x2: x.at(mark), y1: top, y2: bottom, stroke: "currentColor", "stroke-opacity": 0.12 }),
      text(x.at(mark), bottom + 14, number(mark), { "text-anchor": "middle" }));
  }
  if (plot.reference !== null) {
    picture.append(svg("line", { x1: x.at(plot.reference), x2: x.at(plot.reference), y1: top, y2: bottom, stroke: "currentColor", "stroke-dasharray": "4 3" }));
  }
  picture.append(text((left + right) / 2, bottom + 30, plot.x, { "text-anchor": "middle" }));
  plot.categories.forEach((name, row) => {
    const most = Math.floor((left - 12) / 6.1);
    const shown = name.length > most ? name.slice(0, most - 1) + "…" : name;
    picture.append(text(left - 8, top + step * (row + 0.5) + 4, shown, { "text-anchor": "end" }, svg("title", {}, name)));
  });
  plot.series.forEach((s, i) => {
    const shift = plot.own_rows ? 0 : (i - (beside - 1) / 2) * (plot.kind === "bar" ? 9 : 7);
    s.x.forEach((value, row) => {
      if (!finite(value)) return;
      const at = top + step * (row + 0.5) + shift;
      const interval = s.low.length && finite(s.low[row]) ? ` [${number(s.low[row])}, ${number(s.high[row])}]` : "";
      const about = svg("title", {}, `${plot.categories[row]}${plot.own_rows ? "" : `, ${s.name}`}: ${number(value)}${interval}`);
      if (plot.kind === "bar") {
        picture.append(svg("rect", { x: x.at(0), y: at - 4, width: Math.max(0.5, x.at(value) - x.at(0)), height: 8, fill: colour(s.colour) }, about));
      } else {
        if (interval) picture.append(svg("line", { x1: x.at(s.low[row]), x2: x.at(s.high[row]), y1: at, y2: at, stroke: colour(s.colour), "stroke-width": 2.4 }));
        picture.append(svg("circle", { cx: x.at(value), cy: at, r: 4.5, fill: colour(s.colour) }, about));
      }
    });
  });
  return picture;
}

/** Errors of the keypoints of a skeleton, drawn on a typical pose: the larger the disc, the larger the error. */
export function errorsOnSkeleton(skeleton, pose, errors) {
  const known = pose.filter(Boolean);
  const [width, height] = [Math.max(...known.map((p) => p[0]), 0.05), Math.max(...known.map((p) => p[1]), 0.05)];
  const scale = Math.min(300 / width, 300 / height);
  const at = (p) => [p[0] * scale + 40, p[1] * scale + 30];
  const picture = svg("svg", { viewBox: `0 0 ${width * scale + 80} ${height * scale + 60}`, role: "img", class: "skeleton", "aria-label": "error of each keypoint on the skeleton" });
  for (const [a, b] of skeleton.edges) {
    if (!pose[a] || !pose[b]) continue;
    const [[x1, y1], [x2, y2]] = [at(pose[a]), at(pose[b])];
    picture.append(svg("line", { x1, y1, x2, y2, stroke: "currentColor", "stroke-opacity": 0.35, "stroke-width": 2 }));
  }
  const largest = Math.max(...errors.filter(finite), 1e-9);
  skeleton.keypoints.forEach((name, k) => {
    if (!pose[k]) return;
    const [cx, cy] = at(pose[k]);
    const known = finite(errors[k]);
    picture.append(svg("circle", { cx, cy, r: known ? 3 + 15 * Math.sqrt(errors[k] / largest) : 3, fill: skeleton.colours[k], "fill-opacity": known ? 0.75 : 0.2, stroke: "currentColor", "stroke-opacity": 0.5 },
      svg("title", {}, `${name}: ${number(errors[k], 2)} px`)));
  });
  return picture;
}
