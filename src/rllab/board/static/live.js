/* What the pages of the board share: parts of a page are fetched again and again, as long as it is in sight. */
"use strict";

/** Fetches from the board; a failure is shown at the top of the page until a fetch succeeds. */
async function ask(address, options) {
  const problem = document.getElementById("problem");
  try {
    const answer = await fetch(address, options);
    if (answer.status === 304) return null;
    if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
    problem.textContent = "";
    return answer;
  } catch (error) {
    problem.textContent = error instanceof TypeError ? "the board does not answer; is it still running?" : error.message;
    return null;
  }
}

/** Puts what the board renders for an address in place of an element's content, if that has changed. */
async function replaceWith(element, address) {
  const answer = await ask(address);
  if (!answer) return false;
  const text = await answer.text();
  if (element.dataset.text === text) return false;
  element.dataset.text = text;
  element.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  return true;
}

/** Calls a function every so many seconds while the page is in sight, one call after another. */
function again(seconds, work) {
  let busy = false;
  setInterval(async () => {
    if (busy || document.hidden) return;
    busy = true;
    try { await work(); } finally { busy = false; }
  }, 1000 * seconds);
}
