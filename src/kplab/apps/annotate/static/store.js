// Images, edits and messages of one view. It knows a model with send and on, so that a page and a notebook can host it.
//
// An instance is {xyv: [x, y, v, …], box: [x0, y0, x1, y1] or null, track, crowd}; instances are never changed, only replaced.
// An edit is a list of changes {key, before, after} of one image; null is an instance that does not exist.

/** Pixels of the images that are kept, beside the last few. */
const [PIXELS, FEW] = [60e6, 4];

export function makeStore(model, notify) {
  const view = Array.from({ length: 8 }, () => Math.floor(Math.random() * 36).toString(36)).join("");
  const images = new Map();
  const loading = new Map();
  const queue = [];
  const done = [];
  const undone = [];
  let [made, number, sent] = [0, 0, 0];

  function send(message) {
    model.send({ ...message, view });
  }

  function receive(message, buffers) {
    if (message.kind === "connection") notify("connection", message);
    if (message.view !== view) return;
    if (message.kind === "news") return message.items.forEach(news);
    if (message.kind === "image") return picture(message, buffers);
    if (message.number !== undefined) return answered(message);
    notify(message.kind, message);
  }

  function news(item) {
    const image = images.get(item.image) ?? loading.get(item.image)?.found;
    if (item.kind === "changed" && image) image.instances = withQueue(item.image, new Map(item.instances));
    if (item.kind === "suggestion" && image) image.suggested = item.suggested;
    notify(item.kind, item);
  }

  // ------------------------------------------------------------ images

  async function picture(message, buffers) {
    const found = { index: message.image, name: message.name, size: message.size, suggested: message.suggested, fault: null };
    found.instances = withQueue(message.image, new Map(message.instances));
    if (loading.has(found.index)) loading.get(found.index).found = found; // it may change before its pixels are there
    try {
      found.bitmap = await createImageBitmap(await blobOf(message, buffers), { imageOrientation: "none" });
    } catch (error) {
      found.fault = error.message;
    }
    images.set(found.index, found);
    let pixels = 0;
    [...images.values()].reverse().forEach((image, age) => {
      pixels += image.size[0] * image.size[1];
      if (age < FEW || pixels < PIXELS) return;
      image.bitmap?.close();
      images.delete(image.index);
    });
    loading.get(found.index)?.resolve(found);
    loading.delete(found.index);
  }

  async function blobOf(message, buffers) {
    if (buffers?.length) return new Blob([buffers[0]]);
    if (!message.picture) throw new Error(message.text ?? "the image can't be read");
    const response = await fetch(message.picture);
    if (!response.ok) throw new Error((await response.json()).text);
    return response.blob();
  }

  /** An image with its pixels: at once where it is kept, and a promise otherwise. */
  function load(index) {
    const kept = images.get(index);
    if (kept) {
      images.delete(index);
      images.set(index, kept); // the last ones that were shown are kept
      return kept;
    }
    if (!loading.has(index)) {
      const entry = {};
      entry.promise = new Promise((resolve) => { entry.resolve = resolve; });
      loading.set(index, entry);
      send({ kind: "show", image: index });
    }
    return loading.get(index).promise;
  }

  // ------------------------------------------------------------ edits

  function apply(instances, changes) {
    for (const { key, after } of changes) {
      if (after === null) instances.delete(key);
      else instances.set(key, after);
    }
  }

  /** The state of the server with the edits that it has not answered yet. */
  function withQueue(index, instances) {
    for (const edit of queue) if (edit.image === index) apply(instances, edit.changes);
    return instances;
  }

  function next() {
    if (!queue.length || queue[0].sent) return;
    queue[0].sent = true;
    sent = performance.now();
    const { number, image, changes } = queue[0];
    send({ kind: "edit", number, image, changes });
  }

  function answered(message) {
    if (message.number !== queue[0]?.number) return;
    const edit = queue.shift();
    const image = images.get(edit.image);
    if (message.kind !== "accepted") {
      // later edits of an instance that was refused would be refused as well
      const keys = new Set(edit.changes.map((change) => change.key));
      for (let i = queue.length - 1; i >= 0; i--) {
        if (queue[i].image === edit.image && queue[i].changes.some((change) => keys.has(change.key))) queue.splice(i, 1);
      }
      for (const list of [done, undone]) if (list.includes(edit.recorded)) list.splice(list.indexOf(edit.recorded), 1);
      if (image && message.instances) image.instances = withQueue(edit.image, new Map(message.instances));
      else if (image) apply(image.instances, inverse(edit.changes));
      notify("refused", { ...message, image: edit.image });
    }
    notify("answered", message);
    next();
  }

  function inverse(changes) {
    return changes.map(({ key, before, after }) => ({ key, before: after, after: before })).reverse();
  }

  function submit(index, changes, recorded) {
    apply(images.get(index).instances, changes);
    queue.push({ number: ++number, image: index, changes, recorded, sent: false });
    next();
  }

  /** Apply an edit to an image that is loaded, and send it. */
  function edit(index, changes) {
    const entry = { image: index, changes };
    done.push(entry);
    undone.length = 0;
    submit(index, changes, entry);
  }

  /** Take the last edit of this view back, or apply it again; returns it, or undefined where there is none. */
  async function step(from, to, back) {
    const entry = from.pop();
    if (!entry) return undefined;
    await load(entry.image);
    to.push(entry);
    submit(entry.image, back ? inverse(entry.changes) : entry.changes, entry);
    return entry;
  }

  model.on("msg:custom", receive);
  return {
    view, send, load, edit,
    key: () => `${view}.${++made}`,
    undo: () => step(done, undone, true),
    redo: () => step(undone, done, false),
    kept: (index) => images.get(index),
    waiting: () => ({ edits: queue.length, seconds: queue.length ? (performance.now() - sent) / 1000 : 0 }),
  };
}
