// The page: files are sent to POST /predict, and the poses are drawn over them.

import { copy, get, h, number, themeButton } from "../common/dom.js";
import { Model, renderPoseView } from "../common/pose_view.js";

const COLOUR = "#E69F00";

const info = h("span", { class: "faint" });
const input = h("input", { type: "file", multiple: true, accept: "image/*", class: "outside", "aria-label": "images", onchange: () => choose([...input.files]) });
const zone = h("label", { class: "drop" }, input, h("strong", {}, "Drop images here"), h("span", { class: "faint" }, "or choose files"));
const message = h("p", { class: "error", role: "alert" });
const status = h("p", { class: "faint", role: "status" });
const files = h("div", { class: "files" });
const answer = h("div", { class: "answer" });
const text = h("div", {});
const usage = h("pre", { class: "faint" }, `curl -F images=@photo.jpg ${location.origin}/predict`);
const note = h("p", { class: "faint" });
const main = h("main", { id: "main" }, zone, note, status, message, files, answer, text, h("h2", {}, "For programs"), usage);

document.body.append(
  h("header", {}, h("span", { class: "brand" }, "kplab serve"), info, h("span", { class: "grow" }), h("a", { href: "openapi.json" }, "OpenAPI"), h("a", { href: "metrics" }, "metrics"), themeButton()),
  main);

const model = get("model");
let run = null; // its answer
let chosen = []; // {file, boxes}: the images of the last request
let shown = []; // {address, image}: and their answers
let sent = 0; // requests so far: only the answer to the last one is shown
let close = () => {};
const options = { names: true, least: 0 };

model.then((found) => {
  run = found;
  options.names = run.skeleton.keypoints.length <= 20; // more of them hide the image
  if (run.regions === "annotated") note.textContent = "This run is trained on boxes of subjects. Without a box, the whole image is taken as one subject's.";
  info.textContent = `${run.run} on ${run.device}, ${run.skeleton.keypoints.length} keypoints`;
}).catch((error) => { message.textContent = error.message; });

// ---------------------------------------------------------------- sending

function choose(list) {
  input.value = "";
  chosen = list.map((file) => ({ file, boxes: null }));
  if (list.length) send(0);
}

/** Send the chosen images with their boxes, and show the answer to one of them. */
async function send(index) {
  const mine = ++sent;
  const form = new FormData();
  for (const { file } of chosen) form.append("images", file);
  if (chosen.some(({ boxes }) => boxes)) form.append("boxes", JSON.stringify(chosen.map(({ boxes }) => boxes)));
  message.textContent = "";
  status.textContent = chosen.length === 1 ? `predicting ${chosen[0].file.name} …` : `predicting ${chosen.length} images …`;
  main.setAttribute("aria-busy", "true");
  const begun = performance.now();
  try {
    const response = await fetch("predict", { method: "POST", body: form });
    const found = await response.json().catch(() => ({ error: response.statusText }));
    if (!response.ok) throw new Error(found.error ?? response.statusText);
    await model;
    if (mine !== sent) return;
    status.textContent = `${found.images.length === 1 ? "1 image" : `${found.images.length} images`} in ${((performance.now() - begun) / 1000).toFixed(2)} s`;
    for (const old of shown) URL.revokeObjectURL(old.address);
    shown = found.images.map((image, i) => ({ image, address: URL.createObjectURL(chosen[i].file) }));
    zone.classList.add("small");
    show(index);
  } catch (error) {
    if (mine !== sent) return;
    status.textContent = "";
    message.textContent = error instanceof TypeError ? "The service does not answer." : error.message;
  } finally {
    if (mine === sent) main.removeAttribute("aria-busy");
  }
}

for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", name === "dragover");
    if (name === "drop") choose([...event.dataTransfer.files]);
  });
}
addEventListener("paste", (event) => choose([...event.clipboardData.files]));

// ---------------------------------------------------------------- showing

/** The poses of an answer as a layer: continuous pixels, which are half a pixel more than the indices of the answer. */
function layer(image) {
  const poses = image.poses.map((pose) => ({
    xy: pose.keypoints.flatMap((k) => (k.x === null ? [null, null] : [k.x + 0.5, k.y + 0.5])),
    visible: pose.keypoints.map((k) => (k.x !== null && k.score >= options.least ? 2 : 0)),
    keypoint_score: pose.keypoints.map((k) => Number(k.score.toFixed(3))),
  }));
  return { name: "predicted", colour: COLOUR, shown: true, truth: false, poses };
}

function show(index) {
  close();
  const { image, address } = shown[index];
  files.replaceChildren(...(shown.length > 1 ? shown.map((one, i) =>
    h("button", { type: "button", "aria-pressed": String(i === index), onclick: () => show(i) }, one.image.name)) : []));
  const values = new Model({
    image: address, size: [image.width, image.height], skeleton: run.skeleton, layers: [layer(image)], keypoint: null, lines: false, names: options.names,
    heatmap: "", zoom: 1, centre: null,
  });
  h("img", { src: address, onerror: () => { message.textContent = "This browser can't show the image: its keypoints are drawn without it."; } });
  message.textContent = "";
  const view = h("div", {});
  const least = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: options.least, oninput: () => {
    options.least = Number(least.value);
    shownLeast.textContent = options.least.toFixed(2);
    values.set("layers", [layer(image)]);
  } });
  const shownLeast = h("span", {}, options.least.toFixed(2));
  const names = h("input", { type: "checkbox", checked: options.names, onchange: () => {
    options.names = names.checked;
    values.set("names", names.checked);
  } });
  answer.replaceChildren(
    h("div", {},
      h("div", { class: "bar" }, h("label", { class: "check" }, names, "names"), h("label", { class: "field" }, "lowest score", least, shownLeast), run.takes_boxes ? boxTools(view, index) : null),
      view),
    h("div", { class: "points" },
      h("h2", {}, `${image.name}: ${image.poses.length === 1 ? "1 pose" : `${image.poses.length} poses`}`),
      h("p", { class: "faint" }, `${image.width} × ${image.height} pixels; x and y are pixel indices`),
      image.poses.map(table)));
  close = renderPoseView({ model: values, el: view });
  const json = JSON.stringify(image, null, 1);
  text.replaceChildren(h("details", { class: "text" }, h("summary", {}, "JSON"), copy(json), h("pre", {}, json)));
}

function table(pose, i) {
  return h("table", { class: "data" },
    h("caption", { class: "note" }, `pose ${i + 1}, score ${number(pose.score, 3)}`),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "keypoint"), ["x", "y", "score"].map((name) => h("th", { scope: "col", class: "number" }, name)))),
    h("tbody", {}, pose.keypoints.map((k) => h("tr", {}, h("th", { scope: "row" }, k.name),
      h("td", { class: "number" }, number(k.x, 1)), h("td", { class: "number" }, number(k.y, 1)), h("td", { class: "number" }, number(k.score, 2))))));
}

// ---------------------------------------------------------------- boxes

/** Buttons to draw a box around a subject, and to remove all boxes of the image. */
function boxTools(view, index) {
  const { image } = shown[index];
  const cover = h("div", { class: "cover", hidden: true, onpointerdown: begin, onpointermove: move, onpointerup: end });
  const frame = h("div", { class: "frame" });
  const draw = h("button", { type: "button", "aria-pressed": "false", onclick: toggle }, "draw a box");
  const remove = h("button", { type: "button", disabled: !chosen[index].boxes, onclick: () => change(null) }, "remove the boxes");
  let from = null;

  function toggle() {
    cover.hidden = !cover.hidden;
    draw.setAttribute("aria-pressed", String(!cover.hidden));
    view.querySelector(".stage").append(cover);
  }

  function change(boxes) {
    chosen[index].boxes = boxes;
    send(index);
  }

  /** Corners of the box up to the pointer, in pixels of the page. */
  function corners(event) {
    return [Math.min(from[0], event.clientX), Math.min(from[1], event.clientY), Math.max(from[0], event.clientX), Math.max(from[1], event.clientY)];
  }

  function begin(event) {
    event.stopPropagation();
    cover.setPointerCapture(event.pointerId);
    from = [event.clientX, event.clientY];
    cover.append(frame);
  }

  function move(event) {
    event.stopPropagation();
    if (!from) return;
    const [x0, y0, x1, y1] = corners(event);
    const { left, top } = cover.getBoundingClientRect();
    Object.assign(frame.style, { left: `${x0 - left}px`, top: `${y0 - top}px`, width: `${x1 - x0}px`, height: `${y1 - y0}px` });
  }

  function end(event) {
    event.stopPropagation();
    if (!from) return;
    const pixels = view.querySelector("img.pixels").getBoundingClientRect();
    const [x0, y0, x1, y1] = corners(event);
    const scale = image.width / pixels.width;
    const box = [x0 - pixels.left, y0 - pixels.top, x1 - pixels.left, y1 - pixels.top].map((v) => Number((v * scale).toFixed(2)));
    from = null;
    frame.remove();
    if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) change([...(chosen[index].boxes ?? []), box]);
  }

  return [draw, remove];
}
