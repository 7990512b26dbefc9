"use strict";
(() => {
  const THEMES = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  const root = document.documentElement;

  function stored(value) {
    try {
      if (value !== undefined) localStorage.setItem("drc-theme", value);
      return localStorage.getItem("drc-theme");
    } catch {
      return null; // a page from a file may have no storage
    }
  }

  function setTheme(theme) {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.dataset.theme = theme;
  }

  button.addEventListener("click", () => {
    const now = THEMES.indexOf(button.dataset.theme);
    const next = THEMES[(now + 1) % THEMES.length];
    setTheme(next);
    stored(next);
  });
  const before = stored();
  setTheme(THEMES.includes(before) ? before : "system");

  // Paper cannot be unfolded.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    for (const details of unfolded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of unfolded) details.open = false;
    unfolded = [];
  });

  for (const photo of document.querySelectorAll(".photo")) {
    const compare = photo.querySelector(".compare");
    const slider = compare.querySelector("input");
    const forms = [...compare.querySelectorAll(".form")];

    const move = () => {
      compare.style.setProperty("--at", `${slider.value}%`);
      slider.setAttribute("aria-valuetext", `${slider.value} % left image`);
    };
    slider.addEventListener("input", move);
    move();

    for (const select of photo.querySelectorAll("select")) {
      const side = select.dataset.side;
      const tag = compare.querySelector(`.tag.${side}`);
      const show = () => {
        forms.forEach((form, index) => form.classList.toggle(side, index === Number(select.value)));
        tag.textContent = select.selectedOptions[0].textContent;
      };
      select.addEventListener("change", show);
      show(); // a browser may restore an earlier choice
    }
  }
})();
