// The price follows what is typed: the server computes it, the page swaps in its answer. Works without this file.
(function () {
  "use strict";
  document.querySelectorAll("form[data-preview]").forEach(function (form) {
    var field = form.querySelector("input"), place = form.dataset.preview, waiting, latest = 0;
    form.querySelector("button").hidden = true;
    function ask() {
      var mine = ++latest;
      fetch(form.action + "?" + new URLSearchParams(new FormData(form)), { headers: { Accept: "text/html" } })
        .then(function (answer) { return answer.text(); })
        .then(function (text) {
          if (mine !== latest) { return; }
          var page = new DOMParser().parseFromString(text, "text/html"), fresh = page.querySelector(place);
          if (!fresh) { form.submit(); return; }
          document.querySelector(place).replaceChildren.apply(document.querySelector(place), fresh.childNodes);
          field.classList.toggle("is-invalid", !!document.querySelector(place + " .text-danger"));
        })
        .catch(function () { form.querySelector("button").hidden = false; });
    }
    field.addEventListener("input", function () {
      latest++;
      document.querySelectorAll(place + " button").forEach(function (button) { button.disabled = true; });
      clearTimeout(waiting);
      waiting = setTimeout(ask, 200);
    });
    form.addEventListener("submit", function (event) { event.preventDefault(); clearTimeout(waiting); ask(); });
  });
})();
