// The annotator: one image with its instances, edited by mouse and keys. Hosted by a page and by notebooks (anywidget).

import { makeStore } from "./store.js";
import { coloursOf } from "./drawing.js";
import { makePanel } from "./panel.js";
import { listenPointer } from "./pointer.js";
import { makeView } from "./view.js";

/** Distance at which a point is under the pointer, screen pixels; milliseconds between questions for news. */
const [NEAR, EVERY] = [10, 400];
const visibility = (instance, k) => (instance && k !== null ? instance.xyv[3 * k + 2] : 0);
const round = (value) => Math.round(value * 100) / 100;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function render({ model, el }) {
  const s = { project: null, look: null, list: [], at: 0, image: null, sel: null, active: 0, map: { scale: 1, dx: 0, dy: 0 }, zoom: 1, centre: null,
    bright: 1, boxing: false, shown: true, names: false, drag: null, over: null, status: {}, text: "", order: "", sorted: "", only: "", online: true };
  const store = makeStore(model, notify);
  let ticket = 0;
  const KEYS = [
    [["d", "PageDown"], "next image", () => go(s.at + 1)],
    [["a", "PageUp"], "previous image", () => go(s.at - 1)],
    [["Home"], "first image", () => go(0)],
    [["End"], "last image", () => go(s.list.length - 1)],
    [["s", "Space"], "next keypoint: skip one", () => stepKeypoint(1)],
    [["w"], "previous keypoint", () => stepKeypoint(-1)],
    [["p"], "place the keypoint in the middle of the view", () => put(...middle(), 2)],
    [["Arrows"], "move the keypoint by 1 pixel (Shift: 10, Alt: 0.1)", null],
    [["v"], "visible", () => setState(2)],
    [["o"], "occluded", () => setState(1)],
    [["x", "Delete", "Backspace"], "delete the keypoint", () => setState(0)],
    [["X", "Shift+Delete"], "delete the subject", () => commit(null)],
    [["n"], "new subject", () => startSubject()],
    [["["], "previous subject", () => stepSubject(-1)],
    [["]"], "next subject", () => stepSubject(1)],
    [["b"], "draw a box", () => { s.boxing = !s.boxing; guide(); update(); }],
    [["B"], "delete the box", () => current() && commit({ ...current(), box: null })],
    [["c"], "copy the subjects of the last labelled image before this one", () => store.send({ kind: "earlier", image: s.image.index })],
    [["Enter"], "accept the suggestion", () => accept()],
    [["m"], "exchange left and right", () => mirror(false)],
    [["M"], "mirror the subject", () => mirror(true)],
    [["Ctrl+z"], "undo", () => undo(true)],
    [["Ctrl+y", "Ctrl+Z"], "redo", () => undo(false)],
    [["+", "="], "zoom in", () => zoomBy(1.3)],
    [["-"], "zoom out", () => zoomBy(1 / 1.3)],
    [["0"], "show the whole image", () => zoomBy(1e-6)],
    [["f"], "zoom to the subject", () => zoomToSubject()],
    [["Ctrl+Arrows"], "pan", null],
    [[","], "darker", () => brighten(s.bright - 0.2)],
    [["."], "brighter", () => brighten(s.bright + 0.2)],
    [["h"], "hide or show all points", () => { s.shown = !s.shown; update(); }],
    [["t"], "names of all keypoints", () => { s.names = !s.names; update(); }],
    [["/"], "search", () => panel.search.focus()],
    [["Escape"], "leave the box", () => { s.boxing = false; guide(); update(); }],
    [["?"], "these keys", () => panel.showHelp()],
  ];
  const panel = makePanel(el, {
    step: (by) => go(s.at + by), find, brighten: (value) => brighten(value), startSubject: () => startSubject(),
    selectSubject: (key) => { select(key); update(); },
    selectKeypoint: (k) => { s.active = k; guide(); update(); },
  }, KEYS);
  const { stage, say } = panel;
  const view = makeView(s, panel, current, () => store.waiting());
  const { update, layout, zoomBy, pan, zoomToSubject, brighten } = view;

  // ------------------------------------------------------------ messages

  function notify(kind, message) {
    if (kind === "project") {
      s.project = message;
      s.look = { project: message, colours: coloursOf(message), radius: message.keypoints.length > 40 ? 3.5 : 5 };
      panel.start(message, s.look);
      find({ order: message.orders[0], only: message.only[0] });
    }
    if (kind === "found") found(message.images);
    if (kind === "earlier") paste(message);
    if (kind === "status") s.status = message;
    if (kind === "answered" && message.kind === "accepted") s.status.unsaved = message.unsaved;
    if (kind === "connection") s.online = message.online;
    if ((kind === "refused" || kind === "changed") && s.sel && s.image && !s.image.instances.has(s.sel)) select(null);
    if (kind === "fault" || kind === "refused") say(message.text, true);
    update();
  }

  function find(change) {
    Object.assign(s, change);
    store.send({ kind: "find", text: s.text, order: s.order, only: s.only });
  }

  function found(list) {
    const now = s.image && s.sorted === s.order ? list.indexOf(s.image.index) : -1; // another order starts with its first
    [s.list, s.sorted] = [list, s.order];
    if (!list.length) say("no image fits", true);
    else if (now >= 0) s.at = now;
    else go(0);
  }

  // ------------------------------------------------------------ images and instances

  async function go(at) {
    if (!s.list.length) return;
    s.at = clamp(at, 0, s.list.length - 1);
    await open(s.list[s.at]);
    for (const step of [1, 2, -1]) if (s.list[s.at + step] !== undefined) store.load(s.list[s.at + step]);
  }

  async function open(index) {
    const own = ++ticket;
    let image = store.load(index);
    if (image instanceof Promise) image = await image;
    if (own !== ticket) return;
    const same = s.image && s.image.size.join() === image.size.join();
    Object.assign(s, { image, drag: null, boxing: false });
    if (!same) [s.zoom, s.centre] = [1, null];
    select([...image.instances.keys()].find((key) => !image.instances.get(key).crowd) ?? null);
    stage.dataset.image = image.index;
    if (image.fault) say(image.fault, true);
    layout();
  }

  function current() {
    return s.sel === null ? null : s.image?.instances.get(s.sel) ?? null;
  }

  const blank = () => ({ xyv: Array(3 * s.project.keypoints.length).fill(0), box: null, track: -1, crowd: false });

  function select(key) {
    s.sel = key;
    s.active = nextOpen(current(), -1);
    guide();
  }

  function nextOpen(instance, after, step = 1) {
    const K = s.project.keypoints.length;
    for (let i = 1; i <= K; i++) {
      const k = (((after + step * i) % K) + K) % K;
      if (!visibility(instance, k)) return k;
    }
    return null;
  }

  function guide() {
    if (!s.project || !s.image) return;
    if (s.active === null) return say("all keypoints of this subject are placed; n starts another one, d shows the next image");
    const what = s.boxing ? "drag a box" : visibility(current(), s.active) ? `selected: ${s.project.keypoints[s.active]}` : `click: ${s.project.keypoints[s.active]}`;
    const offer = s.image.suggested?.length && !s.image.instances.size ? " · Enter accepts the suggestion" : "";
    say(what + offer);
  }

  function withPoint(instance, k, x, y, v) {
    const xyv = instance.xyv.slice();
    const [width, height] = s.image.size;
    xyv.splice(3 * k, 3, ...(v ? [round(clamp(x, 0, width)), round(clamp(y, 0, height)), v] : [0, 0, 0]));
    return { ...instance, xyv };
  }

  /** Replace the selected instance, or start it; an instance without keypoints and box is removed. */
  function commit(after) {
    const before = current();
    if (!before && !after) return;
    const empty = !after || (!after.box && !after.xyv.some((v, i) => i % 3 === 2 && v));
    if (!before && empty) return;
    const key = before ? s.sel : store.key();
    store.edit(s.image.index, [{ key, before, after: empty ? null : after }]);
    s.sel = empty ? null : key;
    update();
  }

  function put(x, y, v) {
    if (s.active === null || !s.image) return guide();
    const k = s.active;
    commit(withPoint(current() ?? blank(), k, x, y, v));
    s.active = nextOpen(current(), k);
    guide();
    update();
  }

  function setState(v) {
    const k = s.active ?? -1;
    const instance = current();
    if (k < 0 || !visibility(instance, k)) return say("select a placed keypoint first: click it, or use w and s", true);
    commit(withPoint(instance, k, instance.xyv[3 * k], instance.xyv[3 * k + 1], v));
    guide();
  }

  function move(dx, dy) {
    const [k, instance] = [s.active, current()];
    if (k === null || !visibility(instance, k)) return say("select a placed keypoint first: click it, or use w and s", true);
    commit(withPoint(instance, k, instance.xyv[3 * k] + dx, instance.xyv[3 * k + 1] + dy, visibility(instance, k)));
  }

  function startSubject() {
    select(null);
    update();
  }

  function stepSubject(step) {
    const keys = [...(s.image?.instances.keys() ?? [])].filter((key) => !s.image.instances.get(key).crowd);
    if (!keys.length) return;
    const at = keys.indexOf(s.sel);
    select(keys[(at + step + keys.length) % keys.length]);
    update();
  }

  function stepKeypoint(step) {
    const K = s.project.keypoints.length;
    s.active = s.active === null ? (step > 0 ? 0 : K - 1) : (s.active + step + K) % K;
    guide();
    update();
  }

  /** Exchange left and right names; with `turn`, mirror the positions too. */
  function mirror(turn) {
    const instance = current();
    if (!instance) return;
    const xs = instance.xyv.filter((_, i) => i % 3 === 0 && instance.xyv[i + 2]);
    const middle = Math.min(...xs) + Math.max(...xs);
    let after = blank();
    s.project.flip.forEach((from, k) => {
      const [x, y, v] = instance.xyv.slice(3 * from, 3 * from + 3);
      if (v) after = withPoint(after, k, turn ? middle - x : x, y, v);
    });
    commit({ ...instance, xyv: after.xyv });
  }

  function accept() {
    if (s.image?.suggested?.length && !s.image.instances.size) add(s.image.suggested);
    else say("there is no suggestion to accept");
  }

  function add(instances) {
    if (!instances.length) return;
    const changes = instances.map((after) => ({ key: store.key(), before: null, after }));
    store.edit(s.image.index, changes);
    select(changes[0].key);
    update();
  }

  function paste(message) {
    if (message.to !== s.image?.index) return;
    if (s.image.instances.size) return say("this image has labels already; delete them to copy others", true);
    const [width, height] = s.image.size;
    const fit = ([, one]) => ({ ...one, box: one.box && one.box.map((v, i) => clamp(v, 0, i % 2 ? height : width)),
      xyv: one.xyv.map((v, i) => (i % 3 === 2 ? v : clamp(v, 0, i % 3 ? height : width))) });
    add(message.instances.filter(([, one]) => !one.crowd).map(fit));
    say(`copied from ${message.name}`);
  }

  async function undo(back) {
    const entry = await (back ? store.undo() : store.redo());
    if (!entry) return say(back ? "nothing to undo" : "nothing to redo");
    if (entry.image !== s.image.index) {
      const at = s.list.indexOf(entry.image);
      if (at >= 0) s.at = at;
      await open(entry.image);
    }
    const key = entry.changes.map((change) => change.key).find((name) => s.image.instances.has(name));
    select(key ?? null);
    update();
  }

  // ------------------------------------------------------------ pointer and keys

  const toImage = ([x, y]) => [(x - s.map.dx) / s.map.scale, (y - s.map.dy) / s.map.scale];

  function middle() {
    const box = stage.getBoundingClientRect();
    return toImage([box.width / 2, box.height / 2]);
  }

  /** Browsers state the corner of the screen pixel that the pointer is on; its centre is meant. */
  function centred(value) {
    const dense = window.devicePixelRatio || 1;
    return Number.isInteger(value * dense) ? value + 0.5 / dense : value;
  }

  /** The keypoint under a point of the stage; of the selected subject first. */
  function hit([x, y]) {
    if (!s.shown) return null;
    let [best, least] = [null, NEAR];
    for (const [key, one] of s.image.instances) {
      for (let k = 0; k < s.project.keypoints.length; k++) {
        if (!visibility(one, k)) continue;
        const d = Math.hypot(one.xyv[3 * k] * s.map.scale + s.map.dx - x, one.xyv[3 * k + 1] * s.map.scale + s.map.dy - y);
        const cost = key === s.sel ? d - NEAR / 2 : d;
        if (d < NEAR && cost < least) [best, least] = [{ key, k }, cost];
      }
    }
    return best;
  }

  /** The corner of the selected box that stays when the one under a point of the stage is dragged. */
  function corner([x, y]) {
    const box = current()?.box;
    if (!box || !s.shown) return null;
    for (const [i, j] of [[0, 1], [2, 1], [0, 3], [2, 3]]) {
      const d = Math.hypot(box[i] * s.map.scale + s.map.dx - x, box[j] * s.map.scale + s.map.dy - y);
      if (d < NEAR) return [box[2 - i], box[4 - j]];
    }
    return null;
  }

  listenPointer(stage, {
    s, hit, corner, toImage, current, update, pan, zoomBy, put, setState, commit,
    at: (event) => {
      const box = stage.getBoundingClientRect();
      return [centred(event.clientX) - box.left, centred(event.clientY) - box.top];
    },
    choose: ({ key, k }) => { if (key !== s.sel) select(key); s.active = k; guide(); },
    shifted: (k, [dx, dy]) => {
      const instance = current(); // null where another window has deleted it meanwhile
      return instance && withPoint(instance, k, instance.xyv[3 * k] + dx, instance.xyv[3 * k + 1] + dy, visibility(instance, k));
    },
    boxOf: (a, b) => {
      const [width, height] = s.image.size;
      const [x0, x1] = [a[0], b[0]].map((v) => round(clamp(v, 0, width))).sort((m, n) => m - n);
      const [y0, y1] = [a[1], b[1]].map((v) => round(clamp(v, 0, height))).sort((m, n) => m - n);
      return [x0, y0, x1, y1];
    },
    setBox: (box) => {
      s.boxing = false;
      if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) commit({ ...(current() ?? blank()), box });
      guide();
    },
  });

  const actions = new Map(KEYS.flatMap(([names, , run]) => (run ? names.map((name) => [name, run]) : [])));

  function pressed(event) {
    const typing = /^(input|select|textarea)$/i.test(event.target.tagName) && event.target.type !== "range";
    if (typing || panel.help.open || !s.project) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const control = event.ctrlKey || event.metaKey;
    const key = event.key === " " ? "Space" : event.key;
    const name = (control ? "Ctrl+" : "") + (event.shiftKey && key.length > 1 ? "Shift+" : "") + key;
    if (key in arrows) {
      const [dx, dy] = arrows[key];
      const by = event.shiftKey ? 10 : event.altKey ? 0.1 : 1;
      if (control) pan(-60 * dx, -60 * dy);
      else move(by * dx, by * dy);
    } else if (actions.has(name) && !(event.target.tagName === "BUTTON" && /^(Enter|Space)$/.test(name))) {
      if (s.image) actions.get(name)();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ------------------------------------------------------------ start and end

  function leaving(event) {
    if (store.waiting().edits) event.preventDefault();
  }

  el.addEventListener("keydown", pressed);
  window.addEventListener("beforeunload", leaving);
  const watch = new ResizeObserver(layout);
  watch.observe(stage);
  const timer = setInterval(() => {
    if (!document.hidden && s.project) store.send({ kind: "news" });
    update();
  }, EVERY);
  store.send({ kind: "open" });
  return () => {
    watch.disconnect();
    clearInterval(timer);
    window.removeEventListener("beforeunload", leaving);
  };
}

export default { render };
