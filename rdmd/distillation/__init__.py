"""The paper's section 3: the one-step generator, the distribution-matching gradient, the transport costs."""
