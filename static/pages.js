// Comforts only: every page works without this file.
(function () {
  "use strict";
  // Times in the reader's zone; UTC stays in the title.
  document.querySelectorAll("time[data-only]").forEach(function (element) {
    var moment = new Date(element.getAttribute("datetime"));
    if (isNaN(moment)) { return; }
    var options = element.dataset.only === "date" ? { dateStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" };
    element.textContent = new Intl.DateTimeFormat(undefined, options).format(moment);
  });
  // A form is sent once, also one that came into the page later.
  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (form.method !== "post") { return; }
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form").forEach(function (form) { delete form.dataset.sent; });
  });
  document.querySelectorAll("[data-copy]").forEach(function (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      var source = document.getElementById(button.dataset.copy);
      source.select && source.select();
      navigator.clipboard.writeText(source.value || source.textContent).then(function () { button.textContent = "Copied"; });
    });
  });
  // The account switcher folds up when something else is meant.
  document.querySelectorAll("details.switcher").forEach(function (menu) {
    document.addEventListener("click", function (event) { if (!menu.contains(event.target)) { menu.open = false; } });
    menu.addEventListener("keydown", function (event) {
      if (event.key === "Escape" && menu.open) { menu.open = false; menu.querySelector("summary").focus(); }
    });
  });
  document.querySelectorAll("form[data-auto] select").forEach(function (select) {
    select.addEventListener("change", function () { select.form.submit(); });
  });
})();
