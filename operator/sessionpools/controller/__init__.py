"""The controller: kopf as the shell, a work queue, and the reconcile loop that wires core to kube."""
