"""Networks as stacks: parameters `[stack, size]`, their values, gradients and Adam; see `nets.stacked`."""
