// Light and dark follow the system; Bootstrap reads the choice from this attribute.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function apply() { document.documentElement.setAttribute("data-bs-theme", dark.matches ? "dark" : "light"); }
  dark.addEventListener("change", apply);
  apply();
})();
