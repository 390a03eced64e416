// The image and the instances on two canvases: position, zoom, brightness.

import { drawBox, drawInstance, drawText } from "./drawing.js";

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const visibility = (instance, k) => (instance && k !== null ? instance.xyv[3 * k + 2] : 0);

/** The view of the state `s` of an annotator; `current` gives the selected instance, `waiting` the edits without an answer. */
export function makeView(s, panel, current, waiting) {
  const { stage, pixels, points } = panel;
  let queued = false;

  function layout() {
    if (!s.image) return;
    const box = stage.getBoundingClientRect();
    const [width, height] = s.image.size;
    const scale = (Math.min(box.width / width, box.height / height) || 1) * s.zoom;
    const [x, y] = s.centre ?? [width / 2, height / 2];
    s.map = { scale, dx: box.width / 2 - x * scale, dy: box.height / 2 - y * scale };
    const dense = window.devicePixelRatio || 1;
    for (const canvas of [pixels, points]) {
      canvas.width = Math.round(box.width * dense);
      canvas.height = Math.round(box.height * dense);
    }
    const context = pixels.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.imageSmoothingEnabled = scale < 3;
    if (s.image.bitmap) context.drawImage(s.image.bitmap, s.map.dx, s.map.dy, width * scale, height * scale);
    update();
  }

  function zoomBy(factor, at) {
    const box = stage.getBoundingClientRect();
    const [x, y] = at ?? [box.width / 2, box.height / 2];
    const after = clamp(s.zoom * factor, 1, 80);
    const point = [(x - s.map.dx) / s.map.scale, (y - s.map.dy) / s.map.scale];
    const scale = (s.map.scale / s.zoom) * after;
    s.zoom = after;
    s.centre = after === 1 ? null : [point[0] - (x - box.width / 2) / scale, point[1] - (y - box.height / 2) / scale];
    layout();
  }

  function pan(dx, dy) {
    const [x, y] = s.centre ?? s.image.size.map((v) => v / 2);
    s.centre = [x - dx / s.map.scale, y - dy / s.map.scale];
    layout();
  }

  function zoomToSubject() {
    const instance = current();
    if (!instance) return;
    const xs = instance.xyv.filter((_, i) => i % 3 === 0 && instance.xyv[i + 2]).concat(instance.box ? [instance.box[0], instance.box[2]] : []);
    const ys = instance.xyv.filter((_, i) => i % 3 === 1 && instance.xyv[i + 1]).concat(instance.box ? [instance.box[1], instance.box[3]] : []);
    const box = stage.getBoundingClientRect();
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const fit = Math.min(box.width / s.image.size[0], box.height / s.image.size[1]);
    s.zoom = clamp(0.7 * Math.min(box.width / Math.max(x1 - x0, 8), box.height / Math.max(y1 - y0, 8)) / fit, 1, 80);
    s.centre = [(x0 + x1) / 2, (y0 + y1) / 2];
    layout();
  }

  function brighten(value) {
    s.bright = clamp(value, 0.3, 4);
    panel.light.value = s.bright;
    pixels.style.filter = s.bright === 1 ? "" : `brightness(${s.bright})`;
  }

  function draw() {
    queued = false;
    const context = points.getContext("2d");
    const dense = window.devicePixelRatio || 1;
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, points.width, points.height);
    if (!s.image || !s.look) return;
    panel.refresh(s, s.drag?.instance ?? current(), waiting());
    if (!s.shown) return;
    const { instances, suggested } = s.image;
    if (!instances.size) for (const one of suggested ?? []) drawInstance(context, one, s.map, s.look, { suggested: true, names: s.names });
    for (const [key, one] of instances) if (key !== s.sel) drawInstance(context, one, s.map, s.look, { names: s.names });
    const chosen = s.drag?.instance ?? current();
    if (chosen) drawInstance(context, chosen, s.map, s.look, { selected: true, active: s.active, names: s.names });
    if (s.drag?.box) drawBox(context, s.drag.box, s.map, { selected: true });
    else if (s.over && !s.drag && !s.boxing && s.active !== null && !visibility(chosen, s.active)) drawGuide(context, chosen);
  }

  /** The name of the next keypoint at the pointer, and lines from its placed neighbours. */
  function drawGuide(context, instance) {
    const [x, y] = s.over;
    context.setLineDash([3, 4]);
    context.strokeStyle = "rgba(255,255,255,.8)";
    context.lineWidth = 1.2;
    for (const edge of s.project.edges) {
      if (!edge.includes(s.active)) continue;
      const other = edge[0] === s.active ? edge[1] : edge[0];
      if (!visibility(instance, other)) continue;
      context.beginPath();
      context.moveTo(instance.xyv[3 * other] * s.map.scale + s.map.dx, instance.xyv[3 * other + 1] * s.map.scale + s.map.dy);
      context.lineTo(x, y);
      context.stroke();
    }
    context.setLineDash([]);
    drawText(context, s.project.keypoints[s.active], x + 12, y - 10);
  }

  /** Draw before the next frame. */
  function update() {
    if (queued) return;
    queued = true;
    requestAnimationFrame(draw);
  }

  return { update, layout, zoomBy, pan, zoomToSubject, brighten };
}
