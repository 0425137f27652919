// Stripe's own fields for a card. What is typed into them goes to Stripe alone.
(function () {
  "use strict";
  var form = document.getElementById("card");
  if (!form) { return; }
  var problem = document.getElementById("card-problem"), button = form.querySelector("button");
  if (!window.Stripe) { problem.textContent = "Stripe can not be reached from this browser. Try again in a minute."; return; }
  var dark = document.documentElement.dataset.bsTheme === "dark";
  var stripe = window.Stripe(form.dataset.key);
  var elements = stripe.elements({ clientSecret: form.dataset.secret, appearance: { theme: dark ? "night" : "stripe" } });
  var fields = elements.create("payment");
  fields.on("ready", function () { button.disabled = false; });
  fields.on("loaderror", function (event) { problem.textContent = event.error.message || "The fields could not be loaded."; });
  fields.mount("#card-fields");
  form.addEventListener("submit", function (event) {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    stripe.confirmSetup({ elements: elements, confirmParams: { return_url: form.dataset.onward } }).then(function (result) {
      // Only what went wrong comes back here; otherwise the browser is on its way.
      problem.textContent = result.error.message || "The card could not be saved.";
      button.disabled = false;
    });
  });
})();
