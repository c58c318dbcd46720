"""The MNIST MLP that both adapters train: an example to read, and what `stopctl demo` runs."""
