"""The seven stages: open the inputs, call the core, publish the outputs."""
