"""For the operator and the load balancer: ``/readyz`` and ``/metrics``. Nobody need be logged in."""
