"use strict";
// Tables that sort and filter, tabs, the slider between truth and prediction, the values of curves under the pointer.
// Without it everything is still there.
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

  // The values of all curves at one place of a panel: under the pointer, or by the arrow keys.
  const add = (parent, name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    made.className = kind;
    return parent.appendChild(made);
  };
  const dot = (parent, look) => {
    const [picture, circle] = ["svg", "circle"].map((name) => document.createElementNS(document.querySelector("svg").namespaceURI, name));
    picture.setAttribute("viewBox", "-5 -5 10 10");
    circle.setAttribute("r", "4");
    circle.setAttribute("class", `f${look}`);
    picture.append(circle);
    parent.append(picture);
  };
  const probe = (plot, panel) => {
    const area = add(plot, "div", "", "probe");
    const [line, box] = [add(area, "div", "", "at"), add(area, "div", "", "values")];
    ["left", "top", "width", "height"].forEach((side, place) => { area.style[side] = `${panel.box[place]}%`; });
    area.tabIndex = 0;
    const last = panel.at.length - 1;
    const said = { role: "slider", "aria-label": `${panel.title}: values of the curves`, "aria-valuemin": 0, "aria-valuemax": last };
    for (const [name, value] of Object.entries(said)) area.setAttribute(name, value);
    let now = last;
    const hide = () => { line.hidden = box.hidden = true; };
    const show = (place) => {
      now = Math.min(last, Math.max(0, place));
      const there = panel.curves.filter(([, , texts]) => texts[now] !== "–");
      const head = `${panel.x} ${panel.xs[now]}`;
      box.textContent = head;
      for (const [name, look, texts] of there) {
        const row = add(box, "div", "", "");
        dot(row, look);
        row.append(name);
        add(row, "span", texts[now], "");
      }
      line.style.left = `${panel.at[now]}%`;
      // On the side where there is room.
      const right = panel.at[now] > 50;
      box.style.left = right ? "auto" : `calc(${panel.at[now]}% + 6px)`;
      box.style.right = right ? `calc(${100 - panel.at[now]}% + 6px)` : "auto";
      line.hidden = box.hidden = false;
      area.setAttribute("aria-valuenow", now);
      area.setAttribute("aria-valuetext", `${head}: ${there.map(([name, , texts]) => `${name} ${texts[now]}`).join(", ")}`);
    };
    const follow = (event) => {
      const frame = area.getBoundingClientRect();
      const across = (100 * (event.clientX - frame.left)) / frame.width;
      const far = panel.at.map((at) => Math.abs(at - across));
      show(far.indexOf(Math.min(...far)));
    };
    area.addEventListener("pointerdown", follow);
    area.addEventListener("pointermove", follow);
    area.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    area.addEventListener("focus", () => show(now));
    area.addEventListener("blur", hide);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const to = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
    show(now);
    hide();
  };
  for (const plot of all("[data-curves]")) {
    for (const panel of JSON.parse(plot.dataset.curves)) probe(plot, panel);
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
