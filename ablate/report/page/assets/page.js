"use strict";
// Tables that sort and filter, tabs, the slider between truth and prediction. Without it everything is still there.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    all("thead th", table).forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        // The first click on a number brings the largest up; the third gives the study's own order back.
        const number = head.classList.contains("n");
        const steps = number ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
        const next = steps[(steps.indexOf(head.getAttribute("aria-sort") || "none") + 1) % 3];
        all("thead th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const value = (row) => row.cells[column].dataset.sort;
        const order = (a, b) => (number ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b), undefined, { numeric: true }));
        const sign = next === "descending" ? -1 : 1;
        const sorted = next === "none" ? rows : rows.slice().sort((a, b) => sign * order(a, b));
        body.append(...sorted);
      });
    });
    const input = document.querySelector(`input[data-filters="${table.id}"]`);
    if (!input) continue;
    const output = input.parentElement.querySelector("output");
    const show = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        if (!row.hidden) count += 1;
      }
      output.textContent = words.length ? `${count} of ${rows.length} rows` : "";
    };
    input.addEventListener("input", show);
  }

  for (const list of all("[role=tablist]")) {
    const tabs = all("[role=tab]", list);
    const select = (chosen, focus) => {
      for (const tab of tabs) {
        const on = tab === chosen;
        tab.setAttribute("aria-selected", String(on));
        tab.tabIndex = on ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
      }
      if (focus) chosen.focus();
    };
    tabs.forEach((tab, place) => {
      tab.addEventListener("click", () => select(tab, false));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        select(tabs[(to + tabs.length) % tabs.length], true);
      });
    });
    list.hidden = false;
    select(tabs[0], false);
  }

  const sliders = all("input[data-slides]");
  const slide = (value) => {
    for (const slider of sliders) {
      slider.value = value;
      slider.setAttribute("aria-valuetext", `${value} per cent truth`);
    }
    // One cut for all pictures: what differs between variants is seen at the same place.
    document.documentElement.style.setProperty("--cut", `${value}%`);
  };
  for (const slider of sliders) slider.addEventListener("input", () => slide(slider.value));
  for (const picture of all(".compare")) {
    // The cut follows a pressed pointer over the picture itself; up and down still scrolls.
    const follow = (event) => {
      if (event.buttons !== 1) return;
      event.preventDefault();
      const box = picture.getBoundingClientRect();
      slide(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))));
    };
    picture.addEventListener("pointerdown", follow);
    picture.addEventListener("pointermove", follow);
    picture.addEventListener("dragstart", (event) => event.preventDefault());
  }

  const contents = document.querySelector("nav.contents details");
  const wide = window.matchMedia("(min-width: 72rem)");
  const unfold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", unfold);
  unfold();

  // A link to a section opens what it is folded in.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const fold = target && target.closest("details.supplement");
    if (!fold || fold.open) return;
    fold.open = true;
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);
  for (const link of all('nav.contents a')) link.addEventListener("click", () => setTimeout(reveal));
  reveal();
})();
