// How instances look. Colours are distinguishable with any colour vision; shapes repeat what colours tell.

const SIDES = { left: "#56B4E9", right: "#E69F00", none: "#F0F0F0" };
const CYCLE = ["#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#F0F0F0"];
const SUGGESTED = "#FF6AD5";
const DARK = "rgba(10,12,14,.8)";

/** A colour for each keypoint: by side where the skeleton has sides, else in turn. */
export function coloursOf(project) {
  if (project.flip.every((other, k) => other === k)) return project.keypoints.map((_, k) => CYCLE[k % CYCLE.length]);
  return project.keypoints.map((name, k) => {
    if (project.flip[k] === k) return SIDES.none;
    const left = /left/i.test(name) ? true : /right/i.test(name) ? false : k < project.flip[k];
    return left ? SIDES.left : SIDES.right;
  });
}

/** Draw one instance. `map` is {scale, dx, dy}: image pixels to those of the context; `look` has project, colours, radius. */
export function drawInstance(context, instance, map, look, options = {}) {
  const { xyv } = instance;
  const X = (k) => xyv[3 * k] * map.scale + map.dx;
  const Y = (k) => xyv[3 * k + 1] * map.scale + map.dy;
  const known = (k) => xyv[3 * k + 2] > 0;
  const r = Math.min(look.radius, 2.4 + 1.6 * map.scale) * (options.selected ? 1.15 : 0.85);
  context.globalAlpha = options.selected || options.suggested ? 1 : 0.75;
  if (instance.box) drawBox(context, instance.box, map, { ...options, crowd: instance.crowd });
  const edges = new Path2D();
  for (const [a, b] of look.project.edges) {
    if (!known(a) || !known(b)) continue;
    edges.moveTo(X(a), Y(a));
    edges.lineTo(X(b), Y(b));
  }
  context.lineWidth = options.selected ? 4 : 3;
  context.strokeStyle = "rgba(10,12,14,.45)";
  context.stroke(edges);
  context.lineWidth = options.selected ? 1.8 : 1.2;
  context.strokeStyle = options.suggested ? SUGGESTED : options.selected ? "#FFFFFF" : "#C8CDD2";
  context.setLineDash(options.suggested ? [5, 4] : []);
  context.stroke(edges);
  context.setLineDash([]);
  // one path for all points of a colour and kind; discs are filled twice, as that is faster than a stroke around each
  const [discs, rims, groups] = [new Path2D(), new Path2D(), new Map()];
  const circle = (path, k, radius) => {
    path.moveTo(X(k) + radius, Y(k));
    path.arc(X(k), Y(k), radius, 0, 6.2832);
  };
  for (let k = 0; k < look.project.keypoints.length; k++) {
    if (!known(k)) continue;
    const hollow = xyv[3 * k + 2] === 1 || options.suggested;
    const colour = options.suggested ? SUGGESTED : look.colours[k];
    const name = colour + hollow;
    if (!groups.has(name)) groups.set(name, { colour, hollow, path: new Path2D() });
    const { path } = groups.get(name);
    if (options.suggested) {
      for (const one of [rims, path]) one.rect(X(k) - r * 0.8, Y(k) - r * 0.8, r * 1.6, r * 1.6);
    } else {
      circle(hollow ? rims : discs, k, hollow ? r : r + 1.6);
      circle(path, k, r);
    }
    if (hollow) path.rect(X(k) - 0.5, Y(k) - 0.5, 1, 1);
  }
  context.fillStyle = context.strokeStyle = DARK;
  context.fill(discs);
  context.lineWidth = 4;
  context.stroke(rims);
  for (const { colour, hollow, path } of groups.values()) {
    context.lineWidth = 2;
    context.strokeStyle = context.fillStyle = colour;
    if (hollow) context.stroke(path);
    else context.fill(path);
  }
  const active = options.active ?? null;
  if (active !== null && known(active)) drawRing(context, X(active), Y(active), r + 4.5);
  for (let k = 0; k < look.project.keypoints.length; k++) {
    if (known(k) && (options.names || k === active)) drawText(context, look.project.keypoints[k], X(k) + r + 5, Y(k) - r - 2);
  }
  context.globalAlpha = 1;
}

function drawRing(context, x, y, radius) {
  const ring = new Path2D();
  ring.arc(x, y, radius, 0, 6.2832);
  context.lineWidth = 4;
  context.strokeStyle = DARK;
  context.stroke(ring);
  context.lineWidth = 2;
  context.strokeStyle = "#FFFFFF";
  context.stroke(ring);
}

export function drawBox(context, [x0, y0, x1, y1], map, options = {}) {
  const [left, top] = [x0 * map.scale + map.dx, y0 * map.scale + map.dy];
  const [width, height] = [(x1 - x0) * map.scale, (y1 - y0) * map.scale];
  context.setLineDash(options.crowd ? [2, 4] : []);
  context.lineWidth = 3.5;
  context.strokeStyle = "rgba(10,12,14,.5)";
  context.strokeRect(left, top, width, height);
  context.lineWidth = options.selected ? 1.8 : 1.1;
  context.strokeStyle = options.suggested ? SUGGESTED : options.selected ? "#FFFFFF" : "#C8CDD2";
  context.strokeRect(left, top, width, height);
  context.setLineDash([]);
  if (!options.selected) return;
  context.fillStyle = "#FFFFFF";
  for (const x of [left, left + width]) for (const y of [top, top + height]) context.fillRect(x - 3, y - 3, 6, 6);
}

export function drawText(context, text, x, y) {
  context.font = "12px system-ui, sans-serif";
  context.lineWidth = 3.5;
  context.lineJoin = "round";
  context.strokeStyle = DARK;
  context.strokeText(text, x, y);
  context.fillStyle = "#FFFFFF";
  context.fillText(text, x, y);
}
