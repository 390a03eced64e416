// The page: a model whose messages go to the server.

import { render } from "./annotator.js";

const listeners = [];
const model = {
  get() { return undefined; },
  set() {},
  save_changes() {},
  on(name, listener) { if (name === "msg:custom") listeners.push(listener); },
  send,
};
let [last, waiting] = [Promise.resolve(), 0];

function dispatch(message) {
  for (const listener of listeners) listener(message, []);
}

/** Messages are answered in the order in which they were sent. One that gets no answer is sent again, as no edit may be lost. */
function send(message) {
  if (message.kind === "news" && waiting) return;
  waiting += 1;
  last = last.then(async () => {
    for (;;) {
      try {
        const response = await fetch("message", { method: "POST", body: JSON.stringify(message) });
        const answer = await response.json();
        dispatch({ kind: "connection", online: true });
        dispatch(answer.view ? answer : { ...answer, view: message.view, number: message.number });
        break;
      } catch {
        dispatch({ kind: "connection", online: false });
        if (message.kind === "news") break;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
    waiting -= 1;
  });
}

render({ model, el: document.getElementById("annotator") });
document.querySelector("#annotator .stage").focus();
