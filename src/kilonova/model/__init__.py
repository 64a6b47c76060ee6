"""Plain typed objects that every room shares: servers, flavors, hosts, guests, states, errors. No behaviour
that touches the outside."""
