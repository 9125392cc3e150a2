// What htmx does not do: a token for writes, forms that post JSON to the API, a short list of newest verdicts.
"use strict";

const LONGEST_LIST = 50;
const TOKEN = "umbra-token";
const NAME = "umbra-name";

const find = (selector, under = document) => under.querySelector(selector);

function showSignedIn() {
  find("#sign-in").textContent = sessionStorage.getItem(TOKEN) ? "Sign out" : "Sign in to write";
}

/** Ask for the token; whether one was given. */
function askForToken() {
  const dialog = find("#token-dialog");
  find("#token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "keep";
      if (given) sessionStorage.setItem(TOKEN, find("#token").value);
      showSignedIn();
      resolve(given);
    }, { once: true });
  });
}

/** Post to the API, signed in; its answer, or an error that says what is wrong. */
async function post(path, body) {
  if (!sessionStorage.getItem(TOKEN) && !(await askForToken())) throw new Error("Not sent: nobody signed in.");
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` },
    body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (answer.ok) return said;
  if (answer.status === 401) {
    sessionStorage.removeItem(TOKEN);
    showSignedIn();
  }
  const detail = Array.isArray(said.detail) ? said.detail.map((p) => `${p.loc.at(-1)}: ${p.msg}`).join("; ") : said.detail;
  throw new Error(detail);
}

/** What a form holds, as the API takes it: empty fields are left out, those in data-numbers are numbers. */
function valuesOf(form) {
  const numbers = (form.dataset.numbers || "").split(" ");
  const given = Array.from(new FormData(form)).filter(([, value]) => value !== "");
  return Object.fromEntries(given.map(([name, value]) => [name, numbers.includes(name) ? Number(value) : value]));
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.post) return;
  event.preventDefault();
  const said = find(".said", form);
  const sure = event.submitter?.dataset.sure;
  if (form.dataset.sending || (sure && !window.confirm(sure))) return;
  form.dataset.sending = "yes";
  try {
    const values = valuesOf(form);
    if (event.submitter && event.submitter.name) values[event.submitter.name] = event.submitter.value;
    if (values.who) localStorage.setItem(NAME, values.who);
    await post(form.dataset.post, values);
    location.reload();
  } catch (error) {
    said.textContent = error.message;
    said.classList.add("wrong");
    delete form.dataset.sending;
  }
});

// Enter in a field is no choice of a bundle.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("form[data-by-button] input")) event.preventDefault();
});

document.addEventListener("input", (event) => {
  if (event.target.id === "spec") find("#spec-value").textContent = Number(event.target.value).toFixed(3);
});

// What is chosen counts at once; what is typed, with Enter.
document.addEventListener("change", (event) => {
  if (event.target.form?.id === "filters" && event.target.matches("select, [type=datetime-local]")) event.target.form.requestSubmit();
});

document.addEventListener("htmx:sseMessage", () => {
  find("#newest")?.closest("main").querySelector(".empty")?.remove();
  const rows = document.querySelectorAll("#newest > tr");
  for (const row of Array.from(rows).slice(LONGEST_LIST)) row.remove();
});

document.addEventListener("DOMContentLoaded", () => {
  showSignedIn();
  find("#sign-in").addEventListener("click", () => {
    if (!sessionStorage.getItem(TOKEN)) return askForToken();
    sessionStorage.removeItem(TOKEN);
    return showSignedIn();
  });
  find("#token-cancel").addEventListener("click", () => find("#token-dialog").close());
  // Not the one that somebody is typing in: the name would stand before what comes.
  for (const field of document.querySelectorAll('input[name="who"]:not(:focus)')) field.value ||= localStorage.getItem(NAME) || "";
});
