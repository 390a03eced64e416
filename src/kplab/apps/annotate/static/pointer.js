// The mouse or a pen on the image: place, drag, pan, draw and change boxes, zoom.

/** Listen on `stage`. `view` has what the pointer needs: s, at, hit, corner, and the functions of the annotator. */
export function listenPointer(stage, view) {
  const { s } = view;
  const STILL = 4;

  function down(event) {
    stage.focus({ preventScroll: true });
    if (!s.image || event.button > 2) return;
    stage.setPointerCapture(event.pointerId);
    const at = view.at(event);
    const start = { from: at, moved: false, button: event.button, occluded: event.shiftKey };
    const found = event.altKey ? null : view.hit(at);
    if (event.button === 1) s.drag = { ...start, kind: "pan" };
    else if (s.boxing && event.button === 0) s.drag = { ...start, kind: "box", anchor: view.toImage(at) };
    else if (found) {
      view.choose(found);
      s.drag = { ...start, kind: "point", k: found.k, instance: view.current() };
    } else {
      const anchor = event.button === 0 ? view.corner(at) : null;
      s.drag = anchor ? { ...start, kind: "box", anchor } : { ...start, kind: event.button === 2 ? "nothing" : "place" };
    }
    view.update();
  }

  function moved(event) {
    const at = view.at(event);
    s.over = at;
    const drag = s.drag;
    if (drag) {
      if (Math.hypot(at[0] - drag.from[0], at[1] - drag.from[1]) > STILL) drag.moved = true;
      if (drag.moved && (drag.kind === "pan" || drag.kind === "place")) {
        view.pan(event.movementX, event.movementY);
      } else if (drag.moved && drag.kind === "point" && drag.button === 0) {
        drag.shift = [0, 1].map((i) => (at[i] - drag.from[i]) / s.map.scale);
        drag.instance = view.shifted(drag.k, drag.shift);
      } else if (drag.kind === "box") drag.box = view.boxOf(drag.anchor, view.toImage(at));
    }
    view.update();
  }

  function up(event) {
    const drag = s.drag;
    s.drag = null;
    if (!drag) return;
    const at = view.at(event);
    if (drag.kind === "point" && drag.button === 2) view.setState(0);
    else if (drag.shift) view.commit(view.shifted(drag.k, drag.shift)); // of the instance as it is now
    else if (drag.kind === "box" && drag.box) view.setBox(drag.box);
    else if (drag.kind === "place" && !drag.moved) view.put(...view.toImage(at), drag.occluded ? 1 : 2);
    view.update();
  }

  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointermove", moved);
  stage.addEventListener("pointerup", up);
  stage.addEventListener("pointercancel", () => { s.drag = null; view.update(); });
  stage.addEventListener("pointerleave", () => { s.over = null; view.update(); });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (s.image) view.zoomBy(Math.exp(-event.deltaY * 0.0015), view.at(event));
  }, { passive: false });
}
