// A rating: one score by button or key, then the next frame.
"use strict";

function goTo(again) {
  const { session, rater } = find("#rate-form").dataset;
  const asked = new URLSearchParams(again ? { rater, again } : { rater });
  location.assign(`/rate/${session}?${asked}`);
}

let sending = false;

async function rate(score) {
  const form = find("#rate-form");
  if (sending) return;
  sending = true;
  const { session, frame, rater } = form.dataset;
  localStorage.setItem(NAME, rater);
  try {
    await post("/v1/ratings", { session_id: Number(session), frame_id: Number(frame), rater, score });
    goTo();
  } catch (error) {
    const said = find(".said", form);
    said.textContent = error.message;
    said.classList.add("wrong");
    sending = false;
  }
}

function back() {
  const { before } = find("#rate-form").dataset;
  if (before) goTo(before);
}

document.addEventListener("DOMContentLoaded", () => {
  const form = find("#rate-form");
  if (!form) {
    const rater = find("#rater");
    if (rater && rater !== document.activeElement) rater.value ||= localStorage.getItem(NAME) || ""; // somebody may be typing
    return;
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    rate(Number(event.submitter.value));
  });
  find("#undo").addEventListener("click", back);
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, dialog *") || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (/^[0-9]$/.test(event.key)) rate(Number(event.key));
    else if (event.key === "+") rate(10);
    else if (event.key === "u") back();
  });
});
