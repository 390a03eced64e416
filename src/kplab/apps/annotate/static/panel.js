// The elements around the image: bar, lists of subjects and keypoints, hint, help.

const STATES = ["○ not labelled", "◐ occluded", "● visible"];

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Build the elements in `el`. `act` has the functions that they call: step, find, brighten, startSubject, selectSubject, selectKeypoint. */
export function makePanel(el, act, keys) {
  const pixels = h("canvas", { class: "pixels" });
  const points = h("canvas", { class: "points" });
  const stage = h("div", { class: "stage", tabindex: 0, role: "application", "aria-label": "image with keypoints; press ? for the keys" }, pixels, points);
  const [place, count] = ["place", "count"].map((name) => h("span", { class: name }));
  const name = h("bdi", { dir: "ltr" });
  const title = h("span", { class: "title" }, name); // of a long name the end is shown
  const progress = h("progress", { max: 1, value: 0, "aria-label": "images with labels" });
  const saved = h("span", { class: "saved", role: "status" });
  const hint = h("div", { class: "hint", role: "status" });
  const search = h("input", { type: "search", placeholder: "search names", "aria-label": "search images by name", oninput: () => act.find({ text: search.value }) });
  const order = h("select", { "aria-label": "order of the images", onchange: () => act.find({ order: order.value }) });
  const only = h("select", { "aria-label": "which images", onchange: () => act.find({ only: only.value }) });
  const light = h("input", { type: "range", min: 0.3, max: 4, step: 0.1, value: 1, "aria-label": "brightness", oninput: () => act.brighten(Number(light.value)) });
  const subjects = h("div", { class: "subjects", role: "group", "aria-label": "subjects" });
  const keypoints = h("div", { class: "keypoints", role: "group", "aria-label": "keypoints" });
  const help = h("dialog", { class: "help", "aria-label": "keys" });
  const back = (run) => () => { run(); stage.focus({ preventScroll: true }); };
  const button = (text, label, run) => h("button", { type: "button", title: label, "aria-label": label, onclick: back(run) }, text);
  let rows = [];

  el.classList.add("kplab-annotator");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // keys are for the annotator, not for JupyterLab
  el.replaceChildren(
    h("div", { class: "top" }, button("‹", "previous image (a)", () => act.step(-1)), button("›", "next image (d)", () => act.step(1)), place, title,
      h("span", { class: "grow" }), search, order, only, progress, count, saved),
    h("div", { class: "main" }, stage, h("div", { class: "side" },
      h("div", { class: "row" }, button("+ subject", "new subject (n)", act.startSubject), button("keys ?", "list the keys", showHelp),
        h("label", { class: "light" }, "☀ ", light)),
      subjects, keypoints)),
    hint, help);
  // a click on a list or a menu returns the keys to the image
  for (const menu of [order, only, light]) menu.addEventListener("change", () => stage.focus({ preventScroll: true }));
  search.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === "Escape") stage.focus(); });

  function showHelp() {
    if (help.open) return help.close();
    help.replaceChildren(h("table", {}, ...keys.map(([names, text]) => h("tr", {}, h("th", {}, ...names.flatMap((name, i) => [i ? " " : "", h("kbd", {}, shownKey(name))])), h("td", {}, text)))),
      h("p", {}, "Click places the next keypoint (Shift: occluded), drag moves it, right click deletes it. Drag the image to pan, the wheel zooms. Alt and click places a keypoint near another one."),
      h("button", { type: "button", onclick: () => { help.close(); stage.focus(); } }, "close"));
    help.showModal();
  }

  function start(project, look) {
    order.replaceChildren(...project.orders.map((name) => h("option", { value: name }, name)));
    only.replaceChildren(...project.only.map((name) => h("option", { value: name }, name)));
    order.hidden = project.orders.length < 2;
    rows = project.keypoints.map((name, k) => {
      const mark = h("span", { class: "mark" });
      mark.style.color = look.colours[k];
      return h("button", { type: "button", onclick: back(() => act.selectKeypoint(k)) }, mark, h("span", { class: "name" }, name));
    });
    keypoints.replaceChildren(...rows);
  }

  function refreshKeypoints(instance, active) {
    rows.forEach((row, k) => {
      const v = instance ? instance.xyv[3 * k + 2] : 0;
      const [mark, text] = STATES[v].split(/ (.*)/);
      if (row.firstChild.textContent !== mark) row.firstChild.textContent = mark;
      if (row.title !== text) row.title = text;
      const on = k === active;
      if ((row.getAttribute("aria-pressed") === "true") !== on) {
        row.setAttribute("aria-pressed", String(on));
        if (on) keypoints.scrollTop = clampScroll(row);
      }
    });
  }

  function clampScroll(row) {
    const [top, bottom] = [row.offsetTop - keypoints.offsetTop, row.offsetTop - keypoints.offsetTop + row.offsetHeight];
    return Math.min(top, Math.max(keypoints.scrollTop, bottom - keypoints.clientHeight));
  }

  function refreshSubjects(s) {
    const K = s.project.keypoints.length;
    const entries = [...(s.image?.instances ?? [])].map(([key, one], i) => [key, one.crowd ? `${i + 1}: crowd` : `${i + 1}: ${one.xyv.filter((v, n) => n % 3 === 2 && v).length}/${K}`]);
    if (s.sel === null) entries.push([null, `new: 0/${K}`]);
    const text = JSON.stringify([entries, s.sel]);
    if (subjects.dataset.text === text) return;
    subjects.dataset.text = text;
    subjects.replaceChildren(...entries.map(([key, label]) => h("button", { type: "button", "aria-pressed": String(key === s.sel), onclick: back(() => act.selectSubject(key)) }, label)));
  }

  function refresh(s, instance, waiting) {
    if (!s.project || !s.image) return;
    refreshKeypoints(instance, s.active);
    refreshSubjects(s);
    name.textContent = s.image.name;
    title.title = s.image.name;
    place.textContent = `${s.at + 1} / ${s.list.length}`;
    const labelled = s.status.labelled ?? 0;
    progress.value = labelled / s.project.images;
    const predicted = s.status.predicted;
    count.textContent = `${labelled} of ${s.project.images} labelled` + (predicted !== null && predicted !== undefined && predicted < s.project.images ? `, ${predicted} predicted` : "");
    const late = waiting.edits > 0 && (waiting.seconds > 5 || !s.online);
    const fault = late ? `no answer: ${waiting.edits} edits are not stored` : s.status.fault ?? "";
    saved.textContent = fault || (waiting.edits || s.status.unsaved ? "saving …" : "saved");
    saved.classList.toggle("fault", Boolean(fault));
    saved.title = fault || `saved to ${s.project.target}`;
  }

  function say(text, fault = false) {
    if (hint.textContent !== text) hint.textContent = text;
    hint.classList.toggle("fault", fault);
  }

  return { stage, pixels, points, search, light, help, start, refresh, say, showHelp };
}

/** The name of a key as it is printed. */
function shownKey(name) {
  if (name === "+") return name;
  const arrows = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Arrows: "←↑↓→" };
  return name.split("+").map((part) => arrows[part] ?? part).join(" ");
}
