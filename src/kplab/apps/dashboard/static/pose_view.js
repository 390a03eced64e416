// One image with poses over it: layers, zoom, pan, names. It knows a model with get, set, on and save_changes and nothing else,
// so that a page of the dashboard and a notebook (anywidget) can host it.
//
// The model has: image (address), size [width, height], skeleton {keypoints, edges, colours}, layers [{name, colour, shown,
// truth, poses: [{xy: [x, y, …], visible, keypoint_score, of}]}], keypoint (index or null), lines (errors), heatmap (address or
// ""), names (all names are shown); and the view: zoom (1 shows the whole image), centre [x, y] in image pixels, or null.

const ERROR = "#E63C8C";

/** Draw the poses of a layer. `map` is {scale, dx, dy}: image pixels to those of the context. */
export function drawLayer(context, layer, skeleton, map, options = {}) {
  const r = options.radius ?? 3;
  const X = (xy, k) => xy[2 * k] * map.scale + map.dx;
  const Y = (xy, k) => xy[2 * k + 1] * map.scale + map.dy;
  const known = (pose, k) => pose.xy[2 * k] !== null && Number.isFinite(pose.xy[2 * k]) && (!pose.visible || pose.visible[k] > 0);
  const only = options.keypoint ?? null;
  const limbs = new Path2D();
  const dots = new Path2D();
  const hidden = new Path2D();
  for (const pose of layer.poses) {
    if (only === null) {
      for (const [a, b] of skeleton.edges) {
        if (!known(pose, a) || !known(pose, b)) continue;
        limbs.moveTo(X(pose.xy, a), Y(pose.xy, a));
        limbs.lineTo(X(pose.xy, b), Y(pose.xy, b));
      }
    }
    for (let k = 0; k < skeleton.keypoints.length; k++) {
      if (!known(pose, k) || (only !== null && k !== only)) continue;
      const path = pose.visible && pose.visible[k] === 1 ? hidden : dots;
      path.moveTo(X(pose.xy, k) + r, Y(pose.xy, k));
      path.arc(X(pose.xy, k), Y(pose.xy, k), r, 0, 6.283);
    }
  }
  context.lineWidth = Math.max(0.7, r * 0.35) + 1.6;
  context.strokeStyle = "rgba(20,20,20,.55)";
  context.stroke(limbs);
  if (layer.truth) {
    context.stroke(dots);
    context.stroke(hidden);
  }
  context.lineWidth = Math.max(0.7, r * 0.35);
  context.strokeStyle = layer.colour;
  context.stroke(limbs);
  if (layer.truth) {
    context.lineWidth = Math.max(1, r * 0.45);
    context.stroke(dots);
    context.setLineDash([2, 2]);
    context.stroke(hidden);
    context.setLineDash([]);
  } else {
    context.fillStyle = layer.colour;
    context.fill(dots);
    context.lineWidth = 0.8;
    context.strokeStyle = "rgba(255,255,255,.8)";
    if (r > 2) context.stroke(dots);
  }
}

/** Draw a line from each true point to the predicted one. */
export function drawErrors(context, truth, layer, skeleton, map, options = {}) {
  const lines = new Path2D();
  for (const pose of layer.poses) {
    const target = pose.of === null || pose.of === undefined ? null : truth.poses[pose.of];
    if (!target) continue;
    for (let k = 0; k < skeleton.keypoints.length; k++) {
      if (options.keypoint !== null && options.keypoint !== undefined && k !== options.keypoint) continue;
      if (target.visible[k] === 0 || pose.xy[2 * k] === null || target.xy[2 * k] === null) continue;
      lines.moveTo(target.xy[2 * k] * map.scale + map.dx, target.xy[2 * k + 1] * map.scale + map.dy);
      lines.lineTo(pose.xy[2 * k] * map.scale + map.dx, pose.xy[2 * k + 1] * map.scale + map.dy);
    }
  }
  context.lineWidth = 1.4;
  context.strokeStyle = ERROR;
  context.stroke(lines);
}

/** A model as anywidget has it, without a kernel: for pages. */
export class Model {
  constructor(values) {
    this.values = values;
    this.heard = {};
  }
  get(name) { return this.values[name]; }
  set(name, value) {
    this.values[name] = value;
    for (const call of this.heard[`change:${name}`] ?? []) call();
  }
  on(name, call) { (this.heard[name] ??= []).push(call); }
  save_changes() {}
}

function make(tag, name, parent) {
  const element = document.createElement(tag);
  element.className = name;
  parent.append(element);
  return element;
}

export function renderPoseView({ model, el }) {
  el.classList.add("pose-view");
  const stage = make("div", "stage", el);
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", "image: plus and minus zoom, arrow keys with Shift pan, 0 shows all");
  const image = make("img", "pixels", stage);
  const heat = make("img", "pixels heat", stage);
  const canvas = make("canvas", "overlay", stage);
  const tip = make("div", "pose-tip", stage);
  image.alt = "";
  heat.alt = "";
  tip.hidden = true;
  let map = { scale: 1, dx: 0, dy: 0 };

  function layers() {
    return model.get("layers").filter((layer) => layer.shown);
  }

  function layout() {
    const [width, height] = model.get("size");
    const box = stage.getBoundingClientRect();
    const fit = Math.min(box.width / width, box.height / height) || 1;
    const scale = fit * (model.get("zoom") ?? 1);
    const [x, y] = model.get("centre") ?? [width / 2, height / 2];
    map = { scale, dx: box.width / 2 - x * scale, dy: box.height / 2 - y * scale };
    for (const picture of [image, heat]) {
      picture.style.width = `${width * scale}px`;
      picture.style.height = `${height * scale}px`;
      picture.style.transform = `translate(${map.dx}px, ${map.dy}px)`;
      picture.style.imageRendering = scale > 3 ? "pixelated" : "auto";
    }
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(box.width * dense);
    canvas.height = Math.round(box.height * dense);
    const context = canvas.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    const skeleton = model.get("skeleton");
    const radius = Math.min(7, Math.max(2.5, 2 + scale * 0.8)) * (skeleton.keypoints.length > 40 ? 0.7 : 1);
    const options = { radius, keypoint: model.get("keypoint") };
    const truth = model.get("layers").find((layer) => layer.truth);
    for (const layer of layers()) {
      if (!layer.truth && truth && model.get("lines")) drawErrors(context, truth, layer, skeleton, map, options);
    }
    for (const layer of layers()) drawLayer(context, layer, skeleton, map, options);
    if (model.get("names")) names(context, skeleton, options.keypoint);
  }

  function names(context, skeleton, only) {
    const first = layers()[0];
    context.font = "11px sans-serif";
    context.lineWidth = 3;
    for (const pose of first ? first.poses : []) {
      skeleton.keypoints.forEach((name, k) => {
        if ((only !== null && k !== only) || pose.xy[2 * k] === null || (pose.visible && !pose.visible[k])) return;
        const [x, y] = [pose.xy[2 * k] * map.scale + map.dx + 6, pose.xy[2 * k + 1] * map.scale + map.dy - 4];
        context.strokeStyle = "rgba(0,0,0,.75)";
        context.strokeText(name, x, y);
        context.fillStyle = "#fff";
        context.fillText(name, x, y);
      });
    }
  }

  function pictures() {
    for (const [picture, name] of [[image, "image"], [heat, "heatmap"]]) {
      const source = model.get(name) ?? "";
      picture.hidden = !source;
      if (source && picture.getAttribute("src") !== source) picture.src = source;
    }
    layout();
  }

  /** Change the zoom, keeping one point of the stage in its place. */
  function zoom(factor, at) {
    const box = stage.getBoundingClientRect();
    const [x, y] = at ?? [box.width / 2, box.height / 2];
    const before = model.get("zoom") ?? 1;
    const after = Math.min(60, Math.max(1, before * factor));
    const point = [(x - map.dx) / map.scale, (y - map.dy) / map.scale];
    const scale = (map.scale / before) * after;
    model.set("zoom", after);
    model.set("centre", after === 1 ? null : [point[0] - (x - box.width / 2) / scale, point[1] - (y - box.height / 2) / scale]);
    model.save_changes();
  }

  function pan(dx, dy) {
    const [width, height] = model.get("size");
    const [x, y] = model.get("centre") ?? [width / 2, height / 2];
    model.set("centre", [x - dx / map.scale, y - dy / map.scale]);
    model.save_changes();
  }

  function near(event) {
    const box = stage.getBoundingClientRect();
    const [a, b] = [event.clientX - box.left, event.clientY - box.top];
    const skeleton = model.get("skeleton");
    let [best, least] = [null, 15 ** 2];
    for (const layer of layers()) {
      for (const pose of layer.poses) {
        skeleton.keypoints.forEach((name, k) => {
          if (pose.xy[2 * k] === null || (pose.visible && !pose.visible[k])) return;
          const d = (pose.xy[2 * k] * map.scale + map.dx - a) ** 2 + (pose.xy[2 * k + 1] * map.scale + map.dy - b) ** 2;
          if (d < least) [best, least] = [{ layer, pose, name, k }, d];
        });
      }
    }
    tip.hidden = !best;
    if (!best) return;
    const { layer, pose, name, k } = best;
    const parts = [`${layer.name}: ${name}`];
    if (layer.truth) parts.push(pose.visible[k] === 1 ? "hidden" : "visible");
    if (pose.keypoint_score) parts.push(`score ${pose.keypoint_score[k]}`);
    if (pose.error && pose.error[k] !== null) parts.push(`error ${pose.error[k].toFixed(1)} px`);
    tip.textContent = parts.join(", ");
    tip.style.left = `${Math.min(a + 12, box.width - 190)}px`;
    tip.style.top = `${Math.max(0, b - 28)}px`;
  }

  let held = null;
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.0015), [event.clientX - box.left, event.clientY - box.top]);
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (held) {
      pan(event.clientX - held[0], event.clientY - held[1]);
      held = [event.clientX, event.clientY];
    } else near(event);
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { held = null; });
  stage.addEventListener("pointerleave", () => { tip.hidden = true; });
  stage.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (event.key === "+" || event.key === "=") zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else if (event.key === "0") zoom(1e-6);
    else if (event.shiftKey && event.key in arrows) pan(...arrows[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  for (const name of ["image", "heatmap"]) model.on(`change:${name}`, pictures);
  for (const name of ["layers", "size", "skeleton", "keypoint", "lines", "names", "zoom", "centre"]) model.on(`change:${name}`, layout);
  const watch = new ResizeObserver(layout);
  watch.observe(stage);
  pictures();
  return () => watch.disconnect();
}

export default { render: renderPoseView };
