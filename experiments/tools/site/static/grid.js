// The cards of mechanisms: shows those that fit every choice. Without it all of them are shown.
document.addEventListener("DOMContentLoaded", () => {
  const filters = document.querySelector(".jattn-filters");
  if (!filters) return;
  const cards = [...document.querySelectorAll(".jattn-card")];
  const selects = [...filters.querySelectorAll("select")];
  const find = filters.querySelector("[data-find]");
  const said = filters.querySelector("output");
  // The choice is in the address, so that it can be kept and sent.
  const given = new URLSearchParams(location.hash.slice(1));
  for (const select of selects) select.value = given.get(select.dataset.filter) || "";
  find.value = given.get("find") || "";
  const choose = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = selects.filter((select) => select.value);
    let shown = 0;
    for (const card of cards) {
      const text = card.textContent.toLowerCase();
      const fits = wanted.every((select) => card.dataset[select.dataset.filter] === select.value);
      card.hidden = !(fits && words.every((word) => text.includes(word)));
      shown += !card.hidden;
    }
    said.textContent = `${shown} of ${cards.length}`;
    const kept = new URLSearchParams(wanted.map((select) => [select.dataset.filter, select.value]));
    if (find.value) kept.set("find", find.value);
    if (location.protocol !== "about:") history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname);
  };
  filters.addEventListener("input", choose);
  choose();
});
