// The bench: boxes drawn on a frame in its own pixels, keys, and the way from one frame of the queue to the next.
"use strict";

const LAST = "umbra-last-label";
const SMALLEST = 0.01; // of the frame's width: what is drawn smaller is a click

const bench = {
  drawing: find("#drawing"),
  list: find("#boxes"),
  prefilled: false, // with the boxes of a label before
  saving: false,
  boxes: [], // { rect, item, name }: a rectangle in the drawing and its line in the list
};

/** Width and height of the frame, in its pixels. */
function frameSize() {
  const view = bench.drawing.viewBox.baseVal;
  return [view.width, view.height];
}

function placeOf(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(bench.drawing.getScreenCTM().inverse());
  const [width, height] = frameSize();
  return [Math.min(Math.max(at.x, 0), width), Math.min(Math.max(at.y, 0), height)];
}

function boxOf(rect) {
  const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name)));
  return [x, y, x + w, y + h].map(Math.round);
}

function setBox(rect, [x0, y0, x1, y1]) {
  const values = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
  for (const [name, value] of Object.entries(values)) rect.setAttribute(name, value);
}

/** Write what the boxes are beside them, and number them. */
function tell() {
  bench.boxes.forEach((box, index) => {
    const told = boxOf(box.rect).join(", ");
    box.rect.setAttribute("aria-label", `Box ${index + 1}: ${told}`);
    find(".told", box.item).textContent = `${index + 1}: ${told}`;
    box.name.setAttribute("aria-label", `Class of box ${index + 1}`);
  });
  if (bench.boxes.length) find("#empty").checked = false;
}

function addBox(corners, name = "") {
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("class", "box");
  rect.setAttribute("tabindex", "0");
  rect.setAttribute("role", "button");
  setBox(rect, corners);
  bench.drawing.append(rect);
  const item = document.createElement("li");
  const told = Object.assign(document.createElement("span"), { className: "told" });
  const field = Object.assign(document.createElement("input"), { value: name, placeholder: "class", maxLength: 200 });
  field.setAttribute("list", "names");
  const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove" });
  item.append(told, field, remove);
  bench.list.append(item);
  const box = { rect, item, name: field };
  bench.boxes.push(box);
  remove.addEventListener("click", () => removeBox(box));
  rect.addEventListener("keydown", (event) => moveBox(event, box));
  tell();
  return box;
}

function removeBox(box) {
  bench.boxes = bench.boxes.filter((other) => other !== box);
  box.rect.remove();
  box.item.remove();
  if (!bench.boxes.length && bench.prefilled) find("#empty").checked = true; // else those that were drawn before would hold
  tell();
}

function moveBox(event, box) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    removeBox(box);
  }
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const [width, height] = frameSize();
  const [dx, dy] = [step[0] * width * SMALLEST, step[1] * height * SMALLEST];
  const [x0, y0, x1, y1] = boxOf(box.rect);
  const moved = event.shiftKey ? [x0, y0, x1 + dx, y1 + dy] : [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
  const [left, top, right, bottom] = moved;
  const inside = left >= 0 && top >= 0 && right <= width && bottom <= height;
  if (inside && right - left >= 1 && bottom - top >= 1) setBox(box.rect, moved);
  tell();
}

function drawWithPointer() {
  let begun = null;
  let drawn = null;
  bench.drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    begun = placeOf(event);
    drawn = null;
    bench.drawing.setPointerCapture(event.pointerId);
  });
  bench.drawing.addEventListener("pointermove", (event) => {
    if (!begun) return;
    const now = placeOf(event);
    const least = frameSize()[0] * SMALLEST;
    if (!drawn && Math.hypot(now[0] - begun[0], now[1] - begun[1]) > least) drawn = addBox([...begun, ...now]);
    if (drawn) {
      setBox(drawn.rect, [...begun, ...now]);
      tell();
    }
  });
  bench.drawing.addEventListener("pointerup", () => {
    if (drawn) {
      const [x0, y0, x1, y1] = boxOf(drawn.rect);
      if (x1 <= x0 || y1 <= y0) removeBox(drawn);
    }
    begun = drawn = null;
  });
}

function newBox() {
  const [width, height] = frameSize();
  addBox([0.4 * width, 0.4 * height, 0.6 * width, 0.6 * height]).rect.focus();
}

function takeRegions() {
  for (const rect of bench.drawing.querySelectorAll(".suggestion")) addBox(boxOf(rect));
}

function showHeat() {
  const button = find("#show-unseen");
  const picture = find("#picture");
  if (!picture.dataset.unseen) return;
  const heat = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", heat);
  picture.src = heat ? picture.dataset.unseen : picture.dataset.image;
}

/** The next frame of the queue: the one labeled now has left it, one that is skipped stays before the next. */
function goOn(passed) {
  const asked = new URLSearchParams(location.search);
  const offset = Number(find("#label-form").dataset.offset) + passed;
  if (offset) asked.set("offset", offset);
  location.assign(`/label/next?${asked}`);
}

async function save() {
  const form = find("#label-form");
  const label = { frame_id: Number(form.dataset.frame), ...valuesOf(form) };
  if (label.level !== undefined) label.level = Number(label.level);
  if (bench.boxes.length) {
    label.boxes = bench.boxes.map((box) => boxOf(box.rect));
    label.box_classes = bench.boxes.map((box) => box.name.value.trim() || null);
  }
  if (find("#empty").checked) label.empty = true;
  localStorage.setItem(NAME, label.who);
  const { id } = await post("/v1/labels", label);
  sessionStorage.setItem(LAST, JSON.stringify({ id, at: location.pathname + location.search, who: label.who }));
  goOn(0);
}

async function takeBack() {
  const last = JSON.parse(sessionStorage.getItem(LAST) || "null");
  if (!last) return;
  if (last.id) await post(`/v1/labels/${last.id}/retraction`, { who: last.who });
  sessionStorage.removeItem(LAST);
  location.assign(last.at);
}

/** Do it once, and say what is wrong where it cannot be done. */
async function tried(work) {
  const said = find(".said", find("#label-form"));
  if (bench.saving) return;
  bench.saving = true;
  try {
    await work();
  } catch (error) {
    bench.saving = false;
    said.textContent = error.message;
    said.classList.add("wrong");
  }
}

const keys = {
  h: showHeat,
  b: newBox,
  r: takeRegions,
  z: () => bench.boxes.length && removeBox(bench.boxes.at(-1)),
  e: () => find("#empty").click(),
  s: () => goOn(1),
  u: () => tried(takeBack),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches('input:not([type="radio"]):not([type="checkbox"]), dialog *');
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const choice = document.querySelectorAll('input[name="class"]')[Number(event.key) - 1];
  if (choice) choice.click();
  else if (event.key === "Enter" && !event.target.matches("button, a")) {
    event.preventDefault();
    find("#label-form").requestSubmit();
  }
  else if (keys[event.key] && (bench.drawing || !"hbrz".includes(event.key))) keys[event.key]();
});

document.addEventListener("DOMContentLoaded", () => {
  find("#label-form").addEventListener("submit", (event) => {
    event.preventDefault();
    tried(save);
  });
  find("#skip").addEventListener("click", () => goOn(1));
  find("#undo").addEventListener("click", () => tried(takeBack));
  find("#undo").disabled = !sessionStorage.getItem(LAST);
  if (!bench.drawing) return;
  drawWithPointer();
  bench.prefilled = bench.list.children.length > 0;
  for (const item of Array.from(bench.list.children)) {
    item.remove();
    addBox(item.dataset.box.split(",").map(Number), item.dataset.class);
  }
  find("#show-unseen").addEventListener("click", showHeat);
  find("#new-box").addEventListener("click", newBox);
  find("#take-rois").addEventListener("click", takeRegions);
  find("#undo-box").addEventListener("click", keys.z);
});
