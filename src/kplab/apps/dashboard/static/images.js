// Images with truth and predictions: a grid under one overlay, and one image with zoom, names, heatmaps and crops of errors.

import { colour } from "./chart.js";
import { address, change, get, h, imageAddress, link, number, place, report, select } from "./dom.js";
import { drawErrors, drawLayer, Model, renderPoseView } from "./pose_view.js";

const IMAGES = 60;
const TRUTH = "#FFFFFF";
const ORDERS = ["worst", "best", "changed", "improved", "regressed", "lowest score", "file"];
const FILTERS = ["order", "keypoint", "min_error", "max_error", "missed", "extra", "min_size", "max_size", "visibility", "group", "text"];

export function imagesView(el, first) {
  let args = first;
  let found = null;
  let single = null;
  let loading = null;
  const off = () => new Set((args.off ?? "").split(",").filter(Boolean)); // layers that are not shown: t, 1, 2, …
  const runs = () => args.runs.split(",");
  const controls = h("div", { class: "bar filters" });
  const message = h("p", { class: "error", role: "alert" });
  const body = h("div", {});
  el.append(controls, message, body);

  const asked = (more) => ({ runs: args.runs, set: args.set, ...Object.fromEntries(FILTERS.map((key) => [key, args[key]])), ...more });

  async function load() {
    loading?.abort();
    loading = new AbortController();
    el.setAttribute("aria-busy", "true");
    if (!found) body.replaceChildren(h("p", { class: "faint" }, "reading predictions …"));
    const page = Number(args.page ?? 0);
    try {
      const query = args.id ? asked({ id: args.id }) : asked({ offset: page * IMAGES, limit: IMAGES });
      found = await get("api/images", query, loading.signal);
      message.textContent = found.trouble ?? "";
    } catch (error) {
      if (error.name === "AbortError") return;
      message.textContent = error.message;
      body.replaceChildren();
      el.removeAttribute("aria-busy");
      if (!found) return;
      drawControls();
      return;
    }
    if (args.id) one();
    else grid(page);
    drawControls();
    el.removeAttribute("aria-busy");
  }

  // ------------------------------------------------------------ controls

  const set = (key) => (value) => change({ [key]: value, page: "", id: "" });

  function drawControls() {
    const held = document.activeElement?.dataset?.key;
    const orders = runs().length > 1 ? ORDERS : ORDERS.filter((o) => !["changed", "improved", "regressed"].includes(o));
    const field = (key, label) => h("label", { class: "field" }, h("span", {}, label), h("input", { "data-key": key, type: key === "text" ? "search" : "number", step: "any", min: 0, value: args[key] ?? "", onchange: (event) => set(key)(event.target.value) }));
    const check = (key, label) => h("label", { class: "check" }, h("input", { type: "checkbox", checked: args[key] === "1", onchange: (event) => set(key)(event.target.checked ? "1" : "") }), label);
    const filters = report ? [] : [
      select("order", orders, args.order ?? "worst", set("order")),
      select("keypoint", [{ value: "", label: "all" }, ...found.skeleton.keypoints.map((label, value) => ({ value, label }))], args.keypoint, set("keypoint")),
      h("details", { class: "menu", open: controls.querySelector("details")?.open }, h("summary", {}, `filters${FILTERS.slice(2).some((k) => args[k]) ? " •" : ""}`), h("div", { class: "sheet" },
        field("min_error", "error from, px"), field("max_error", "error to, px"), field("min_size", "subject from, px"), field("max_size", "subject to, px"),
        select("visibility", ["any", "visible", "hidden"], args.visibility ?? "any", (v) => set("visibility")(v === "any" ? "" : v)),
        found.groups.length ? select("group", ["", ...found.groups], args.group, set("group")) : null,
        check("missed", "with missed subjects"), check("extra", "with extra predictions"), field("text", "name contains"),
        h("button", { type: "button", class: "small", onclick: () => change(Object.fromEntries([...FILTERS.slice(1), "page"].map((k) => [k, ""]))) }, "clear"))),
    ];
    const hidden = off();
    const toggles = layerKeys().map(([key, label, tone]) => {
      const box = h("input", { type: "checkbox", checked: !hidden.has(key), onchange: () => toggle(key) });
      const dot = h("span", { class: key === "t" ? "chip truth" : "chip" });
      if (key !== "t") dot.style.background = tone;
      return h("label", { class: "check" }, box, dot, label);
    });
    controls.replaceChildren(...[...filters, args.id || report ? null : h("label", { class: "check" }, h("input", { type: "checkbox", "data-crop": true, checked: cropping, onchange: (event) => change({ crop: event.target.checked ? "1" : "0" }) }), "crop to subjects"), h("fieldset", { class: "layers" }, h("legend", { class: "outside" }, "shown"), toggles), h("span", { class: "grow" }), h("span", { class: "faint", role: "status" }, args.id ? `image ${found.at + 1} of ${found.total}` : `${found.total} images`)].filter(Boolean));
    if (held) controls.querySelector(`[data-key="${held}"]`)?.focus();
  }

  const layerKeys = () => [["t", "truth", TRUTH], ...found.labels.map((label, i) => [String(i + 1), label, colour(i)])];

  function toggle(key) {
    const hidden = off();
    if (hidden.has(key)) hidden.delete(key);
    else hidden.add(key);
    change({ off: [...hidden].join(",") }, true);
  }

  const layersOf = (item) => [
    { name: "truth", colour: TRUTH, truth: true, shown: !off().has("t"), poses: item.truth },
    ...item.runs.map((run, i) => ({ name: found.labels[i], colour: colour(i), shown: !off().has(String(i + 1)), poses: run.poses })),
  ];
  const keypoint = () => (args.keypoint ? Number(args.keypoint) : null);

  /** Size of an image; where the images are missing, of its points. */
  function sizeOf(item) {
    if (item.size) return item.size;
    const all = [...item.truth, ...item.runs.flatMap((r) => r.poses)].flatMap((p) => p.xy).filter(Number.isFinite);
    const side = Math.max(...all, 1) * 1.1;
    return [side, side];
  }

  const figures = (item) => item.runs.map((run, i) => {
    const words = [run.mean_px === null ? "" : `${number(run.mean_px, 1)} px`, run.missed ? `${run.missed} missed` : "", run.extra ? `${run.extra} extra` : ""].filter(Boolean);
    const dot = h("span", { class: "chip" });
    dot.style.background = colour(i);
    return h("span", {}, dot, words.join(", ") || "–");
  });

  // ------------------------------------------------------------ grid

  /** The part of an image with its subjects, in whole pixels: xyxy. */
  function around(item) {
    const [width, height] = sizeOf(item);
    const all = [item.truth, ...item.runs.map((r) => r.poses)].flat().map((p) => p.xy);
    const ends = [0, 1].map((axis) => all.flatMap((xy) => xy.filter((v, i) => i % 2 === axis && Number.isFinite(v))));
    if (!ends[0].length) return [0, 0, width, height];
    const [x0, x1, y0, y1] = [Math.min(...ends[0]), Math.max(...ends[0]), Math.min(...ends[1]), Math.max(...ends[1])];
    const half = Math.max(x1 - x0, y1 - y0, 24) * 0.62;
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    return [Math.max(0, x - half), Math.max(0, y - half), Math.min(width, x + half), Math.min(height, y + half)].map(Math.round);
  }

  /** The part of an image that its cell shows: all, or its subjects where they are small or it is asked for. */
  function parts() {
    const whole = found.items.map((item) => [0, 0, ...sizeOf(item)]);
    if (report || !found.items[0]?.size) return whole;
    const close = found.items.map(around);
    const share = close.map((b, i) => ((b[2] - b[0]) * (b[3] - b[1])) / (whole[i][2] * whole[i][3])).sort((a, b) => a - b);
    cropping = args.crop ? args.crop === "1" : share[Math.floor(share.length / 2)] < 0.15;
    return cropping ? close : whole;
  }

  let cropping = false;
  let boxes = [];
  let redraw = () => {};
  let watch = null;

  function grid(page) {
    single = null;
    const wide = 320 * Math.min(2, window.devicePixelRatio || 1);
    boxes = parts();
    const aspects = boxes.map(([x0, y0, x1, y1]) => (x1 - x0) / (y1 - y0)).sort((a, b) => a - b);
    const aspect = Math.min(1.8, Math.max(0.75, aspects[Math.floor(aspects.length / 2)] ?? 1));
    const cells = found.items.map((item, i) => {
      const source = imageAddress(runs()[0], found.set, item, wide, cropping ? boxes[i] : null);
      const picture = source ? h("img", { alt: item.file, src: source, loading: "eager", decoding: "async" }) : h("span", { class: "missing" }, item.file);
      const frame = h("span", { class: "frame" }, picture);
      frame.style.aspectRatio = String(aspect);
      return h("a", { class: "cell", href: link("images", { ...place().args, id: item.id }), title: item.file }, frame, h("span", { class: "caption" }, figures(item)));
    });
    const overlay = h("canvas", { class: "overlay" });
    const sheet = h("div", { class: "grid" }, cells, overlay);
    body.replaceChildren(found.items.length ? sheet : h("p", { class: "empty" }, "no image fits these filters"), pager(page));
    redraw = () => drawGrid(sheet, overlay);
    redraw();
    watch?.disconnect();
    watch = new ResizeObserver(() => redraw());
    watch.observe(sheet);
    prefetch(page);
  }

  /** All poses of a page on one canvas: a canvas for each image takes more than twice the time. */
  function drawGrid(sheet, overlay) {
    const box = sheet.getBoundingClientRect();
    const dense = Math.min(2, window.devicePixelRatio || 1);
    const [w, h_] = [Math.round(box.width * dense), Math.round(box.height * dense)];
    if (overlay.width !== w || overlay.height !== h_) [overlay.width, overlay.height] = [w, h_];
    const context = overlay.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    const frames = [...sheet.querySelectorAll(".frame")].map((f) => f.getBoundingClientRect());
    found.items.forEach((item, i) => {
      const [x0, y0, x1, y1] = boxes[i];
      const f = frames[i];
      const scale = Math.min(f.width / (x1 - x0), f.height / (y1 - y0));
      const map = { scale, dx: f.left - box.left + f.width / 2 - ((x0 + x1) / 2) * scale, dy: f.top - box.top + f.height / 2 - ((y0 + y1) / 2) * scale };
      const layers = layersOf(item);
      const options = { radius: found.skeleton.keypoints.length > 40 ? 1.3 : 2.2, keypoint: keypoint() };
      context.save();
      context.beginPath();
      context.rect(f.left - box.left, f.top - box.top, f.width, f.height);
      context.clip();
      const predicted = layers.slice(1).filter((layer) => layer.shown);
      if (layers[0].shown && predicted.length === 1) for (const layer of predicted) drawErrors(context, layers[0], layer, found.skeleton, map, options);
      for (const layer of layers) if (layer.shown) drawLayer(context, layer, found.skeleton, map, options);
      context.restore();
    });
    sheet.dataset.drawn = String(performance.now());
  }

  /** Fetch the next page's images and points before they are asked for. */
  function prefetch(page) {
    if (report || (page + 1) * IMAGES >= found.total) return;
    const [now, wide] = [found, 320 * Math.min(2, window.devicePixelRatio || 1)];
    const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 200));
    idle(async () => {
      const next = await get("api/images", asked({ offset: (page + 1) * IMAGES, limit: IMAGES })).catch(() => null);
      if (now !== found) return;
      for (const item of next?.items ?? []) {
        const source = imageAddress(runs()[0], next.set, item, wide, cropping ? around(item) : null);
        if (source) new Image().src = source;
      }
    });
  }

  function pager(page) {
    const last = Math.max(0, Math.ceil(found.total / IMAGES) - 1);
    if (last === 0 || report) return "";
    return h("div", { class: "pager" },
      h("button", { type: "button", disabled: page === 0, onclick: () => change({ page: page - 1 || "" }) }, "previous"), h("span", {}, `page ${page + 1} of ${last + 1}`),
      h("button", { type: "button", disabled: page >= last, onclick: () => change({ page: page + 1 }) }, "next"));
  }

  // ------------------------------------------------------------ one image

  const item = () => found.items.find((i) => String(i.id) === args.id);

  function one() {
    watch?.disconnect();
    redraw = () => {};
    const now = item();
    const at = found.items.indexOf(now);
    const values = {
      image: imageAddress(runs()[0], found.set, now, 0), size: sizeOf(now), skeleton: found.skeleton, layers: layersOf(now), keypoint: keypoint(), lines: args.lines !== "0", names: args.names === "1", heatmap: "",
      zoom: Number(args.zoom ?? 1), centre: args.centre ? args.centre.split(",").map(Number) : null,
    };
    const model = new Model(values);
    let writing = null;
    model.save_changes = () => {
      clearTimeout(writing);
      writing = setTimeout(() => {
        const { zoom, centre } = model.values;
        args = { ...args, zoom: zoom === 1 ? "" : zoom.toFixed(2), centre: centre ? centre.map((v) => v.toFixed(1)).join(",") : "" };
        history.replaceState(null, "", link("images", { ...place().args, zoom: args.zoom, centre: args.centre }));
      }, 250);
    };
    const view = h("div", {});
    const crops = h("div", { class: "crops" });
    const heat = h("span", { class: "faint", role: "status" });
    single = { model, at, previous: found.items[at - 1]?.id, next: found.items[at + 1]?.id, heat, close: () => { clearTimeout(writing); single?.stop?.(); } };
    const go = (id, label) => h("button", { type: "button", disabled: id === undefined, onclick: () => move(id) }, label);
    body.replaceChildren(
      h("div", { class: "bar" }, h("a", { class: "button", href: link("images", { ...place().args, id: "", zoom: "", centre: "" }) }, "grid"), go(single.previous, "← previous"), go(single.next, "next →"),
        option("lines", "lines", args.lines !== "0", (on) => change({ lines: on ? "" : "0" }, true)), option("names", "names", args.names === "1", (on) => change({ names: on ? "1" : "" }, true)),
        h("button", { type: "button", onclick: closer }, "zoom to subjects"),
        report ? null : h("button", { type: "button", "aria-pressed": "false", onclick: heatmaps, "data-heat": true }, "heatmaps"), heat),
      h("p", { class: "faint" }, now.file, now.group ? ` (group ${now.group})` : "", " ", figures(now)),
      view, h("h2", {}, "Largest errors"), crops);
    single.stop = renderPoseView({ model, el: view });
    drawCrops(crops, now, model.get("image"));
  }

  function option(key, label, on, apply) {
    return h("label", { class: "check" }, h("input", { type: "checkbox", "data-option": key, checked: on, onchange: (event) => apply(event.target.checked) }), label);
  }

  function closer() {
    const [[x0, y0, x1, y1], [width, height]] = [around(item()), sizeOf(item())];
    single.model.set("zoom", Math.min(60, Math.max(1, Math.min(width / (x1 - x0), height / (y1 - y0)))));
    single.model.set("centre", [(x0 + x1) / 2, (y0 + y1) / 2]);
    single.model.save_changes();
  }

  function move(id) {
    if (id !== undefined) change({ id, zoom: "", centre: "" }, true);
  }

  /** The heatmaps of the first run's model, of the chosen keypoint or of all; the model is loaded at the first use. */
  function heatmaps() {
    const { model, heat } = single;
    const button = body.querySelector("[data-heat]");
    if (model.get("heatmap")) {
      model.set("heatmap", "");
      button.setAttribute("aria-pressed", "false");
      heat.textContent = "";
      return;
    }
    heat.textContent = "the model is asked …";
    const source = address("heatmap", { run: runs()[0], set: found.set, id: args.id, keypoint: keypoint() });
    fetch(source).then(async (response) => {
      if (!response.ok) throw new Error((await response.json()).error);
      const pixels = await response.blob();
      if (single?.model !== model) return;
      model.set("heatmap", URL.createObjectURL(pixels));
      button.setAttribute("aria-pressed", "true");
      const boxes = response.headers.get("X-Regions") === "annotated" ? ", on annotated boxes" : "";
      heat.textContent = `heatmaps of ${found.labels[0]}, ${keypoint() === null ? "all keypoints" : found.skeleton.keypoints[keypoint()]}${boxes}`;
    }).catch((error) => { heat.textContent = error.message; });
  }

  /** A crop around each of the largest errors of the runs. */
  function drawCrops(box, now, source) {
    const errors = now.runs.flatMap((run, i) => run.poses.flatMap((pose) => (pose.error ?? []).map((error, k) => ({ i, pose, k, error }))));
    const most = errors.filter((e) => e.error !== null && (keypoint() === null || e.k === keypoint())).sort((a, b) => b.error - a.error).slice(0, 12);
    if (!most.length) {
      box.replaceChildren(h("p", { class: "faint" }, "no predicted keypoint is labelled"));
      return;
    }
    const picture = new Image();
    const canvases = most.map((e) => {
      const canvas = h("canvas", { width: 150, height: 150 });
      const dot = h("span", { class: "chip" });
      dot.style.background = colour(e.i);
      return [canvas, h("figure", { class: "crop" }, canvas, h("figcaption", {}, dot, `${found.skeleton.keypoints[e.k]}: ${number(e.error, 1)} px`))];
    });
    box.replaceChildren(...canvases.map(([, figure]) => figure));
    const draw = () => most.forEach((e, i) => {
      const target = now.truth[e.pose.of];
      const [tx, ty, px, py] = [target.xy[2 * e.k], target.xy[2 * e.k + 1], e.pose.xy[2 * e.k], e.pose.xy[2 * e.k + 1]];
      const side = Math.max(32, e.error * 1.5);
      const [x, y] = [(tx + px) / 2 - side / 2, (ty + py) / 2 - side / 2];
      const context = canvases[i][0].getContext("2d");
      const scale = 150 / side;
      const wide = picture.naturalWidth ? picture.naturalWidth / sizeOf(now)[0] : 1;
      context.imageSmoothingEnabled = scale < 3;
      if (picture.naturalWidth) context.drawImage(picture, x * wide, y * wide, side * wide, side * wide, 0, 0, 150, 150);
      const map = { scale, dx: -x * scale, dy: -y * scale };
      const options = { radius: 4, keypoint: e.k };
      const [truth, layer] = [{ truth: true, colour: TRUTH, poses: now.truth }, { colour: colour(e.i), poses: [e.pose] }];
      drawErrors(context, truth, layer, found.skeleton, map, options);
      for (const l of [truth, layer]) drawLayer(context, l, found.skeleton, map, options);
    });
    picture.onload = draw;
    if (source) picture.src = source;
    draw();
  }

  function key(event) {
    const letter = event.key;
    if (letter === "t" || /^[1-8]$/.test(letter)) toggle(letter);
    else if (!args.id) return false;
    else if (letter === "n" || (letter === "ArrowRight" && !event.shiftKey)) move(single?.next);
    else if (letter === "p" || (letter === "ArrowLeft" && !event.shiftKey)) move(single?.previous);
    else if (letter === "e") change({ lines: args.lines === "0" ? "" : "0" }, true);
    else if (letter === "k") change({ names: args.names === "1" ? "" : "1" }, true);
    else if (letter === "h" && !report) heatmaps();
    else if (letter === "z") closer();
    else if (letter === "Escape") change({ id: "", zoom: "", centre: "" });
    else return false;
    return true;
  }

  load();
  return {
    key,
    update(next) {
      const before = args;
      args = next;
      if (next.runs !== before.runs || (next.set ?? "") !== (before.set ?? "")) return false;
      const drawing = ["off", "lines", "names"];
      const same = Object.keys({ ...before, ...next }).every((k) => drawing.includes(k) || (before[k] ?? "") === (next[k] ?? ""));
      if (same && found) {
        drawControls();
        redraw();
        if (single) {
          for (const [key, on] of [["lines", args.lines !== "0"], ["names", args.names === "1"]]) {
            single.model.set(key, on);
            body.querySelector(`[data-option=${key}]`).checked = on;
          }
          single.model.set("layers", layersOf(item()));
        }
        return true;
      }
      single?.close();
      load();
      return true;
    },
    close() {
      watch?.disconnect();
      single?.close();
    },
  };
}

