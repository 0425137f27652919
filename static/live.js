// Mistakes are told while one types: the server looks at the form, the page swaps in what it says. Works without this file.
(function () {
  "use strict";
  document.querySelectorAll("form[data-live]").forEach(function (form) {
    var waiting, latest = 0, touched = {};
    function show(fresh) {
      Object.keys(touched).forEach(function (name) {
        var mine = form.elements[name], theirs = fresh.elements[name];
        if (!mine || !theirs) { return; }
        mine.classList.toggle("is-invalid", theirs.classList.contains("is-invalid"));
        mine.parentNode.querySelectorAll(".invalid-feedback").forEach(function (old) { old.remove(); });
        theirs.parentNode.querySelectorAll(".invalid-feedback").forEach(function (told) { mine.parentNode.append(told); });
      });
      var says = form.querySelector("[data-says]"), said = fresh.querySelector("[data-says]");
      if (says && said) { says.textContent = said.textContent; }
    }
    function ask() {
      var mine = ++latest, typed = new URLSearchParams(new FormData(form));
      typed.delete("csrf_token");
      typed.set("check", form.dataset.live);
      fetch("/controls?" + typed, { headers: { Accept: "text/html" } })
        .then(function (answer) { return answer.text(); })
        .then(function (text) {
          var page = new DOMParser().parseFromString(text, "text/html");
          var fresh = page.querySelector('form[data-live="' + form.dataset.live + '"]');
          if (mine === latest && fresh) { show(fresh); }
        })
        .catch(function () {});
    }
    form.addEventListener("input", function (event) {
      touched[event.target.name] = true;
      clearTimeout(waiting);
      waiting = setTimeout(ask, 250);
    });
  });
})();
