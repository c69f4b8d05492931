// Loads the page again every few seconds while it is looked at, and puts the new middle in place of the old one.
"use strict";
(() => {
  const ask = (event) => {
    const question = event.submitter && event.submitter.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  };
  document.addEventListener("submit", ask);
  const every = Number((document.getElementById("live") || { dataset: {} }).dataset.every || 0);
  if (!every) return;
  const refresh = async () => {
    const live = document.getElementById("live");
    if (document.hidden || live.contains(document.activeElement) || live.querySelector("details[open]")) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (next) live.replaceWith(document.importNode(next, true));
    } catch {
      // The hub or the network is away: what is shown says as of when it is.
    }
  };
  setInterval(refresh, every * 1000);
})();
