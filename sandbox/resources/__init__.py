"""One module for each kind of object: importing it puts its calls into the table of `sandbox.routing`."""
